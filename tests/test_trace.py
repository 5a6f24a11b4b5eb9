"""Layers and counts of eager modules, against torch's own counter."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.catalog.operators import describe, op_name
from hwbench.catalog.trace import count, kernels
from hwbench.errors import UsageError, WorkerError
from hwbench.kernel import Kernel, Tensor, live_bytes

torch = pytest.importorskip("torch")
nn = torch.nn
F = torch.nn.functional


def witness(module, *inputs) -> int:
    """MACs by an independent counter."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        module(*inputs)
    return counter.get_total_flops() // 2


class Calls(nn.Module):
    """A module around a function."""

    def __init__(self, function, *parameters) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(parameters)

    def forward(self, *inputs):
        return self.function(*inputs, *self.weights)


def meta(*shape):
    return torch.empty(shape, device="meta")


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return F.relu(x + self.norm(self.conv(x)))


def test_operators_between_modules_are_layers_with_their_module_path():
    model = nn.Sequential(Residual(), Residual()).eval()
    layers = kernels(model, [torch.zeros(1, 4, 8, 8)])
    assert [(layer.name, layer.module) for layer in layers[:5]] == [
        ("0.conv/conv2d", "0.conv"),
        ("0.norm/batch_norm", "0.norm"),
        ("0/add", "0"),
        ("0/relu", "0"),
        ("1.conv/conv2d", "1.conv"),
    ]
    assert layers[0].inputs == ("input",)
    assert layers[2].inputs == ("input", "0.norm/batch_norm")
    assert sum(layer.kernel.cost().params for layer in layers) == sum(p.numel() for p in model.parameters())
    assert len({layer.name for layer in layers}) == len(layers)


@settings(max_examples=40, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.one_of(st.integers(0, 2), st.sampled_from(["same", "valid"])),
    transposed=st.booleans(),
)
def test_convolutions_count_like_torch(groups, kernel, stride, dilation, padding, transposed):
    if transposed:
        padding = 0 if isinstance(padding, str) else padding
        conv = nn.ConvTranspose2d(8, 12, kernel, stride, padding, groups=groups, dilation=dilation, device="meta")
    else:
        stride = 1 if padding == "same" else stride
        conv = nn.Conv2d(8, 12, kernel, stride, padding, dilation, groups, device="meta")
    x = meta(2, 8, 17, 19)
    (layer,) = kernels(conv, [x])
    assert layer.kernel.cost().macs == witness(conv, x)
    assert layer.kernel.attribute("groups") == groups
    assert layer.kernel.attribute("in_channels") == 8
    assert layer.kernel.kind == ("conv_transpose" if transposed else "conv")
    assert Kernel.parse(layer.kernel.key) == layer.kernel


PRODUCTS = {
    "matmul operator": (lambda a, b: a @ b, [(2, 3, 5, 7), (7, 11)]),
    "broadcast matmul": (torch.matmul, [(4, 1, 5, 7), (3, 7, 2)]),
    "vector": (torch.matmul, [(7,), (7,)]),
    "bmm": (torch.bmm, [(4, 5, 7), (4, 7, 3)]),
    "addmm": (lambda a, b, c: torch.addmm(c, a, b), [(5, 7), (7, 3), (5, 3)]),
    "baddbmm": (lambda a, b, c: torch.baddbmm(c, a, b), [(2, 5, 7), (2, 7, 3), (2, 5, 3)]),
    "einsum": (lambda a, b: torch.einsum("bhqd,bhkd->bhqk", a, b), [(2, 3, 5, 7), (2, 3, 4, 7)]),
    "einsum without arrow": (lambda a, b: torch.einsum("ij,jk", a, b), [(5, 7), (7, 3)]),
    "einsum with ellipsis": (lambda a, b: torch.einsum("...ij,kj->...ik", a, b), [(2, 3, 5, 7), (4, 7)]),
    "einsum of three": (lambda a, b, c: torch.einsum("ij,jk,kl->il", a, b, c), [(5, 7), (7, 3), (3, 2)]),
    "attention": (F.scaled_dot_product_attention, [(2, 3, 5, 8), (2, 3, 6, 8), (2, 3, 6, 4)]),
    "linear": (F.linear, [(2, 5, 7), (3, 7)]),
}


