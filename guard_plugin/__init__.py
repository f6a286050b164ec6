"""GUARD for dataset distillation: a plugin for code bases that stay unmodified.

Importing this package changes nothing in torch or elsewhere. :func:`wrap` guards one criterion, :func:`attach` a whole
script, :func:`curvature_penalty` is the penalty itself, :func:`benchmark` measures robustness in pixel space.
"""

__version__ = "0.1.0"

from guard_plugin.evaluation import benchmark
from guard_plugin.hookspecs import hookimpl
from guard_plugin.injection.attach import attach
from guard_plugin.injection.wrap import wrap
from guard_plugin.penalties import curvature_penalty, scale_h

__all__ = ["__version__", "attach", "benchmark", "curvature_penalty", "hookimpl", "scale_h", "wrap"]
