"""MACs against a second counter, which looks at torch's functions from above and knows layers by their definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from core.macs import macs
from core.measure import sizes
from tests.conformance.networks import _small_maxvit

# --- the second counter ---------------------------------------------------------------------------------------

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


class ByDefinition(TorchFunctionMode):
    """Adds up what each function of torch is defined to multiply; what it calls itself is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        defined = FUNCTIONS.get(getattr(func, "__name__", ""))
        if defined is not None:
            self.count += defined(out, *args, **(kwargs or {}))
        return out


def conv(out: Tensor, x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return out.numel() * weight[0].numel()


def conv_transpose(out: Tensor, x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return x.numel() * weight[0].numel()


def linear(out: Tensor, x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return out.numel() * weight.shape[1]


def matmul(out: Tensor, a: Tensor, b: Tensor, **_: Any) -> int:
    return out.numel() * a.shape[-1]


def reversed_matmul(out: Tensor, b: Tensor, a: Tensor) -> int:
    return matmul(out, a, b)


def added_matmul(out: Tensor, bias: Tensor, a: Tensor, b: Tensor, **_: Any) -> int:
    return out.numel() * a.shape[-1]


def added_batches(out: Tensor, bias: Tensor, a: Tensor, b: Tensor, **_: Any) -> int:
    return out.numel() * a.shape[-1] * a.shape[0]


def einsum(out: Tensor, equation: str, *operands: Tensor) -> int:
    indices = equation.replace(" ", "").split("->")[0].split(",")
    size = {i: n for names, x in zip(indices, operands, strict=True) for i, n in zip(names, x.shape, strict=True)}
    return math.prod(size.values())


def attention(out: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    pairs = math.prod(q.shape[:-1]) * k.shape[-2]
    return pairs * q.shape[-1] + pairs * v.shape[-1]


def multi_head(out: Any, q: Tensor, k: Tensor, v: Tensor, width: int, *_: Any, **__: Any) -> int:
    """Unbatched (L, E), or (L, N, E): four projections, scores and their product with the values, over all heads."""
    rows, seen, batch = q.numel() // q.shape[-1], k.numel() // k.shape[-1], q.shape[1] if q.dim() == 3 else 1
    projections = rows * width * width + seen * (k.shape[-1] + v.shape[-1]) * width + rows * width * width
    return projections + 2 * rows * (seen // batch) * width


def bilinear(out: Tensor, x: Tensor, y: Tensor, weight: Tensor, *_: Any) -> int:
    return out[..., 0].numel() * weight.numel()


FUNCTIONS: dict[str, Callable[..., int]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), conv_transpose),
    "linear": linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "__matmul__"), matmul),
    "__rmatmul__": reversed_matmul,
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), added_matmul),
    "addbmm": added_batches,
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
    "multi_head_attention_forward": multi_head,
    "bilinear": bilinear,
}


def recurrent(module: Any, args: Any, _: Any) -> int:
    """gates·h·(in + h) for each row, layer and direction; with a projection, p for h wherever h is read, and h·p."""
    x = args[0]
    packed = isinstance(x, nn.utils.rnn.PackedSequence)
    rows = len(x.data) if packed else x.numel() // x.shape[-1]
    gates = {"LSTM": 4, "GRU": 3}.get(type(module).__name__, 1)
    hidden, seen = module.hidden_size, module.proj_size or module.hidden_size
    ways = 2 if module.bidirectional else 1
    total = 0
    for layer in range(module.num_layers):
        reads = module.input_size if layer == 0 else seen * ways
        total += ways * (gates * hidden * (reads + seen) + (hidden * seen if module.proj_size else 0))
    return rows * total


def cell(module: Any, args: Any, _: Any) -> int:
    gates = {"LSTMCell": 4, "GRUCell": 3}.get(type(module).__name__, 1)
    rows = args[0].numel() // args[0].shape[-1]
    return rows * gates * module.hidden_size * (module.input_size + module.hidden_size)


