"""Images to measure on, read from what is already on the disk: nothing is ever downloaded."""

from guard_plugin.datasets.image_set import ImageSet, images_from_tensors, tensors_sha256
from guard_plugin.datasets.loading import load_images, load_training_images
from guard_plugin.datasets.parts import SPLITS
from guard_plugin.datasets.torchvision_sets import DATASETS

__all__ = [
    "DATASETS",
    "SPLITS",
    "ImageSet",
    "images_from_tensors",
    "load_images",
    "load_training_images",
    "tensors_sha256",
]
