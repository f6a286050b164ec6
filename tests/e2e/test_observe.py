"""``guard observe`` on hosts without an adapter: what it sees, that it changes nothing, and its command."""

from __future__ import annotations

import json
import shlex
import textwrap
from pathlib import Path

import pytest
import torch

from tests.conftest import BASELINES, write_distribution
from tests.versions import load_own, needs_torch

SHORT = shlex.split(
    "--dataset digits --model MLP --ipc 1 --num_exp 1 --num_eval 1 --epoch_eval_train 1 --Iteration 1 --batch_real 8"
)

HEAD = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
real, labels = torch.randn(6, 1, 4, 4), torch.tensor([0, 1, 2, 1, 0, 2])
learned = torch.randn(3, 1, 4, 4, requires_grad=True)
optimizer = torch.optim.SGD([learned], lr=0.1)
criterion = nn.CrossEntropyLoss()


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

"""


@pytest.fixture
def observe(guard, tmp_path):
    """Observe a script; return what was seen, and the command's result."""

    def run(script: Path, *arguments: object, options: tuple[object, ...] = ()):
        done = guard("observe", "--json", "seen.json", *options, script, *arguments)
        file = tmp_path / "seen.json"
        return json.loads(file.read_text()) if file.exists() else None, done

    return run


@pytest.fixture
def host(tmp_path):
    def write(body: str) -> Path:
        script = tmp_path / "main.py"
        script.write_text(HEAD + textwrap.dedent(body) + "\nmain()\n")
        return script

    return write


def run_proposed(guard, seen: dict, ledger: str = "ledger.json"):
    command = shlex.split(seen["command"])
    assert command[:2] == ["guard", "run"]
    return guard("run", "--ledger", ledger, *command[2:])


def verdicts(seen: dict) -> dict[str, int]:
    found: dict[str, int] = {}
    for group in seen["groups"]:
        found[group["verdict"]] = found.get(group["verdict"], 0) + group["calls"]
    return found


def test_gradient_matching_is_understood_and_the_command_guards_what_the_adapter_guards(observe, guard, tmp_path):
    script = BASELINES / "dc" / "main.py"
    seen, done = observe(script, *SHORT, "--save_path", "observed")
    assert done.returncode == 0 and seen["end"] == "complete" and "nothing was changed" in done.stderr
    assert seen["command"] in done.stderr
    assert run_proposed(guard, seen).returncode == 0
    ours = json.loads((tmp_path / "ledger.json").read_text())["loss_calls"]
    guard("run", "--ledger", "dc.json", "dc", script, *SHORT, "--save_path", "dc", check=True)
    theirs = json.loads((tmp_path / "dc.json").read_text())["loss_calls"]
    assert ours["guarded"] == ours["expected"] == theirs["guarded"] == verdicts(seen)["real"]
    assert verdicts(seen)["distilled"] > 0


def test_nothing_is_changed(observe, python_process, tmp_path):
    script = BASELINES / "dc" / "main.py"
    observe(script, *SHORT, "--save_path", "observed")
    assert python_process(script, *SHORT, "--save_path", "plain").returncode == 0
    observed, plain = (load_own(tmp_path / f / "res_DC_digits_MLP_1ipc.pt")["data"][0] for f in ("observed", "plain"))
    assert all(torch.equal(a, b) for a, b in zip(observed, plain))


def test_it_stops_after_so_many_losses_and_the_command_then_names_the_line(observe, guard):
    script = BASELINES / "dc" / "main.py"
    seen, done = observe(script, *SHORT, "--save_path", "out", options=("--calls", 30))
    assert (done.returncode, seen["end"], seen["loss_calls"]) == (0, "stopped", 30)
    assert "--expect" not in seen["command"] and "--real main.py:" in seen["command"]
    assert run_proposed(guard, seen).returncode == 0


ONE_LINE_FOR_BOTH = """
    def gradients(net, x, y):
        return torch.autograd.grad(criterion(net(x), y), list(net.parameters()), create_graph=True)

    def match(net):
        ours, theirs = gradients(net, learned, labels[:3]), gradients(net, real, labels)
        optimizer.zero_grad()
        sum(((a - b.detach()) ** 2).sum() for a, b in zip(ours, theirs)).backward()
        optimizer.step()

    def main():
        for _ in range(3):
            match(network())
        FAILS
"""


