"""A recipe opened for work: its domains, its members, the engine, and what each of its steps depends on.

The fingerprint of a step covers the keys that it reads and the fingerprints it builds on, nothing else: adding rounds,
members or domains redoes nothing, and equal steps of other runs are taken over.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from l4s import rundir
from l4s.consistency import OF_A_ROUND
from l4s.data.domain import Domain, affine
from l4s.data.probs import open_probs
from l4s.engine import Engine
from l4s.errors import RecipeError, RunError
from l4s.load import Member, expand
from l4s.member import adapts, norm_row
from l4s.plan import NOT_LEARNT, ROUND_KEYS, Plan
from l4s.recipe import Normalise, Recipe, Tta, fingerprint
from l4s.rundir import RunDir
from l4s.traits import afterwards, labels_read, learnt

ROUND = re.compile("round-[0-9]+")
FORMAT = 1  # raised when a step's meaning changes without a key of the recipe changing
# of [member.x]: what training does not read, or reads only through what it is given
UNREAD = {*NOT_LEARNT, "source", "features", "init", "normalise", "patch_blend"}


@dataclass(frozen=True)
class Experiment:
    """One recipe (one cell of a sweep) with its data open; what needs no data, its `plan` says."""

    plan: Plan
    engine: Engine
    domains: Mapping[str, Domain]
    # fingerprints of a round build on those of the rounds before: without memory each round multiplies the work
    keys: dict[tuple[str, int], str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def recipe(self) -> Recipe:
        return self.plan.recipe

    @property
    def run(self) -> RunDir:
        return self.plan.run

    @property
    def members(self) -> tuple[Member, ...]:
        return self.plan.members

    def source(self, member: Member) -> list[Domain]:
        """The source domains that a member trains on."""
        return [self.domains[name] for name in self.recipe.sources(member.config)]

    def target(self) -> list[Domain]:
        return [self.domains[name] for name in self.recipe.domains("target")]

    def predicted(self, *members: Member) -> list[Domain]:
        """Domains that are predicted by all of these members: targets, eval domains and held-out sources."""
        names = self.plan.predicted(*members)
        return [domain for domain in self.domains.values() if len(domain.predicted) and domain.name in names]

    def trained(self, number: int) -> list[Member]:
        """The members that train in a round.

        Raises:
            RunError: the recipe has no such round.
        """
        if not 0 <= number <= self.recipe.rounds:
            raise RunError(f"round {number}: recipe {self.recipe.name} has rounds 0 to {self.recipe.rounds}")
        return self.plan.trained(number)

    def affine(self, domain: Domain, member: Member) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift, (N, C) float32 each, of a domain's cached values as a member sees them."""
        return affine(domain, self.mode(domain, member), self.source(member), member.config.patch_blend)

    def mode(self, domain: Domain, member: Member) -> Normalise:
        """The normalisation of a domain: its own word, else the member's."""
        return domain.config.normalise or member.config.normalise

    def describe(self, domain: Domain, member: Member, rows: np.ndarray) -> dict[str, Any]:
        """What a step depends on when it reads these rows of a domain through a member's normalisation."""
        arrays = (rows, *self.affine(domain, member))
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()[:16]
        # masks of targets and eval domains only score: whether they are there makes no step another one
        content = domain.cache.digest if domain.config.role == "source" else domain.cache.images_digest
        return {"content": content, "rows_and_normalisation": digest}

    def fit_key(self, member: Member, number: int) -> str:
        """Fingerprint of training a member in a round."""
        place = (member.name, number)
        if place not in self.keys:
            self.keys[place] = self._fit_key(member, number)
        return self.keys[place]

    def _fit_key(self, member: Member, number: int) -> str:
        # keys at their defaults are left out, so that a key added later does not redo what was made without it
        read = member.config.model_copy(update={"task": learnt(member.config.task)})
        config = read.model_dump(mode="json", exclude=UNREAD, exclude_defaults=True)
        if number == 0 and "train" in config:
            config["train"] = {key: value for key, value in config["train"].items() if key not in ROUND_KEYS}
        reads = [self.describe(domain, member, domain.train) for domain in self.source(member)]
        if member.config.train.keep:
            reads += [self.describe(domain, member, domain.heldout) for domain in self.source(member)]
        if number:
            reads += [self.describe(domain, member, domain.train) for domain in self.target()]
        return fingerprint(
            {
                "step": "fit",
                "format": FORMAT,
                "member": config,
                "bands": self.recipe.bands.model_dump(mode="json"),
                "reads": reads,
                "labels": [self.pseudo_key(domain, number, self.plan.group(member)) for domain in self.target()]
                if number
                else [],
                "init": [_content(path) for path in self.initial(member, number)],
            }
            | self._pretrained(member)
            | self._embeddings(member, number, [*self.source(member), *(self.target() if number else ())])
        )

    def _pretrained(self, member: Member) -> dict[str, str]:
        """The content of a file of pretrained weights that the model is built with; nothing where there is none."""
        path = Path(str(member.config.model.options.get("weights", "")))
        return {"weights": _content(path)} if path.is_file() else {}

    def _embeddings(self, member: Member, number: int, domains: Sequence[Domain]) -> dict[str, list[str]]:
        """What a step depends on that reads the embeddings of another member; nothing where there are none."""
        first = self.plan.feature_member(member)
        return {"features": [self.embed_key(first, number, domain) for domain in domains]} if first else {}

    def embed_key(self, member: Member, number: int, domain: Domain) -> str:
        """Fingerprint of a trained member's embeddings of all patches of a domain."""
        reads = self.describe(domain, member, np.arange(len(domain)))
        norm = norm_row(self.recipe, member, number, domain.name) if member.config.norm == "domain" else 0
        return fingerprint({"step": "embed", "fit": self.fit_key(member, number), "reads": reads, "norm": norm})

    def initial(self, member: Member, number: int) -> list[Path]:
        """The file of weights that a member starts from; empty for its builder's own."""
        if number and member.config.train.start == "continue":
            return weights(self.run.member(number - 1, member.name))[:1]
        if member.init is None:
            return []
        if member.init.startswith("member:"):
            return weights(self.run.member(number, member.init.removeprefix("member:")))[:1]
        if member.init.startswith("run:"):
            folder = self.run.runs / member.init.removeprefix("run:")
            if not ROUND.fullmatch(folder.parent.name) or OF_A_ROUND.fullmatch(folder.name):
                raise RecipeError(
                    f"member.{member.base}.init = {member.init!r} is no member of a run: name one as run:NAME/round-0/MEMBER"
                )
            return weights(folder)[:1]
        path = Path(member.init)
        if not path.is_file():
            raise RunError(f"member.{member.base}.init: there is no file {path}")
        return [path]

    def predict_key(self, member: Member, number: int, domain: Domain, tta: Tta) -> str:
        """Fingerprint of predicting a domain with a trained member."""
        reads = self.describe(domain, member, domain.predicted)
        about: dict[str, object] = {"step": "predict", "fit": self.fit_key(member, number), "reads": reads, "tta": tta}
        if later := afterwards(member.config.task):
            about["task"] = later
        if member.config.norm == "domain":
            about["norm"] = norm_row(self.recipe, member, number, domain.name)
        if adapts(member, domain.config):
            about["adabn"] = self.recipe.predict.batch  # each batch passes normalised by itself
        return fingerprint(about | self._embeddings(member, number, [domain]))

    def ensemble_key(self, members: Sequence[Member], number: int, domain: Domain, tta: Tta) -> str:
        """Fingerprint of averaging members' predictions of a domain."""
        inputs = [self.predict_key(member, number, domain, tta) for member in members]
        return fingerprint({"step": "ensemble", "inputs": inputs, "weights": self.plan.weights(members)})

    def labellers(self, number: int, group: str) -> list[Member]:
        """Members of round `number` - 1 whose ensemble labels the targets for round `number`.

        Raises:
            RecipeError: there are none.
        """
        names = self.plan.round(number).labels_from
        trained = [member for member in self.trained(number - 1) if not names or member.named(names)]
        if found := [member for member in trained if self.plan.group(member) == group]:
            return found
        what = f"round {number}, ensemble {group!r}" if group else f"round {number}"
        raise RecipeError(
            f"{what}: no member of round {number - 1} would label its targets; change train or labels_from"
        )

    def pseudo_key(self, domain: Domain, number: int, group: str) -> str:
        """Fingerprint of the pseudo labels that a round trains on."""
        labels = self.ensemble_key(self.labellers(number, group), number - 1, domain, self.recipe.ensemble_tta)
        thresholds = self.recipe.pseudo.model_dump(mode="json", exclude={"stop"})
        return fingerprint({"step": "pseudo", "probs": labels, "pseudo": thresholds})


