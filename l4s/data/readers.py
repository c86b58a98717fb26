"""Patches on disk: where each release keeps them, and one image or mask as an array.

Files are called `image_N.h5` and `mask_N.h5` and are paired by the integer N, never by sorted position;
pictures pair by their stems, and have layouts of their own in `l4s.data.folders`.
Hidden files, `Thumbs.db`, `desktop.ini` and `__MACOSX` are left alone; anything else that is not a patch is an error, so
that nothing is skipped silently.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from l4s.data.bands import Bands, make_bands
from l4s.data.folders import bijie, hokkaido, holds_pictures
from l4s.data.patch import FOLDERS, SPLIT_OF, PatchRef, only_folder, split_folder, tolerated
from l4s.data.pictures import IMAGES, SUFFIXES, is_picture, mask_of_picture, picture_bands, picture_shape
from l4s.data.regions import Regions, check_regions, region_of
from l4s.errors import DataError, RecipeError

IMAGE_FOLDERS = ("img", "images")
MASK_FOLDERS = ("mask", "masks", "annotations")
NAME = re.compile(r"(image|mask)_([0-9]+)\.h5")
LANDSLIDE, UNLABELLED = (1,), (255,)  # values of masks where nobody names them
LARGEST = 2**30  # bytes of one array; 14 float64 bands of 2,048 x 2,048 pixels take less than half of it


def _official(root: Path, split: str, _: int | None) -> tuple[PatchRef, ...] | None:
    """`TrainData|ValidData|TestData/{img,mask}`: the original release and the complete one on Zenodo."""
    folder = split_folder(root, "official", split)
    return _apart(folder / "img", folder / "mask") if folder else None


def _huggingface(root: Path, split: str, _: int | None) -> tuple[PatchRef, ...] | None:
    """`images/{train,validation,test}` and `annotations/{train,validation,test}`."""
    images = split_folder(root / "images", "huggingface", split)
    return _apart(images, root / "annotations" / images.name) if images else None


def _split_folders(root: Path, split: str, _: int | None) -> tuple[PatchRef, ...] | None:
    """`train|validation|valid|val|test`, each with `img|images` and perhaps `mask|masks|annotations`."""
    folder = split_folder(root, "split-folders", split)
    return _beside(folder) if folder else None


def _flat(root: Path, split: str, _: int | None) -> tuple[PatchRef, ...] | None:
    """The folder `root/split`; `root` itself where `split` is the mere name of a split."""
    folder = root / split
    return _folder(root if split in SPLIT_OF and not folder.is_dir() else folder)


READERS: dict[str, Callable[[Path, str, int | None], tuple[PatchRef, ...] | None]] = {
    "official": _official,
    "huggingface": _huggingface,
    "split-folders": _split_folders,
    "bijie": bijie,
    "hokkaido": hokkaido,
    "flat": _flat,
}
"""Layout -> function (root, split, seed) that returns the patches, or None where the layout does not match.