@pytest.mark.parametrize(("options", "fails"), [(("--calls", 3), ""), ((), "if 'always': raise SystemExit(4)")])
def test_a_line_with_losses_on_learned_images_too_is_not_called_real(observe, guard, host, tmp_path, options, fails):
    script = host(ONE_LINE_FOR_BOTH.replace("FAILS", fails))
    seen, _ = observe(script, options=options)
    assert set(verdicts(seen)) == {"real", "not guarded"} and len({group["site"] for group in seen["groups"]}) == 1
    assert "--guard main:gradients" in seen["command"] and "--real" not in seen["command"], seen["command"]
    assert any("tells them apart by their inputs" in note for note in seen["notes"]), seen["notes"]
    script.write_text(script.read_text().replace(fails, "") if fails else script.read_text())
    done = run_proposed(guard, seen)
    assert done.returncode == 0, done.stderr
    counts = json.loads((tmp_path / "ledger.json").read_text())["loss_calls"]
    assert (counts["guarded"], counts["skipped"]) == (3, {"synthetic: input requires grad": 3}), counts


@pytest.mark.parametrize("calls", [(), ("--calls", 3)])
def test_training_on_real_images_is_proposed(observe, guard, host, calls):
    script = host("""
    def train(net, loader):
        for x, y in loader:
            criterion(net(x), y).backward()

    def main():
        net = network()
        for _ in range(3):
            train(net, DataLoader(TensorDataset(real, labels), 3))
            net.eval(), criterion(net(real), labels), net.train()
    """)
    seen, _ = observe(script, options=calls)
    assert "--guard main:train" in seen["command"] and ("--expect 6" in seen["command"]) == (not calls)
    done = run_proposed(guard, seen)
    assert done.returncode == 0 and "6 guarded" in done.stderr.replace("6 of 6 expected guarded", "6 guarded")
    assert "a DataLoader over TensorDataset" in seen["groups"][0]["batch"]


def test_training_on_learned_images_is_suspended(observe, guard, host, tmp_path):
    script = host("""
    def fit(net, x, y):
        for a, b in DataLoader(TensorDataset(x, y), 2):
            criterion(net(a + 0.1), b).backward()  # an augmentation hides the values, not where they come from

    def evaluate():
        fit(network(), learned.detach().clone(), labels[:3])

    def main():
        net = network()
        criterion(net(real), labels).backward()
        criterion(net(learned), labels[:3]).backward()
        evaluate()
    """)
    seen, _ = observe(script)
    assert verdicts(seen) == {"real": 1, "not guarded": 1, "distilled": 2}
    assert "--guard main:main" in seen["command"] and "--suspend main:fit" in seen["command"]
    assert run_proposed(guard, seen).returncode == 0


def test_images_that_are_computed_from_what_is_learned_are_known_by_their_lineage(observe, guard, host):
    """As low-rank and other parametrized images are: no tensor that is learned holds their values."""
    seen, _ = observe(
        host("""
    u, v = torch.randn(3, 1, 4, 2, requires_grad=True), torch.randn(3, 1, 2, 4, requires_grad=True)

    def fit(net, x, y):
        for a, b in DataLoader(TensorDataset(x, y), 2):
            criterion(net(a), b).backward()

    def main():
        torch.optim.SGD([u, v], lr=0.1)
        fit(network(), (u @ v).detach(), labels[:3])
        (real + (u @ v).mean()).sum()  # real images stay real where something is computed from them
        fit_real(network())

    def fit_real(net):
        order = (u @ v).detach().reshape(-1)[:6].argsort()  # chosen by what is learned, not computed from it
        criterion(net(real[order]), labels[order]).backward()
    """)
    )
    assert verdicts(seen) == {"real": 1, "distilled": 2} and "--guard main:fit_real --expect 1" in seen["command"]
    assert run_proposed(guard, seen).returncode == 0


