"""A finished run used elsewhere: its ensemble on images it has never seen, and the ensembles of several runs averaged."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

import numpy as np

from l4s import log, rundir
from l4s.data.domain import Domain, affine, open_domain
from l4s.data.folders import picture_layout
from l4s.data.pictures import IMAGES
from l4s.data.probs import ProbFile, open_probs
from l4s.embed import embed, open_embeddings
from l4s.engine import Engine, start_engine
from l4s.ensemble import ensemble
from l4s.errors import RecipeError, RunError, did_you_mean
from l4s.experiment import weights
from l4s.load import Member
from l4s.member import adapt_member, adapts, norm_row, trained_member
from l4s.plan import Choice, Plan, find_ensemble, find_group, one_cell, read_plan, rounds
from l4s.predict import View, predict
from l4s.recipe import DomainConfig, Normalise, Tta, fingerprint
from l4s.rundir import RunDir
from l4s.session import Machine
from l4s.tasks import build_task


@dataclass(frozen=True)
class Use:
    """How a run is used on new images; None is what the run itself says.

    `round` and `group` choose the ensemble (the last finished round). `normalise` is by default what each member was
    trained with; `separated` takes the statistics of the new images, `source` those of the run's source patches. `tta`
    is by default that of the run's ensembles. `like` is the domain of the run whose order of bands, fit and mask values
    the new images have, by default the source that the ensemble was trained on.
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
    domain = _open(plan, _like(plan, members, use.like), images, use.split, machine)
    affines = {member.name: _affine(plan, domain, member, use.normalise) for member in members}
    key = _key(plan, number, members, domain, affines, tta)
    if out.exists():
        return _kept(out, key)
    engine = start_engine(machine.device, precision(plan, machine), machine.workers, machine.deterministic)
    log.info(f"round {number}, {len(members)} members, {len(domain)} patches, tta {tta}")
    parts = out.with_name(out.name + ".members")
    views = {name: View(domain, domain.predicted, *pair) for name, pair in affines.items()}
    embedded: dict[str, np.ndarray] = {}
    for member in members:
        if first := plan.feature_member(member):
            if first.name not in embedded:
                embedded[first.name] = _embeddings(engine, plan, number, first, domain, use.normalise, parts)
            views[member.name] = replace(views[member.name], embeddings=embedded[first.name])
    made = [_predict(engine, plan, number, member, views[member.name], parts, cast(Tta, tta)) for member in members]
    if engine.main:
        ensemble(made, out, fingerprint=key, weights=plan.weights(members))
        shutil.rmtree(parts)
    engine.wait()
    return open_probs(out)


def ensemble_runs(runs: Sequence[Path], out: Path, choice: Choice) -> ProbFile:
    """Average the ensembles of several runs, which must have predicted the same patches.

    Args:
        choice: which ensemble of each run; left open, its last finished round, and the domain that is obvious.

    Raises:
        RunError: a run has no such ensemble, or is named twice.
        DataError: the ensembles do not belong together.
    """
    if again := [run for place, run in enumerate(runs) if run.resolve() in [r.resolve() for r in runs[:place]]]:
        raise RunError(f"{again[0]} is named twice, and would count twice: name each run once")
    found = [find_ensemble(read_plan(one_cell(run)), choice) for run in runs]
    for run, (number, path) in zip(runs, found, strict=True):
        log.info(f"{run}: round {number}, {path.name}")
    inputs = [open_probs(path) for _, path in found]
    key = fingerprint({"step": "ensemble of runs", "inputs": [probs.fingerprint for probs in inputs]})
    ensemble(inputs, out, fingerprint=key)
    return open_probs(out)


def finished_round(plan: Plan, round_: int | None, group: str | None) -> int:
    """The last round (or the one named) in which every member of the ensemble has been trained.

    Raises:
        RunError: there is none.
    """
    missing: list[str] = []
    for number in reversed(rounds(plan, round_)):
        members = plan.groups(number)[find_group(plan, number, group)]
        missing = [m.name for m in members if not (plan.run.member(number, m.name) / "done.json").is_file()]
        if not missing:
            return number
    raise RunError(
        f"{plan.run.root} has no finished round to predict with: round {number} lacks {', '.join(missing)}; "
        f"run {rundir.command(plan.run.root, 'train', '--round', number)} first"
    )


READING = ("bands", "split_seed", "positive", "ignore", "cut", "fit", "share_stats", "subdomains")
"""What a domain says about how its files become arrays."""


def sources_of(plan: Plan, members: Sequence[Member]) -> list[str]:
    """Names of the source domains that any of these members trained on."""
    return list(dict.fromkeys(name for member in members for name in plan.recipe.sources(member.config)))


def _like(plan: Plan, members: Sequence[Member], name: str | None) -> DomainConfig:
    """The domain that new images are read like: the one named, else what all sources of the members agree on."""
    domains = plan.recipe.domain
    if name is not None:
        return domains[known("like", name, tuple(domains))]
    first, *others = sources_of(plan, members)
    for other in others:
        if odd := [key for key in READING if getattr(domains[first], key) != getattr(domains[other], key)]:
            raise RunError(
                f"the members were trained on {first} and {other}, which are read differently ({', '.join(odd)}): say "
                f"which of them the new images are like, such as --like {first}"
            )
    return domains[first]


