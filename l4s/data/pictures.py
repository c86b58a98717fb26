"""Patches that are pictures: PNG and TIFF files of red, green and blue, of a mask, of heights, as arrays.

Bijie's masks hold 0 and 1 or 0 and 255, its pictures may have a palette or alpha, and files of one patch may differ by a
pixel in size. Pillow reads what it can hold without loss; the rest, such as GeoTIFFs of several channels of
16 bits or floats, or band after band, goes through GDAL.
"""

import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from l4s.data.bands import Bands
from l4s.data.fitting import nearest, resize
from l4s.data.patch import PatchRef
from l4s.errors import DataError

SUFFIXES = (".png", ".tif", ".tiff")
IMAGES = ("image", "images", "img")  # names that a folder of pictures has where masks and DEMs lie beside it
DEM_FOLDER = "dem"
CHANNELS = 3  # of a picture; what bands.file names behind them is the DEM
OFF = 2  # pixels that a mask or a DEM may differ from its picture in height or width
MOST = 2**26  # pixels of a picture, 1 GiB with its DEM in float32: what is larger is a scene
DEEP = ("I", "F")  # how Pillow's modes of more than 8 bits begin
PLAIN = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # and those of 8 bits that a picture may have
PAGE, BITS, SAMPLES, KINDS, NODATA = 254, 258, 277, 339, 42113
"""Tags of a TIFF: what a page is, the bits of each channel, their number, kinds of numbers, GDAL's value for missing."""
OF_THE_FIRST = 1 | 4  # a page that is the first at a coarser resolution, or its mask
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
HELD = {(1, UNSIGNED), (8, UNSIGNED), (16, UNSIGNED), (16, SIGNED), (32, SIGNED), (32, FLOAT), (64, FLOAT)}
"""Bits and kind of one channel that Pillow holds."""
PNG_DEPTH = 24  # byte of a PNG that holds the bits of a channel

# What Pillow raises on broken bytes; ValueError covers struct's and zlib's relatives.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)
Convert = Callable[[Image.Image], Image.Image]


def is_picture(path: Path) -> bool:
    """Is this a picture by its name, and no HDF5 file?"""
    return path.suffix.lower() in SUFFIXES


def picture_shape(path: Path) -> tuple[int, int]:
    """Height and width of a picture in pixels, without its values.

    Raises:
        DataError: the file is broken, or larger than a patch can be.
    """
    with _opened(path) as image:
        shape: tuple[int, int] = _gdal(path).picture_shape(path) if image is None else (image.height, image.width)
        return shape


def picture_bands(ref: PatchRef, bands: Bands) -> np.ndarray:
    """The bands of a picture in file order, (3, H, W) float32, or (4, H, W) with the DEM where `bands` reads it.

    A DEM that is at most `OFF` pixels larger or smaller than its picture is resized to it, bilinear.

    Raises:
        DataError: a file is broken or missing, the DEM has another size, or `bands.file` names too few or too many.
    """
    if len(bands.file) not in (CHANNELS, CHANNELS + 1):
        raise DataError(
            f"{ref.image} is a picture, but bands.file names {len(bands.file)} bands ({', '.join(bands.file)}): name the "
            'three of the picture in the order of the file, and perhaps that of the DEM last, ["r", "g", "b", "dem"]'
        )
    colours = read_colours(ref.image)
    if not reads_dem(bands):
        return colours
    if ref.dem is None:
        raise DataError(_no_dem(ref, bands))
    return np.concatenate([colours, dem_of_picture(ref.dem, ref.image)[None]])


def dem_of_picture(path: Path, image: Path) -> np.ndarray:
    """Heights as `read_dem` gives them, at the size of their picture: resized, bilinear, where they are at most `OFF` pixels off.

    Raises:
        DataError: a file is broken, or the DEM is of another size.
    """
    return _to_size(read_dem(path), path, image, picture_shape(image), resize)


def around(images: Path) -> Path:
    """Where the folders of masks and DEMs of a folder of pictures lie: beside it, or in it where it is not called `image`.

    Beside a folder of any other name, `mask` may be somebody else's.
    """
    here = images if images.name else images.resolve()  # `.` has no name
    return here.parent if here.name in IMAGES else images


def reads_dem(bands: Bands) -> bool:
    """Is the DEM of a picture read? Only where a band that the model sees is the DEM, or is made of it."""
    return bool(set(bands.file[CHANNELS:]) & set(bands.stored))


