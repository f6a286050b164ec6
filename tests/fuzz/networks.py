"""Random networks: a description that can be printed, read again and made smaller, and what it describes."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from guard_plugin.versions import strict_zip
from tests.fuzz.modules import PIECES, build_piece
from tests.fuzz.outcome import generator

__all__ = ["FEATURES", "MUST_BE_REFUSED", "Described", "Subject", "build", "draw", "smaller"]

FEATURES: dict[str, str] = {
    # Computed as by any network, so that no refusal is allowed.
    "frozen part": "",
    "modules in eval": "",
    "forward hook on a layer": "",
    "backward hook on a layer": "",
    "hook on a parameter": "",
    "retain_grad on the output": "",
    "DataParallel": "",
    "checkpoint": "",
    "tied parameters": "",
    "setting changed after wrap": "",
    "batch of another layout": "",
    "noise in evaluation": "",
    # May be refused, for this reason.
    "forward hook on the network": "",
    "pre-hook on the network": "",
    "pre-hook on a layer": "",
    "coupled examples": "no gradient per example exists",
    "batch_norm of the batch": "no gradient per example exists",
    "BatchNorm without statistics": "no gradient per example exists",
    "own noise in evaluation": "",
    "reentrant checkpoint": "",
    "keyword call": "",
    "further constant": "",
    "further rows": "the network is called with more than one tensor",
    "tuple": "",
    "dict": "",
    "derived output": "",
    "hypernetwork": "",
    "input modified": "the batch was modified in place",
    "functional_call": "the network has other parameters",
    "compiled": "",
    "hardsigmoid": "no second derivative",
}
"""What a case may have in addition to its layers: why it may be refused; empty where it may not be."""

MUST_BE_REFUSED = ("coupled examples", "batch_norm of the batch", "BatchNorm without statistics")
"""Refused, if a batch has two examples, because the examples of a batch depend on each other."""

_RARE = ("compiled",)


@dataclass(frozen=True)
class Described:
    """One case, as JSON writes it: ``seed`` is that of the parameters and the data."""

    seed: int
    shape: tuple[int, ...]
    n: int
    classes: int
    pieces: tuple[tuple[str, int], ...]
    head: str
    features: tuple[str, ...] = ()
    dtype: str = "float64"
    channels_last: bool = False
    loss: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    steps: int = 3
    backward: str = "backward"
    between: bool = False

    def to_json(self) -> str:
        """Return the description in one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Described:
        """Read what ``to_json`` wrote."""
        read = json.loads(text)
        read["pieces"] = tuple((name, seed) for name, seed in read["pieces"])
        return cls(**{**read, "shape": tuple(read["shape"]), "features": tuple(read["features"])})


def draw(seed: int, number: int) -> Described:
    """Describe the case of this number."""
    rng = generator(seed, "networks", number)
    dims = rng.choice([0, 1, 2, 2, 2, 2, 3])
    size = {0: [], 1: [rng.randint(5, 10)], 2: [rng.randint(4, 8), rng.randint(4, 8)], 3: [4, rng.randint(3, 4), 4]}
    weights = {"conv": 6, "activation": 6, "pool": 2, "batch_norm": 2, "instance_norm": 2, "custom": 2}
    names = rng.choices(list(PIECES), [weights.get(name, 1) for name in PIECES], k=rng.randint(1, 6))
    pieces = [(name, rng.randrange(2**31)) for name in ["conv", *names]]
    features = rng.sample([name for name in FEATURES if name not in _RARE], k=rng.choice([0, 0, 0, 1, 1, 2]))
    if rng.random() < 0.01:
        features = [*features, *_RARE]
    classes = rng.randint(2, 5)
    return Described(
        seed=rng.randrange(2**31),
        shape=(rng.randint(1, 4), *size[dims]),
        n=rng.randint(1, 9),
        classes=classes,
        pieces=tuple(pieces),
        head=rng.choice(["flatten", "flatten", "pool", "dense"]) if dims else "flatten",
        features=tuple(features),
        dtype=rng.choice(["float64"] * 3 + ["float32"]),
        channels_last=dims >= 2 and rng.random() < 0.2,
        loss=_draw_loss(rng, classes),
        options=_draw_options(rng),
        steps=rng.randint(1, 5),
        backward=rng.choice(["backward"] * 5 + ["grad", "retain_graph", "create_graph", "scaled"]),
        between=rng.random() < 0.3,
    )


