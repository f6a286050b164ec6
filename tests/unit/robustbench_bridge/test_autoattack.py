import logging
import sys

import pytest
import torch

from guard_plugin.errors import UnusableInput
from guard_plugin.robustbench_bridge.autoattack import AutoAttack, autoattack_modules
from guard_plugin.robustbench_bridge.state import ReportedState, SavedState

EPS = 3 / 255


def survivors(model, images, adversarial):
    return model(adversarial).argmax(1) == images[1]


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_examples_are_those_of_pyautoattack(quick_autoattack, network, images, norm):
    eps = EPS if norm == "Linf" else 0.1
    adversarial = AutoAttack(network, norm=norm, eps=eps, seed=3).run_standard_evaluation(*images, bs=16)
    oracle = quick_autoattack.AutoAttack(network, norm=norm, eps=eps, seed=3)
    assert torch.equal(adversarial, oracle.run_standard_evaluation(*images, batch_size=16)[0])
    assert 0 < survivors(network, images, adversarial).sum() < 23


def test_the_seed_decides(quick_autoattack, network, images):
    runs = [AutoAttack(network, norm="L2", eps=0.1, seed=seed).run_standard_evaluation(*images) for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_nothing_of_the_callers_is_disturbed(quick_autoattack, network, images):
    frozen = network[1].bias.requires_grad_(False)
    random_state, trace = torch.get_rng_state(), lambda *_: None
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        AutoAttack(network, eps=EPS).run_standard_evaluation(*images)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)
    assert network[1].weight.requires_grad and network[1].weight.grad is None and not frozen.requires_grad
    assert torch.equal(torch.get_rng_state(), random_state)


class Killed(Exception):
    pass


def kill_in(monkeypatch, pyautoattack, attack):
    """Stop the evaluation when it begins this attack."""

    def stop(self, *args, **kwargs):
        raise Killed

    monkeypatch.setattr(getattr(pyautoattack.autoattack, attack), "perturb", stop)


def test_a_killed_evaluation_goes_on_and_ends_with_the_same_flags(quick_autoattack, network, images, tmp_path):
    attack = AutoAttack(network, eps=EPS, seed=0)

    def run(state):
        attack.run_standard_evaluation(*images, bs=16, state_path=tmp_path / state)
        return SavedState.read(tmp_path / state)

    whole = run("whole.json")
    with pytest.MonkeyPatch.context() as patch:
        kill_in(patch, quick_autoattack, "SquareAttack")
        with pytest.raises(Killed):
            run("killed.json")
    halfway = SavedState.read(tmp_path / "killed.json")
    assert halfway.finished == {"apgd-ce", "apgd-t", "fab-t"} and 0 < halfway.robust.sum() < 23
    with pytest.MonkeyPatch.context() as patch:
        # What has run must not run again.
        kill_in(patch, quick_autoattack, "APGDAttack")
        again = run("killed.json")
    assert again.finished == whole.finished == {"apgd-ce", "apgd-t", "fab-t", "square"}
    assert torch.equal(again.robust, whole.robust)
    # The same object then measures anew, with all attacks.
    assert run("anew.json").finished == whole.finished


def test_a_kill_within_an_attack_loses_no_fooled_example(quick_autoattack, network, images, tmp_path):
    attack, state = AutoAttack(network, eps=EPS, seed=0), tmp_path / "state.json"
    perturb, calls = quick_autoattack.autoattack.APGDAttack.perturb, []

    def second_batch_kills(self, x, y):
        calls.append(len(x))
        if len(calls) == 2:
            raise Killed
        return perturb(self, x, y)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick_autoattack.autoattack.APGDAttack, "perturb", second_batch_kills)
        with pytest.raises(Killed):
            attack.run_standard_evaluation(*images, bs=12, state_path=state)
        left = int(SavedState.read(state).robust.sum())
        assert left < 23 and SavedState.read(state).finished == set()
        attack.run_standard_evaluation(*images, bs=24, state_path=state)
    assert calls == [12, 11, left]
    assert not SavedState.read(state).robust[0]


def test_examples_that_fall_after_a_kill_are_returned(quick_autoattack, network, images, tmp_path):
    attack, state = AutoAttack(network, eps=0.5, seed=0), tmp_path / "state.json"
    with pytest.MonkeyPatch.context() as patch:
        kill_in(patch, quick_autoattack, "APGDAttack")
        with pytest.raises(Killed):
            attack.run_standard_evaluation(*images, state_path=state)
    adversarial = attack.run_standard_evaluation(*images, state_path=state)
    assert survivors(network, images, adversarial).sum() == SavedState.read(state).robust.sum() == 0
    # Nothing is left: a third run attacks nothing.
    assert torch.equal(attack.run_standard_evaluation(*images, state_path=state), images[0])


@pytest.mark.parametrize("other", ["eps", "norm", "model", "images", "labels"])
def test_the_state_of_another_measurement_is_refused(quick_autoattack, network, images, tmp_path, other):
    def run(norm="Linf", eps=0.5, pixels=images[0], labels=images[1]):
        AutoAttack(network, norm=norm, eps=eps).run_standard_evaluation(pixels, labels, state_path="state.json")

    run()
    run()
    if other == "model":
        with torch.no_grad():
            network[1].bias[0] += 1
    changed = {"eps": {"eps": 0.4}, "norm": {"norm": "L2"}, "model": {}, "images": {"pixels": images[0].flip(0)}}
    with pytest.raises(UnusableInput, match="another measurement.*another aa_state_path"):
        run(**changed.get(other, {"labels": images[1].flip(0)}))


@pytest.mark.parametrize("switch", ["none", "logger", "all"])
def test_the_log_goes_to_the_file(quick_autoattack, network, images, tmp_path, capsys, monkeypatch, switch):
    logger = logging.getLogger("auto-attack")
    monkeypatch.setattr(logger, "disabled", switch == "logger")
    monkeypatch.setattr(logger.manager, "disable", logging.CRITICAL if switch == "all" else logging.NOTSET)
    logger._cache.clear()
    AutoAttack(network, eps=EPS, log_path=tmp_path / "log.txt").run_standard_evaluation(*images)
    AutoAttack(network, eps=EPS).run_standard_evaluation(*images)
    assert (tmp_path / "log.txt").read_text().count("running apgd-ce\n") == 1
    assert logging.getLogger("auto-attack").handlers == [] and "apgd" not in capsys.readouterr().out


def test_the_modules_offer_what_robustbench_imports():
    modules = autoattack_modules()
    assert modules["autoattack"].AutoAttack is AutoAttack
    assert modules["autoattack.state"].EvaluationState is ReportedState