def _no_dem(ref: PatchRef, bands: Bands) -> str:
    band = bands.file[-1]
    group = next((name for name, members in bands.groups.items() if band in members), band)
    folder = around(ref.image.parent) / DEM_FOLDER
    looked = ", ".join(f"{ref.image.stem}{suffix}" for suffix in SUFFIXES)
    found = "there is no such file" if folder.is_dir() else "there is no such folder"
    pictures = '", "'.join(bands.file[:CHANNELS])
    return (
        f"the band group {group!r} of {ref.image} is missing: looked for {looked} in {folder}, but {found}. Put the DEM "
        f'there, or leave it out with bands.use = ["{pictures}"], which runs on the pictures alone'
    )


def read_colours(path: Path) -> np.ndarray:
    """A picture as (3, H, W) float32, its channels in file order, values as stored.

    NaN where a GeoTIFF has no data, which is where all channels say so: one alone may have that value by chance, as the red
    of dark ground is 0. Palettes are looked up, alpha is left out, grey is repeated.

    Raises:
        DataError: the file is broken, or has other channels.
    """
    values, nodata = _read(path, _as_colours)
    if values.ndim == 2 or values.shape[2] != CHANNELS:
        found = "one channel of more than 8 bits" if values.ndim == 2 else f"{values.shape[2]} channels"
        raise DataError(f"{path} has {found}, where the three of a picture are needed")
    return np.ascontiguousarray(np.moveaxis(_floats(values, nodata), -1, 0))


def read_dem(path: Path) -> np.ndarray:
    """Heights as (H, W) float32, values as stored: 8-bit grey (colours are made grey), 16-bit grey, or floats.

    NaN where a TIFF has no data.

    Raises:
        DataError: the file is broken, or has several channels of more than 8 bits.
    """
    values, nodata = _read(path, lambda image: image if image.mode.startswith(DEEP) else image.convert("L"))
    if values.ndim != 2:
        raise DataError(f"{path} has {values.shape[2]} channels, where the one of a DEM is needed")
    return _floats(values, nodata)


def mask_of_picture(path: Path, image: Path, guess: bool) -> np.ndarray:
    """A mask as stored, (H, W), at the size of its picture: one that is at most `OFF` pixels off is resized, nearest.

    Args:
        guess: whether nobody says what values of masks mean: then a mask that holds 255 holds 0 beside it and nothing else,
            and 255 becomes 1 (Bijie: 0/255, some copies 0/1).

    Raises:
        DataError: the file is broken, coloured or of another size, or its values contradict each other.
    """
    values, _ = _read(path, _as_mask)
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            raise DataError(f"{path} is coloured: store a mask in grey, 0 and 1 or 0 and 255")
        values = values[..., 0]
    found = set(np.unique(values).tolist())
    if guess and 255 in found:
        if not found <= {0, 255}:
            told = ", ".join(f"{value:g}" for value in sorted(found)[:8])
            raise DataError(
                f"{path} holds {told}: beside 255 a mask holds 0 alone, and 255 is landslide. Store 0 and 1 or 0 and 255, or "
                "say what the values mean: positive = [1] and ignore = [255] in the domain, where 255 is not labelled"
            )
        values = (values == 255).astype(np.uint8)
    return _to_size(values, path, image, picture_shape(image), nearest)


def _to_size(
    values: np.ndarray,
    path: Path,
    image: Path,
    shape: tuple[int, ...],
    to: Callable[[np.ndarray, tuple[int, int]], np.ndarray],
) -> np.ndarray:
    """A plane on the pixels of its picture."""
    height, width = shape
    if values.shape == (height, width):
        return values
    if max(abs(values.shape[0] - height), abs(values.shape[1] - width)) > OFF:
        raise DataError(
            f"{path} is {values.shape[0]} x {values.shape[1]} pixels (height x width), but its picture {image} "
            f"{height} x {width}, more than {OFF} off: make it on the same pixels"
        )
    return to(values, (height, width))


def _as_colours(image: Image.Image) -> Image.Image:
    if image.mode.startswith(DEEP):
        return image
    if image.mode not in PLAIN:
        name = getattr(image, "filename", "a picture")
        raise DataError(f"{name} has the channels {image.mode}, where the three of a picture are needed")
    # a palette with transparent entries goes to RGB by way of RGBA only
    return image.convert("RGBA").convert("RGB") if image.mode in ("P", "PA") else image.convert("RGB")


