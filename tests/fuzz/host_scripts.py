"""Random hosts: small training scripts whose number of losses on real data is known."""

import random
from dataclasses import dataclass

from tests.fuzz.outcome import generator

__all__ = ["DOUBTFUL", "Host", "draw_host"]

_BEGIN = """\
import asyncio, functools, multiprocessing, sys, threading
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import cross_entropy

torch.manual_seed({seed})
torch.set_num_threads(1)
X, Y = torch.randn(24, 1, 4, 4), torch.randint(3, (24,))
images, labels = torch.randn(6, 1, 4, 4, requires_grad=True), torch.arange(6) % 3
mixed = torch.cat([torch.randn(6, 1, 4, 4), torch.zeros(6, 1, 4, 4)]).requires_grad_()
criterion = {criterion}
losses = []


def build():
    return {network}


def judged(output, target):
    return {loss}


def batches(steps):
    for i in range(steps):
        yield X[4 * (i % 6) : 4 * (i % 6) + 4], Y[4 * (i % 6) : 4 * (i % 6) + 4]


def timed(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)

    return inner


def update(net, loss):
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(net.parameters(), gradients):
            parameter -= 0.05 * gradient
    losses.append(loss.item())


"""

_TRAIN = {
    "plain": """\
def train(net, steps):
    for x, y in batches(steps):
        update(net, judged(net(x), y))
""",
    "optimizer": """\
def train(net, steps):
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for x, y in batches(steps):
        optimizer.zero_grad()
        loss = judged(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
""",
    "closure": """\
def train(net, steps):
    def closure(x, y):
        def inner():
            return judged(net(x), y)
        return inner()

    for x, y in batches(steps):
        update(net, closure(x, y))
""",
    "decorated": """\
@timed
@timed
def train(net, steps):
    for x, y in batches(steps):
        update(net, judged(net(x), y))
""",
    "recursive": """\
def train(net, steps):
    if steps:
        train(net, steps - 1)
        x, y = list(batches(steps))[-1]
        update(net, judged(net(x), y))
""",
    "generator": """\
def train(net, steps):
    def losses_of(steps):
        for x, y in batches(steps):
            yield judged(net(x), y)

    for loss in losses_of(steps):
        update(net, loss)
""",
    "async": """\
def train(net, steps):
    async def one(x, y):
        await asyncio.sleep(0)
        update(net, judged(net(x), y))

    async def every():
        for x, y in batches(steps):
            await one(x, y)

    asyncio.run(every())
""",
    "lambda": """\
def train(net, steps):
    step = lambda x, y: update(net, judged(net(x), y))
    for x, y in batches(steps):
        step(x, y)
""",
    "accumulated": """\
def train(net, steps):
    for x, y in batches(steps):
        update(net, judged(net(x), y) / 2)
""",
}

_REST = """\


def match(net, steps):
    parameters = list(net.parameters())
    for x, y in batches(steps):
        real = torch.autograd.grad(judged(net(x), y), parameters)
        synthetic = torch.autograd.grad(judged(net(images), labels), parameters, create_graph=True)
        distance = sum((a - b).square().sum() for a, b in zip(real, synthetic))
        (gradient,) = torch.autograd.grad(distance, images)
        with torch.no_grad():
            images.sub_(0.1 * gradient)
        losses.append(distance.item())


def evaluate(net):
    net.eval()
    with torch.no_grad():
        losses.append(judged(net(X), Y).item())
    net.train()


def evaluate_synset(steps):
    net = build()
    for _ in range(steps):
        update(net, judged(net(images.detach().clone()), labels))


def frozen(net):
    copy = build().requires_grad_(False)
    losses.append(judged(copy(images), labels).item())


def scaled(net, steps):
    for x, y in batches(steps):
        update(net, judged(net(x) * 0.5, y))


def forwarded(net, steps):
    for x, y in batches(steps):
        update(net, judged(net.forward(x), y))


def sliced(net, steps):
    for _ in range(steps):
        update(net, judged(net(mixed[:6]), labels))


def in_a_process(net, steps):
    child = multiprocessing.get_context("fork").Process(target=train, args=(net, steps))
    child.start()
    child.join()


def in_threads(net, steps):
    workers = [threading.Thread(target=train, args=(build(), steps)) for _ in range(2)]
    for worker in workers:
        worker.start()
        if torch.nn.Dropout in map(type, net.modules()):  # in two threads at once, chance would decide who draws what
            worker.join()
    for worker in workers:
        worker.join()
    losses.sort()


def caught(net, steps):
    try:
        scaled(net, steps)
    except Exception:
        pass


"""

_SAVE = """\
torch.save({"net": net.state_dict(), "losses": losses}, "net.pt")
torch.save(images.detach(), "images.pt")
print(len(losses), "losses")
"""

