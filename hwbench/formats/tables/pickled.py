"""Pickles of plain data, without ``pickle``: a reader that can call nothing, and a writer.

A pickle is a program. This reader walks its opcodes and knows those that make containers, numbers and texts; names of
classes and functions stay inert tokens, and the few that stand for plain data (``OrderedDict``, numpy's arrays, scalars
and dtypes) are decoded here from their arguments. Everything else is refused by name. Nothing is imported, looked up or
called on the file's behalf, so there is no call to guard.
Source: the opcodes' meaning, as the standard library's ``pickletools`` documents them.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .source import WHOLE_BYTES, Source

OPCODES = 5_000_000
"""Longest program, some seconds of reading. The largest public table of this kind has about 1.5 million."""
_PROTOCOL = 2  # of what is written: every Python reads it
_MARK = object()


class _Refused(Exception):
    """What in a pickle is more than data."""


class _Name:
    """``module.name`` as the pickle spells it; never looked up."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class _Pending:
    """A numpy array or dtype whose state comes later."""

    __slots__ = ("kind", "memo", "text")

    def __init__(self, kind: str, text: str = "") -> None:
        self.kind, self.text, self.memo = kind, text, -1


def is_pickle(source: Source) -> bool:
    """Whether a file begins like a pickle of protocol 2 or later, or has an older one's name and first letter."""
    if source.head[:1] == b"\x80" and source.head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    return source.path.suffix.lower() in (".pkl", ".pickle", ".p") and source.head[:1] in b"(}]c"


def load(source: Source) -> Any:
    """The plain data that a pickle holds.

    Raises:
        UsageError: a name of a class or function in it, an opcode that does more than make data, or a cut file.
    """
    try:
        return _Machine().run(source.content(WHOLE_BYTES))
    except _Refused as error:
        raise source.bad(
            f"the pickle holds more than plain data ({error})",
            "Only containers, numbers, texts and numpy arrays are read; ask for the table in another format.",
        ) from None
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, UnicodeError) as error:
        raise source.bad(f"no whole pickle ({type(error).__name__})") from None


def dump(value: Any) -> bytes:
    """Plain data as a pickle: dicts, lists, tuples, texts, numbers, booleans and ``None``; protocol 2.

    Raises:
        TypeError: anything else.
    """
    out = bytearray([0x80, _PROTOCOL])
    _write(value, out)
    return bytes(out + b".")


def _write(value: Any, out: bytearray) -> None:
    if value is None or isinstance(value, bool):
        out += b"N" if value is None else b"\x88" if value else b"\x89"
    elif isinstance(value, int):
        packed = _long(value)
        out += b"J" + struct.pack("<i", value) if -(1 << 31) <= value < 1 << 31 else b"\x8a" + packed
    elif isinstance(value, float):
        out += b"G" + struct.pack(">d", value)
    elif isinstance(value, str):
        text = value.encode("utf-8")
        out += b"X" + struct.pack("<I", len(text)) + text
    elif isinstance(value, dict | list | tuple):
        is_map = isinstance(value, dict)
        out += b"}(" if is_map else b"](" if isinstance(value, list) else b"("
        for item in value.items() if isinstance(value, dict) else value:
            for part in item if is_map else (item,):
                _write(part, out)
        out += b"u" if is_map else b"e" if isinstance(value, list) else b"t"
    else:
        raise TypeError(f"{type(value).__name__} is no plain data")


def _long(value: int) -> bytes:
    """Length and little-endian bytes of a long integer, as LONG1 holds them."""
    size = value.bit_length() // 8 + 1
    return bytes([size]) + value.to_bytes(size, "little", signed=True)


