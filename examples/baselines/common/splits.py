"""Which real images train, which choose settings, and which are kept for the last word."""

from __future__ import annotations

from common.data import InputError, Split, get_dataset

SPLITS = ("val", "test")


def get_splits(name: str, data_path: str, evaluate_on: str, n_train: int | None = None) -> tuple[Split, Split]:
    """The first `n_train` training images (None: all), and the images to evaluate on: "val" or "test".

    "val" is the last tenth of the data set's training images, and never trained on, whatever is evaluated.
    """
    (images, labels), test = get_dataset(name, data_path)
    held_out = len(labels) // 10
    kept = len(labels) - held_out
    train = first_images(name, (images[:kept], labels[:kept]), n_train, f" (the last {held_out} validate)")
    return train, (images[kept:], labels[kept:]) if evaluate_on == "val" else test


def first_images(name: str, train: Split, n_train: int | None, note: str = "") -> Split:
    """The first `n_train` of a data set's training images (None: all); the note goes into the error if fewer."""
    images, labels = train
    if n_train is not None and n_train > len(labels):
        raise InputError(f"{name} has {len(labels)} images to train on{note}, fewer than {n_train}")
    return images[:n_train], labels[:n_train]
