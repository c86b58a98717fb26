"""Embeddings of a trained network, computed once and kept: the network is frozen (Böhm 2022, 3)."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from l4s import rundir
from l4s.engine import Engine
from l4s.errors import RunError
from l4s.files import whole
from l4s.models.norm import domain_rows
from l4s.predict import View

LARGEST = 65504.0  # of float16


def embed(engine: Engine, model: nn.Module, view: View, out: Path, batch: int) -> None:
    """Write the `embedding` of a network for the rows of a view, in this process: (N, E, H, W) float16, an .npy.

    The network is used as it predicts: BatchNorm with its running statistics, no dropout. The file appears when it is
    whole; processes that write the same one do not meet.

    Args:
        batch: patches at a time.

    Raises:
        RunError: the network has no embedding, or one that float16 cannot hold.
    """
    with whole(out) as part:
        _fill(engine, model.eval(), view, part, out, batch)
        rundir.reached("embed.written")


def open_embeddings(path: Path) -> np.ndarray:
    """What `embed` wrote, as a memory map: (N, E, H, W) float16."""
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _fill(engine: Engine, model: nn.Module, view: View, part: Path, out: Path, batch: int) -> None:
    array: np.memmap | None = None
    with domain_rows(torch.tensor([view.norm])), torch.no_grad(), engine.autocast():
        for start in range(0, len(view.rows), batch):
            rows = view.rows[start : start + batch]
            images = view.images(rows).to(engine.device).contiguous(memory_format=torch.channels_last)
            values = _embedding(model, images, out)
            if array is None:
                shape = (len(view.rows), *values.shape[1:])
                array = np.lib.format.open_memmap(part, "w+", np.float16, shape)
            array[start : start + len(rows)] = values
    assert array is not None, "a domain has patches"
    array.flush()


def _embedding(model: nn.Module, images: torch.Tensor, out: Path) -> np.ndarray:
    """(B, E, H, W) float32 that float16 can hold."""
    extras = model(images).extras
    if "embedding" not in extras:
        raise RunError(f"{out}: the network has no embedding, only {', '.join(extras) or 'logits'}")
    values = np.asarray(extras["embedding"].float().cpu().numpy())
    if not np.abs(values).max() <= LARGEST:
        raise RunError(f"{out}: embeddings of {np.abs(values).max():g} do not fit into float16")
    return values