def _draw_loss(rng: random.Random, classes: int) -> dict[str, Any]:
    loss: dict[str, Any] = {"kind": rng.choice(["CrossEntropyLoss"] * 3 + ["NLLLoss", "own"])}
    if rng.random() < 0.3:
        loss["weight"] = [round(rng.uniform(0, 2), 2) for _ in range(classes)]
    if rng.random() < 0.2:
        loss["reduction"] = "sum"
    if loss["kind"] == "CrossEntropyLoss":
        if rng.random() < 0.3:
            loss["label_smoothing"] = rng.choice([0.1, 0.5, 1.0])
        if rng.random() < 0.2:
            return loss | {"soft": True}
    if rng.random() < 0.2:
        loss["ignore_index"] = rng.randrange(classes)
    return loss


def _draw_options(rng: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {"strength": rng.choice([0.0, *(10 ** rng.uniform(-3, 3) for _ in range(9))])}
    if rng.random() < 0.1:
        return options | {"penalty": "gradient_norm"}
    options |= {"h": 10 ** rng.uniform(-3, 1), "form": rng.choice(["gradient", "loss"])}
    way = rng.choice(["auto"] * 5 + ["shared", "separate", "reference", "low", "low"])
    if way == "low":
        options["memory"] = "low"
    elif way != "auto":
        options["path"] = way
    if options["form"] == "loss" and way != "low" and rng.random() < 0.4:
        options["batch_statistics"] = True
    return options


def smaller(case: Described) -> list[Described]:
    """Return cases that are a little smaller: a piece, a feature or a setting less."""
    plain: dict[str, Any] = {
        "steps": max(case.steps - 1, 1),
        "n": max(case.n - 1, 1),
        "channels_last": False,
        "backward": "backward",
        "between": False,
        "dtype": "float64",
        "head": "flatten",
        "shape": tuple(max(s - 1, 1) for s in case.shape),
        "loss": {"kind": "CrossEntropyLoss"},
        "classes": 2,
    }
    for name in ("path", "memory"):
        if name in case.options:
            plain["options"] = {key: value for key, value in case.options.items() if key != name}
    pieces = [case.pieces[:i] + case.pieces[i + 1 :] for i in range(len(case.pieces))]
    features = [case.features[:i] + case.features[i + 1 :] for i in range(len(case.features))]
    losses = [{k: v for k, v in case.loss.items() if k != key} for key in case.loss if key != "kind"]
    found = [replace(case, pieces=p) for p in pieces] + [replace(case, features=f) for f in features]
    found += [replace(case, loss=loss) for loss in losses]
    found += [replace(case, **{name: value}) for name, value in plain.items()]
    return [one for one in found if one != case]


class Network(nn.Module):
    """Pieces in a row, a head, and the features that belong in a forward pass."""

    def __init__(self, case: Described, *, reference: bool) -> None:
        super().__init__()
        self.features, shape, pieces = set(case.features), case.shape, []
        for name, seed in case.pieces:
            piece, shape = build_piece(name, seed, shape)
            pieces.append(piece)
        if "BatchNorm without statistics" in self.features:
            kind = nn.BatchNorm1d if len(shape) == 1 else getattr(nn, f"BatchNorm{len(shape) - 1}d")
            pieces.append(kind(shape[0], track_running_stats=False))
        if "hardsigmoid" in self.features:
            pieces.append(nn.Hardsigmoid())
        self.pieces = nn.ModuleList(pieces)
        self.head = _head(case, shape)
        self.log_softmax = nn.LogSoftmax(dim=1) if case.loss["kind"] == "NLLLoss" else nn.Identity()
        self.temperature = nn.Parameter(torch.tensor(1.3))
        self.checkpointed = not reference and ("checkpoint" in self.features or "reentrant checkpoint" in self.features)
        self.generator = torch.Generator().manual_seed(case.seed % 1000)
        self.head_weight: Tensor | None = None

    def forward(self, x: Tensor, scale: float = 1.0, rows: Tensor | None = None) -> Any:
        """Return the scores, shape (n, classes, ...), or what a feature makes of them."""
        features = self.features
        if "input modified" in features:
            x.mul_(0.9)
        elif not (self.pieces and list(self.pieces[0].parameters())):
            x = x * 1  # a piece that works in place would modify the batch
        if self.checkpointed and len(self.pieces):
            x = checkpoint(self._body, x, use_reentrant="reentrant checkpoint" in features)
        else:
            x = self._body(x)
        if "coupled examples" in features:
            x = x - 0.5 * x.mean(dim=0)
        if "batch_norm of the batch" in features:
            x = functional.batch_norm(x, None, None, training=True)
        if "noise in evaluation" in features:
            x = x + 0.2 * torch.randn(x.shape[1:], dtype=torch.float64).to(x.dtype)
        if "own noise in evaluation" in features:
            x = x + 0.2 * torch.randn(x.shape[1:], dtype=torch.float64, generator=self.generator).to(x.dtype)
        x = self.head(x) if self.head_weight is None else functional.linear(x.flatten(1), self.head_weight)
        if rows is not None:
            x = x * rows.reshape(-1, *[1] * (x.dim() - 1))
        x = self.log_softmax(x * scale / self.temperature)
        return (x, x.detach().mean()) if "tuple" in features else {"scores": x} if "dict" in features else x

    def _body(self, x: Tensor) -> Tensor:
        for piece in self.pieces:
            x = piece(x)
        return x


def _head(case: Described, shape: Sequence[int]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.seed)
        if case.head == "dense" and len(shape) > 1 and "hypernetwork" not in case.features:
            return getattr(nn, f"Conv{len(shape) - 1}d")(shape[0], case.classes, 1)
        if case.head == "pool" and len(shape) > 1 and "hypernetwork" not in case.features:
            pool = getattr(nn, f"AdaptiveAvgPool{len(shape) - 1}d")(1)
            return nn.Sequential(pool, nn.Flatten(), nn.Linear(shape[0], case.classes))
        return nn.Sequential(nn.Flatten(), nn.Linear(int(torch.Size(shape).numel()), case.classes))


@dataclass
class Subject:
    """One copy of a case's network, as a host holds it.

    Args:
        case: What it was built from.
        network: What the host gives to ``wrap`` and calls.
        core: The ``Network`` in it.
        hyper: Computes the head's weight, outside of the network's forward pass.
        seen: What the host's own hooks saw.
    """

    case: Described
    network: nn.Module
    core: Network
    hyper: nn.Linear | None
    seen: list[str] = field(default_factory=list)

    def trained(self) -> list[nn.Parameter]:
        """Return what the host's optimizer trains."""
        every = [*self.core.parameters(), *(self.hyper.parameters() if self.hyper else ())]
        return [parameter for parameter in every if parameter.requires_grad]

    def state(self) -> list[Tensor]:
        """Return the tensors that a copy is given to be the same network."""
        return [*self.core.parameters(), *self.core.buffers(), *(self.hyper.parameters() if self.hyper else ())]

    def take_state(self, other: Subject, *, buffers: bool = True) -> None:
        """Copy another copy's parameters, and buffers."""
        with torch.no_grad():
            for mine, theirs in strict_zip(self.state(), other.state()):
                if buffers or isinstance(mine, nn.Parameter):
                    mine.copy_(theirs)

    def begin_pass(self) -> None:
        """Do what the host does before it calls its network: compute the weights that a hypernetwork makes."""
        if self.hyper is not None:
            code = torch.linspace(-1, 1, self.hyper.in_features, dtype=self.hyper.weight.dtype)
            self.core.head_weight = self.hyper(code).reshape(self.case.classes, -1)

    def output(self, x: Tensor, numbers: Sequence[int]) -> Tensor:
        """Call the network as the host does; return what the host gives to its criterion.

        ``numbers`` are those of the examples of ``x`` in the batch.
        """
        features = self.core.features
        if "keyword call" in features:
            found = self.network(x=x)
        elif "further constant" in features:
            found = self.network(x, 0.7)
        elif "further rows" in features:
            found = self.network(x, rows=1 + 0.1 * torch.tensor(numbers, dtype=x.dtype))
        elif "functional_call" in features:
            found = torch.func.functional_call(self.network, dict(self.network.named_parameters()), (x,))
        else:
            found = self.network(x)
        found = found[0] if "tuple" in features else found["scores"] if "dict" in features else found
        return found * 0.5 if "derived output" in features else found


def build(case: Described, *, reference: bool = False) -> Subject:
    """Build a case's network, always the same one; ``reference`` without what changes no value but may stop torch."""
    core, features = Network(case, reference=reference), case.features
    hyper = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.seed)
        if "hypernetwork" in features:
            (weight,) = [p for p in core.head.parameters() if p.dim() == 2]
            hyper = nn.Linear(2, weight.numel())
    subject = Subject(case, core, core, hyper)
    for module in (core, *([hyper] if hyper else [])):
        module.to(torch.float64 if reference else getattr(torch, case.dtype))
    if case.channels_last and not reference and len(case.shape) == 3:
        core.to(memory_format=torch.channels_last)
    _set_flags(core, case)
    if reference:
        _replace_norms(core, batch_statistics=case.options.get("batch_statistics", False))
    _add_hooks(subject, reference)
    if "DataParallel" in features and not reference:
        subject.network = nn.DataParallel(core)
    if "compiled" in features and not reference:
        torch.compiler.reset()
        subject.network = torch.compile(subject.network, backend="eager")
    return subject