@pytest.mark.parametrize("case", PRODUCTS)
def test_products_count_like_torch(case):
    function, shapes = PRODUCTS[case]
    inputs = [meta(*shape) for shape in shapes]
    module = Calls(function)
    macs = count(module, inputs).macs
    assert macs > 0
    expected = witness(module, *inputs)
    assert macs == (expected or 7)  # torch's counter leaves a product of two vectors out


def test_modules_that_hide_their_products_are_opened():
    encoder = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    recurrent = nn.GRU(8, 6, batch_first=True).eval()
    for module, x in ((encoder, torch.zeros(2, 5, 16)), (recurrent, torch.zeros(2, 5, 8))):
        slow = copy.deepcopy(module).to("meta").requires_grad_()
        assert count(module, [x]).macs == pytest.approx(witness(slow, x.to("meta")), rel=0.01)


CELLS = {"LSTMCell": 4, "GRUCell": 3, "RNNCell": 1}


@pytest.mark.parametrize("kind", CELLS)
def test_cells_multiply(kind):
    cell = getattr(nn, kind)(8, 6)
    assert count(cell, [torch.zeros(5, 8)]).macs == 5 * CELLS[kind] * 6 * (8 + 6)


@pytest.mark.parametrize(
    "function", [lambda a, b: torch.addbmm(torch.zeros(5, 3), a, b), torch.linalg.matmul], ids=["addbmm", "linalg"]
)
def test_a_product_of_no_known_name_is_opened(function):
    inputs = [torch.zeros(4, 5, 7), torch.zeros(4, 7, 3)]
    assert count(Calls(function), inputs).macs == 4 * 5 * 7 * 3


def test_a_recurrent_layer_counts_in_a_model_that_looks_at_values_too():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 2)

        def forward(self, x):
            y = self.lstm(x)[0]
            return self.head(y) if float(y.sum()) < 1e9 else y

    assert count(Gated().eval(), [torch.zeros(2, 5, 8)]).macs == 10 * (4 * 6 * 14 + 6 * 2)


def test_what_an_extension_multiplies_is_not_said_to_be_none():
    with torch.library._scoped_library("hwbench_test", "DEF") as library:
        library.define("double(Tensor x) -> Tensor")
        library.impl("double", lambda x: x * 2, "CompositeExplicitAutograd")
        (layer,) = kernels(Calls(torch.ops.hwbench_test.double), [torch.zeros(2, 3)])
    assert (layer.kernel.op, layer.kernel.cost().macs) == ("double", None)


def test_torchscript_says_what_to_give_instead():
    with pytest.raises(WorkerError, match="is TorchScript") as caught:
        kernels(torch.jit.trace(nn.Linear(3, 3), torch.zeros(1, 3)), [torch.zeros(1, 3)])
    assert "made from" in caught.value.remedy


def test_a_lone_sample_and_a_learnt_input_are_convolved_like_any():
    conv = nn.ConvTranspose2d(8, 12, 3, groups=2)
    (lone,) = kernels(conv, [torch.zeros(8, 5, 7)])
    learnt = Calls(lambda x, seed: conv(seed) + x, nn.Parameter(torch.zeros(1, 8, 5, 7)))
    layers = kernels(learnt, [torch.zeros(1)])
    assert [lone.kernel.cost().macs, layers[0].kernel.cost().macs] == [8 * 35 * 6 * 9] * 2


def test_a_view_of_a_weight_is_no_activation():
    """A language model's head multiplies by its table of words."""
    layers = kernels(Calls(lambda x, table: x @ table.t(), nn.Parameter(torch.zeros(1000, 8))), [torch.zeros(2, 8)])
    assert [layer.kernel.op for layer in layers] == ["t", "matmul"]
    assert max(live_bytes(layers)) == 4 * (2 * 8 + 2 * 1000)


