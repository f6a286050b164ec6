"""Nothing silent: what is real data, and losses on it that cannot be guarded, under the adapter auto."""

import textwrap

import pytest
import torch
from torch import nn

import guard_plugin
from guard_plugin.errors import GuardError, NothingGuarded, UnsupportedLoss, UnusableInput
from tests.versions import needs_torch

HEAD = """
import torch
from torch import nn
from torch.nn import functional

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
real, labels = torch.randn(6, 5), torch.tensor([0, 1, 2, 1, 0, 2])
learned = torch.randn(6, 5, requires_grad=True)
criterion = nn.CrossEntropyLoss()

"""


@pytest.fixture
def run(tmp_path):
    """Run the body of a host's main() under auto; return its ledger and what main returned."""

    def run(body: str, result: bool = False, **options):
        script = tmp_path / "main.py"
        script.write_text(HEAD + "def main():\n" + textwrap.indent(textwrap.dedent(body), "    "))
        namespace = {"__name__": "__main__"}
        options = {"guard": ["main:main"], "strength": 1.0, "h": 0.5, **options}
        with guard_plugin.attach("auto", script=script, **options) as g:
            exec(compile(script.read_text(), str(script), "exec"), namespace)
            found = namespace["main"]()
        return found if result else g.ledger

    return run


def site(body: str, line: str) -> str:
    lines = (HEAD + "def main():\n" + textwrap.indent(textwrap.dedent(body), "    ")).splitlines()
    return f"main.py:{next(number for number, text in enumerate(lines, 1) if line in text)}"


GUARDED = "criterion(net(real), labels).backward()\n"

REAL_PARTS = {
    "slice of a mixture": "criterion(net(torch.cat([real, learned])[:6]), labels).backward()",
    "augmented slice": "criterion(net(torch.cat([real, learned]).flip(1).roll(1, 1)[:6] * 2), labels).backward()",
    "rows of the output": "criterion(net(torch.cat([real, learned]))[:6], labels).backward()",
    "rows set": "x = torch.zeros(12, 5)\nx[:6] = real\nx[6:] = learned\ncriterion(net(x[:6]), labels).backward()",
    "where": "criterion(net(torch.where(torch.ones(6, 5) > 0, real, learned)), labels).backward()",
}


@pytest.mark.parametrize("body", REAL_PARTS.values(), ids=REAL_PARTS)
def test_the_real_part_of_a_mixture_is_real(run, body):
    ledger = run(body)
    assert (ledger.guarded, ledger.skipped) == (1, {})
    namespace: dict = {}
    exec(HEAD, namespace)
    inputs = namespace["real"].flip(1).roll(1, 1) * 2 if "flip" in body else namespace["real"]
    penalty = guard_plugin.curvature_penalty(namespace["net"], inputs, namespace["labels"], h=0.5, strength=1.0)
    assert ledger.values.to_json()["first"] == pytest.approx(penalty.item(), rel=1e-5)


SYNTHETIC = {
    "leaf": "criterion(net(learned), labels).backward()",
    "slice": "criterion(net(learned[1:4] * 2), labels[1:4]).backward()",
    "other slice of a mixture": "criterion(net(torch.cat([real, learned])[6:]), labels).backward()",
    "rows of the output": "criterion(net(torch.cat([real, learned]))[6:], labels).backward()",
    "through a transform": "criterion(net(nn.Flatten()(learned.clone())), labels).backward()",
}


@pytest.mark.parametrize("body", SYNTHETIC.values(), ids=SYNTHETIC)
def test_learned_images_are_synthetic(run, body):
    ledger = run(GUARDED + body, expect=1)
    assert (ledger.guarded, ledger.skipped) == (1, {"synthetic: input requires grad": 1})
    real = site(GUARDED + body, "net(real)")
    assert run(GUARDED + body, real=[real]).skipped == {"synthetic: input requires grad": 1}


