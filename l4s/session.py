"""From the arguments of a command to open experiments: recipe, data, machine and run directory brought together."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from l4s import log, rundir
from l4s.data.domain import Domain, open_domain
from l4s.data.pictures import is_picture
from l4s.data.stats import merge
from l4s.engine import Engine, start_engine
from l4s.environment import environment
from l4s.errors import RecipeError, RunError
from l4s.experiment import Experiment, open_experiment, refuse_other_predictions
from l4s.files import read_json, write_atomic, write_json
from l4s.fit import optimiser_of
from l4s.groups import by_group
from l4s.load import Member, expand, find_recipe, load_cells, resolved
from l4s.models import build_model
from l4s.models.sizes import sized
from l4s.optim import factor
from l4s.plan import Plan
from l4s.recipe import Recipe, fingerprint
from l4s.rundir import RunDir
from l4s.tasks import Task, build_task


@dataclass(frozen=True)
class Machine:
    """Flags of a machine, which no recipe holds."""

    device: str = "auto"
    precision: str = "auto"
    workers: int = 0
    cache: Path | None = None
    deterministic: bool = False

    @property
    def cache_folder(self) -> Path:
        return self.cache or Path.home() / ".cache" / "l4s"


def open_session(
    recipe: str, overrides: Sequence[str], data: Path, run: Path | None, machine: Machine
) -> Iterator[Experiment]:
    """The experiment of each cell of a recipe, opened one after the other.

    Raises:
        L4SError: anything that is wrong with the recipe is said before data are read.
    """
    root, plans = preview(recipe, overrides, run)
    check_networks([plan for plan in plans if not plan.run.config.is_file()])
    engine = _engine(root, machine)
    for plan in plans:
        opened = open_run(plan.recipe, engine, data, plan.run, machine, find_recipe(recipe))
        if engine.main:  # only now: a run whose data cannot be read leaves nothing behind
            _keep(RunDir(root).environment, engine, data, overrides)
        yield opened


def _keep(file: Path, engine: Engine, data: Path, overrides: Sequence[str]) -> None:
    """Write down where a run was started, once, and on which data and with which overrides it was opened, each time anew."""
    before = read_json(file) if file.is_file() else {}
    kept = before or environment(engine) | {"argv": sys.argv[1:]}
    now = kept | {"data": str(data.absolute()), "set": list(overrides)}
    if now != before:
        write_json(file, now)


def preview(recipe: str, overrides: Sequence[str], run: Path | None) -> tuple[Path, list[Plan]]:
    """The folder of a run, and the plan of each cell of its recipe, checked as far as that needs no data. Writes nothing.

    Raises:
        RecipeError: anything that is wrong with the recipe.
    """
    cells = load_cells(recipe, overrides)
    for cell in cells.values():
        check_builders(cell)
    root = run or Path("runs") / next(iter(cells.values())).name
    return root, [Plan(RunDir(root / name, cell=name), cell, expand(cell)) for name, cell in cells.items()]


def check_builders(recipe: Recipe) -> None:
    """Build each member's task, optimiser and schedule once, so that a wrong name or value is told before data are read.

    Raises:
        RecipeError: a name or an option does not exist, or a value is out of range.
    """
    members = expand(recipe)
    for member in members:
        train, schedule = member.config.train, member.config.train.schedule
        with _named(recipe, member):
            if build_task(member.config).kind == "score" and train.evaluate_every:
                raise RecipeError("train.evaluate_every scores at threshold 0.5, which means nothing to a score")
            optimiser_of(train, nn.ModuleDict({"encoder": nn.Linear(1, 1)}))
            factor(schedule.name, 0, train.steps, schedule.warmup, **schedule.options)
    for group in by_group(recipe, members, members).values():
        first = build_task(group[0].config)
        for member in group[1:]:
            task = build_task(member.config)
            if (task.kind, dict(task.about)) != (first.kind, dict(first.about)):
                raise RecipeError(
                    f"recipe {recipe.name}: members {group[0].name!r} ({_told(first)}) and {member.name!r} ({_told(task)}) cannot "
                    "be averaged: give them different `ensemble`s"
                )


def _told(task: Task) -> str:
    return ", ".join([task.kind, *(f"{key} = {value}" for key, value in task.about.items())])


def check_networks(plans: Sequence[Plan]) -> None:
    """Build each network once, without weights of others: a second stage that cannot be built is known before the first trains.

    Raises:
        RecipeError: a network cannot be built with these bands, this size and these options.
    """
    built = set()
    for plan in plans:
        for member in plan.members:
            model, bands = member.config.model, plan.recipe.bands
            options = model.options | ({"weights": "none"} if "weights" in model.options else {})
            key = fingerprint([model.name, model.size, options, bands.model_dump(mode="json")])
            if key in built:
                continue
            built.add(key)
            with _named(plan.recipe, member):
                build_model(model.name, bands, size=model.size, seed=0, options=options)


def check_sizes(opened: Experiment) -> None:
    """A Swin runs at a size that it was not built for, computes something else there, and says nothing.

    Raises:
        RecipeError: a member's training images have another size than its network is built for.
    """
    for member in opened.members:
        model, scale = member.config.model, member.config.train.scale
        encoder = str(model.options.get("encoder"))
        for domain in opened.source(member):
            if scale.crop:
                side = scale.crop
            elif isinstance(scale.factor, tuple):
                continue  # images of many sizes
            else:
                side = round(max(domain.size) * scale.factor)
            if sized(encoder, side) != sized(encoder, model.size):
                with _named(opened.recipe, member):
                    raise RecipeError(
                        f"model.size = {model.size}, but after train.scale the images of {domain.name} have {side} pixels, and "
                        f"what {encoder} computes depends on it: say model.size = {side}"
                    )


@contextmanager
def _named(recipe: Recipe, member: Member) -> Iterator[None]:
    """Errors of a member's options say which member's."""
    try:
        yield
    except RecipeError as error:
        raise RecipeError(f"recipe {recipe.name}: member.{member.base}: {error}") from error


def open_run(recipe: Recipe, engine: Engine, data: Path, run: RunDir, machine: Machine, source: Path) -> Experiment:
    """Open a recipe's domains, and write what the run is made of into its directory."""
    if run.config.is_file() and (name := read_json(run.config)["name"]) != recipe.name:
        raise RunError(f"{run.root} is a run of recipe {name!r}, not {recipe.name!r}: choose another --run")
    with engine.one_by_one():  # what one process has cached, the others find
        domains = {
            name: open_domain(name, config, recipe.bands, data, machine.cache_folder, log.track)
            for name, config in recipe.domain.items()
        }
    opened = open_experiment(recipe, engine, run, domains)
    check_sizes(opened)
    refuse_other_predictions(opened)
    if engine.main:
        # not sorted: the order of a grid's axes makes the members' names
        write_atomic(run.config, (json.dumps(resolved(recipe), indent=1, allow_nan=False) + "\n").encode())
        write_atomic(run.root / rundir.COPY, source.read_bytes())
        for domain in domains.values():
            write_json(run.stats(domain.name), describe(domain))
    engine.wait()
    return opened