def open_experiment(recipe: Recipe, engine: Engine, run: RunDir, domains: Mapping[str, Domain]) -> Experiment:
    """Bind a recipe to its data and its run directory.

    Raises:
        RecipeError: a round has nobody to label its targets, or a member asks for more patches than there are, or for
            pixels of patches that are labelled as a whole.
    """
    x = Experiment(Plan(run, recipe, expand(recipe)), engine, domains)
    for member in x.members:
        _refuse_patch_labels(member, x.source(member))
        _refuse_large_subset(member, x.source(member))
    for number in range(1, recipe.rounds + 1):
        for group in x.plan.grouped(x.trained(number)):
            x.labellers(number, group)
    _refuse_other_settings(x)
    return x


def _begun(x: Experiment) -> Iterator[tuple[Member, int, Path, str]]:
    """The trainings that a run has begun, with their folders and the fingerprints that they should have."""
    for number in range(x.recipe.rounds + 1):
        for member in x.trained(number):
            folder = x.run.member(number, member.name)
            if not rundir.begun(folder):
                continue
            try:
                yield member, number, folder, x.fit_key(member, number)
            except RunError:  # the weights that it starts from are to be made again
                continue


def _refuse_other_settings(x: Experiment) -> None:
    """A run describes what is in it: it is not reopened with settings that some of its members were not trained with."""
    for member, number, folder, key in _begun(x):
        try:
            rundir.is_done(folder, key)
            rundir.refuse_other(folder, key)
        except RunError as error:
            keys = x.plan.changed(member, number)
            told = f"other values of {', '.join(keys)}" if keys else "other data or labels, or builds on others"
            raise RunError(f"{error} (it has {told})") from error