class _Norm(nn.Module):
    """BatchNorm and InstanceNorm by their formula, in evaluation; BatchNorm ``by_batch`` with its batch's statistics.

    For a batch of one, torch's kernel gives wrong gradients if the gradient that arrives is in the layout
    channels_last, which is that of a transposed output, too. InstanceNorm makes each batch one of one.
    """

    def __init__(self, norm: Any, *, by_batch: bool) -> None:
        super().__init__()
        self.by_batch = by_batch
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))

    def forward(self, x: Tensor) -> Tensor:
        positions, shape = tuple(range(2, x.dim())), (1, -1, *[1] * (x.dim() - 2))
        if self.by_batch or self.running_mean is None:
            of = (0, *positions) if self.by_batch else positions
            mean = x.mean(dim=of, keepdim=True)
            variance = (x - mean).square().mean(dim=of, keepdim=True)
        else:
            mean, variance = self.running_mean.reshape(shape), self.running_var.reshape(shape)
        x = (x - mean) / (variance + self.eps).sqrt()
        return x if self.weight is None else x * self.weight.reshape(shape) + self.bias.reshape(shape)


def _replace_norms(core: Network, *, batch_statistics: bool) -> None:
    for module in list(core.modules()):
        for name, part in list(module.named_children()):
            batch = isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None
            if batch or isinstance(part, (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)):
                setattr(module, name, _Norm(part, by_batch=batch_statistics and batch and part.training))


