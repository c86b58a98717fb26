"""A prediction on disk scored against a truth on disk: each is a zip, a folder of masks, or a ProbFile."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from l4s.data.probs import open_probs
from l4s.data.regions import Regions, region_of
from l4s.errors import DataError
from l4s.masks import read_masks
from l4s.postprocess import masks
from l4s.score import ScoreTable, Truth, score, score_masks
from l4s.thresholds import PROBABLE

PROBS = ".h5"


def score_files(
    pred: Path,
    truth: Path,
    *,
    threshold: float | None = None,
    regions: Mapping[str, tuple[int, int]] | None = None,
    allow_subset: bool = False,
) -> ScoreTable:
    """Score `pred` against `truth`, patches paired by id.

    Args:
        threshold: what a ProbFile's values must reach to be landslide, in either place; None is 0.5, or the quantile of
            a prediction whose values are only ordered.
        regions: inclusive ranges of ids, scored apart.
        allow_subset: patches of the truth may be missing in `pred`.

    Raises:
        DataError: a file is broken, ids do not match, or `threshold` is given for masks alone.
    """
    if threshold is not None and PROBS not in (pred.suffix, truth.suffix):
        raise DataError(
            f"a threshold of {threshold:g} means nothing for {pred} and {truth}, which are masks: leave it out"
        )
    at = PROBABLE if threshold is None else threshold
    known = _masks(truth, at)
    ids = tuple(known)
    told = Truth(ids, [*known.values()].__getitem__, tuple(_region(id, regions or {}) for id in ids))
    if pred.suffix == PROBS:
        return score(open_probs(pred), told, threshold=threshold, allow_subset=allow_subset)
    return score_masks(read_masks(pred), told, allow_subset=allow_subset)


def _region(id: str, regions: Regions) -> str:
    """The region that a patch's id lies in; "" where there are none."""
    name = region_of(int(id), regions) if id.isdigit() else None
    if regions and name is None:
        raise DataError(f"patch {id} lies in none of the regions {', '.join(regions)}: add its range")
    return name or ""


def _masks(path: Path, threshold: float) -> dict[str, np.ndarray]:
    return dict(masks(open_probs(path), threshold)) if path.suffix == PROBS else read_masks(path)