The seed is that of splits which are drawn because the release has none; None where nobody asked for one.
"""


def find_patches(
    root: Path,
    split: str,
    *,
    layout: str = "auto",
    regions: Mapping[str, tuple[int, int]] = {},
    seed: int | None = None,
) -> tuple[PatchRef, ...]:
    """Find the patches of one split, in order of their integer ids; a patch without a mask file has mask None.

    `split` is `train`, `validation` or `test`, another name of these (`ValidData`, `val`), or a folder relative to
    `root` (`.` is `root` itself) that holds the patches or has them in `img/`, with masks beside them or in `mask/`; pictures
    may lie like that, too.
    With `layout="auto"` a named split never means `root` itself, so two splits cannot be the same files unnoticed.
    One extra folder around everything is tolerated where it is the only match. `regions` maps a name to the inclusive
    range of ids that lie there. `seed` draws the splits of a release that has none (Bijie), where `.` is all of it; with
    None they are those of lists that lie there, else those of seed 0.

    Raises DataError where nothing or more than one layout matches, for a foreign file, an id seen twice, a mask without
    an image, overlapping regions or an id outside all of them; RecipeError for an unknown layout or an absolute split.
    """
    if layout != "auto" and layout not in READERS:
        raise RecipeError(f"layout = {layout!r} is unknown; choose auto, {', '.join(READERS)}")
    if Path(split).is_absolute():
        raise RecipeError(f"split = {split!r} is absolute; name a folder relative to the data folder {root}")
    if not root.is_dir():
        raise DataError(f"the data folder {root} does not exist; point `root` (--data, $L4S_DATA) at the unpacked data")
    found = _search(root, split, layout, seed)
    if found is None:
        found = _search_below(root, split, layout, seed)
    if found is None:
        raise DataError(_nothing_found(root, split, layout))
    return _with_regions(found, regions) if regions else found


def cut_patches(refs: Sequence[PatchRef], side: int, shape: tuple[int, int]) -> tuple[PatchRef, ...]:
    """Each patch cut into squares of `side` pixels, row by row: patches of their own, called `<id>-<row>-<column>`.

    They keep the number and the region of what they are cut from. `shape` is the height and width of the patches.

    Raises DataError where the sides of the patches are no multiples of `side`.
    """
    if shape[0] % side or shape[1] % side:
        raise DataError(
            f"{refs[0].image} is {shape[0]} x {shape[1]} pixels, which squares of cut = {side} do not fill: "
            "choose a divisor of both"
        )
    places = [(row, column) for row in range(shape[0] // side) for column in range(shape[1] // side)]
    return tuple(
        replace(ref, id=f"{ref.id}-{row}-{column}", square=(side, row, column))
        for ref in refs
        for row, column in places
    )


def in_square(values: np.ndarray, ref: PatchRef) -> np.ndarray:
    """What a patch is of the (..., H, W) values of its file."""
    if ref.square is None:
        return values
    side, row, column = ref.square
    return values[..., row * side : (row + 1) * side, column * side : (column + 1) * side]


def _search(root: Path, split: str, layout: str, seed: int | None) -> tuple[PatchRef, ...] | None:
    if layout != "auto":
        return READERS[layout](root, split, seed)
    # A folder that is spelt out wins; `train`, `validation` and `test` first mean the split, whatever its folder.
    if split not in SPLIT_OF.values() and (found := _folder(root / split)) is not None:
        return found
    named = [name for name in READERS if name != "flat"]
    matches = {name: refs for name in named if (refs := READERS[name](root, split, seed)) is not None}
    if len(matches) > 1:
        raise DataError(f"{root} holds split {split!r} in several layouts: set `layout` to {' or '.join(matches)}")
    return next(iter(matches.values())) if matches else _folder(root / split)


def _search_below(root: Path, split: str, layout: str, seed: int | None) -> tuple[PatchRef, ...] | None:
    # Where `root` itself is meant, a folder below it is something else.
    if layout == "flat" or Path(split) == Path("."):
        return None
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not tolerated(path)]
    matches = {path: refs for path in folders if (refs := _search(path, split, layout, seed)) is not None}
    if len(matches) > 1:
        where = ", ".join(path.name for path in matches)
        raise DataError(f"{root} holds split {split!r} in several folders: {where}; set `root` (--data) to one of them")
    return next(iter(matches.values()), None)


def _beside(folder: Path) -> tuple[PatchRef, ...] | None:
    """The patches of a folder that has them in `img/` or `images/`; pictures are of another layout."""
    images = only_folder(folder, IMAGE_FOLDERS)
    if images is None or holds_pictures(images):
        return None
    return _apart(images, only_folder(folder, MASK_FOLDERS))


def _apart(images: Path, masks: Path | None) -> tuple[PatchRef, ...] | None:
    if not images.is_dir():
        return None
    truth = _scan(masks, ("mask",))["mask"] if masks is not None and masks.is_dir() else {}
    return _pair(images, _scan(images, ("image",))["image"], truth)


def _folder(folder: Path) -> tuple[PatchRef, ...] | None:
    """The patches of a folder that holds them itself or in `img/`; None where it does neither."""
    if not folder.is_dir():
        return None
    if not any(match and match[1] == "image" for match in (NAME.fullmatch(path.name) for path in folder.iterdir())):
        return _beside(folder)
    found = _scan(folder, ("image", "mask"), folders=MASK_FOLDERS)
    # `img/` may be given itself, with its masks in `../mask`; next to any other name, `mask` may be somebody else's.
    here = folder.resolve()
    beside = only_folder(here.parent, MASK_FOLDERS) if here.name in IMAGE_FOLDERS else None
    others = [path for path in (only_folder(folder, MASK_FOLDERS), beside) if path]
    if len(others) + bool(found["mask"]) > 1:
        where = ", ".join(str(path) for path in ([folder] if found["mask"] else []) + others)
        raise DataError(f"masks for {folder} lie in several places: {where}; keep one of them")
    return _pair(folder, found["image"], _scan(others[0], ("mask",))["mask"] if others else found["mask"])


def _scan(folder: Path, kinds: Sequence[str], folders: Sequence[str] = ()) -> dict[str, dict[int, Path]]:
    found: dict[str, dict[int, Path]] = {kind: {} for kind in kinds}
    for path in sorted(folder.iterdir()):
        match = NAME.fullmatch(path.name)
        if match is None or match[1] not in found:
            if not tolerated(path) and path.name not in folders:
                wanted = " or ".join(f"{kind}_N.h5" for kind in kinds)
                raise DataError(f"{path} is no {wanted}: move it away, so that nothing is skipped silently")
            continue
        other = found[match[1]].setdefault(int(match[2]), path)
        if other is not path:
            raise DataError(f"{other} and {path.name} have the same id {int(match[2])}: keep one of them")
    return found


def _pair(folder: Path, images: Mapping[int, Path], masks: Mapping[int, Path]) -> tuple[PatchRef, ...]:
    if not images:
        raise DataError(f"{folder} holds no image_N.h5: unpack the images there, or change `split` or `root` (--data)")
    if lost := sorted(masks.keys() - images.keys()):
        more = f" (and {len(lost) - 1} more)" if lost[1:] else ""
        raise DataError(
            f"{masks[lost[0]]}{more} has no image_{lost[0]}.h5 in {folder}: add the image or remove the mask"
        )
    ids = {number: path.stem.removeprefix("image_") for number, path in images.items()}
    return tuple(PatchRef(ids[number], number, images[number], masks.get(number)) for number in sorted(images))


def _with_regions(refs: Sequence[PatchRef], regions: Regions) -> tuple[PatchRef, ...]:
    check_regions(regions)
    found = []
    for ref in refs:
        name = region_of(ref.number, regions)
        if name is None:
            raise DataError(
                f"id {ref.number} ({ref.image}) lies in none of the regions {', '.join(regions)}: add its range"
            )
        found.append(replace(ref, region=name))
    return tuple(found)


def _nothing_found(root: Path, split: str, layout: str) -> str:
    pattern = {"official": "{}/img", "huggingface": "images/{}", "split-folders": "{}/img|images"}
    pattern |= {"hokkaido": "{}/image|images|img"}
    names = {name: FOLDERS[name].get(SPLIT_OF.get(split, ""), ()) for name in pattern if layout in ("auto", name)}
    places = [pattern[name].format(folder) for name, folders in names.items() for folder in folders]
    if layout in ("auto", "flat"):
        places += [f"{split}/image_N.h5", f"{split}/img|images"]
    if layout in ("auto", "hokkaido"):
        places += [f"{split}/{'|'.join(IMAGES)}", f"{split}/*{'|'.join(SUFFIXES)}"]
    if layout in ("auto", "bijie") and split in SPLIT_OF:
        places.append("landslide/image")
    looked = ", ".join(dict.fromkeys(places)) or f"train, validation and test, the splits that layout {layout!r} has"
    entries = [f"{path.name}/" if path.is_dir() else path.name for path in sorted(root.iterdir())]
    there = ", ".join(entries[:12]) + (f" and {len(entries) - 12} more" if entries[12:] else "")
    return (
        f"no patches of split {split!r} (layout {layout!r}) in {root}: looked for {looked}; there is "
        f"{there or 'nothing'}. Set `split` to the folder below {root.name} that holds image_N.h5, pictures, img/ or image/ "
        f"('.' is {root.name} itself), or change `layout` or `root` (--data)"
    )


@contextmanager
def _open(path: Path, key: str) -> Iterator[h5py.Dataset]:
    # Opened and closed inside each call: one handle must not cross a fork.
    try:
        with h5py.File(path, "r") as file:
            data = file.get(key)
            if not isinstance(data, h5py.Dataset) or data.shape is None:
                keys = ", ".join(map(str, file)) or "none"
                raise DataError(f"{path} has no array {key!r}; its keys are {keys}: store it as {key!r}")
            if data.nbytes > LARGEST:  # space that was never written takes no bytes: a tiny file can promise any size
                raise DataError(
                    f"{path} has shape {data.shape} under {key!r}, {data.nbytes / 2**30:.0f} GiB, where a patch takes at "
                    f"most {LARGEST / 2**30:.0f}: download it again, or cut a scene into patches"
                )
            yield data
    except DataError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:  # h5py raises any of them where bytes are damaged
        raise DataError(f"{path} cannot be read ({error}): download or unpack it again") from error


def _bands_last(path: Path, shape: Sequence[int], bands: Bands) -> bool:
    count = len(bands.file)
    # Where both ends fit, the release's convention (H, W, C) decides.
    if len(shape) != 3 or count not in (shape[0], shape[2]):
        raise DataError(
            f"{path} has shape {tuple(shape)}; (H, W, {count}) or ({count}, H, W) is needed for the bands "
            f"{', '.join(bands.file)}: name the bands of the file in `bands.file`"
        )
    return bool(shape[2] == count)


def image_shape(ref: PatchRef, bands: Bands) -> tuple[int, int]:
    """Height and width of a patch's file in pixels, without its values. Raises DataError as `read_image` does."""
    if is_picture(ref.image):
        return picture_shape(ref.image)
    with _open(ref.image, "img") as data:
        shape = data.shape
    height, width = shape[:2] if _bands_last(ref.image, shape, bands) else shape[1:]
    return int(height), int(width)


