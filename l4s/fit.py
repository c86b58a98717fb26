"""Training: one explicit loop, the same for every method."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from l4s import log, rundir
from l4s.data.dataset import Batch, Slice, Steps, batches
from l4s.engine import Engine, enough_memory
from l4s.errors import RunError
from l4s.files import link
from l4s.interval import Interval, trim_metrics
from l4s.models.norm import settle_bn
from l4s.optim import build_optimizer, encoder_parameters, factor
from l4s.recipe import Judge, Train
from l4s.state import Progress, load_state, save_state, save_weights
from l4s.tasks import Task
from l4s.tasks.segment import At

LOG_EVERY = 20  # steps between lines of metrics.jsonl, and looks at whether the loss is finite
SAVE_SECONDS = 60.0  # between saved states, at the next line of metrics
EARLIER_STATE = "last.safetensors"
FEW_ROWS = 4  # of a kind in a process, below which BatchNorm's statistics of a batch mean little
MEMORY = "enlarge train.accumulate (the results are nearly the same), use --precision bf16, or lower train.batch"


@dataclass(frozen=True)
class Job:
    """What `fit` trains, and where.

    `evaluate(model, step)` gives the scores on the held-out source by name, from a file: F1, and what `train.keep_by` and
    `train.stop_by` name.
    """

    name: str
    task: Task
    model: nn.Module
    source_and_target: Callable[[Slice], Steps]
    train: Train
    seed: int
    folder: Path
    evaluate: Callable[[nn.Module, int], Mapping[str, float]]


@dataclass(frozen=True)
class Training:
    """A job at work: what was made of it, and where it stands.

    `core` is the network on the device, `model` the same as processes share it, `average` the EMA of its weights.
    """

    engine: Engine
    job: Job
    steps: Steps
    core: nn.Module
    model: nn.Module
    optimiser: torch.optim.Optimizer
    average: ModelEmaV3 | None
    progress: Progress

    @property
    def judged(self) -> nn.Module:
        """The network that is scored and kept."""
        return self.average.module if self.average else self.core


def fit(engine: Engine, job: Job) -> list[Path]:
    """Train a member to its last step, from where an earlier run of the same command left it.

    Returns:
        The files of weights: the last ones, or the best `keep` by a score on the held-out source. A network without
        parameters has an empty one, and takes no step.

    Raises:
        RunError: the loss is no longer finite, or a batch cannot be cut for these processes.
    """
    if not any(True for _ in job.model.parameters()):
        return _untrained(engine, job)
    work, train = _begin(engine, job), job.train
    items = range(work.progress.step * train.accumulate, train.steps * train.accumulate)
    stream = iter(batches(work.steps, items, engine.workers))
    interval = Interval(job.name, train.batch, job.folder / rundir.METRICS if engine.main else None)
    last_save = time.monotonic()

    with log.live(job.name, train.steps) as show:
        while work.progress.step < train.steps and not _stale(work.progress, train):
            with enough_memory(MEMORY):
                interval.add(_advance(work, stream))
            if _is_told(train, work.progress.step):
                show(work.progress.step, _tell(work, interval))
            if _may_save(train, work.progress.step) and time.monotonic() - last_save >= SAVE_SECONDS:
                _save(work)
                last_save = time.monotonic()
    if train.steps and not _is_settled(work.progress):  # a round without steps takes the weights as they are
        _settle(work)
    return _finish(engine, job, work.judged, work.progress)


def _begin(engine: Engine, job: Job) -> Training:
    """Everything in its place, as the last saved state left it."""
    train = job.train
    steps = job.source_and_target(Slice(engine.rank, engine.world, train.accumulate))
    _refuse_uneven(job, steps, engine.world)
    core = engine.place(job.model)
    average = _average(core, train.ema) if train.ema else None
    optimiser = optimiser_of(train, core)
    progress = load_state(job.folder / EARLIER_STATE, core, optimiser, average)
    if (first := engine.agree(progress.step)) != progress.step:
        raise RunError(
            f"{job.name}: step {progress.step} was saved last as this process sees it, but {first} was: start again"
        )
    if engine.main:
        trim_metrics(job.folder / rundir.METRICS, progress.step)
    return Training(engine, job, steps, core, engine.distribute(core), optimiser, average, progress)


def _average(core: nn.Module, decay: float) -> ModelEmaV3:
    """An EMA that decays by min(1 - 1 / step, decay): the plain mean of all steps while these are few."""
    return ModelEmaV3(core, decay, use_warmup=True, warmup_gamma=1.0, warmup_power=1.0)


def _advance(work: Training, stream: Iterator[Batch]) -> dict[str, Tensor]:
    """Take one step; returns the terms of its loss, detached, on the device."""
    job, progress = work.job, work.progress
    work.model.train()
    at = At(
        progress.step, job.train.steps, torch.Generator().manual_seed(_mix(job.seed, progress.step, work.engine.rank))
    )
    terms = train_step(work.engine, job, work.model, work.optimiser, stream, at)
    progress.step += 1
    job.task.after_step(work.core, progress.step)
    if work.average is not None:
        work.average.update(work.core, step=progress.step)
    rundir.reached("fit.step")
    return terms


def _is_judged(train: Train, step: int) -> bool:
    """Is the held-out source scored after this step?"""
    return train.evaluate_every is not None and (step == train.steps or step % train.evaluate_every == 0)


def _is_told(train: Train, step: int) -> bool:
    """Has this step a line in `metrics.jsonl`?"""
    return step % LOG_EVERY == 0 or step == train.steps or _is_judged(train, step)


def _may_save(train: Train, step: int) -> bool:
    """May training go on from this step? Not from the last one, after which there is nothing to do."""
    return step % LOG_EVERY == 0 and step < train.steps


def _is_settled(progress: Progress) -> bool:
    """Was the network judged as it is now?"""
    return bool(progress.evaluations) and progress.evaluations[-1][0] == progress.step


def _tell(work: Training, interval: Interval) -> str:
    """Score the held-out source where that is due, and write the step's line; returns its short form for the display.

    In this order: a loss that is not finite is told before anything is scored, and the line holds the step's scores.

    Raises:
        RunError: the loss is not finite.
    """
    line = interval.close(work.progress.step)
    if _is_judged(work.job.train, work.progress.step):
        _settle(work)
        _evaluate(work)
    return interval.write(line, work.progress)


def _save(work: Training) -> None:
    """Write the state to go on from, then drop what it does not need."""
    if work.engine.main:
        save_state(work.job.folder / EARLIER_STATE, work.progress, work.core, work.optimiser, work.average)
        _prune(work.job, work.progress)
        rundir.reached("fit.saved")


def optimiser_of(train: Train, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a recipe for a model."""
    return build_optimizer(
        train.optimiser.name,
        model.named_parameters(),
        lr=train.optimiser.lr,
        weight_decay=train.optimiser.weight_decay,
        encoder_lr_factor=train.optimiser.encoder_lr_factor,
        decay_all=train.optimiser.decay_all,
        **train.optimiser.options,
    )


