"""What is stored in the rasters that come of a scene: probabilities as codes of one byte, or a mask."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from l4s.errors import DataError
from l4s.scene.raster import Scene, open_scene, read_tags
from l4s.thresholds import PROBABLE

LEVELS = 254
NODATA = 255
SCALE = 1 / LEVELS
VALUES = np.arange(NODATA) / LEVELS
"""(255,) float64: the probability that each code means."""
PROBABILITY, MASK = "probability", "landslide"
"""What the one band is called."""
RUN, KIND, STEP = "L4S_RUN", "L4S_KIND", "L4S_STEP"
"""Tags: the fingerprint of what it was made with, `probability` or `score` or `mask`, and pixels of the scene a side."""


@dataclass(frozen=True)
class Result:
    """A raster of results: `kind` is `probability`, `score` or `mask`; a pixel stands for `step` x `step` of the scene."""

    scene: Scene
    kind: str
    step: int


def encode(probs: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Probabilities of any shape as codes, uint8: round(p * 254), 255 where not valid.

    Raises:
        DataError: a valid pixel's is NaN.
    """
    if np.isnan(probs[valid]).any():
        raise DataError("the network's answer is not a number somewhere: try --precision fp32")
    return np.where(valid, np.rint(np.where(valid, probs, 0.0) * LEVELS), NODATA).astype(np.uint8)


def first_code(threshold: float) -> int:
    """The lowest code whose value is >= `threshold`, compared in float64.

    Raises:
        DataError: the threshold is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise DataError(f"the threshold must be above 0 and at most 1, got {threshold}")
    return int(np.searchsorted(VALUES, float(threshold), side="left"))


def cut_at(path: Path, result: Result, threshold: float | None) -> float:
    """Where values become landslides: at the threshold, or at 0.5.

    Raises:
        DataError: there is none, and the values are scores, to which 0.5 means nothing.
    """
    if threshold is None and result.kind == "score":
        raise DataError(
            f"{path} holds scores that are only ordered, and 0.5 means nothing to them: give --threshold a number"
        )
    return PROBABLE if threshold is None else threshold


def open_result(path: Path) -> Result:
    """Tell a raster of results by the name of its band; a single band without a name is taken for a mask.

    Raises:
        DataError: no raster of one band, or probabilities that are stored in another way.
    """
    scene, tags = open_scene(path), read_tags(path)
    if len(scene.bands) != 1:
        raise DataError(f"{path} has {len(scene.bands)} bands ({', '.join(scene.bands)}): a result has one")
    step = tags.get(STEP, "1")
    if not step.isdigit():
        raise DataError(f"{path}: the tag {STEP} is {step!r}, no number of pixels")
    if scene.bands != (PROBABILITY,):
        return Result(scene, "mask", int(step))
    if scene.dtype != "uint8" or scene.nodata != NODATA:
        raise DataError(
            f"{path} holds {scene.dtype} with nodata {scene.nodata}; probabilities are uint8, round(p * {LEVELS}), "
            f"with nodata {NODATA}, as `l4s scene predict` writes them"
        )
    return Result(scene, "score" if tags.get(KIND) == "score" else "probability", int(step))


def open_probability(path: Path) -> Result:
    """The same for a raster that must hold probabilities or scores.

    Raises:
        DataError: it is a mask, or as `open_result`.
    """
    result = open_result(path)
    if result.kind == "mask":
        raise DataError(
            f"{path} has no band {PROBABILITY!r} but {result.scene.bands[0]!r}: give the probabilities that "
            f"`l4s scene predict` wrote; a mask goes to --mask"
        )
    return result
