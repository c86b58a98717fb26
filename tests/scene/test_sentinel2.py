"""A Sentinel-2 product and a DEM as a scene of the release: generated products of known numbers come out known."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.warp import transform as transform_points
from rasterio.warp import transform_bounds
from scene_factory import NORTH_UP, UTM54, write_scene

from l4s.data.bands import L4S_BANDS
from l4s.data.spectra import IMG_MEAN, METRES
from l4s.errors import DataError, RecipeError
from l4s.scene import product, sentinel2
from l4s.scene.product import band_of, find_metadata, find_product, read_metadata
from l4s.scene.raster import Grid, covers, open_scene, reading
from l4s.scene.resample import enlarge, horn
from l4s.scene.sentinel2 import convert

H, W = 60, 72  # pixels of 10 m
NAMES = tuple(f"B{number:02d}" for number in range(1, 13))
COARSE = dict(zip(NAMES, METRES, strict=True))
TILE = "T54TXN_20180910T012651"
LEFT, TOP = NORTH_UP[2], NORTH_UP[5]

XML = """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-1C_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-1C.xsd">
<n1:General_Info><Product_Info><PROCESSING_LEVEL>Level-{level}</PROCESSING_LEVEL>
<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></Product_Info>
<Product_Image_Characteristics><QUANTIFICATION_VALUE unit="none">{scale}</QUANTIFICATION_VALUE>{offsets}
</Product_Image_Characteristics></n1:General_Info></n1:Level-1C_User_Product>
"""
BOMB = """<?xml version="1.0"?>
<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<x><PROCESSING_LEVEL>&c;</PROCESSING_LEVEL><PROCESSING_BASELINE>02.06</PROCESSING_BASELINE></x>
"""


def metadata(path: Path, baseline="02.06", level="1C", offsets=None, scale=10_000) -> Path:
    tag = "RADIO_ADD_OFFSET" if level == "1C" else "BOA_ADD_OFFSET"
    listed = "".join(f'<{tag} band_id="{number}">{value}</{tag}>' for number, value in enumerate(offsets or ()))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(XML.format(level=level, baseline=baseline, offsets=f"<List>{listed}</List>", scale=scale))
    return path


def grid_of(metres: int) -> tuple[float, ...]:
    return (float(metres), 0.0, LEFT, 0.0, -float(metres), TOP)


def constants() -> dict[str, np.ndarray]:
    """Every band at its own resolution, each another number."""
    return {
        name: np.full((H * 10 // metres, W * 10 // metres), 2000 + 100 * number, np.uint16)
        for number, (name, metres) in enumerate(COARSE.items())
    }


def write_bands(folder: Path, bands: dict[str, np.ndarray], name: str = TILE + "_{}") -> list[Path]:
    paths = []
    for band, values in bands.items():
        path = folder / f"{name.format(band)}.tif"
        metres = H * 10 // len(values)
        write_scene(path, values[None], ("numbers",), transform=grid_of(metres))
        paths.append(path)
    return paths


def write_safe(root: Path, bands: dict[str, np.ndarray], **about) -> Path:
    safe = root / "S2A_MSIL1C_20180910T012651_N0206_R074_T54TXN_20180910T031500.SAFE"
    metadata(safe / "MTD_MSIL1C.xml", **about)
    granule = safe / "GRANULE" / "L1C_T54TXN_A016811_20180910T012650"
    write_bands(granule / "IMG_DATA", bands)
    write_bands(granule / "QI_DATA", {"B02": np.ones((H, W), np.uint16)}, "MSK_QUALIT_{}")
    write_bands(granule / "IMG_DATA", {"TCI": np.ones((H, W), np.uint16)})
    return safe


def plane(path: Path, *, east=0.3, south=0.4, step=30.0, margin=90.0, height=500.0, crs=UTM54) -> Path:
    """A plane that rises by these metres a metre; its grid of `step` metres reaches `margin` beyond the scene."""
    rows, columns = (int(np.ceil((side * 10 + 2 * margin) / step)) for side in (H, W))
    down, right = (np.arange(count) * step + step / 2 - margin for count in (rows, columns))
    dem = (height + south * down[:, None] + east * right[None]).astype(np.float32)
    grid = (step, 0.0, LEFT - margin, 0.0, -step, TOP + margin)
    write_scene(path, dem[None], ("elevation",), transform=grid, crs=crs)
    return path


@pytest.fixture
def safe(tmp_path: Path) -> Path:
    return write_safe(tmp_path, constants())


@pytest.fixture
def dem(tmp_path: Path) -> Path:
    return plane(tmp_path / "dem.tif")


def raw(path: Path) -> np.ndarray:
    """(14, H, W) in digital numbers, degrees and metres."""
    with rasterio.open(path) as source:
        return source.read().astype(np.float64) * IMG_MEAN[:, None, None]


def test_every_band_has_its_place_and_unit(tmp_path, safe, dem):
    made = convert([safe], dem, tmp_path / "out.tif")
    scene = open_scene(tmp_path / "out.tif")
    assert scene.bands == L4S_BANDS and scene.dtype == "float32" and np.isnan(scene.nodata)
    assert (scene.grid.height, scene.grid.width, scene.grid.transform) == (H, W, NORTH_UP)
    assert rasterio.crs.CRS.from_wkt(scene.grid.crs) == rasterio.crs.CRS.from_string(UTM54)
    values = raw(tmp_path / "out.tif")
    for band in range(12):
        np.testing.assert_allclose(values[band], 2000 + 100 * band, rtol=1e-6)
    np.testing.assert_allclose(values[12], np.degrees(np.arctan(0.5)), rtol=1e-5)
    row, column = np.mgrid[:H, :W] * 10.0 + 5.0
    np.testing.assert_allclose(values[13], 500 + 0.4 * row + 0.3 * column, rtol=1e-6)
    assert (made.valid, made.level, made.baseline, made.offset) == (1.0, "Level-1C", "02.06", 0.0)
    assert made.offset_from == "MTD_MSIL1C.xml" and made.b10 is None
    with reading(scene) as reader:
        assert reader.window(0, 0, H, W)[1].all()


def test_offsets_of_the_metadata_are_added_band_by_band(tmp_path, dem):
    offsets = [-1000, -900, -1000, -1000, -1000, -1000, -1000, -1000, -5, -1000, -1000, -1000, -800]  # B8A is the 9th
    safe = write_safe(tmp_path, constants(), baseline="05.09", offsets=offsets)
    made = convert([safe], dem, tmp_path / "out.tif")
    expected = [2000 + 100 * band - 1000 for band in range(12)]
    expected[1] += 100
    expected[11] += 200
    np.testing.assert_allclose(raw(tmp_path / "out.tif")[:12].mean((1, 2)), expected, rtol=1e-6)
    assert made.offset == "-1000 to -800"
    made = convert([safe], dem, tmp_path / "other.tif", offset=-2050.0)
    assert (made.offset, made.offset_from) == (-2050.0, "--offset")
    # numbers below zero count as zero
    np.testing.assert_allclose(raw(tmp_path / "other.tif")[:2].mean((1, 2)), [0.0, 50.0], rtol=1e-6)


@pytest.mark.parametrize("factor", [2, 6])
def test_coarse_bands_are_interpolated_between_their_centres(factor):
    image = np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None], scale_factor=factor, mode="bilinear", align_corners=False
    )[0].numpy()
    found, inside = enlarge(image, np.ones((5, 7), bool), factor, 3, 3 * factor)
    np.testing.assert_allclose(found, expected[:, 3 : 3 + 3 * factor], atol=1e-5)
    assert inside.all()


def test_pixels_without_data_have_no_weight():
    image, valid = np.full((1, 4, 4), 7.0, np.float32), np.ones((4, 4), bool)
    image[0, 1, 2], valid[1, 2] = -1e6, False
    found, inside = enlarge(image, valid, 2, 0, 8)
    expected = np.ones((8, 8), bool)
    expected[2:4, 4:6] = False
    np.testing.assert_array_equal(inside, expected)
    np.testing.assert_allclose(found[0, inside], 7.0, rtol=1e-6)


def test_strips_show_nowhere(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    bands = {name: rng.integers(1, 9000, values.shape).astype(np.uint16) for name, values in constants().items()}
    bands["B02"][10, 10] = bands["B06"][4, 9] = bands["B01"][7, 3] = 0
    safe = write_safe(tmp_path, bands)
    ground = rng.normal(300, 50, (1, H // 3 + 4, W // 3 + 4)).astype(np.float32)
    write_scene(tmp_path / "rough.tif", ground, ("z",), transform=(30.0, 0.0, LEFT - 60, 0.0, -30.0, TOP + 60))
    convert([safe], tmp_path / "rough.tif", tmp_path / "one.tif")
    monkeypatch.setattr(sentinel2, "ROWS", 7)
    convert([safe], tmp_path / "rough.tif", tmp_path / "two.tif")
    np.testing.assert_array_equal(raw(tmp_path / "one.tif"), raw(tmp_path / "two.tif"))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(bands["B05"].astype(np.float32))[None, None], scale_factor=2, mode="bilinear"
    )[0, 0].numpy()
    seen = np.isfinite(raw(tmp_path / "one.tif")[4])
    np.testing.assert_allclose(raw(tmp_path / "one.tif")[4][seen], expected[seen], rtol=1e-5)


def test_one_pixel_without_data_in_any_band_is_nodata_in_all(tmp_path, dem):
    bands = constants()
    bands["B03"][5, 6] = 0
    bands["B11"][20, 30] = 0  # 20 m
    bands["B09"][1, 2] = 0  # 60 m
    bands["B04"][50, 3] = 65_535  # saturated
    made = convert([write_safe(tmp_path, bands)], dem, tmp_path / "out.tif")
    values = raw(tmp_path / "out.tif")
    missing = np.zeros((H, W), bool)
    missing[5, 6] = missing[50, 3] = True
    missing[40:42, 60:62] = True
    missing[6:12, 12:18] = True
    np.testing.assert_array_equal(np.isnan(values), np.broadcast_to(missing, values.shape))
    for band in range(12):
        np.testing.assert_allclose(values[band][~missing], 2000 + 100 * band, rtol=1e-6)
    assert made.valid == pytest.approx(1 - missing.mean())
    with reading(open_scene(tmp_path / "out.tif")) as reader:
        np.testing.assert_array_equal(reader.window(0, 0, H, W)[1], ~missing)


def slow_horn(dem: np.ndarray) -> np.ndarray:
    """Slope of the inner pixels of a DEM at 10 m, pixel by pixel."""
    slope = np.zeros((dem.shape[0] - 2, dem.shape[1] - 2))
    for r in range(slope.shape[0]):
        for c in range(slope.shape[1]):
            (a, b, d), (e, _, f), (g, h, i) = dem[r : r + 3, c : c + 3].tolist()
            x, y = ((d + 2 * f + i) - (a + 2 * e + g)) / 80, ((g + 2 * h + i) - (a + 2 * b + d)) / 80
            slope[r, c] = np.rad2deg(np.arctan(np.sqrt(x * x + y * y)))
    return slope


def test_slope_of_rough_ground_is_horns(tmp_path, safe):
    dem = np.random.default_rng(2).normal(1000, 20, (H + 4, W + 4)).astype(np.float32)
    dem[30, 40] = -9999
    grid = (10.0, 0.0, LEFT - 20, 0.0, -10.0, TOP + 20)
    write_scene(tmp_path / "dem.tif", dem[None], ("z",), transform=grid, nodata=-9999)
    convert([safe], tmp_path / "dem.tif", tmp_path / "out.tif")
    values = raw(tmp_path / "out.tif")
    void = np.isnan(values[12])
    expected = np.zeros((H, W), bool)
    expected[27:30, 37:40] = True  # a void and what leans on it
    np.testing.assert_array_equal(void, expected)
    wanted = slow_horn(dem.astype(np.float64))[1:-1, 1:-1]
    np.testing.assert_allclose(values[12][~void], wanted[~void], rtol=1e-4)
    np.testing.assert_allclose(values[13][~void], dem[2:-2, 2:-2][~void], rtol=1e-6)


def test_horn_of_a_plane():
    row, column = np.mgrid[:5, :6] * 10.0
    np.testing.assert_allclose(horn(column), 45.0)
    np.testing.assert_allclose(horn(-2 * row + 0 * column), np.degrees(np.arctan(2.0)))


def test_a_dem_that_ends_with_the_scene_goes_on_straight(tmp_path, safe):
    convert([safe], plane(tmp_path / "tight.tif", step=10.0, margin=0.0), tmp_path / "out.tif")
    np.testing.assert_allclose(raw(tmp_path / "out.tif")[12], np.degrees(np.arctan(0.5)), rtol=1e-4)


# Pixels coarser than the scene's, about the same, finer; what lies between two of 33 m is 0.7 m lower than a hill.
@pytest.mark.parametrize(("step", "metres", "degrees"), [(3e-4, 0.7, 3.0), (1e-4, 0.1, 0.6), (3e-5, 0.1, 0.6)])
def test_a_dem_in_degrees_is_reprojected(tmp_path, safe, step, metres, degrees):
    rows, columns = np.mgrid[: int(0.011 / step), : int(0.014 / step)]
    (west,), (north,) = transform_points(UTM54, "EPSG:4326", [LEFT - 150.0], [TOP + 150.0])
    longitude, latitude = west + (columns + 0.5) * step, north - (rows + 0.5) * step

    def hill(x, y):
        return 800 + 60 * np.sin((x - LEFT) / 150) + 40 * np.cos((y - TOP) / 120)

    x, y = transform_points("EPSG:4326", UTM54, longitude.ravel(), latitude.ravel())
    heights = hill(np.array(x), np.array(y)).reshape(rows.shape).astype(np.float32)
    grid = (step, 0.0, west, 0.0, -step, north)
    write_scene(tmp_path / "world.tif", heights[None], ("z",), transform=grid, crs="EPSG:4326")
    convert([safe], tmp_path / "world.tif", tmp_path / "out.tif")
    row, column = np.mgrid[:H, :W] * 10.0 + 5.0
    values = raw(tmp_path / "out.tif")
    np.testing.assert_allclose(values[13], hill(LEFT + column, TOP - row), atol=metres)
    across = 60 / 150 * np.cos(column / 150)
    along = 40 / 120 * np.sin(row / 120)
    np.testing.assert_allclose(values[12], np.degrees(np.arctan(np.hypot(across, along))), atol=degrees)


def level2(root: Path) -> Path:
    """A Level-2A product: B02 in three resolutions, B8A, no B10, other rasters."""
    safe = root / "S2B_MSIL2A_20220910T012651_N0400_R074_T54TXN_20220910T031500.SAFE"
    metadata(safe / "MTD_MSIL2A.xml", "04.00", "2A", [-1000] * 13)
    images = safe / "GRANULE" / "L2A_T54TXN_A016811_20220910T012650" / "IMG_DATA"
    bands = constants()
    del bands["B10"]
    for metres in (10, 20, 60):
        here = {name: values for name, values in bands.items() if COARSE[name] == metres}
        write_bands(images / f"R{metres}m", here, TILE + "_{}_" + f"{metres}m")
    worse = {"B02": np.full((H // 2, W // 2), 9, np.uint16), "B8A": np.full((H // 2, W // 2), 9, np.uint16)}
    write_bands(images / "R20m", worse, TILE + "_{}_20m")
    return safe


def test_level_2a_takes_the_finest_bands_and_a_constant_b10(tmp_path, dem):
    safe = level2(tmp_path)
    with pytest.raises(DataError, match=r"no band B10.*--b10 9\.05.*--b10 0"):
        convert([safe], dem, tmp_path / "out.tif")
    made = convert([safe], dem, tmp_path / "out.tif", b10=9.0)
    values = raw(tmp_path / "out.tif")
    np.testing.assert_allclose(values[1], 1100, rtol=1e-6)
    np.testing.assert_allclose(values[9], 9.0, rtol=1e-6)  # no offset
    assert (made.level, made.baseline, made.offset, made.b10) == ("Level-2A", "04.00", -1000.0, 9.0)
    convert([safe], dem, tmp_path / "zero.tif", b10=0.0)
    assert (raw(tmp_path / "zero.tif")[9] == 0).all() and np.isfinite(raw(tmp_path / "zero.tif")).all()


def test_files_may_be_named_one_by_one(tmp_path, dem):
    paths = write_bands(tmp_path / "bands", constants())
    extra = write_bands(tmp_path / "bands", {"B8A": np.ones((H // 2, W // 2), np.uint16)})
    with pytest.raises(DataError, match="--offset -1000"):
        convert([*paths, *extra], dem, tmp_path / "out.tif")
    convert([*reversed(paths), *extra], dem, tmp_path / "out.tif", offset=0.0)
    np.testing.assert_allclose(raw(tmp_path / "out.tif")[:12].mean((1, 2)), 2000 + 100 * np.arange(12), rtol=1e-6)
    metadata(tmp_path / "bands" / "MTD_MSIL1C.xml")
    assert convert(paths, dem, tmp_path / "again.tif").offset_from == "MTD_MSIL1C.xml"


def write_stack(path: Path, names: list[str], **about) -> Path:
    image = np.stack([np.full((H, W), 500 + 10 * number, np.float32) for number in range(len(names))])
    image[3, 2, 1] = np.nan
    write_scene(path, image, tuple(names), **about)
    return path


STACK = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12", "QA60"]


def test_one_file_may_hold_all_bands(tmp_path, dem):
    path = write_stack(tmp_path / "stack.tif", STACK)
    convert([path], dem, tmp_path / "out.tif", offset=0.0)
    expected = [500 + 10 * number for number in (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12)]
    values = raw(tmp_path / "out.tif")
    np.testing.assert_allclose(np.nanmean(values[:12], (1, 2)), expected, rtol=1e-6)
    assert np.isnan(values[:, 2, 1]).all() and np.isnan(values).sum() == 14


def test_order_names_the_bands_of_one_file(tmp_path, dem):
    path = write_stack(tmp_path / "stack.tif", [f"band {number}" for number in range(12)])
    with pytest.raises(DataError, match=r"has no band B01, B02.*--order"):
        convert([path], dem, tmp_path / "out.tif", offset=0.0)
    order = ["B12", "B11", "B10", "B9", "B8", "B7", "B6", "B5", "B4", "B3", "B2", "B1"]
    convert([path], dem, tmp_path / "out.tif", offset=0.0, order=order)
    expected = [500 + 10 * number for number in range(11, -1, -1)]
    np.testing.assert_allclose(np.nanmean(raw(tmp_path / "out.tif")[:12], (1, 2)), expected, rtol=1e-6)


def test_jpeg_2000_is_read(tmp_path, dem):
    bands = constants()
    folder = tmp_path / "IMG_DATA"
    folder.mkdir()
    for name, values in bands.items():
        about = {"crs": UTM54, "transform": rasterio.Affine(*grid_of(COARSE[name])), "count": 1, "dtype": "uint16"}
        about |= {"height": values.shape[0], "width": values.shape[1], "driver": "JP2OpenJPEG"}
        with rasterio.open(folder / f"{TILE}_{name}.jp2", "w", **about, QUALITY="100", REVERSIBLE="YES") as target:
            target.write(values, 1)
    convert([folder], dem, tmp_path / "out.tif", offset=0.0)
    np.testing.assert_allclose(raw(tmp_path / "out.tif")[:12].mean((1, 2)), 2000 + 100 * np.arange(12), rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("T54TXN_20180910T012651_B02", "b2"),
        ("T54TXN_20180910T012651_B8A_20m", "b8a"),
        ("S2A_OPER_MSI_L1C_TL_SGS__20160101T033345_A002768_T54TXN_B12", "b12"),
        ("B02", "b2"),
        ("b10", "b10"),
        ("B4, central wavelength 665 nm", "b4"),
        ("clip-B11", "b11"),
        ("T54TXN_20180910T012651_TCI", None),
        ("T54TXN_20180910T012651_SCL_20m", None),
        ("B13", None),
        ("B2A", None),
        ("AB02", None),
        ("B02x", None),
    ],
)
def test_names_tell_the_band(text, band):
    assert band_of(text) == band


def changed(safe: Path, name: str) -> Path:
    return next((safe / "GRANULE").rglob(f"IMG_DATA/*_{name}.tif"))


def _without(safe):
    changed(safe, "B05").unlink()
    changed(safe, "B12").unlink()


def _other_crs(safe):
    write_scene(
        changed(safe, "B05"), np.ones((1, H // 2, W // 2), np.uint16), ("x",), transform=grid_of(20), crs="EPSG:32655"
    )


def _other_extent(safe):
    grid = (20.0, 0.0, LEFT + 20, 0.0, -20.0, TOP)
    write_scene(changed(safe, "B05"), np.ones((1, H // 2, W // 2), np.uint16), ("x",), transform=grid)


def _cut(safe):
    write_scene(changed(safe, "B05"), np.ones((1, H // 2 - 1, W // 2), np.uint16), ("x",), transform=grid_of(20))


def _other_time(safe):
    old = changed(safe, "B05")
    old.rename(old.with_name(old.name.replace("20180910", "20180930")))


def _twice(safe):
    old = changed(safe, "B05")
    write_bands(old.parent / "again", {"B05": np.ones((H // 2, W // 2), np.uint16)})


def _coarse(safe):
    write_bands(changed(safe, "B02").parent, {"B02": np.ones((H // 2, W // 2), np.uint16)})


def _damaged(safe):
    path = changed(safe, "B03")
    path.write_bytes(path.read_bytes()[:200])


def _no_crs(safe):
    write_scene(changed(safe, "B02"), np.ones((1, H, W), np.uint16), ("x",), crs=None)


def _several_bands(safe):
    write_scene(changed(safe, "B02"), np.ones((3, H, W), np.uint16))


def _bomb(safe):
    (safe / "MTD_MSIL1C.xml").write_text(BOMB)


def _no_xml(safe):
    (safe / "MTD_MSIL1C.xml").write_text("hello")


def _other_xml(safe):
    (safe / "MTD_MSIL1C.xml").write_text("<a><b/></a>")


def _silent(safe):
    metadata(safe / "MTD_MSIL1C.xml", "04.00")


def _scaled(safe):
    metadata(safe / "MTD_MSIL1C.xml", scale=1000)


def _two(safe):
    metadata(safe / "MTD_MSIL2A.xml", level="2A")


def _dark(safe):
    for band, values in constants().items():
        write_bands(changed(safe, band).parent, {band: np.full(values.shape, 0.25, np.float32)})


def _empty(safe):
    write_bands(changed(safe, "B02").parent, {"B02": np.zeros((H, W), np.uint16)})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_without, "has no band B05, B12"),
        (_other_crs, "B05.tif has another CRS than B02"),
        (_other_extent, r"B05.tif covers x 500020 to 500740.*B02's x 500000 to 500720"),
        (_cut, r"with 29 x 36 pixels, which does not divide.*60 x 72"),
        (_other_time, "different tiles or times"),
        (_twice, "both are B05"),
        (_coarse, "pixels of 20 x 20 in units of its CRS"),
        (_damaged, "B03.tif cannot be read"),
        (_no_crs, "B02.tif has no CRS"),
        (_several_bands, "B02.tif has 3 bands"),
        (_bomb, "declares a document type"),
        (_no_xml, "is no XML"),
        (_other_xml, "is not the metadata"),
        (_silent, "baseline 04.00, but lists no offset"),
        (_scaled, "QUANTIFICATION_VALUE is 1000"),
        (_two, "describe two products"),
        (_dark, "is 0.25, where reflectance x 10,000"),
        (_empty, "no pixel of .* is valid in every band"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(tmp_path, safe, dem, spoil, says):
    spoil(safe)
    with pytest.raises(DataError, match=says):
        convert([safe], dem, tmp_path / "out.tif")
    assert not list(tmp_path.glob("out*"))


def test_a_dem_must_cover_the_scene_and_say_where_it_lies(tmp_path, safe):
    small = plane(tmp_path / "small.tif", step=10.0, margin=-10.0)
    with pytest.raises(DataError, match=r"small.tif covers x 500010 to 500710.*not all of the scene"):
        convert([safe], small, tmp_path / "out.tif")
    with pytest.raises(DataError, match="no CRS"):
        convert([safe], plane(tmp_path / "nowhere.tif", crs=None), tmp_path / "out.tif")
    write_scene(tmp_path / "two.tif", np.ones((2, H, W), np.float32), ("aspect", "height"))
    with pytest.raises(DataError, match="has 2 bands, and none is called dem"):
        convert([safe], tmp_path / "two.tif", tmp_path / "out.tif")


@pytest.mark.parametrize("about", [{"scales": (0.1,)}, {"offsets": (-100.0,)}, {"units": ("ft",)}])
def test_heights_that_are_not_stored_in_metres_are_refused(tmp_path, safe, dem, about):
    with rasterio.open(dem, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as target:
        for key, value in about.items():
            setattr(target, key, value)
    with pytest.raises(
        DataError, match=r"dem.tif says that its heights are stored as scale .* where metres are wanted"
    ):
        convert([safe], dem, tmp_path / "out.tif")


def test_heights_in_metres_may_say_so(tmp_path, safe, dem):
    with rasterio.open(dem, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as target:
        target.units = ("Metre",)
    assert convert([safe], dem, tmp_path / "out.tif").valid == 1


def test_a_dem_in_degrees_does_not_cover_a_scene_across_the_date_line(tmp_path):
    grid = Grid(H, W, "EPSG:32601", (10.0, 0.0, 165_800.0, 0.0, -10.0, 10_000.0))
    assert transform_bounds(grid.crs, "EPSG:4326", *grid.bounds)[0] > 179
    heights = np.ones((1, 4, 4), np.float32)
    both = write_scene(tmp_path / "d.tif", heights, ("dem",), crs="EPSG:4326", transform=(1.0, 0, 178, 0, -1.0, 2.0))
    with pytest.raises(DataError, match=r"lies across the date line.*d.tif jump: warp it to the scene's CRS"):
        covers(both, grid)
    local = write_scene(tmp_path / "l.tif", heights, ("dem",), crs='LOCAL_CS["site",UNIT["metre",1]]')
    with pytest.raises(DataError, match=r"l.tif has a CRS that the scene's cannot be brought to .*: warp it"):
        covers(local, grid)


def test_the_sea_is_no_gap_in_a_dem_of_unsigned_heights(tmp_path, safe):
    heights = np.zeros((1, H, W), np.uint16)
    heights[:, :, W // 2 :] = 40
    write_scene(tmp_path / "dem.tif", heights, ("dem",), nodata=None)
    assert convert([safe], tmp_path / "dem.tif", tmp_path / "out.tif").valid == 1
    np.testing.assert_allclose(raw(tmp_path / "out.tif")[13], heights[0], atol=1e-4)


def test_nobody_elses_file_is_overwritten(tmp_path, safe, dem):
    out = write_scene(tmp_path / "b8a.tif", np.ones((1, H, W), np.uint16), ("b8a",)).path
    before = out.read_bytes()
    with pytest.raises(DataError, match="is there already and no scene made by this command"):
        convert([safe], dem, out)
    assert out.read_bytes() == before


def test_the_dem_of_several_bands_is_the_one_called_so(tmp_path, safe):
    heights = np.stack([np.full((H, W), 1.0), np.full((H, W), 250.0)]).astype(np.float32)
    write_scene(tmp_path / "two.tif", heights, ("slope", "dem"))
    convert([safe], tmp_path / "two.tif", tmp_path / "out.tif")
    np.testing.assert_allclose(raw(tmp_path / "out.tif")[13], 250, rtol=1e-6)


def test_options_that_cannot_mean_anything(tmp_path, safe, dem):
    with pytest.raises(RecipeError, match="has a band B10"):
        convert([safe], dem, tmp_path / "out.tif", b10=1.0)
    with pytest.raises(RecipeError, match="negative"):
        convert([level2(tmp_path / "two")], dem, tmp_path / "out.tif", b10=-1.0)
    with pytest.raises(DataError, match="--order names the bands of one file"):
        convert([safe], dem, tmp_path / "out.tif", order=["B2"])
    with pytest.raises(DataError, match="one of the files to convert"):
        convert([safe], dem, dem)
    with pytest.raises(DataError, match="the name says no band"):
        convert([dem], dem, tmp_path / "out.tif")
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="holds no .jp2 or .tif"):
        convert([tmp_path / "void"], dem, tmp_path / "out.tif")
    geographic = write_stack(tmp_path / "degrees.tif", STACK, crs="EPSG:4326", transform=(1e-4, 0, 141, 0, -1e-4, 43))
    with pytest.raises(DataError, match="gdalwarp"):
        convert([geographic], dem, tmp_path / "out.tif", offset=0.0)


def test_metadata_are_looked_for_where_they_lie(tmp_path, safe):
    band = changed(safe, "B02")
    assert find_metadata([band]) == safe / "MTD_MSIL1C.xml"
    assert find_product([safe]).metadata.level == "Level-1C"
    metadata(tmp_path / "elsewhere" / "MTD_MSIL2A.xml")  # not of this product
    assert find_metadata([band]) == safe / "MTD_MSIL1C.xml"
    moved = tmp_path / "moved" / band.name
    moved.parent.mkdir()
    band.rename(moved)
    assert find_metadata([moved]) is None


def test_external_entities_are_refused_unread(tmp_path):
    (tmp_path / "secret").write_text("secret")
    path = tmp_path / "MTD_MSIL1C.xml"
    text = f'<!DOCTYPE x [<!ENTITY s SYSTEM "file://{tmp_path}/secret">]><x>&s;</x>'
    for encoding in ("utf-8", "utf-16"):  # a search for the word would miss the second
        path.write_text(text, encoding=encoding)
        with pytest.raises(DataError, match="declares a document type"):
            read_metadata(path)


def test_large_metadata_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(product, "LARGEST", 100)
    with pytest.raises(DataError, match="larger than"):
        read_metadata(metadata(tmp_path / "MTD_MSIL1C.xml"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("<PROCESSING_BASELINE>02.06", "<PROCESSING_BASELINE>two", "not a number"),
        ('band_id="3"', 'band_id="13"', "band_id '13'"),
    ],
)
def test_odd_metadata(tmp_path, old, new, says):
    offsets = [-1000] * 13 if "band_id" in old else None
    path = metadata(tmp_path / "MTD_MSIL1C.xml", offsets=offsets)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=says):
        read_metadata(path)


def test_the_command(l4s, tmp_path, safe, dem):
    shown = l4s("data", "convert", "sentinel2", safe, tmp_path / "out.tif", "--dem", dem, "--json")
    assert shown.exit_code == 0, shown.output
    about = json.loads(shown.stdout)
    assert (about["level"], about["offset"], about["height"]) == ("Level-1C", 0.0, H)
    text = l4s("data", "convert", "sentinel2", safe, tmp_path / "out.tif", "--dem", dem, "--offset", "-1000")
    assert text.exit_code == 0 and "offset -1000.0 (--offset)" in text.stdout
    assert "60 x 72 pixels, 100.0% valid" in text.stdout
    wrong = l4s("data", "convert", "sentinel2", safe, tmp_path / "out.tif", "--dem", dem, "--b10", "0")
    assert wrong.exit_code == 2 and "has a band B10" in wrong.stderr
