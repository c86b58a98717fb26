"""A finished run used elsewhere: its ensemble on images it has never seen, and the ensembles of several runs averaged."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

import numpy as np

from l4s import log
from l4s.data.domain import Domain
from l4s.data.probs import ProbFile, open_probs
from l4s.embed import embed, open_embeddings
from l4s.engine import Engine, start_engine
from l4s.ensemble import ensemble
from l4s.errors import RunError
from l4s.experiment import weights
from l4s.load import Member
from l4s.member import adapt_member, adapts, norm_row, trained_member
from l4s.plan import Choice, Plan, find_ensemble, find_group, one_cell, read_plan
from l4s.predict import View, predict
from l4s.recipe import Tta, fingerprint
from l4s.session import Machine
from l4s.tasks import build_task
from l4s.use import affine_of, finished_round, known, like_whom, open_images, precision, trainings


@dataclass(frozen=True)
class Use:
    """How a run is used on new images; None is what the run itself says.

    `round` and `group` choose the ensemble (the last finished round). `normalise` is by default what each member was
    trained with; `separated` takes the statistics of the new images, `source` those of the run's source patches. `tta`
    is by default that of the run's ensembles. `like` is a domain of the run: the new images have its order of bands, fit and
    mask values, and its normalisation, AdaBN and BatchNorm statistics; by default they are read like the source that the
    ensemble was trained on, and the rest is as the members say.
    """

    round: int | None = None
    group: str | None = None
    normalise: str | None = None
    tta: str | None = None
    split: str = "."
    like: str | None = None


def predict_images(run: Path, images: Path, out: Path, machine: Machine, use: Use) -> ProbFile:
    """Predict new images with a run's ensemble; nothing is written into the run.

    Args:
        run: a run directory; of the data it was made with, nothing is needed.
        images: a folder of `image_N.h5`, or one that holds them in `img/`, or of pictures; with `use.split`, a whole data
            folder.
        out: the file to write, `(N, H, W)` float16 in [0, 1], ragged where the run fits patches of varying size. Made
            already, with the same run and images: kept.

    Raises:
        DataError: images are missing, broken, or have other bands than the run's.
        RunError: no round of the run is finished, `out` was made with something else, or the ensemble's sources are read
            in several ways and `use` does not say which.
        RecipeError: `use` names a normalisation, an augmentation or a domain that does not exist.
    """
    plan = read_plan(one_cell(run))
    tta = known("tta", use.tta or plan.recipe.ensemble_tta, get_args(Tta))
    number = finished_round(plan, use.round, use.group)
    members = plan.groups(number)[find_group(plan, number, use.group)]
    like = like_whom(plan, members, use.like)
    domain = open_images(plan, like, images, use.split, machine, as_it=use.like is not None)
    read = {member.name: first for member in members if (first := plan.feature_member(member))}
    asked = {member.name: member for member in (*read.values(), *members)}
    affines = {name: affine_of(plan, domain, member, use.normalise, use.like) for name, member in asked.items()}
    # to the layers with statistics by domain, images like nothing are like a target that took no part in training
    norms = {name: norm_row(plan.recipe, member, number, use.like or "") for name, member in asked.items()}
    key = _key(plan, number, members, domain, affines, norms, tta)
    if out.exists():
        return _kept(out, key)
    engine = start_engine(machine.device, precision(plan, machine), machine.workers, machine.deterministic)
    log.info(f"round {number}, {len(members)} members, {len(domain)} patches, tta {tta}")
    parts = out.with_name(out.name + ".members")
    views = {name: View(domain, domain.predicted, *pair, norms[name]) for name, pair in affines.items()}
    firsts = {first.name: first for first in read.values()}
    embedded = {n: _embeddings(engine, plan, number, first, views[n], parts) for n, first in firsts.items()}
    for name, first in read.items():
        views[name] = replace(views[name], embeddings=embedded[first.name])
    made = [_predict(engine, plan, number, member, views[member.name], parts, cast(Tta, tta)) for member in members]
    if engine.main:
        ensemble(made, out, fingerprint=key, weights=plan.weights(members))
    engine.wait()
    if engine.main:
        shutil.rmtree(parts, ignore_errors=True)
    return open_probs(out)


def ensemble_runs(runs: Sequence[Path], out: Path, choice: Choice) -> ProbFile:
    """Average the ensembles of several runs, which must have predicted the same patches.

    Args:
        choice: which ensemble of each run; left open, its last finished round, and the domain that is obvious.

    Raises:
        RunError: a run has no such ensemble, or is named twice, or `out` was made with something else.
        DataError: the ensembles do not belong together.
    """
    if again := [run for place, run in enumerate(runs) if run.resolve() in [r.resolve() for r in runs[:place]]]:
        raise RunError(f"{again[0]} is named twice, and would count twice: name each run once")
    found = [find_ensemble(read_plan(one_cell(run)), choice) for run in runs]
    for run, (number, path) in zip(runs, found, strict=True):
        log.info(f"{run}: round {number}, {path.name}")
    inputs = [open_probs(path) for _, path in found]
    key = fingerprint({"step": "ensemble of runs", "inputs": [probs.fingerprint for probs in inputs]})
    if out.exists():
        return _kept(out, key)
    ensemble(inputs, out, fingerprint=key)
    return open_probs(out)


def _predict(engine: Engine, plan: Plan, number: int, member: Member, view: View, folder: Path, tta: Tta) -> ProbFile:
    log.info(f"round {number} {member.name}")
    task, batch = build_task(member.config), plan.recipe.predict.batch
    models = trained_member(plan.recipe, member, number, weights(plan.run.member(number, member.name)), engine)
    if adapts(member, view.domain.config):
        models = adapt_member(engine, task, models, member, view, batch)
    out = folder / f"{member.name}.h5"
    return predict(engine, task, models, view, out, member=member.name, fingerprint="", tta=tta, batch=batch)


def _embeddings(engine: Engine, plan: Plan, number: int, first: Member, view: View, folder: Path) -> np.ndarray:
    """What a member whose embeddings others read says of the new images; a file that lies there is of others."""
    path = folder / f"{first.name}.npy"
    if engine.main:
        files = weights(plan.run.member(number, first.name))[:1]
        (model,) = trained_member(plan.recipe, first, number, files, engine)
        embed(engine, model, view, path, plan.recipe.predict.batch)
    engine.wait()
    return open_embeddings(path)


def _key(
    plan: Plan,
    number: int,
    members: Sequence[Member],
    domain: Domain,
    affines: dict[str, tuple[np.ndarray, np.ndarray]],
    norms: dict[str, int],
    tta: str,
) -> str:
    """Fingerprint of the prediction: the trainings, the images, and how they are normalised."""
    numbers = {name: hashlib.sha256(np.stack(pair).tobytes()).hexdigest()[:16] for name, pair in affines.items()}
    return fingerprint(
        {
            "step": "apply",
            "trained": trainings(plan, number, members),
            "content": domain.cache.images_digest,
            "normalisation": numbers,
            "norm": norms,
            "tta": tta,
            "adabn": {m.name: plan.recipe.predict.batch for m in members if adapts(m, domain.config)},
            "weights": plan.weights(members),
        }
    )


def _kept(out: Path, key: str) -> ProbFile:
    probs = open_probs(out)
    if probs.fingerprint != key:
        raise RunError(f"{out} was made with another run, images or settings: delete it, or choose another --out")
    log.info(f"{out} is made already")
    return probs
