"""The tap sees loss calls, knows where outputs come from, and leaves nothing behind."""

import copy
import gc
import threading
import weakref

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional
from torch.nn.modules import module as torch_module

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.injection.calls.loss_call import per_example
from guard_plugin.injection.calls.tap import Tap

X, Y = torch.randn(4, 5), torch.tensor([0, 1, 2, 1])


def everything_global() -> list[object]:
    """All global state that a tap touches, as identities."""
    names = [
        getattr(functional, name) for name in dir(functional) if name.endswith(("loss", "entropy", "logits", "div"))
    ]
    return [nn.Module.__call__, torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks, *names]


class Calls(list):
    def __call__(self, call):
        self.append(call)
        return call.loss


@pytest.fixture
def calls():
    seen = Calls()
    tap = Tap(seen)
    yield seen
    tap.remove()


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


@pytest.mark.parametrize(
    "loss",
    [
        lambda out: nn.CrossEntropyLoss()(out, Y),
        lambda out: nn.CrossEntropyLoss()(input=out, target=Y),
        lambda out: functional.cross_entropy(out, Y),
        lambda out: functional.cross_entropy(input=out, target=Y, label_smoothing=0.1),
        lambda out: functional.nll_loss(out, Y),
        lambda out: nn.NLLLoss()(out, Y),
    ],
)
def test_each_way_of_computing_the_loss_is_one_loss_call(net, calls, loss):
    loss(net(X))
    (call,) = calls
    assert call.network is net and call.inputs is X and call.targets is Y
    torch.testing.assert_close(call.loss_fn()(call.output, Y).mean(), call.loss)


def test_a_handler_replaces_the_loss(net):
    tap = Tap(lambda call: call.loss + 1)
    try:
        replaced = nn.CrossEntropyLoss()(net(X), Y), functional.cross_entropy(net(X), Y)
    finally:
        tap.remove()
    plain = functional.cross_entropy(net(X), Y)
    assert all(torch.equal(loss, plain + 1) for loss in replaced)


def test_module_calls_of_the_handler_pass_unseen(net):
    seen = []

    def handler(call):
        seen.append(call)
        return call.loss + functional.cross_entropy(net(X), Y) + nn.CrossEntropyLoss()(net(X), Y)

    tap = Tap(handler)
    try:
        nn.CrossEntropyLoss()(net(X), Y)
    finally:
        tap.remove()
    assert len(seen) == 1


def test_only_outermost_calls_are_origins(net, calls):
    outer = nn.Sequential(net, nn.Identity())
    nn.CrossEntropyLoss()(outer(X), Y)
    assert calls[0].network is outer


def test_a_criterion_inside_a_network_is_no_loss_call(net, calls):
    class WithLoss(nn.Module):
        def forward(self, x):
            return functional.cross_entropy(net(x), Y) + nn.CrossEntropyLoss()(net(x), Y)

    WithLoss()(X)
    assert not calls


@pytest.mark.parametrize(
    "computed", [lambda out: out + 1, lambda out: out @ torch.eye(3), lambda out: torch.cat([out, out])[:4]]
)
def test_a_tensor_computed_from_an_output_in_a_way_that_is_not_known_is_refused(net, calls, computed):
    nn.CrossEntropyLoss()(computed(net(X)), Y)
    with pytest.raises(UnsupportedLoss, match="an output of Sequential, found a tensor that was computed from it by"):
        calls[0].check_guardable()


def test_a_tensor_of_no_network_is_refused(calls):
    nn.CrossEntropyLoss()(torch.randn(4, 3, requires_grad=True) * 1, Y)
    with pytest.raises(UnsupportedLoss, match="no network call is known to have made"):
        calls[0].check_guardable()


def test_an_input_modified_since_is_refused(net, calls):
    x = X.clone()
    out = net(x)
    x += 1
    nn.CrossEntropyLoss()(out, Y)
    with pytest.raises(UnsupportedLoss, match="modified in place"):
        calls[0].check_guardable()


def test_inference_mode_is_none_of_our_business(net, calls):
    with torch.inference_mode():
        nn.CrossEntropyLoss()(net(X.clone()), Y)
    assert [call.output.requires_grad for call in calls] == [False]


