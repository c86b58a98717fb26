"""The steps of a run: pseudo labels, training, prediction, ensemble, submission. Each does nothing when it is finished."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from l4s import log, rundir
from l4s.data.dataset import Steps, mask_labels
from l4s.data.domain import Domain
from l4s.data.labels import patch_labels
from l4s.data.patch import IGNORED
from l4s.data.probs import ProbFile, open_probs
from l4s.data.subset import subset
from l4s.ensemble import ensemble
from l4s.environment import environment
from l4s.errors import RunError
from l4s.experiment import Experiment, weights
from l4s.files import write_json
from l4s.fit import Job, clean, fit
from l4s.inputs import part_of, view_of
from l4s.judge import heldout_scores, heldout_thresholds
from l4s.load import Member
from l4s.member import adapt_member, adapts, initial_member, norm_domains, trained_member
from l4s.plan import find_group, known_threshold, submission_facts
from l4s.predict import predict
from l4s.pseudo import PseudoLabels, changed, open_pseudo, pseudo, warnings
from l4s.recipe import Tta, fingerprint
from l4s.score import threshold_of
from l4s.submit import read_card, submit
from l4s.tasks import build_task

TAKEN_OVER = ("weights*.safetensors", rundir.METRICS)


def run_pseudo(x: Experiment, number: int) -> None:
    """Label the targets for round `number` from the ensemble of the round before."""
    for group in x.plan.grouped(x.trained(number)):
        folder = x.run.pseudo(number, group)
        kept = {domain.name: _labelling(x, number, domain, group) for domain in x.target()}
        if x.engine.main:
            write_json(x.run.kept(number, group), kept)
            rundir.finish(folder, fingerprint(kept))
        x.engine.wait()
    rundir.reached("pseudo.done")


def _labelling(x: Experiment, number: int, domain: Domain, group: str) -> dict[str, float]:
    """Label a domain, and say how; from the second time on, how much of it changed."""
    labels = _labelled(x, number, domain, group)
    before = x.run.pseudo(number - 1, group) / f"{domain.name}.h5"
    return labels.shares() | ({"changed": changed(labels, open_pseudo(before))} if number > 1 else {})


def _labelled(x: Experiment, number: int, domain: Domain, group: str) -> PseudoLabels:
    out, key = x.run.pseudo(number, group) / f"{domain.name}.h5", x.pseudo_key(domain, number, group)
    if _is_current(x, out, key, open_pseudo):
        return open_pseudo(out)
    probs = _labelling_probs(x, number, domain, group)
    if x.engine.main:
        pseudo(open_probs(probs), x.recipe.pseudo, out, fingerprint=key, fitting=domain.fitting)
    x.engine.wait()
    labels = open_pseudo(out)
    for warning in warnings(labels.shares(), _source_share(x)):
        log.warn(f"round {number}, {domain.name}: {warning}")
    return labels


def _labelling_probs(x: Experiment, number: int, domain: Domain, group: str) -> Path:
    """The ensemble that labels a domain for a round: that of the round before, or of its `labels_from`."""
    tta, members = x.recipe.ensemble_tta, x.labellers(number, group)
    if x.plan.round(number).labels_from:
        path = x.run.probs(x.run.pseudo(number, group), domain.name, tta)
        _ensemble(x, number - 1, members, domain, tta, path)
        return path
    path = x.run.probs(x.run.ensemble(number - 1, group), domain.name, tta)
    _need(x, path, x.ensemble_key(members, number - 1, domain, tta), _command(x, "ensemble", number - 1))
    return path


def run_fit(x: Experiment, member: Member, number: int) -> None:
    """Train one member in one round."""
    folder, key = x.run.member(number, member.name), x.fit_key(member, number)
    if x.engine.agree(x.engine.main and rundir.is_done(folder, key)):
        if x.engine.main:
            clean(folder)  # a run that was stopped just after finishing could not
        return
    if taken := _taken_over(x, member, number, folder, key):
        log.info(f"round {number} {member.name}: equal to {taken}, taken over")
        return
    rundir.refuse_other(folder, key)
    job = job_of(x, member, number, folder)
    with rundir.alone(folder) if x.engine.main else nullcontext("") as unlocked:
        if unlocked:
            log.warn(f"{folder} cannot be locked ({unlocked}): start no second run on it")
        if x.engine.main:
            write_json(folder / rundir.STARTED, {"fingerprint": key})
            write_json(folder / rundir.CONFIG, describe_member(x, member, number))
        names = [path.name for path in fit(x.engine, job)]
        if x.engine.main:
            rundir.finish(folder, key, weights=names, made=environment(x.engine))
            clean(folder)
        x.engine.wait()
    rundir.reached("fit.done")


def job_of(x: Experiment, member: Member, number: int, folder: Path) -> Job:
    """What `fit` needs to train a member in a round."""
    train, seed, task = member.config.train, member.config.seed, build_task(member.config)
    parts = [part_of(x, domain, member, number, mask_labels(domain)) for domain in x.source(member)]
    adapted = [
        part_of(x, d, member, number, _pseudo_of(x, d, member, number).labels) for d in (x.target() if number else ())
    ]
    share = float(task.about.get("positive_share", 0.0))
    if train.subset:
        parts = subset(parts, train.subset, seed, share)
    if train.balance:
        parts = [replace(p, positive=patch_labels(p.domain.cache.masks, share)) for p in parts]
    return Job(
        name=f"round {number} {member.name}",
        task=task,
        model=initial_member(x.recipe, member, number, x.initial(member, number)),
        source_and_target=lambda cut: Steps(parts, adapted, train, seed, cut),
        train=train,
        seed=seed,
        folder=folder,
        evaluate=lambda model, step: heldout_scores(x, member, number, model, step),
    )


def _taken_over(x: Experiment, member: Member, number: int, folder: Path, key: str) -> Path | None:
    """Link an equal finished training of any run beside this one; its folder, or None."""
    equal = rundir.find_equal(folder, key, x.run.runs, x.engine.precision) if x.engine.main else None
    found = x.engine.agree(equal)
    if found and x.engine.main:
        write_json(folder / rundir.CONFIG, describe_member(x, member, number))
        rundir.take_over(found, folder, TAKEN_OVER)
    x.engine.wait()
    return found


def run_predict(x: Experiment, member: Member, number: int) -> None:
    """Predict every domain that is predicted, under every test-time augmentation asked for."""
    folder = x.run.member(number, member.name)
    missing = []
    for domain in x.predicted(member):
        for tta in x.plan.tta(domain.name):
            out, key = x.run.probs(folder, domain.name, tta), x.predict_key(member, number, domain, tta)
            if not _is_made(x, out, key):
                missing.append((domain, tta, out, key))
    if not missing:
        return
    rundir.is_done(folder, x.fit_key(member, number))  # weights of other settings are refused
    task, batch = build_task(member.config), x.recipe.predict.batch
    trained = trained_member(x.recipe, member, number, weights(folder), x.engine)
    for name, files in groupby(missing, key=lambda entry: entry[0].name):
        view = view_of(x, x.domains[name], member, number)
        adapted = adapts(member, view.domain.config)
        models = adapt_member(x.engine, task, trained, member, view, batch) if adapted else trained
        for _, tta, out, key in files:
            predict(x.engine, task, models, view, out, member=member.name, fingerprint=key, tta=tta, batch=batch)
    log.info(f"round {number} {member.name}: predicted {len(missing)} files")


def run_ensemble(x: Experiment, number: int, only: str | None = None) -> None:
    """Average the members of a round, domain by domain.

    Args:
        only: the one group to average, so that it need not wait for the members of others; None averages all.

    Raises:
        RunError: no such round or group, or a member has not predicted yet.
    """
    groups = x.plan.grouped(x.trained(number))
    chosen = list(groups) if only is None else [find_group(x.plan, number, only)]
    for group in chosen:
        members = groups[group]
        folder = x.run.ensemble(number, group)
        for domain in x.predicted(*members):
            for tta in x.plan.tta(domain.name):
                _ensemble(x, number, members, domain, tta, x.run.probs(folder, domain.name, tta))
        if x.engine.main:
            table = x.plan.weights(members) or {member.name: 1.0 for member in members}
            write_json(folder / "weights.json", table)
            write_json(x.run.heldout(number, group), heldout_thresholds(x, members, folder))
            rundir.finish(folder, fingerprint(table))
        x.engine.wait()


def run_submit(x: Experiment) -> None:
    """Pack the last round's ensemble of the domain to submit, checked, with its card."""
    config, last = x.recipe.submit, x.plan.last_round()
    if config is None or not x.engine.main:
        return
    for group in x.plan.grouped(x.trained(last)):
        folder = x.run.ensemble(last, group)
        tta = x.recipe.ensemble_tta
        probs = open_probs(x.run.probs(folder, config.domain, tta))
        threshold = threshold_of(probs, known_threshold(x.plan, config.threshold, last, group, tta))
        facts = submission_facts(x.plan, last, group, threshold=threshold, min_area=config.min_area)
        out = x.run.entry(x.recipe.name, config.domain, group)
        if not _is_packed(out, probs, threshold, config.min_area, facts):
            submit(probs, out, threshold=threshold, min_area=config.min_area, facts=facts)
            log.info(f"submission: {out}")
    rundir.reached("submit.done")


