"""The zipapp: what is in it, that equal content gives equal bytes, and that it stands on its own."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import zipfile
from pathlib import Path

from hwbench.cache import Cache, file_sha256
from hwbench.island import zipapp
from hwbench.runtimes.fake import RUNTIME


def test_it_holds_the_worker_and_the_one_session_that_was_asked_for(tmp_path: Path) -> None:
    path, _ = zipapp(RUNTIME.session, Cache(tmp_path))
    names = set(zipfile.ZipFile(path).namelist())
    assert {"__main__.py", "hwbench_worker/__main__.py", "hwbench_worker/meters/__init__.py"} <= names
    assert {name for name in names if "/sessions/" in name} == {
        "hwbench_worker/sessions/__init__.py",
        "hwbench_worker/sessions/fake.py",
    }
    assert not [name for name in names if name.startswith("hwbench/")]


def test_every_file_in_it_is_python_3_8(tmp_path: Path) -> None:
    path, _ = zipapp(RUNTIME.session, Cache(tmp_path))
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            ast.parse(archive.read(name), filename=name, feature_version=(3, 8))


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    (one, sha_one), (two, sha_two) = (zipapp(RUNTIME.session, Cache(tmp_path / name)) for name in "ab")
    assert sha_one == sha_two
    assert file_sha256(one) == file_sha256(two)


def test_it_is_built_once(tmp_path: Path) -> None:
    first, _ = zipapp(RUNTIME.session, Cache(tmp_path))
    made = first.stat().st_mtime_ns
    assert zipapp(RUNTIME.session, Cache(tmp_path))[0].stat().st_mtime_ns == made


def test_a_session_of_an_outside_package_travels_too(tmp_path: Path) -> None:
    session = tmp_path / "outside.py"
    session.write_text("ONE = 1\n")
    path, sha = zipapp(session, Cache(tmp_path / "cache"))
    assert zipfile.ZipFile(path).read("hwbench_worker/sessions/outside.py") == b"ONE = 1\n"
    session.write_text("ONE = 2\n")
    other, other_sha = zipapp(session, Cache(tmp_path / "cache"))
    assert other_sha != sha
    assert zipfile.ZipFile(other).read("hwbench_worker/sessions/outside.py") == b"ONE = 2\n"


def test_it_runs_where_hwbench_is_not_installed(tmp_path: Path) -> None:
    path, _ = zipapp(RUNTIME.session, Cache(tmp_path))
    # numpy's folder is the only one on the path: hwbench cannot be imported from the checkout or the environment.
    code = (
        "import sys, runpy, importlib.abc\n"
        "class No(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0] == 'hwbench': raise ImportError('hwbench stays at home')\n"
        "sys.meta_path.insert(0, No())\n"
        f"runpy.run_path({str(path)!r}, run_name='__main__')\n"
    )
    job = json.dumps({"id": 7, "do": "hello", "session": "fake"}) + "\n"
    ended = subprocess.run(
        [sys.executable, "-c", code], input=job, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=True
    )
    answer = json.loads(ended.stdout)
    assert answer["id"] == 7
    assert answer["ok"]["probe"]["versions"] == {"fake": "1"}
