"""The parts of random networks: torch's layers with random settings, and modules as researchers write them."""

import math
import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

__all__ = ["PIECES", "build_piece"]

Builder = Callable[[random.Random, Sequence[int]], nn.Module]
"""From random numbers and the shape of one example, (channels, *size), to a module."""

PIECES: dict[str, Builder] = {}


def build_piece(name: str, seed: int, shape: Sequence[int]) -> tuple[nn.Module, tuple[int, ...]]:
    """Build one piece, always the same one; return it and the shape of one example behind it.

    A piece that this shape is too small for, or has too few dimensions for, becomes an identity.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of old weight_norm, and of kernels of even length
        torch.manual_seed(seed)
        try:
            piece = PIECES[name](random.Random(seed), shape).double().eval()
            after = tuple(piece(torch.randn(2, *shape, dtype=torch.float64)).shape[1:])
        except (RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError, AssertionError):
            return nn.Identity(), tuple(shape)
    if math.prod(after) > 1024 or math.prod(after) == 0:
        return nn.Identity(), tuple(shape)
    return piece.train(), after


def _piece(builder: Builder) -> Builder:
    PIECES[builder.__name__.strip("_")] = builder
    return builder


def _of(kind: str, shape: Sequence[int]) -> Any:
    return getattr(nn, f"{kind}{len(shape) - 1}d")


@_piece
def conv(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    channels = shape[0]
    if len(shape) == 1:
        return nn.Linear(channels, rng.choice([3, 5, 8]), bias=rng.random() < 0.8)
    groups = rng.choice([1, 1, 1, channels, math.gcd(channels, 2)])
    stride = rng.choice([1, 1, 2])
    padding = rng.choice([0, 1, 1, "same"]) if stride == 1 else rng.choice([0, 1])
    return _of("Conv", shape)(
        channels,
        groups * rng.choice([1, 2, 3]) if groups > 1 else rng.choice([2, 4, 6]),
        rng.choice([1, 2, 3, 3]),
        stride=stride,
        padding=padding,
        dilation=rng.choice([1, 1, 1, 2]),
        groups=groups,
        bias=rng.random() < 0.7,
        padding_mode=rng.choice(["zeros"] * 5 + ["reflect", "circular", "replicate"]),
    )


@_piece
def transposed(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    groups, stride = rng.choice([1, math.gcd(shape[0], 2)]), rng.choice([1, 2])
    return _of("ConvTranspose", shape)(
        shape[0],
        groups * rng.choice([1, 2]),
        rng.choice([2, 3]),
        stride=stride,
        padding=rng.choice([0, 1]),
        output_padding=rng.randrange(stride),
        groups=groups,
        bias=rng.random() < 0.7,
    )


@_piece
def batch_norm(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    kind = nn.BatchNorm1d if len(shape) == 1 else _of("BatchNorm", shape)
    norm = kind(shape[0], affine=rng.random() < 0.8, momentum=rng.choice([0.1, 0.5, None, 1.0]))
    norm.running_mean.normal_(0, 0.3)
    norm.running_var.uniform_(0.5, 2)
    return _randomised(norm)


@_piece
def group_norm(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    groups = rng.choice([g for g in range(1, shape[0] + 1) if shape[0] % g == 0])
    return _randomised(nn.GroupNorm(groups, shape[0], affine=rng.random() < 0.8))


@_piece
def instance_norm(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    track = rng.random() < 0.3
    norm = _of("InstanceNorm", shape)(shape[0], affine=rng.random() < 0.7, track_running_stats=track)
    if track:
        norm.running_var.uniform_(0.5, 2)
    return _randomised(norm)


@_piece
def layer_norm(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    kind = rng.choice([nn.LayerNorm, nn.LayerNorm, nn.RMSNorm])
    return _randomised(kind(list(shape) if rng.random() < 0.5 else shape[-1:], elementwise_affine=rng.random() < 0.8))


@_piece
def response_norm(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    return nn.LocalResponseNorm(rng.choice([2, 3]))


def _randomised(norm: nn.Module) -> nn.Module:
    for parameter in norm.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return norm


_ACTIVATIONS: tuple[Callable[[bool], nn.Module], ...] = (
    *(lambda i, kind=kind: kind(inplace=i) for kind in (nn.ReLU, nn.ReLU, nn.LeakyReLU, nn.SiLU, nn.ELU, nn.SELU)),
    *(lambda i, kind=kind: kind(inplace=i) for kind in (nn.CELU, nn.Mish, nn.Hardswish, nn.Hardtanh, nn.ReLU6)),
    *(lambda i, kind=kind: kind() for kind in (nn.GELU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.PReLU)),
    *(lambda i, kind=kind: kind() for kind in (nn.LogSigmoid, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.RReLU)),
    lambda i: nn.GELU(approximate="tanh"),
    lambda i: nn.Threshold(0.1, 0.2, inplace=i),
    lambda i: nn.Softmax(dim=1),
)


@_piece
def activation(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    return rng.choice(_ACTIVATIONS)(rng.random() < 0.4)


@_piece
def gated(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    return nn.GLU(dim=1)


@_piece
def pool(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    kind = rng.choice(["AvgPool", "MaxPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "LPPool"])
    if kind.startswith("Adaptive"):
        return _of(kind, shape)(rng.choice([1, 2, 3]))
    if kind == "LPPool":
        return nn.Sequential(nn.Softplus(), _of(kind, shape)(2, 2))
    kernel = rng.choice([2, 3])
    return _of(kind, shape)(kernel, stride=rng.choice([1, 2, None]), padding=rng.choice([0, kernel // 2]))


@_piece
def resize(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    if len(shape) == 3 and rng.random() < 0.3:
        return rng.choice([nn.PixelShuffle(2), nn.PixelUnshuffle(2), nn.ZeroPad2d(1), nn.Unfold(2)])
    smooth = {2: "linear", 3: "bilinear", 4: "trilinear"}[len(shape)]
    return nn.Upsample(scale_factor=2, mode=rng.choice(["nearest", smooth]))


@_piece
def dropout(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    kinds = [nn.Dropout, nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout]
    if len(shape) > 1:
        kinds.append(_of("Dropout", shape))
    return rng.choice(kinds)(rng.choice([0.0, 0.2, 0.5]))


@_piece
def residual(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    return _Residual(_same_shape(rng, shape), rng.choice(_ACTIVATIONS)(False), in_place=rng.random() < 0.3)


@_piece
def shared(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    twice = _same_shape(rng, shape)
    return nn.Sequential(twice, rng.choice(_ACTIVATIONS)(False), twice)


@_piece
def reparametrized(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    layer = _same_shape(rng, shape)
    kind = rng.choice(["weight_norm", "old weight_norm", "spectral_norm", "old spectral_norm", "orthogonal", "own"])
    if kind == "own":
        parametrize.register_parametrization(layer, "weight", _Softened())
        return layer
    wrap = {
        "weight_norm": parametrizations.weight_norm,
        "old weight_norm": nn.utils.weight_norm,
        "spectral_norm": parametrizations.spectral_norm,
        "old spectral_norm": nn.utils.spectral_norm,
        "orthogonal": parametrizations.orthogonal,
    }[kind]
    return wrap(layer)


@_piece
def attention(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    kind = rng.choice(["functional", "MultiheadAttention", "TransformerEncoderLayer"])
    if kind == "TransformerEncoderLayer":
        layer = nn.TransformerEncoderLayer(
            shape[0], 1, 6, dropout=rng.choice([0.0, 0.2]), batch_first=True, norm_first=rng.random() < 0.5
        )
        return _Positions(layer, len(shape))
    if kind == "MultiheadAttention":
        return _Positions(_SelfAttention(shape[0]), len(shape))
    return _Positions(_Attention(shape[0]), len(shape))


@_piece
def recurrent(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    return _Positions(_First(rng.choice([nn.LSTM, nn.GRU, nn.RNN])(shape[0], 4, batch_first=True)), len(shape))


@_piece
def custom(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    return rng.choice(
        [
            _InPlace,
            _Scaled,
            _StochasticDepth,
            _NoiseInTraining,
            _OwnNoiseInTraining,
            _KeepsActivations,
            _CountsInTraining,
            _AddsToBuffer,
            _Views,
            _LateNoise,
        ]
    )(rng)


def _same_shape(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    if len(shape) == 1:
        return nn.Linear(shape[0], shape[0])
    return _of("Conv", shape)(shape[0], shape[0], 3, padding=1, groups=rng.choice([1, 1, shape[0]]))


class _Residual(nn.Module):
    def __init__(self, branch: nn.Module, activation: nn.Module, *, in_place: bool) -> None:
        super().__init__()
        self.branch, self.activation, self.in_place = branch, activation, in_place

    def forward(self, x: Tensor) -> Tensor:
        out = self.branch(self.activation(x))
        if self.in_place:
            out += x
            return out
        return out + x


class _Softened(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.tanh() * weight.norm()


class _Positions(nn.Module):
    """Gives a layer the positions of an image as a sequence, shape (n, positions, channels), and takes them back."""

    def __init__(self, layer: nn.Module, dims: int) -> None:
        super().__init__()
        if dims == 1:
            raise ValueError("a vector has no positions")
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x.flatten(2).transpose(1, 2)).transpose(1, 2)
        return out.reshape(len(x), -1, *x.shape[2:])


class _SelfAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class _Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.three = nn.Linear(channels, 3 * channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.three(x).chunk(3, dim=-1)
        return x + functional.scaled_dot_product_attention(q, k, v)


class _First(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class _Custom(nn.Module):
    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.setting = rng.random()


class _InPlace(_Custom):
    def forward(self, x: Tensor) -> Tensor:
        x = x * self.setting
        x.add_(1).mul_(0.7)
        x[:, 0] += 0.3
        return x


class _Scaled(_Custom):
    """Reads ``training``: another formula in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.setting if self.training else (x * (1 + self.setting)).tanh()


