"""Model files from outside: whatever is in them, the answer is their inputs or one error with a next step."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hwbench.catalog import resolve
from hwbench.catalog.files import inspect_onnx, inspect_tflite
from hwbench.errors import HwbenchError, UsageError

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLOAT = TensorProto.FLOAT


def onnx_model(shape=(1, 3, 8, 8), *, op="Conv", domain="", nodes=None, inputs=None, weight=None, opset=18, **more):
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w") if weight is None else weight
    nodes = [helper.make_node(op, ["x", "w"], ["y"], domain=domain)] if nodes is None else nodes
    inputs = [helper.make_tensor_value_info("x", FLOAT, shape)] if inputs is None else inputs
    outputs = [helper.make_tensor_value_info("y", FLOAT, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight])
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, **more)


def written(folder: Path, model, name="net.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def refused(path, message, *args, remedy="", inspect=inspect_onnx):
    with pytest.raises(UsageError, match=message) as caught:
        inspect(path, *args)
    assert caught.value.remedy
    assert remedy in caught.value.remedy
    assert str(path) in caught.value.message


def test_a_sound_file_gives_its_inputs(tmp_path):
    path = written(tmp_path, onnx_model())
    assert inspect_onnx(path) == (("x", (1, 3, 8, 8), "float32"),)
    model = resolve(str(path))
    assert (model.source, model.path, model.identity) == ("onnx", path, f"{path.as_posix()}@1x3x8x8")


def test_an_at_sign_may_be_part_of_a_path(tmp_path):
    path = written(tmp_path, onnx_model(("n", 3, "h", "w")), "net@2.onnx")
    assert resolve(f"{path}@16").inputs == (("x", (1, 3, 16, 16), "float32"),)
    fixed = written(tmp_path, onnx_model(), "fixed@3")
    assert fixed.rename(tmp_path / "a@b.onnx").exists()
    assert resolve(str(tmp_path / "a@b.onnx")).inputs[0][1] == (1, 3, 8, 8)


def test_weights_listed_among_the_inputs_are_no_inputs(tmp_path):
    inputs = [helper.make_tensor_value_info(n, FLOAT, s) for n, s in (("x", (1, 3, 8, 8)), ("w", (4, 3, 3, 3)))]
    assert [name for name, _, _ in inspect_onnx(written(tmp_path, onnx_model(inputs=inputs)))] == ["x"]


def test_missing_and_empty_and_not_a_file(tmp_path):
    written(tmp_path, onnx_model())
    refused(tmp_path / "nett.onnx", "Did you mean net.onnx")
    refused(tmp_path / "nowhere" / "net.onnx", "There is no file")
    (tmp_path / "empty.onnx").touch()
    refused(tmp_path / "empty.onnx", "empty")
    (tmp_path / "folder.onnx").mkdir()
    refused(tmp_path / "folder.onnx", "not a regular file")


@pytest.mark.parametrize("content", [b"hello world, this is text", b"PK\x03\x04zip", b"\x00" * 64, b"\x08", b"<html>"])
def test_other_files_are_not_onnx(tmp_path, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    refused(path, "not an ONNX file")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files_say_so(tmp_path, share):
    path = written(tmp_path, onnx_model())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "truncated")


@pytest.mark.parametrize("name", ["net.onnx", "net.tflite"])
@pytest.mark.parametrize("start", [b"", b"\x08\x09", b"\x1c\x00\x00\x00TFL3"])
def test_three_gigabytes_of_nonsense_are_refused_without_reading_them(tmp_path, name, start):
    import resource

    path = tmp_path / name
    with path.open("wb") as file:  # sparse: takes no room
        file.write(start)
        file.truncate(3 * 10**9)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, "cannot be used", inspect=inspect_onnx if name.endswith("onnx") else inspect_tflite)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_more_than_protobuf_can_hold(tmp_path):
    path = written(tmp_path, onnx_model())
    length = 3 * 10**9  # one more field, unknown and well formed, of 3 GB
    varint = bytes((length >> shift) & 0x7F | (0x80 if length >> (shift + 7) else 0) for shift in range(0, 35, 7))
    with path.open("ab") as file:
        file.write(b"\xfa\x01" + varint)  # field 31, length-delimited
        file.truncate(file.tell() + length)
    refused(path, "2 GiB", remedy="external data")


def test_dynamic_shapes_want_values(tmp_path):
    path = written(tmp_path, onnx_model(("batch", 3, "height", None)))
    refused(path, r"dynamic shape: 'x' \(batch, 3, height, \?\)", remedy="--input x=1,3,224,224")
    assert inspect_onnx(path, {"x": (1, 3, 32, 24)}) == (("x", (1, 3, 32, 24), "float32"),)
    assert inspect_onnx(path, None, (32, 24)) == (("x", (1, 3, 32, 24), "float32"),)


def test_values_must_fit(tmp_path):
    path = written(tmp_path, onnx_model(("n", 3, 8, 8)))
    refused(path, "no input 'xx'. Did you mean x", {"xx": (1, 3, 8, 8)}, remedy="x")
    refused(path, "4 dimensions .* and 2 were given", {"x": (1, 3)}, remedy="--input x=1,3,8,8")
    refused(path, "fixed shape .* does not fit", {"x": (1, 4, 8, 8)})
    refused(path, "fixed shape", None, (16, 16))
    with pytest.raises(UsageError, match=r"from 1|below 1"):
        resolve(str(path), {"x": (0, 3, 8, 8)})


def test_a_graph_without_nodes(tmp_path):
    refused(written(tmp_path, onnx_model(nodes=[])), "no nodes")


def test_unknown_operators_are_named(tmp_path):
    refused(written(tmp_path, onnx_model(op="Convv")), "ai.onnx::Convv. Did you mean Conv")
    refused(written(tmp_path, onnx_model(op="Magic", domain="acme.ops")), "acme.ops::Magic")
    refused(written(tmp_path, onnx_model(op="Gelu", opset=11)), "ai.onnx::Gelu", remedy="opset 11")
    refused(written(tmp_path, onnx_model(opset=999)), "opset 999")
    written(tmp_path, onnx_model(op="FusedConv", domain="com.microsoft"))
    assert inspect_onnx(tmp_path / "net.onnx")  # ONNX Runtime's own


def test_unknown_operators_hide_nowhere(tmp_path):
    inner = helper.make_graph(
        [helper.make_node("Magic", ["x"], ["z"], domain="acme")],
        "inner",
        [],
        [helper.make_tensor_value_info("z", FLOAT, None)],
    )
    condition = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True]))
    branch = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    refused(written(tmp_path, onnx_model(nodes=[condition, branch])), "acme::Magic")


def test_operators_that_the_file_defines_are_known(tmp_path):
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("acme", "Mine", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    nodes = [helper.make_node("Mine", ["x"], ["y"], domain="acme")]
    model = onnx_model(nodes=nodes, domain="acme", functions=[function])
    assert inspect_onnx(written(tmp_path, model))[0][0] == "x"


def external(location: str, **more: str):
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[4, 3, 3, 3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return onnx_model(weight=tensor)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "", "a\0b"])
def test_weights_outside_the_folder_are_not_read(tmp_path, location):
    (tmp_path / "secret").write_bytes(b"0" * 432)
    folder = tmp_path / "in"
    folder.mkdir()
    refused(written(folder, external(location)), "outside the model's folder")


def test_weights_behind_links_are_not_read(tmp_path):
    (tmp_path / "secret").write_bytes(b"0" * 432)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "w.bin").symlink_to(tmp_path / "secret")
    (folder / "sub").symlink_to(tmp_path)
    refused(written(folder, external("w.bin")), "is a link")
    refused(written(folder, external("sub/secret")), "is a link")


def test_weights_beside_the_file(tmp_path):
    path = written(tmp_path, external("w.bin", offset="0", length="432"))
    refused(path, "'w.bin' is missing", remedy="w.bin")
    (tmp_path / "w.bin").write_bytes(b"\0" * 400)
    refused(path, "truncated")
    (tmp_path / "w.bin").write_bytes(b"\0" * 432)
    assert inspect_onnx(path)[0][0] == "x"
    refused(written(tmp_path, external("w.bin", offset="-1")), "truncated")
    refused(written(tmp_path, external("w.bin", offset="many")), "no number")


def test_inputs_that_are_no_tensors(tmp_path):
    sequence = helper.make_tensor_sequence_value_info("x", FLOAT, None)
    nodes = [helper.make_node("SequenceLength", ["x"], ["y"])]
    refused(written(tmp_path, onnx_model(inputs=[sequence], nodes=nodes)), "not a tensor")
    refused(written(tmp_path, onnx_model(None)), "no shape")
    text = [helper.make_tensor_value_info("x", TensorProto.STRING, (1,))]
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    refused(written(tmp_path, onnx_model(inputs=text, nodes=nodes)), "not numbers")


def tflite_model(shape=(1, 8, 8, 3), signature=None, *, custom=None, code=None, nodes=1, version=3) -> bytes:
    """A chain of one activation, by the schema's own object interface."""
    flatbuffers = pytest.importorskip("flatbuffers")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    tensors = []
    for name in (b"in", b"out"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, np.array(shape, np.int32), 0, 0
        if signature is not None:
            tensor.shapeSignature = np.array(signature, np.int32)
        tensors.append(tensor)
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = np.array([0], np.int32), np.array([1], np.int32)
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.name = tensors, [operator] * nodes, b"main"
    graph.inputs, graph.outputs = np.array([0], np.int32), np.array([1], np.int32)
    kind = schema.OperatorCodeT()
    kind.version = 1
    kind.builtinCode = (
        schema.BuiltinOperator.CUSTOM if custom else schema.BuiltinOperator.RELU if code is None else code
    )
    kind.deprecatedBuiltinCode = min(kind.builtinCode, 127)
    kind.customCode = custom
    weights = schema.BufferT()
    weights.data = np.zeros(256, np.uint8)
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes = version, [graph], [kind]
    model.buffers = [schema.BufferT(), weights]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def saved(folder: Path, data: bytes) -> Path:
    path = folder / "net.tflite"
    path.write_bytes(data)
    return path


def test_a_sound_tflite_file_gives_its_inputs(tmp_path):
    path = saved(tmp_path, tflite_model())
    assert inspect_tflite(path) == (("in", (1, 8, 8, 3), "float32"),)
    assert resolve(str(path)).source == "tflite"


def test_dynamic_tflite_shapes_want_values(tmp_path):
    path = saved(tmp_path, tflite_model((1, 1, 1, 3), (-1, -1, -1, 3)))
    refused(path, "dynamic shape", remedy="--input in=", inspect=inspect_tflite)
    assert resolve(f"{path}@32x24").inputs[0][1] == (1, 32, 24, 3)
    refused(path, "fixed shape", {"in": (1, 32, 24, 4)}, inspect=inspect_tflite)


def test_tflite_files_that_cannot_be_used(tmp_path):
    refused(saved(tmp_path, b"not a model at all"), "not a TFLite file", inspect=inspect_tflite)
    refused(saved(tmp_path, b""), "empty", inspect=inspect_tflite)
    refused(saved(tmp_path, tflite_model(nodes=0)), "no operators", inspect=inspect_tflite)
    refused(saved(tmp_path, tflite_model(custom=b"Magic")), "custom operator 'Magic'", inspect=inspect_tflite)
    refused(saved(tmp_path, tflite_model(code=9999)), "operator code 9999", inspect=inspect_tflite)
    refused(saved(tmp_path, tflite_model(version=4)), "schema version is 4", inspect=inspect_tflite)
    assert inspect_tflite(saved(tmp_path, tflite_model(custom=b"TFLite_Detection_PostProcess")))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_truncated_tflite_files_say_so(tmp_path, share):
    data = tflite_model()
    refused(saved(tmp_path, data[: int(len(data) * share)]), "truncated|not a TFLite", inspect=inspect_tflite)


@st.composite
def mutations(draw):
    """Places (as shares of the file) and bytes to put there, and a share to cut at."""
    edits = draw(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)), max_size=4))
    return edits, draw(st.one_of(st.just(1.0), st.floats(0, 1)))


