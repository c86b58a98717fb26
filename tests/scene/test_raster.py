"""Scenes on disk: bands by name, what is valid, and rasters that are written whole or not at all."""

import socket
import subprocess
import sys

import h5py
import numpy as np
import pytest
import rasterio
from scene_factory import NORTH_UP, write_scene

from l4s.errors import DataError
from l4s.scene.raster import Grid, open_scene, read_tags, reading, write_cog

RNG = np.random.default_rng(0)
NOBODY = 2**22 + 1  # no process has this number


def windows(scene, *window):
    with reading(scene) as reader:
        return reader.window(*window or (0, 0, scene.grid.height, scene.grid.width))


def plain(path, image, **about):
    """A GeoTIFF without names, as others write it."""
    shape = {"count": image.shape[0], "height": image.shape[1], "width": image.shape[2], "dtype": image.dtype}
    with rasterio.open(path, "w", driver="GTiff", transform=rasterio.Affine(*NORTH_UP), **shape, **about) as target:
        target.write(image)
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_values_come_back_as_float32(tmp_path, dtype):
    image = RNG.integers(1, 200, (3, 20, 30)).astype(dtype)
    scene = write_scene(tmp_path / "s.tif", image)
    assert (scene.bands, scene.dtype, scene.grid.height, scene.grid.width) == (("b4", "b3", "b2"), dtype, 20, 30)
    found, valid = windows(scene, 3, 5, 10, 12)
    np.testing.assert_array_equal(found, image[:, 3:13, 5:17])
    assert found.dtype == np.float32 and valid.all()
    with reading(scene) as reader:
        stored, _ = reader.stored(0, 0, 20, 30)
        assert stored.dtype == ("float32" if dtype.startswith("float") else dtype)
        np.testing.assert_array_equal(stored, image)


def test_a_pixel_is_valid_where_no_band_is_nodata_nan_or_infinite(tmp_path):
    image = np.ones((3, 4, 5), np.float32)
    image[0, 0, 0], image[1, 1, 1], image[2, 2, 2], image[1, 3, 4] = -9999, np.nan, np.inf, -np.inf
    found, valid = windows(write_scene(tmp_path / "s.tif", image, nodata=-9999))
    assert (~valid).nonzero()[0].tolist() == [0, 1, 2, 3] and (~valid).nonzero()[1].tolist() == [0, 1, 2, 4]
    assert (found[:, ~valid] == 0).all() and (found[:, valid] == 1).all()


def test_nodata_counts_in_the_bands_that_are_read_only(tmp_path):
    image = np.ones((3, 2, 2), np.uint16)
    image[0, 0, 0] = 0
    write_scene(tmp_path / "s.tif", image, nodata=0)
    assert windows(open_scene(tmp_path / "s.tif", ["b4"]))[1].tolist() == [[False, True], [True, True]]
    assert windows(open_scene(tmp_path / "s.tif", ["b3", "b2"]))[1].all()


def test_nan_as_the_nodata_value(tmp_path):
    image = np.ones((1, 2, 2), np.float32)
    image[0, 0, 1] = np.nan
    _, valid = windows(write_scene(tmp_path / "s.tif", image, ("b4",), nodata=np.nan))
    assert valid.tolist() == [[True, False], [True, True]]


def test_a_mask_of_the_file_s_own(tmp_path):
    path = plain(tmp_path / "s.tif", np.ones((1, 4, 4), np.uint8))
    mask = np.full((4, 4), 255, np.uint8)
    mask[1] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"), rasterio.open(path, "r+") as target:
        target.write_mask(mask)
    np.testing.assert_array_equal(windows(open_scene(path))[1], mask > 0)


def test_bands_are_found_by_name_whatever_their_order(tmp_path):
    image = np.arange(3, dtype=np.uint8)[:, None, None] * np.ones((3, 2, 2), np.uint8)
    write_scene(tmp_path / "s.tif", image, ("b2", "b3", "b4"))
    scene = open_scene(tmp_path / "s.tif", ["b4", "b2"])
    assert (scene.bands, scene.index) == (("b4", "b2"), (3, 1))
    assert windows(scene)[0][:, 0, 0].tolist() == [2, 0]


