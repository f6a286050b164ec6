import pytest
import torch
from torch import nn

from guard_plugin.errors import UnusableInput
from guard_plugin.networks import PixelModel, check_classifier, check_mode
from guard_plugin.spaces import Normalization, ZcaWhitening


class Fixed(nn.Module):
    """Returns what the test wants, whatever it sees."""

    def __init__(self, output):
        super().__init__()
        self.output = output
        self.eval()

    def forward(self, pixels):
        return self.output(pixels)


PIXELS = torch.rand(4, 1, 8, 8)


def test_pixel_model_normalises_inside():
    model = PixelModel(nn.Flatten(), Normalization((0.5, 0.1), (0.25, 2.0)))
    out = model(torch.tensor([1.0, 0.1]).view(1, 2, 1, 1))
    assert torch.allclose(out, torch.tensor([[2.0, 0.0]]))


def test_pixel_model_whitens_inside_and_takes_the_matrices_along():
    space = ZcaWhitening().fitted(torch.rand(50, 1, 3, 3))
    model, pixels = PixelModel(nn.Flatten(), space).eval(), torch.rand(4, 1, 3, 3)
    assert torch.equal(model(pixels), space.to_input(pixels).flatten(1))
    check_mode(model)
    devices = {name: buffer.device.type for name, buffer in model.to("meta").named_buffers()}
    assert devices == {f"normalization.{name}": "meta" for name in ("mean", "matrix", "inverse")}


def test_a_good_classifier_gives_its_number_of_classes(convnet):
    assert check_classifier(convnet, PIXELS) == 10


def test_training_mode_of_any_submodule_is_refused(convnet):
    module = convnet.network.features[1]
    module.train()
    try:
        with pytest.raises(UnusableInput, match=r"network\.features\.1.*training mode.*eval\(\)"):
            check_classifier(convnet, PIXELS)
    finally:
        module.eval()


@pytest.mark.parametrize("pixels", [PIXELS * 2, PIXELS - 1, PIXELS * float("nan")])
def test_pixels_outside_the_unit_range_are_refused(convnet, pixels):
    with pytest.raises(UnusableInput, match=r"expected pixels in \[0, 1\].*inside the model"):
        check_classifier(convnet, pixels)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (lambda x: torch.full((len(x), 3), float("nan")), "finite logits"),
        (lambda x: torch.zeros(len(x), 1), "classes >= 2"),
        (lambda x: torch.zeros(len(x)), "classes >= 2"),
        (lambda x: [1, 2], "got list"),
        (lambda x: torch.rand(len(x), 3), "deterministic"),
    ],
)
def test_unusable_outputs_are_refused(output, reason):
    with pytest.raises(UnusableInput, match=reason):
        check_classifier(Fixed(output), PIXELS)


def test_a_model_whose_logits_hang_on_the_batch_is_refused():
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.BatchNorm1d(16, track_running_stats=False), nn.Linear(16, 3)
    with pytest.raises(UnusableInput, match="change with what else is in the batch"):
        check_classifier(nn.Sequential(*layers).eval(), torch.rand(8, 1, 4, 4))
    ordinary = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3)).eval()
    assert check_classifier(ordinary, torch.rand(7, 1, 4, 4)) == 3


def test_a_model_in_another_precision_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double().eval()
    with pytest.raises(UnusableInput, match=r"float32.*got torch.float64: call model.float"):
        check_classifier(model, torch.rand(2, 1, 4, 4))


def test_probabilities_are_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Softmax(1)).eval()
    with pytest.raises(UnusableInput, match="expected logits.*sums to 1"):
        check_classifier(model, torch.rand(2, 1, 4, 4))
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Sigmoid()).eval()
    with pytest.raises(UnusableInput, match="expected logits.*as a sigmoid's are"):
        check_classifier(model, torch.rand(16, 1, 4, 4))
