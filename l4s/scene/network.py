"""What a run's members say of a batch of windows: the mean of their probabilities, in batches that fit into memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from l4s import log, rundir
from l4s.engine import Engine, is_out_of_memory
from l4s.errors import RunError
from l4s.models.norm import domain_rows
from l4s.recipe import Tta
from l4s.scene.windows import Layout, Strip
from l4s.tasks import Task
from l4s.tta import average


@dataclass(frozen=True)
class Voice:
    """One member as scenes ask it.

    `models` are averaged. `norm` is the row of running statistics that layers with statistics by domain use. `share` is
    the member's weight among all; these add up to one.
    """

    task: Task
    models: Sequence[nn.Module]
    norm: int
    share: float

    def probs(self, image: Tensor, tta: Tta) -> Tensor:
        """(B, H, W) or (B,) float32 in [0, 1] of images (B, C, H, W), standardised."""
        with domain_rows(torch.tensor([self.norm])):
            each = [average(partial(self.task.probs, model), image, tta) for model in self.models]
        return torch.stack(each).mean(0).float()


class Network:
    """The voices together. `batch` windows are asked about at a time; out of memory, half of them from then on."""

    def __init__(
        self,
        engine: Engine,
        voices: Sequence[Voice],
        affines: Sequence[tuple[np.ndarray, np.ndarray]],
        tta: Tta,
        batch: int,
    ) -> None:
        """Each voice standardises by its mean and standard deviation, (C,) each."""
        self.engine, self.voices, self.tta, self.batch = engine, voices, tta, batch
        self.affines = [(self._constant(mean), self._constant(1 / std)) for mean, std in affines]

    def answers(self, layout: Layout, strip: Strip, places: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """The columns `places` of a row of windows: (place, (size, size) or () float32 in [0, 1]) of each.

        Answers are fetched one batch late, so that a GPU computes while the next batch is cut.
        """
        waiting: tuple[Sequence[int], Tensor] | None = None
        every = self.batch
        for start in range(0, len(places), every):
            now = places[start : start + every]
            asked = now, self(*strip.cut([layout.columns[place] for place in now], layout.size))
            rundir.reached("scene.batch")
            if waiting:
                yield from _fetched(*waiting)
            waiting = asked
        if waiting:
            yield from _fetched(*waiting)

    def __call__(self, images: np.ndarray, valid: np.ndarray) -> Tensor:
        """Mean probability of windows, (B, size, size) or (B,) float32 in [0, 1] on the device.

        Args:
            images: (B, C, size, size) float32 in file units.
            valid: (B, size, size) bool; what is not valid is put at the mean, as in patches.

        Raises:
            RunError: not even one window fits into memory.
        """
        said: list[Tensor] = []
        done = 0
        while done < len(images):
            these = slice(done, done + self.batch)
            answer = self._if_it_fits(images[these], valid[these])
            if answer is None:
                self._halve(len(images[these]), images.shape[-1])
            else:
                said.append(answer)
                done += len(answer)
        return torch.cat(said) if len(said) > 1 else said[0]

    def _if_it_fits(self, images: np.ndarray, valid: np.ndarray) -> Tensor | None:
        try:
            return self._mean(images, valid)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _halve(self, tried: int, size: int) -> None:
        if tried == 1:
            raise _too_large(self.engine, size)
        self.batch = tried // 2
        if self.engine.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warn(f"out of memory: batches of {self.batch} windows from here on (--batch {self.batch})")

    def _mean(self, images: np.ndarray, valid: np.ndarray) -> Tensor:
        device = self.engine.device
        stored, known = (torch.from_numpy(array).to(device) for array in (images, valid))
        total = torch.zeros((), device=device)
        with torch.no_grad(), self.engine.autocast():
            for voice, (mean, gain) in zip(self.voices, self.affines, strict=True):
                image = ((stored - mean) * gain * known[:, None]).contiguous(memory_format=torch.channels_last)
                total = total + voice.share * voice.probs(image, self.tta)
        return total.clamp(0, 1)

    def _constant(self, values: np.ndarray) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.engine.device)[:, None, None]


def says_one_value(engine: Engine, voice: Voice, bands: int, size: int) -> bool:
    """Does a member say one value of a window, or one of each pixel? It is asked about a window of zeros.

    Raises:
        RunError: one window does not fit into memory.
    """
    image = torch.zeros(1, bands, size, size, device=engine.device).contiguous(memory_format=torch.channels_last)
    try:
        with torch.no_grad(), engine.autocast():
            return voice.probs(image, "none").ndim == 1
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise _too_large(engine, size) from error
        raise


def _too_large(engine: Engine, size: int) -> RunError:
    return RunError(
        f"one window of {size} x {size} pixels does not fit into the memory of {engine.device}: take a smaller --window, "
        "or another --device"
    )


def _fetched(places: Sequence[int], answers: Tensor) -> Iterator[tuple[int, np.ndarray]]:
    yield from zip(places, answers.cpu().numpy(), strict=True)