# By action: how many losses on real data, and how many losses, one call with `steps` has.
_ACTIONS = {
    "train": lambda steps: (steps, steps),
    "match": lambda steps: (steps, 2 * steps),
    "evaluate": lambda steps: (0, 1),
    "evaluate_synset": lambda steps: (0, steps),
    "frozen": lambda steps: (0, 1),
    "in_threads": lambda steps: (2 * steps, 2 * steps),
    "scaled": lambda steps: (steps, steps),
    "forwarded": lambda steps: (steps, steps),
    "sliced": lambda steps: (steps, steps),
    "in_a_process": lambda steps: (steps, steps),
    "caught": lambda steps: (steps, steps),
}
DOUBTFUL = ("forwarded", "sliced")
"""Actions whose losses are guarded, each of them, or else the run fails and says why."""

_NETWORKS = (
    "nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3){log})",
    "nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3){log})",
    "nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), "
    "nn.Linear(16, 3){log})",
    "nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3){log})",
)
_LOSSES = (
    ("nn.CrossEntropyLoss()", "criterion(output, target)", ""),
    ("nn.CrossEntropyLoss(label_smoothing=0.1)", "criterion(output, target)", ""),
    ("nn.NLLLoss()", "criterion(output, target)", ", nn.LogSoftmax(1)"),
    ("None", "F.cross_entropy(output, target)", ""),
    ("None", "cross_entropy(output, target, label_smoothing=0.2)", ""),
    ("None", "F.nll_loss(output, target)", ", nn.LogSoftmax(1)"),
    ("functools.partial(F.cross_entropy, reduction='sum')", "criterion(output, target)", ""),
)


@dataclass(frozen=True)
class Host:
    """A host, and what a run of it must do.

    Args:
        files: From a file's name to its text; ``main.py`` is the script.
        options: ``--guard`` and ``--suspend`` of ``guard run auto``.
        real: How many losses on real data the seams hold.
        seen: How many losses it has.
        exit_code: The script's own.
        doubtful: Which of its actions need not be guarded, if the run fails.
        threaded: Whether it trains in threads, whose errors Python prints.
    """

    files: dict[str, str]
    options: tuple[str, ...]
    real: int
    seen: int
    exit_code: int
    doubtful: tuple[str, ...]
    threaded: bool


def draw_host(seed: int, number: int) -> Host:
    """Write the host of this number."""
    rng = generator(seed, "hosts", number)
    criterion, loss, log = rng.choice(_LOSSES)
    begin = _BEGIN.format(seed=number, criterion=criterion, loss=loss, network=rng.choice(_NETWORKS).format(log=log))
    work = begin + rng.choice(list(_TRAIN.values())) + _REST
    actions = rng.choices([a for a in _ACTIONS if a not in DOUBTFUL], k=rng.randint(1, 4))
    doubtful = tuple(rng.sample(DOUBTFUL, k=1 if rng.random() < 0.3 else 0))
    actions = [*actions, *doubtful]
    rng.shuffle(actions)
    in_main = "in_threads" not in actions and rng.random() < 0.5
    lines, real, seen = _calls(rng, actions)
    ending, exit_code = rng.choice(
        [("", 0)] * 5
        + [("sys.exit(0)", 0), ("sys.exit(7)", 7), ("raise ValueError('its own')", 1), ("sys.exit('no')", 1)]
    )
    if in_main:
        body = "".join(f"    {line}\n" for line in ["net = build()", *lines, "return net"])
        script = (
            f"def main():\n{body}\n\nif __name__ == '__main__':\n    net = main()\n"
            + _indented(_SAVE)
            + f"    {ending}\n"
        )
    else:
        script = "\n".join(["net = build()", *lines, _SAVE + ending, ""])
    module = rng.choice(["main", "work"])
    files = {"main.py": work + script}
    if module == "work":
        files = {"work.py": work, "main.py": "from work import *\nimport work\n\n\n" + script}
    guarded = ["main:main"] if in_main else [f"{module}:{a}" for a in ("train", "match", "scaled", *doubtful)]
    options = [word for seam in guarded for word in ("--guard", seam)] + ["--suspend", f"{module}:evaluate_synset"]
    return Host(files, tuple(options), real, seen, exit_code, doubtful, "in_threads" in actions)


def _calls(rng: random.Random, actions: list[str]) -> tuple[list[str], int, int]:
    lines, real, seen = [], 0, 0
    for action in actions:
        steps = rng.randint(1, 3)
        mine, every = _ACTIONS[action](steps)
        arguments = {"evaluate": "net", "frozen": "net", "evaluate_synset": str(steps)}.get(action, f"net, {steps}")
        call = f"{action}({arguments})"
        if action in ("evaluate", "frozen") or rng.random() < 0.7:
            lines.append(call)
        else:
            repeats = rng.randint(0, 2)
            lines.append(f"for _ in range({repeats}): {call}")
            mine, every = mine * repeats, every * repeats
        real, seen = real + mine, seen + every
    return lines, real, seen


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())
