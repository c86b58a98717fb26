"""Does the data keep up with the model? Training steps on batches from the cache and on one resident batch, in turns."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from l4s.data.dataset import Batch, Slice, batches
from l4s.experiment import Experiment
from l4s.fit import Job, optimiser_of, train_step
from l4s.load import Member
from l4s.steps import job_of
from l4s.tasks.segment import At

WARM_UP = 3  # steps of each kind that are not timed


@dataclass(frozen=True)
class Throughput:
    """Patches a second of training on batches from the cache, and on a batch that is already on the device.

    `memory` is the most that tensors took of a GPU's memory, in GiB; None without one.
    """

    member: str
    cache: float
    resident: float
    memory: float | None = None

    @property
    def ratio(self) -> float:
        """How much of the resident batch's speed is reached, at most about 1."""
        return self.cache / self.resident


def bench(x: Experiment, member: Member, steps: int = 20) -> Throughput:
    """Time a member's training step in round 0, in medians over `steps` steps of each kind; nothing is written."""
    if x.engine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    job = job_of(x, member, 0, x.run.member(0, member.name))
    accumulate = job.train.accumulate
    dataset = job.source_and_target(Slice(x.engine.rank, x.engine.world, accumulate))
    items = range((steps + WARM_UP + 1) * accumulate)
    cached = iter(batches(dataset, items, x.engine.workers))
    resident = itertools.cycle([next(cached).to(x.engine.device) for _ in range(accumulate)])
    model = x.engine.distribute(x.engine.place(job.model)).train()
    optimiser = optimiser_of(job.train, job.model)
    turns = [
        [_seconds(x, job, model, optimiser, stream) for stream in (cached, resident)] for _ in range(steps + WARM_UP)
    ]
    slow, fast = (sorted(times)[steps // 2] for times in zip(*turns[WARM_UP:], strict=True))
    memory = torch.cuda.max_memory_allocated() / 2**30 if x.engine.device.type == "cuda" else None
    return Throughput(member.name, job.train.batch / slow, job.train.batch / fast, memory)


def _seconds(
    x: Experiment, job: Job, model: torch.nn.Module, optimiser: torch.optim.Optimizer, stream: Iterator[Batch]
) -> float:
    start = time.perf_counter()
    train_step(x.engine, job, model, optimiser, stream, At(0, job.train.steps, torch.Generator().manual_seed(0)))
    if x.engine.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
