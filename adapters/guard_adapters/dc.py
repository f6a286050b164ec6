"""DC and DSA: VICO-UoE/DatasetCondensation (Zhao et al., ICLR 2021; Zhao & Bilen, ICML 2021).

GUARD's Algorithm 1: the loss on each real mini-batch of the inner loop gets the penalty, the synthetic loss does not.
The real loss is evaluated in the body of ``main.py``; ``utils.epoch`` and ``utils.evaluate_synset`` train and test
networks on the synthetic images with loss calls that look the same, and are suspended.
"""

from collections.abc import Mapping
from typing import Any

from guard_adapters.dc_files import read_result
from guard_adapters.hooks import hooks_of
from guard_plugin.hosts import Adapter, ExpectedCount, Profile, Seam

__all__ = ["read_distilled", "register_adapters"]

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
        Seam(
            "utils",
            "epoch",
            "suspends",
            parameters=("mode", "dataloader", "net", "optimizer", "criterion", "args", "aug"),
        ),
        Seam(
            "utils",
            "evaluate_synset",
            "suspends",
            parameters=("it_eval", "net", "images_train", "labels_train", "testloader", "args"),
        ),
    ),
    expected=ExpectedCount(
        seam="main.main",
        formula=_real_loss_calls,
        explanation="args.num_exp * (args.Iteration + 1) * args.outer_loop * num_classes",
    ),
)

_DC = Adapter(
    name="dc",
    host="VICO-UoE/DatasetCondensation (tried at 53f63a6)",
    profiles=(
        _MAIN,
        Profile(script="main_DM.py", refused=_MATCHES_DISTRIBUTIONS),
        Profile(script="CL_DM.py", refused=_MATCHES_DISTRIBUTIONS),
    ),
    # The paper's h = 3 at 224x224, carried over to 32x32 (scale_h), and its lambda = 100: docs/measurements.md.
    settings={"gradient": {"h": 0.43, "strength": 100.0}, "loss": {"h": 0.43, "strength": 1.0}},
)

register_adapters, read_distilled = hooks_of(_DC, read_result)
