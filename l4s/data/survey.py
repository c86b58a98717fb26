"""What the bands of a folder of patches hold, domain by domain: the numbers behind separated normalisation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from l4s import log
from l4s.data.bands import L4S_BANDS, Bands, unnamed_bands
from l4s.data.domain import Domain
from l4s.data.folders import bijie_folder, bijie_patches, bijie_splits
from l4s.data.patch import PatchRef
from l4s.data.pictures import is_picture
from l4s.data.readers import READERS, band_axis, find_patches, read_array, read_image
from l4s.data.stats import patch_moments, subdomain_stats
from l4s.errors import DataError
from l4s.recipe import SubDomains

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Survey:
    """Statistics of one domain per band, each (C,) float64 in file units, over all pixels that are not NaN.

    `nan` is the share of pixels that are NaN. `hash` names mean and standard deviation as `stats/<domain>.json` of a
    run does.
    """

    name: str
    bands: tuple[str, ...]
    patches: int
    labelled: int
    mean: np.ndarray
    std: np.ndarray
    nan: np.ndarray
    hash: str

    def shift(self, first: "Survey") -> np.ndarray:
        """(C,) distance of the mean from that of `first`, in standard deviations of `first`."""
        return np.asarray((self.mean - first.mean) / first.std)

    def ratio(self, first: "Survey") -> np.ndarray:
        """(C,) standard deviation over that of `first`."""
        return np.asarray(self.std / first.std)

    def as_dict(self, first: "Survey") -> dict[str, object]:
        """All of it for JSON, compared with `first`."""
        values = vars(self) | {"shift": self.shift(first), "ratio": self.ratio(first)}
        return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in values.items()}


def survey(root: Path, splits: Sequence[str] = (), bands: Bands | None = None, layout: str = "auto") -> list[Survey]:
    """Statistics of each split of a data folder.

    Args:
        splits: as `find_patches` takes them; empty for those of train, validation and test that `root` holds, or for
            `root` itself where it holds none.
        bands: the bands of the files; None to tell them by their number.

    Raises:
        DataError: no patches, broken files, or another number of bands than named.
    """
    found = {split: find_patches(root, split, layout=layout) for split in splits or splits_in(root)}
    named = bands or _detected(next(iter(found.values()))[0])
    return [_survey(root.resolve().name if s == "." else s, patches, named) for s, patches in found.items()]


def splits_in(root: Path) -> tuple[str, ...]:
    """Which of train, validation and test a data folder holds patches of, in any layout; `.` where it holds none."""
    found = [split for split in SPLITS if any(_holds(root, split, layout) for layout in READERS)]
    return tuple(found) or (".",)


def _detected(patch: PatchRef) -> Bands:
    return detect_bands(patch.image, patch.dem is not None)


def detect_bands(image: Path, dem: bool = False) -> Bands:
    """The bands of a file by their number: those of Landslide4Sense for 14, else band1, band2, ... in file order.

    Those of a picture are called r, g, b, and dem where there is one beside it.

    Raises:
        DataError: the file is no patch.
    """
    if is_picture(image):
        log.warn("the channels of pictures are called r, g, b in file order; name them with --bands if that is another")
        return Bands(file=("r", "g", "b", "dem") if dem else ("r", "g", "b"), rgb=("r", "g", "b"))
    shape = read_array(image, "img").shape
    axis = band_axis(shape)
    if axis is None:
        raise DataError(f"{image} has shape {shape}; a patch is (H, W, bands) or (bands, H, W)")
    names = unnamed_bands(shape[axis])
    if names == L4S_BANDS:
        return Bands()
    log.warn(f"{len(names)} bands without names: called {names[0]} to {names[-1]}; name them with --bands")
    return Bands(file=names)


def survey_domain(domain: Domain) -> Survey:
    """Statistics of an open domain as a whole."""
    stats = subdomain_stats(domain.cache.moments, [patch.region for patch in domain.patches], SubDomains())
    padded = domain.fitting is not None and domain.fitting.by == "pad"
    pixels = domain.shapes.prod(axis=1).mean() if padded else np.prod(domain.size)
    missing = 1 - domain.cache.moments[0].mean(0) / pixels
    labelled = int(domain.cache.labelled.sum())
    facts = (domain.name, domain.bands.names, len(domain), labelled)
    return Survey(*facts, stats.mean[0], stats.std[0], missing, stats.digest)


def _survey(name: str, patches: Sequence[PatchRef], bands: Bands) -> Survey:
    rows, pixels = [], 0
    for row in log.track(range(len(patches)), name, len(patches)):
        image = read_image(patches[row], bands)
        rows.append(patch_moments(image))
        pixels += image[0].size
    moments = np.stack(rows, axis=1)
    stats = subdomain_stats(moments, [patch.region for patch in patches], SubDomains())
    labelled = sum(patch.labelled for patch in patches)
    missing = 1 - moments[0].sum(0) / pixels
    return Survey(name, bands.names, len(patches), labelled, stats.mean[0], stats.std[0], missing, stats.digest)


def _holds(root: Path, split: str, layout: str) -> bool:
    if layout == "bijie":  # which has every split, and perhaps nothing in one of them
        folder = bijie_folder(root)
        return folder is not None and bool(bijie_splits(folder, bijie_patches(folder))[split])
    # the flat layout takes any folder for its split: only one of the split's own name counts here
    return (layout != "flat" or (root / split).is_dir()) and READERS[layout](root, split, None) is not None
