"""How good a member is on the held-out source while it trains: scores from files, never from the loop."""

from dataclasses import replace

import numpy as np
from torch import nn

from l4s.errors import RunError
from l4s.experiment import Experiment
from l4s.inputs import view_of
from l4s.load import Member
from l4s.metrics import CODES, accuracy_of, average_precision, cross_entropy, scores_at
from l4s.predict import predict
from l4s.score import value_counts
from l4s.tasks import build_task
from l4s.truth import truth_of

THRESHOLD = 0.5


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
    found = scores_at(counts, THRESHOLD)
    wanted = {
        "f1": found.f1,
        "accuracy": accuracy_of(found.tp, found.fp, found.fn, int(counts.sum())),
        "ap": average_precision(counts),
        "loss": cross_entropy(counts),
    }
    return {name: value for name, value in wanted.items() if name in ("f1", train.keep_by, train.stop_by)}