def test_a_file_without_names(tmp_path, capsys):
    path = plain(tmp_path / "s.tif", np.ones((3, 2, 2), np.uint8))
    assert open_scene(path).bands == ("band1", "band2", "band3")
    assert open_scene(path, ["b4", "b3", "b2"]).index == (1, 2, 3)  # as many as are wanted
    assert "does not name its bands: taken as b4, b3, b2, in this order" in " ".join(capsys.readouterr().err.split())
    assert open_scene(path, ["b4", "b3", "b2"], ["b2", "b3", "b4"]).index == (3, 2, 1)
    with pytest.raises(DataError, match=r"has 3 bands without names, where 2 are wanted \(b4, b3\).*--bands"):
        open_scene(path, ["b4", "b3"])
    with pytest.raises(DataError, match="has 3 bands, but 2 names are given: b4, b3"):
        open_scene(path, ["b4"], ["b4", "b3"])
    with pytest.raises(DataError, match="b4, b3, b3 names a band twice"):
        open_scene(path, ["b4"], ["b4", "b3", "b3"])


def test_a_band_that_is_not_there(tmp_path):
    scene = write_scene(tmp_path / "s.tif", np.ones((3, 2, 2), np.uint8))
    with pytest.raises(DataError, match=r"has no band 'b44', did you mean 'b4'\?.*it has b4, b3, b2"):
        open_scene(scene.path, ["b44"])


def test_what_is_no_scene(tmp_path):
    with pytest.raises(DataError, match="there is no file .*none.tif"):
        open_scene(tmp_path / "none.tif")
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(DataError, match="text.tif cannot be read"):
        open_scene(tmp_path / "text.tif")


def test_a_truncated_file_is_named_with_the_rows_that_are_missing(tmp_path):
    image = RNG.integers(0, 2**16, (1, 400, 300)).astype(np.uint16)
    path = plain(tmp_path / "s.tif", image)  # uncompressed, in strips: its end is its last rows
    path.write_bytes(path.read_bytes()[:120_000])
    scene = open_scene(path)
    np.testing.assert_array_equal(windows(scene, 0, 0, 100, 300)[0], image[:, :100])
    with pytest.raises(DataError, match=r"s.tif cannot be read \(rows 300 to 400.*copy or download it again"):
        windows(scene, 300, 0, 100, 300)


def test_the_identity_changes_with_the_file_and_the_bands(tmp_path):
    scene = write_scene(tmp_path / "s.tif", np.ones((3, 2, 2), np.uint8))
    assert scene.identity == open_scene(scene.path).identity
    assert scene.identity != open_scene(scene.path, ["b4"]).identity
    assert scene.identity != write_scene(tmp_path / "s.tif", np.ones((3, 2, 3), np.uint8)).identity


def test_a_written_raster_is_a_tiled_cog_that_says_everything(tmp_path):
    image = RNG.integers(0, 255, (1, 700, 600)).astype(np.uint8)
    image[0, :10] = 255
    grid = Grid(700, 600, "EPSG:32654", NORTH_UP)
    strips = (image[:, top : top + 130] for top in range(0, 700, 130))
    tags = {"L4S_KIND": "probability"}
    about = {"dtype": "uint8", "nodata": 255, "bands": ["probability"], "scale": 1 / 254}
    write_cog(tmp_path / "below" / "o.tif", grid, strips, tags=tags, **about)
    with rasterio.open(tmp_path / "below" / "o.tif") as source:
        np.testing.assert_array_equal(source.read(), image)
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert source.block_shapes == [(512, 512)] and source.overviews(1) == [2]
        assert source.compression.name == "deflate"
        assert (source.nodata, source.scales, source.descriptions) == (255, (1 / 254,), ("probability",))
        assert source.crs.to_epsg() == 32654 and tuple(source.transform)[:6] == NORTH_UP
    assert read_tags(tmp_path / "below" / "o.tif")["L4S_KIND"] == "probability"
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["o.tif"]


