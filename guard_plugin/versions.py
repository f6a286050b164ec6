"""What differs between the versions of Python and torch that users have: each says which version has it.

Python 3.9 and torch 1.11 are the oldest. Nothing else in this package asks for a version.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import MISSING, dataclass, fields
from importlib.metadata import Distribution, EntryPoint, distributions
from inspect import Parameter, Signature
from threading import RLock
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor

from guard_plugin.errors import UnusableInput

__all__ = [
    "COMPILER_TRACES_US",
    "SAVED_TENSORS_TELL",
    "TORCH",
    "WHY_REFERENCE_ONLY",
    "TensorBase",
    "TorchFunctionMode",
    "allowed_globals",
    "copies_of",
    "entry_points_of",
    "force_eager",
    "is_autocast_enabled",
    "is_compiling",
    "is_transformed",
    "keeps_graph",
    "keyword_dataclass",
    "next_node_number",
    "plain_attention",
    "products_with",
    "require_torch",
    "require_torch_to_benchmark",
    "saved_tensors_are_hooked",
    "set_compiler",
    "strict_zip",
    "switch_autocast_off",
    "untraced",
]

T = TypeVar("T")
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_one_at_a_time = RLock()  # for what is replaced for a while: what is put back must be torch's own

TORCH = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
"""torch's version, (major, minor)."""

COMPILER_TRACES_US = (2, 0) <= TORCH < (2, 6)
"""Whether torch.compile traces our own functions between the host's; torch 2.6 leaves them out by itself."""

if TYPE_CHECKING:
    from builtins import zip as strict_zip

    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[T], T]:  # Python 3.11 has it
        """Tell type checkers what a decorator does."""
        return lambda decorator: decorator

    def strict_zip(*iterables: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
        """Zip iterables of one length; ValueError is raised where they differ (Python 3.10: ``zip(strict=True)``)."""
        if sys.version_info >= (3, 10):
            return zip(*iterables, strict=True)  # novm
        columns = [list(iterable) for iterable in iterables]
        if len({len(column) for column in columns}) > 1:
            raise ValueError(f"expected iterables of one length, got {[len(column) for column in columns]}")
        return zip(*columns)


def entry_points_of(group: str) -> Iterator[tuple[EntryPoint, str]]:
    """Find a group's entry points, each with its distribution's name and version (Python 3.10: ``EntryPoint.dist``)."""
    seen = set()
    for distribution in distributions():
        name = _name_of(distribution)
        if name not in seen:  # of several copies, Python imports the first one
            seen.add(name)
            for entry_point in distribution.entry_points:
                if entry_point.group == group:
                    yield entry_point, f"{name} {distribution.version}"


def _name_of(distribution: Distribution) -> str:
    """Return a distribution's name from the text of its metadata, which take ten times as long to parse."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    found = re.search(r"^Name: *(.*?) *$", text, re.MULTILINE)
    return found[1] if found else ""


@dataclass_transform(kw_only_default=True, frozen_default=True)
def keyword_dataclass(kind: type[T]) -> type[T]:
    """Make a frozen dataclass that takes its fields by keyword (Python 3.10: ``dataclass(kw_only=True)``)."""
    if sys.version_info >= (3, 10):
        return dataclass(frozen=True, kw_only=True)(kind)  # novm
    made = dataclass(frozen=True, init=False)(kind)
    defaults = {field.name: field.default for field in fields(made)}
    given = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=Parameter.empty if default is MISSING else default)
        for name, default in defaults.items()
    ]
    signature = Signature([Parameter("self", Parameter.POSITIONAL_OR_KEYWORD), *given])

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        for name, value in {**defaults, **signature.bind(self, *args, **kwargs).arguments}.items():
            if name != "self":
                object.__setattr__(self, name, value)
        if hasattr(self, "__post_init__"):
            self.__post_init__()

    __init__.__signature__ = signature
    made.__init__ = __init__
    return made


# Below 2.0 the fast ways were silently wrong; below 2.1 a node does not tell when it was made (_sequence_nr).
WHY_REFERENCE_ONLY = "" if TORCH >= (2, 1) else f"torch {torch.__version__} has no other path, torch 2.1 has"
"""Why the penalty cannot be computed faster than by torch's own graph; empty where it can."""

TensorBase: Any = getattr(torch._C, "TensorBase", None) or torch._C._TensorBase  # torch 2.2

if TYPE_CHECKING or TORCH >= (2, 0):
    from torch.overrides import TorchFunctionMode
else:

    class TorchFunctionMode:
        """Shows a mode the calls of the functions in its ``intercepted``, whose names are replaced, for all threads."""

        intercepted: ClassVar[Collection[tuple[Any, str]]] = ()

        def __enter__(self) -> TorchFunctionMode:
            _one_at_a_time.acquire()
            self._before = [(owner, name, vars(owner).get(name)) for owner, name in self.intercepted]
            for owner, name in self.intercepted:
                setattr(owner, name, self._shown(getattr(owner, name)))
            return self

        def __exit__(self, *error: object) -> None:
            for owner, name, own in self._before:
                if own is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, own)
            _one_at_a_time.release()

        def _shown(self, function: Callable[..., Any]) -> Callable[..., Any]:
            return lambda *args, **kwargs: self.__torch_function__(function, (), args, kwargs)