def refuse_other_predictions(x: Experiment) -> None:
    """A run is not gone on with under settings that some of its predictions were not made with.

    Raises:
        RunError: these are others.
    """
    for member, number, folder, _ in _begun(x):
        for domain in x.predicted(member):
            for tta in x.plan.tta(domain.name):
                path = x.run.probs(folder, domain.name, tta)
                if path.is_file() and open_probs(path).fingerprint != x.predict_key(member, number, domain, tta):
                    raise RunError(f"{path} was made with other settings or inputs: delete it, or choose another --run")


def _refuse_patch_labels(member: Member, source: Sequence[Domain]) -> None:
    if labels_read(member.config.task) != "pixels":
        return
    if named := [domain.name for domain in source if domain.by_patch]:
        raise RecipeError(
            f"member.{member.base} has task {member.config.task.name!r}, which learns from pixels, but in domain {named[0]} "
            "whole patches are labelled (labels.csv): give it masks, or leave it to task = 'classify'"
        )


def _refuse_large_subset(member: Member, source: Sequence[Domain]) -> None:
    count, there = member.config.train.subset, sum(len(domain.train) for domain in source)
    if count and count > there:
        raise RecipeError(
            f"member {member.name!r} has train.subset = {count}, but its sources have {there} patches to train on: ask for fewer"
        )


def weights(folder: Path) -> list[Path]:
    """The files of weights of a finished member.

    Raises:
        RunError: its training is not finished.
    """
    if not rundir.finished(folder):
        number = folder.parent.name.removeprefix("round-")
        raise RunError(
            f"{folder} holds no finished training: run "
            f"{rundir.command(folder.parents[1], 'train', '--round', number, '--member', folder.name)} first"
        )
    return [folder / name for name in rundir.facts_of(folder)["weights"]]


def _content(path: Path) -> str:
    """The fingerprint of the step that made a file of weights; the file's own digest where no step did."""
    if rundir.finished(path.parent):
        return f"{rundir.facts_of(path.parent)['fingerprint']}/{path.name}"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