def mutated(data: bytes, how) -> bytes:
    edits, share = how
    changed = bytearray(data)
    for place, values in edits:
        start = int(place * len(changed))
        changed[start : start + len(values)] = values
    return bytes(changed[: int(len(changed) * share)])


def answers(path: Path, inspect) -> None:
    try:
        for name, shape, dtype in inspect(path):
            assert isinstance(name, str)
            assert all(n > 0 for n in shape)
            assert np.dtype(dtype)
    except HwbenchError as error:
        assert error.remedy  # noqa: PT017  either answer is right


FUZZ = settings(max_examples=150, deadline=None)


@FUZZ
@given(mutations())
@example(([], 0.5))
def test_damaged_onnx_files_only_raise_our_errors(tmp_path, how):
    answers(written(tmp_path, onnx_model()), inspect_onnx)
    data = external("w.bin").SerializeToString()
    (tmp_path / "w.bin").write_bytes(b"\0" * 432)
    for whole in (data, onnx_model().SerializeToString()):
        path = tmp_path / "mutant.onnx"
        path.write_bytes(mutated(whole, how))
        answers(path, inspect_onnx)


@FUZZ
@given(mutations())
def test_damaged_tflite_files_only_raise_our_errors(tmp_path, how):
    answers(saved(tmp_path, mutated(tflite_model(), how)), inspect_tflite)


@FUZZ
@given(st.binary(max_size=200))
def test_random_bytes_only_raise_our_errors(tmp_path, data):
    for name, inspect in (("net.onnx", inspect_onnx), ("net.tflite", inspect_tflite)):
        path = tmp_path / name
        path.write_bytes(data)
        answers(path, inspect)
    path.write_bytes(b"\x1c\0\0\0TFL3" + data)
    answers(path, inspect_tflite)


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "hwbench.catalog.onnx_file", raising=False)
    monkeypatch.delattr("hwbench.catalog.onnx_file", raising=False)
    path = tmp_path / "net.onnx"
    shutil.copyfile(__file__, path)
    with pytest.raises(HwbenchError, match="needs onnx") as caught:
        inspect_onnx(path)
    assert "hwbench[onnxruntime]" in caught.value.remedy