def by_definition(model: nn.Module, *inputs: Any) -> int:
    counter = ByDefinition()

    def hook(count: Callable[..., int]) -> Callable[..., None]:
        def add(*seen: Any) -> None:
            counter.count += count(*seen)

        return add

    handles = []
    for module in model.modules():
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            counted = recurrent if isinstance(module, nn.RNNBase) else cell
            handles.append(module.register_forward_hook(hook(counted)))
    with torch.no_grad(), counter:
        model(*inputs)
    for handle in handles:
        handle.remove()
    return counter.count


# --- networks -------------------------------------------------------------------------------------------------


class Function(nn.Module):
    """A function of the inputs, and modules it uses."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def x(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def packed() -> nn.utils.rnn.PackedSequence:
    return nn.utils.rnn.pack_padded_sequence(x(3, 7, 6), torch.tensor([7, 4, 2]), batch_first=True)


def decoder() -> nn.Module:
    layer = nn.TransformerDecoderLayer(16, 4, 24, batch_first=True)
    return nn.TransformerDecoder(layer, 2)


def encoder(**options: Any) -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 24, **options), 2, enable_nested_tensor=False)


def heads(m: Any, y: Tensor) -> Tensor:
    """Attention as most people write it, with two heads."""
    n, t, c = y.shape
    q, k, v = m.qkv(y).reshape(n, t, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
    z = (q @ k.transpose(-2, -1) * 0.3).softmax(-1) @ v
    return m.out(z.transpose(1, 2).reshape(n, t, c))


def unrolled(m: Any, y: Tensor) -> Tensor:
    state = gates = None
    for step in y.unbind(1):
        state = m.lstm(step, state)
        gates = m.gru(m.rnn(step), gates)
    return state[0] + gates


def sdpa(**options: Any) -> nn.Module:
    return Function(lambda m, q, k, v: F.scaled_dot_product_attention(q, k, v, **options))


def of_a_mask(m: Any, q: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, q, q, attn_mask=torch.ones(5, 5, dtype=torch.bool).tril())


Q, FEWER = x(2, 4, 5, 8), x(2, 2, 5, 8)
SMALL: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...]]] = {
    "conv-1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, groups=2), (x(2, 4, 9),)),
    "conv-3d": (lambda: nn.Conv3d(2, 3, (1, 3, 2)), (x(2, 2, 4, 5, 6),)),
    "conv-unbatched": (lambda: nn.Conv2d(3, 4, 3), (x(3, 8, 8),)),
    "conv-reflected": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (x(2, 3, 8, 8),)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, output_padding=1), (x(2, 4, 5, 5),)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (x(2, 4, 8, 8),)),
    "linear-unbatched": (lambda: nn.Linear(7, 3), (x(7),)),
    "linear-many-axes": (lambda: nn.Linear(7, 3, bias=False), (x(2, 3, 4, 7),)),
    "bilinear": (lambda: nn.Bilinear(4, 5, 6), (x(3, 4), x(3, 5))),
    "vectors": (lambda: Function(lambda m, a, b: torch.mv(a, b) + torch.addmv(b[:3], a, b)), (x(3, 4), x(4))),
    "dot": (lambda: Function(lambda m, a, b: torch.dot(a, b) + a @ b), (x(4), x(4))),
    "batches": (
        lambda: Function(
            lambda m, a, b, c: torch.addbmm(c, a, b) + torch.baddbmm(c, a, b) + torch.addmm(c, a[0], b[0])
        ),
        (x(2, 3, 4), x(2, 4, 5), x(3, 5)),
    ),
    "lstm": (lambda: nn.LSTM(6, 8), (x(5, 2, 6),)),
    "lstm-two-ways": (lambda: nn.LSTM(6, 8, 3, bidirectional=True, batch_first=True), (x(2, 5, 6),)),
    "lstm-projected": (lambda: nn.LSTM(6, 8, 2, proj_size=3, bidirectional=True), (x(5, 2, 6),)),
    "lstm-no-bias": (lambda: nn.LSTM(6, 8, 2, bias=False), (x(5, 2, 6),)),
    "lstm-unbatched": (lambda: nn.LSTM(6, 8), (x(5, 6),)),
    "lstm-packed": (lambda: nn.LSTM(6, 8, 2, bidirectional=True, batch_first=True), (packed(),)),
    "gru": (lambda: nn.GRU(6, 8, 2, bidirectional=True), (x(5, 2, 6),)),
    "gru-packed": (lambda: nn.GRU(6, 8, batch_first=True), (packed(),)),
    "rnn": (lambda: nn.RNN(6, 8, 2, nonlinearity="relu"), (x(5, 2, 6),)),
    "rnn-unbatched": (lambda: nn.RNN(6, 8, bidirectional=True), (x(5, 6),)),
    "cells": (
        lambda: Function(unrolled, lstm=nn.LSTMCell(6, 8), rnn=nn.RNNCell(6, 7), gru=nn.GRUCell(7, 8)),
        (x(2, 5, 6),),
    ),
    "encoder": (lambda: encoder(batch_first=True), (x(2, 5, 16),)),
    "encoder-norm-first": (lambda: encoder(norm_first=True, activation="gelu"), (x(5, 2, 16),)),
    "encoder-unbatched": (lambda: encoder(), (x(5, 16),)),
    "decoder": (decoder, (x(2, 5, 16), x(2, 7, 16))),
    "transformer": (lambda: nn.Transformer(16, 4, 1, 1, 24, batch_first=True), (x(2, 5, 16), x(2, 7, 16))),
    "multi-head": (lambda: nn.MultiheadAttention(16, 4, batch_first=True), (x(2, 5, 16),) * 3),
    "multi-head-across": (
        lambda: nn.MultiheadAttention(16, 2, kdim=6, vdim=10),
        (x(5, 2, 16), x(7, 2, 6), x(7, 2, 10)),
    ),
    "multi-head-unbatched": (lambda: nn.MultiheadAttention(16, 4), (x(5, 16),) * 3),
    "attention-by-hand": (lambda: Function(heads, qkv=nn.Linear(16, 48), out=nn.Linear(16, 16)), (x(2, 5, 16),)),
    "attention-einsum": (
        lambda: Function(
            lambda m, a, b: torch.einsum("bij,bjc->bic", torch.einsum("bic,bjc->bij", a, b).softmax(-1), b)
        ),
        (x(2, 5, 8), x(2, 7, 8)),
    ),
    "attention-bmm": (lambda: Function(lambda m, a, b: torch.bmm(torch.bmm(a, b.mT), b)), (x(2, 5, 8), x(2, 7, 8))),
    "attention": (sdpa, (Q, x(2, 4, 7, 8), x(2, 4, 7, 6))),
    "attention-causal": (lambda: sdpa(is_causal=True), (Q, Q, Q)),
    "attention-masked": (lambda: Function(of_a_mask), (Q,)),
    "attention-fewer-heads": (lambda: sdpa(enable_gqa=True), (Q, FEWER, FEWER)),
    "attention-one-head": (sdpa, (x(2, 5, 8), x(2, 7, 8), x(2, 7, 8))),
}
VISION = {
    **dict.fromkeys(("squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small", "resnet18"), 64),
    **dict.fromkeys(("mobilenet_v2", "densenet121", "regnet_y_400mf", "convnext_tiny", "efficientnet_b0"), 64),
    **{"vit_b_16": 224, "swin_t": 64, "swin_v2_t": 64, "maxvit_t": 64, "googlenet": 64, "resnext50_32x4d": 64},
}
LIGHT = ("squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small", "resnet18")


def vision(name: str) -> nn.Module:
    options = {"init_weights": False} if name == "googlenet" else {}
    net = _small_maxvit(10) if name == "maxvit_t" else getattr(torchvision.models, name)(**options)
    return net.eval()


# --- tests ----------------------------------------------------------------------------------------------------


def test_the_tables_have_fifty_networks() -> None:
    assert len(SMALL) == 39
    assert len(VISION) == 15


@pytest.mark.parametrize("name", SMALL)
def test_macs_are_those_of_the_definition(name: str) -> None:
    make, inputs = SMALL[name]
    model = make().eval()
    expected = by_definition(model, *inputs)
    assert macs(model, *inputs) == expected > 0
    with torch.inference_mode():
        assert macs(model, *inputs) == expected
    if not any(isinstance(m, nn.TransformerEncoder) for m in model.modules()):
        assert macs(model.train(), *inputs) == expected


@pytest.mark.parametrize("name", [n for n in SMALL if "packed" not in n])
def test_macs_do_not_depend_on_the_number_format(name: str) -> None:
    make, inputs = SMALL[name]
    model = make().eval()
    assert macs(model.double(), *(i.double() for i in inputs)) == by_definition(make().eval(), *inputs)


@pytest.mark.parametrize("name", [n if n in LIGHT else pytest.param(n, marks=pytest.mark.slow) for n in VISION])
def test_macs_of_torchvisions_networks_are_those_of_the_definition(name: str) -> None:
    model, images = vision(name), x(2, 3, VISION[name], VISION[name])
    assert sizes(model, images)["macs"] * 2 == by_definition(model, images) > 0


PUBLISHED = ("resnet18", "mobilenet_v2", "densenet121", "squeezenet1_1", "regnet_y_400mf", "convnext_tiny", "vit_b_16")


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_macs_are_the_published_ones(name: str) -> None:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    side = weights.transforms().crop_size[0]
    found = sizes(getattr(torchvision.models, name)().eval(), torch.zeros(1, 3, side, side))["macs"]
    assert found / 1e9 == pytest.approx(weights.meta["_ops"], rel=0.02)


def test_lstm_by_hand() -> None:
    """Two layers, two ways: 5·3 rows; 4 gates of 8 that read 6 and 8, then 16 and 8."""
    assert macs(nn.LSTM(6, 8, 2, bidirectional=True), x(5, 3, 6)) == 15 * 2 * (32 * (6 + 8) + 32 * (16 + 8))


def test_encoder_by_hand() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 2).eval()
    row = 64 * 3 * 64 + 64 * 64 + 2 * 64 * 128 + 2 * 10 * 64
    assert sizes(model, x(1, 10, 64))["macs"] == 2 * 10 * row


@pytest.mark.parametrize("before", [True, False])
def test_counting_leaves_the_fast_path_as_it_was(before: bool) -> None:
    def seen(m: Any, y: Tensor) -> Tensor:
        assert not torch.backends.mha.get_fastpath_enabled()
        return y.nonsense if len(y) > 2 else y

    was, grad = torch.backends.mha.get_fastpath_enabled(), torch.is_grad_enabled()
    torch.backends.mha.set_fastpath_enabled(before)
    try:
        macs(Function(seen), x(2))
        with pytest.raises(AttributeError):
            macs(Function(seen), x(3))
        assert torch.backends.mha.get_fastpath_enabled() is before
        assert torch.is_grad_enabled() is grad
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


def test_what_is_said_to_count_as_nothing_does() -> None:
    for function in (
        lambda m, y: F.grid_sample(y, y.new_zeros(2, 4, 4, 2), align_corners=False),
        lambda m, y: torchvision.ops.deform_conv2d(y, y.new_zeros(2, 2, 4, 4), y.new_zeros(5, 3, 1, 1)),
        lambda m, y: F.embedding(torch.zeros(2, dtype=torch.long), y[0, 0]),
        lambda m, y: F.interpolate(y, scale_factor=2).square().sum(),
        lambda m, y: torch.fft.fft(y).abs() + y * y,
    ):
        assert macs(Function(function), x(2, 3, 4, 4)) == 0