UNDECIDED = {
    "head apart": ("head = nn.Linear(3, 3)\ncriterion(head(net(real)), labels).backward()", "computed by Sequential"),
    "frozen backbone": (
        "head = nn.Linear(3, 3)\nwith torch.no_grad():\n    feature = net(real)\n"
        "criterion(head(feature), labels).backward()",
        "computed by Sequential",
    ),
    "frozen backbone, viewed": (
        "head = nn.Linear(3, 3)\nwith torch.no_grad():\n    feature = net(real).view(6, 3)\n"
        "criterion(head(feature), labels).backward()",
        "computed by Sequential",
    ),
    "forward called": ("criterion(net.forward(real), labels).backward()", "computed by Tanh|computed by Linear"),
    "learned augmentation": (
        "aug = nn.Linear(5, 5)\ncriterion(net(aug(real)), labels).backward()",
        "computed by Linear",
    ),
    "features that a hook kept, of many images": (
        "kept, head, many = {}, nn.Linear(4, 3), torch.randn(64, 5)\n"
        "net[1].register_forward_hook(lambda net, images, output: kept.update(features=output))\n"
        "net(many)\ncriterion(head(kept['features']), torch.zeros(64, dtype=torch.long)).backward()",
        "computed by parameters of Sequential",
    ),
    "learned scale": (
        "scale = torch.ones((), requires_grad=True)\ncriterion(net(real * scale), labels).backward()",
        "smaller than an image",
    ),
    "part of a tensor that requires grad": (
        "mixed = torch.cat([real, real]).requires_grad_()\ncriterion(net(mixed[:6]), labels).backward()",
        "input is a part of a tensor that requires grad, which may hold real images, too",
    ),
    "mixed batch": (
        "criterion(net(torch.cat([real[:3], learned[:3]])), labels).backward()",
        "a part of the input is learned",
    ),
}


@pytest.mark.parametrize(("body", "reason"), UNDECIDED.values(), ids=UNDECIDED)
def test_what_cannot_be_told_ends_the_run_unless_somebody_vouches(run, body, reason):
    with pytest.raises(NothingGuarded, match=rf"undecided: .*({reason}) at main.py:\d+.* --real main.py:\d+"):
        run(GUARDED + body)
    ledger = run(GUARDED + body, expect=1)
    assert ledger.guarded == 1 and sum(ledger.skipped.values()) == 1


def test_the_user_says_which_line_is_real(run):
    body = GUARDED + UNDECIDED["learned scale"][0]
    line = site(body, "net(real * scale)")
    ledger = run(body, real=[line])
    assert ledger.guarded == 2 and ledger.sites[line]["guarded"] == 1
    assert run(body + "\n" + UNDECIDED["mixed batch"][0], real=[line]).guarded == 2  # the others then are not
    with pytest.raises(NothingGuarded, match="expected a loss call at main.py:1, as --real says"):
        run(GUARDED, real=["main.py:1"])
    for unusable in ("main.py", "main.py:9999", "other.py:3", "main.py:x"):
        with pytest.raises(UnusableInput, match="expected --real FILE:LINE"):
            run(GUARDED, real=[unusable])


@pytest.mark.parametrize("case", ["head apart", "frozen backbone", "forward called", "learned augmentation"])
def test_a_penalty_on_features_is_refused(run, case):
    body = UNDECIDED[case][0]
    with pytest.raises(UnsupportedLoss, match="the penalty would act on features"):
        run(body, real=[site(body, "criterion(")])


ALONE = {
    "by hand": ("-(net(real).log_softmax(1)[torch.arange(6), labels]).mean()", NothingGuarded),
    "squared, by hand": ("net(real).square().mean()", NothingGuarded),
    "kl_div": ("functional.kl_div(net(real).log_softmax(1), torch.ones(6, 3) / 3)", UnsupportedLoss),
    "mse_loss": ("functional.mse_loss(net(real), torch.zeros(6, 3))", UnsupportedLoss),
    "BCE": ("nn.BCEWithLogitsLoss()(net(real), torch.ones(6, 3))", UnsupportedLoss),
    "reduction none": ("functional.cross_entropy(net(real), labels, reduction='none').mean()", UnsupportedLoss),
}


@pytest.mark.filterwarnings("ignore:reduction:UserWarning")
@pytest.mark.parametrize("how", ["backward", "grad"])
@pytest.mark.parametrize(("loss", "error"), ALONE.values(), ids=ALONE)
def test_a_main_loss_that_cannot_be_guarded_ends_the_run(run, loss, error, how):
    end = f"loss = {loss}\n"
    end += "loss.backward()" if how == "backward" else "torch.autograd.grad(loss, list(net.parameters()))"
    with pytest.raises(error):
        run(GUARDED + end)
    ledger = run(GUARDED + end, expect=1)
    (line,) = ledger.unguarded_losses
    assert ledger.guarded == 1 and line.startswith("main.py:") and line in ledger.summary()


