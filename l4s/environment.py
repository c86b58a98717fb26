"""Where something was made: versions, commit, device, precision."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from l4s.engine import Engine

LIBRARIES = (
    "torch",
    "timm",
    "segmentation-models-pytorch",
    "transformers",
    "albumentations",
    "accelerate",
    "numpy",
    "h5py",
)


def environment(engine: Engine) -> dict[str, object]:
    """Versions, commit, device and precision of this process."""
    return {
        "l4s": version("l4s"),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "commit": _commit(),
        "device": torch.cuda.get_device_name() if engine.device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "processes": engine.world,
        "precision": engine.precision,
    }


def _commit() -> str | None:
    """The commit of a checkout that l4s runs from; None where it is installed, be it inside another project's checkout."""
    package = Path(__file__).resolve().parent
    top = _git(package, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != package.parent:
        return None
    return _git(package, "describe", "--always", "--dirty", "--abbrev=12")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
