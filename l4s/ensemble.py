"""One ProbFile out of several: the mean, or a weighted mean, of the members' probabilities."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from l4s import rundir
from l4s.data.probs import ProbFile, write_probs
from l4s.errors import DataError, RecipeError, did_you_mean


def ensemble(
    inputs: Sequence[ProbFile], out: Path, *, fingerprint: str, weights: Mapping[str, float] | None = None
) -> None:
    """Write the mean of `inputs`, which must hold the same patches, of one domain, kind, rule and test-time augmentation.

    Args:
        weights: by member name, any positive numbers; None is the plain mean.

    Raises:
        DataError: the files do not belong together.
        RecipeError: a weight names no member, or a member has no weight.
    """
    first = inputs[0]
    for other in inputs[1:]:
        _refuse_misfit(first, other)
    share = _shares([probs.member for probs in inputs], weights)
    with write_probs(
        out,
        ids=first.ids,
        shape=first.shapes if first.ragged else first.shape,
        member="ensemble",
        fingerprint=fingerprint,
        domain=first.domain,
        tta=first.tta,
        kind=first.kind,
        extra=first.extra,
    ) as writer:
        for row, values in enumerate(zip(*(probs.patches() for probs in inputs), strict=True)):
            writer.put(row, [_mean(values, share)])
            rundir.reached("ensemble.put")


def _mean(values: Sequence[np.ndarray], share: Sequence[float]) -> np.ndarray:
    mean = sum(part * each.astype(np.float32) for part, each in zip(share, values, strict=True))
    return np.asarray(np.clip(mean, 0, 1))


def _refuse_misfit(first: ProbFile, other: ProbFile) -> None:
    uniform = () if first.ragged or other.ragged else ("shape",)
    for what in ("kind", "domain", "tta", *uniform, "extra"):
        ours, theirs = getattr(first, what), getattr(other, what)
        if ours != theirs:
            raise DataError(f"cannot ensemble {first.path} and {other.path}: {what} {ours!r} is not {theirs!r}")
    if first.ids != other.ids:
        odd = sorted(set(first.ids) ^ set(other.ids))[:3]
        what = f"only one of them holds {', '.join(odd)}" if odd else "their patches stand in another order"
        raise DataError(f"cannot ensemble {first.path} and {other.path}: {what}")
    for name, ours, theirs in zip(first.ids, first.shapes, other.shapes, strict=True):
        if ours != theirs or first.ragged != other.ragged:
            raise DataError(
                f"cannot ensemble {first.path} and {other.path}: patch {name} is {ours} in one and {theirs} in the other, "
                "or patches vary in size in one file only"
            )


def _shares(members: Sequence[str], weights: Mapping[str, float] | None) -> list[float]:
    """Weights that add up to 1, in the order of the members."""
    if weights is None:
        return [1 / len(members)] * len(members)
    for name in weights:
        if name not in members:
            raise RecipeError(f"ensemble.weights names {name!r}{did_you_mean(name, members)}")
    if missing := [name for name in members if weights.get(name, 0) <= 0]:
        raise RecipeError(f"ensemble.weights has no positive weight for {missing[0]!r}")
    total = sum(weights.values())
    return [weights[name] / total for name in members]
