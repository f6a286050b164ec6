"""Images to measure on, read from what is already on the disk: nothing is ever downloaded."""

from guard_plugin.datasets.images import ImageSet, images_from_tensors, tensors_sha256
from guard_plugin.datasets.known import DATASETS
from guard_plugin.datasets.loading import SPLITS, load_images, load_training_images

__all__ = [
    "DATASETS",
    "SPLITS",
    "ImageSet",
    "images_from_tensors",
    "load_images",
    "load_training_images",
    "tensors_sha256",
]
