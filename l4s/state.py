"""All that training needs to go on from a step, in one safetensors file that is replaced as a whole."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from l4s.errors import DataError
from l4s.files import write_atomic


@dataclass
class Progress:
    """Where training stands. `evaluations`: (step, scores on the held-out source by name) of each so far."""

    step: int = 0
    evaluations: list[tuple[int, dict[str, float]]] = field(default_factory=list)


def save_state(
    path: Path, progress: Progress, model: nn.Module, optimiser: torch.optim.Optimizer, ema: nn.Module | None
) -> None:
    """Write weights, optimiser state and progress."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"ema/{name}": value for name, value in (ema.state_dict() if ema else {}).items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {
            f"optimiser/{index}/{key}": torch.as_tensor(value) for key, value in state.items() if value is not None
        }
    about = {"step": progress.step, "evaluations": progress.evaluations}
    write_atomic(path, save(_plain(tensors), {"progress": json.dumps(about)}))


def load_state(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, ema: nn.Module | None) -> Progress:
    """Read what `save_state` wrote into model, optimiser and EMA; a missing file leaves them as they are."""
    if not path.is_file():
        return Progress()
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["progress"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    model.load_state_dict(_below(tensors, "model/"))
    if ema is not None:
        ema.load_state_dict(_below(tensors, "ema/"))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _below(tensors, "optimiser/").items():
        index, name = key.split("/", 1)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    for parameter, kept in optimiser.state.items():  # as the weights lie in memory: GPUs update them together only then
        moments = {
            name: value for name, value in kept.items() if isinstance(value, Tensor) and value.shape == parameter.shape
        }
        kept |= {name: torch.empty_like(parameter).copy_(value).detach() for name, value in moments.items()}
    return Progress(about["step"], [(step, scores) for step, scores in about["evaluations"]])


def save_weights(path: Path, model: nn.Module) -> None:
    """Write a model's parameters and buffers as safetensors."""
    write_atomic(path, save(_plain(model.state_dict())))


def read_weights(path: Path, model: nn.Module) -> None:
    """Fill a model, parameters and buffers, with what `save_weights` wrote.

    Raises:
        DataError: the file is missing or broken, is of another kind, or holds the weights of another model.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path} is not a readable safetensors file ({error}), and pickled weights are never read: "
            "name another file, or delete the folder of this member to train it again"
        ) from error
    own = model.state_dict()
    wrong = sorted(own.keys() ^ tensors.keys()) or [key for key in own if own[key].shape != tensors[key].shape]
    if wrong:
        raise DataError(
            f"{path} does not fit the model: {len(wrong)} of {len(own)} tensors are missing, unknown or of another "
            f"shape, first {wrong[0]}; name the weights of the same model with the same bands and options"
        )
    model.load_state_dict(tensors)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU, as safetensors wants them."""
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
