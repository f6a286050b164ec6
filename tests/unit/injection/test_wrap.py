"""One line in any training script."""

import copy
import gc
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

import guard_plugin
from guard_plugin.errors import UnsupportedLoss, UnusableInput
from tests.versions import needs_torch

X, Y = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1, 0, 2])


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


@pytest.mark.parametrize("form", ["gradient", "loss"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_in_training_carries_the_penalty(net, form, smoothing):
    criterion = nn.CrossEntropyLoss(label_smoothing=smoothing)
    guarded = guard_plugin.wrap(criterion, net, strength=2.0, h=0.5, form=form)

    def losses(output, target):
        return functional.cross_entropy(output, target, reduction="none", label_smoothing=smoothing)

    penalty = guard_plugin.curvature_penalty(net, X, Y, h=0.5, strength=2.0, form=form, loss_fn=losses)
    torch.testing.assert_close(guarded(input=net(X), target=Y), criterion(net(X), Y) + penalty)
    assert penalty > 0 and guarded.guarded == 1


@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_a_third_tensor_is_refused(net, strength):
    """As of a criterion that is called on student, teacher and labels: its second tensor is not the targets."""

    def distillation(student, teacher, labels, temperature=4.0):
        soft = functional.mse_loss((student / temperature).softmax(1), (teacher / temperature).softmax(1))
        return soft + functional.cross_entropy(student, labels)

    def losses(output, target):
        return functional.cross_entropy(output, target, reduction="none")

    criterion = guard_plugin.wrap(distillation, net, strength=strength, h=0.5, loss_fn=losses)
    teacher = torch.zeros(6, 3)
    for arguments, names in (((teacher, Y), {}), ((), {"teacher": teacher, "labels": Y, "temperature": 2.0})):
        with pytest.raises(UnsupportedLoss, match="outputs and targets, .*found 3 tensors: wrap the loss of"):
            criterion(net(X), *arguments, **names)
    net.eval()
    assert torch.equal(criterion(net(X), teacher, Y), distillation(net(X), teacher, Y))


def test_training_with_it_lowers_the_penalty(net):
    def final_penalty(strength: float) -> float:
        model = copy.deepcopy(net)
        criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), model, strength=strength, h=0.5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in range(60):
            optimizer.zero_grad()
            criterion(model(X), Y).backward()
            optimizer.step()
        return guard_plugin.curvature_penalty(model, X, Y, h=0.5, strength=1.0).item()

    assert final_penalty(5.0) < 0.5 * final_penalty(0.0)


def test_what_is_not_training_on_real_data_keeps_its_loss(net):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.5)
    plain = functional.cross_entropy(net(X), Y)
    with torch.no_grad():
        assert torch.equal(criterion(net(X), Y), plain)
    assert torch.equal(criterion(net(X.clone().requires_grad_()), Y), plain)
    net.eval()
    assert torch.equal(criterion(net(X), Y), plain)
    assert criterion.guarded == 0


def test_a_network_whose_trained_tensors_are_no_parameters_is_refused():
    class Functional(nn.Module):
        """As MTT's ReparamModule: what is trained is a tensor, and no parameter of the network."""

        def __init__(self):
            super().__init__()
            self.register_buffer("flat", torch.randn(5, 3, requires_grad=True))

        def forward(self, x):
            return x @ self.flat

    reparametrized = Functional()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), reparametrized, strength=2.0, h=0.5)
    with pytest.raises(UnsupportedLoss, match="parameters of Functional, of which none requires grad, found that they"):
        criterion(reparametrized(X), Y)


@needs_torch(2, 0)
def test_functional_call_on_a_frozen_skeleton_is_refused(net):
    skeleton = net.requires_grad_(False)
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), skeleton, strength=2.0, h=0.5)
    trained = {name: parameter.clone().requires_grad_() for name, parameter in skeleton.named_parameters()}
    with pytest.raises(UnsupportedLoss, match="had other parameters when it was called"):
        criterion(torch.func.functional_call(skeleton, trained, (X,)), Y)


def test_a_loss_of_ones_own(net):
    def focal(output, target):
        ce = functional.cross_entropy(output, target, reduction="none")
        return (1 - torch.exp(-ce)) ** 2 * ce

    def mean_focal(output, target):
        return focal(output, target).mean()

    for function, name in ((mean_focal, "mean_focal"), (functional.cross_entropy, "cross_entropy")):
        words = f"expected a criterion that is a module .*found {name}, .*nn.CrossEntropyLoss.* or .*loss_fn="
        with pytest.raises(UnsupportedLoss, match=words):
            guard_plugin.wrap(function, net, strength=2.0, h=0.5)
    criterion = guard_plugin.wrap(mean_focal, net, strength=2.0, h=0.5, loss_fn=focal)
    penalty = guard_plugin.curvature_penalty(net, X, Y, h=0.5, strength=2.0, loss_fn=focal)
    torch.testing.assert_close(criterion(net(X), Y), mean_focal(net(X), Y) + penalty)


