"""The chip files that Böhm 2022 works on (see `l4s.sar.upstream`), as chips that l4s reads."""

import math
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from l4s import log
from l4s.data.labels import LABELS, write_labels
from l4s.errors import DataError
from l4s.sar.balance import balanced
from l4s.sar.layout import POLARISATIONS, SIDES, amplitudes, band_names, middle, write_image, write_mask
from l4s.sar.manifest import Converted, identity, write_once
from l4s.sar.passes import Event, Passes, choose_passes, read_day
from l4s.sar.upstream import SUFFIX, Source, read_chip

LANDSLIDES = "ST::landslides"


def convert_chips(
    folder: Path, out: Path, event: Event, *, points: bool = False, positive_share: float | None = None, seed: int = 0
) -> Converted:
    """Write the chips of a folder as `out`/img, `out`/mask and `out`/sar.json, numbered from 1 in order of their names.

    Args:
        positive_share: keep all chips with landslides and as many without, drawn by `seed`, as make up this share; None:
            keep all.
        points: `landslides` marks points, not outlines: `out`/labels.csv instead of masks.

    Raises:
        DataError: there are no chips, a chip lacks its metadata, is broken, differs in shape from the first, holds nothing
            but NaN, or lacks passes or landslides.
    """
    names = _names(folder)
    about = {
        "bands": list(band_names(event.visits)),
        "labels": "points" if points else "masks",
        "event": event.day.isoformat(),
        "visits": event.visits,
        "fewer": event.fewer,
        "positive_share": positive_share,
        "seed": seed,
    }
    files = [folder / f"{name}{suffix}" for name in names for suffix in (".npz", SUFFIX)]

    def fill(part: Path) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, int]]:
        chosen = names if positive_share is None else _balanced(folder, names, positive_share, seed)
        left = len(names) - len(chosen)
        return _fill(part, folder, chosen, event, points), {"balance": left} if left else {}

    return write_once(out, about, identity(files, folder), fill)


def _balanced(folder: Path, names: Sequence[str], share: float, seed: int) -> list[str]:
    """The chips to keep; what each holds is read for it once more."""
    found = [
        bool(landslide_mask(read_chip(folder, names[k]), str(folder / names[k])).any())
        for k in log.track(range(len(names)), "landslides", len(names))
    ]
    return [names[k] for k in balanced(found, share, seed, str(folder))]


def _names(folder: Path) -> list[str]:
    """Names of the chips, in natural order."""
    if not folder.is_dir():
        raise DataError(f"the folder of chips {folder} does not exist")
    arrays = {path.name.removesuffix(".npz") for path in folder.glob("*.npz")}
    described = {path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}")}
    if not arrays:
        raise DataError(f"{folder} holds no <id>.npz: give the folder chips_128x128 of a region")
    if alone := sorted(arrays ^ described):
        have, lack = (".npz", SUFFIX) if alone[0] in arrays else (SUFFIX, ".npz")
        raise DataError(f"{folder / alone[0]}{have} has no {alone[0]}{lack} beside it: unpack the chips again")
    return sorted(arrays, key=lambda name: (int(name) if name.isascii() and name.isdigit() else math.inf, name))


def _fill(part: Path, folder: Path, names: Sequence[str], event: Event, points: bool) -> list[Mapping[str, Any]]:
    told: list[Mapping[str, Any]] = []
    rows: list[tuple[str, int, float, float]] = []
    shape: tuple[int, ...] | None = None
    for index in log.track(range(len(names)), f"chips of {folder.name}", len(names)):
        chip = read_chip(folder, names[index])
        shape = shape or chip.planes.shape[1:]
        if chip.planes.shape[1:] != shape:
            raise DataError(
                f"{folder / chip.name}.npz has planes of {chip.planes.shape[1:]}, but {names[0]} of {shape}"
            )
        image, passes = stack_passes(chip, event, str(folder / chip.name))
        mask = landslide_mask(chip, str(folder / chip.name))
        write_image(part, index + 1, image)
        if points:
            rows.append((str(index + 1), int(mask.any()), *middle(mask, chip.bounds)))
        else:
            write_mask(part, index + 1, mask)
        dates = dict(zip(SIDES, map(list, passes.dates), strict=True))
        landslide = float(mask.mean())
        told.append({"id": index + 1, "chip": chip.name, **dates, "landslide": landslide} | _place(chip))
    if points:
        write_labels(part / LABELS, rows)
    return told


def stack_passes(chip: Source, event: Event, where: str) -> tuple[np.ndarray, Passes]:
    """The passes of a chip before and after an event, as bands in file order; NaN where there are fewer.

    A pass counts where both polarisations have a value somewhere.

    Returns:
        (4 visits, H, W) float32, and which passes.

    Raises:
        DataError: a pass lacks a polarisation, all is NaN, passes are missing, or a value is no amplitude.
    """
    days = _days(chip, where)
    seen = [day for day in days if all(np.isfinite(chip.planes[k]).any() for k in days[day].values())]
    if days and not seen:
        raise DataError(f"{where} holds nothing but NaN in its {len(days)} passes: take the chip away")
    passes = choose_passes(seen, event, where)
    image = np.full((4 * event.visits, *chip.planes.shape[1:]), np.nan, np.float32)
    for first, chosen in ((0, passes.pre), (2 * event.visits, passes.post)):
        for visit, k in enumerate(chosen):
            for channel, name in enumerate(POLARISATIONS):
                image[first + 2 * visit + channel] = amplitudes(chip.planes[days[seen[k]][name]], where)
    return image, passes


def _days(chip: Source, where: str) -> dict[date, dict[str, int]]:
    """Where VV and VH of each pass are among the planes."""
    found: dict[date, dict[str, int]] = {}
    for variable, k in chip.place.items():
        kind, *words = variable.split("::")
        if kind == "TS" and len(words) == 2 and words[0] in POLARISATIONS:
            found.setdefault(read_day(words[1], where), {})[words[0]] = k
    for day, planes in found.items():
        if missing := [name for name in POLARISATIONS if name not in planes]:
            raise DataError(f"{where} has no {missing[0]} for its pass of {day.isoformat()}, only {', '.join(planes)}")
    return found


def landslide_mask(chip: Source, where: str) -> np.ndarray:
    """Landslides of a chip, (H, W) uint8 {0, 1}: whatever is above 0, old ones that moved again with them (methods E3).

    Raises:
        DataError: the chip has no such plane.
    """
    if LANDSLIDES not in chip.place:
        raise DataError(f"{where} has no {LANDSLIDES!r} among its {len(chip.place)} variables")
    return np.asarray(np.nan_to_num(chip.planes[chip.place[LANDSLIDES]]) > 0, np.uint8)


def _place(chip: Source) -> dict[str, object]:
    """Where a chip lies, as far as it says so."""
    return {**({"bounds": list(chip.bounds)} if chip.bounds else {}), **({"crs": chip.crs} if chip.crs else {})}