def test_whatever_a_forward_pass_raises_is_one_error():
    def function(x):
        raise ZeroDivisionError

    with pytest.raises(WorkerError, match="1x3 int64: ZeroDivisionError"):
        kernels(Calls(function), [torch.zeros(1, 3, dtype=torch.int64)])


def test_weights_that_are_computed_are_not_constant():
    module = Calls(lambda x, w: F.conv2d(x, w / w.std()), nn.Parameter(torch.ones(4, 3, 3, 3)))
    layers = kernels(module, [torch.zeros(1, 3, 8, 8)])
    conv = next(layer for layer in layers if layer.kernel.kind == "conv")
    assert conv.kernel.cost().params == 0
    assert conv.kernel.cost().macs == 4 * 36 * 27


def test_views_and_in_place_results_hold_no_bytes_of_their_own():
    def function(x):
        y = x * 2  # 1 kB read, 1 kB written
        y = y.view(-1).relu_()
        return (y[:128] + y[128:]).sum()

    layers = kernels(Calls(function), [torch.zeros(16, 16)])
    assert [layer.kernel.op for layer in layers] == ["mul", "view", "relu", "getitem", "getitem", "add", "sum"]
    assert layers[1].outputs == layers[2].outputs == ()
    assert layers[-2].inputs == ("mul", "mul")
    assert live_bytes(layers) == [2048, 1024, 1024, 1024, 1024, 1024 + 512, 512 + 4]


def test_a_module_that_looks_at_values_runs_for_real():
    def function(x, w):
        return x @ w if float(x.sum()) > 0 else x

    assert count(Calls(function, nn.Parameter(torch.ones(8, 4))), [torch.ones(2, 8)]).macs == 64


def test_what_is_computed_once_is_no_layer_and_stays_out_of_the_module():
    class Keeping(nn.Module):
        table = None

        def forward(self, x):
            if self.table is None:
                self.table = torch.ones(4).exp()
            return x * self.table

    module = Keeping()
    assert [layer.kernel.op for layer in kernels(module, [torch.zeros(2, 4)])] == ["mul"]
    assert module.table is None


def test_the_module_is_left_as_it_was():
    model = nn.Sequential(Residual())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kernels(model.eval(), [torch.ones(1, 4, 8, 8)])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(WorkerError, match="1x3x8x8") as caught:
        kernels(Residual(), [torch.zeros(1, 3, 8, 8)])
    assert "--input" in caught.value.remedy


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("relu_", "relu"), ("__iadd__", "add"), ("__rsub__", "sub"), ("aten.addmm.default", "addmm"),
        ("aten::add_", "add"), ("__getitem__", "getitem"), ("__truediv__", "div"), ("aten._softmax.default", "softmax"),
        (torch.Tensor.__matmul__, "matmul"), (F.conv2d, "conv2d"), ("_transformer_encoder_layer_fwd",) * 2,
    ],
)  # fmt: skip
def test_forms_of_an_operator_share_a_name(form, name):
    assert op_name(form) == name


def test_records_and_tensors_give_the_same_kernel():
    conv = ([1, 1], "same", [1, 1], 2)
    tensors = describe("conv2d", [meta(1, 4, 9, 9), meta(6, 2, 4, 4), None, *conv], {}, meta(1, 6, 9, 9))
    records = describe(
        "conv2d", [Tensor((1, 4, 9, 9)), Tensor((6, 2, 4, 4)), None, *conv], None, [Tensor((1, 6, 9, 9))]
    )
    assert tensors == records
    assert records.attribute("pads") == (1, 1, 2, 2)


def test_a_convolution_without_weights_is_refused():
    with pytest.raises(UsageError, match="conv2d"):
        describe("conv2d", [Tensor((1, 3, 8, 8))], {}, Tensor((1, 3, 8, 8)))


def test_unknown_operators_are_other_and_move_bytes():
    kernel = describe("my_op", [Tensor((4, 4)), 3, "mode", None], {"flag": True}, Tensor((2, 4)))
    assert (kernel.kind, kernel.cost().macs, kernel.cost().moved_bytes) == ("other", 0, 96)
    assert kernel.attribute("args") == (3, "mode")
    assert Kernel.parse(kernel.key) == kernel