def band_axis(shape: Sequence[int], count: int | None = None) -> int | None:
    """The axis of an array, 0 or 2, that its bands lie on; None where it has not three.

    That with `count` of them where it is known, the release's (H, W, C) before (C, H, W); else that beside a square, else the
    shorter one.
    """
    if len(shape) != 3:
        return None
    for fits in ((shape[2] == count, shape[0] == count), (shape[0] == shape[1], shape[1] == shape[2])):
        if any(fits):
            return 2 if fits[0] else 0
    return 2 if shape[2] <= shape[0] else 0


def patch_sides(ref: PatchRef) -> tuple[int, int]:
    """Height and width of a patch of unknown bands: all of its shape but its `band_axis`.

    Raises DataError for a broken file, a missing key or another number of axes.
    """
    if is_picture(ref.image):
        return picture_shape(ref.image)
    with _open(ref.image, "img") as data:
        shape = tuple(int(side) for side in data.shape)
    axis = band_axis(shape)
    if axis is None:
        raise DataError(f"{ref.image} has shape {shape}; (H, W, C) or (C, H, W) is needed")
    height, width = shape[:2] if axis else shape[1:]
    return height, width


def read_image(ref: PatchRef, bands: Bands) -> np.ndarray:
    """Read the image of a patch: (C, H, W) float32, the bands of `bands.names` in that order, as stored or made.

    The file holds (H, W, C) or (C, H, W) of any integer or float type under `img`. NaN is kept: statistics leave it out.
    Raises DataError, naming the file, for a broken file, a missing key, other bands, other types or infinite values.
    """
    values = picture_bands(ref, bands) if is_picture(ref.image) else _stored(ref.image, bands)
    chosen = values[list(bands.index)]
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
        image = np.ascontiguousarray(chosen, dtype=np.float32)
    _refuse_infinite(ref, bands.stored, image)
    made = make_bands(image, bands)
    _refuse_infinite(ref, bands.names, made)
    return in_square(made, ref)