def _open(plan: Plan, like: DomainConfig, images: Path, split: str, machine: Machine) -> Domain:
    """The new images as a domain, read like one of the run's."""
    reading = {key: getattr(like, key) for key in READING}
    if like.split_seed and images.is_dir() and picture_layout(images) == "bijie":
        # of a data set whose splits are drawn, the test patches are those that the run did not train on
        reading["layout"] = "bijie"
    else:
        del reading["split_seed"]
    config = DomainConfig(role="eval", split=split, **reading)
    clustered = [name for name in plan.recipe.domains("target") if plan.recipe.domain[name].subdomains.by != "none"]
    if clustered and config.subdomains.by == "none":
        log.warn(
            f"the run standardises {clustered[0]} by sub-domains; the new images are one domain: --like {clustered[0]} "
            "finds sub-domains in them as well"
        )
    folder = (images / split).resolve()
    name = folder.parent.name if folder.name in IMAGES else folder.name
    return open_domain(name, config, plan.recipe.bands, images, machine.cache_folder, log.track)


def _affine(plan: Plan, domain: Domain, member: Member, normalise: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift, (N, C) each, of the new images under a member's normalisation."""
    mode = learnt_mode(plan, member, normalise)
    sources = [_stored(plan, name, domain) for name in plan.recipe.sources(member.config)] if mode == "source" else []
    return affine(domain, mode, sources, member.config.patch_blend)


def learnt_mode(plan: Plan, member: Member, asked: str | None) -> Normalise:
    """The normalisation asked for, else that of all domains that a member learnt from.

    Raises:
        RecipeError: there is none of that name.
        RunError: these domains were normalised in several ways.
    """
    if asked is not None:
        return cast(Normalise, known("normalise", asked, get_args(Normalise)))
    names = (*plan.recipe.sources(member.config), *plan.recipe.domains("target"))
    modes = {plan.recipe.domain[name].normalise or member.config.normalise for name in names}
    if len(modes) > 1:
        raise RunError(
            f"{', '.join(names)} were normalised in several ways ({', '.join(sorted(modes))}), so that nothing says how new "
            "images should be: choose one with --normalise"
        )
    return modes.pop()


def _stored(plan: Plan, name: str, like: Domain) -> Domain:
    """A source of the run, of which only the moments are known."""
    return replace(like, name=name, cache=replace(like.cache, moments=stored_moments(plan, name)[:, None]))


def stored_moments(plan: Plan, name: str) -> np.ndarray:
    """Count, mean and variance per band of a source of the run, (3, C) float64: those in `stats/<name>.json`.

    Raises:
        RunError: an older l4s wrote none.
    """
    path = plan.run.stats(name)
    stored = rundir.read_json(path)
    if "moments" not in stored:
        raise RunError(
            f"{path} holds no moments of the source: an older l4s wrote it; run {rundir.command(plan.run.root, 'run')} again, "
            "which rewrites it"
        )
    return np.array(stored["moments"], np.float64)


def _predict(engine: Engine, plan: Plan, number: int, member: Member, view: View, folder: Path, tta: Tta) -> ProbFile:
    log.info(f"round {number} {member.name}")
    task, batch = build_task(member.config), plan.recipe.predict.batch
    models = trained_member(plan.recipe, member, number, weights(plan.run.member(number, member.name)), engine)
    # to the layers with statistics by domain, new images are like a target that did not take part in training
    view = replace(view, norm=norm_row(plan.recipe, member, number, ""))
    if adapts(member, view.domain.config):
        models = adapt_member(engine, task, models, member, view, batch)
    out = folder / f"{member.name}.h5"
    return predict(engine, task, models, view, out, member=member.name, fingerprint="", tta=tta, batch=batch)


def _embeddings(
    engine: Engine, plan: Plan, number: int, first: Member, domain: Domain, normalise: str | None, folder: Path
) -> np.ndarray:
    """What a member whose embeddings others read says of the new images; a file that lies there is of others."""
    path = folder / f"{first.name}.npy"
    if engine.main:
        files = weights(plan.run.member(number, first.name))[:1]
        (model,) = trained_member(plan.recipe, first, number, files, engine)
        row = norm_row(plan.recipe, first, number, "")
        embed(engine, model, View(domain, domain.predicted, *_affine(plan, domain, first, normalise), row), path)
    engine.wait()
    return open_embeddings(path)


def _key(
    plan: Plan,
    number: int,
    members: Sequence[Member],
    domain: Domain,
    affines: dict[str, tuple[np.ndarray, np.ndarray]],
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
            "tta": tta,
            "adabn": {m.name: plan.recipe.predict.batch for m in members if adapts(m, domain.config)},
            "weights": plan.weights(members),
        }
    )


def trainings(plan: Plan, number: int, members: Sequence[Member]) -> dict[str, str]:
    """Fingerprint of each member's finished training in a round."""
    return {m.name: rundir.read_json(plan.run.member(number, m.name) / "done.json")["fingerprint"] for m in members}


def _kept(out: Path, key: str) -> ProbFile:
    probs = open_probs(out)
    if probs.fingerprint != key:
        raise RunError(f"{out} was made with another run, images or settings: delete it, or choose another --out")
    log.info(f"{out} is made already")
    return probs


def precision(plan: Plan, machine: Machine) -> str:
    """What was asked for, else what the run was trained in."""
    if machine.precision != "auto":
        return machine.precision
    places = [plan.run.environment, RunDir(plan.run.root.parent).environment]
    return next((rundir.read_json(path)["precision"] for path in places if path.is_file()), "auto")


def known(what: str, value: str, words: Sequence[str]) -> str:
    """A word that is one of these.

    Raises:
        RecipeError: it is not.
    """
    if value not in words:
        raise RecipeError(f"{what} is {value!r}{did_you_mean(value, words)}")
    return value
