"""A run directory read back: its recipe, and which files each of its rounds should hold. Opens no data, imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from l4s.errors import RunError, did_you_mean
from l4s.files import read_json
from l4s.groups import by_group, group, predicted, round_of, trained
from l4s.load import Member, expand, parse_recipe, shipped
from l4s.recipe import Recipe, Round, Threshold, Tta
from l4s.rundir import CONFIG, COPY, RunDir, command, started, whole
from l4s.thresholds import HELDOUT
from l4s.traits import AFTERWARDS

V = TypeVar("V")
ROUND_KEYS = {"target_share", "target_weight", "start"}  # of [train]: read in rounds >= 1 only
NOT_LEARNT = {"grid", "needs", "predicts", "ensemble", "adabn"}  # of [member.x]: what training has nothing to do with


@dataclass(frozen=True)
class Plan:
    """What one run (or one cell of a sweep) was asked to make; an open `Experiment` asks it too."""

    run: RunDir
    recipe: Recipe
    members: tuple[Member, ...]

    def round(self, number: int) -> Round:
        """What the recipe says of a round."""
        return round_of(self.recipe, number)

    def trained(self, number: int) -> list[Member]:
        """The members that train in a round."""
        chosen, steps = trained(self.recipe, self.members, number), self.round(number).steps
        return chosen if steps is None else [with_steps(member, steps) for member in chosen]

    def last_round(self) -> int:
        """The round that a run ends with: the recipe's last, or the one before labels that no longer change."""
        stop = self.recipe.pseudo.stop
        for number in range(2, self.recipe.rounds + 1) if stop else ():
            made = [self.run.kept(number, group) for group in self.groups(number)]
            shares = [domain for path in made if path.is_file() for domain in read_json(path).values()]
            if all(path.is_file() for path in made) and all(share["changed"] < stop for share in shares):
                return number - 1
        return self.recipe.rounds

    def predicted(self, *members: Member) -> list[str]:
        """Domains that are predicted by all of these members: targets, eval domains and held-out sources."""
        return predicted(self.recipe, members)

    def tta(self, domain: str) -> tuple[Tta, ...]:
        """The test-time augmentations a domain is predicted under."""
        return self.recipe.domain[domain].tta or self.recipe.predict.tta

    def feature_member(self, member: Member) -> Member | None:
        """The member whose embeddings follow the bands; None where there are none."""
        return next((other for other in self.members if f"member:{other.name}" == member.features), None)

    def group(self, member: Member) -> str:
        """The ensemble a member belongs to; "" where there is one."""
        return group(self.recipe, self.members, member)

    def groups(self, number: int) -> dict[str, list[Member]]:
        """A round's members by ensemble."""
        return self.grouped(self.trained(number))

    def grouped(self, members: Sequence[Member]) -> dict[str, list[Member]]:
        """Members by ensemble."""
        return by_group(self.recipe, self.members, members)

    def weights(self, members: Sequence[Member]) -> dict[str, float] | None:
        """The weights of these members in their ensemble, of a grid each that of its table; None for a plain mean."""
        named = self.recipe.ensemble.weights
        if named is None:
            return None
        return {member.name: named[member.name if member.name in named else member.base] for member in members}

    def changed(self, member: Member, number: int) -> list[str]:
        """Keys of a member that have other values in its folder, where its training was begun, than in the recipe."""
        path = self.run.member(number, member.name) / CONFIG
        if not path.is_file():
            return []
        was, now = read_json(path)["config"], member.config.model_dump(mode="json")
        unread = {*NOT_LEARNT, *(f"task.{key}" for key in AFTERWARDS.get(member.config.task.name, ()))}
        unread |= {f"train.{key}" for key in ROUND_KEYS if not number}
        return [key for key in differing(was, now) if key not in unread]

    def probs(self, folder: Path, *members: Member) -> dict[tuple[str, Tta], Path]:
        """The ProbFile that the folder of a member, or of an ensemble of several, should hold for each domain and view."""
        return {(d, tta): self.run.probs(folder, d, tta) for d in self.predicted(*members) for tta in self.tta(d)}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Dotted keys that two tables, read from JSON, both have with different values."""
    found = []
    for key in one.keys() & other.keys():
        if isinstance(one[key], Mapping) and isinstance(other[key], Mapping):
            found += [f"{key}.{below}" for below in differing(one[key], other[key])]
        elif one[key] != other[key]:
            found.append(key)
    return sorted(found)


def with_steps(member: Member, steps: int) -> Member:
    """A member that trains for another number of steps."""
    train = member.config.train.model_copy(update={"steps": steps})
    return replace(member, config=member.config.model_copy(update={"train": train}))


@dataclass(frozen=True)
class Choice:
    """Which ensemble of a run is meant; None is what the run itself makes obvious."""

    domain: str | None = None
    tta: str | None = None
    round: int | None = None
    group: str | None = None


def read_plan(run: RunDir) -> Plan:
    """The plan of one run.

    Raises:
        RunError: there is no run there.
    """
    recipe = parse_recipe(read_json(run.config), str(run.config))
    return Plan(run, recipe, expand(recipe))


def cells(root: Path) -> dict[str, RunDir]:
    """The cells of a run by name; one called "" where nothing was swept.

    Raises:
        RunError: there is no run there.
    """
    if RunDir(root).config.is_file():
        return {"": RunDir(root)}
    found = {path.parent.name: RunDir(path.parent, path.parent.name) for path in sorted(root.glob("*/config.json"))}
    if not found:
        raise RunError(f"{root} is no run directory: it holds no config.json; give the folder that --run named")
    return found


def data_folder(root: Path) -> Path:
    """The data of the run at `root`, one cell or a whole sweep.

    Raises:
        RunError: there is no run there, or it does not tell.
    """
    cells(root)
    if "data" not in (kept := started(root)):
        raise RunError(f"{root} does not tell which data it was made with: give --data")
    return Path(kept["data"])


def asked(
    recipe: str, overrides: Sequence[str], data: Path | None, run: Path | None
) -> tuple[str, list[str], Path, Path | None]:
    """Recipe, overrides, data and run folder that a command means.

    A run's folder in place of a recipe stands for all of them, as last given; further overrides come after the run's.

    Raises:
        RunError: the folder holds no run, or `run` names another one.
    """
    folder = Path(recipe)
    if recipe in shipped() or not folder.is_dir():
        return recipe, list(overrides), data or Path("data"), run
    first = next(iter(cells(folder).values()))
    root = whole(folder)
    if run is not None and run.resolve() != root.resolve():
        raise RunError(
            f"{root} is a run, which goes on where it lies: leave --run {run} out, or give {first.root / COPY}"
        )
    return str(first.root / COPY), [*started(root).get("set", []), *overrides], data or data_folder(root), root


def one_cell(root: Path) -> RunDir:
    """The run at `root`.

    Raises:
        RunError: there is none, or it is a sweep of several.
    """
    found = cells(root)
    if len(found) > 1 or "" not in found:
        raise RunError(f"{root} holds several runs: name one of {', '.join(str(run.root) for run in found.values())}")
    return found[""]


def find_ensemble(plan: Plan, choice: Choice) -> tuple[int, Path]:
    """The round and the ProbFile of the ensemble that is meant; without a round, the last one that is finished.

    Raises:
        RunError: the choice names nothing, leaves several open, or the file is not made yet.
    """
    domain = _domain(plan, choice.domain)
    tta = choice.tta or plan.recipe.ensemble_tta
    if tta not in plan.tta(domain):
        raise RunError(f"domain {domain} is not predicted under tta {tta!r}, only under {', '.join(plan.tta(domain))}")
    numbers = rounds(plan, choice.round)
    for number in reversed(numbers):
        path = plan.run.probs(plan.run.ensemble(number, find_group(plan, number, choice.group)), domain, tta)
        if path.is_file():
            return number, path
    which = f"round {numbers[-1]}" if choice.round is not None else f"rounds 0 to {numbers[-1]}"
    raise RunError(
        f"{plan.run.root} holds no ensemble of {domain} under {tta} in {which}: run {command(plan.run.root, 'run')} or "
        f"{command(plan.run.root, 'ensemble', '--round', numbers[-1])} first"
    )


def find_group(plan: Plan, number: int, group: str | None) -> str:
    """The ensemble of a round that is meant.

    Raises:
        RunError: there are several, or none of that name.
    """
    known = list(plan.groups(number))
    if group is None and len(known) == 1:
        return known[0]
    if group is None or group not in known:
        what = "keeps several ensembles apart" if group is None else f"has no ensemble group {group!r}"
        raise RunError(f"round {number} of {plan.run.root} {what}: choose one of {', '.join(known)}")
    return group


def known_threshold(plan: Plan, wanted: Threshold | None, number: int, group: str, tta: str) -> Threshold | None:
    """The threshold that is wanted of an ensemble: for "heldout", the number that was chosen on its held-out sources.

    Raises:
        RunError: none was chosen.
    """
    if wanted != HELDOUT:
        return wanted
    path = plan.run.heldout(number, group)
    chosen: float | None = of_view(read_json(path) if path.is_file() else {}, tta)
    if chosen is None:
        raise RunError(
            f"{path} names no threshold for tta {tta}: its sources hold no landslide out, or an older l4s made it, and "
            f"{command(plan.run.root, 'ensemble', '--round', number)} adds it; else give a number"
        )
    return chosen


def of_view(found: Mapping[str, V], tta: str) -> V | None:
    """What was found under a test-time augmentation, or under the only one there is: sources may be predicted under others."""
    only = next(iter(found.values())) if len(found) == 1 else None
    return found.get(tta, only)


def submission_facts(
    plan: Plan, number: int, group: str, *, threshold: float, min_area: int, tta: str | None = None
) -> dict[str, object]:
    """What the card of a submission says of the ensemble it was cut from.

    Local scores are F1 on the held-out source, by domain, as far as `table.json` has them, under the test-time
    augmentation that is submitted, or the only one there is. `local_threshold` is there where the submission is cut at
    another threshold than they are: theirs, or None where they have several; `local_min_area` where it leaves out small
    areas, which they do not. `set` are the overrides of the run.

    Args:
        threshold: of the submission, and its `min_area`.
        tta: of the submission; None for what the recipe ensembles.
    """
    members = [member.name for member in plan.groups(number)[group]]
    facts: dict[str, object] = {"recipe": plan.recipe.name, "run": plan.run.root.resolve().name, "round": number}
    rows = _local_rows(plan, number, group, tta or plan.recipe.ensemble_tta)
    scores = {domain: row["f1"] for domain, row in rows.items()}
    facts |= {"members": members} | ({"local_scores": scores} if scores else {})
    if overrides := started(plan.run.root).get("set"):
        facts["set"] = [_without_paths(text) for text in overrides]
    at = {row["threshold"] for row in rows.values()}
    if at and at != {threshold}:
        facts["local_threshold"] = at.pop() if len(at) == 1 else None
    if rows and min_area:
        facts["local_min_area"] = 0
    return facts


def _without_paths(override: str) -> str:
    """An override `key=value` as a card may tell it: without the folders of one machine."""
    key, _, value = override.partition("=")
    return f"{key}=..." if {"/", "\\"} & {*value} else override


def _local_rows(plan: Plan, number: int, group: str, tta: str) -> dict[str, dict[str, Any]]:
    """The row of `table.json` of an ensemble for each source, under a test-time augmentation or the only one there is."""
    rows = read_json(plan.run.table)["rows"] if plan.run.table.is_file() else []
    place = ("source", "ensemble", plan.run.ensemble(number, group).name, number)
    views: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if (row["role"], row["kind"], row["name"], row["round"]) == place:
            views.setdefault(row["domain"], {})[row["tta"]] = row
    found = {domain: of_view(by_tta, tta) for domain, by_tta in views.items()}
    return {domain: row for domain, row in found.items() if row is not None}


def rounds(plan: Plan, number: int | None) -> Sequence[int]:
    """The rounds that `number` means: that one, or all of the recipe.

    Raises:
        RunError: the recipe has no such round.
    """
    if number is None:
        return range(plan.recipe.rounds + 1)
    if not 0 <= number <= plan.recipe.rounds:
        raise RunError(f"round {number}: the run in {plan.run.root} has rounds 0 to {plan.recipe.rounds}")
    return [number]


def _domain(plan: Plan, name: str | None) -> str:
    known = plan.predicted()
    if name is None and plan.recipe.submit:
        return plan.recipe.submit.domain
    targets = plan.recipe.domains("target")
    if name is None and len(targets) == 1:
        return targets[0]
    if name is None:
        raise RunError(f"{plan.run.root} predicts several domains: name one of {', '.join(known)} (--domain)")
    if name not in known:
        raise RunError(f"{plan.run.root} predicts no domain {name!r}{did_you_mean(name, known)}")
    return name