def _is_packed(out: Path, probs: ProbFile, threshold: float, min_area: int, facts: Mapping[str, object]) -> bool:
    """Does this zip lie there with its card, cut from these probabilities in this way?"""
    card = out.with_suffix(".json")
    if not (out.is_file() and card.is_file()):
        return False
    found = read_card(card)
    made = (found.fingerprint, found.threshold, found.min_area, dict(found.facts))
    wanted = (probs.fingerprint, threshold, min_area, facts)
    return made == wanted and found.sha256 == hashlib.sha256(out.read_bytes()).hexdigest()


def describe_member(x: Experiment, member: Member, number: int) -> dict[str, object]:
    """What is needed to use a member's weights without its recipe."""
    return {
        "member": member.name,
        "round": number,
        "norm": norm_domains(x.recipe, member, number),
        "bands": x.recipe.bands.model_dump(mode="json"),
        "config": member.config.model_dump(mode="json"),
    }


def _ensemble(x: Experiment, number: int, members: Sequence[Member], domain: Domain, tta: Tta, out: Path) -> None:
    key = x.ensemble_key(members, number, domain, tta)
    if _is_current(x, out, key):
        return
    paths = [x.run.probs(x.run.member(number, member.name), domain.name, tta) for member in members]
    for path, member in zip(paths, members, strict=True):
        _need(x, path, x.predict_key(member, number, domain, tta), _command(x, "predict", number))
    if x.engine.main:
        ensemble([open_probs(path) for path in paths], out, fingerprint=key, weights=x.plan.weights(members))
    x.engine.wait()


