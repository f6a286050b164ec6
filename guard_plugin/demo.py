"""``guard demo``: the whole way on small real images, baseline and GUARD side by side."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from guard_plugin.distilled import DistilledSet, read_distilled, subject_of
from guard_plugin.drawing import draw
from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.evaluation import (
    FinishedBenchmark,
    benchmark_distilled,
    build_network,
    comparison,
    comparison_table,
    load_images,
    parse_attacks,
    parse_eps,
)
from guard_plugin.injection.attach import make_penalty
from guard_plugin.plugins import Plugins

__all__ = ["DemoSettings", "baseline_folder", "run_demo", "settings_for"]

ADAPTER = "dc"
ARMS = ("baseline", "guard")
CURVATURE = {"strength": 100.0, "h": 0.5, "form": "gradient"}


@dataclass(frozen=True)
class DemoSettings:
    """What the demo does; the defaults are for digits, chosen on their validation split by examples/sweep.py.

    Args:
        dataset: "digits" (scikit-learn's, no network), or FashionMNIST or CIFAR10 in ``data``.
        data: The folder of torchvision's data sets; unused for digits.
        arch: The network that distils, and the students' architecture.
        ipc: Images per class.
        experiments: Independently distilled sets per arm; student k is trained on set k modulo this number.
        iterations: Outer iterations of the distillation.
        lr_img: Learning rate of the distilled images.
        students: Students per arm.
        attacks: As for ``guard benchmark``.
        eps: Linf radius in pixel units.
        n_examples: How many test images are attacked (digits has 500).
        seed: Seed of the distillation.
        penalty: The penalty's name.
        strength: Its weight; for the curvature penalty, ``CURVATURE`` has the defaults.
        h: Its step, an L2 length in the network's input space.
        form: Its form.
    """

    dataset: str = "digits"
    data: str | None = None
    arch: str = "ConvNetD1"
    ipc: int = 10
    experiments: int = 2
    iterations: int = 11
    lr_img: float = 1.0
    students: int = 4
    attacks: str = "fgsm,pgd20"
    eps: str = "16/255"
    n_examples: int = 500
    seed: int = 0
    penalty: str = "curvature"
    strength: float | None = None
    h: float | None = None
    form: str | None = None

    def penalty_options(self) -> dict[str, Any]:
        """The penalty's settings: those given, over those recommended for the curvature penalty."""
        given = {"strength": self.strength, "h": self.h, "form": self.form}
        recommended = CURVATURE if self.penalty == "curvature" else {}
        return {**recommended, **{key: value for key, value in given.items() if value is not None}}


def settings_for(dataset: str, **given: Any) -> DemoSettings:
    """Return the settings for a data set: those given, over defaults that take minutes on two cores."""
    larger = {"arch": "ConvNetW32", "experiments": 1, "iterations": 3, "lr_img": 0.1, "students": 2}
    return DemoSettings(**{**({} if dataset == "digits" else larger), "dataset": dataset, **given})


def baseline_folder(name: str) -> Path:
    """Return the folder of a baseline of ours: in the checkout, or as it travels in the wheel."""
    package = Path(__file__).resolve().parent
    places = (package.parent / "examples" / "baselines" / name, package / "_baselines" / name)
    for place in places:
        if (place / "main.py").is_file():
            return place
    raise UnusableInput(f"expected the baseline {name} in {' or '.join(map(str, places))}, found none: reinstall")


def run_demo(settings: DemoSettings, out: Path, say: Callable[[str], None]) -> None:
    """Distil with and without GUARD, train students on both, attack them, and print what was measured.

    Args:
        settings: What to do.
        out: The folder for everything that is written.
        say: Prints a line.

    Raises:
        GuardError: If something cannot be used, or a step failed.
    """
    plugins = Plugins()
    _check(settings, plugins)
    _claim(out, settings)
    finished: dict[str, FinishedBenchmark] = {}
    sets: dict[str, list[DistilledSet]] = {}
    for arm in ARMS:
        say(f"{arm}: distilling {settings.dataset}, {settings.ipc} image(s) per class")
        file = _distil(settings, arm, out / arm)
        sets[arm] = read_distilled(plugins.hook, ADAPTER, file)
        say(f"{arm}: training and attacking {settings.students} students")
        finished[arm] = _benchmark(settings, arm, sets[arm], file, plugins)
    baseline, guard = finished["baseline"], finished["guard"]
    summary = {"schema": 1, "settings": asdict(settings), "comparison": comparison(baseline, guard)}
    (out / "comparison.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    draw(sets["baseline"][0], sets["guard"][0], out / "distilled.png")
    say("")
    say(comparison_table(baseline, guard))
    say("")
    say(f"students: {settings.students} per column, eps {settings.eps} (Linf, pixel space), seed {settings.seed}")
    say(f"ledger: {guard.results['ledger']['summary']}")
    say(f"files: {out / 'baseline' / 'results.json'}, {out / 'guard' / 'results.json'}, {out / 'comparison.json'},")
    say(f"       {out / 'distilled.png'} (top: baseline, bottom: GUARD)")


def _check(settings: DemoSettings, plugins: Plugins) -> None:
    """Refuse, before anything is distilled, what a later step would."""
    images = load_images(settings.dataset, settings.data, "test", settings.n_examples)
    channels, height, width = images.pixels.shape[1:]
    build_network(settings.arch, channels=channels, num_classes=images.num_classes, im_size=(height, width))
    parse_attacks(settings.attacks, plugins.attack_classes, parse_eps(settings.eps))
    make_penalty(plugins, None, {"penalty": settings.penalty, **settings.penalty_options()})


def _claim(out: Path, settings: DemoSettings) -> None:
    """Take the folder, unless it holds another demo's files."""
    file, wanted = out / "settings.json", json.dumps(asdict(settings), indent=2) + "\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if file.exists() and file.read_text(encoding="utf-8") != wanted:
            raise UnusableInput(f"{out} holds a demo with other settings ({file}): choose another --out, or delete it")
        file.write_text(wanted, encoding="utf-8")
    except OSError as error:
        raise UnusableInput(f"cannot write to {out}: {error.strerror}; choose another --out") from error


def _distil(settings: DemoSettings, arm: str, folder: Path) -> Path:
    """Run the baseline's script under ``guard run``, in a process of its own: one host per process."""
    folder.mkdir(exist_ok=True)
    guard = [sys.executable, "-m", "guard_plugin", "run", "--ledger", str(folder / "ledger.json")]
    options = settings.penalty_options() | ({"strength": 0.0} if arm == "baseline" else {})
    guard += [f"--penalty={settings.penalty}", *(f"--{key}={value}" for key, value in options.items())]
    script = str(baseline_folder(ADAPTER) / "main.py")
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        # The script's own progress bar, on stderr, is the user's to see.
        done = subprocess.run([*guard, ADAPTER, script, *_script_arguments(settings, folder)], stdout=log, check=False)
    if done.returncode != 0:
        raise GuardError(
            f"distilling failed with exit code {done.returncode}; its messages are above, its output is in "
            f"{folder / 'log.txt'}"
        )
    return folder / f"res_DC_{settings.dataset}_{settings.arch}_{settings.ipc}ipc.pt"


def _script_arguments(settings: DemoSettings, folder: Path) -> list[str]:
    return [
        f"--dataset={settings.dataset}",
        f"--data_path={settings.data or '.'}",
        f"--save_path={folder}",
        f"--model={settings.arch}",
        f"--ipc={settings.ipc}",
        f"--num_exp={settings.experiments}",
        f"--Iteration={settings.iterations - 1}",
        f"--seed={settings.seed}",
        "--num_eval=0",
        "--init=real",
        "--batch_real=100",
        f"--lr_img={settings.lr_img}",
        *(["--outer_loop=5", "--inner_loop=5"] if settings.ipc > 1 else []),
    ]


def _benchmark(
    settings: DemoSettings, arm: str, sets: list[DistilledSet], file: Path, plugins: Plugins
) -> FinishedBenchmark:
    return benchmark_distilled(
        sets,
        dataset=settings.dataset,
        data_dir=settings.data,
        arch=settings.arch,
        attacks=settings.attacks,
        eps=[settings.eps],
        n_examples=settings.n_examples,
        seeds=settings.students,
        out=file.parent,
        subject=subject_of(ADAPTER, file, sets),
        registry=plugins.attack_classes,
        ledger=json.loads((file.parent / "ledger.json").read_text(encoding="utf-8")),
    )
