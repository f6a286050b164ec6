import importlib.util
import json
import sys
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

import guard_plugin
from guard_plugin.errors import UnusableInput
from guard_plugin.networks.architectures import build_network
from tests.conftest import ROOT

H = 0.5


@pytest.fixture(scope="module")
def ideas():
    """Imported as `python examples/ideas.py` would, with overhead.py beside it."""
    for name in ("overhead", "ideas"):
        specification = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module
        specification.loader.exec_module(module)
    yield module
    del sys.modules["overhead"], sys.modules["ideas"]


@pytest.fixture
def smooth():
    """A small network without kinks, and a batch, in double precision."""
    network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    return network, torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 2, 1, 1])


def penalty(network, images, labels, form="gradient"):
    return guard_plugin.curvature_penalty(network, images, labels, h=H, strength=2.0, form=form)


def gradients(value, network):
    found = torch.autograd.grad(value, list(network.parameters()), materialize_grads=True)
    return torch.cat([one.flatten() for one in found])


def test_a_part_of_the_batch_is_each_of_its_halves_and_their_mean_is_the_batchs(ideas, smooth):
    network, images, labels = smooth
    term = ideas.on_part(penalty, 2)
    halves = [list(half) for half in combinations(range(4), 2)]
    halves = {rounded(penalty(network, images[half], labels[half])) for half in halves}
    drawn = {rounded(term(network, images, labels)) for _ in range(60)}
    assert drawn == halves and len(halves) == 6
    assert sum(halves) / 6 == pytest.approx(rounded(penalty(network, images, labels)))


def rounded(value):
    return round(value.item(), 12)


def test_a_cycle_of_steps_holds_the_penalty_as_often_as_each_step_would(ideas, smooth):
    network, images, labels = smooth
    own = functional.cross_entropy(network(images), labels)
    with ideas.every(3, {"form": "gradient", "h": H, "strength": 2.0}, network) as loss:
        cycle = [loss(network, images, labels) for _ in range(3)]
    whole = own + 3 * penalty(network, images, labels)
    torch.testing.assert_close(cycle[0], whole)
    torch.testing.assert_close(gradients(cycle[0], network), gradients(whole, network))
    torch.testing.assert_close(torch.stack(cycle[1:]), own.repeat(2))


def second_difference_by_example(network, images, labels):
    def loss(one, label):
        return functional.cross_entropy(functional_call(network, dict(network.named_parameters()), one), label)

    step = vmap(grad(loss))(images, labels).detach()
    step = H * step / step.norm(dim=1, keepdim=True)
    losses = vmap(loss)
    return (losses(images + step, labels) - 2 * losses(images, labels) + losses(images - step, labels)).mean().abs()


def test_what_is_taken_away_changes_the_way_and_not_the_gradient(ideas):
    network = build_network("ConvNet-d1-w4-group", channels=3, num_classes=3, im_size=(8, 8)).double()
    batch = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 2, 1, 1])
    found = ideas.ideas((3, 8, 8), compiled=False)
    taken_away = [name for name in found for part in (*ideas.WITHOUT, *ideas.WITHOUT_IN_MEMORY_LOW) if part in name]
    assert len(taken_away) == 8
    for owner, name, value in (*ideas.WITHOUT.values(), *ideas.WITHOUT_IN_MEMORY_LOW.values()):
        assert callable(getattr(owner, name)) and getattr(owner, name) is not value
    for name in taken_away:
        gradients = []
        for one in (found[name], found[found[name].against]):
            with one.make_loss(network) as loss:
                gradients.append(torch.autograd.grad(loss(network, *batch), list(network.parameters())))
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("dropout", [False, True])
def test_the_second_difference_is_its_formula_in_evaluation(ideas, smooth, dropout):
    network, images, labels = smooth
    expected = functional.cross_entropy(network(images), labels)
    expected = expected + 100 * second_difference_by_example(network, images, labels)
    if dropout:  # of all inputs: in training, what is left is one loss that no image moves
        network = nn.Sequential(nn.Dropout(1.0), network)
        expected = expected - functional.cross_entropy(network[1](images), labels)
        expected = expected + functional.cross_entropy(network[1](torch.zeros_like(images)), labels)
    value = ideas.second_difference(H, 100.0)(network, images, labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradients(value, network), gradients(expected, network))


def test_the_finite_difference_has_the_penalty_s_value_and_nears_its_gradient_where_there_are_no_kinks(ideas, smooth):
    network, images, labels = smooth
    exact = penalty(network, images, labels)
    near, far = (ideas.finite_difference(H, 2.0, step)(network, images, labels) for step in (1e-5, 1e-2))
    torch.testing.assert_close(near, exact)
    right = gradients(exact, network)
    off = [float((gradients(value, network) - right).norm() / right.norm()) for value in (near, far)]
    assert off[0] < 1e-4 < off[1] < 0.1


