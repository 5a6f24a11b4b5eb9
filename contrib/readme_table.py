"""Write the README's tables of devices, runtimes, passes and options from what the runtimes declare.

python contrib/readme_table.py            # writes it
python contrib/readme_table.py --check    # exit code 1 when it is not what stands there
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hwbench import plugins, runtimes
from hwbench.measurement import PASSES
from hwbench.runtimes import Place, Runtime

README = Path(__file__).resolve().parent.parent / "README.md"
MADE = ("runtimes", "options")  # what stands between marks of these names
UNITS = {"cpu": "a CPU with Linux", "android": "an Android phone", "cuda": "an NVIDIA GPU"}


def cell(places: Sequence[Place], unit: str) -> str:
    place = next((place for place in places if place.unit == unit), None)
    if place is None:
        return ""
    passes = "all passes" if place.passes == PASSES else ", ".join(place.passes)
    return "; ".join(part for part in (passes, ", ".join(place.precisions), place.note) if part)


def row(runtime: Runtime) -> str:
    cells = [cell(getattr(runtime, "places", ()), unit) for unit in UNITS]
    return "".join(f"| {text} " if text else "| " for text in (f"`{runtime.name}`", *cells)) + "|"


def shown() -> list[Runtime]:
    """Runtimes of hwbench itself that say where they run."""
    points = plugins.names("hwbench.runtimes").values()
    ours = [point.name for point in points if point.dist is None or point.dist.name == "hwbench"]
    return [runtime for runtime in map(runtimes.find, ours) if getattr(runtime, "places", ())]


def table(name: str) -> list[str]:
    """One of the tables as lines of Markdown."""
    if name == "runtimes":
        rows = [row(runtime) for runtime in shown()]
        return [f"| | {' | '.join(UNITS.values())} |", "|---" * (len(UNITS) + 1) + "|", *rows]
    rows = [
        f"| `{runtime.name}+{option}` | {what} |" for runtime in shown() for option, what in runtime.options.items()
    ]
    return ["| option | |", "|---|---|", *rows]


def written(text: str) -> str:
    """The text with the tables in place of what stood between their marks."""
    for name in MADE:
        begin, end = f"<!-- {name}: made by contrib/readme_table.py -->", f"<!-- /{name} -->"
        before, _, rest = text.partition(begin)
        text = before + "\n".join([begin, "", *table(name), "", end]) + rest.partition(end)[2]
    return text


def main() -> None:
    text = README.read_text(encoding="utf-8")
    if "--check" in sys.argv[1:]:
        sys.exit(int(written(text) != text))
    README.write_text(written(text), encoding="utf-8")


if __name__ == "__main__":
    main()