def test_overviews_take_the_commoner_value(tmp_path):
    image = np.zeros((1, 600, 600), np.uint8)
    image[0, ::2, ::2] = image[0, 1::2, ::2] = image[0, ::2, 1::2] = 1  # three of four
    grid, about = Grid(600, 600, None, NORTH_UP), {"dtype": "uint8", "nodata": 255, "bands": ["landslide"]}
    write_cog(tmp_path / "o.tif", grid, [image], overviews="mode", **about)
    with rasterio.open(tmp_path / "o.tif", overview_level=0) as source:
        assert (source.read(1) == 1).all() and source.crs is None


@pytest.mark.parametrize("strip", [(1, 9, 5), (1, 11, 5), (2, 10, 5), (1, 10, 4)])
def test_strips_that_do_not_fill_the_grid_leave_nothing(tmp_path, strip):
    about = {"dtype": "uint8", "nodata": 255, "bands": ["x"]}
    with pytest.raises(DataError, match=r"o.tif.*(do not fill 10|does not fit at row 0)"):
        write_cog(tmp_path / "o.tif", Grid(10, 5, None, NORTH_UP), [np.zeros(strip, np.uint8)], **about)
    assert list(tmp_path.iterdir()) == []


def test_equal_rasters_are_equal_bytes_and_what_killed_processes_left_goes(tmp_path):
    image = RNG.integers(0, 255, (1, 30, 40)).astype(np.uint8)
    grid, about = Grid(30, 40, "EPSG:32654", NORTH_UP), {"dtype": "uint8", "nodata": 255, "bands": ["x"]}
    left = [f"b.tif{kind}.{socket.gethostname()}.{NOBODY}.part" for kind in ("", ".plain")]
    for name in left:
        (tmp_path / name).touch()

    def watched():
        yield image[:, :10]
        assert not (tmp_path / "b.tif").exists() and not any((tmp_path / name).exists() for name in left)
        yield image[:, 10:]

    write_cog(tmp_path / "a.tif", grid, [image], **about)
    write_cog(tmp_path / "b.tif", grid, watched(), **about)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif"]


@pytest.mark.parametrize("room", [300_000, 550_000])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, room):
    """Too little room for the plain file, or for the COG only; in a process of its own, whose files may not grow further."""
    code = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from l4s.errors import DataError
