"""Pictures as arrays: modes, masks, DEMs, sizes that are off, and files that are none."""

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from picture_factory import BGRD, RGB, RGBD, save
from PIL import Image

from l4s.data.bands import Bands
from l4s.data.patch import PatchRef
from l4s.data.pictures import mask_of_picture, picture_bands, picture_shape, read_colours, read_dem
from l4s.data.readers import image_shape, read_image, read_mask
from l4s.errors import DataError

rasterio = pytest.importorskip("rasterio")

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, size=(4, 6, 3)).astype(np.uint8)


def ref(tmp_path: Path, **files: Path) -> PatchRef:
    image = files.pop("image", None) or save(tmp_path / "image" / "a.png", PICTURE)
    return PatchRef("a", 1, image, files.pop("mask", None), **files)


def geotiff(path: Path, values: np.ndarray, **about) -> Path:
    """(C, H, W) of any type, as GDAL writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    about |= {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype}
    with rasterio.open(path, "w", transform=rasterio.Affine(10, 0, 0, 0, -10, 0), crs="EPSG:32654", **about) as file:
        file.write(values)
    return path


def test_channels_in_the_order_of_the_file(tmp_path):
    image = read_image(ref(tmp_path), RGB)
    assert image.dtype == np.float32 and image.shape == (3, 4, 6)
    np.testing.assert_array_equal(image, np.moveaxis(PICTURE, -1, 0))
    swapped = read_image(ref(tmp_path), Bands(file=("b", "g", "r"), use=("r", "g", "b"), rgb=("r", "g", "b")))
    np.testing.assert_array_equal(swapped, np.moveaxis(PICTURE, -1, 0)[::-1])
    assert image_shape(ref(tmp_path), RGB) == (4, 6)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_palettes_and_alpha(tmp_path, mode):
    few = PICTURE // 128 * 128  # colours that a palette holds
    path = save(tmp_path / "a.png", few, mode)
    assert Image.open(path).mode == mode
    if mode == "P":
        with Image.open(path) as picture:
            few = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(read_colours(path), np.moveaxis(few, -1, 0))


def test_a_palette_with_transparent_entries(tmp_path):
    picture = Image.fromarray(PICTURE // 128 * 128).convert("P")
    picture.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    assert read_colours(tmp_path / "a.png").shape == (3, 4, 6)


def test_a_fourth_channel_that_is_no_alpha(tmp_path):
    values = RNG.integers(0, 256, size=(4, 4, 6)).astype(np.uint8)
    for number, photometric in enumerate(("RGB", "CMYK", "MINISBLACK")):
        path = geotiff(tmp_path / f"{number}.tif", values, photometric=photometric, alpha="NO", interleave="pixel")
        with pytest.raises(DataError, match=f"{number}.tif has (the channels (RGBX|CMYK)|4 channels)"):
            read_colours(path)


def test_grey_is_repeated(tmp_path):
    image = read_colours(save(tmp_path / "a.png", PICTURE[..., 0]))
    np.testing.assert_array_equal(image, np.stack([PICTURE[..., 0]] * 3))


def test_a_deep_grey_is_no_picture(tmp_path):
    path = save(tmp_path / "a.png", PICTURE[..., 0].astype(np.uint16) * 256)
    with pytest.raises(DataError, match="a.png has one channel of more than 8 bits"):
        read_colours(path)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int16])
def test_geotiffs_of_several_deep_channels(tmp_path, dtype):
    values = (np.moveaxis(PICTURE, -1, 0).astype(np.float64) * 37).astype(dtype)
    path = geotiff(tmp_path / "a.tif", values)
    np.testing.assert_array_equal(read_colours(path), values.astype(np.float32))
    assert picture_shape(path) == (4, 6)


def test_interleaved_16_bits_are_not_cut_to_8(tmp_path):
    """Pillow opens such a file, and drops the lower bytes."""
    values = np.moveaxis(PICTURE, -1, 0).astype(np.uint16) * 100 + 7
    path = geotiff(tmp_path / "a.tif", values, interleave="pixel", photometric="RGB")
    np.testing.assert_array_equal(read_colours(path), values)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("packed", [{}, {"compress": "lzw"}])
def test_channels_one_after_the_other(tmp_path, dtype, packed):
    """Pillow takes such a file for the first of its channels, or for broken."""
    values = np.moveaxis(PICTURE, -1, 0).astype(dtype)
    path = geotiff(tmp_path / "a.tif", values, interleave="band", photometric="MINISBLACK", **packed)
    np.testing.assert_array_equal(read_colours(path), values)
    five = geotiff(tmp_path / "b.tif", np.concatenate([values, values[:2]]), interleave="band", **packed)
    with pytest.raises(DataError, match="b.tif has 5 channels"):
        read_colours(five)
    with pytest.raises(DataError, match="c.tif has 2 channels"):
        read_dem(geotiff(tmp_path / "c.tif", values[:2], interleave="band", photometric="MINISBLACK", **packed))


def test_pages_are_no_channels(tmp_path):
    pages = [Image.fromarray(PICTURE[..., channel]) for channel in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    for read in (read_colours, read_dem, picture_shape):
        with pytest.raises(DataError, match="a.tif holds several pages"):
            read(tmp_path / "a.tif")
    large = RNG.integers(0, 256, size=(3, 64, 80)).astype(np.uint8)
    with rasterio.open(geotiff(tmp_path / "b.tif", large, photometric="RGB"), "r+") as file:
        file.build_overviews([2, 4])  # pages of their own, of the same picture
    np.testing.assert_array_equal(read_colours(tmp_path / "b.tif"), large)


def test_numbers_that_pillow_wraps_around(tmp_path):
    heights = np.array([[[3_000_000_000, 7]]], np.uint32)
    np.testing.assert_array_equal(read_dem(geotiff(tmp_path / "a.tif", heights)), np.float32(heights[0]))
    missing = geotiff(tmp_path / "b.tif", np.array([[[2**32 - 1, 7]]], np.uint32), nodata=2**32 - 1)
    np.testing.assert_array_equal(read_dem(missing), [[np.nan, 7]])
    below = geotiff(tmp_path / "c.tif", np.array([[[-1, 0, 5]]], np.int8))
    np.testing.assert_array_equal(read_dem(below), [[-1, 0, 5]])


def test_alpha_of_16_bits_is_left_out_too(tmp_path):
    values = RNG.integers(0, 2**16, size=(4, 4, 6)).astype(np.uint16)
    with rasterio.open(tmp_path / "a.png", "w", driver="PNG", count=4, height=4, width=6, dtype="uint16") as file:
        file.write(values)
    np.testing.assert_array_equal(read_colours(tmp_path / "a.png"), values[:3])


def test_a_png_of_16_bits_a_colour_is_not_cut_either(tmp_path):
    values = PICTURE.astype(np.uint16) * 100 + 7
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 6, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    np.testing.assert_array_equal(read_colours(tmp_path / "a.png"), np.moveaxis(values, -1, 0))


def test_what_a_geotiff_says_is_missing(tmp_path):
    values = np.array([[[1.0, -9999.0], [3.0, 4.0]]], np.float32)
    np.testing.assert_array_equal(
        read_dem(geotiff(tmp_path / "a.tif", values, nodata=-9999)), [[1, np.nan], [3, 4]], strict=False
    )
    three = np.concatenate([values] * 3)
    assert np.isnan(read_colours(geotiff(tmp_path / "b.tif", three, nodata=-9999))).sum() == 3
    partly = np.array([[[0, 0, 9]], [[5, 0, 0]], [[9, 0, 7]]], np.uint8)  # dark red alone is no hole
    found = read_colours(geotiff(tmp_path / "d.tif", partly, nodata=0))
    np.testing.assert_array_equal(found, [[[0, np.nan, 9]], [[5, np.nan, 0]], [[9, np.nan, 7]]])
    deep = read_colours(geotiff(tmp_path / "e.tif", partly.astype(np.uint16), nodata=0))
    np.testing.assert_array_equal(deep, found)
    lowest = float(np.finfo(np.float32).min)
    assert np.isnan(read_dem(geotiff(tmp_path / "c.tif", np.float32([[[lowest, 1.0]]]), nodata=lowest))).sum() == 1


def test_without_rasterio_the_extra_is_named(tmp_path, monkeypatch):
    path = geotiff(tmp_path / "a.tif", np.zeros((3, 2, 2), np.uint16))
    monkeypatch.delitem(sys.modules, "l4s.scene", raising=False)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(DataError, match=r"a.tif has channels of more than 8 bits.*l4s\[geo\]"):
        read_colours(path)
    assert read_colours(save(tmp_path / "b.tif", PICTURE)).shape == (3, 4, 6)  # these need none


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_heights_of_8_bits(tmp_path, mode):
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    np.testing.assert_array_equal(read_dem(save(tmp_path / "a.png", grey, mode)), grey)


@pytest.mark.parametrize(("dtype", "suffix"), [(np.uint16, "png"), (np.uint16, "tif"), (np.float32, "tif")])
def test_heights_of_more_bits(tmp_path, dtype, suffix):
    metres = (np.arange(24).reshape(4, 6) * 1000 // 7).astype(dtype)
    found = read_dem(save(tmp_path / f"a.{suffix}", metres))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, metres)


def test_heights_have_one_channel(tmp_path):
    with pytest.raises(DataError, match="a.tif has 2 channels, where the one of a DEM is needed"):
        read_dem(geotiff(tmp_path / "a.tif", np.zeros((2, 3, 3), np.float32)))


def test_the_dem_is_the_last_band(tmp_path):
    patch = ref(tmp_path, dem=save(tmp_path / "dem" / "a.png", PICTURE[..., 0]))
    image = read_image(patch, RGBD)
    assert image.shape == (4, 4, 6)
    np.testing.assert_array_equal(image[3], PICTURE[..., 0])
    np.testing.assert_array_equal(read_image(patch, BGRD.model_copy(update={"use": ("dem", "b")}))[0], PICTURE[..., 0])


@pytest.mark.parametrize("shape", [(5, 6), (4, 5), (6, 8), (2, 4)])
def test_a_dem_a_pixel_off_is_resized(tmp_path, shape):
    patch = ref(tmp_path, dem=save(tmp_path / "dem" / "a.png", np.full(shape, 9, np.uint8)))
    image = read_image(patch, RGBD)
    assert image.shape == (4, 4, 6) and (image[3] == 9).all()


def test_a_dem_of_another_size_is_an_error(tmp_path):
    patch = ref(tmp_path, dem=save(tmp_path / "dem" / "a.png", np.zeros((4, 9), np.uint8)))
    with pytest.raises(
        DataError, match=r"dem/a.png is 4 x 9 pixels .* its picture .*image/a.png 4 x 6, more than 2 off"
    ):
        read_image(patch, RGBD)
    assert read_image(patch, RGB).shape == (3, 4, 6)  # a DEM that no band uses is not looked at


def test_a_missing_dem_is_a_missing_band_group(tmp_path):
    bands = Bands(file=("r", "g", "b", "height"), groups={"rgb": ("r", "g", "b"), "terrain": ("height",)})
    with pytest.raises(
        DataError, match=r"group 'terrain' .*a.png, a.tif, a.tiff in .*dem, but there is no such folder"
    ):
        read_image(ref(tmp_path), bands)
    (tmp_path / "dem").mkdir()
    with pytest.raises(
        DataError, match=r"no such file.*bands.use = \[\"r\", \"g\", \"b\"\], which runs on the pictures"
    ):
        read_image(ref(tmp_path), bands)
    assert read_image(ref(tmp_path), bands.model_copy(update={"use": ("r", "b")})).shape == (2, 4, 6)


def test_a_dem_is_read_for_what_is_made_of_it(tmp_path):
    bands = Bands.model_validate(
        {
            "file": ("r", "g", "b", "dem"),
            "make": {"height": {"how": "mean", "of": ("dem",)}},
            "use": ("r", "height"),
        }
    )
    with pytest.raises(DataError, match="band group 'dem'"):
        read_image(ref(tmp_path), bands)
    patch = ref(tmp_path, dem=save(tmp_path / "dem" / "a.png", PICTURE[..., 0]))
    np.testing.assert_array_equal(read_image(patch, bands)[1], PICTURE[..., 0])


def test_bands_that_a_picture_cannot_have(tmp_path):
    with pytest.raises(DataError, match="bands.file names 2 bands"):
        picture_bands(ref(tmp_path), Bands(file=("a", "b")))
    with pytest.raises(DataError, match="bands.file names 14 bands"):
        read_image(ref(tmp_path), Bands())


MASK = np.array([[0, 1, 1, 0, 0, 0]] * 4, np.uint8)


@pytest.mark.parametrize(
    ("factor", "mode"), [(1, "L"), (255, "L"), (255, "1"), (255, "RGB"), (255, "P"), (255, "RGBA")]
)
def test_masks_of_0_and_1_and_of_0_and_255(tmp_path, factor, mode):
    path = save(tmp_path / "mask" / "a.png", MASK * np.uint8(factor), mode)
    mask = read_mask(ref(tmp_path, mask=path))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize("value", [0, 255, 1])
def test_a_mask_of_one_value(tmp_path, value):
    path = save(tmp_path / "mask" / "a.png", np.full((4, 6), value, np.uint8))
    assert (read_mask(ref(tmp_path, mask=path)) == bool(value)).all()


def test_a_palette_of_two_colours_is_read_by_its_colours(tmp_path):
    picture = Image.fromarray(1 - MASK, "P")
    picture.putpalette([255, 255, 255, 0, 0, 0])
    (tmp_path / "mask").mkdir()
    picture.save(tmp_path / "mask" / "a.png")
    np.testing.assert_array_equal(read_mask(ref(tmp_path, mask=tmp_path / "mask" / "a.png")), MASK)


@pytest.mark.parametrize("off", [(5, 6), (4, 7), (2, 8)])
def test_a_mask_a_pixel_off_is_resized(tmp_path, off):
    path = save(tmp_path / "mask" / "a.png", np.full(off, 255, np.uint8))
    assert read_mask(ref(tmp_path, mask=path)).tolist() == np.ones((4, 6)).tolist()


def test_a_mask_of_another_size_is_an_error(tmp_path):
    path = save(tmp_path / "mask" / "a.png", np.zeros((7, 6), np.uint8))
    with pytest.raises(DataError, match="mask/a.png is 7 x 6 pixels .* its picture .*image/a.png 4 x 6"):
        read_mask(ref(tmp_path, mask=path))


@pytest.mark.parametrize(
    ("values", "told"), [((0, 1, 255), "holds 0, 1, 255: beside 255"), ((0, 128), "a.png holds 128")]
)
def test_stray_values(tmp_path, values, told):
    mask = np.resize(np.array(values, np.uint8), (4, 6))
    path = save(tmp_path / "mask" / "a.png", mask)
    with pytest.raises(DataError, match=told):
        read_mask(ref(tmp_path, mask=path))


def test_what_the_domain_says_of_values_is_what_they_mean(tmp_path):
    mask = np.resize(np.array([0, 1, 255], np.uint8), (4, 6))
    patch = ref(tmp_path, mask=save(tmp_path / "mask" / "a.png", mask))
    assert read_mask(patch, positive=(255,), ignore=(1,))[0].tolist() == [0, 255, 1, 0, 255, 1]


@pytest.mark.parametrize("said", [{"ignore": (255,)}, {"positive": (1,)}, {"positive": (1,), "ignore": (255,)}])
def test_what_the_domain_says_is_taken_literally_even_at_the_defaults(tmp_path, said):
    mask = np.resize(np.array([0, 1, 255], np.uint8), (4, 6))
    patch = ref(tmp_path, mask=save(tmp_path / "mask" / "a.png", mask))
    np.testing.assert_array_equal(read_mask(patch, **said), mask)
    two = np.resize(np.array([0, 255], np.uint8), (4, 6))
    patch = ref(tmp_path, mask=save(tmp_path / "mask" / "b.png", two))
    np.testing.assert_array_equal(read_mask(patch, **said), two)
    np.testing.assert_array_equal(read_mask(patch), two == 255)
    np.testing.assert_array_equal(read_mask(patch, positive=(255,), ignore=()), two == 255)


def test_a_coloured_mask_is_an_error(tmp_path):
    path = save(tmp_path / "mask" / "a.png", PICTURE)
    with pytest.raises(DataError, match="a.png is coloured"):
        mask_of_picture(path, path, True)


def test_masks_of_deep_tiffs(tmp_path):
    path = geotiff(tmp_path / "mask" / "a.tif", MASK[None].astype(np.int16), nodata=0)
    np.testing.assert_array_equal(read_mask(ref(tmp_path, mask=path)), MASK)


def test_background_throughout(tmp_path):
    patch = PatchRef("a", 1, save(tmp_path / "image" / "a.png", PICTURE), None, background=True)
    assert patch.labelled and read_mask(patch).tolist() == np.zeros((4, 6)).tolist()


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_broken_files(tmp_path, suffix, keep):
    path = save(tmp_path / f"a.{suffix}", RNG.integers(0, 256, size=(40, 40, 3)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(DataError, match=f"a.{suffix}"):
        read_colours(path)
    with pytest.raises(DataError, match=f"a.{suffix}"):
        read_colours(tmp_path / f"gone-a.{suffix}")


def test_other_formats_by_the_name_of_a_picture(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match="a.png is no PNG: convert it"):
        read_colours(tmp_path / "a.png")
    text = '<VRTDataset rasterXSize="1" rasterYSize="1"></VRTDataset>'
    (tmp_path / "a.tif").write_text(text)  # GDAL would open what such a file names
    with pytest.raises(DataError, match="a.tif cannot be read"):
        read_colours(tmp_path / "a.tif")


def test_a_picture_that_promises_too_much(tmp_path):
    """A few bytes can promise any size: it is refused before anything is unpacked."""
    for side, told in ((2**13 + 1, "is 8193 x 8193 pixels"), (2**14, "is a scene"), (2**20, "is a scene")):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
        data = b"".join(struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
        for read in (read_colours, picture_shape):
            with pytest.raises(DataError, match=f"a.png {told}.* or map it as a scene"):
                read(tmp_path / "a.png")