def describe(domain: Domain) -> dict[str, object]:
    """A domain's statistics, for a person and for tools."""
    return {
        "bands": list(domain.bands.names),
        "patches": len(domain),
        "size": list(domain.size),  # the window that whole scenes are cut into
        "train": len(domain.train),
        "heldout": len(domain.heldout),
        "labelled": int(domain.cache.labelled.sum()),
        "mean": domain.stats.mean.tolist(),
        "std": domain.stats.std.tolist(),
        "moments": merge(domain.cache.moments).tolist(),  # what `normalise = "source"` needs of a source later
        "subdomain_sizes": [int((domain.stats.member == k).sum()) for k in range(len(domain.stats.mean))],
        "content": domain.cache.digest,
        "hash": domain.stats.digest,
        **_varying(domain),
    }


def _varying(domain: Domain) -> dict[str, object]:
    """Of pictures, the patches themselves, because their split may have been drawn; of fitted ones, their own sizes."""
    ids = {"ids": [patch.id for patch in domain.patches]} if is_picture(domain.patches[0].image) else {}
    return ids | ({"shapes": domain.shapes.tolist()} if domain.fitting else {})


def _engine(root: Path, machine: Machine) -> Engine:
    """Start the engine; a run keeps the precision it was started with."""
    file = RunDir(root).environment
    precision = machine.precision
    if file.is_file():
        precision = read_json(file)["precision"]
        if machine.precision not in ("auto", precision):
            raise RunError(
                f"{root} was started in {precision}, not {machine.precision}: leave --precision out, or choose another --run"
            )
    engine = start_engine(machine.device, precision, machine.workers, machine.deterministic)
    log.info(
        f"device {engine.device}, {engine.precision}, {engine.world} process(es), {torch.get_num_threads()} thread(s)"
    )
    return engine