from l4s.scene.raster import Grid, write_cog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
image = np.random.default_rng(0).integers(0, 255, (1, 700, 700)).astype(np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    write_cog(Path(sys.argv[1]), Grid(700, 700, None, (1, 0, 0, 0, -1, 0)), [image], dtype="uint8", nodata=None, bands=["x"])
except DataError as error:
    print(error)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "o.tif", str(room)], capture_output=True, text=True, check=True
    )
    assert "o.tif cannot be written (" in ended.stdout and "is there room on the disk?" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_a_sidecar_says_counts(tmp_path):
    image = RNG.integers(1, 200, (1, 64, 64)).astype(np.uint8)
    image[0, :, :32] = 0
    with rasterio.open(tmp_path / "s.png", "w", driver="PNG", height=64, width=64, count=1, dtype="uint8") as target:
        target.write(image)
    bare = open_scene(tmp_path / "s.png")
    assert (bare.nodata, bare.grid.crs) == (None, None)
    (tmp_path / "s.png.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:32654</SRS><GeoTransform>500000, 10, 0, 4700000, 0, -10</GeoTransform>"
        '<PAMRasterBand band="1"><Description>b4</Description><NoDataValue>0</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    scene = open_scene(tmp_path / "s.png")
    assert (scene.nodata, scene.bands, scene.grid.transform) == (0, ("b4",), (10, 0, 500000, 0, -10, 4700000))
    assert rasterio.crs.CRS.from_wkt(scene.grid.crs).to_epsg() == 32654 and scene.identity != bare.identity
    assert windows(scene)[1].tolist() == (image[0] > 0).tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.png", "s.png.aux.xml"]  # looking adds none


def mosaic(path, tiles):
    """Tiles of 4 x 4 pixels, one band each, as gdalbuildvrt -separate makes a scene of them."""
    bands = [
        f'<VRTRasterBand dataType="{kind}" band="{number}"><SimpleSource><SourceFilename relativeToVRT="1">{tile.name}'
        f"</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for number, (tile, kind) in enumerate(tiles.items(), start=1)
    ]
    path.write_text(f'<VRTDataset rasterXSize="4" rasterYSize="4">{"".join(bands)}</VRTDataset>')
    return path


def test_a_mosaic_of_several_types_and_what_its_identity_sees(tmp_path):
    low, high = np.full((1, 4, 4), 7, np.uint16), np.full((1, 4, 4), 0.5, np.float32)
    tiles = {plain(tmp_path / "a.tif", low): "UInt16", plain(tmp_path / "b.tif", high): "Float32"}
    scene = open_scene(mosaic(tmp_path / "s.vrt", tiles), ["b4", "dem"])
    assert scene.dtype == "float32" and windows(scene)[0][:, 0, 0].tolist() == [7, 0.5]
    with reading(scene) as reader:
        assert reader.small(0, 0, 4, 4, (2, 2))[0][:, 0, 0].tolist() == [7, 0.5]
    before = scene.identity
    (tmp_path / "s.vrt.aux.xml").write_text("<PAMDataset></PAMDataset>")
    (tmp_path / "a.tif.ovr").touch()
    assert open_scene(scene.path, ["b4", "dem"]).identity == before  # statistics and overviews
    plain(tmp_path / "a.tif", low + 200)
    assert open_scene(scene.path, ["b4", "dem"]).identity != before


def test_a_world_file_is_part_of_the_identity(tmp_path):
    with rasterio.open(tmp_path / "s.tif", "w", driver="GTiff", height=2, width=2, count=1, dtype="uint8") as target:
        target.write(np.ones((1, 2, 2), np.uint8))
    found = []
    for left in (500000, 600000):
        (tmp_path / "s.tfw").write_text(f"10\n0\n0\n-10\n{left}\n4700000\n")
        found.append(open_scene(tmp_path / "s.tif").identity)
    assert found[0] != found[1]


def test_a_file_that_names_some_of_its_bands(tmp_path, capsys):
    plain(tmp_path / "s.tif", RNG.integers(1, 9, (3, 2, 2)).astype(np.uint8))
    with rasterio.open(tmp_path / "s.tif", "r+") as target:
        target.set_band_description(2, "b2")
    with pytest.raises(DataError, match="names only some of its bands, and band 2 is b2, where b3 is wanted"):
        open_scene(tmp_path / "s.tif", ["b4", "b3", "b2"])
    assert open_scene(tmp_path / "s.tif", ["b4", "b2", "b3"]).index == (1, 2, 3)
    assert "does not name its bands" in capsys.readouterr().err
    assert open_scene(tmp_path / "s.tif", ["b4", "b3", "b2"], ["b4", "b3", "b2"]).index == (1, 2, 3)


def test_a_file_of_arrays_is_no_scene(tmp_path):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["img"], file["other"] = np.ones((8, 8)), np.ones((8, 8))
    with pytest.raises(DataError, match=r"s\.h5 (holds no band itself|cannot be read)"):
        open_scene(tmp_path / "s.h5")


def test_grids_of_windows_and_of_coarser_pixels():
    grid = Grid(100, 200, None, (10.0, 1.0, 500.0, 2.0, -10.0, 900.0))
    assert grid.cut(3, 4, 5, 6) == Grid(5, 6, None, (10.0, 1.0, 500 + 40 + 3, 2.0, -10.0, 900 + 8 - 30))
    assert grid.coarser(16, 7, 13) == Grid(7, 13, None, (160.0, 16.0, 500.0, 32.0, -160.0, 900.0))