def train_step(
    engine: Engine,
    job: Job,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    stream: Iterator[Batch],
    at: At,
) -> dict[str, Tensor]:
    """One optimiser step over the accumulated slices of a batch, taken from `stream`.

    Returns:
        The terms of the loss, detached, on the device.
    """
    train = job.train
    _set_rate(optimiser, train, at.step)
    # dropout draws from torch's own generator: seeded by the step, a resumed run draws the same
    torch.manual_seed(_mix(job.seed, at.step, engine.rank))
    total: dict[str, Tensor] = {}
    for micro in range(train.accumulate):
        batch = next(stream).to(engine.device)
        with engine.silent(model, quiet=micro + 1 < train.accumulate):
            with engine.autocast(), _enough_values(job.name):
                terms = job.task.loss(model, batch, at)
            torch.autograd.backward(terms["loss"] / train.accumulate)
        total = {k: v.detach() / train.accumulate + total.get(k, 0.0) for k, v in terms.items()}
    if at.step < train.freeze:
        for parameter in encoder_parameters(model.named_parameters()):
            parameter.grad = None  # the optimiser then passes it by
    if train.clip:
        nn.utils.clip_grad_norm_(model.parameters(), train.clip)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return total


@contextmanager
def _enough_values(name: str) -> Iterator[None]:
    """Torch's refusal of a batch of which BatchNorm sees one value a channel, as of one pooled patch."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise RunError(
            f"{name}: a batch holds too little for BatchNorm ({error}): enlarge train.batch, lower train.accumulate"
        ) from error


def _set_rate(optimiser: torch.optim.Optimizer, train: Train, step: int) -> None:
    rate = factor(train.schedule.name, step, train.steps, train.schedule.warmup, **train.schedule.options)
    for group in optimiser.param_groups:
        group["lr"] = group["initial_lr"] * rate


def _settle(work: Training) -> None:
    """Compute BatchNorm's running statistics anew, from rows as they are predicted: without noise of colour."""
    engine, job, train = work.engine, work.job, work.job.train
    if not train.precise_bn:
        return
    first = train.steps * train.accumulate  # rows drawn as after the last step
    items = range(first, first + train.precise_bn * train.accumulate)
    rows = batches(work.steps.turned_only(train), items, engine.workers)
    with engine.autocast():
        moved = (batch.to(engine.device) for batch in rows)
        settle_bn(work.judged, ((batch.image, batch.domain) for batch in moved), job.task.probs, engine.add_up)


