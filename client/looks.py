"""How a site's crops look, in sums that may leave it: nothing about fewer patients than its policy lets out."""

from __future__ import annotations

__all__ = ["lesion_margin", "looks_of"]

import numpy as np
from numpy.typing import NDArray

from client.repair import Crops, amplitude_sums, gray_counts_by_image
from common.config import Crop
from common.groups import large_enough, runs_of
from common.harmonisation import GrayCounts
from common.repair_orders import LooksSums


def lesion_margin(crop: Crop) -> float:
    """By what share of its longer side a lesion's box was widened: where its crop shows tissue beside it."""
    return crop.margin if crop.region == "lesion" else 0.0


def looks_of(crops: Crops, patients: NDArray[np.int64], *, margin: float, smallest: int) -> LooksSums | None:
    """The sums over crops (N, S, S) of `patients` (N,); None where those who show tissue are fewer than `smallest`, or
    nobody.

    Gray values that fewer than `smallest` patients show are put together with their neighbours, and the pixels of such
    a run are spread evenly over it.
    """
    if not len(crops):
        return None
    counts = gray_counts_by_image(crops, margin=margin)
    shown = patients[counts.any(axis=1)]
    if not len(shown) or not large_enough(shown, smallest):
        return None
    return LooksSums.of(GrayCounts(_merged(counts, patients, smallest=smallest)), amplitude_sums(crops))


def _merged(counts: NDArray[np.int64], patients: NDArray[np.int64], *, smallest: int) -> NDArray[np.int64]:
    """Counts by image (N, 256) to counts (256,) without a gray value that tells of few patients."""
    whose, code = np.unique(patients, return_inverse=True)
    shown = np.zeros((len(whose), 256), dtype=np.bool_)
    np.logical_or.at(shown, code, counts > 0)
    few = shown & (np.cumsum(shown, axis=0) <= smallest)  # more of one gray value's patients decide nothing
    people, gray = np.nonzero(few)
    starts = runs_of(gray, people, total=256, smallest=smallest)
    widths = np.diff(np.append(starts, 256))
    each, left = np.divmod(np.add.reduceat(counts.sum(axis=0), starts), widths)
    place = np.arange(256) - np.repeat(starts, widths)
    return np.asarray(np.repeat(each, widths) + (place < np.repeat(left, widths)), dtype=np.int64)
