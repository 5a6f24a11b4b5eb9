"""The error tree: its exit codes, its picture in the docstring, and the hints it gives."""

from __future__ import annotations

import inspect

import pytest

from hwbench import errors
from hwbench.errors import HwbenchError, did_you_mean

EXIT_CODES = {"UsageError": 2, "MissingDependency": 2, "DeviceError": 3, "WorkerError": 4, "LookupMiss": 5}


def tree() -> dict[str, type[HwbenchError]]:
    classes = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, HwbenchError)]
    return {cls.__name__: cls for cls in classes if cls is not HwbenchError}


def test_the_tree_is_flat_and_has_the_documented_exit_codes() -> None:
    assert {name: cls.exit_code for name, cls in tree().items()} == EXIT_CODES
    assert all(cls.__bases__ == (HwbenchError,) for cls in tree().values())


def test_the_verdict_of_a_comparison_has_an_exit_code_of_its_own() -> None:
    assert errors.EXIT_VERDICT not in {0, 1, *EXIT_CODES.values()}


@pytest.mark.parametrize("name", EXIT_CODES)
def test_the_module_docstring_draws_every_leaf(name: str) -> None:
    (line,) = (line for line in (errors.__doc__ or "").splitlines() if f"── {name} " in line)
    assert line.endswith(f"exit {EXIT_CODES[name]}")


def test_an_error_prints_its_message_and_carries_the_rest() -> None:
    error = errors.DeviceError("pi5 does not answer: timed out.", remedy="Is it on?", detail="argv: ssh pi5")
    assert str(error) == "pi5 does not answer: timed out."
    assert error.as_dict() == {
        "type": "DeviceError",
        "message": "pi5 does not answer: timed out.",
        "remedy": "Is it on?",
        "detail": "argv: ssh pi5",
        "exit_code": 3,
    }


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("onxruntime", ["onnxruntime", "torch"], "Did you mean onnxruntime?"),
        ("fp61", ["fp16", "fp32", "int8"], "Did you mean fp16?"),
        ("v2_10", ["v2_100", "v1_100", "vit"], "Did you mean v2_100 or v1_100?"),
        ("zzz", ["onnxruntime"], ""),
        ("x", [], ""),
    ],
)  # fmt: skip
def test_did_you_mean(name: str, known: list[str], hint: str) -> None:
    assert did_you_mean(name, iter(known)) == hint


def test_did_you_mean_names_at_most_three() -> None:
    assert did_you_mean("net_1", [f"net_{i}" for i in range(2, 9)]).count("net_") == 3