def test_strength_zero_adds_nothing(net):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=0, h=0.5)
    assert torch.equal(criterion(net(X), Y), functional.cross_entropy(net(X), Y))
    assert criterion.guarded == 1


def test_an_output_of_another_network_is_refused(net):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.5)
    with pytest.raises(UnsupportedLoss, match="a network's own output"):
        criterion(copy.deepcopy(net)(X), Y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 1.0}, "penalty 'curvature' needs h"),
        ({"h": 1.0}, "needs strength: .*or in Python strength=NUMBER"),
        ({"strength": 1.0, "h": 1.0, "lamda": 3}, "has no setting lamda"),
        ({"strength": 1.0, "h": 1.0, "penalty": "curvatur"}, "did you mean 'curvature'"),
    ],
)
def test_unusable_settings_are_refused(net, options, message):
    with pytest.raises(UnusableInput, match=message):
        guard_plugin.wrap(nn.CrossEntropyLoss(), net, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((nn.CrossEntropyLoss(), "net"), "expected a network, a torch.nn.Module, got str"),
        ((nn.CrossEntropyLoss(), None), "expected a network, a torch.nn.Module, got NoneType"),
        (("ce", nn.Linear(5, 3)), "expected criterion and loss_fn to be functions or modules, got str and NoneType"),
    ],
)
def test_what_is_no_network_or_criterion_is_refused(arguments, message):
    with pytest.raises(UnusableInput, match=message):
        guard_plugin.wrap(*arguments, strength=1.0, h=0.5)


def test_a_criterion_that_returns_no_tensor_is_refused(net):
    criterion = guard_plugin.wrap(
        lambda out, y: (out.mean(), y), net, strength=1.0, h=0.5, loss_fn=lambda out, y: out[:, 0]
    )
    with pytest.raises(UnsupportedLoss, match="expected the criterion to return one tensor, the loss, got tuple"):
        criterion(net(X), Y)


def test_the_watch_ends_with_the_criterion(net):
    before = nn.Module.__call__
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.5)
    assert nn.Module.__call__ is not before
    criterion.unwrap()
    assert nn.Module.__call__ is before
    assert torch.equal(criterion(net(X), Y), functional.cross_entropy(net(X), Y))
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.5)
    del criterion
    gc.collect()
    assert nn.Module.__call__ is before


def test_the_model_can_be_copied_and_saved(net, tmp_path):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.5)
    copy.deepcopy(net)
    torch.save(net, tmp_path / "net.pt")
    assert not list(criterion.parameters())


def test_it_has_the_criterions_attributes_and_settings_of_now(net):
    plain = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
    criterion = guard_plugin.wrap(plain, net, strength=2.0, h=0.5)
    assert criterion.reduction == "mean" and criterion.weight is plain.weight and not hasattr(criterion, "nothing")
    for smoothing, ignored in ((0.3, -100), (0.0, 1)):
        plain.label_smoothing, plain.ignore_index = smoothing, ignored

        def losses(output, target, smoothing=smoothing, ignored=ignored):
            settings = {"weight": plain.weight, "label_smoothing": smoothing, "ignore_index": ignored}
            return functional.cross_entropy(output, target, reduction="none", **settings)

        penalty = guard_plugin.curvature_penalty(net, X, Y, h=0.5, strength=2.0, loss_fn=losses)
        torch.testing.assert_close(criterion(net(X), Y), plain(net(X), Y) + penalty)


@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_what_is_set_on_it_is_set_on_the_criterion(net, strength):
    plain, wrapped = nn.CrossEntropyLoss(), nn.CrossEntropyLoss()
    criterion = guard_plugin.wrap(wrapped, net, strength=strength, h=0.5)
    settings = {"weight": torch.tensor([5.0, 1.0, 1.0]), "label_smoothing": 0.5, "ignore_index": 0, "reduction": "sum"}
    for name, value in settings.items():
        setattr(plain, name, value)
        setattr(criterion, name, value)
        loss = criterion(net(X), Y)
        assert loss > plain(net(X), Y) if strength else torch.equal(loss, plain(net(X), Y))
    criterion.note, criterion.guarded = "the wrapper's own", 7
    assert not hasattr(wrapped, "note") and not hasattr(wrapped, "guarded") and criterion.guarded == 7
    wrapped.own = True
    del criterion.own, criterion.note
    assert not hasattr(wrapped, "own") and not hasattr(criterion, "note")


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_a_network_can_be_traced(net, strength):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=strength, h=0.5)
    torch.testing.assert_close(torch.jit.trace(net, X[:2])(X), net(X))
    criterion(net(X), Y)
    assert criterion.guarded == 1