ATTACKS = """
    def pgd(net, x, y):
        adv = (x + torch.empty_like(x).uniform_(-0.03, 0.03)).detach()
        for _ in range(2):
            adv.requires_grad = True
            (gradient,) = torch.autograd.grad(criterion(net(adv), y), adv)
            adv = adv.detach() + 0.02 * gradient.sign()
            adv = (x + (adv - x).clamp(-0.03, 0.03)).detach()
        return adv

    def fgsm(net, x, y):
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(criterion(net(x), y), x)
        return (x + 0.03 * gradient.sign()).detach()

    def fit(attack, x, y):
        net = network()
        for a, b in DataLoader(TensorDataset(x, y), 3):
            criterion(net(attack(net, a, b)), b).backward()
"""


def test_adversarial_examples_of_real_images_are_real_and_those_of_learned_images_are_not(observe, guard, host):
    """As in robust distillation, whose networks are trained adversarially, on both."""
    script = host(
        ATTACKS
        + """
    def evaluate():
        fit(pgd, learned.detach().clone(), labels[:3])

    def main():
        fit(pgd, real, labels)
        evaluate()
    """
    )
    seen, _ = observe(script)
    assert verdicts(seen) == {"real": 2, "not guarded": 6, "distilled": 1}, seen
    assert "a DataLoader over TensorDataset, perturbed" in [group["batch"] for group in seen["groups"]]
    assert "--guard main:fit --suspend main:evaluate --expect 2" in seen["command"]
    done = run_proposed(guard, seen)
    assert done.returncode == 0 and "2 of 2 expected guarded" in done.stderr, done.stderr


def test_images_that_gradients_changed_without_an_optimizer_are_left_to_the_user(observe, guard, host):
    script = host(ATTACKS + "\n    def main():\n        fit(fgsm, real, labels)\n")
    seen, _ = observe(script)
    assert seen["command"] is None and verdicts(seen)["undecided"] == 2
    options = "guard run auto --guard main:fit"
    assert "learned by hand, or adversarial examples" in seen["why_not"] and options in seen["why_not"], seen
    setting = ("--strength", "1", "--h", "0.1")
    done = guard("run", *setting, "auto", "--guard", "main:fit", "--expect", "2", script)
    assert done.returncode == 0 and "2 of 2 expected guarded" in done.stderr, done.stderr


def test_they_are_kept_apart_from_losses_on_real_images(observe, guard, host):
    script = host(
        ATTACKS
        + """
    def main():
        fit(lambda net, x, y: x, real, labels)
        fit(fgsm, real, labels)
    """
    )
    seen, _ = observe(script)
    assert "--made-by 'a DataLoader over TensorDataset' --expect 2" in seen["command"] and seen["notes"], seen
    assert run_proposed(guard, seen).returncode == 0


BY_GENERATOR = """
    def logged(loader):
        for batch in loader:
            yield batch

    def fit(x, y):
        net = network()
        for a, b in logged(DataLoader(TensorDataset(x, y), 3, num_workers=1)):
            criterion(net(a + 0.1), b).backward()

    def main():
        fit(IMAGES, labels[:3])
"""


@pytest.mark.parametrize("images", ["real[:3]", "learned.detach().clone()"])
def test_what_a_generator_of_the_host_fetches_is_known_where_it_hands_it_on(observe, host, images):
    """As metric loggers do, between a data loader and the loop over it."""
    seen, _ = observe(host(BY_GENERATOR.replace("IMAGES", images)))
    (group,) = seen["groups"]
    assert group["batch"].endswith("a DataLoader over TensorDataset"), group
    assert group["verdict"] == ("real" if images.startswith("real") else "distilled")


def test_real_batches_stay_real_where_learned_images_begin_as_some_of_them(observe, host):
    seen, _ = observe(
        host("""
    def main():
        learned.data[:] = real[:3]
        criterion(network()(real), labels).backward()
        criterion(network()(real[:3]), labels[:3]).backward()  # no other values than those of learned images
    """)
    )
    assert verdicts(seen) == {"real": 1, "distilled": 1}


ONE_TERM_OF_MANY = """
    def main():
        net = network()
        of_network = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(2):
            features = net(real).mean(), net(learned).mean()
            (criterion(net(real), labels) + features[1] - features[0].detach()).backward()
            optimizer.step()
            net.to("cpu")
            of_network.zero_grad()
            criterion(net(learned.detach().clone()), labels[:3]).backward()
            of_network.step()
            optimizer.zero_grad()
"""


