"""Put this folder first on PYTHONPATH to run hosts that ask for CUDA, or for packages that are not there, on a CPU.

``cuda()`` returns what it is called on, and ``device="cuda"`` means the CPU. ``numpy.int`` and ``numpy.float``, which
numpy had until 1.23, are Python's. The packages that HOST_IMPORTS names ("wandb,fire") become empty modules whose names
are empty modules, too, and calling one returns it. With HOST_WORKERS=0, DataLoaders have no workers, each of which
imports torch and the host anew where it is spawned. Nothing else changes; a sitecustomize.py that comes later on the
path is run as well.
"""

import functools
import importlib.machinery
import os
import runpy
import sys
import types

import numpy
import torch
from torch.utils.data import DataLoader

# What hosts call with a device: the factories of tensors, and what moves tensors and modules.
_WITH_DEVICE = {
    torch: ("arange", "empty", "eye", "full", "ones", "rand", "randint", "randn", "randperm", "tensor", "zeros"),
    torch.Tensor: ("to",),
    torch.nn.Module: ("to",),
}


def _on_cpu(value):
    is_cuda = isinstance(value, (str, torch.device)) and str(value).partition(":")[0] == "cuda"
    return torch.device("cpu") if is_cuda else value


def _without_cuda(plain):
    @functools.wraps(plain)
    def called(*args, **kwargs):
        return plain(*map(_on_cpu, args), **{key: _on_cpu(value) for key, value in kwargs.items()})

    return called


def _itself(self, *args, **kwargs):
    return self


class _Empty(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Empty(f"{self.__name__}.{name}")

    def __call__(self, *args, **kwargs):
        return self


class _Finder:
    """Finds the named packages and all that is said to lie in them."""

    names = tuple(filter(None, os.environ.get("HOST_IMPORTS", "").split(",")))

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Empty(spec.name)

    def exec_module(self, module):
        pass


def _without_workers(init):
    @functools.wraps(init)
    def made(self, *args, **kwargs):
        kwargs.update(num_workers=0, persistent_workers=False)
        init(self, *args, **kwargs)

    return made


for owner, names in _WITH_DEVICE.items():
    for name in names:
        setattr(owner, name, _without_cuda(getattr(owner, name)))
torch.Tensor.cuda = torch.nn.Module.cuda = _itself
numpy.int, numpy.float = int, float
if os.environ.get("HOST_WORKERS") == "0":
    DataLoader.__init__ = _without_workers(DataLoader.__init__)
sys.meta_path.insert(0, _Finder())

_here = os.path.dirname(os.path.abspath(__file__))
_next = importlib.machinery.PathFinder.find_spec("sitecustomize", [one for one in sys.path if one != _here])
if _next is not None:
    runpy.run_path(_next.origin)