def _refuse_infinite(ref: PatchRef, names: Sequence[str], image: np.ndarray) -> None:
    if infinite := [name for name, band in zip(names, image, strict=True) if np.isinf(band).any()]:
        raise DataError(f"{ref.image} is infinite in float32 in {', '.join(infinite)}; write NaN for missing values")


def _stored(path: Path, bands: Bands) -> np.ndarray:
    """The bands of an HDF5 file, (C, H, W) in file order."""
    with _open(path, "img") as data:
        last = _bands_last(path, data.shape, bands)
        if data.dtype.kind not in "fiu":
            raise DataError(f"{path} holds {data.dtype} under 'img'; store integers or floats")
        values: np.ndarray = data[()]
    return np.moveaxis(values, -1, 0) if last else values


def read_mask(ref: PatchRef, positive: Sequence[int] | None = None, ignore: Sequence[int] | None = None) -> np.ndarray:
    """Read the mask of a patch: (H, W) uint8, 1 for values in `positive`, 255 for those in `ignore`, 0 for 0.

    Where one of them is given, the other is (1,) or (255,), and every value means what they say. Where neither is, they are
    (1,) and (255,), but a picture of 0 and 255 alone is one of background and landslide.
    An HDF5 file holds (H, W), (H, W, 1) or (1, H, W) under `mask`.
    Raises DataError, naming the file, for a missing or broken file, another shape, or a value that is none of these;
    RecipeError where a value would mean two things.
    """
    guess = positive is None and ignore is None
    positive, ignore = LANDSLIDE if positive is None else positive, UNLABELLED if ignore is None else ignore
    if twice := sorted({*positive} & {*ignore} | {0} & {*positive, *ignore}):
        why = "0 is the background" if twice[0] == 0 else "it is in both"
        raise RecipeError(f"mask value {twice[0]} has two meanings ({why}): take it out of `positive` or `ignore`")
    if ref.background:
        return in_square(np.zeros(picture_shape(ref.image), np.uint8), ref)
    if ref.mask is None:
        raise DataError(f"patch {ref.id} has no mask beside {ref.image}: use it as an unlabelled target")
    values = mask_of_picture(ref.mask, ref.image, guess) if is_picture(ref.mask) else read_plane(ref.mask)
    strange = np.setdiff1d(values, [0, *positive, *ignore])
    if strange.size:
        some = ", ".join(f"{value:g}" for value in strange[:8].astype(float))
        raise DataError(
            f"{ref.mask} holds {some}, beside background 0, positive {[*positive]} and ignore {[*ignore]}: "
            f"put the value under `positive` or `ignore`"
        )
    mask = np.where(np.isin(values, [*ignore]), 255, np.isin(values, [*positive])).astype(np.uint8)
    return in_square(mask, ref)


def read_array(path: Path, key: str) -> np.ndarray:
    """The array under `key` of an HDF5 file, as stored. Raises DataError for a broken file or a missing key."""
    with _open(path, key) as data:
        return np.asarray(data[()])


def read_plane(path: Path) -> np.ndarray:
    """The mask of a file, (H, W) with the values stored. Raises DataError for a broken file, no `mask`, another shape."""
    with _open(path, "mask") as data:
        if data.dtype.kind not in "fiub":
            raise DataError(f"{path} holds {data.dtype} under 'mask'; store integers")
        values: np.ndarray = data[()]
    if values.ndim == 3 and 1 in (values.shape[2], values.shape[0]):
        values = np.squeeze(values, axis=2 if values.shape[2] == 1 else 0)
    if values.ndim != 2:
        raise DataError(f"{path} has shape {values.shape}; (H, W), (H, W, 1) or (1, H, W) is needed")
    return values
