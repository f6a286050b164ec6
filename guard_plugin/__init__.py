"""GUARD for dataset distillation: a plugin for code bases that stay unmodified.

Importing this package changes nothing in torch or elsewhere. :func:`wrap` guards one criterion, :func:`attach` a whole
script, :func:`curvature_penalty` is the penalty itself, :func:`benchmark` measures robustness in pixel space.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from guard_plugin.hookspecs import hookimpl
from guard_plugin.injection.attach import attach
from guard_plugin.injection.wrap import wrap
from guard_plugin.penalties import curvature_penalty, scale_h, scale_strength

if TYPE_CHECKING:
    from guard_plugin.evaluation import benchmark

__all__ = [
    "__version__",
    "attach",
    "benchmark",
    "curvature_penalty",
    "hookimpl",
    "scale_h",
    "scale_strength",
    "wrap",
]


def __getattr__(name: str) -> Any:
    """Load the benchmark only when it is asked for: a guarded training script needs none of it."""
    if name == "benchmark":
        from guard_plugin.evaluation import benchmark

        return benchmark
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
