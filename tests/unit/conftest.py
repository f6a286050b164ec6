import dataclasses

import pytest
import torch

from guard_plugin.distilled import DistilledSet
from guard_plugin.evaluation import RECIPES, load_images, train_student
from guard_plugin.networks.architectures import build_network
from guard_plugin.networks.pixel_model import PixelModel
from guard_plugin.spaces import Normalization
from guard_plugin.versions import WHY_REFERENCE_ONLY
from tests.versions import TORCH

# Ways and compilers that older versions of torch do not have.
collect_ignore = [
    *(("injection/test_paths.py", "injection/test_sharing.py", "penalties/fast") if WHY_REFERENCE_ONLY else ()),
    *(("injection/test_compile.py",) if TORCH < (2, 6) else ()),
]

NORMALIZATION = Normalization((0.3,), (0.35,))


@pytest.fixture(scope="session")
def digits_train():
    return load_images("digits", split="train")


@pytest.fixture(scope="session")
def digits_test():
    return load_images("digits")


@pytest.fixture(scope="session")
def distilled(digits_train):
    """Ten real digits per class, in the place of distilled ones."""
    labels = digits_train.labels
    chosen = torch.cat([torch.nonzero(labels == k)[:10, 0] for k in range(10)])
    return DistilledSet(NORMALIZATION.to_input(digits_train.pixels[chosen]), labels[chosen], 10, NORMALIZATION)


@pytest.fixture(scope="session")
def short_recipe():
    return dataclasses.replace(RECIPES["dc"], epochs=12, batch_size=20, learning_rate=0.03)


def _student(arch, distilled, recipe):
    def network():
        return build_network(arch, channels=1, num_classes=10, im_size=(8, 8))

    return PixelModel(train_student(distilled, network, recipe, seed=0), distilled.normalization).eval()


@pytest.fixture(scope="session")
def mlp(distilled, short_recipe):
    return _student("MLP", distilled, short_recipe)


@pytest.fixture(scope="session")
def convnet(distilled, short_recipe):
    return _student("ConvNetW32", distilled, short_recipe)
