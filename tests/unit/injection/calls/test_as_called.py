"""The penalty is that of the network as the host calls it; the oracle is a loop over single examples."""

import dataclasses
import types

import pytest
import torch
from torch import nn
from torch.nn import functional

import guard_plugin
from guard_plugin.errors import UnsupportedLoss
from guard_plugin.versions import strict_zip

H, STRENGTH = 0.3, 2.0
X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 1, 0, 2])


class Network(nn.Module):
    """Computes what every test computes; a subclass is called in its own way."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()

    def forward(self, images):
        return self.body(images)


def penalty_by_loop(net, inputs, targets, judged=lambda output: output) -> torch.Tensor:
    """The gradient form, one example after the other: ``net`` from images to output, ``judged`` as the host."""

    def gradient(x, y, create_graph):
        x = x.detach().requires_grad_()
        loss = functional.cross_entropy(judged(net(x[None])), y[None])
        return torch.autograd.grad(loss, x, create_graph=create_graph)[0]

    total = torch.zeros((), dtype=torch.float64)
    for x, y in strict_zip(inputs, targets):
        here = gradient(x, y, True)
        there = gradient(x + H * here.detach() / here.detach().norm(), y, True)
        total = total + (there - here).square().sum()
    return STRENGTH * total / len(inputs)


def check(net, plain_loss, penalty, *, guarded_loss, path="auto") -> None:
    """Compare several guarded steps with the plain loss plus the penalty of the loop."""
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=STRENGTH, h=H, path=path)
    wanted = plain_loss() + penalty()
    gradients = torch.autograd.grad(wanted, list(net.parameters()))
    for _ in range(3):
        loss = guarded_loss(criterion)
        torch.testing.assert_close(loss, wanted, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(torch.autograd.grad(loss, list(net.parameters())), gradients, rtol=1e-8, atol=1e-11)
    assert criterion.guarded == 3


PATHS = pytest.mark.parametrize("path", ["auto", "separate", "reference"])


@PATHS
def test_a_pre_hook_that_changes_the_input_acts_once(path):
    net = Network()
    net.register_forward_pre_hook(lambda module, args: (args[0] * 2 - 1,))
    check(
        net,
        lambda: functional.cross_entropy(net.body(X * 2 - 1), Y),
        lambda: penalty_by_loop(lambda x: net.body(x * 2 - 1), X, Y),
        guarded_loss=lambda criterion: criterion(net(X), Y),
        path=path,
    )


@PATHS
def test_a_hook_that_changes_the_output_acts_once(path):
    net = Network()
    net.register_forward_hook(lambda module, args, output: output.square())
    check(
        net,
        lambda: functional.cross_entropy(net.body(X).square(), Y),
        lambda: penalty_by_loop(lambda x: net.body(x).square(), X, Y),
        guarded_loss=lambda criterion: criterion(net(X), Y),
        path=path,
    )


class Scaled(Network):
    def forward(self, images, scale=1.0, *, labels=None):
        return super().forward(images) * scale + (0 if labels is None else labels[:, None] * 0.1)


@PATHS
@pytest.mark.parametrize(
    "call",
    [
        lambda net: net(images=X),
        lambda net: net(X, 2.0),
        lambda net: net(X, scale=2.0),
        lambda net: net(scale=2.0, images=X),
    ],
)
def test_keywords_and_constants_hold_in_the_penalty(path, call):
    net = Scaled()
    scale = 1.0 if torch.equal(call(net), net.body(X)) else 2.0
    check(
        net,
        lambda: functional.cross_entropy(net.body(X) * scale, Y),
        lambda: penalty_by_loop(lambda x: net.body(x) * scale, X, Y),
        guarded_loss=lambda criterion: criterion(call(net), Y),
        path=path,
    )


class Several(Network):
    def forward(self, images):
        hidden = self.body[:2](images)
        return {"parts": [hidden, (self.body[2](hidden),)]}


@dataclasses.dataclass
class Fields:
    logits: torch.Tensor
    parts: list


class Returned(Network):
    """Returns an object with the output."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, images):
        return self.make(self.body(images))


