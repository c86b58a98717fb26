"""Mean and standard deviation of a scene's bands over its valid pixels, in one pass by blocks of rows."""

from pathlib import Path

import numpy as np

from l4s import log, rundir
from l4s.data.stats import merge, patch_moments
from l4s.errors import DataError
from l4s.files import read_json, write_json
from l4s.scene.raster import Scene, reading

BLOCK_VALUES = 2**21  # of one block, over all bands: some 70 MB while it is summed in float64


def scene_moments(scene: Scene, block_values: int = BLOCK_VALUES) -> np.ndarray:
    """Count, mean and variance per band over the pixels that are valid in all bands.

    Blocks are summed in float64 around their own means and merged (Chan et al. 1979), which loses no more digits than
    two passes over the whole would.

    Returns:
        (3, C) float64 in file units.

    Raises:
        DataError: no pixel is valid, or the file is damaged.
    """
    height, width = scene.grid.height, scene.grid.width
    rows = max(1, block_values // (width * len(scene.bands)))
    starts = range(0, height, rows)
    blocks = np.empty((3, len(starts), len(scene.bands)))
    with reading(scene) as reader:
        for place in log.track(range(len(starts)), f"statistics of {scene.path.name}", len(starts)):
            image, valid = reader.window(starts[place], 0, min(rows, height - starts[place]), width)
            blocks[:, place] = patch_moments(image[:, valid])
    if not blocks[0].any():
        raise DataError(f"{scene.path} has no valid pixel: every one is nodata in some band")
    return merge(blocks)


def load_moments(path: Path) -> np.ndarray | None:
    """What `store_moments` wrote; None where it did not."""
    return np.array(read_json(path)["moments"], np.float64) if path.is_file() else None


def store_moments(path: Path, scene: Scene, moments: np.ndarray) -> None:
    """Keep a scene's moments for a later process, to the last bit."""
    write_json(path, {"bands": list(scene.bands), "moments": moments.tolist()})
    rundir.reached("scene.statistics")
