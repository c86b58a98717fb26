"""What tests of predicted scenes share: a scene of noise, models whose answer is known, and points to stop at."""

from collections import Counter
from pathlib import Path

import numpy as np
import rasterio

from l4s import rundir
from l4s.scene.job import SceneUse
from l4s.scene.predict import predict_scene
from l4s.session import Machine
from l4s.tasks import TASKS

CPU = Machine("cpu", "fp32")
SIZE = 16


class Killed(BaseException):
    """No error of l4s, so that nothing can catch it."""


def noise(height=50, width=37, bands=3, seed=0):
    """Values that no two pixels share, on other scales by band."""
    rng = np.random.default_rng(seed)
    scale = np.array([1.0, 20.0, 300.0])[:bands, None, None]
    return (rng.normal(size=(bands, height, width)) * scale + 5 * scale).astype(np.float32)


def read(path) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read(1)


def run_on(run, scene, out, **use) -> np.ndarray:
    assert predict_scene(run, scene.path, out, CPU, SceneUse(**use)) == out
    return read(out)


def says(monkeypatch, probs, **about):
    """Every member says `probs(image)` from here on; gives the number of windows of each batch."""
    asked = []

    class Said:
        kind = "probability"

        def probs(self, model, image):
            asked.append(len(image))
            return probs(image)

    task = Said()
    vars(task).update(about)
    monkeypatch.setitem(TASKS, "segment", lambda *_, **__: task)
    return asked


def stop_at(monkeypatch, point, nth=1):
    """Stop at the nth time that a point is reached; gives the counts so far."""
    calls = Counter()

    def reached(name):
        calls.update([name])
        if name == point and calls[name] == nth:
            raise Killed(name)

    monkeypatch.setattr(rundir, "reached", reached)
    return calls


def left_in(folder):
    return sorted(path.name for path in Path(folder).iterdir())