class Chooses(Network):
    """Has two heads, of which a host chooses one before each call."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(3, 3).double(), nn.Linear(3, 3).double()])
        self.head, self.chosen, self.calls, self.epoch = self.heads[0], 0, 0, 0

    def forward(self, images):
        self.calls += 1
        return self.head(self.heads[self.chosen](self.body(images)))


@pytest.mark.parametrize("strength", [0.0, STRENGTH])
@pytest.mark.parametrize(("name", "value"), [("chosen", 1), ("head", 1)])
def test_a_network_that_would_compute_otherwise_than_when_it_was_called_is_refused(name, value, strength):
    net = Chooses()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=strength, h=H)
    before = net(X)
    setattr(net, name, net.heads[1] if name == "head" else value)
    criterion(net(X), Y)
    with pytest.raises(UnsupportedLoss, match=f"expected Chooses to be as it was called .* found another {name!r}"):
        criterion(before, Y)


def test_what_a_forward_changes_itself_or_does_not_read_may_change():
    net = Chooses()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=STRENGTH, h=H)
    before, _ = net(X), net(X)
    net.epoch += 1
    expected = functional.cross_entropy(net(X), Y) + penalty_by_loop(net, X, Y)
    torch.testing.assert_close(criterion(before, Y), expected)


@PATHS
@pytest.mark.parametrize(
    ("make", "take"),
    [
        (lambda output: Fields(output, []), lambda returned: returned.logits),
        (lambda output: Fields(output.detach(), [output]), lambda returned: returned.parts[0]),
        (lambda output: types.SimpleNamespace(logits=output, name="net"), lambda returned: returned.logits),
    ],
)
def test_the_judged_tensor_may_be_an_attribute(path, make, take):
    net = Returned(make)
    check(
        net,
        lambda: functional.cross_entropy(net.body(X), Y),
        lambda: penalty_by_loop(net.body, X, Y),
        guarded_loss=lambda criterion: criterion(take(net(X)), Y),
        path=path,
    )


@dataclasses.dataclass
class Unset:
    logits: torch.Tensor
    loss: torch.Tensor = dataclasses.field(init=False)
    parent: object = None


@PATHS
def test_an_object_may_lack_a_field_and_lead_back_to_itself(path):
    def make(output):
        returned = Unset(output)
        returned.parent = [returned]
        return returned

    net = Returned(make)
    check(
        net,
        lambda: functional.cross_entropy(net.body(X), Y),
        lambda: penalty_by_loop(net.body, X, Y),
        guarded_loss=lambda criterion: criterion(net(X).logits, Y),
        path=path,
    )


@PATHS
def test_the_judged_tensor_is_picked_out_of_what_a_network_returns(path):
    net = Several()
    check(
        net,
        lambda: functional.cross_entropy(net.body(X), Y),
        lambda: penalty_by_loop(net.body, X, Y),
        guarded_loss=lambda criterion: criterion(net(X)["parts"][1][0], Y),
        path=path,
    )


def test_several_outputs_of_one_call_are_judged():
    """Each judged output is examined as a network of its own, and known again at the next call."""
    net = Several()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=STRENGTH, h=H)
    for _ in range(3):
        parts = net(X)["parts"]
        hidden, output = criterion(parts[0], Y), criterion(parts[1][0], Y)
    penalty = penalty_by_loop(net.body[:2], X, Y)
    torch.testing.assert_close(hidden, functional.cross_entropy(net.body[:2](X), Y) + penalty)
    torch.testing.assert_close(output, functional.cross_entropy(net.body(X), Y) + penalty_by_loop(net.body, X, Y))
    assert criterion.guarded == 6 and len(criterion._origins.as_called) == 2


def test_another_kind_of_result_in_evaluation_is_refused():
    class Auxiliary(Network):
        def forward(self, images):
            output = super().forward(images)
            return (output, output * 2) if self.training else output

    net = Auxiliary()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=STRENGTH, h=H)
    words = "to return in evaluation what it returns in training, found a Tensor .*aux_logits=False"
    with pytest.raises(UnsupportedLoss, match=words):
        criterion(net(X)[1], Y)


ROWS, CLASSES = torch.tensor([4, 1, 1]), torch.tensor([2, 0, 1, 1])


@PATHS
@pytest.mark.parametrize(
    ("derived", "judged", "rows"),
    [
        (lambda out: out / 4, lambda out: out / 4, slice(None)),
        (lambda out: -3 * out, lambda out: -3 * out, slice(None)),
        (lambda out: out * torch.tensor([1.0, 2.0, 3.0]), lambda out: out * torch.tensor([1.0, 2.0, 3.0]), slice(None)),
        (lambda out: out.view(6, 1, 3).squeeze(1), lambda out: out, slice(None)),
        (lambda out: out.unsqueeze(1)[:, 0], lambda out: out, slice(None)),
        (lambda out: out[:, :3].clone(), lambda out: out, slice(None)),
        (lambda out: out.log_softmax(1), lambda out: out, slice(None)),
        (lambda out: out.softmax(1).log(), lambda out: out, slice(None)),
        (lambda out: out[:4], lambda out: out, slice(4)),
        (lambda out: out[1:][:3] / 2, lambda out: out / 2, slice(1, 4)),
        (lambda out: out.chunk(2)[1], lambda out: out, slice(3, 6)),
        (lambda out: out.split([2, 4])[1], lambda out: out, slice(2, 6)),
        (lambda out: out[:, CLASSES].split([3, 1], 1)[0], lambda out: out[:, CLASSES[:3]], slice(None)),
        (lambda out: out[ROWS], lambda out: out, ROWS),
        (lambda out: out.index_select(0, ROWS), lambda out: out, ROWS),
        (lambda out: out[:, CLASSES], lambda out: out[:, CLASSES], slice(None)),
        (lambda out: out.index_select(1, CLASSES), lambda out: out[:, CLASSES], slice(None)),
        (lambda out: torch.tensor(3.0) * out, lambda out: 3 * out, slice(None)),
    ],
)
def test_what_is_computed_from_an_output_is_guarded(path, derived, judged, rows):
    net = Network()
    check(
        net,
        lambda: functional.cross_entropy(judged(net.body(X[rows])), Y[rows]),
        lambda: penalty_by_loop(net.body, X[rows], Y[rows], judged),
        guarded_loss=lambda criterion: criterion(derived(net(X)), Y[rows]),
        path=path,
    )


@pytest.mark.parametrize(
    ("derived", "operation"),
    [
        (lambda out: out.repeat(1, 2).view(12, 3)[:6], "ViewBackward0"),
        (lambda out: out + torch.tensor([1.0, 0.0, 0.0]), "AddBackward0"),
        (lambda out: out.softmax(0), "SoftmaxBackward0"),
        (lambda out: out * torch.rand(6, 1), "MulBackward0"),
        (lambda out: out * torch.ones((), requires_grad=True), "MulBackward0"),
    ],
)
def test_what_cannot_be_computed_again_is_refused(derived, operation):
    net = Network()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=STRENGTH, h=H)
    with pytest.raises(UnsupportedLoss, match=f"from it by {operation}, which guard-plugin cannot do again"):
        criterion(derived(net(X)), Y)


def test_an_output_that_was_cast_is_guarded_in_full_precision():
    net = Network().float()
    x = X.float()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=STRENGTH, h=H)
    penalty = guard_plugin.curvature_penalty(net, x, Y, h=H, strength=STRENGTH)
    for output in (net(x).double(), net(x).bfloat16().float()):
        loss = criterion(output, Y)
        torch.testing.assert_close(loss.double(), functional.cross_entropy(output, Y).double() + penalty.double())


def test_losses_of_one_example_each_are_left_alone_unless_they_are_trained_on():
    net = Network()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=STRENGTH, h=H)
    output = net(X)
    functional.cross_entropy(output, Y, reduction="none").detach().max()
    criterion(output, Y).backward()
    assert criterion.guarded == 1


def test_a_network_that_calls_itself_in_its_own_way_is_refused():
    class OwnCall(Network):
        def __call__(self, images):
            return super().__call__(images * 2)

    net = OwnCall()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=STRENGTH, h=H)
    with pytest.raises(UnsupportedLoss, match="found a __call__ of its own"):
        criterion(net(X), Y)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")
def test_a_scripted_network_is_guarded():
    net = Network()
    check(
        net,
        lambda: functional.cross_entropy(net.body(X), Y),
        lambda: penalty_by_loop(net.body, X, Y),
        guarded_loss=lambda criterion: criterion(net(X), Y),
    )
    scripted = torch.jit.script(Network())
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), scripted, strength=STRENGTH, h=H)
    plain = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=STRENGTH, h=H)
    torch.testing.assert_close(criterion(scripted(X), Y), plain(net(X), Y))
