"""From trained weights and a domain to a ProbFile."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from l4s import rundir
from l4s.data.domain import Domain, standardised
from l4s.data.fitting import restore
from l4s.data.patch import cut_of
from l4s.data.probs import CUT, ProbFile, open_probs, write_probs
from l4s.engine import Engine, enough_memory
from l4s.models.norm import domain_rows
from l4s.recipe import Tta
from l4s.tasks import Task
from l4s.tta import average

MEMORY = "lower predict.batch in the recipe (its results are the same), or use --precision bf16"


@dataclass(frozen=True)
class View:
    """A domain as a member sees it.

    `rows` are predicted; `scale` and `shift` (N, C) are the affine map of the member's normalisation; `norm` is the
    place of the running statistics that layers with statistics by domain use. `embeddings` (N, E, H, W) follow the bands
    where the member has those of another.
    """

    domain: Domain
    rows: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    norm: int = 0
    embeddings: np.ndarray | None = None

    def images(self, rows: np.ndarray) -> Tensor:
        """(B, C, H, W) float32 under the member's normalisation; (B, C + E, H, W) with embeddings."""
        return torch.from_numpy(standardised(self.domain, rows, self.scale, self.shift, self.embeddings))


def predict(
    engine: Engine,
    task: Task,
    models: Sequence[nn.Module],
    view: View,
    out: Path,
    *,
    member: str,
    fingerprint: str,
    tta: Tta = "none",
    batch: int,
) -> ProbFile:
    """Write the mean probabilities (or scores) of `models` for the rows of `view`.

    Every process predicts its share of the batches; the first writes the file.

    Args:
        models: several checkpoints of one member are averaged.
        batch: patches at a time.
        fingerprint: names the step that makes this file.

    Returns:
        The finished file, `(N, H, W)` float16 in [0, 1], or `(N,)` where the task answers for whole patches. Where patches
        were fitted to one size it is ragged: each patch at its own size.

    Raises:
        RunError: the machine has not enough memory for a batch.
        DataError: an answer is NaN, or outside [0, 1].
    """
    with domain_rows(torch.tensor([view.norm])):
        mine = [
            (start, _stored(view, start, _probs(engine, task, models, images, tta)))
            for start, images in share(engine, view, batch)
        ]
    parts = sorted(engine.collect(mine), key=lambda part: part[0])
    if engine.main:
        first = parts[0][1]
        uniform = (len(view.rows), *first.shape[1:]) if isinstance(first, np.ndarray) else None
        ids = view.domain.ids(view.rows)
        with write_probs(
            out,
            ids=ids,
            shape=uniform or view.domain.shapes[view.rows].tolist(),
            member=member,
            fingerprint=fingerprint,
            domain=view.domain.name,
            tta=tta,
            kind=task.kind,
            extra={**task.about, **_cut(view.domain)},
        ) as writer:
            for start, values in parts:
                writer.put(start, values)
                rundir.reached("predict.put")
    engine.wait()
    return open_probs(out)


def _cut(domain: Domain) -> dict[str, str]:
    """Which cut of a scene the patches are, where `l4s data chip` made them: ids alone do not say where they lie."""
    found = cut_of(domain.patches[0]).get("fingerprint")
    return {CUT: found} if isinstance(found, str) else {}


def share(engine: Engine, view: View, batch: int) -> Iterator[tuple[int, Tensor]]:
    """This process's share of the rows to predict, in batches: the place of the first, and the images on the device."""
    starts = range(0, len(view.rows), batch)
    for start in starts[engine.rank :: engine.world]:
        images = view.images(view.rows[start : start + batch]).to(engine.device)
        yield start, images.contiguous(memory_format=torch.channels_last)


def _probs(engine: Engine, task: Task, models: Sequence[nn.Module], image: Tensor, tta: Tta) -> np.ndarray:
    with torch.no_grad(), engine.autocast(), enough_memory(MEMORY):
        each = [average(partial(task.probs, model), image, tta) for model in models]
    return np.asarray(torch.stack(each).mean(0).clamp(0, 1).cpu().numpy())


def _stored(view: View, start: int, values: np.ndarray) -> np.ndarray | list[np.ndarray]:
    """Values of the patches from place `start` on as the file holds them, float16, maps at each patch's own size."""
    to = view.domain.fitting
    if to is None or values.ndim == 1:
        return values.astype(np.float16)
    shapes = view.domain.shapes[view.rows[start : start + len(values)]].tolist()
    maps = (restore(np.asarray(value, np.float32), shape, to) for value, shape in zip(values, shapes, strict=True))
    return [np.clip(each, 0, 1).astype(np.float16) for each in maps]