def _set_flags(core: Network, case: Described) -> None:
    rng = generator(case.seed, "flags")
    parts = [module for module in core.modules() if module is not core]
    if "frozen part" in case.features:
        for parameter in rng.choice(parts).parameters():
            parameter.requires_grad_(False)
    if "tied parameters" in case.features:
        biased = [piece for piece in core.pieces if getattr(piece, "bias", None) is not None]
        for a, b in itertools.combinations(biased, 2):
            if a.bias.shape == b.bias.shape:
                b.bias = a.bias
    core.train()
    if "modules in eval" in case.features:
        for module in rng.sample(parts, k=max(1, len(parts) // 2)):
            module.eval()


def _add_hooks(subject: Subject, reference: bool) -> None:
    core, features, seen = subject.core, subject.case.features, subject.seen
    layer = core.pieces[0] if len(core.pieces) else core.head
    if "forward hook on a layer" in features:
        layer.register_forward_hook(lambda module, args, output: output * 1.1)
    if "forward hook on the network" in features and not {"tuple", "dict"} & set(features):
        core.register_forward_hook(lambda module, args, output: output * 0.8)
    if "pre-hook on a layer" in features:
        layer.register_forward_pre_hook(lambda module, args: (args[0] * 0.9 + 0.1,))
    if "pre-hook on the network" in features and not {"keyword call"} & set(features):
        core.register_forward_pre_hook(lambda module, args: (args[0] * 0.9 + 0.1, *args[1:]))
    if reference:
        return
    if "backward hook on a layer" in features:
        core.head.register_full_backward_hook(lambda *_: None)
    if "hook on a parameter" in features and subject.trained():
        subject.trained()[0].register_hook(_note(seen))


def _note(seen: list[str]) -> Callable[[Tensor], None]:
    def hook(gradient: Tensor) -> None:
        seen.append("parameter")

    return hook