class _StochasticDepth(_Custom):
    def forward(self, x: Tensor) -> Tensor:
        if self.training and random.random() < self.setting:
            return x
        return x + torch.sin(x)


class _NoiseInTraining(_Custom):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.setting * torch.randn_like(x) if self.training else x


class _OwnNoiseInTraining(_Custom):
    """Draws its noise from a generator of its own, which no global random stream shows."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x + self.setting * torch.randn(x.shape, generator=self.generator, dtype=x.dtype)


class _KeepsActivations(_Custom):
    def forward(self, x: Tensor) -> Tensor:
        self.last = x
        self.balance = x.square().mean()
        return x.sin()


class _CountsInTraining(_Custom):
    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return x.tanh()


class _AddsToBuffer(_Custom):
    """Keeps statistics of what it sees, in training and in evaluation, and uses them."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.scale = 0.9 * self.scale + 0.1 * x.detach().abs().mean()
        return x / self.scale


class _LateNoise(_Custom):
    """Behaves in training as in evaluation until some call, and then no more."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.calls, self.until = 0, rng.choice([1, 2, 3])

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x.tanh()
        self.calls += 1
        return x.tanh() if self.calls <= self.until else x.tanh() * (1 + self.setting)


class _Views(_Custom):
    def forward(self, x: Tensor) -> Tensor:
        first, rest = x[:, :1], x[:, 1:]
        return torch.cat([rest, first.expand_as(first).clone() * self.setting], dim=1).contiguous()
