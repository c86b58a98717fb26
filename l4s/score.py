"""Scores of a file of probabilities, or of masks, against the truth: pooled, and for each region.

Patches are matched by id, never by position. Scores are those of the competition: landslide class only, all pixels of
all patches together.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from l4s.data.labels import patch_label
from l4s.data.patch import IGNORED
from l4s.data.probs import ProbFile
from l4s.errors import DataError
from l4s.metrics import (
    CODES,
    accuracy_of,
    auroc,
    average_precision,
    best_threshold,
    bootstrap_f1,
    code_counts,
    mask_counts,
    mean_iou_of,
    pooled_scores,
    predicted,
)
from l4s.recipe import Threshold
from l4s.thresholds import CONTAMINATION, EXPECTED_F1, HELDOUT, PROBABLE, cuts, label_free, plain

BY_DEFAULT = "quantile"


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known about some patches: their masks, and the region of each.

    `masks` is an array (N, H, W) uint8 {0, 1, 255 = ignore}, an array (N,) of labels where a patch has one, or a
    function from a position in `ids` to that patch's mask, (H, W) or ().
    """

    ids: tuple[str, ...]
    masks: Callable[[int], np.ndarray] | np.ndarray
    region: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.ids)) != len(self.ids):
            again = next(name for name in self.ids if self.ids.count(name) > 1)
            raise DataError(f"the truth names patch {again} twice")
        sizes = {"regions": len(self.region)} | ({} if callable(self.masks) else {"masks": len(self.masks)})
        for what, size in sizes.items():
            if size != len(self.ids):
                raise DataError(f"the truth has {len(self.ids)} ids but {size} {what}; give one for each id")

    def mask(self, index: int) -> np.ndarray:
        """One patch, (H, W) or () uint8 {0, 1, 255}. Raises DataError for other types and values."""
        mask = np.asarray(self.masks(index) if callable(self.masks) else self.masks[index])
        if mask.dtype != np.uint8:
            raise DataError(f"the mask of patch {self.ids[index]} must be uint8, got {mask.dtype}")
        if (wrong := mask[(mask > 1) & (mask != IGNORED)]).size:
            raise DataError(f"the mask of patch {self.ids[index]} must hold 0, 1 and 255 (ignore), got {wrong[0]}")
        return mask


@dataclass(frozen=True)
class ScoreRow:
    """Scores of some patches together; all in [0, 1] but the counts of `patches`.

    `f1_low` and `f1_high` bound F1 at 95 % over patches drawn again. `mean_iou` is the mean of landslide's and
    background's. Those with a default need probabilities and are None for masks; what is called oracle chose its
    threshold with the labels at hand. `auroc` is None, too, where a class is missing. `cuts` are the scores at thresholds
    that were chosen without these labels, by name: "expected_f1" of probabilities, "quantile" and "otsu" of scores that are
    only ordered, those given by the caller; at the "oracle" of F1, and at that of mean IoU.
    """

    patches: int
    patches_with_landslide: int
    precision: float
    recall: float
    f1: float
    f1_low: float
    f1_high: float
    iou: float
    mean_iou: float
    accuracy: float
    predicted_share: float
    true_share: float
    average_precision: float | None = None
    oracle_threshold: float | None = None
    oracle_f1: float | None = None
    auroc: float | None = None
    cuts: Mapping[str, Mapping[str, float]] | None = None


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of one prediction: pooled over all patches, and for each region.

    `ids` are the patches scored, in the order of the truth, and `counts` (n, 3) int64 their true positives, false
    positives and false negatives: what `paired_bootstrap` needs to compare two tables over the same patches.
    """

    pooled: ScoreRow
    regions: Mapping[str, ScoreRow]
    threshold: float | None
    source: Mapping[str, str]
    ids: tuple[str, ...] = field(repr=False)
    counts: np.ndarray = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The table for JSON: plain numbers, sorted keys; what does not apply is left out."""
        head = {"source": dict(sorted(self.source.items())), "threshold": self.threshold}
        rows = {
            "pooled": _plain(self.pooled),
            "regions": {name: _plain(self.regions[name]) for name in sorted(self.regions)},
        }
        return {key: value for key, value in sorted((head | rows).items()) if value is not None}


