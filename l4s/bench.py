"""Does the data keep up with the model? The same training step on batches from the cache and on one resident batch."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from l4s.data.dataset import Batch, Part, Slice, Steps, batches, mask_labels
from l4s.engine import Engine
from l4s.experiment import Experiment
from l4s.load import Member
from l4s.models import build_model
from l4s.optim import build_optimizer
from l4s.tasks import TASKS
from l4s.tasks.segment import At


@dataclass(frozen=True)
class Throughput:
    """Patches a second of training from the cache and on a resident batch, medians over steps timed in turns."""

    cache: float
    resident: float

    @property
    def ratio(self) -> float:
        return self.cache / self.resident


def bench(x: Experiment, member: Member, steps: int = 20, warmup: int = 3) -> Throughput:
    """Time training steps of a member, taking batches from the cache and a resident one in turns.

    Args:
        steps: timed steps of each kind.
        warmup: steps before them.
    """
    train, engine = member.config.train, x.engine
    parts = [
        Part(domain, number, domain.train, *x.affine(domain, member), mask_labels(domain))
        for number, domain in enumerate(x.source())
    ]
    dataset = Steps(parts, [], train, member.config.seed, Slice(engine.rank, engine.world))
    stream = iter(batches(dataset, range(steps + warmup + 1), engine.workers))
    step = _stepper(x, member)
    resident = next(stream).to(engine.device)
    seconds: dict[str, list[float]] = {"cache": [], "resident": []}
    for _ in range(steps + warmup):
        for kind, source in (("cache", stream), ("resident", iter([resident]))):
            seconds[kind].append(_timed(engine, step, source))
    cache, kept = (sorted(times[warmup:])[steps // 2] for times in (seconds["cache"], seconds["resident"]))
    return Throughput(train.batch / cache, train.batch / kept)


def _stepper(x: Experiment, member: Member) -> "Step":
    model, optimiser = member.config.model, member.config.train.optimiser
    options = {**model.options, **({"weights": "none"} if "weights" in model.options else {})}
    net = build_model(model.name, x.recipe.bands, size=model.size, seed=member.config.seed, options=options)
    net = x.engine.place(net).train()
    optim = build_optimizer(optimiser.name, net.named_parameters(), lr=optimiser.lr, weight_decay=optimiser.weight_decay)
    task = TASKS[member.config.task](member.config.train)
    return Step(x.engine, task, net, optim)


@dataclass(frozen=True)
class Step:
    """One optimiser step on a batch."""

    engine: Engine
    task: object
    model: torch.nn.Module
    optimiser: torch.optim.Optimizer

    def __call__(self, batch: Batch) -> None:
        at = At(0, 1, torch.Generator().manual_seed(0))
        with self.engine.autocast():
            loss = self.task.loss(self.model, batch, at)["loss"]  # type: ignore[attr-defined]
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)


def _timed(engine: Engine, step: Step, source: Iterator[Batch]) -> float:
    start = time.perf_counter()
    step(next(source).to(engine.device))
    if engine.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