def test_kinks_and_not_rounding_put_the_finite_difference_off(ideas):
    network = nn.Sequential(nn.Linear(5, 400), nn.ReLU(), nn.Linear(400, 3))
    found = ideas.finite_deviations(network, (torch.randn(256, 5), torch.randint(3, (256,))), 1.0)
    step = str(ideas.FINITE_STEP)
    assert found["float64"][step] > 0.1 > 0.01 > found["float64, GELU for ReLU"][step]
    assert isinstance(network[1], nn.ReLU) and network[0].weight.dtype == torch.float32


def test_a_finite_difference_of_no_curvature_is_no_gradient(ideas):
    network = nn.Linear(5, 1)  # one class: the loss is 0 everywhere
    value = ideas.finite_difference(H, 2.0)(network, torch.randn(4, 5), torch.zeros(4, dtype=torch.long))
    assert value == 0 and not gradients(value, network).any()


def test_an_estimate_s_spread_around_what_it_estimates(ideas):
    exact = torch.tensor([3.0, 4.0]).double()
    one = ideas.spread([4 * exact, 0 * exact, 0 * exact, 0 * exact], exact)
    assert (one.error, one.bias, one.length) == pytest.approx((3**0.5, 0, 5))
    assert one.chance == pytest.approx((12 / 3 / 4) ** 0.5)  # of the squares' sum with one degree less, by 4 draws
    biased = ideas.spread([1.5 * exact, 1.5 * exact], exact)
    assert (biased.error, biased.bias, biased.chance) == pytest.approx((0.5, 0.5, 0))


def test_the_layout_is_the_network_s_and_the_images(ideas):
    seen = []

    def made(network):
        def loss(network, images, labels):
            seen.append((network[0].weight, images))
            return functional.cross_entropy(network(images).flatten(1), labels)

        return ideas.given(loss, network)

    network = nn.Sequential(nn.Conv2d(3, 4, 2))
    batch = torch.randn(2, 3, 2, 2), torch.tensor([0, 1])
    ideas.Tried(network, ideas.Idea(made, memory_format=torch.channels_last), batch).seconds(1, "wall")
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in seen[0])
    assert network[0].weight.is_contiguous()


def test_an_idea_is_timed_and_counted_over_whole_cycles_and_told_per_step(ideas, smooth, monkeypatch):
    network, images, labels = smooth
    made = []

    def loss(network, images, labels):
        made.append(None)
        passes = 4 if len(made) % 3 == 1 else 1
        return sum(functional.cross_entropy(network(images), labels) for _ in range(passes))

    one = ideas.Tried(network, ideas.Idea(lambda network: ideas.given(loss, network), cycle=3), (images, labels))
    ticks = iter((0.0, 12.0))
    monkeypatch.setitem(sys.modules["overhead"].CLOCKS, "ticks", lambda: next(ticks))
    assert one.seconds(2, "ticks") == 2.0
    assert len(made) == 6
    assert one.passes() == (2, 2)


def test_a_network_is_compiled_once_and_only_for_the_penalty(ideas, smooth, monkeypatch):
    network, images, labels = smooth
    compiled = []

    def compile(network):
        compiled.append(network)
        return nn.Sequential(network)  # stands for the wrapper that torch.compile makes

    monkeypatch.setattr(torch, "compile", compile)
    term = ideas.compiled_penalty(penalty)
    for _ in range(2):
        torch.testing.assert_close(term(network, images, labels), penalty(network, images, labels))
    assert compiled == [network]


def run(ideas, monkeypatch, *arguments):
    tiny = ["--arch", "MLP", "--size", "4", "--batch-size", "4", "--rounds", "2", "--draws", "2", "--out", "out"]
    monkeypatch.setattr(sys, "argv", ["ideas.py", *tiny, *arguments])
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # which the script sets: put back afterwards
    monkeypatch.setattr(ideas, "compiler_found", lambda: None)
    ideas.main()


def test_the_script_tells_all_that_it_tried_and_what_it_did_not(ideas, monkeypatch, tmp_path, capsys):
    run(ideas, monkeypatch)
    run(ideas, monkeypatch, "--rounds", "3")
    text = (tmp_path / "out" / "MLP-4px-batch4.md").read_text()
    assert text in capsys.readouterr().out
    assert "3 rounds" in text and "torch.compile was not tried" in text and "not unbiased" in text
    tried = ideas.ideas((3, 4, 4), compiled=False)
    assert len(tried) == 25 and all(f"| {name} |" in text for name in tried)
    found = json.loads((tmp_path / "out" / "MLP-4px-batch4.json").read_text())
    assert len(found["estimates"]) == 8 and len(found["a batch for 16"]) == 3


@pytest.mark.parametrize(("option", "value"), [("--rounds", "1"), ("--draws", "1"), ("--batch-size", "3")])
def test_too_few_to_measure_are_refused_before_any_is_measured(ideas, monkeypatch, tmp_path, option, value):
    with pytest.raises(UnusableInput, match=f"{option} >= .*got {value}"):
        run(ideas, monkeypatch, option, value)
    assert not (tmp_path / "out").exists()
