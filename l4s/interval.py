"""What training tells of the steps between two lines of `metrics.jsonl`."""

import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor

from l4s.errors import RunError
from l4s.files import write_atomic
from l4s.state import Progress


class Interval:
    """Terms of the loss since the last line, kept on the device until the line is written.

    `name` is what a training is called in errors, `batch` its rows a step, `path` the file of lines; None where another
    process writes it.
    """

    def __init__(self, name: str, batch: int, path: Path | None) -> None:
        self.name, self.batch, self.path = name, batch, path
        self.terms: list[dict[str, Tensor]] = []
        self.started = time.monotonic()

    def add(self, terms: dict[str, Tensor]) -> None:
        self.terms.append(terms)

    def close(self, step: int) -> dict[str, float]:
        """End the interval at a step; the next one begins when the line is written.

        Returns:
            The means of the terms and the rate.

        Raises:
            RunError: the loss is not finite.
        """
        means = {key: float(torch.stack([t[key] for t in self.terms if key in t]).mean()) for key in self.terms[-1]}
        if not all(math.isfinite(value) for value in means.values()):
            raise RunError(
                f"{self.name}: the loss is not finite by step {step} ({means}): "
                "lower the learning rate, clip gradients (train.clip), or use --precision fp32"
            )
        rate = len(self.terms) * self.batch / (time.monotonic() - self.started)
        self.terms = []
        return {"step": step, **means, "patches_per_s": round(rate, 1)}

    def write(self, line: dict[str, float], progress: Progress) -> str:
        """Write the line; returns its short form for the display."""
        note = f"loss {line['loss']:.4f}  {line['patches_per_s']:.0f} patches/s"
        if progress.evaluations:
            step, scores = progress.evaluations[-1]
            note += f"  F1 {scores['f1']:.3f} at {step}"
            line |= {f"heldout_{name}": value for name, value in scores.items()} if step == progress.step else {}
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        self.started = time.monotonic()  # only now: the time that judging took is no training
        return note


def trim_metrics(path: Path, step: int) -> None:
    """Drop lines beyond the step that training goes on from."""
    if path.is_file():
        lines = [
            line for line in path.read_text().splitlines() if line.endswith("}") and json.loads(line)["step"] <= step
        ]
        write_atomic(path, "".join(line + "\n" for line in lines).encode())
