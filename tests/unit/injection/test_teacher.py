"""A teacher in place of pretrained weights."""

from contextlib import ExitStack

import pytest
import torch

from guard_plugin.errors import UnusableInput
from guard_plugin.injection.teacher import Teacher
from tests.versions import needs_torch

pytestmark = needs_torch(2, 0)

models = pytest.importorskip("torchvision.models")


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return models.resnet18(num_classes=1000).state_dict()


@pytest.fixture
def file(tmp_path, state):
    path = tmp_path / "teacher.pth"
    torch.save({"model": state, "epoch": 3}, path)
    return path


@pytest.fixture
def teacher(file):
    teacher = Teacher(file)
    with ExitStack() as undo:
        teacher.install(undo)
        yield teacher


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: models.resnet18(weights="IMAGENET1K_V1"),
        lambda: models.get_model("resnet18", weights="DEFAULT"),
        lambda: models.__dict__["resnet18"](weights=models.ResNet18_Weights.IMAGENET1K_V1),
    ],
)
def test_who_asks_for_pretrained_weights_gets_the_teacher(teacher, state, ask):
    assert teacher.problem() is not None
    assert equal(ask().state_dict(), state)
    assert teacher.problem() is None and teacher.to_json()["given_for"] == ["ResNet18_Weights.IMAGENET1K_V1"]
    assert len(teacher.sha256) == 64


@pytest.mark.filterwarnings(
    "ignore:The parameter 'pretrained' is deprecated", "ignore:Arguments other than a weight enum"
)
def test_the_old_way_of_asking(teacher, state):
    assert equal(models.resnet18(pretrained=True).state_dict(), state)


def test_what_the_host_does_with_its_network_does_not_reach_the_next_one(teacher, state):
    first = models.resnet18(weights="DEFAULT")
    with torch.no_grad():
        first.fc.weight.zero_()
    assert equal(models.resnet18(weights="DEFAULT").state_dict(), state)


def test_no_random_number_is_drawn_for_the_check(teacher, monkeypatch):
    torch.manual_seed(0)
    models.resnet18(num_classes=1000)
    expected = torch.rand(3)
    torch.manual_seed(0)
    models.resnet18(weights="DEFAULT")
    assert torch.equal(torch.rand(3), expected)


def test_another_architecture_is_refused_first_and_torchvisions_own_afterwards(file, monkeypatch):
    asked = []
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda self, *a, **k: asked.append(str(self)))
    original = models.WeightsEnum.get_state_dict
    weights = models.SqueezeNet1_1_Weights.DEFAULT
    with ExitStack() as undo:
        Teacher(file).install(undo)
        with pytest.raises(UnusableInput, match=r"asks for SqueezeNet1_1_Weights.*is another network: missing"):
            weights.get_state_dict()
        models.ResNet18_Weights.DEFAULT.get_state_dict()
        assert weights.get_state_dict() is None and asked == ["SqueezeNet1_1_Weights.IMAGENET1K_V1"]
    assert models.WeightsEnum.get_state_dict is original


def test_another_number_of_classes_is_refused(tmp_path):
    torch.save(models.resnet18(num_classes=10).state_dict(), tmp_path / "ten.pth")
    with ExitStack() as undo:
        Teacher(tmp_path / "ten.pth").install(undo)
        with pytest.raises(UnusableInput, match=r"expected fc.weight of shape \(1000, 512\), found \(10, 512\)"):
            models.resnet18(weights="DEFAULT")


def test_a_file_without_weights_is_refused_and_nothing_changed(tmp_path):
    original = models.WeightsEnum.get_state_dict
    for content in ([1], {"model": 3}, {}, {"epoch": 1}):
        torch.save(content, tmp_path / "file.pth")
        with pytest.raises(UnusableInput, match="expected a state dict"):
            Teacher(tmp_path / "file.pth")
    with pytest.raises(UnusableInput, match="no such file"):
        Teacher(tmp_path / "missing.pth")
    assert models.WeightsEnum.get_state_dict is original
