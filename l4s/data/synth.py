"""Generated data in the release's format: for demonstrations and tests, and for work that needs ground truth.

A patch is a pure function of its domain's settings, seed and index. Source and targets of a data set differ as regions
do: mostly by a gain and an offset per band, and by sun, season, soil, terrain and kind of slide.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypedDict

import h5py
import numpy as np

from l4s.data.landcover import draw_cover
from l4s.data.patch import FOLDERS
from l4s.data.runout import draw_mask
from l4s.data.spectra import IMG_MEAN, observe
from l4s.data.synth_domain import SynthDomain, draw_domain
from l4s.data.terrain import make_terrain
from l4s.errors import DataError, RecipeError
from l4s.files import read_json, write_json

__all__ = ["MANIFEST", "SynthDomain", "Summary", "draw_domain", "make_patch", "write_dataset", "write_domain"]

VERSION = 1  # raised when equal arguments would give other bytes
MANIFEST = "synth.json"
SPLITS = ("train", "validation", "test")


class Summary(TypedDict):
    """Facts of a written domain; `positive` is the share of slide pixels, `empty` that of patches without any."""

    patches: int
    size: int
    positive: float
    empty: float


def make_patch(config: SynthDomain, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Make patch `index` of a domain; any index from 0, also beyond `config.patches`.

    Returns:
        image (H, W, 14) float64 in the release's units: reflectance x 10,000, slope in degrees and DEM in metres, each
        divided by the organisers' mean; mask (H, W) uint8 in {0, 1}.
    """
    # The labels have their own stream: their noise leaves the image as it is.
    ground, cover, sensor, labels = (np.random.default_rng((config.seed, index, stream)) for stream in range(4))
    terrain = make_terrain(
        ground,
        config.size,
        slope=config.slope,
        elevation=config.elevation,
        roughness=config.roughness,
        valley=ground.uniform(20.0, 140.0),
    )
    land = draw_cover(cover, terrain, config)
    spectral = observe(sensor, land.share, terrain, config)
    image = np.concatenate([spectral, terrain.slope[None], terrain.dem[None]]).transpose(1, 2, 0) / IMG_MEAN
    return np.ascontiguousarray(image), draw_mask(labels, land.runouts, land.ragged, config.label_noise)


def write_domain(
    folder: Path, config: SynthDomain, *, first_id: int = 1, masks: bool = True, workers: int = 0
) -> Summary:
    """Write a domain as `folder/img/image_N.h5` and `folder/mask/mask_N.h5`, N from `first_id`.

    The bytes depend on `config` alone, not on `workers` (processes; 0 is this one). Files are whole or absent.

    Raises:
        RecipeError: `first_id` or `workers` is negative.
    """
    if first_id < 0 or workers < 0:
        raise RecipeError(f"first_id = {first_id} and workers = {workers} must not be negative")
    for name in ("img", "mask") if masks else ("img",):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write = partial(_write_patch, folder, config, first_id, masks)
    if workers:
        # spawn: a fork would copy the threads' locks of whoever calls
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            positive = np.array(list(pool.map(write, range(config.patches), chunksize=8)), float)
    else:
        positive = np.array([write(index) for index in range(config.patches)], float)
    return {
        "patches": config.patches,
        "size": config.size,
        "positive": float(positive.mean()) / config.size**2 if config.patches else 0.0,
        "empty": float((positive == 0).mean()) if config.patches else 0.0,
    }


def _write_patch(folder: Path, config: SynthDomain, first_id: int, masks: bool, index: int) -> int:
    image, mask = make_patch(config, index)
    _write(folder / "img" / f"image_{first_id + index}.h5", "img", image)
    if masks:
        _write(folder / "mask" / f"mask_{first_id + index}.h5", "mask", mask)
    return int(mask.sum())


def _write(path: Path, key: str, values: np.ndarray) -> None:
    part = path.with_name(f".{path.name}.part")  # hidden files are no patches to the readers
    with h5py.File(part, "w") as file:
        file.create_dataset(key, data=values, track_times=False)
    os.replace(part, path)


def write_dataset(
    out: Path,
    *,
    seed: int = 0,
    patches: tuple[int, int, int] = (100, 30, 30),
    size: int = 128,
    strength: float = 1.0,
    sensor: float | None = None,
    label_noise: float = 0.0,
    masks: Sequence[str] = SPLITS,
    workers: int = 0,
) -> dict[str, Summary]:
    """Write a source and two targets in the official layout: TrainData, ValidData, TestData, and `synth.json`.

    TrainData is the default domain; the others lie `strength` away from it, in gain and offset `sensor` where that is
    given. `label_noise` spoils the masks of the source only, so that scores are against the truth. `masks` names the
    splits that get masks. A finished data set with the same arguments is left alone; an interrupted one is written again.

    Returns:
        For each split what was written.

    Raises:
        DataError: `out` holds something else. RecipeError: an argument is out of range.
    """
    if unknown := sorted(set(masks) - set(SPLITS)):
        raise RecipeError(f"masks names {unknown[0]!r}, which is not one of {', '.join(SPLITS)}")
    domains = _domains(seed, patches, size, (strength, sensor), label_noise)
    arguments = {
        "version": VERSION,
        "masks": [split for split in SPLITS if split in masks],
        "domains": {split: domain.model_dump(mode="json") for split, domain in domains.items()},
    }
    if (finished := held(out, arguments)) is not None:
        return {split: finished[split] for split in SPLITS}
    write_json(out / MANIFEST, {"arguments": arguments})
    splits = {
        split: write_domain(out / FOLDERS["official"][split][0], domain, masks=split in masks, workers=workers)
        for split, domain in domains.items()
    }
    write_json(out / MANIFEST, {"arguments": arguments, "splits": splits})
    return splits


def _domains(
    seed: int, patches: tuple[int, int, int], size: int, shift: tuple[float, float | None], label_noise: float
) -> dict[str, SynthDomain]:
    """The domain of each split. Raises RecipeError for arguments out of range."""
    try:
        source = SynthDomain(seed=3 * seed, patches=patches[0], size=size, label_noise=label_noise)
        targets = [draw_domain(3 * seed + k, *shift, patches=patches[k], size=size) for k in (1, 2)]
    except ValueError as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"synthetic data cannot be made: {error}") from error
    return dict(zip(SPLITS, (source, *targets), strict=True))


def held(out: Path, arguments: Mapping[str, object]) -> dict[str, Any] | None:
    """What a finished data set with these arguments holds, part by part; None where there is none yet.

    Raises:
        DataError: `out` holds something else.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file: name a folder to write to")
    if not out.exists() or not any(out.iterdir()):
        return None
    if not (out / MANIFEST).is_file():
        raise DataError(f"{out} is not empty and no generated data set: choose another folder or empty this one")
    manifest = read_json(out / MANIFEST)
    if manifest.get("arguments") != arguments:
        raise DataError(f"{out} holds a data set made with other arguments: choose another folder or delete this one")
    return dict(manifest["splits"]) if "splits" in manifest else None