def _need(x: Experiment, path: Path, key: str, commands: str) -> None:
    """Refuse to go on without a ProbFile that earlier commands make, or with one of other settings."""
    if not _is_made(x, path, key):
        raise RunError(f"{path} is missing: run {commands} first")


def _is_current(
    x: Experiment, path: Path, key: str, opened: Callable[[Path], ProbFile | PseudoLabels] = open_probs
) -> bool:
    """As `_is_made`, of what takes seconds: one of other members or settings is made anew.

    No training is lost by it: those that built on the old one are refused when the run is opened.
    """
    stale = x.engine.main and path.is_file() and opened(path).fingerprint != key
    if stale:
        log.info(f"{path}: its members or settings have changed, so it is made anew")
    return not x.engine.agree(stale) and _is_made(x, path, key, opened)


def _is_made(
    x: Experiment, path: Path, key: str, opened: Callable[[Path], ProbFile | PseudoLabels] = open_probs
) -> bool:
    """Is this file finished, with exactly these settings and inputs?"""
    # only one looks: on a network's disk a look remembers for a while that nothing is there
    if not x.engine.agree(x.engine.main and path.is_file()):
        return False
    found = opened(path).fingerprint
    if found != key:
        raise RunError(
            f"{path} was made with other settings or inputs (fingerprint {found}, now {key}): "
            "delete it to redo it, or choose another --run"
        )
    return True


def _pseudo_of(x: Experiment, domain: Domain, member: Member, number: int) -> PseudoLabels:
    group = x.plan.group(member)
    path = x.run.pseudo(number, group) / f"{domain.name}.h5"
    if not _is_made(x, path, x.pseudo_key(domain, number, group), open_pseudo):
        raise RunError(f"{path} is missing: run {_commands_before(x, number, domain, group)} first")
    labels = open_pseudo(path)
    if labels.ids != domain.ids(domain.train):
        raise RunError(f"{path} labels other patches than domain {domain.name} has: delete it to redo it")
    return labels


def _commands_before(x: Experiment, number: int, domain: Domain, group: str) -> str:
    """The commands that are left to run until a round has its pseudo labels."""
    before, tta = number - 1, x.recipe.ensemble_tta
    folders = [x.run.member(before, member.name) for member in x.labellers(number, group)]
    commands = []
    if not all(rundir.finished(folder) for folder in folders):
        commands.append(_command(x, "train", before))
    if not all(x.run.probs(folder, domain.name, tta).is_file() for folder in folders):
        commands.append(_command(x, "predict", before))
    own = bool(x.plan.round(number).labels_from)  # a round that names its labellers averages them itself
    if not own and not x.run.probs(x.run.ensemble(before, group), domain.name, tta).is_file():
        commands.append(_command(x, "ensemble", before))
    return ", then ".join([*commands, _command(x, "pseudolabel", number)])


def _command(x: Experiment, name: str, number: int) -> str:
    return rundir.command(x.run.root, name, "--round", number)


def _source_share(x: Experiment) -> float:
    """Landslide share of the source's labelled training pixels."""
    sources = [x.domains[name] for name in x.recipe.domains("source")]
    masks = [domain.cache.masks[domain.train] for domain in sources]
    return sum(int((mask == 1).sum()) for mask in masks) / max(sum(int((mask != IGNORED).sum()) for mask in masks), 1)
