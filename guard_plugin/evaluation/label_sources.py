"""Where students of a benchmark get their labels from, if not from the distilled sets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from guard_plugin.datasets import ImageSet
from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.options import BenchmarkOptions
from guard_plugin.evaluation.run import given_normalization, untrained_network
from guard_plugin.spaces import Normalization
from guard_plugin.students.soft_labels import LabelSource, Spaces, label_source

__all__ = ["label_sources", "paths_of"]


def label_sources(options: BenchmarkOptions, sets: Sequence[DistilledSet], images: ImageSet) -> list[LabelSource]:
    """Return the source of labels of each set, or one teacher for all; [] where students learn the sets' own labels."""
    fkd, teachers = paths_of(options.fkd), paths_of(options.teacher)
    for option in ("teacher_arch", "teacher_normalization"):
        given = getattr(options, option)
        if given is not None and not teachers:
            raise UnusableInput(
                f"expected a --teacher for --{option.replace('_', '-')} {given}, got none: leave it out"
            )
    arch = options.teacher_arch or options.arch
    network, spaces = untrained_network(arch, images), _spaces_of_teacher(sets, options, images) if teachers else None
    sources = [label_source(*one, arch, network, spaces) for one in zip_longest(fkd, teachers)]
    if (fkd and len(fkd) != len(sets)) or len(teachers) not in (0, 1, len(sets)):
        raise UnusableInput(
            f"expected --teacher once, or --fkd or --teacher as often as there are distilled sets, in their order; got "
            f"{len(sources)} for {len(sets)}"
        )
    return [source for source in sources if source]


def _spaces_of_teacher(sets: Sequence[DistilledSet], options: BenchmarkOptions, images: ImageSet) -> Spaces:
    """Return the space of the distilled images, and the one that their teacher was trained in.

    A host's images are in the space that its teacher was trained in. Pixels do not tell what a teacher was fed.
    """
    own = sets[0].space(options.zca)
    are_pixels = own == Normalization.identity(images.pixels.shape[1])
    if options.teacher_normalization is None and not are_pixels:
        return own, own
    return own, given_normalization(options.teacher_normalization, images, "--teacher-normalization")


def paths_of(given: Path | str | Sequence[Path | str] | None) -> list[Path]:
    """Return what an option names, once or for each of several distilled sets."""
    if given is None:
        return []
    return [Path(one) for one in ([given] if isinstance(given, (Path, str)) else given)]