if TYPE_CHECKING or TORCH >= (2, 3):
    is_compiling = torch.compiler.is_compiling
elif TORCH >= (2, 0):
    is_compiling = torch._utils.is_compiling
else:

    def is_compiling() -> bool:
        """Tell whether torch.compile, which torch 2.0 has, traces the caller."""
        return False


def is_autocast_enabled(device_type: str) -> bool:
    """Tell whether autocast is on for a device (torch 2.4: by its type)."""
    if TORCH >= (2, 4):
        return torch.is_autocast_enabled(device_type)
    return torch.is_autocast_cpu_enabled() if device_type == "cpu" else torch.is_autocast_enabled()


def switch_autocast_off(device_type: str) -> None:
    """Switch autocast off for a device, in this thread (torch 2.4: by its type)."""
    if TORCH >= (2, 4):
        torch.set_autocast_enabled(device_type, False)
    elif device_type == "cpu":
        torch.set_autocast_cpu_enabled(False)
    elif device_type == "cuda":
        torch.set_autocast_enabled(False)  # type: ignore[arg-type, call-arg, unused-ignore]


def require_torch(major: int, minor: int, *, to: str) -> None:
    """Refuse, with UnusableInput, a torch that is older: what it is needed ``to`` do works in another environment."""
    if (major, minor) > TORCH:
        raise UnusableInput(
            f"expected torch {major}.{minor} or later to {to}, found {torch.__version__}: do it in an environment of "
            f"its own; only files travel there (README, two environments)"
        )


def require_torch_to_benchmark() -> None:
    """Refuse, with UnusableInput, a torch with which no benchmark was tried."""
    require_torch(2, 6, to="benchmark")


def is_transformed() -> bool:
    """Tell whether torch.jit.trace or torch.func (torch 2.0) is at work, or torch.compile traces the caller."""
    functorch = TORCH >= (2, 0) and torch._C._are_functorch_transforms_active()
    return torch._C._get_tracing_state() is not None or is_compiling() or functorch


_saved_tensor_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)  # torch 2.8

SAVED_TENSORS_TELL = _saved_tensor_hooks is not None
"""Whether it can be asked if saved tensors are hooked."""


def saved_tensors_are_hooked() -> bool:
    """Tell whether torch.autograd.graph.saved_tensors_hooks are on; False where torch does not say."""
    return _saved_tensor_hooks is not None and _saved_tensor_hooks(True) is not None


def keeps_graph() -> bool:
    """Tell whether the backward pass that is under way was asked to retain its graph; True where torch does not say."""
    ask = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return ask is None or bool(ask())


