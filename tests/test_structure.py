"""What the layout promises: who may import whom, what the island may use, what must never be in the tree."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hwbench"

# A module imports only from modules above its own; those of one line may use each other.
# A new module needs a place here: first ask which noun it is the home of.
LAYOUT = (
    ("errors",),
    ("units",),
    ("writing",),
    ("target",),
    ("kernel",),
    ("plugins",),
    ("cache",),
    ("worker",),  # the island; nothing above it is used in it, and its statistics are used below
    ("estimate",),
    ("slope",),
    ("anchored",),
    ("caveats",),
    ("closure",),
    ("energy",),
    ("sessions", "views", "measurement"),  # a measurement's views take its sessions
    ("catalog",),
    ("island",),  # packs the worker
    ("channels",),
    ("device",),
    ("android",),
    ("runtimes",),
    ("enrol",),
    ("remote",),
    ("bench",),
    ("store", "migrations"),
    ("results",),
    ("campaign",),
    ("api",),
    ("split",),
    ("pareto",),
    ("lut",),
    ("predict",),
    ("search",),
    ("compare",),
    ("doctor",),
    ("simulate",),
    ("formats",),
    ("report",),
    ("selftest",),
    ("demo",),
    ("testing",),
    ("cli",),
    ("__init__", "__main__"),
)
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "onnxruntime",
    "openvino",
    "onnx",
    "pandas",
    "matplotlib",
    "scipy",
    "plotly",
    "ai_edge_litert",
    "lightgbm",
    "sklearn",
}

# What each corner of the island may import besides the standard library, numpy and the island itself.
ISLAND_EXTRAS = {
    "worker/sessions/onnxruntime.py": {"onnxruntime"},
    "worker/sessions/openvino.py": {"openvino"},
    "worker/sessions/torch.py": {"torch", "torchvision", "timm"},
    "worker/sessions/litert.py": {"ai_edge_litert", "tflite_runtime"},
    "worker/litert_capi.py": {"ai_edge_litert", "tflite_runtime"},
    "worker/meters": {"pynvml"},
}
YOUNGER_THAN_38 = {"zoneinfo", "graphlib", "tomllib"}
YOUNGER_FUNCTIONS = {"functools.cache", "itertools.pairwise", "asyncio.to_thread", "math.lcm", "random.randbytes"}
YOUNGER_METHODS = {"removeprefix", "removesuffix", "bit_count", "is_relative_to", "with_stem"}
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "yaml.load",
}

MODULES = sorted(PACKAGE.rglob("*.py"))
ISLAND = [path for path in MODULES if path.is_relative_to(PACKAGE / "worker")]


def label(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


each_module = pytest.mark.parametrize("path", MODULES, ids=label)
each_island_module = pytest.mark.parametrize("path", ISLAND, ids=label)


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def dotted(path: Path) -> str:
    """``hwbench/catalog/__init__.py`` → ``hwbench.catalog``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def our_modules() -> frozenset[str]:
    return frozenset(dotted(path) for path in MODULES)


def is_late(node: ast.AST) -> bool:
    """Whether what stands inside runs only when a function is called, or never."""
    for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    return for_types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


@functools.cache
def imports(path: Path, *, late: bool = True) -> frozenset[str]:
    """Absolute dotted names of all a module imports; ``late`` counts those inside functions and for types only."""
    return frozenset(_imports(path, late))


def _imports(path: Path, late: bool) -> Iterator[str]:
    package = dotted(path) if path.name == "__init__.py" else dotted(path).rpartition(".")[0]
    nodes = list(ast.walk(parsed(path)))
    skipped = set() if late else {inner for node in nodes if is_late(node) for inner in ast.walk(node)}
    for node in nodes:
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            near = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*near, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                yield whole if whole in our_modules() or source == "hwbench" else source


def our_imports(path: Path, *, late: bool = True) -> set[str]:
    ours = {name for name in imports(path, late=late) if name.split(".")[0] == "hwbench"}
    return ours - {"hwbench.__version__"}  # a constant, which anything may store beside its results


def tier(module: str) -> int:
    """Line of the layout that a dotted name of ours stands in."""
    name = [*module.split("."), "__init__"][1]
    return next((line for line, names in enumerate(LAYOUT) if name in names), -1)


@functools.cache
def calls(path: Path) -> tuple[tuple[str, ast.Call], ...]:
    found = (node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call))
    return tuple((ast.unparse(node.func), node) for node in found)


# --- who may import whom -------------------------------------------------------------------------------------------


@each_module
def test_every_module_has_a_place_in_the_layout(path: Path) -> None:
    assert tier(dotted(path)) >= 0, f"{label(path)} is in no line of LAYOUT"


@each_module
def test_imports_point_upwards(path: Path) -> None:
    own = tier(dotted(path))
    wrong = {name for name in our_imports(path) if not 0 <= tier(name) <= own}
    assert not wrong, f"{label(path)} imports from below it: {wrong}"