@pytest.mark.filterwarnings("ignore:reduction:UserWarning")
@pytest.mark.parametrize("loss", [loss for loss, error in ALONE.values() if error is UnsupportedLoss])
def test_a_loss_beside_the_guarded_one_is_in_the_ledger(run, loss):
    body = f"output = net(real)\nloss = {loss.replace('net(real)', 'output')}\n"
    body += "(criterion(output, labels) + loss).backward()"
    ledger = run(body)
    line = site(body, "loss = ")
    assert ledger.guarded == 1 and list(ledger.unguarded_losses) == [line]
    assert line in ledger.to_json()["unguarded_losses"] and "losses beside, without the penalty: 1 " in ledger.summary()


@pytest.mark.parametrize("strength", [0.0, 1.0])
@pytest.mark.parametrize("looked_at", ["criterion(output, labels).item()", "criterion(output, labels).detach()"])
def test_a_guarded_loss_that_is_only_looked_at_is_no_training(run, looked_at, strength):
    body = f"output = net(real)\n{looked_at}\noutput.log_softmax(1)[torch.arange(6), labels].mean().neg().backward()"
    with pytest.raises(NothingGuarded, match="is trained by another one"):
        run(body, strength=strength)


@pytest.mark.filterwarnings("ignore:reduction:UserWarning")
@pytest.mark.parametrize("strength", [0.0, 1.0])
@pytest.mark.parametrize("loss", [loss for loss, _ in ALONE.values()], ids=ALONE)
def test_the_order_of_two_backward_passes_does_not_matter(run, loss, strength):
    beside = f"({loss.replace('net(real)', 'output')}).backward(retain_graph=True)\n"
    guarded = "criterion(output, labels).backward(retain_graph=True)\n"
    for order in (beside + guarded, guarded + beside):
        assert run(f"output = net(real)\n{order}net(real)", strength=strength).guarded == 1


def test_a_network_that_is_gone_is_refused_all_the_same(run):
    with pytest.raises(NothingGuarded, match="is trained by another one"):
        run(GUARDED + "nn.Linear(5, 3)(real).square().mean().backward()")


@pytest.mark.parametrize("strength", [0.0, 1.0])
@pytest.mark.parametrize("loss", ["criterion(net(real), labels)", "functional.mse_loss(net(real), torch.zeros(6, 3))"])
def test_training_in_eval_mode_is_refused_unless_somebody_vouches(run, loss, strength):
    body = f"{GUARDED}net.eval()\n{loss}.backward()\n"
    with pytest.raises(UnsupportedLoss, match="in training mode, found Sequential, called at main.py:.* in eval mode"):
        run(body, strength=strength)
    ledger = run(body, expect=1, strength=strength)
    assert ledger.guarded == 1 and "1 loss on Sequential in eval mode at main.py" in ledger.unguarded_in_words()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_training_in_a_thread_without_a_seam_is_refused_unless_somebody_vouches(run):
    body = f"""
    import threading

    def step():
        {GUARDED.strip()}

    def start():
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()

    step()
    start()
    """
    with pytest.raises(NothingGuarded, match="a thread that main.main may have started, and no seam in it"):
        run(textwrap.dedent(body))
    assert run(textwrap.dedent(body), expect=1).skipped == {"outside every seam": 1}
    assert run(textwrap.dedent(body), guard=["main:step"]).guarded == 2


UNKNOWN_BATCHES = {
    "two tensors": (
        "class Two(nn.Linear):\n    def forward(self, x, t):\n        return super().forward(x) * t\n"
        "two = Two(5, 3)\ntwo(real, torch.ones(6, 1)).square().mean().backward()\n",
        "found Two called with 2 of them",
    ),
    "a batch that is used again": (
        "class Relu(nn.Linear):\n    def forward(self, x):\n        return super().forward(x.relu())\n"
        "own = Relu(5, 3)\nloss = own(real).square().mean()\nreal.normal_()\nloss.backward()\n",
        "was modified in place",
    ),
}


