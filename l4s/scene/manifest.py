"""Where the patches cut from a scene lie in it: `manifest.json` in a folder of chips."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from l4s.errors import DataError, RunError
from l4s.files import read_json, write_json
from l4s.scene.raster import Grid

FOLDERS = {"train": "TrainData", "test": "TestData"}
NAME = "manifest.json"


@dataclass(frozen=True)
class Chip:
    """One patch: its part, its first row and column in the scene, and two shares.

    `valid`: of its pixels, those with a value in every band and, where there are labels, a label. `landslide`: of the
    valid ones, those that are landslide; for points 1 where the chip holds one.
    """

    split: str
    row: int
    column: int
    valid: float
    landslide: float


@dataclass(frozen=True)
class Manifest:
    """The chips of a scene by id; `folder` holds them, `fingerprint` names the scene, the labels and the options."""

    folder: Path
    scene: str
    grid: Grid
    window: int
    stride: int
    bands: tuple[str, ...]
    chips: Mapping[str, Chip]
    fingerprint: str

    def image(self, id: str) -> Path:
        """The file of a chip's image."""
        return self.folder / FOLDERS[self.chips[id].split] / "img" / f"image_{id}.h5"

    def mask(self, id: str) -> Path:
        """The file of a chip's mask, where chips have masks."""
        return self.folder / FOLDERS[self.chips[id].split] / "mask" / f"mask_{id}.h5"


def write_manifest(manifest: Manifest) -> None:
    """Write it into its folder."""
    grid = manifest.grid
    place = {"crs": grid.crs, "transform": list(grid.transform), "height": grid.height, "width": grid.width}
    cut = {"window": manifest.window, "stride": manifest.stride, "bands": list(manifest.bands)}
    chips = {id: asdict(chip) for id, chip in manifest.chips.items()}
    about = {"scene": manifest.scene, "fingerprint": manifest.fingerprint, "chips": chips}
    write_json(manifest.folder / NAME, {**place, **cut, **about})


def read_manifest(path: Path) -> Manifest:
    """Read a manifest, or that of a folder.

    Raises:
        DataError: it is none, or a chip lies outside of its scene.
    """
    path = path / NAME if path.is_dir() else path
    try:
        found = read_json(path)
        manifest = _manifest(path.parent, found)
    except (RunError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is no manifest of `l4s data chip` ({error}): cut the chips again") from error
    grid, window = manifest.grid, manifest.window
    for id, chip in manifest.chips.items():
        inside = 0 <= chip.row <= grid.height - window and 0 <= chip.column <= grid.width - window
        if not inside or chip.split not in FOLDERS or not id.isdigit():
            raise DataError(f"{path}: chip {id!r} ({chip}) lies in no scene of {grid.height} x {grid.width} pixels")
    return manifest


def _manifest(folder: Path, found: Mapping[str, Any]) -> Manifest:
    a, b, c, d, e, f = (float(value) for value in found["transform"])
    crs = None if found["crs"] is None else str(found["crs"])
    chips = {
        str(id): Chip(str(at["split"]), int(at["row"]), int(at["column"]), float(at["valid"]), float(at["landslide"]))
        for id, at in found["chips"].items()
    }
    return Manifest(
        folder=folder,
        scene=str(found["scene"]),
        grid=Grid(int(found["height"]), int(found["width"]), crs, (a, b, c, d, e, f)),
        window=int(found["window"]),
        stride=int(found["stride"]),
        bands=tuple(str(band) for band in found["bands"]),
        chips=chips,
        fingerprint=str(found["fingerprint"]),
    )