def score(
    probs: ProbFile,
    truth: Truth,
    *,
    threshold: float | None = None,
    others: Mapping[str, float] = MappingProxyType({}),
    seed: int = 0,
    draws: int = 1000,
    allow_subset: bool = False,
) -> ScoreTable:
    """Score values >= `threshold` as landslide; pixels whose truth is 255 count nowhere.

    Without a threshold, probabilities are cut at 0.5, and scores that are only ordered at the quantile that leaves the
    `contamination` above it which their file carries. Where a patch has one value and its truth is a mask, the truth is
    its label by the rule that the file carries.
    Every patch predicted must be in the truth. Every patch of the truth must be predicted too, unless `allow_subset`
    says that only a part of them is meant to be scored (a hold-out, a region). `others` are further thresholds by name, whose
    scores join the `cuts`. `seed` and `draws` are the bootstrap's.

    Raises DataError for ids that do not match, masks of another size, and values that cannot be.
    """
    rows = _positions(probs.ids, truth, allow_subset)
    chosen = _thresholds(probs)
    at = threshold if threshold is not None else chosen.get(BY_DEFAULT, PROBABLE)
    tallies: list[np.ndarray] = []
    codes: dict[str, np.ndarray] = {}
    for row, values in zip(rows, probs.patches(), strict=True):
        target, valid = _labels(truth, row, values.shape, probs.extra.get("positive_share"))
        tallies.append(_tally(predicted(values, at), target, valid))
        region = truth.region[row]
        codes[region] = codes.get(region, 0) + code_counts(values, target, valid)
    source = {name: getattr(probs, name) for name in ("domain", "fingerprint", "kind", "member", "tta")}
    return _table(truth, rows, tallies, codes, at, source, (seed, draws), {**chosen, **others})


def value_counts(probs: ProbFile, truth: Truth) -> np.ndarray:
    """The valid pixels (or patches) of each class and value, as `l4s.metrics.code_counts` counts them: (2, CODES) int64.

    Raises DataError as `score` does.
    """
    rows, share = _positions(probs.ids, truth, False), probs.extra.get("positive_share")
    counts = np.zeros((2, CODES), np.int64)
    for row, values in zip(rows, probs.patches(), strict=True):
        counts += code_counts(values, *_labels(truth, row, values.shape, share))
    return counts


def threshold_of(probs: ProbFile, wanted: Threshold | None = None) -> float:
    """Where a file is cut: at a number that is wanted, or where its expected F1 is highest ("expected_f1").

    By default probabilities are cut at 0.5, and scores that are only ordered at their quantile.

    Raises:
        DataError: "expected_f1" of scores that are only ordered, which are no probabilities; "heldout", which a run knows
            (`l4s.plan.known_threshold`) and a file does not.
    """
    if isinstance(wanted, float):
        return wanted
    if wanted == HELDOUT:
        raise DataError(f"{probs.path} does not know its held-out sources, only a run does: give the run, or a number")
    if probs.kind == "probability":
        return PROBABLE if wanted is None else _thresholds(probs)[EXPECTED_F1]
    if wanted is not None:
        raise DataError(f"{probs.path} holds scores that are only ordered: {EXPECTED_F1} needs probabilities")
    return _thresholds(probs)[BY_DEFAULT]


def _thresholds(probs: ProbFile) -> dict[str, float]:
    """Label-free thresholds by name."""
    if probs.kind == "probability":
        return label_free(probs.patches())
    return label_free(probs.patches(), float(probs.extra.get("contamination", CONTAMINATION)))


def score_masks(
    pred: Mapping[str, np.ndarray], truth: Truth, *, seed: int = 0, draws: int = 1000, allow_subset: bool = False
) -> ScoreTable:
    """Score masks, id -> (H, W) uint8 {0, 1}; the rest as in `score`, but there is no AP and no oracle."""
    rows = _positions(tuple(pred), truth, allow_subset)
    tallies = []
    for row, (name, mask) in zip(rows, pred.items(), strict=True):
        if mask.dtype != np.uint8 or (mask > 1).any():
            raise DataError(f"the predicted mask of patch {name} must be uint8 with 0 and 1, got {_summary(mask)}")
        tallies.append(_tally(mask == 1, *_labels(truth, row, mask.shape)))
    return _table(truth, rows, tallies, None, None, {}, (seed, draws))


