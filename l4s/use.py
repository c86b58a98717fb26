"""What a finished run says of its use elsewhere: which round, how images are read and standardised, in what precision."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

import numpy as np

from l4s import log, rundir
from l4s.data.domain import Domain, affine, open_domain
from l4s.data.folders import picture_layout
from l4s.data.pictures import IMAGES
from l4s.errors import RecipeError, RunError, did_you_mean
from l4s.files import read_json
from l4s.load import Member
from l4s.plan import Plan, find_group, rounds
from l4s.recipe import DomainConfig, Normalise, fingerprint
from l4s.session import Machine
from l4s.traits import afterwards


def finished_round(plan: Plan, round_: int | None, group: str | None) -> int:
    """The last round (or the one named) in which every member of the ensemble has been trained.

    Raises:
        RunError: there is none.
    """
    missing: list[str] = []
    for number in reversed(rounds(plan, round_)):
        members = plan.groups(number)[find_group(plan, number, group)]
        missing = [m.name for m in members if not rundir.finished(plan.run.member(number, m.name))]
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


def like_whom(plan: Plan, members: Sequence[Member], name: str | None) -> DomainConfig:
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


def open_images(plan: Plan, like: DomainConfig, images: Path, split: str, machine: Machine, as_it: bool) -> Domain:
    """The new images as a domain, read like one of the run's.

    Args:
        as_it: standardise and adapt them like that domain, too, not as the members say.
    """
    reading = {key: getattr(like, key) for key in READING}
    if as_it:
        reading |= {"normalise": like.normalise, "adabn": False if like.role == "source" else like.adabn}
    if like.split_seed and images.is_dir() and picture_layout(images) == "bijie":
        # of a data set whose splits are drawn, the test patches are those that the run did not train on
        reading["layout"] = "bijie"
    else:
        del reading["split_seed"]
    if like.subdomains.by == "region":
        del reading["subdomains"]  # regions are ids of the run's own data
    config = DomainConfig(role="eval", split=split, **reading)
    if (target := by_subdomains(plan)) and config.subdomains.by == "none":
        log.warn(
            f"the run standardises {target} by sub-domains; the new images are one domain: --like {target} "
            "finds sub-domains in them as well"
        )
    folder = (images / split).resolve()
    name = folder.parent.name if folder.name in IMAGES else folder.name
    return open_domain(name, config, plan.recipe.bands, images, machine.cache_folder, log.track)


def by_subdomains(plan: Plan) -> str | None:
    """A target that the run standardises by sub-domains."""
    targets = plan.recipe.domains("target")
    return next((name for name in targets if plan.recipe.domain[name].subdomains.by != "none"), None)


def affine_of(
    plan: Plan, domain: Domain, member: Member, normalise: str | None, like: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift, (N, C) each, of the new images under the normalisation asked for, or that of `like`, or a member's."""
    own = domain.config.normalise or member.config.normalise
    mode = own if normalise is None and like is not None else learnt_mode(plan, member, normalise)
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
    cache = replace(like.cache, moments=stored_moments(plan, name)[:, None])
    return replace(like, name=name, config=plan.recipe.domain[name], cache=cache)


def stored_moments(plan: Plan, name: str) -> np.ndarray:
    """Count, mean and variance per band of a source of the run, (3, C) float64: those in `stats/<name>.json`.

    Raises:
        RunError: an older l4s wrote none.
    """
    path = plan.run.stats(name)
    stored = read_json(path)
    if "moments" not in stored:
        raise RunError(
            f"{path} holds no moments of the source: an older l4s wrote it; run {rundir.command(plan.run.root, 'run')} again, "
            "which rewrites it"
        )
    return np.array(stored["moments"], np.float64)


def trainings(plan: Plan, number: int, members: Sequence[Member]) -> dict[str, str]:
    """What each member predicts by: the fingerprint of its finished training in a round, with what only prediction reads."""
    found = {}
    for member in members:
        trained: str = rundir.facts_of(plan.run.member(number, member.name))["fingerprint"]
        later = afterwards(member.config.task)
        found[member.name] = fingerprint({"fit": trained, "task": later}) if later else trained
    return found


def precision(plan: Plan, machine: Machine) -> str:
    """What was asked for, else what the run was trained in."""
    if machine.precision != "auto":
        return machine.precision
    return str(rundir.started(plan.run.root).get("precision", "auto"))


def known(what: str, value: str, words: Sequence[str]) -> str:
    """A word that is one of these.

    Raises:
        RecipeError: it is not.
    """
    if value not in words:
        raise RecipeError(f"{what} is {value!r}{did_you_mean(value, words)}")
    return value
