"""Where to cut values into landslide and background: without labels, or, called oracle, with those they are scored on.

All work on counts of stored values, as `l4s.metrics` makes them of float16 codes, and are exact for these values.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from l4s.metrics import CODE_VALUES, accuracy_of, best_mean_iou, best_threshold, code_counts, mean_iou_of, scores_at

CONTAMINATION = 0.05  # Kimura 2019 names no threshold
PROBABLE = 0.5  # where probabilities are cut that nothing else is known of
EXPECTED_F1: Final = "expected_f1"
HELDOUT: Final = "heldout"


@dataclass(frozen=True)
class Cut:
    """Scores of landslides at one threshold, in [0, 1]."""

    threshold: float
    precision: float
    recall: float
    f1: float
    iou: float
    mean_iou: float
    accuracy: float
    predicted_share: float


def expected_f1(counts: np.ndarray, values: np.ndarray = CODE_VALUES) -> float:
    """The threshold whose F1 would be highest if pixels were landslide as often as their probability says; at most 0.5.

    With n(t) pixels of probability t or more, and s(t) the sum of their probabilities, the F1 to expect there is
    2 s(t) / (n(t) + s(0)), a ratio of expectations that many pixels make exact. A pixel is worth marking from half of its
    maximum on (Lipton et al. 2014, "Optimal thresholding of classifiers to maximize F1 measure"), and this half is returned;
    0.5 where all probabilities are 0.

    Args:
        counts: (K,) pixels of each value.
        values: (K,) float64, rising, in [0, 1].
    """
    above = np.cumsum(counts[::-1])
    sums = np.cumsum((counts * values)[::-1])
    best = float(np.max(2 * sums / np.maximum(above + sums[-1], 1)))
    return best / 2 if best else 0.5


def quantile(counts: np.ndarray, contamination: float = CONTAMINATION) -> float:
    """The lowest threshold that at most a share `contamination` of the pixels reaches; 1 where none is that high.

    Args:
        counts: (CODES,) pixels of each value.
    """
    above = np.cumsum(counts[::-1])[::-1]
    return float(CODE_VALUES[min(int((above > contamination * counts.sum()).sum()), len(CODE_VALUES) - 1)])


def otsu(counts: np.ndarray) -> float:
    """The lowest value of the upper of two classes whose variance between them is largest (Otsu 1979).

    The lowest of equals; 1 where all pixels hold one value.

    Args:
        counts: (CODES,) pixels of each value.
    """
    used = np.flatnonzero(counts)
    if len(used) < 2:
        return 1.0
    pixels, values = counts[used].astype(np.float64), CODE_VALUES[used]
    below, first = np.cumsum(pixels)[:-1], np.cumsum(pixels * values)[:-1]
    above = pixels.sum() - below
    apart = first / below - ((pixels * values).sum() - first) / above
    return float(values[1 + int(np.argmax(below * above * apart**2))])


def label_free(patches: Iterable[np.ndarray], contamination: float | None = None) -> dict[str, float]:
    """Thresholds for the float16 values of some patches, whose truth nobody knows, by the name of how they are chosen.

    Args:
        contamination: the share of scores that are only ordered to call landslide; None for probabilities.
    """
    counts = np.zeros(len(CODE_VALUES), np.int64)
    for values in patches:
        counts += code_counts(values, np.zeros(values.shape, np.uint8), np.ones(values.shape, bool))[0]
    if contamination is None:
        return {EXPECTED_F1: expected_f1(counts)}
    return {"quantile": quantile(counts, contamination), "otsu": otsu(counts)}


def cuts(counts: np.ndarray, chosen: Mapping[str, float]) -> dict[str, Cut]:
    """Scores of (2, CODES) counts at thresholds chosen without labels, by name, and at two that have seen them.

    "oracle" has the highest F1 and "oracle_mean_iou" the highest mean IoU: where nearly all is landslide at the one, the
    other is no bound of it.
    """
    every = {**chosen, "oracle": best_threshold(counts)[0], "oracle_mean_iou": best_mean_iou(counts)}
    return {name: cut(counts, threshold) for name, threshold in every.items()}


def cut(counts: np.ndarray, threshold: float) -> Cut:
    """Scores of (2, CODES) counts at a threshold."""
    found, pixels = scores_at(counts, threshold), int(counts.sum())
    places = (found.tp, found.fp, found.fn, pixels)
    return Cut(
        threshold=threshold,
        precision=found.precision,
        recall=found.recall,
        f1=found.f1,
        iou=found.iou,
        mean_iou=mean_iou_of(*places),
        accuracy=accuracy_of(*places),
        predicted_share=(found.tp + found.fp) / max(pixels, 1),
    )


def plain(named: Mapping[str, Cut]) -> dict[str, dict[str, float]]:
    """Cuts for JSON."""
    return {name: asdict(one) for name, one in named.items()}
