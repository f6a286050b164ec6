import json
import logging
import sys

import pytest
import torch
from torch import nn

from guard_plugin.errors import UnusableInput
from guard_plugin.robustbench_bridge.autoattack import AutoAttack

EPS = 3 / 255
STANDARD = {"apgd-ce", "apgd-t", "fab-t", "square"}


def attack(model, images, *, bs=250, state_path=None, log_path=None, **settings):
    """Run the attack as robustbench does."""
    evaluation = AutoAttack(model, device="cpu", log_path=log_path, **settings)
    return evaluation.run_standard_evaluation(*images, bs=bs, state_path=state_path)


def survivors(model, images, adversarial):
    return model(adversarial).argmax(1) == images[1]


def read(state):
    """The attacks that have run to their end, and which examples have withstood so far."""
    stored = json.loads(state.read_text())
    return set(stored["finished"]), torch.tensor(stored["robust"])


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_examples_are_those_of_pyautoattack(quick_autoattack, network, images, norm):
    eps = EPS if norm == "Linf" else 0.1
    adversarial = attack(network, images, norm=norm, eps=eps, seed=3, bs=16)
    oracle = quick_autoattack.AutoAttack(network, norm=norm, eps=eps, seed=3)
    assert torch.equal(adversarial, oracle.run_standard_evaluation(*images, batch_size=16)[0])
    assert 0 < survivors(network, images, adversarial).sum() < 23


def test_the_seed_decides(quick_autoattack, network, images):
    runs = [attack(network, images, norm="L2", eps=0.1, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_nothing_of_the_callers_is_disturbed(quick_autoattack, network, images):
    frozen = network[1].bias.requires_grad_(False)
    random_state, trace = torch.get_rng_state(), lambda *_: None
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        attack(network, images, eps=EPS)
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


def test_a_killed_evaluation_goes_on_and_ends_with_the_same_outcomes(quick_autoattack, network, images, tmp_path):
    def run(name):
        attack(network, images, eps=EPS, seed=0, bs=16, state_path=tmp_path / name)
        return read(tmp_path / name)

    replaced, whole = quick_autoattack.autoattack.EvaluationState, run("whole.json")
    with pytest.MonkeyPatch.context() as patch:
        kill_in(patch, quick_autoattack, "SquareAttack")
        with pytest.raises(Killed):
            run("killed.json")
    assert quick_autoattack.autoattack.EvaluationState is replaced and network[1].weight.requires_grad
    finished, robust = read(tmp_path / "killed.json")
    assert finished == STANDARD - {"square"} and 0 < robust.sum() < 23
    with pytest.MonkeyPatch.context() as patch:
        # What has run must not run again.
        kill_in(patch, quick_autoattack, "APGDAttack")
        again = run("killed.json")
    assert again[0] == whole[0] == STANDARD
    assert torch.equal(again[1], whole[1])


def test_a_kill_within_an_attack_loses_no_fooled_example(quick_autoattack, network, images, tmp_path):
    state = tmp_path / "state.json"
    perturb, calls = quick_autoattack.autoattack.APGDAttack.perturb, []

    def second_batch_kills(self, x, y):
        calls.append(len(x))
        if len(calls) == 2:
            raise Killed
        return perturb(self, x, y)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick_autoattack.autoattack.APGDAttack, "perturb", second_batch_kills)
        with pytest.raises(Killed):
            attack(network, images, eps=EPS, seed=0, bs=12, state_path=state)
        finished, robust = read(state)
        left = int(robust.sum())
        assert left < 23 and finished == set()
        attack(network, images, eps=EPS, seed=0, bs=24, state_path=state)
    assert calls == [12, 11, left]
    assert not read(state)[1][0]
    # What had fallen stays fallen.
    assert not (read(state)[1] & ~robust).any()


def test_examples_that_fall_after_a_kill_are_returned(quick_autoattack, network, images, tmp_path):
    def run():
        return attack(network, images, eps=0.5, seed=0, state_path=tmp_path / "state.json")

    with pytest.MonkeyPatch.context() as patch:
        kill_in(patch, quick_autoattack, "APGDAttack")
        with pytest.raises(Killed):
            run()
    adversarial = run()
    assert survivors(network, images, adversarial).sum() == read(tmp_path / "state.json")[1].sum() == 0
    # Nothing is left: a third run attacks nothing.
    assert torch.equal(run(), images[0])


@pytest.mark.parametrize("other", ["eps", "norm", "model", "images", "labels"])
def test_the_state_of_another_measurement_is_refused(quick_autoattack, network, images, tmp_path, other):
    def run(norm="Linf", eps=0.5, pixels=images[0], labels=images[1]):
        attack(network, (pixels, labels), norm=norm, eps=eps, state_path="state.json")

    run()
    run()
    if other == "model":
        with torch.no_grad():
            network[1].bias[0] += 1
    changed = {"eps": {"eps": 0.4}, "norm": {"norm": "L2"}, "model": {}, "images": {"pixels": images[0].flip(0)}}
    with pytest.raises(UnusableInput, match="another measurement.*another aa_state_path"):
        run(**changed.get(other, {"labels": images[1].flip(0)}))


def test_another_version_of_pyautoattack_is_refused(quick_autoattack, network, images, monkeypatch):
    monkeypatch.delattr(quick_autoattack.autoattack, "EvaluationState")
    with pytest.raises(UnusableInput, match=r"expected .*pyautoattack==0.2.0.*EvaluationState"):
        attack(network, images, eps=EPS, state_path="state.json")


@pytest.mark.parametrize("switch", ["none", "logger", "all"])
def test_the_log_goes_to_the_file(quick_autoattack, network, images, tmp_path, capsys, monkeypatch, switch):
    logger = logging.getLogger("auto-attack")
    monkeypatch.setattr(logger, "disabled", switch == "logger")
    monkeypatch.setattr(logger.manager, "disable", logging.CRITICAL if switch == "all" else logging.NOTSET)
    logger._cache.clear()
    attack(network, images, eps=EPS, log_path=tmp_path / "log.txt")
    attack(network, images, eps=EPS)
    assert (tmp_path / "log.txt").read_text().count("running apgd-ce\n") == 1
    assert logging.getLogger("auto-attack").handlers == [] and "apgd" not in capsys.readouterr().out


def test_the_log_holds_the_warnings_of_the_attacks(quick_autoattack, images, tmp_path):
    class Flat(nn.Module):
        """Predicts class 0, whatever the image: no gradient reaches a pixel."""

        def forward(self, pixels):
            return torch.nn.functional.one_hot(torch.zeros(len(pixels), dtype=torch.int64), 10) + 0.0 * pixels.sum()

    attack(Flat().eval(), (images[0], torch.zeros_like(images[1])), eps=EPS, log_path=tmp_path / "log.txt")
    assert "24 points with zero gradient" in (tmp_path / "log.txt").read_text()