def _evaluate(work: Training) -> None:
    """Score the held-out source, and keep the weights while they are among the best."""
    engine, job, model, progress = work.engine, work.job, work.judged, work.progress
    engine.share_buffers(model)
    scores = engine.agree(dict(job.evaluate(model.eval(), progress.step)))  # on a network's disk files may come late
    progress.evaluations.append((progress.step, scores))
    if engine.main and progress.step in _best(progress, job.train):
        save_weights(_kept(job, progress.step), model)


def _prune(job: Job, progress: Progress) -> None:
    """Drop weights that are no longer among the best; only once a state is saved that does not need them either."""
    best = {_kept(job, step) for step in _best(progress, job.train)}
    for path in job.folder.glob("kept-*.safetensors"):
        if path not in best:
            path.unlink()


def _kept(job: Job, step: int) -> Path:
    return job.folder / f"kept-{step}.safetensors"


def _best(progress: Progress, train: Train) -> list[int]:
    """Steps of the best `keep` evaluations, the best first."""
    return _ranked(progress, train.keep_by)[: train.keep]


def _ranked(progress: Progress, judge: Judge) -> list[int]:
    """Steps of the evaluations, the best first; the earlier of equals. Of losses the lowest is the best."""
    sign = 1 if judge == "loss" else -1
    return [step for step, _ in sorted(progress.evaluations, key=lambda entry: (sign * entry[1][judge], entry[0]))]


def _stale(progress: Progress, train: Train) -> bool:
    """Has the score that stops training not become better for `patience` evaluations?"""
    if not train.patience or not progress.evaluations:
        return False
    steps = [step for step, _ in progress.evaluations]
    best = steps.index(_ranked(progress, train.stop_by)[0])
    return len(steps) - 1 - best >= train.patience


def _finish(engine: Engine, job: Job, model: nn.Module, progress: Progress) -> list[Path]:
    """Give the chosen weights their final names."""
    best = _best(progress, job.train)
    names = ["weights.safetensors"] if len(best) < 2 else [f"weights-{i}.safetensors" for i in range(1, len(best) + 1)]
    if engine.main:
        if best:
            for step, name in zip(best, names, strict=True):
                link(_kept(job, step), job.folder / name)
        else:
            save_weights(job.folder / names[0], model)
    engine.wait()
    return [job.folder / name for name in names]


def _untrained(engine: Engine, job: Job) -> list[Path]:
    path = job.folder / "weights.safetensors"
    if engine.main:
        save_weights(path, job.model)
    engine.wait()
    return [path]


def clean(folder: Path) -> None:
    """Drop what only an unfinished training needs; called once its `done.json` is written."""
    for pattern in ("kept-*.safetensors", EARLIER_STATE, "*.part"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def _refuse_uneven(job: Job, steps: Steps, world: int) -> None:
    """Every process and accumulated part must get equally many rows, and some of each kind: else weights drift."""
    parts = world * job.train.accumulate
    if job.train.batch % parts or any(0 < count < parts for count in steps.counts):
        source, target = steps.counts
        raise RunError(
            f"{job.name}: a batch of {source} source and {target} target rows does not fit {world} processes x "
            f"accumulate {job.train.accumulate}: choose another number of processes, or change train.batch"
        )
    least = min(count for count in steps.counts if count) // parts
    if parts > 1 and 0 < least < FEW_ROWS:
        log.warn(
            f"{job.name}: BatchNorm and the losses see {least} row(s) of a kind at a time, for each process and accumulated "
            "part by itself: enlarge train.batch, or take fewer of them"
        )


def _mix(*parts: int) -> int:
    """One 63-bit seed out of several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
