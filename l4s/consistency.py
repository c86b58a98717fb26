"""What the tables of a recipe must agree on with each other, checked when it is loaded; imports no torch.

Names of losses, optimisers, schedules and tasks live beside torch code: `l4s.session` checks them, before data are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from l4s.data.sampler import share_rows
from l4s.errors import RecipeError, did_you_mean
from l4s.groups import by_group, predicted, round_of, trained
from l4s.models import ANSWERS, check_options
from l4s.models.siamese import joined_channels
from l4s.recipe import Recipe
from l4s.thresholds import HELDOUT
from l4s.traits import labels_read

if TYPE_CHECKING:
    from l4s.load import Member

PLAIN = re.compile(r"\w[\w.-]*")
GIVES_EMBEDDINGS, JOINS_EMBEDDINGS = "siamese", "pair_cnn"
OF_A_ROUND = re.compile(r"(ensemble|pseudo)(-.*)?")  # folders of a round that are no members


def check_recipe(recipe: Recipe, members: Sequence[Member], where: str) -> None:
    """Refuse a recipe whose tables contradict each other, or hold a setting that has no effect.

    Args:
        members: the recipe's members with grids expanded.
        where: names the recipe in errors.

    Raises:
        RecipeError: the first thing that is wrong.
    """
    for problem in (
        *_names(recipe),
        *_rounds(recipe, members),
        *_starts(recipe, members),
        *_ensemble(recipe, members),
        *_submit(recipe),
        *_tasks(recipe, members),
        *_features(recipe, members),
    ):
        raise RecipeError(f"{where}: {problem}")
    for member in members:
        for problem in _member(recipe, member):
            raise RecipeError(f"{where}: member.{member.base}: {problem}")
    for problem in _together(recipe, members):
        raise RecipeError(f"{where}: {problem}")


def _names(recipe: Recipe) -> Iterator[str]:
    if not recipe.member:
        yield "there is no [member.x]: nothing would be trained"
    ensembles = [member.ensemble for member in recipe.member.values() if member.ensemble]
    named = {"name": [recipe.name], "domain": recipe.domain, "member": recipe.member, "ensemble": ensembles}
    for what, names in named.items():
        if odd := [name for name in names if not PLAIN.fullmatch(name)]:
            yield f"{what} {odd[0]!r} becomes the name of a file: use letters, digits, '_', '.' and '-'"
    shared = {recipe.domain[name].share_stats for name in recipe.domains("source")}
    modes = {d.normalise for d in recipe.domain.values()} | {m.normalise for m in recipe.member.values()}
    if "source" in modes and len(shared) > 1:
        yield "normalise = 'source' pools the sources' statistics, but their share_stats differ"
    yield from _parts(recipe)
    seeds = {domain.split_seed for domain in recipe.domain.values() if domain.layout == "bijie"}
    if len(seeds) > 1:
        yield f"split_seed is {' and '.join(map(str, sorted(seeds)))}: one seed draws all splits, two draw some that overlap"
    yield from _unread_statistics(recipe)
    if taken := [name for name in recipe.member if OF_A_ROUND.fullmatch(name)]:
        yield f"member {taken[0]!r} has the name of a folder that a round needs for itself: choose another"


def _unread_statistics(recipe: Recipe) -> Iterator[str]:
    """Statistics that no member standardises a domain by are not computed in vain."""
    for name, domain in recipe.domain.items():
        modes = {domain.normalise} if domain.normalise else {member.normalise for member in recipe.member.values()}
        told = " and ".join(sorted(modes))
        if domain.subdomains.by != "none" and not modes & {"separated", "patch"}:
            yield f"domain.{name}.subdomains has no effect where images are normalised by {told}"
        if domain.share_stats and not modes & {"separated", "source", "patch"}:
            yield f"domain.{name}.share_stats has no effect where images are normalised by {told}"


def _parts(recipe: Recipe) -> Iterator[str]:
    """Parts of one split are dealt out once: dealt out in two ways, they overlap."""
    dealt: dict[PurePosixPath, tuple[str, list[object]]] = {}
    for name, domain in recipe.domain.items():
        if domain.parts is None:
            continue
        # the order of the shares decides who is dealt what, and equal mappings may differ in it; so do the labels
        parts = domain.parts
        way: list[object] = [list(parts.shares.items()), parts.by, parts.seed, parts.gap]
        way += [domain.positive, domain.ignore, domain.positives_only, domain.split_seed]
        other, first = dealt.setdefault(PurePosixPath(domain.split), (name, way))
        if way != first:
            yield (
                f"domains {other} and {name} deal out split {domain.split!r} in two ways, and their parts would overlap: give "
                "both the same shares in the same order, the same by, seed and gap, and the same values of masks"
            )


def _rounds(recipe: Recipe, members: Sequence[Member]) -> Iterator[str]:
    known = {*recipe.member, *(member.name for member in members)}
    numbers = [entry.round for entry in recipe.round]
    if recipe.pseudo.stop and recipe.rounds < 2:
        yield f"pseudo.stop compares the labels of two rounds, but rounds = {recipe.rounds} makes labels once at most"
    for entry in recipe.round:
        if entry.round > recipe.rounds or numbers.count(entry.round) > 1:
            yield f"[[round]] {entry.round} is given twice, or lies beyond rounds = {recipe.rounds}"
        for name in (*entry.train, *entry.labels_from):
            if name not in known:
                yield f"[[round]] {entry.round} names {name!r}{did_you_mean(name, known)}"
        if not entry.round:
            if entry.labels_from:
                yield "[[round]] 0 has labels_from, but round 0 trains without pseudo labels: leave it out"
            continue
        before = trained(recipe, members, entry.round - 1)
        if idle := [name for name in entry.labels_from if not any(member.named([name]) for member in before)]:
            yield f"[[round]] {entry.round} takes labels from {idle[0]!r}, which round {entry.round - 1} does not train"


def _starts(recipe: Recipe, members: Sequence[Member]) -> Iterator[str]:
    """A member starts from weights that its round, or the round before, has made."""
    before: set[str] = set()
    for number in range(recipe.rounds + 1):
        steps = round_of(recipe, number).steps
        now = {member.name: member for member in trained(recipe, members, number)}
        for name, member in now.items():
            continues = number and member.config.train.start == "continue"
            if continues and name not in before:
                yield f"member {name!r} continues in round {number}, but round {number - 1} does not train it"
            if steps == 0 and not continues and member.init is None:
                yield f"member {name!r} is not trained in round {number} (steps = 0), and has no init to start from"
            if steps and steps <= member.config.train.freeze:
                yield f"member {name!r} freezes its encoder for all {steps} steps of round {number}: lower train.freeze"
            if steps and steps <= member.config.train.schedule.warmup:
                yield f"member {name!r} warms up for all {steps} steps of round {number}: lower train.schedule.warmup"
            init = (member.init or "").removeprefix("member:")
            if not continues and init != (member.init or "") and init not in now:
                yield f"member {name!r} starts from {init!r}, which round {number} does not train"
            features = (member.features or "").removeprefix("member:")
            if features and features not in now:
                yield f"member {name!r} has features of {features!r}, which round {number} does not train"
        before = set(now)


def _ensemble(recipe: Recipe, members: Sequence[Member]) -> Iterator[str]:
    axes = {axis for config in recipe.member.values() for axis in config.grid}
    if unknown := [axis for axis in recipe.ensemble.group_by if axis not in axes]:
        yield f"ensemble.group_by {unknown[0]!r} is an axis of no member's grid{did_you_mean(unknown[0], axes)}"
    weights = recipe.ensemble.weights
    if weights is None:
        return
    names = {*recipe.member, *(member.name for member in members)}
    if unknown := [name for name in weights if name not in names]:
        yield f"ensemble.weights names {unknown[0]!r}{did_you_mean(unknown[0], names)}"
    if missing := [member.name for member in members if weights.get(member.name, weights.get(member.base, 0)) <= 0]:
        yield f"ensemble.weights has no positive weight for {missing[0]!r}"


def _together(recipe: Recipe, members: Sequence[Member]) -> Iterator[str]:
    """Members that are averaged predict what their ensemble is needed for."""
    for name, group in by_group(recipe, members, members).items():
        common = predicted(recipe, group)
        who = f"ensemble {name!r}" if name else "the ensemble"
        told = "see `predicts` of " + ", ".join(member.name for member in group if member.config.predicts)
        if not common and any(member.config.predicts for member in group):
            yield f"{who} has no domain that all of its members predict ({told}): give some an `ensemble` of their own"
        if lacking := [name for name in recipe.domains("target") if recipe.rounds and name not in common]:
            yield f"{who} labels target {lacking[0]!r} for the next round, but not all of its members predict it ({told})"
        if recipe.submit and recipe.submit.domain in predicted(recipe) and recipe.submit.domain not in common:
            yield f"{who} is packed by [submit], but not all of its members predict {recipe.submit.domain!r} ({told})"


def _submit(recipe: Recipe) -> Iterator[str]:
    if recipe.submit is None:
        return
    domain = recipe.domain[recipe.submit.domain]
    if domain.role == "source" and domain.holdout.by == "none":
        yield f"submit.domain {recipe.submit.domain!r} is never predicted: it is a source that holds nothing out"
    held_out = [name for name in recipe.domains("source") if recipe.domain[name].holdout.by != "none"]
    if recipe.submit.threshold == HELDOUT and not held_out:
        yield "submit.threshold is chosen on held-out patches, but no source holds any out"
    if domain.cut:
        yield f"submit.domain {recipe.submit.domain!r} is cut into squares, but a submission holds whole patches"
    if domain.fit:
        yield f"submit.domain {recipe.submit.domain!r} has patches of varying size (fit), but a submission has masks of one"


def _tasks(recipe: Recipe, members: Sequence[Member]) -> Iterator[str]:
    """Masks are what segmentation alone answers in, and what every task but one needs."""
    tasks = {member.name: _answers(member) for member in members}
    for member in members:
        task = tasks[member.name]
        if recipe.rounds and task != "segment":
            yield f"member {member.name!r} has task {task!r}, which pseudo labels of pixels cannot train: rounds = 0"
        bare = [name for name in recipe.sources(member.config) if not recipe.domain[name].labelled]
        if bare and labels_read(member.config.task) != "none":
            yield f"member {member.name!r} trains with labels, but domain {bare[0]} has labelled = false"
    if recipe.submit and {*tasks.values()} != {"segment"}:
        yield "[submit] packs masks, which members with task = 'segment' alone predict: leave it out"


def _features(recipe: Recipe, members: Sequence[Member]) -> Iterator[str]:
    """Embeddings come from a siamese network of the recipe, and go into a network that has room for them."""
    named = {f"member:{member.name}": member for member in members}
    for member in members:
        room = member.config.model.options.get("embedding", 0) if member.config.model.name == JOINS_EMBEDDINGS else 0
        if member.features is None and not room:
            continue
        first = named.get(member.features or "")
        if first is None or first.config.model.name != GIVES_EMBEDDINGS:
            yield (
                f"member {member.name!r} has features = {member.features!r} and room for {room} channels of them: name a "
                f'member of model {GIVES_EMBEDDINGS!r}, as "member:x", or leave both out'
            )
        elif room != (given := joined_channels(**first.config.model.options)):
            yield (
                f"member {member.name!r} has room for {room} channels of embeddings and {first.name!r} gives {given}: it "
                f"needs model {JOINS_EMBEDDINGS!r} with embedding = {given}"
            )
        # embeddings lie beside the pixels of the cache, and are computed with the statistics of training
        elif first.config.train.scale.factor != 1:
            yield f"member {member.name!r} has features of {first.name!r}, which sees scaled images: scale.factor must be 1"
        elif first.config.adabn or any(domain.adabn for domain in recipe.domain.values()):
            yield f"member {member.name!r} has features of {first.name!r}, which are not adapted: leave adabn out"


def _member(recipe: Recipe, member: Member) -> Iterator[str]:
    config = member.config
    try:
        check_options(config.model.name, config.model.options)
    except RecipeError as error:
        yield str(error)
    answers = _answers(member)
    if config.task.name != answers and config.task.name in ("segment", *ANSWERS.values()):
        yield f"model {config.model.name!r} answers to task {answers!r}, not {config.task.name!r}: set task = {answers!r}"
    if unknown := [name for name in config.source if name not in recipe.domains("source")]:
        yield f"source {unknown[0]!r} is no source domain{did_you_mean(unknown[0], recipe.domains('source'))}"
    if unknown := [name for name in config.predicts if name not in recipe.domain]:
        yield f"predicts {unknown[0]!r}{did_you_mean(unknown[0], recipe.domain)}"
    elif idle := [name for name in config.predicts if name not in predicted(recipe)]:
        yield f"predicts {idle[0]!r}, a source that holds nothing out: leave it out, or give it a holdout"
    others = [name for name in recipe.domain if name not in recipe.domains("source")]
    if config.adabn and not others:
        yield "adabn is for targets and eval domains, and there are none: leave it out"
    if config.init and config.model.options.get("weights", "none") != "none":
        yield f"model.weights are not read where a member starts from init = {config.init!r}: leave one of them out"
    if config.train.mixup and answers != "segment":
        yield f"train.mixup makes soft labels of pixels, which task {answers!r} does not learn from: leave it out"
    if config.train.mixup and config.train.batch < 2:
        yield "train.mixup mixes the samples of a batch with each other: make train.batch 2 or more"
    open_sources = [name for name in recipe.sources(config) if recipe.domain[name].holdout.by == "none"]
    if config.train.evaluate_every and open_sources:
        yield f"train.evaluate_every scores on held-out patches, but domain.{open_sources[0]} has no holdout"
    rows = share_rows(config.train.batch, config.train.target_share)
    if recipe.rounds and min(rows) < config.train.accumulate:
        yield f"rounds >= 1 have {rows[0]} source and {rows[1]} target rows a batch: too few for each accumulated part"
    modes = {recipe.domain[name].normalise or config.normalise for name in recipe.domain}
    if "patch" not in modes and config.patch_blend != type(config).model_fields["patch_blend"].default:
        yield f"patch_blend = {config.patch_blend} has no effect where nothing is normalised by 'patch'"


def _answers(member: Member) -> str:
    """The task that a member's model is for."""
    return ANSWERS.get(member.config.model.name, "segment")
