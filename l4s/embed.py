"""Embeddings of a trained network, computed once and kept: the network is frozen (Böhm 2022, 3)."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from l4s import rundir
from l4s.engine import Engine
from l4s.errors import RunError
from l4s.models.norm import domain_rows
from l4s.predict import View

LARGEST = 65504.0  # of float16


def embed(engine: Engine, model: nn.Module, view: View, out: Path, batch: int = 16) -> None:
    """Write the `embedding` of a network for the rows of a view, in this process: (N, E, H, W) float16, an .npy.

    The network is used as it predicts: BatchNorm with its running statistics, no dropout.

    Raises:
        RunError: the network has no embedding, or one that float16 cannot hold.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    array: np.memmap | None = None
    with domain_rows(torch.tensor([view.norm])), torch.no_grad(), engine.autocast():
        for start in range(0, len(view.rows), batch):
            rows = view.rows[start : start + batch]
            images = view.images(rows).to(engine.device).contiguous(memory_format=torch.channels_last)
            extras = model.eval()(images).extras
            if "embedding" not in extras:
                raise RunError(f"{out}: the network has no embedding, only {', '.join(extras) or 'logits'}")
            values = extras["embedding"].float().cpu().numpy()
            if not np.abs(values).max() <= LARGEST:
                raise RunError(f"{out}: embeddings of {np.abs(values).max():g} do not fit into float16")
            if array is None:
                shape = (len(view.rows), *values.shape[1:])
                array = np.lib.format.open_memmap(part, "w+", np.float16, shape)
            array[start : start + len(rows)] = values
    assert array is not None, "a domain has patches"
    array.flush()
    rundir.reached("embed.written")
    part.rename(out)


def open_embeddings(path: Path) -> np.ndarray:
    """What `embed` wrote, as a memory map: (N, E, H, W) float16."""
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