def test_a_loss_whose_gradients_are_thrown_away_trains_nothing(observe, host):
    """As one term of a sum that is there for the others: a penalty on it would change nothing."""
    seen, _ = observe(host(ONE_TERM_OF_MANY))
    assert verdicts(seen) == {"looked at": 2, "distilled": 2} and seen["command"] is None, seen
    assert "their gradients are zeroed before anybody reads them" in seen["why_not"]
    assert "a penalty would change nothing" in seen["notes"][0]


BY_HAND = """
    def main():
        net = network()
        of_network = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(2):
            criterion(net(real), labels).backward()
            steps = [0.1 * one.grad / one.grad.norm() for one in net.parameters()]
            of_network.zero_grad()
            criterion(net(real), labels).backward()
            criterion(net(real[:3]), labels[:3]).backward()
            of_network.step()
            net.zero_grad()
"""


def test_gradients_that_the_host_reads_itself_or_adds_up_are_used(observe, guard, host):
    seen, _ = observe(host(BY_HAND))
    assert verdicts(seen) == {"real": 6} and all(group["trained"] == 2 for group in seen["groups"])
    assert run_proposed(guard, seen).returncode == 0


def test_what_one_function_computes_on_both_is_told_apart_by_what_makes_the_batch(guard, observe, host):
    seen, _ = observe(
        host("""
    def fit(x, y):
        criterion(network()(x), y).backward()

    def main():
        fit(real, labels)
        fit(learned.detach().clone(), labels[:3])
    """)
    )
    assert "--guard main:fit --made-by 'a tensor on which nothing is learned' --expect 1" in seen["command"]
    done = run_proposed(guard, seen)
    assert done.returncode == 0 and "1 batch made by a copy of learned images" in done.stderr, done.stderr


def test_what_cannot_be_told_apart_is_no_proposal(observe, host):
    seen, done = observe(
        host("""
    def fit(net):
        criterion(net(real), labels).backward()
        print(criterion(net(real), labels))

    def main():
        fit(network())
    """)
    )
    assert seen["command"] is None and "write a plugin whose is_real_data tells them apart" in seen["why_not"]
    assert done.returncode == 0 and "nothing to propose" in done.stderr


NOTHING = {
    "by hand": ("network()(real).square().mean().backward()", "by losses that have no form per example"),
    "mse": ("nn.MSELoss()(network()(real), torch.zeros(6, 3)).backward()", "MSELoss at main.py"),
    "recovered": ("criterion(network().eval()(learned), labels[:3]).backward()", "such as the teacher's"),
    "no loss": ("pass", "no classification loss was computed"),
    "only looked at": ("criterion(network()(real), labels).item()\nnetwork()(real).sum().backward()", None),
}


@pytest.mark.parametrize(("body", "why"), NOTHING.values(), ids=NOTHING)
def test_where_nothing_can_be_guarded_it_says_why(observe, host, body, why):
    seen, done = observe(host("def main():\n" + textwrap.indent(body, "    ")))
    if why is None:
        assert any("cannot be guarded" in note for note in seen["notes"]), seen
    else:
        assert seen["command"] is None and why in seen["why_not"], seen
    assert done.returncode == 0


@needs_torch(2, 1)
def test_a_loss_inside_a_compiled_function_is_named_with_its_line(observe, host):
    body = """
    @torch.compile(backend="eager")
    def judged(net, x, y):
        return criterion(net(x), y)

    def main():
        net = network()
        for _ in range(2):
            judged(net, real, labels).backward()  # here
    """
    script = host(body)
    line = next(n for n, text in enumerate(script.read_text().splitlines(), 1) if "# here" in text)
    seen, done = observe(script)
    assert verdicts(seen) == {"unsupported": 2} and seen["command"] is None and done.returncode == 0
    assert f"torch.compile compiled compute the losses at main.py:{line}" in seen["why_not"], seen["why_not"]
    assert "judged, which torch.compile compiled" in seen["notes"][0] and "real data" not in seen["notes"][0]