def test_no_modules_need_each_other_to_be_imported() -> None:
    graph = {dotted(path): our_imports(path, late=False) & our_modules() - {dotted(path)} for path in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def test_the_walk_sees_lazy_relative_and_typing_imports() -> None:
    assert {"hwbench.catalog.model", "hwbench.kernel", "hwbench.errors"} <= our_imports(
        PACKAGE / "runtimes/__init__.py"
    )
    assert tier("hwbench.errors.UsageError") == 0
    assert tier("hwbench.nowhere") == -1
    assert tier("hwbench") == len(LAYOUT) - 1


def test_public_names_stay_what_they_are_when_everything_is_imported() -> None:
    # Importing hwbench.x puts the module into the package as `x`, over a public name that is spelled alike.
    code = "import hwbench\nfor name in hwbench.__all__:\n    getattr(hwbench, name)\n"
    code += "import types\nprint([n for n in hwbench.__all__ if isinstance(getattr(hwbench, n), types.ModuleType)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


# --- the island ----------------------------------------------------------------------------------------------------


@each_island_module
def test_the_island_is_python_3_8(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    ast.parse(source, filename=str(path), feature_version=(3, 8))
    if parsed(path).body[1:]:
        assert "from __future__ import annotations" in source
    for name, call in calls(path):
        young = {keyword.arg for keyword in call.keywords} & {"slots", "kw_only", "strict"}
        assert not young, f"line {call.lineno}: {name}({young}) is younger than Python 3.8"
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            young = node.attr in YOUNGER_METHODS or ast.unparse(node) in YOUNGER_FUNCTIONS
            assert not young, f"line {node.lineno}: {ast.unparse(node)} is younger than Python 3.8"


@each_island_module
def test_the_island_imports_nothing_of_ours_and_little_of_others(path: Path) -> None:
    allowed = (sys.stdlib_module_names - YOUNGER_THAN_38) | {"numpy"}
    allowed |= ISLAND_EXTRAS.get(label(path), set()) | ISLAND_EXTRAS.get(label(path.parent), set())
    for name in imports(path):
        inside = name == "hwbench.worker" or name.startswith("hwbench.worker.")
        assert inside or name.split(".")[0] in allowed, f"{label(path)} imports {name}"


@each_island_module
def test_the_island_imports_itself_relatively(path: Path) -> None:
    absolute = [
        node.lineno
        for node in ast.walk(parsed(path))
        if (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("hwbench"))
        or (isinstance(node, ast.Import) and any(alias.name.startswith("hwbench") for alias in node.names))
    ]
    assert not absolute, "the zipapp that travels to a device holds no package called hwbench"


# --- what is never done --------------------------------------------------------------------------------------------


@each_module
def test_nothing_unsafe(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & UNSAFE_MODULES
    for name, call in calls(path):
        assert name not in UNSAFE_CALLS, f"line {call.lineno}: {name}"
        for keyword in call.keywords:
            literal = isinstance(keyword.value, ast.Constant) and keyword.value.value
            assert not (keyword.arg in ("shell", "allow_pickle") and literal), f"line {call.lineno}: {name}"


@each_module
def test_modules_are_named_for_what_they_hold_and_have_one_idea(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "helper", "base", "manager", "common", "misc"}
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


# --- what stays light ----------------------------------------------------------------------------------------------


def heavy_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*(m for m in sys.modules if '.' not in m), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stderr.split()) & HEAVY


def test_importing_hwbench_is_light() -> None:
    assert heavy_after("import hwbench") == set()


def test_help_is_light() -> None:
    run = "import runpy\nsys.argv = ['hwbench', '--help']\n"
    run += (
        "try:\n    runpy.run_module('hwbench', run_name='__main__')\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert heavy_after(run) == set()


def test_help_names_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hwbench", "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    commands = {
        "models",
        "devices",
        "doctor",
        "profile",
        "show",
        "compare",
        "noise-floor",
        "selftest",
        "export",
        "report",
        "demo",
    }
    assert {command for command in commands if re.search(rf"^\s*{command}\b", done.stdout, re.MULTILINE)} == commands


def test_files_that_start_first_are_there() -> None:
    from conftest import LONGEST

    assert {f"test_{name}.py" for name in LONGEST} <= {path.name for path in (ROOT / "tests").iterdir()}


# --- what is never in the tree -------------------------------------------------------------------------------------


@functools.cache
def tracked() -> tuple[Path, ...]:
    done = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return tuple(path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file())


def test_no_file_is_over_a_megabyte() -> None:
    assert [str(path) for path in tracked() if path.stat().st_size > 1_000_000] == []


def test_no_file_names_a_registry_or_a_path_of_the_machine_it_was_written_on() -> None:
    # Put together here, so that this file does not hold what it looks for.
    hosts = [
        ("pypi", "org"),
        ("files", "pythonhosted"),
        ("deb", "debian", "org"),
        ("registry", "npmjs"),
        ("conda", "anaconda"),
    ]
    folders = [("work", "main"), ("work", "scratch"), ("work", "shared"), ("farm", ""), ("opt", "pypi"), ("root", "")]
    patterns = [re.escape(".".join(host)) for host in hosts]
    patterns += [rf"(?<![\w.~-])/{'/'.join(folder)}" for folder in folders]
    forbidden = re.compile("|".join(patterns).encode())
    found = {
        str(path.relative_to(ROOT)): match.group()
        for path in tracked()
        if (match := forbidden.search(path.read_bytes()))
    }
    assert found == {}
