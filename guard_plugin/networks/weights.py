"""Giving a network the weights of a checkpoint, which may hold them as a part of a larger module."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from guard_plugin.errors import UnusableInput, few
from guard_plugin.files import read_state_dict
from guard_plugin.foreign_text import tell
from guard_plugin.ranks import is_main_process
from guard_plugin.spaces import InputSpace, Normalization
from guard_plugin.state_dicts import StateDict, load_tensors
from guard_plugin.versions import strict_zip

__all__ = ["fits", "load_weights"]

_UNUSED = "num_batches_tracked"  # by BatchNorm in eval mode; old checkpoints lack it
_ROUNDING = 1e-5  # of means and standard deviations: buffers are float32

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class _Part:
    """The entries of a state dict whose names begin with a prefix, without it, and the entries beside them."""

    prefix: str
    weights: dict[str, Tensor]
    beside: dict[str, Tensor]


def load_weights(
    network: nn.Module,
    file: Path,
    *,
    what: str,
    hint: Callable[[Tensors], str],
    space: InputSpace | None = None,
) -> None:
    """Give a network the weights of a checkpoint; stderr tells where in the file they lie, if there was a choice.

    The file holds them by the network's own names (``find_state_dict``), or as a part of a larger module's, all behind
    one prefix, as those of LightningModules or of networks with a normalising layer in front of them do.

    Args:
        network: The network, on any device.
        file: The checkpoint.
        what: The network, as messages call it.
        hint: Says what to do about weights that do not fit, given all that the file holds.
        space: The space that the caller brings pixels to before the network sees them. If the file's larger module
            normalises, it must do so in the same way.

    Raises:
        UnusableInput: If the file holds no weights, those of another network, or those of several.
        UnsafeFile: If reading the file would run code.
    """
    found, expected = read_state_dict(file), network.state_dict()
    misfits = [(part, _misfits(part.weights, expected)) for part in _parts(found.tensors, expected)]
    fitting = [part for part, wrong in misfits if not wrong]
    if not fitting:
        nearest, wrong = min(misfits, key=lambda one: sum(map(len, one[1].values())))
        problems = [f"{len(names)} entries are {kind}: {few(names)}" for kind, names in wrong.items()]
        where = f", behind the prefix {nearest.prefix!r}" if nearest.prefix else ""
        raise UnusableInput(f"{file} does not fit {what}{where}: {'; '.join(problems)}: {hint(found.tensors)}")
    if len(fitting) > 1:
        prefixes = ", ".join(repr(part.prefix) for part in fitting)
        raise UnusableInput(
            f"{file} holds several networks {what}, behind the prefixes {prefixes}: save the state dict of one alone, "
            f"as by torch.save(model.{fitting[0].prefix}state_dict(), 'weights.pt')"
        )
    _check_beside(file, fitting[0], space, what)
    _tell(file, found, fitting[0].prefix)
    load_tensors(network, fitting[0].weights)


def fits(state: Tensors, expected: Tensors) -> bool:
    """Tell whether a state dict, or a part of it, has the names, shapes and kinds of number that a network expects."""
    return any(not _misfits(part.weights, expected) for part in _parts(state, expected))


def _parts(state: Tensors, expected: Tensors) -> list[_Part]:
    """Return the whole state dict, and the parts of it that hold the network's first entry."""
    first = next(name for name in expected if not name.endswith(_UNUSED))
    prefixes = [name[: -len(first)] for name in state if name.endswith(f".{first}")]
    return [_part(state, prefix) for prefix in ("", *prefixes)]


def _part(state: Tensors, prefix: str) -> _Part:
    own = {name: value for name, value in state.items() if name.startswith(prefix)}
    beside = {name: value for name, value in state.items() if name not in own}
    return _Part(prefix, {name[len(prefix) :]: value for name, value in own.items()}, beside)


def _misfits(state: Tensors, expected: Tensors) -> dict[str, list[str]]:
    """Return the entries that are not as expected, by what is wrong with them."""
    missing = [name for name in expected if name not in state and not name.endswith(_UNUSED)]
    unexpected = [name for name in state if name not in expected]
    shaped = [
        f"{name} (expected {tuple(expected[name].shape)}, got {tuple(value.shape)} of {value.dtype})"
        for name, value in state.items()
        if name in expected and not _is_like(value, expected[name])
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape or kind": shaped}
    return {kind: names for kind, names in kinds.items() if names}


def _is_like(value: Tensor, expected: Tensor) -> bool:
    return value.shape == expected.shape and value.is_floating_point() == expected.is_floating_point()


def _check_beside(file: Path, part: _Part, space: InputSpace | None, what: str) -> None:
    """Refuse a larger module that does more than to normalise as the caller does."""
    if not part.beside:
        return
    layer = _normalization(part.beside)
    if layer is None:
        raise UnusableInput(
            f"{file} holds {what} behind the prefix {part.prefix!r}, and beside it {len(part.beside)} entries: "
            f"{few(list(part.beside))}. If these have no part in its logits, save its state dict alone, as by "
            f"torch.save(model.{part.prefix}state_dict(), 'weights.pt')"
        )
    if space is None or not _agree(space, layer):
        written = ";".join(f"{name}={','.join(f'{x:.6g}' for x in getattr(layer, name))}" for name in ("mean", "std"))
        raise UnusableInput(
            f"{file}: in front of the network, {' and '.join(part.beside)} normalise by {written}, and expected is "
            f"{'no such layer' if space is None else space.describe()}: give that as its normalization, "
            f'--normalization "{written}" (of a source or teacher --source-normalization, --teacher-normalization), if '
            f"that layer computes (pixel - mean) / std"
        )


def _normalization(beside: Tensors) -> Normalization | None:
    """Return the normalisation by a layer whose mean and std are the only entries beside a network's."""
    leaves = {name.rpartition(".")[2]: value.flatten().tolist() for name, value in beside.items()}
    parents = {name.rpartition(".")[0] for name in beside}
    if leaves.keys() != {"mean", "std"} or len(parents) > 1:
        return None
    return Normalization(tuple(map(float, leaves["mean"])), tuple(map(float, leaves["std"])))


def _agree(space: InputSpace, layer: Normalization) -> bool:
    if not isinstance(space, Normalization) or len(space.mean) != len(layer.mean):
        return False
    pairs = strict_zip((*space.mean, *space.std), (*layer.mean, *layer.std))
    return all(math.isclose(one, other, rel_tol=0, abs_tol=_ROUNDING) for one, other in pairs)


def _tell(file: Path, found: StateDict, prefix: str) -> None:
    """Say which of several state dicts was taken, and behind which prefix the network lies."""
    places = [f"under {found.key!r}"] if found.others else []
    places += [f"behind the prefix {prefix!r}"] if prefix else []
    if not places or not is_main_process():
        return
    text = f"{file}: took the weights {' '.join(places)}"
    if found.others:
        other = found.others[0]
        text += (
            f", and not those under {', '.join(map(repr, found.others))}: to measure these, make a file of them, by "
            f"torch.save(torch.load({file.name!r})[{other!r}], 'weights.pt')"
        )
    tell(text)
