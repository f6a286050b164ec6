"""DC and DSA: VICO-UoE/DatasetCondensation (Zhao et al., ICLR 2021; Zhao & Bilen, ICML 2021).

GUARD's Algorithm 1 (Appendix C): the loss on each real mini-batch of the inner loop gets the penalty, and the synthetic
loss does not.
The real loss is evaluated in the body of ``main.py``; ``utils.epoch`` and ``utils.evaluate_synset`` train and test
networks on the synthetic images with loss calls that look the same, and are suspended.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from guard_adapters.hooks import hooks_of
from guard_adapters.learned_images import learned_images
from guard_adapters.normalizations import DC_DATASETS, HostDataset
from guard_adapters.recommended import SETTINGS, SETTINGS_FOR
from guard_plugin.distilled import DistilledSet
from guard_plugin.distilled.arrays import whole_numbers
from guard_plugin.errors import UnusableInput
from guard_plugin.files import load_untrusted
from guard_plugin.hosts import Adapter, ExpectedCount, Fault, Profile, Seam

__all__ = ["read_distilled", "read_result", "register_adapters"]

_NAME = re.compile(r"res_(?P<method>DC|DSA|DM)_(?P<dataset>.+)_(?P<model>[^_]+)_(?P<ipc>\d+)ipc\.pt")
_EPOCH = ("mode", "dataloader", "net", "optimizer", "criterion", "args", "aug")
_EVALUATE = ("it_eval", "net", "images_train", "labels_train", "testloader", "args")

_AUGMENTS = "the host shifts, scales, rotates or disturbs the images of these students, and trains them for 1000 epochs"

_MATCHES_DISTRIBUTIONS = (
    "it matches feature distributions (DM), so it has no classification loss on real data to add a penalty to"
)


def _real_loss_calls(variables: Mapping[str, Any]) -> int:
    args = variables["args"]
    return int(args.num_exp * (args.Iteration + 1) * args.outer_loop * variables["num_classes"])


_MAIN = Profile(
    script="main.py",
    seams=(
        Seam("main", "main", "opens"),
        Seam("utils", "epoch", "suspends", _EPOCH),
        Seam("utils", "evaluate_synset", "suspends", _EVALUATE),
    ),
    expected=ExpectedCount(
        seam="main.main",
        formula=_real_loss_calls,
        explanation="args.num_exp * (args.Iteration + 1) * args.outer_loop * num_classes",
    ),
    writes="res_*.pt",
    faults=(
        Fault(
            name="augments-one-image",
            file="utils.py",
            pattern=r"\b(\w+)\[:\] = \1\[0\](?!\.clone)",
            repaired=r"\1[:] = \1[0].clone()",
            harm="with --method DSA --ipc 1, the augmentation of a batch of one image copies a number onto itself, "
            "which torch refuses",
            stops=True,
        ),
    ),
)

_DC = Adapter(
    name="dc",
    host="VICO-UoE/DatasetCondensation (tried at 53f63a6)",
    profiles=(
        _MAIN,
        *(Profile(script=script, refused=_MATCHES_DISTRIBUTIONS) for script in ("main_DM.py", "CL_DM.py")),
    ),
    settings=SETTINGS,
    settings_for=SETTINGS_FOR,
)


def read_result(path: Path) -> list[DistilledSet]:
    """Read one distilled set per experiment from a file ``res_{method}_{dataset}_{model}_{ipc}ipc.pt``.

    The host stores images as its networks saw them, normalised; the file's name tells the data set, and so the
    normalisation (read in the host's ``get_dataset``).

    Raises:
        UnusableInput: If the name or the contents are not those of the host.
        UnsafeFile: If reading the file would run code.
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise UnusableInput(
            f"expected a file named res_METHOD_DATASET_MODEL_IPCipc.pt, which tells the data set and so the "
            f"normalisation, got {path.name}: give it the name back that DC gave it"
        )
    dataset = DC_DATASETS.get(match["dataset"])
    if dataset is None:
        raise UnusableInput(
            f"{path.name}: expected one of the data sets {', '.join(DC_DATASETS)}, got {match['dataset']!r}"
        )
    content = load_untrusted(path)
    experiments = content.get("data") if isinstance(content, Mapping) else None
    if not isinstance(experiments, list) or not experiments:
        raise UnusableInput(f"{path}: expected a dictionary whose 'data' lists one [images, labels] per experiment")
    return [_distilled_set(path, index, pair, match, dataset) for index, pair in enumerate(experiments)]


def _distilled_set(path: Path, index: int, pair: Any, name: re.Match[str], dataset: HostDataset) -> DistilledSet:
    if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(part, Tensor) for part in pair)):
        raise UnusableInput(f"{path}: expected [images, labels] as experiment {index}, got {type(pair).__name__}")
    images, labels = pair
    # The host writes class indices as int64; a fork may keep them in another type, or write probabilities.
    whole = whole_numbers(labels) if labels.dim() == 1 else None
    return DistilledSet(
        images=learned_images(images, dataset, f"{path}, experiment {index}"),
        labels=labels if whole is None else whole,
        num_classes=dataset.num_classes[0],
        normalization=dataset.normalization,
        dataset=dataset.name,
        arch=name["model"],
        recipe="dc" if name["method"] == "DC" else "dsa",
        recipe_lacks=_AUGMENTS if name["method"] == "DC" and _is_augmented(dataset.name, name["model"]) else "",
    )


def _is_augmented(dataset: str, model: str) -> bool:
    """Tell the sets whose networks the host's evaluation augments without --method DSA (utils.get_daparam)."""
    return dataset == "MNIST" or model == "ConvNetBN"


register_adapters, read_distilled = hooks_of(_DC, read_result)
