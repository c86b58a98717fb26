"""How rare and how small landslides are in a folder of patches (Zhao 2022, Figure 1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from l4s import log
from l4s.data.patch import IGNORED, PatchRef
from l4s.data.readers import find_patches, read_mask
from l4s.data.survey import splits_in
from l4s.errors import DataError


@dataclass(frozen=True, eq=False)
class Classes:
    """Pixels and landslides of the labelled patches of one split.

    A landslide is a set of landslide pixels that touch, at corners too; `areas` (L,) int64 holds the pixels of each,
    rising. `landslide_pixels` (P,) int64 is the count of each of `patches`.
    """

    name: str
    patches: tuple[PatchRef, ...]
    landslide_pixels: np.ndarray
    landslide: int
    background: int
    ignored: int
    areas: np.ndarray

    @property
    def empty(self) -> int:
        """Patches without landslide."""
        return int((self.landslide_pixels == 0).sum())

    @property
    def ratio(self) -> float:
        """Background pixels for each landslide pixel; infinite where there is none."""
        return self.background / self.landslide if self.landslide else float("inf")

    def as_dict(self) -> dict[str, object]:
        """The numbers, for JSON."""
        shares = {
            f"area_p{share}": float(np.percentile(self.areas, share)) for share in (10, 50, 90) if len(self.areas)
        }
        counts = {"landslide": self.landslide, "background": self.background, "ignored": self.ignored}
        return {
            "name": self.name,
            "patches": len(self.patches),
            "empty": self.empty,
            **counts,
            "ratio": self.ratio if self.landslide else None,
            "landslides": len(self.areas),
            **shares,
        }


def count_classes(root: Path, splits: Sequence[str] = (), layout: str = "auto") -> list[Classes]:
    """Count the masks of each split of a data folder that has some.

    Args:
        splits: as `find_patches` takes them; empty for those of train, validation and test that `root` holds.

    Raises:
        DataError: no patches, no masks at all, or a broken file.
    """
    found = {split: find_patches(root, split, layout=layout) for split in splits or splits_in(root)}
    labelled = {split: [patch for patch in patches if patch.labelled] for split, patches in found.items()}
    if not any(labelled.values()):
        raise DataError(f"{root} holds {', '.join(found)} without masks: classes are counted in masks")
    return [_count(root.resolve().name if s == "." else s, patches) for s, patches in labelled.items() if patches]


def _count(name: str, patches: Sequence[PatchRef]) -> Classes:
    pixels, ignored, total = [], 0, 0
    areas: list[np.ndarray] = []
    for row in log.track(range(len(patches)), name, len(patches)):
        mask = read_mask(patches[row])
        slides, count = ndimage.label(mask == 1, structure=np.ones((3, 3)))
        areas.append(np.bincount(slides.ravel(), minlength=count + 1)[1:])
        pixels.append(int((mask == 1).sum()))
        ignored += int((mask == IGNORED).sum())
        total += mask.size
    landslide = sum(pixels)
    background = total - landslide - ignored
    return Classes(
        name, tuple(patches), np.array(pixels), landslide, background, ignored, np.sort(np.concatenate(areas))
    )