@pytest.mark.parametrize(("body", "why"), UNKNOWN_BATCHES.values(), ids=UNKNOWN_BATCHES)
def test_training_on_a_batch_that_cannot_be_told_is_refused_unless_somebody_vouches(run, body, why):
    with pytest.raises(UnsupportedLoss, match=why):
        run(GUARDED + body)
    ledger = run(GUARDED + body, expect=1)
    assert ledger.guarded == 1 and "that is not seen" in ledger.unguarded_in_words()


ON_FEATURES = {
    "kl": "functional.kl_div(functional.log_softmax(head(features), 1), torch.ones(6, 3), reduction='sum').backward()",
    "mse": "nn.MSELoss()(head(features), torch.zeros(6, 3)).backward()",
    "by hand": "head(features).square().mean().backward()",
}


@pytest.mark.parametrize("loss", ON_FEATURES.values(), ids=ON_FEATURES)
def test_a_head_on_features_that_is_trained_by_another_loss_is_refused_unless_somebody_vouches(run, loss):
    body = GUARDED + "head = nn.Linear(3, 3)\nwith torch.no_grad():\n    features = net(real)\n" + loss
    with pytest.raises(GuardError):
        run(body)
    assert run(body, expect=1).guarded == run(body, real=[site(body, "net(real), labels")]).guarded == 1


UNRETURNED = {
    "kept": """
    class Keeps(nn.Sequential):
        def forward(self, x):
            self.kept = super().forward(x)

    keeps = Keeps(*net)
    keeps(real)
    keeps.kept.square().mean().backward()
    """,
    "slots": """
    class Slots:
        __slots__ = ("unset", "inner")

    class Returns(nn.Sequential):
        def forward(self, x):
            returned = Slots()
            returned.inner = [super().forward(x)]
            return returned

    Returns(*net)(real).inner[0].square().mean().backward()
    """,
    "within its forward": """
    class Trains(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.optimizer = net, torch.optim.SGD(net.parameters(), 0.1)

        def forward(self, x):
            self.optimizer.zero_grad()
            loss = criterion(self.net(x), labels)
            loss.backward()
            self.optimizer.step()
            return loss.detach()

    Trains()(real)
    """,
    "within its forward, by hand": """
    class Trains(nn.Sequential):
        def forward(self, x):
            loss = criterion(super().forward(x), labels)
            gradients = torch.autograd.grad(loss, list(self.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(self.parameters(), gradients):
                    parameter -= 0.1 * gradient
            return loss.detach()

    Trains(*net)(real)
    """,
    "in a thread": """
    import threading
    thread = threading.Thread(target=lambda: net(real).square().mean().backward())
    thread.start()
    thread.join()
    """,
}


@pytest.mark.parametrize("strength", [0.0, 1.0])
@pytest.mark.parametrize("body", UNRETURNED.values(), ids=UNRETURNED)
def test_training_by_what_a_network_does_not_return_is_refused_unless_somebody_vouches(run, body, strength):
    body = GUARDED + textwrap.dedent(body)
    with pytest.raises(NothingGuarded, match="is trained by another one"):
        run(body, strength=strength)
    assert run(body, strength=strength, expect=1).guarded == 1


def test_a_layer_that_changes_its_parameters_in_its_forward_does_not_train_there(run):
    body = """
    class Bounded(nn.Linear):
        def forward(self, x):
            with torch.no_grad():
                self.weight.clamp_(-0.1, 0.1)
            return super().forward(x)

    bounded = Bounded(5, 3)
    for _ in range(3):
        criterion(bounded(real), labels).backward()
    """
    assert run(body, strength=0.0).guarded == 3


def test_training_by_another_loss_is_refused_at_the_next_step(run):
    body = "steps = []\ntry:\n    for _ in range(3):\n        net(real).square().mean().backward()\n"
    body += "        steps.append(1)\nfinally:\n    assert len(steps) == 1"
    with pytest.raises(NothingGuarded, match="is trained by another one"):
        run(GUARDED + body)