def test_it_is_a_module_with_the_criterions_state(net):
    weights = torch.tensor([1.0, 2.0, 3.0])
    plain, criterion = (nn.CrossEntropyLoss(weight=weights.clone()) for _ in range(2))
    criterion = guard_plugin.wrap(criterion, net, strength=2.0, h=0.5)
    assert criterion.state_dict().keys() == plain.state_dict().keys() == {"weight"}
    both = nn.ModuleDict({"criterion": criterion})
    assert both.state_dict().keys() == {"criterion.weight"}
    criterion.load_state_dict({"weight": 2 * weights})
    assert torch.equal(criterion.weight, 2 * weights)
    both.load_state_dict({"criterion.weight": 3 * weights})
    assert torch.equal(criterion.double().weight, 3 * weights.double())
    assert not list(criterion.parameters())


def test_further_arguments_reach_a_criterion_of_ones_own(net):
    def scaled(output, target, scale, *, shift=0.0):
        return scale * functional.cross_entropy(output, target) + shift

    def losses(output, target):
        return 3 * functional.cross_entropy(output, target, reduction="none")

    criterion = guard_plugin.wrap(scaled, net, strength=2.0, h=0.5, loss_fn=losses)
    penalty = guard_plugin.curvature_penalty(net, X, Y, h=0.5, strength=2.0, loss_fn=losses)
    expected = 3 * functional.cross_entropy(net(X), Y) + 1 + penalty
    torch.testing.assert_close(criterion(net(X), Y, 3, shift=1.0), expected)


@pytest.mark.parametrize("how", ["deepcopy", "deepcopy with the network", "pickle"])
def test_copies_guard_too(net, how):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(label_smoothing=0.1), net, strength=2.0, h=0.5)
    criterion(net(X), Y)
    if how == "deepcopy":
        copied, model = copy.deepcopy(criterion), net
    elif how == "pickle":
        copied, model = pickle.loads(pickle.dumps((criterion, net)))
    else:
        model, copied = copy.deepcopy((net, criterion))
    assert copied.guarded == 1
    torch.testing.assert_close(copied(model(X), Y), criterion(net(X), Y))
    assert copied.guarded == 2 and (model is net) == (how == "deepcopy")


def test_wrapping_twice_is_refused(net):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.5)
    with pytest.raises(UnusableInput, match="wrapped already"):
        guard_plugin.wrap(criterion, net, strength=2.0, h=0.5)


def test_training_that_is_never_guarded_is_warned_of_once(net):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.5)
    functional.cross_entropy(net(X), Y).backward()
    with pytest.warns(UserWarning, match="Sequential was trained .* on a loss that guard_plugin.wrap does not guard"):
        output = net(X)  # until here, the criterion could have been called on the first one's output, too
    functional.cross_entropy(output, Y).backward()
    net(X)  # warnings are errors here: not a second time
    assert criterion.guarded == 0


def test_training_that_goes_on_unguarded_is_warned_of(net):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.5)
    criterion(net(X), Y).backward()
    functional.cross_entropy(net(X), Y).backward()
    with pytest.warns(UserWarning, match="Sequential was trained"):
        net(X)


def test_training_on_a_batch_that_cannot_be_told_is_warned_of():
    net = nn.Bilinear(5, 5, 3)
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.5)
    net(X, X).square().mean().backward()
    with pytest.warns(UserWarning, match="Bilinear was trained"):
        net(X, X)
    assert criterion.guarded == 0


def test_a_guarded_loss_that_is_only_logged_does_not_count_as_training(net):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.5)
    output = net(X)
    criterion(output, Y).item()
    (output.logsumexp(1) - output.gather(1, Y[:, None])[:, 0]).mean().backward()
    with pytest.warns(UserWarning, match="Sequential was trained"):
        net(X)


@pytest.mark.parametrize("form", ["loss", "gradient"])
@pytest.mark.parametrize("path", ["auto", "separate", "reference"])
def test_two_criteria_of_one_network_settle_for_each_other(net, path, form):
    """And neither takes the penalty's passes of the other for training."""
    options = {"strength": 2.0, "h": 0.5, "form": form, "path": path}
    first, second = (guard_plugin.wrap(nn.CrossEntropyLoss(), net, **options) for _ in range(2))
    for criterion in (first, second, first):
        criterion(net(X), Y).backward()
    assert (first.guarded, second.guarded) == (2, 1)


@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_a_loss_beside_the_guarded_one_may_be_backpropagated_before_it(net, strength):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=strength, h=0.5)
    output = net(X)
    output.square().mean().backward(retain_graph=True)
    criterion(output, Y).backward()
    net(X)
    assert criterion.guarded == 1


def test_synthetic_images_and_evaluation_are_not_warned_of(net):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.5)
    functional.cross_entropy(net(X.clone().requires_grad_()), Y).backward()
    criterion(net(X.clone().requires_grad_()), Y).backward()
    criterion(net.eval()(X), Y).item()
    net(X)
    assert criterion.guarded == 0


def test_training_in_eval_mode_is_warned_of(net):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net.eval(), strength=2.0, h=0.5)
    criterion(net(X), Y).backward()
    with pytest.warns(
        UserWarning, match="Sequential was trained .* in eval mode, in which guard_plugin.wrap guards noth"
    ):
        net(X)
    assert criterion.guarded == 0