def _as_mask(image: Image.Image) -> Image.Image:
    if image.mode.startswith(DEEP) or image.mode in ("L", "1"):
        return image
    return image.convert("L") if image.mode == "LA" else _as_colours(image)


def _floats(values: np.ndarray, nodata: float | None) -> np.ndarray:
    """(H, W) or (H, W, C) as float32, NaN where a pixel is missing in all channels."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is infinite in float32 is refused by whoever reads bands
        plain = np.asarray(values, np.float32)
        if nodata is None:
            return plain
        missing = plain == np.float32(nodata)
    return np.where(missing if missing.ndim == 2 else missing.all(-1, keepdims=True), np.float32(np.nan), plain)


def _read(path: Path, convert: Convert) -> tuple[np.ndarray, float | None]:
    """The pixels of a file, (H, W) or (H, W, C), and what stands for missing ones, None where nothing does."""
    with _opened(path) as image:
        if image is None:
            values, nodata = _gdal(path).read_picture(path, MOST)
            return values[0] if len(values) == 1 else np.moveaxis(values, 0, -1), nodata
        nodata = _nodata(path, image)
        return np.asarray(convert(image)), nodata


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image | None]:
    """A file in Pillow, which reads the pixels when they are asked for; None where GDAL must read it.

    That is a TIFF that Pillow does not know, and what it would cut or wrap without a word. What libraries raise on broken
    bytes becomes a DataError that names the file.
    """
    try:
        image = _pillow(path)
        if image is None:
            yield None
            return
        with image:
            if image.width * image.height > MOST:
                raise DataError(_too_large(path, f"is {image.width} x {image.height} pixels"))
            if isinstance(image, TiffImageFile):
                _refuse_pages(path, image)
            yield None if _loses(path, image) else image
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(path, "is a scene by its size")) from error
    except BROKEN as error:
        raise DataError(f"{path} cannot be read ({error}): download or unpack it again") from error


def _pillow(path: Path) -> Image.Image | None:
    try:
        return Image.open(path, formats=("PNG", "TIFF"))
    except UnidentifiedImageError as error:
        if path.suffix.lower() == ".png":
            raise DataError(f"{path} is no PNG: convert it to one, or download or unpack it again") from error
        return None


def _too_large(path: Path, found: str) -> str:
    return f"{path} {found}, where a patch has at most {MOST} pixels: cut it, or map it as a scene"


def _refuse_pages(path: Path, image: TiffImageFile) -> None:
    """One picture is in a file: what follows it may only be the same at a coarser resolution, or its mask."""
    for page in range(1, image.n_frames):
        image.seek(page)
        if not image.tag_v2.get(PAGE, 0) & OF_THE_FIRST:
            raise DataError(f"{path} holds several pages: store one picture with all its channels")
    image.seek(0)


def _loses(path: Path, image: Image.Image) -> bool:
    """Would Pillow cut bits, leave out channels or wrap numbers around?"""
    if not isinstance(image, TiffImageFile):
        with path.open("rb") as file:
            return not image.mode.startswith(DEEP) and file.read(PNG_DEPTH + 1)[PNG_DEPTH] > 8
    tags, channels = image.tag_v2, len(image.getbands())
    if tags.get(SAMPLES, 1) != channels:
        return True
    found = set(itertools.zip_longest(tags.get(BITS, (1,)), tags.get(KINDS, ()), fillvalue=UNSIGNED))
    return image.mode != "P" and not found <= (HELD if channels == 1 else {(8, UNSIGNED)})


def _nodata(path: Path, image: Image.Image) -> float | None:
    """The value of missing pixels, where a GeoTIFF names one."""
    text = image.tag_v2.get(NODATA) if isinstance(image, TiffImageFile) else None
    if text is None:
        return None
    try:
        return float(str(text).strip("\0 "))
    except ValueError as error:
        raise DataError(f"{path}: its nodata value {text!r} is no number; write the file again") from error


def _gdal(path: Path) -> ModuleType:
    """The room that reads rasters, which needs the extra `geo`."""
    try:
        from l4s.scene import raster
    except DataError as error:
        raise DataError(
            f"{path} has channels of more than 8 bits, or lies in a way that Pillow does not read whole; {error}"
        ) from error
    return raster