def test_losses_that_are_only_looked_at_or_are_elsewhere_are_none_of_our_business(run):
    body = """
    output = net(real)
    functional.cross_entropy(output, labels, reduction="none").detach().max()
    with torch.no_grad():
        functional.mse_loss(output, torch.zeros(6, 3))
    functional.mse_loss(net(learned), torch.zeros(6, 3)).backward()
    functional.mse_loss(learned, real).backward()
    net.eval()
    functional.cross_entropy(net(real), labels).item()
    functional.cross_entropy(net(real + learned), labels).backward()
    net.train()
    """
    ledger = run(textwrap.dedent(body) + "criterion(output, labels).backward()")
    assert ledger.guarded == 1 and "eval mode" not in ledger.unguarded_in_words()
    with pytest.raises(UnsupportedLoss):
        run(GUARDED + "functional.mse_loss(net(real), torch.zeros(6, 3)).backward()")


@needs_torch(2, 0)
@pytest.mark.parametrize("loss", ["functional.cross_entropy(net(real), labels)", "criterion(net(real), labels)"])
def test_under_a_default_device_each_loss_is_seen_once(run, loss):
    """torch.device as a context, like set_default_device, is a mode that dispatches each function by its name."""
    body = f"with torch.device('cpu'):\n    {loss}.backward()"
    ledger = run(body)
    assert (ledger.seen, ledger.guarded) == (1, 1)
    plain = run(f"{loss}.backward()").values.to_json()
    assert ledger.values.to_json()["first"] == pytest.approx(plain["first"])


# torch.compile itself looks at .grad of what a compiled function is given.
COMPILER_WARNS = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor:UserWarning", "ignore:changing options to:UserWarning"
)
COMPILED = 'torch.compile({}, backend="eager")'


@needs_torch(2, 1)
@COMPILER_WARNS
@pytest.mark.parametrize("call", ["loss(real).backward()", "torch.autograd.grad(loss(real), list(net.parameters()))"])
def test_a_loss_inside_a_compiled_function_is_not_silent(run, call):
    body = f"loss = {COMPILED.format('lambda x: criterion(net(x), labels)')}\n{call}\n"
    with pytest.raises(NothingGuarded, match="which torch.compile compiled, returned one at main.py"):
        run(GUARDED + body)
    assert run(GUARDED + body, expect=1).guarded == 1


@needs_torch(2, 1)
@COMPILER_WARNS
def test_no_frame_outlives_its_step_where_a_compiled_loss_is_seen(run):
    body = f"""
    import gc, weakref
    fast, alive = {COMPILED.format("lambda x: criterion(net(x), labels)")}, []

    def step():
        mark = nn.Module()
        alive.append(weakref.ref(mark))
        loss = fast(real)
        loss.backward()

    step()
    gc.collect()
    return [one for one in alive if one() is not None]
    """
    assert run(GUARDED + textwrap.dedent(body), guard=["main:main", "main:step"], expect=1, result=True) == []


@needs_torch(2, 1)
@COMPILER_WARNS
def test_compiled_networks_and_criteria_are_guarded_and_later_calls_are_seen(run):
    compiled = COMPILED.format("net"), COMPILED.format("criterion")
    body = f"fast, judge = {compiled[0]}, {compiled[1]}\njudge(fast(real), labels).backward()\n"
    ledger = run(body + GUARDED + "judge(net(real), labels).backward()\ncriterion(fast(real), labels).backward()")
    assert ledger.guarded == 4
    value = ledger.values.to_json()
    assert value["first"] == pytest.approx(value["mean"]) and value["first"] > 0


def test_a_plugin_is_told_the_place(run, monkeypatch):
    from guard_plugin.plugins import Plugins, installed_plugins

    places = []

    class Notes:
        @guard_plugin.hookimpl
        def is_real_data(self, call, place):
            places.append((place.site, place.function))

    plain = Plugins.__init__

    def init(self, found=None):
        plain(self, found)
        self.register(Notes(), "notes", "notes 1.0")

    monkeypatch.setattr(Plugins, "__init__", init)
    installed_plugins.cache_clear()
    run(GUARDED)
    monkeypatch.undo()
    installed_plugins.cache_clear()
    assert places == [(site(GUARDED, "net(real)"), "main")]


def test_torch_is_as_it_was_afterwards(run):
    before = nn.Module.__call__, getattr(torch, "compile", None), dict(vars(nn.functional))
    with pytest.raises(NothingGuarded):
        run("pass")
    assert (nn.Module.__call__, getattr(torch, "compile", None), dict(vars(nn.functional))) == before