def test_a_script_that_fails_keeps_its_exit_code(observe, host):
    seen, done = observe(host("def main():\n    criterion(network()(learned), labels[:3])\n    raise SystemExit(4)"))
    assert done.returncode == 4 and seen["end"] == "failed" and "failed before one did" in seen["why_not"]


CHILDREN = """
    import multiprocessing, os
    def train():
        criterion(network()(real), labels).backward()
        END
    def main():
        children = [multiprocessing.get_context(START).Process(target=train) for _ in range(2)]
        [child.start() for child in children]
        [child.join() for child in children]
        multiprocessing.get_context(START).Process(target=print).start()
"""


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_what_child_processes_train_is_seen(guard_process, host, tmp_path, start):
    script = host(textwrap.dedent(CHILDREN.replace("START", repr(start)).replace("END", "")))
    script.write_text(script.read_text().replace("\nmain()\n", "\nif __name__ == '__main__':\n    main()\n"))
    guard_process("observe", "--json", "seen.json", script)
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert verdicts(seen) == {"real": 2} and "--guard main:train --expect 2" in seen["command"]
    assert run_proposed(guard_process, seen).returncode == 0


def test_the_last_step_of_a_child_process_is_judged_too(guard_process, host, tmp_path):
    body = (
        CHILDREN.replace("START", "'fork'").replace("END", "").replace("criterion(network()(real), labels)", "BY_HAND")
    )
    script = host(textwrap.dedent(body.replace("BY_HAND", "network()(real).square().mean()")))
    guard_process("observe", "--json", "seen.json", script)
    assert verdicts(json.loads((tmp_path / "seen.json").read_text())) == {"unsupported": 2}


def test_child_processes_that_do_not_report_are_named(observe, host):
    seen, _ = observe(host(textwrap.dedent(CHILDREN.replace("START", "'fork'").replace("END", "os._exit(0)"))))
    assert seen["children"] == {"__main__.train": 2} and "child processes that did not say" in seen["why_not"]


def test_programs_that_are_started_are_named(observe, host):
    """Those that a child process starts, too: the training may be in there."""
    body = """
    import multiprocessing, subprocess, sys
    def start(what):
        subprocess.run([sys.executable, "-c", what])
    def main():
        start("1")
        child = multiprocessing.get_context("fork").Process(target=start, args=("2",))
        child.start()
        child.join()
        subprocess.run(["true"])
    """
    seen, done = observe(host(body))
    assert [program.split()[1:] for program in seen["programs"]] == [["-c", "1"], ["-c", "2"]]
    assert "in the programs that the script started" in seen["why_not"]
    assert done.stderr.count("is a program of its own, and was not observed") == 2


ARGUED = """
import argparse

def train(net, loader):
    for x, y in loader:
        criterion(net(x), y).backward()

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--workers", type=int, default=5)
    args = parser.parse_args()
    net, loader = network(), DataLoader(TensorDataset(real, labels), 3)
    for _ in range(args.epochs):
        train(net, loader)
"""


@pytest.mark.parametrize("epochs", [7, 5])
def test_an_adapter_of_ones_own_is_written_and_works(observe, guard, host, tmp_path, epochs):
    """With 7 epochs of 2 batches, the 14 losses have one explanation; with 5, the epochs look like the workers."""
    script, installed = host(ARGUED), tmp_path / "site"
    write_distribution(installed, "guard-mine", "[guard_plugin]\nmine = guard_mine\n")
    adapter = installed / "guard_mine.py"
    _, done = observe(script, "--epochs", epochs, options=("--adapter", adapter))
    assert done.returncode == 0, done.stderr
    path = {"PYTHONPATH": str(installed)}
    done = guard("run", "mine", script, "--epochs", 3, **path)
    assert done.returncode == 0, done.stderr
    assert ("6 of 6 expected guarded" in done.stderr) == (epochs == 7)
    assert ("args.epochs * len(loader)" in adapter.read_text()) and "test_every_seam" in (
        installed / "test_guard_mine.py"
    ).read_text()
    script.write_text(script.read_text().replace("def train(net, loader)", "def train(net, loader, _=0)"))
    assert guard("run", "mine", script, "--epochs", 3, **path).returncode == 2
    _, done = observe(script, "--epochs", 1, options=("--adapter", adapter))
    assert done.returncode == 2 and "is there already" in done.stderr