def _positions(ids: Iterable[str], truth: Truth, allow_subset: bool) -> list[int]:
    """Where in the truth each predicted patch is."""
    known = {name: row for row, name in enumerate(truth.ids)}
    ids = tuple(ids)
    if unknown := [name for name in ids if name not in known]:
        raise DataError(f"{len(unknown)} of {len(ids)} predicted patches have no truth, first {unknown[0]}")
    missing = known.keys() - set(ids)
    if missing and not allow_subset:
        first = min(missing, key=known.__getitem__)
        raise DataError(
            f"{len(missing)} of {len(known)} patches of the truth are not predicted, first {first}; "
            "predict them, or pass --subset"
        )
    return [known[name] for name in ids]


def _labels(
    truth: Truth, row: int, shape: tuple[int, ...], positive_share: object = None
) -> tuple[np.ndarray, np.ndarray]:
    mask = truth.mask(row)
    if shape == () and mask.ndim == 2 and isinstance(positive_share, float | int):
        mask = patch_label(mask, positive_share)
    if mask.shape != shape:
        raise DataError(f"patch {truth.ids[row]}: the prediction is {shape}, the truth {mask.shape}")
    return mask, mask != IGNORED


def _tally(pred: np.ndarray, target: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(4,) int64: true positives, false positives, false negatives, valid pixels."""
    return np.append(mask_counts(pred[None], target[None], valid[None])[0], np.count_nonzero(valid))


def _table(
    truth: Truth,
    rows: list[int],
    tallies: list[np.ndarray],
    codes: Mapping[str, np.ndarray] | None,
    threshold: float | None,
    source: Mapping[str, str],
    bootstrap: tuple[int, int],
    chosen: Mapping[str, float] = MappingProxyType({}),
) -> ScoreTable:
    if not rows:
        raise DataError("no patches to score")
    order = np.argsort(rows)  # the order of the truth, whatever that of the prediction: intervals do not depend on it
    scored = [rows[k] for k in order]
    tally, region = np.stack(tallies)[order], np.array([truth.region[row] for row in scored])
    regions = {
        name: _row(tally[region == name], None if codes is None else codes[name], bootstrap, chosen)
        for name in sorted(set(region.tolist()))
    }
    every = None if codes is None else np.sum(list(codes.values()), axis=0)
    pooled = _row(tally, every, bootstrap, chosen)
    return ScoreTable(pooled, regions, threshold, source, tuple(truth.ids[row] for row in scored), tally[:, :3])


def _row(
    tally: np.ndarray, codes: np.ndarray | None, bootstrap: tuple[int, int], chosen: Mapping[str, float]
) -> ScoreRow:
    tp, fp, fn, pixels = (int(total) for total in tally.sum(axis=0))
    scores = pooled_scores(tp, fp, fn)
    low, high = bootstrap_f1(tally[:, :3], *bootstrap)
    oracle = best_threshold(codes) if codes is not None else (None, None)
    return ScoreRow(
        patches=len(tally),
        patches_with_landslide=int((tally[:, 0] + tally[:, 2] > 0).sum()),
        precision=scores.precision,
        recall=scores.recall,
        f1=scores.f1,
        f1_low=low,
        f1_high=high,
        iou=scores.iou,
        mean_iou=mean_iou_of(tp, fp, fn, pixels),
        accuracy=accuracy_of(tp, fp, fn, pixels),
        predicted_share=(tp + fp) / max(pixels, 1),
        true_share=(tp + fn) / max(pixels, 1),
        average_precision=None if codes is None else average_precision(codes),
        oracle_threshold=oracle[0],
        oracle_f1=oracle[1],
        auroc=None if codes is None else auroc(codes),
        cuts=None if codes is None or not chosen else plain(cuts(codes, chosen)),
    )


def _summary(mask: np.ndarray) -> str:
    return f"{mask.dtype}" if mask.dtype != np.uint8 else f"{mask[mask > 1][0]}"


def _plain(row: ScoreRow) -> dict[str, Any]:
    return {name: _in_order(value) for name, value in sorted(asdict(row).items()) if value is not None}


def _in_order(value: Any) -> Any:
    return {key: _in_order(each) for key, each in sorted(value.items())} if isinstance(value, Mapping) else value
