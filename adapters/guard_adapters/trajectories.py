"""What the hosts that match training trajectories share: experts trained on real data, and files handed on.

MTT, TESLA, FTD and DATM train experts in a ``buffer`` script and write snapshots of their weights ("replay buffers"),
which a ``distill`` script matches with a network trained on synthetic images. GUARD's penalty belongs to the experts'
training; distillation runs as it is.
"""

from collections.abc import Mapping
from typing import Any

from guard_plugin.hosts import ExpectedCount, Fault, Profile, RefusedOption, Seam
from guard_plugin.hosts.faults import cuda_only, without_cuda

__all__ = ["buffer_profile", "distill_profile", "no_augmentation"]

_BUFFERS = "replay_buffer_*.pt"
_ARCH = {"arch": ("--model", "ConvNet")}


def buffer_profile(
    script: str, utils: str = "utils", *, losses_per_step: int = 1, roots: tuple[str, ...] = ()
) -> Profile:
    """Return the profile of a script that trains experts, and calls the ``epoch`` of the module ``utils`` to do so.

    The criterion is called ``losses_per_step`` times in a step: twice where the optimizer is sharpness-aware (at the
    weights and at perturbed ones; the sharpness is then that of the guarded loss).
    """

    def losses(variables: Mapping[str, Any]) -> int:
        args = variables["args"]
        return losses_per_step * int(args.num_experts * args.train_epochs * len(variables["trainloader"]))

    # FTD and DATM pass the scheduler of their sharpness-aware optimizer along.
    scheduler = ("scheduler",) if losses_per_step > 1 else ()
    parameters = ("mode", "dataloader", "net", "optimizer", "criterion", "args", "aug", *scheduler, "texture")
    main = script.rpartition("/")[2].removesuffix(".py")
    times = f"{losses_per_step} * " if losses_per_step > 1 else ""
    return Profile(
        script=script,
        seams=(Seam(utils, "epoch", "opens", parameters), Seam(main, "main", "tells", ("args",))),
        expected=ExpectedCount(
            seam=f"{main}.main",
            formula=losses,
            explanation=f"{times}args.num_experts * args.train_epochs * len(trainloader)",
        ),
        roots=roots,
        about=_ARCH,
        writes=_BUFFERS,
        refused_options=(
            RefusedOption(
                "--loss_type",
                "mse",
                "it is a regression loss, and GUARD's curvature is that of a classification loss; use --loss_type ce",
            ),
        ),
        faults=(
            Fault(
                name="snapshots-alias",
                file=script,
                pattern=r"\[p\.detach\(\)\.cpu\(\) for\b",
                repaired="[p.detach().cpu().clone() for",
                harm="on a CPU, every snapshot of an expert's weights is the same tensor, so that all of them hold the "
                "final weights and there is no trajectory to match",
                only_if=without_cuda,
            ),
            Fault(
                name="teacher-label-undefined",
                file=f"{utils.replace('.', '/')}.py",
                pattern=r"(?<!\w)args\.teacher_label\b(?!\s*=[^=])",
                repaired='getattr(args, "teacher_label", False)',
                harm="buffer.py does not define the argument, so that training stops at the first batch with an "
                "AttributeError",
                stops=True,
                unless=(script, r"args\.teacher_label\s*=|[\"']--teacher_label[\"']"),
            ),
        ),
    )


def distill_profile(script: str, *modules: str, roots: tuple[str, ...] = ()) -> Profile:
    """Return the profile of a script that matches the experts' trajectories; some ``modules`` ask for CUDA, too."""
    return Profile(
        script=script,
        unguarded="it matches the experts' trajectories with losses on synthetic images; buffers are what GUARD guards",
        about=_ARCH,
        writes="*.pt",
        reads=_BUFFERS,
        roots=roots,
        faults=(*cuda_only(script, *modules), no_augmentation(script)),
    )


def no_augmentation(script: str) -> Fault:
    """Return the fault of scripts that evaluate, which read an argument that they define for DSA alone."""
    return Fault(
        name="augmentation-undefined",
        file=script,
        pattern=r"(?<!\w)args\.dsa_param = ParamDiffAug\(\)",
        repaired=r"args.dc_aug_param = None; \g<0>",
        harm="without DSA (--dsa False) it stops at its first evaluation, as it defines dc_aug_param for DSA alone",
        stops=True,
        unless=(script, r"^    args\.dc_aug_param\s*="),
    )
