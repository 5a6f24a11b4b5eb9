"""LightGBM's text of a model, checked before LightGBM reads it.

The library indexes arrays by what the text says and does not look whether they are that long. Only what our own fits
write is let through: numerical splits, constant leaves, one output. Source: LightGBM's ``Tree::ToString`` (4.x).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ..errors import UsageError

MOST_LEAVES, MOST_TREES = 4096, 20_000
_HEAD = {"version": ("v4", "v3"), "num_class": ("1",), "num_tree_per_iteration": ("1",)}
_OBJECTIVE = re.compile(r"objective=huber[a-z_0-9. :]{0,60}")
_AGAIN = "Train it again (hwbench predictor train), or copy it again from where it came."
_BY_NODE = ("split_feature", "threshold", "decision_type", "left_child", "right_child", "split_gain",
            "internal_value", "internal_weight", "internal_count")  # fmt: skip
_WHOLES = ("split_feature", "decision_type", "left_child", "right_child")
_FOREIGN = re.compile(r"[^\n\x20-\x7e]")
_FIELD = re.compile(r"([a-z_]+)=([^=]*)")
_WHOLE, _NUMBER = re.compile(r"-?[0-9]{1,9}"), re.compile(r"-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?")
_BY_LEAF = ("leaf_value", "leaf_weight", "leaf_count")


def checked(text: str, columns: int) -> str:
    """The text, when every tree in it is whole and looks at no column that is not there. Raises UsageError."""
    if _FOREIGN.search(text):  # LightGBM ends a line at \r and the text at \0, where what is read here goes on
        raise _damaged("it holds characters that no fit here writes")
    head, *parts = text.partition("\nend of trees")[0].split("\nTree=")
    if not head.startswith("tree\n") or not 0 < len(parts) <= MOST_TREES or "\nend of trees" not in text:
        raise _damaged("it is no model of LightGBM")
    known = _fields(head.removeprefix("tree\n"), "its head")
    for name, allowed in _HEAD.items():
        if known.get(name) not in allowed:
            raise _damaged(f"{name} is {known.get(name)!r}")
    if known.get("max_feature_idx") != str(columns - 1) or not _OBJECTIVE.fullmatch(
        f"objective={known.get('objective')}"
    ):
        raise _damaged("it reads other columns than this predictor has")
    if len(known.get("feature_names", "").split(" ")) != columns:
        raise _damaged("it names other columns than this predictor has")
    if len(known.get("feature_infos", "").split(" ")) != columns:
        raise _damaged("it describes other columns than this predictor has")
    for number, part in enumerate(parts):
        place, _, body = part.partition("\n")
        if place != str(number):
            raise _damaged(f"tree {number} is missing")
        _check_tree(_fields(body, f"tree {number}"), columns, number)
    # Sizes of trees are offsets into the text that the library trusts; it also reads a model without them.
    return re.sub(r"\ntree_sizes=[^\n]*", "", text)


def _fields(text: str, where: str) -> dict[str, str]:
    """The fields of a part, blank lines at its end left out.

    Each stands on a line of its own, and once: which of two counts, and whether a part goes on behind a blank line, the
    library decides in its own way. Raises UsageError.
    """
    found: dict[str, str] = {}
    for line in text.rstrip("\n").split("\n"):
        match = _FIELD.fullmatch(line)
        if match is None or match[1] in found:
            raise _damaged(f"{where} holds the line {line[:40]!r}")
        found[match[1]] = match[2]
    return found


def _check_tree(fields: Mapping[str, str], columns: int, number: int) -> None:
    where = f"tree {number}"
    leaves = _whole(fields.get("num_leaves", ""), where)
    if not 1 <= leaves <= MOST_LEAVES or fields.get("num_cat") != "0" or fields.get("is_linear", "0") != "0":
        raise _damaged(f"{where} is of a kind that no fit here makes")
    values = _numbers(fields, "leaf_value", leaves, where)
    if any(abs(value) > 50.0 for value in values):
        raise _damaged(f"{where} answers beyond all measure")
    if leaves == 1:
        return
    for name in _BY_LEAF[1:]:
        _numbers(fields, name, leaves, where)
    nodes = {name: _numbers(fields, name, leaves - 1, where) for name in _BY_NODE}
    if any(not 0 <= feature < columns for feature in nodes["split_feature"]):
        raise _damaged(f"{where} looks at a column that is not there")
    if any(kind not in (0, 2, 4, 6, 8, 10) for kind in nodes["decision_type"]):
        raise _damaged(f"{where} splits in a way that no fit here does")
    _check_shape([int(v) for v in nodes["left_child"]], [int(v) for v in nodes["right_child"]], leaves, where)


def _check_shape(left: list[int], right: list[int], leaves: int, where: str) -> None:
    """Every node and leaf is somebody's child once, and a child comes after its parent, so that walks end."""
    seen: set[int] = set()
    for node, pair in enumerate(zip(left, right, strict=True)):
        for child in pair:
            inside = node < child < leaves - 1 if child >= 0 else -leaves <= child
            if not inside or child in seen:
                raise _damaged(f"{where} is no tree")
            seen.add(child)


def _numbers(fields: Mapping[str, str], name: str, count: int, where: str) -> list[float]:
    words = fields.get(name, "").split(" ")
    form = _WHOLE if name in _WHOLES else _NUMBER  # of what Python reads as a number, the library reads some otherwise
    if not all(map(form.fullmatch, words)):
        raise _damaged(f"{name} of {where} holds what is no number")
    found = [float(word) for word in words]
    if len(found) != count or not all(math.isfinite(value) for value in found):
        raise _damaged(f"{name} of {where} has {len(found)} numbers where {count} are expected")
    return found


def _whole(text: str, where: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise _damaged(f"the size of {where} is {text[:20]!r}")
    return int(text)


def _damaged(why: str) -> UsageError:
    return UsageError(f"Its trees are damaged: {why}.", remedy=_AGAIN)
