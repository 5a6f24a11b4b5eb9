"""Lookup tables of other tools, read and written; one module per format, over one neutral row (:class:`Record`).

::

    foreign = read_table("pixel1.yaml")                       format recognised, units converted, known faults listed
    table = to_lookup_table(foreign, space, device="pixel1")  rows found among the space's blocks
    write_table(table, "out.yaml", "ofa")                     and the other way round

``docs/table-formats.md`` says what each format holds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UsageError, did_you_mean
from ...writing import whole
from .foreign import Fault, Foreign, Record
from .incoming import known_faults, to_lookup_table
from .source import Source

if TYPE_CHECKING:
    from ...catalog.spaces.space import Space
    from ...lut.table import LookupTable

__all__ = ["FORMATS", "Export", "Fault", "Foreign", "Format", "Record", "read_table", "to_lookup_table", "write_table"]


@dataclass(frozen=True, slots=True)
class Format:
    """A format's names in its module; an empty one is what cannot be done.

    Attributes:
        title: what it is, as a command's help shows it.
        module: beside this one.
        recognises: from a file's name and first bytes.
        read: into a :class:`Foreign`.
        write: from one of our tables.
        holds: what can be written: names of spaces, ``"any space"``, ``"kernels"``.
    """

    title: str
    module: str
    recognises: str = ""
    read: str = ""
    write: str = ""
    holds: tuple[str, ...] = ()

    def function(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(importlib.import_module(f"{__name__}.{self.module}"), getattr(self, name))
        return found


_ALL = ("any space", "kernels")

FORMATS = {
    "ofa": Format("OFA's YAML or JSON, ms; in a folder a file per resolution", "ofa", "recognises", "read", "write",
                  ("ofa-mbv3", "ofa-mbv3-w1.2")),
    "proxyless": Format("ProxylessNAS's YAML or JSON, ms", "ofa", "recognises", "read", "write_proxyless",
                        ("ofa-proxyless",)),
    "fbnet": Format("FBNet's (mobile-vision) JSON lines, µs", "fbnet", "recognises", "read", "write", _ALL),
    "hw-nas-bench": Format("HW-NAS-Bench's pickle or JSON, ms and mJ", "hw_nas_bench", "recognises", "read", "write",
                           ("fbnet", "nasbench201")),
    "hardcore-nas": Format("HardCoRe-NAS's pickle, s", "pickles", "recognises_hardcore", "read_hardcore"),
    "tf-nas": Format("TF-NAS's pickle, ms", "pickles", "recognises_tf_nas", "read_tf_nas"),
    "eagle": Format("Eagle's pickle of NAS-Bench-201, s", "pickles", "recognises_eagle", "read_eagle"),
    "paddleslim": Format("PaddleSlim's text, ms", "paddleslim", "recognises", "read", "write", ("kernels",)),
    "nnlqp": Format("NNLQP's gt.txt, ms", "lines", "recognises_nnlqp", "read_nnlqp", "write_nnlqp"),
    "nn-meter": Format("nn-Meter's profiled kernels, JSON, ms", "nn_meter", "recognises", "read", "write",
                       ("kernels",)),
    "nn-meter-data": Format("nn-Meter's data set, JSON lines, ms", "lines", "recognises_data_set", "read_data_set"),
    "nni": Format("NNI's latency table, JSON, ms", "nni", write="write", holds=("fbnet",)),
    "spaceevo": Format("SpaceEvo's CSV, ms", "columns", "recognises_space_evo", "read_space_evo"),
    "litepred": Format("LitePred's CSV, ms", "columns", "recognises_litepred", "read_litepred", "write_litepred",
                       ("kernels",)),
    "csv": Format("our own CSV of keys and costs, s", "columns", "recognises", "read", "write", _ALL),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Export:
    """What :func:`write_table` wrote.

    Attributes:
        paths: the files.
        entries: how many of the table's entries are in them.
        left_out: keys of those that the format has no words for.
        missing: keys of the space's blocks that the table has no entry for.
        notes: what a reader of the files must know.
    """

    paths: tuple[Path, ...]
    entries: int
    left_out: tuple[str, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


def read_table(path: str | Path, format: str | None = None, *, skip_faulty: bool = False) -> Foreign:
    """Read another tool's table.

    Args:
        path: the file, or a folder of files called ``{resolution}_lookup_table.yaml`` (or ``.json``).
        format: one of :data:`FORMATS`; recognised from the file where it is ``None``.
        skip_faulty: leave out entries that cannot be (text inside a number, negative or NaN cost, a key that is there
            twice) and list them among the faults, instead of raising.

    Raises:
        UsageError: no such file, an empty or cut one, one of no known format or of several, a faulty entry, or a
            pickle that is more than data.
    """
    files = sorted(Path(path).glob("*_lookup_table.*")) if Path(path).is_dir() else []
    foreign = (
        _joined([_read(file, format, skip_faulty) for file in files]) if files else _read(path, format, skip_faulty)
    )
    faults = []
    for device in foreign.devices or (None,):
        on = "" if device is None or len(foreign.devices) == 1 else f"{device}: "
        faults += [replace(fault, text=on + fault.text) for fault in known_faults(foreign.on(device))]
    return replace(foreign, faults=(*foreign.faults, *faults))


def _read(path: str | Path, format: str | None, skip_faulty: bool) -> Foreign:
    source = Source.open(path)
    chosen = _known(format, "read") if format is not None else _recognised(source)
    foreign: Foreign = FORMATS[chosen].function("read")(source, skip_faulty)
    return foreign


def _joined(tables: list[Foreign]) -> Foreign:
    """Tables of several resolutions as one; layers that do not depend on it stand in each of them."""
    first = tables[0]
    if any((table.format, table.dialect) != (first.format, first.dialect) for table in tables):
        raise UsageError("The folder's tables are of several formats.", remedy="Read them one by one.")
    records: dict[str, Record] = {}
    others = set()
    for record in (record for table in tables for record in table.records):
        if records.setdefault(record.raw_key, record).latency_s != record.latency_s:
            others.add(record.raw_key)
    notes = [note for table in tables for note in table.notes]
    if others:
        notes.append(f"{len(others)} keys stand in several files with other costs: the first file's were kept")
    faults = tuple(fault for table in tables for fault in table.faults)
    return replace(first, records=tuple(records.values()), notes=tuple(dict.fromkeys(notes)), faults=faults)


def _recognised(source: Source) -> str:
    found = [name for name, known in FORMATS.items() if known.recognises and known.function("recognises")(source)]
    modules = {(FORMATS[name].module, FORMATS[name].read) for name in found}
    if len(modules) == 1:
        return found[0]
    if not found:
        raise source.bad("no format of a lookup table that is known", f"Name it: {', '.join(_able('read'))}.")
    raise source.bad(f"it could be {' or '.join(found)}", "Name the format.")


def _able(what: str) -> list[str]:
    return [name for name, known in FORMATS.items() if getattr(known, what)]


def _known(name: str, what: str) -> str:
    able = _able(what)
    if name in able:
        return name
    if name in FORMATS:
        done = {"read": "written only, not read", "write": "read only, not written"}[what]
        raise UsageError(f"The format '{name}' is {done}.", remedy=f"Formats that can be: {', '.join(able)}.")
    hint = did_you_mean(name, able)
    raise UsageError(f"There is no table format '{name}'. {hint}".strip(), remedy=f"Known: {', '.join(able)}.")


def write_table(table: LookupTable, path: str | Path, format: str, *, space: Space | None = None) -> Export:
    """Write a lookup table as a file of another tool; each file appears whole or not at all.

    Args:
        table: of a space or of kernels.
        path: the file. For ``ofa`` and ``proxyless`` also a folder (one that is there, or a path without suffix), into
            which go files called ``{resolution}_lookup_table.yaml``.
        format: one of :data:`FORMATS`.
        space: the table's space where it is not installed under the table's name.

    Raises:
        UsageError: unknown format, one that cannot hold this table (it says which can), or a table of another space.
        LookupMiss: whole networks are written and a block has no entry.
        DeviceError: a file cannot be written.
    """
    from .outgoing import outgoing

    chosen = _known(format, "write")
    going = outgoing(table, space)
    target = Path(path)
    folder = target.is_dir() or (not target.suffix and chosen in ("ofa", "proxyless"))
    if folder and chosen not in ("ofa", "proxyless"):
        raise UsageError(f"{target} is a folder.", remedy="Name the file to write.")
    written = FORMATS[chosen].function("write")(going, "" if folder else target.name)
    paths = []
    for name, content in written.files.items():
        file = (target if folder else target.parent) / name
        with whole(file, "table") as out:
            out.write(content)
        paths.append(file)
    left_out = written.left_out
    return Export(tuple(paths), len(table.entries) - len(left_out), left_out, going.missing, written.notes)
