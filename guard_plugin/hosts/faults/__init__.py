"""Known faults of hosts: named before a run, and mended in memory where the user asks for it.

``fault`` says what a fault is and finds it, ``repairs`` mends it, ``begun_anew`` mends it in processes that begin anew;
``cuda_only`` and ``checkpoints`` are faults that many hosts share. Those of one host are in its adapter.
"""

from guard_plugin.hosts.faults.checkpoints import arguments_refused, numbers_refused
from guard_plugin.hosts.faults.cuda_only import cuda_only, without_cuda
from guard_plugin.hosts.faults.fault import AS_IT_IS, Fault, FoundFault, find_faults
from guard_plugin.hosts.faults.repairs import Repairs

__all__ = [
    "AS_IT_IS",
    "Fault",
    "FoundFault",
    "Repairs",
    "arguments_refused",
    "cuda_only",
    "find_faults",
    "numbers_refused",
    "without_cuda",
]
