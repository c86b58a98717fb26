"""How good a member or an ensemble is on the held-out sources: scores from files, never from the loop."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from l4s.data.probs import open_probs
from l4s.errors import RunError
from l4s.experiment import Experiment
from l4s.inputs import view_of
from l4s.load import Member
from l4s.metrics import CODE_VALUES, CODES, accuracy_of, average_precision, best_threshold, cross_entropy, scores_at
from l4s.predict import predict
from l4s.score import value_counts
from l4s.tasks import build_task
from l4s.thresholds import PROBABLE
from l4s.truth import comparable, truth_of


def heldout_scores(x: Experiment, member: Member, number: int, model: nn.Module, step: int) -> dict[str, float]:
    """Pooled scores on the held-out patches of all of a member's sources.

    Returns:
        `f1` at 0.5, and whichever of `accuracy`, `ap` (average precision) and `loss` (cross entropy) training goes by.

    Raises:
        RunError: a source holds nothing out, or has no masks there.
    """
    folder = x.run.member(number, member.name)
    task, train = build_task(member.config), member.config.train
    counts = np.zeros((2, CODES), np.int64)
    for domain in x.source(member):
        truth = truth_of(domain)
        if not len(domain.heldout) or truth is None:
            raise RunError(f"evaluate_every is set, but source domain {domain.name} holds nothing out to score on")
        view = replace(view_of(x, domain, member, number), rows=domain.heldout)
        out = folder / "heldout" / f"{domain.name}.h5"
        name, batch = f"step {step}", x.recipe.predict.batch
        probs = predict(x.engine, task, [model], view, out, member=member.name, fingerprint=name, batch=batch)
        counts += value_counts(probs, truth)
    found = scores_at(counts, PROBABLE)
    wanted = {
        "f1": found.f1,
        "accuracy": accuracy_of(found.tp, found.fp, found.fn, int(counts.sum())),
        "ap": average_precision(counts),
        "loss": cross_entropy(counts),
    }
    return {name: value for name, value in wanted.items() if name in ("f1", train.keep_by, train.stop_by)}


def heldout_thresholds(x: Experiment, members: Sequence[Member], folder: Path) -> dict[str, float]:
    """Where the F1 of a member or an ensemble, pooled over the held-out patches of its sources, is highest.

    Args:
        members: the one, or those of the ensemble: what they did not train on holds nothing out for them.
        folder: the member's or the ensemble's, whose files of probabilities are looked at.

    Returns:
        By test-time augmentation; none where no source holds out a landslide, or where values are only ordered.
    """
    counts: dict[str, np.ndarray] = {}
    sources = {domain.name for member in members for domain in x.source(member)}
    for domain in x.predicted(*members):
        truth = truth_of(domain) if domain.name in sources else None
        for tta in x.plan.tta(domain.name) if truth else ():
            path = x.run.probs(folder, domain.name, tta)
            if not path.is_file():
                continue
            probs = open_probs(path)
            if truth and probs.kind == "probability" and comparable(domain, probs):
                counts[tta] = counts.get(tta, 0) + value_counts(probs, truth)
    # 0 and 1 cut nothing: where the best is 1, since float16 knows nothing between, the number before it is taken
    least, most = CODE_VALUES[1], CODE_VALUES[-2]
    return {tta: min(max(best_threshold(found)[0], least), most) for tta, found in counts.items() if found[1].any()}