def next_node_number() -> int:
    """Return the number that the next autograd node of this thread will have; without an operation, if torch tells."""
    tell = getattr(torch._C._autograd, "_get_sequence_nr", None)
    if tell is not None:
        return int(tell())
    node: Any = torch.ones((), requires_grad=True).clone().grad_fn
    return int(node._sequence_nr()) + 1


def plain_attention() -> AbstractContextManager[Any]:
    """Compute attention in its plain form: the fused ones, of torch 2.0 and later, have no second derivative."""
    if TORCH >= (2, 3):
        from torch.nn.attention import SDPBackend, sdpa_kernel

        return sdpa_kernel(SDPBackend.MATH)
    if TORCH >= (2, 0):
        return torch.backends.cuda.sdp_kernel(enable_flash=False, enable_mem_efficient=False)
    return nullcontext()


def force_eager() -> AbstractContextManager[Any]:
    """Run compiled modules and functions as they were written (torch 2.6: ``set_stance``)."""
    # Importing the compiler takes a second, and where nobody has, nothing was compiled.
    compiler = sys.modules.get("torch._dynamo.eval_frame")
    if compiler is None:
        return nullcontext()
    if TORCH >= (2, 6):
        stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
        return stance
    return _compiled_as_written(compiler)


@contextmanager
def _compiled_as_written(compiler: Any) -> Iterator[None]:
    with _one_at_a_time:
        before = compiler.set_eval_frame
        compiler.set_eval_frame = lambda callback: before(None)  # which each compiled function calls first
        try:
            yield
        finally:
            compiler.set_eval_frame = before


def set_compiler(callback: Any) -> Any:
    """Set what torch.compile traces this thread's calls with (None: nothing), and return what it was."""
    return torch._C._dynamo.eval_frame.set_eval_frame(callback)


def untraced(function: FunctionT) -> FunctionT:
    """Keep torch.compile from tracing a function and what it calls (:data:`COMPILER_TRACES_US`)."""
    if not COMPILER_TRACES_US:
        return function

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        before = set_compiler(None)
        try:
            return function(*args, **kwargs)
        finally:
            set_compiler(before)

    compiler: Any = torch._C._dynamo.eval_frame
    compiler.skip_code(called.__code__)  # type: ignore[attr-defined]
    return called  # type: ignore[return-value]


def allowed_globals(types: Collection[Any]) -> AbstractContextManager[Any]:
    """Let ``torch.load(weights_only=True)``, which torch 1.13 has, read these types, too (torch 2.5)."""
    require_torch(1, 13, to="read files of torch.save without running code in them")
    return torch.serialization.safe_globals(list(types)) if TORCH >= (2, 5) else nullcontext()


def products_with(tensors: Sequence[Tensor], weight: Tensor | float) -> list[Tensor]:
    """Multiply each tensor with a number or a scalar tensor: in one operation, where torch has it (2.1 has not)."""
    alike = not isinstance(weight, Tensor) or (
        hasattr(torch.ops.aten._foreach_mul, "Tensor")
        and all((one.dtype, one.device) == (weight.dtype, weight.device) for one in tensors)
    )
    if tensors and alike:
        return list(torch._foreach_mul(list(tensors), weight))  # type: ignore[arg-type, unused-ignore]
    return [one * (weight.to(one.device) if isinstance(weight, Tensor) else weight) for one in tensors]


def copies_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors, plain numbers dtype by dtype in one operation; copies of others keep their history."""
    copies: dict[int, Tensor] = {}
    kinds: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for number, one in enumerate(tensors):
        is_number = one.is_floating_point() or one.dtype == torch.int64
        if is_number and not one.requires_grad and one.is_contiguous() and type(one) is Tensor:
            kinds.setdefault((one.dtype, one.device), []).append(number)
        else:
            copies[number] = one.clone()
    for numbers in kinds.values():
        copies.update(zip(numbers, torch._foreach_mul([tensors[number] for number in numbers], 1)))
    return [copies[number] for number in range(len(tensors))]
