"""Pseudo labels: the ensemble's probabilities of one round become targets and weights of the next (Zhao 2022, 2.3)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from l4s import rundir
from l4s.data.fitting import Fitting, fit_mask
from l4s.data.probs import ProbFile
from l4s.errors import DataError
from l4s.files import whole
from l4s.metrics import predicted
from l4s.recipe import Pseudo

COLLAPSE, EXPLODE = 0.25, 4.0  # of the source's landslide share; outside, a round is not to be trusted


@dataclass(frozen=True)
class PseudoLabels:
    """Labels of target patches: `target` (N, H, W) uint8 in {0, 1}, `weight` (N, H, W) uint8 in {0, 1}, 0 = ignored.

    Where patches are fitted to one size, (H, W) is that size; `padding` of the N * H * W pixels lie outside the patches, and
    are ignored.
    """

    ids: tuple[str, ...]
    target: np.ndarray
    weight: np.ndarray
    fingerprint: str
    padding: int = 0

    def labels(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Target and weight of one patch, each (H, W) float32."""
        return self.target[row].astype(np.float32), self.weight[row].astype(np.float32)

    def shares(self) -> dict[str, float]:
        """Shares of the patches' pixels that are kept and ignored, and of kept pixels that are landslide."""
        kept = int(self.weight.sum()) / (self.weight.size - self.padding)
        positive = float((self.target & self.weight).sum() / max(int(self.weight.sum()), 1))
        return {"kept": kept, "ignored": 1 - kept, "positive": positive}


def changed(labels: PseudoLabels, before: PseudoLabels) -> float:
    """Share of the patches' pixels that are labelled differently than in the round before: landslide, background or ignored."""
    same = (labels.weight == before.weight) & ((labels.target == before.target) | (labels.weight == 0))
    alike, pixels = int(same.sum()) - labels.padding, labels.target.size - labels.padding  # padding never changes
    return 1.0 - alike / pixels


def pseudo(
    probs: ProbFile, config: Pseudo, out: Path, *, fingerprint: str, fitting: Fitting | None = None
) -> PseudoLabels:
    """Label each pixel of `probs` by the thresholds, and write the labels.

    Landslide from `config.upper` on; background up to `config.lower`; between them ignored, or background where
    `config.under_threshold` says so. Patches of varying size are labelled at their own size, and `fitting`
    says how the labels come to the size that is trained on, as masks do.

    Raises:
        DataError: `probs` holds scores, which no threshold of a probability means anything for.
    """
    if probs.kind != "probability":
        raise DataError(f"{probs.path} holds {probs.kind}s, not probabilities: pseudo labels need probabilities")
    if fitting is None:
        (target, weight), padding = _cut(probs.read(), config), 0
    else:
        pairs = [[fit_mask(plane, fitting, fill=0) for plane in _cut(values, config)] for values in probs.patches()]
        target, weight = (np.stack(planes) for planes in zip(*pairs, strict=True))
        own = sum(math.prod(shape) for shape in probs.shapes)
        padding = target.size - own if fitting.by == "pad" else 0
    labels = PseudoLabels(probs.ids, target, weight, fingerprint, padding)
    _write(out, labels)
    return labels


def _cut(values: np.ndarray, config: Pseudo) -> tuple[np.ndarray, np.ndarray]:
    """Target and weight, uint8 in {0, 1}, of probabilities of any shape."""
    landslide = predicted(values, config.upper)
    ignored = predicted(values, math.nextafter(config.lower, 1)) & ~landslide  # above `lower`, not from it on
    kept = np.ones_like(landslide) if config.under_threshold == "background" else ~ignored
    return landslide.astype(np.uint8), kept.astype(np.uint8)


def open_pseudo(path: Path) -> PseudoLabels:
    """Read labels that `pseudo` wrote.

    Raises:
        DataError: the file is missing or broken.
    """
    try:
        with h5py.File(path) as file:
            ids = tuple(file["id"].asstr()[:].tolist())
            padding = int(file.attrs.get("padding", 0))  # of older files it is not known
            return PseudoLabels(ids, file["target"][:], file["weight"][:], str(file.attrs["fingerprint"]), padding)
    except (OSError, KeyError) as error:
        raise DataError(
            f"cannot read pseudo labels from {path}: {error}; delete it and run `l4s pseudolabel`"
        ) from error


def warnings(shares: dict[str, float], source_share: float) -> Sequence[str]:
    """What a person should hear: labels that collapse to background, or explode.

    Args:
        source_share: landslide share of the source's labelled pixels.
    """
    share = shares["positive"]
    if share < COLLAPSE * source_share:
        return [
            f"only {share:.2%} of the kept pixels are landslide, against {source_share:.2%} in the source: collapse; "
            "lower pseudo.upper, or train round 0 longer"
        ]
    if share > EXPLODE * source_share:
        return [
            f"{share:.2%} of the kept pixels are landslide, against {source_share:.2%} in the source: explosion; "
            "raise pseudo.upper, or train round 0 longer"
        ]
    return []


def _write(out: Path, labels: PseudoLabels) -> None:
    with whole(out) as part:
        with h5py.File(part, "w", track_order=False) as file:
            file.create_dataset("id", data=list(labels.ids), dtype=h5py.string_dtype(), track_times=False)
            for name, array in (("target", labels.target), ("weight", labels.weight)):
                chunks = (1, *array.shape[1:])
                file.create_dataset(name, data=array, chunks=chunks, compression="gzip", track_times=False)
            file.attrs["fingerprint"] = labels.fingerprint
            if labels.padding:
                file.attrs["padding"] = labels.padding
        rundir.reached("pseudo.written")
