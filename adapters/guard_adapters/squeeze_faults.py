"""Known faults of the scripts of SRe2L, CDA and zeyuanyin/tiny-imagenet, by the file that holds them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from guard_adapters.fkd_fetcher import fetching_stored_labels, torch_fetches_none
from guard_plugin.hosts import Fault
from guard_plugin.hosts.faults import AS_IT_IS, arguments_refused, cuda_only, numbers_refused, without_cuda

__all__ = ["faults_of"]

_SMALL = "SRe2L/*small_dataset"
_FKD = "SRe2L/relabel/utils_fkd.py"
_UTILS = "classification/utils.py"


def _no_map_location(file: str) -> Fault:
    return Fault(
        name="no-map-location",
        file=file,
        pattern=r"""\btorch\.load\((args\.\w+|"[^"]*")\)""",
        repaired=r'torch.load(\1, map_location="cpu")',
        harm="it reads a checkpoint to the device that it was saved from, so that one from a machine with CUDA cannot "
        "be read on this one",
        only_if=without_cuda,
        stops=True,
    )


def _prefixed_keys(file: str) -> Fault:
    return Fault(
        name="module-prefix",
        file=file,
        pattern=r'\bmodel_teacher\.load_state_dict\(checkpoint\["state_dict"\]\)',
        repaired='model_teacher.load_state_dict({"module." + key.removeprefix("module."): value '
        'for key, value in checkpoint["state_dict"].items()})',
        harm="it expects the weights' names to begin with 'module.', which squeeze_cifar.py saves only where there is "
        "CUDA",
        stops=True,
    )


_UNPREFIXED_KEYS = Fault(
    name="module-prefix",
    file="CDA/utils.py",
    pattern=r"\bif Flag:",
    repaired='if Flag and "module." + key in state:',
    harm="of a checkpoint with a 'state_dict' whose names do not begin with 'module.', it loads no weight, says so, "
    "and goes on with a random teacher",
)


def _torchvision_passes_allow_empty() -> bool:
    torchvision = importlib.util.find_spec("torchvision")
    if torchvision is None or torchvision.origin is None:
        return False
    return "allow_empty" in (Path(torchvision.origin).parent / "datasets" / "folder.py").read_text(encoding="utf-8")


_ALLOW_EMPTY = Fault(
    name="make-dataset-arguments",
    file="SRe2L/validate/imagenet_ipc.py",
    pattern=r"^ {8}is_valid_file: Optional\[Callable\[\[str\], bool\]\] = None,",
    repaired=r"\g<0> allow_empty: bool = False,",
    harm="torchvision calls its make_dataset() with allow_empty, which it does not take",
    only_if=_torchvision_passes_allow_empty,
    stops=True,
)

_FETCHER = Fault(
    name="fetcher-edited-by-hand",
    file="SRe2L/validate/train_FKD.py",
    pattern=r"\bimport _MapDatasetFetcher\b",
    repaired=AS_IT_IS,
    harm="it works only after torch's own source was edited by hand, so that batches come with their stored labels; "
    "mended, they do while it runs, and torch stays as it is",
    only_if=torch_fetches_none,
    meanwhile=fetching_stored_labels,
    stops=True,
)

_SLASH = Fault(
    name="fkd-path-slash",
    file=_FKD,
    pattern=r"\bfkd_path \+ 'epoch_0'",
    repaired="fkd_path, 'epoch_0'",
    harm="it finds no soft labels unless --fkd-path ends with a slash",
    stops=True,
)

_FAULTS = {
    f"{_SMALL}/squeeze_cifar.py": (_no_map_location(f"{_SMALL}/squeeze_cifar.py"),),
    **{
        script: (_no_map_location(script), _prefixed_keys(script))
        for script in (f"{_SMALL}/recover_cifar.py", f"{_SMALL}/relabel_cifar.py")
    },
    f"{_SMALL}/recover_tiny.py": (arguments_refused(f"{_SMALL}/recover_tiny.py"),),
    "SRe2L/recover/multi_gpu/data_synthesis.py": cuda_only("SRe2L/recover/multi_gpu/utils.py"),
    "SRe2L/relabel/generate_soft_label.py": cuda_only(_FKD),
    "SRe2L/validate/train_FKD.py": (_FETCHER, numbers_refused(_FKD), _SLASH, *cuda_only(_FKD)),
    "SRe2L/validate/train_KD.py": (_ALLOW_EMPTY, *cuda_only(_FKD)),
    "CDA/recover_cda_tiny.py": (arguments_refused("CDA/recover_cda_tiny.py"),),
    "CDA/recover_cda_in21k.py": (_UNPREFIXED_KEYS,),
    **{
        script: (arguments_refused(script), arguments_refused(_UTILS), *cuda_only(_UTILS))
        for script in ("classification/train.py", "classification/train_kd.py")
    },
}


def faults_of(script: str) -> tuple[Fault, ...]:
    """Return the known faults of a script, and of what it imports from its host."""
    return (*_FAULTS.get(script, ()), *cuda_only(script))
