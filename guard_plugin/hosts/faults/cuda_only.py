"""Scripts that ask for a CUDA device by name: without one they stop at once."""

from __future__ import annotations

import torch

from guard_plugin.hosts.faults.fault import Fault

__all__ = ["cuda_only", "without_cuda"]

_ELSEWHERE = (
    (r"""\.to\((["'])cuda(?::\d+)?\1\)""", '.to("cpu")'),
    (r"""\btorch\.device\((["'])cuda(?::\d+)?\1\)""", 'torch.device("cpu")'),
    # An argument, of a function or of argparse: "device = 'cuda' if ... else 'cpu'" is right as it is.
    (r"""\b(device|default)=(["'])cuda(?::\d+)?\2(?=\s*[,)])""", r'\1="cpu"'),
    (r"""\braise Exception\((["'])need gpu[^"']*\1\)""", "pass"),
    # Under torchrun: each process on its own device, and the way that such processes talk.
    (r"\btorch\.cuda\.set_device\((?:args\.gpu|rank)\)", "pass"),
    (r"\.to\(rank\)", ""),
    (r"\bdevice_ids=\[args\.gpu\]", "device_ids=None"),
    (r"""(["'])nccl\1""", '"gloo"'),
)


def without_cuda() -> bool:
    """Tell whether this machine has no CUDA device."""
    return not torch.cuda.is_available()


def cuda_only(*files: str) -> tuple[Fault, ...]:
    """Return the fault of files, relative to the host's folder, in which a CUDA device is asked for by name.

    Mended, the script takes the CPU. With a CUDA device there is no fault.
    """
    return tuple(
        Fault(
            name="cuda-only",
            file=file,
            pattern=r"\.cuda\(\)",
            repaired="",
            also=_ELSEWHERE,
            harm="it asks for a CUDA device, and this machine has none; mended, it runs on the CPU, which is slow: to "
            "try a pipeline in small before it goes to a machine with CUDA, not for results",
            only_if=without_cuda,
            stops=True,
        )
        for file in files
    )