def test_a_penalty_passes_through_the_network_inside_a_distributed_one(net, calls, tmp_path):
    """The wrapper would exchange buffers and prepare a gradient exchange once more."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        nn.CrossEntropyLoss()(nn.parallel.DistributedDataParallel(net)(X), Y)
        assert calls[0].network is net
        calls[0].check_guardable()
    finally:
        distributed.destroy_process_group()


def test_a_network_of_two_inputs_is_refused(calls):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(5, 3)

        def forward(self, a, b):
            return self.linear(a + b)

    nn.CrossEntropyLoss()(Two()(X, X), Y)
    with pytest.raises(UnsupportedLoss, match="called with 2 of them in 2 positional and 0 keyword"):
        calls[0].check_guardable()


def test_a_criterion_of_the_hosts_own_is_seen_and_refused(net, calls):
    class Own(nn.Module):
        def forward(self, output, target):
            return functional.cross_entropy(output, target) * 2

    Own()(net(X), Y)
    with pytest.raises(UnsupportedLoss, match=r"found Own; .*wrap\(criterion, model, loss_fn"):
        calls[0].loss_fn()


def test_a_metric_is_no_criterion(net, calls):
    class Accuracy(nn.Module):
        def forward(self, output, target):
            return (output.argmax(1) == target).float().mean()

    Accuracy()(net(X), Y)
    assert not calls


def test_depth_is_right_again_after_a_forward_that_raised(net, calls):
    class Broken(nn.Module):
        def forward(self, x):
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        nn.Sequential(nn.Identity(), Broken())(X)
    nn.CrossEntropyLoss()(net(X), Y)
    assert calls[0].network is net


def test_threads_do_not_mix(net, calls):
    """DataParallel runs replicas in threads while a root call is under way in the main one."""
    inside, done = threading.Event(), threading.Event()

    class Waits(nn.Module):
        def forward(self, x):
            inside.set()
            done.wait(10)
            return net(x)

    waits = Waits()
    outputs = []
    worker = threading.Thread(target=lambda: outputs.append(waits(X)))
    worker.start()
    inside.wait(10)
    nn.CrossEntropyLoss()(net(X), Y)  # the other thread is two calls deep now
    done.set()
    worker.join()
    assert calls[0].network is net


def test_nothing_is_kept_alive(net, calls):
    calls.clear()
    out = net(X)
    gone = weakref.ref(out)
    del out
    gc.collect()
    assert gone() is None
    identity = nn.Identity()
    kept = identity(X.clone().requires_grad_() * 1)
    gone = weakref.ref(kept)
    del kept
    gc.collect()
    assert gone() is None


def test_removal_restores_everything_also_after_an_exception():
    before = everything_global()

    def fails(call):
        raise RuntimeError("handler")

    tap = Tap(fails)
    assert everything_global() != before
    with pytest.raises(RuntimeError, match="handler"):
        functional.cross_entropy(nn.Linear(5, 3)(X), Y)
    tap.remove()
    tap.remove()
    assert everything_global() == before


def test_importing_changes_nothing():
    import subprocess
    import sys

    check = (
        "import torch; from torch.nn.modules import module as m; f = torch.nn.functional\n"
        "def state(): return [len(m._global_forward_hooks), len(m._global_forward_pre_hooks), f.cross_entropy, "
        "f.nll_loss, torch.get_rng_state().sum().item(), torch.is_grad_enabled(), torch.get_num_threads()]\n"
        "before = state(); import guard_plugin, guard_adapters.dc; assert state() == before"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


CRITERIA = [
    nn.CrossEntropyLoss(),
    nn.CrossEntropyLoss(label_smoothing=0.2),
    nn.CrossEntropyLoss(reduction="sum"),
    nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])),
    nn.CrossEntropyLoss(ignore_index=1),
    nn.NLLLoss(weight=torch.tensor([1.0, 2.0, 3.0])),
]


@pytest.mark.parametrize("criterion", CRITERIA, ids=str)
def test_per_example_losses_hold_the_criterions_settings(criterion):
    """Oracle: torch's own reduction="none", example by example."""
    out = torch.randn(4, 3).log_softmax(1)
    single = copy.deepcopy(criterion)
    single.reduction = "none"
    expected = torch.stack([single(out[i : i + 1], Y[i : i + 1])[0] for i in range(4)])
    torch.testing.assert_close(per_example(criterion)(out, Y), expected)
    assert criterion.reduction in ("mean", "sum")  # the host's own is untouched


def test_per_example_losses_of_dense_outputs_are_means_over_positions():
    out, y = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    expected = torch.stack([functional.cross_entropy(out[i : i + 1], y[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(per_example(nn.CrossEntropyLoss())(out, y), expected)