class _Machine:
    """The stack, the memo, and one method for each family of opcodes."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(data)), start=1):
            if count > OPCODES:
                raise _Refused(f"more than {OPCODES:,} steps")
            name = opcode.name
            if name == "STOP":
                return self._plain(self.stack.pop())
            if name in _LITERALS:
                self.stack.append(argument)
            elif (act := _ACTIONS.get(name)) is not None:
                act(self, argument)
            else:
                raise _Refused(_WHY.get(name, f"the opcode {name}") + (f" {argument}" if argument is not None else ""))
        raise ValueError("no end")

    def pop_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise IndexError
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def push_tuple(self, items: Iterable[Any]) -> None:
        self.stack.append(tuple(items))

    def push_dict(self, items: list[Any]) -> None:
        self.stack.append({})
        self.set_items(items)

    def discard(self, items: list[Any]) -> None:
        """Take no note of what was popped."""

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise TypeError
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise TypeError
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_hashable(self._plain(key))] = value

    def put(self, key: int) -> None:
        value = self.stack[-1]
        self.memo[key] = value
        if type(value) is _Pending:
            value.memo = key

    def global_name(self, text: str) -> None:
        name = ".".join(text.split(" ")) if isinstance(text, str) else ""
        if name not in _KNOWN:
            raise _Refused(f"the name {name[:80]!r}")
        self.stack.append(_Name(name))

    def stack_global(self) -> None:
        module, name = self.pop(2)
        if type(module) is not str or type(name) is not str:
            raise TypeError
        self.global_name(f"{module} {name}")

    def reduce(self) -> None:
        function, arguments = self.pop(2)
        if type(function) is not _Name or type(arguments) is not tuple:
            raise _Refused("a call")
        self.stack.append(_KNOWN[function.text](function.text, *map(self._plain, arguments)))

    def build(self) -> None:
        target, state = self.pop(2)
        if type(target) is not _Pending or type(state) is not tuple:
            raise _Refused("an object's state")
        made = _array(*state[1:]) if target.kind == "array" else _ordered(target, state)
        self.stack.append(made)
        if target.memo >= 0:
            self.memo[target.memo] = made

    def _plain(self, value: Any) -> Any:
        if value is _MARK:
            raise ValueError
        return value


def _hashable(key: Any) -> Any:
    """A key that is a number, a text or a flat tuple of them: nested ones could take for ever to hash."""
    for part in key if type(key) is tuple else (key,):
        if type(part) not in (str, int, float, bool, bytes, type(None)):
            raise _Refused(f"a {type(part).__name__} in a key")
        if type(part) is int and part.bit_length() > 63:
            raise _Refused("a huge number as a key")
    return key


def _dict(_: str, pairs: Any = ()) -> dict[Any, Any]:
    if type(pairs) is dict:
        return pairs
    return {_hashable(key): value for key, value in pairs}


def _set(_: str, items: Any = ()) -> list[Any]:
    return [_hashable(item) for item in items]


def _dtype(_: str, text: Any, *_flags: Any) -> _Pending:
    text = text.decode("ascii") if type(text) is bytes else text
    if type(text) is not str or text.lstrip("<>=|") not in _DTYPES:
        raise _Refused(f"the array type {text!r:.40}")
    return _Pending("dtype", text)


def _ordered(dtype: _Pending, state: tuple[Any, ...]) -> _Pending:
    order = state[1].decode("ascii") if type(state[1]) is bytes else state[1]
    if order not in ("<", ">", "=", "|"):
        raise _Refused("the state of an array type")
    made = _Pending("dtype", order + dtype.text.lstrip("<>=|"))
    made.memo = dtype.memo
    return made


def _empty(_: str, *_arguments: Any) -> _Pending:
    return _Pending("array")


def _array(shape: Any, dtype: Any, fortran: Any, data: Any) -> np.ndarray[Any, Any]:
    if type(dtype) is not _Pending or dtype.kind != "dtype" or type(shape) is not tuple:
        raise TypeError
    if type(data) is str:  # Python 2
        data = data.encode("latin-1")
    if type(data) not in (bytes, bytearray) or not all(type(size) is int and size >= 0 for size in shape):
        raise _Refused("an array of objects")
    if len(shape) > 8 or (0 in shape and len(shape) > 1):
        raise _Refused(f"an array of shape {shape!r:.40}")
    kind = np.dtype(dtype.text)
    if math.prod(shape) * kind.itemsize != len(data):
        raise ValueError("an array whose bytes are missing")
    return np.frombuffer(bytes(data), dtype=kind).reshape(shape, order="F" if fortran is True else "C")


def _from_buffer(_: str, data: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray[Any, Any]:
    return _array(shape, dtype, order == "F", data)


def _scalar(_: str, dtype: Any, data: Any = b"") -> int | float | bool:
    value: int | float | bool = _array((), dtype, False, data).item()
    return value


def _encoded(_: str, text: Any, codec: Any = "utf-8") -> bytes:
    if type(text) is not str or codec not in ("latin1", "latin-1"):
        raise _Refused("an encoded text")
    return text.encode("latin-1")


def _not_called(name: str, *_: Any) -> Any:
    raise _Refused(f"a call of {name!r}")


_DTYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
_KNOWN: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dict,
    "__builtin__.set": _set, "__builtin__.frozenset": _set, "builtins.set": _set, "builtins.frozenset": _set,
    "_codecs.encode": _encoded,
    "numpy.ndarray": _not_called,
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.multiarray._reconstruct": _empty for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
}  # fmt: skip

_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_WHY = {"PERSID": "a reference to something outside", "BINPERSID": "a reference to something outside"}

_Act = Callable[[_Machine, Any], None]
_ACTIONS: dict[str, _Act] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "NONE": lambda m, a: m.stack.append(None),
    "NEWTRUE": lambda m, a: m.stack.append(True),
    "NEWFALSE": lambda m, a: m.stack.append(False),
    "MARK": lambda m, a: m.stack.append(_MARK),
    "POP": lambda m, a: m.discard(m.pop(1)),
    "POP_MARK": lambda m, a: m.discard(m.pop_mark()),
    "DUP": lambda m, a: m.stack.append(m.stack[-1]),
    "EMPTY_LIST": lambda m, a: m.stack.append([]),
    "EMPTY_DICT": lambda m, a: m.stack.append({}),
    "EMPTY_TUPLE": lambda m, a: m.stack.append(()),
    "LIST": lambda m, a: m.stack.append(m.pop_mark()),
    "TUPLE": lambda m, a: m.push_tuple(m.pop_mark()),
    "TUPLE1": lambda m, a: m.push_tuple(m.pop(1)),
    "TUPLE2": lambda m, a: m.push_tuple(m.pop(2)),
    "TUPLE3": lambda m, a: m.push_tuple(m.pop(3)),
    "APPEND": lambda m, a: m.extend(m.pop(1)),
    "APPENDS": lambda m, a: m.extend(m.pop_mark()),
    "SETITEM": lambda m, a: m.set_items(m.pop(2)),
    "SETITEMS": lambda m, a: m.set_items(m.pop_mark()),
    "DICT": lambda m, a: m.push_dict(m.pop_mark()),
    "EMPTY_SET": lambda m, a: m.stack.append([]),
    "ADDITEMS": lambda m, a: m.extend(m.pop_mark()),
    "FROZENSET": lambda m, a: m.stack.append(m.pop_mark()),
    "PUT": lambda m, a: m.put(a),
    "BINPUT": lambda m, a: m.put(a),
    "LONG_BINPUT": lambda m, a: m.put(a),
    "MEMOIZE": lambda m, a: m.put(len(m.memo)),
    "GET": lambda m, a: m.stack.append(m.memo[a]),
    "BINGET": lambda m, a: m.stack.append(m.memo[a]),
    "LONG_BINGET": lambda m, a: m.stack.append(m.memo[a]),
    "GLOBAL": lambda m, a: m.global_name(a),
    "STACK_GLOBAL": lambda m, a: m.stack_global(),
    "REDUCE": lambda m, a: m.reduce(),
    "BUILD": lambda m, a: m.build(),
}
