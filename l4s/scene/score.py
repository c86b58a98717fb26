"""Scores of a raster of results against the truth, over all pixels where both are known."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from l4s import log
from l4s.data.patch import IGNORED
from l4s.errors import DataError
from l4s.metrics import CODES, accuracy_of, auroc, average_precision, best_threshold, mean_iou_of, pooled_scores
from l4s.scene.labels import Stored, reading_masks
from l4s.scene.raster import Reader, reading
from l4s.scene.result import LEVELS, NODATA, VALUES, Result, cut_at, first_code, open_result

ROWS = 512  # of a block
FLOAT16 = VALUES.astype(np.float16)
"""(255,) float16: every code has its own value, in the same order."""


@dataclass(frozen=True)
class SceneScores:
    """Scores of the landslide class, all in [0, 1] but the counts of pixels.

    `mean_iou` is the mean of the IoU of landslide and of background. The last five need probabilities and are None for
    masks. `auroc` below 0.5: landslides have the lower values. The two called oracle chose their threshold with the truth
    at hand: a bound, not a result.
    """

    pixels: int
    f1: float
    precision: float
    recall: float
    iou: float
    mean_iou: float
    accuracy: float
    predicted_share: float
    true_share: float
    threshold: float | None = None
    average_precision: float | None = None
    auroc: float | None = None
    oracle_threshold: float | None = None
    oracle_f1: float | None = None


def score_scene(
    pred: Path,
    truth: Path,
    *,
    threshold: float | None = None,
    rows: str = "",
    columns: str = "",
    layer: str | None = None,
    block: int = ROWS,
) -> SceneScores:
    """Score what predict wrote, probabilities or a mask, against a mask raster of the same grid or polygons in any CRS.

    Args:
        threshold: values from here on are landslide; None is 0.5, of probabilities alone. What ranks pixels, such as AP,
            does not depend on it.
        rows: the part to score, `first:end` as in a slice; everything where it is empty. `columns` likewise.
        layer: the layer of the truth, where it has several.
        block: rows read at once.

    Raises:
        DataError: rasters that cannot be read or do not fit, a threshold for a mask, none for scores, no pixel to score.
    """
    result = open_result(pred)
    grid = result.scene.grid
    if result.kind == "mask" and threshold is not None:
        raise DataError(f"a threshold of {threshold:g} means nothing for {pred}, which is a mask: leave it out")
    at_least = cut_at(pred, result, threshold)
    first = first_code(at_least)
    top, bottom = span(rows, grid.height, "rows")
    left, right = span(columns, grid.width, "columns")
    counts = np.zeros((2, NODATA), np.int64)
    with reading(result.scene) as reader, reading_masks(truth, grid, layer) as labels:
        if result.step > 1 and not isinstance(labels, Stored):
            raise DataError(
                f"a pixel of {pred} stands for {result.step} x {result.step} of the scene, where polygons have no rule: "
                "score the ProbFile of the chips with `l4s score`, or give a mask raster of the same grid"
            )
        starts = range(top, bottom, block)
        for place in log.track(range(len(starts)), f"score of {pred.name}", len(starts)):
            at = (starts[place], left, min(block, bottom - starts[place]), right - left)
            counts += _counted(_codes(result, reader, at), labels.window(*at))
    if not counts.any():
        raise DataError(f"{pred} and {truth} have no pixel in common that both know")
    scores = _scores(counts, first)
    return scores if result.kind == "mask" else replace(_ranked(scores, counts), threshold=at_least)


def _codes(result: Result, reader: Reader, at: tuple[int, int, int, int]) -> np.ndarray:
    """A window as codes in [0, 254], and 255; landslide of a mask is 254."""
    if result.kind != "mask":
        return np.asarray(reader.values(*at)[0])
    mask = Stored(reader).window(*at)
    return np.where(mask == 1, LEVELS, mask).astype(np.uint8)


def _counted(codes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pixels of each class and code where both are known, (2, 255) int64."""
    known = (codes != NODATA) & (truth != IGNORED)
    place = truth[known].astype(np.int64) * NODATA + codes[known]
    return np.bincount(place, minlength=2 * NODATA).reshape(2, NODATA)


def _scores(counts: np.ndarray, first: int) -> SceneScores:
    fn = int(counts[1, :first].sum())
    fp, tp = (int(part) for part in counts[:, first:].sum(1))
    landslide, pixels = pooled_scores(tp, fp, fn), int(counts.sum())
    return SceneScores(
        pixels=pixels,
        f1=landslide.f1,
        precision=landslide.precision,
        recall=landslide.recall,
        iou=landslide.iou,
        mean_iou=mean_iou_of(tp, fp, fn, pixels),
        accuracy=accuracy_of(tp, fp, fn, pixels),
        predicted_share=(tp + fp) / pixels,
        true_share=(tp + fn) / pixels,
    )


def _ranked(scores: SceneScores, counts: np.ndarray) -> SceneScores:
    """With what needs probabilities, from the same counts over the codes of float16."""
    half = np.zeros((2, CODES), np.int64)
    half[:, FLOAT16.view(np.uint16)] = counts
    best = best_threshold(half)
    threshold = float(VALUES[np.searchsorted(FLOAT16, best[0])])  # the value that the float16 stands for
    return replace(
        scores,
        average_precision=average_precision(half),
        auroc=auroc(half),
        oracle_threshold=threshold,
        oracle_f1=best[1],
    )


def span(text: str, length: int, what: str) -> tuple[int, int]:
    """First and end of `first:end`, either of which may be left out."""
    first, colon, end = text.partition(":")
    numbers = (first or "0", end or str(length))
    if not text:
        return 0, length
    if not colon or not all(number.isdigit() for number in numbers):
        raise DataError(f"{what} {text!r} are not first:end, such as 0:{length}")
    start, stop = int(numbers[0]), int(numbers[1])
    if not start < stop <= length:
        raise DataError(f"{what} {text} do not lie in the raster, which has {length}")
    return start, stop
