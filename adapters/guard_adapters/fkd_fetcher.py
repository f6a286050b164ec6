"""The way from SRe2L's stored soft labels to its students, which its authors edited into torch itself.

``train_FKD.py`` expects each batch to come with its stored crops, mixing and soft labels. Only its data set can read
these, and only torch's fetcher knows which examples make a batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from torch.utils.data._utils import fetch

__all__ = ["fetching_stored_labels", "torch_fetches_none"]

_LOADS = "fkd_load"  # the data set's ``mode`` in which it has stored labels


def torch_fetches_none() -> bool:
    """Tell whether torch's fetcher is torch's own, and not edited as SRe2L's README asks for."""
    return _LOADS not in inspect.getsource(fetch._MapDatasetFetcher)


@contextmanager
def fetching_stored_labels() -> Iterator[None]:
    """Let data loaders fetch what is stored for a batch together with its images; other data sets are not concerned."""
    plain = fetch._MapDatasetFetcher

    class Fetcher(plain):  # type: ignore[misc, valid-type]
        def fetch(self, indices: Any) -> Any:
            if getattr(self.dataset, "mode", None) != _LOADS:
                return super().fetch(indices)
            stored = self.dataset.load_batch_config(indices[0])  # before the images: it sets their crops
            return (super().fetch(indices), *stored)

    with patch.object(fetch, "_MapDatasetFetcher", Fetcher):
        yield
