"""Chips of a labelled scene: pixels, labels, splits, manifest; what must not pass."""

import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio import features
from rasterio.transform import Affine
from scene_factory import NORTH_UP, UTM54, write_scene
from typer.testing import CliRunner
from vector_factory import pixel_box, write_mask, write_vector

from l4s import rundir
from l4s.cli import app
from l4s.data.bands import Bands
from l4s.data.domain import open_domain
from l4s.data.readers import find_patches, read_image, read_mask
from l4s.errors import DataError
from l4s.recipe import DomainConfig
from l4s.scene.chip import Cut, cut_chips
from l4s.scene.labels import reading_labels
from l4s.scene.manifest import read_manifest
from l4s.scene.raster import Grid
from l4s.scene.split import borders, part_of

BANDS = ("b4", "b3", "b2")


def random_scene(path, height=40, width=48, seed=0, **about):
    """A scene of three uint16 bands with values from 1 to 999."""
    image = np.random.default_rng(seed).integers(1, 1000, (3, height, width)).astype(np.uint16)
    write_scene(path, image, **about)
    return image


def random_polygons(seed, count=6, height=40, width=48):
    """Triangles and a ring with a hole, on the map."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform((0, 0), (width, height), (count, 1, 2)) + rng.uniform(-6, 6, (count, 3, 2))
    ring = pixel_box(4, 4, 9, 9).difference(pixel_box(6, 6, 5, 5))
    a, _, c, _, e, f = NORTH_UP
    return [ring, *(shapely.Polygon(each * (a, e) + (c, f)) for each in corners)]


def burnt(shapes, height=40, width=48):
    """The whole scene at once."""
    return features.rasterize(shapes, (height, width), transform=Affine(*NORTH_UP), dtype="uint8")


def chips_of(out, part="train"):
    """image and mask by id, as the readers of the project see them."""
    bands = Bands(file=read_manifest(out).bands, rgb=BANDS)
    refs = find_patches(out, part)
    return {ref.id: (read_image(ref, bands), None if ref.mask is None else read_mask(ref)) for ref in refs}


def test_every_chip_is_its_window(tmp_path):
    image, shapes = random_scene(tmp_path / "s.tif"), random_polygons(0)
    write_vector(tmp_path / "l.gpkg", shapes)
    made = cut_chips(tmp_path / "s.tif", tmp_path / "l.gpkg", tmp_path / "out", Cut(window=16, stride=16))
    mask, found = burnt(shapes), chips_of(tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert [
        (at["row"], at["column"]) for _, at in sorted(manifest["chips"].items(), key=lambda item: int(item[0]))
    ] == [(row, column) for row in (0, 16, 24) for column in (0, 16, 32)]  # the last row is moved to the edge
    assert (manifest["window"], manifest["stride"], manifest["bands"]) == (16, 16, list(BANDS))
    assert (manifest["height"], manifest["width"], manifest["transform"]) == (40, 48, list(NORTH_UP))
    assert sorted(found, key=int) == [str(number) for number in range(1, 10)] == sorted(manifest["chips"], key=int)
    for id, (pixels, label) in found.items():
        at = manifest["chips"][id]
        there = np.s_[at["row"] : at["row"] + 16, at["column"] : at["column"] + 16]
        np.testing.assert_array_equal(pixels, image[:, *there])
        np.testing.assert_array_equal(label, mask[there])
        assert (at["split"], at["valid"]) == ("train", 1.0) and at["landslide"] == pytest.approx(mask[there].mean())
    with h5py.File(tmp_path / "out/TrainData/img/image_1.h5") as file:
        assert file["img"].dtype == np.uint16 and file["img"].shape == (16, 16, 3)
    assert made.dropped == {} and made.parts()["train"]["chips"] == 9
    assert made.manifest == read_manifest(tmp_path / "out")


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp"])
def test_labels_in_another_crs_and_format(tmp_path, suffix):
    """Against pixel centres brought to longitude and latitude by Redfearn's series, and tested one by one."""
    random_scene(tmp_path / "s.tif", 32, 32)
    centre = to_degrees(500_000 + 160, 4_700_000 - 160)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    shape = shapely.Polygon(np.array([[-1.1, -1], [1.0, -1.2], [1.3, 0.9], [0, 0.2], [-1, 1]]) @ turn * 1e-3 + centre)
    write_vector(tmp_path / f"l{suffix}", [shape], crs="EPSG:4326")
    cut_chips(tmp_path / "s.tif", tmp_path / f"l{suffix}", tmp_path / "out", Cut(window=32, stride=32))
    rows, columns = np.indices((32, 32))
    xy = [
        to_degrees(500_005 + 10 * column, 4_699_995 - 10 * row)
        for row, column in zip(rows.flat, columns.flat, strict=True)
    ]
    wanted = shapely.contains_xy(shape, np.array(xy)).reshape(32, 32)
    near = shapely.dwithin(shapely.points(xy), shape.boundary, 1e-6).reshape(32, 32)  # 0.1 m
    mask = chips_of(tmp_path / "out")["1"][1]
    assert wanted.sum() > 100 and near.sum() < 4
    np.testing.assert_array_equal(mask[~near], wanted[~near])


def to_degrees(x, y, zone=141.0):
    """Longitude and latitude of a place in UTM zone 54 by Redfearn's series (Snyder 1987, 8-17 to 8-25)."""
    a, f = 6378137.0, 1 / 298.257223563
    e2 = f * (2 - f)
    ep2, e1 = e2 / (1 - e2), (1 - math.sqrt(1 - e2)) / (1 + math.sqrt(1 - e2))
    mu = y / 0.9996 / (a * (1 - e2 / 4 - 3 * e2**2 / 64 - 5 * e2**3 / 256))
    foot = mu + (1.5 * e1 - 27 * e1**3 / 32) * math.sin(2 * mu) + (21 * e1**2 / 16 - 55 * e1**4 / 32) * math.sin(4 * mu)
    foot += 151 * e1**3 / 96 * math.sin(6 * mu) + 1097 * e1**4 / 512 * math.sin(8 * mu)
    c1, t1 = ep2 * math.cos(foot) ** 2, math.tan(foot) ** 2
    n1 = a / math.sqrt(1 - e2 * math.sin(foot) ** 2)
    r1 = a * (1 - e2) / (1 - e2 * math.sin(foot) ** 2) ** 1.5
    d = (x - 500_000) / (n1 * 0.9996)
    second = (5 + 3 * t1 + 10 * c1 - 4 * c1**2 - 9 * ep2) * d**4 / 24
    latitude = foot - n1 * math.tan(foot) / r1 * (d**2 / 2 - second)
    longitude = (d - (1 + 2 * t1 + c1) * d**3 / 6) / math.cos(foot)
    return math.degrees(longitude) + zone, math.degrees(latitude)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 48))
def test_windows_of_labels_are_cuts_of_the_whole(tmp_path_factory, seed, rows, columns):
    folder = tmp_path_factory.mktemp("burn")
    shapes = random_polygons(seed)
    write_vector(folder / "l.gpkg", shapes)
    grid = Grid(40, 48, UTM54_WKT, NORTH_UP)
    with reading_labels(folder / "l.gpkg", grid) as labels:
        blocks = [
            [labels.window(r, c, min(rows, 40 - r), min(columns, 48 - c)) for c in range(0, 48, columns)]
            for r in range(0, 40, rows)
        ]
    np.testing.assert_array_equal(np.block(blocks), burnt(shapes))


def _wkt():
    from rasterio.crs import CRS

    return CRS.from_string(UTM54).to_wkt()


UTM54_WKT = _wkt()


def test_overlapping_parts_do_not_cancel(tmp_path):
    random_scene(tmp_path / "s.tif", 16, 16)
    both = shapely.MultiPolygon([pixel_box(2, 2, 6, 6), pixel_box(5, 5, 6, 6)])
    write_vector(tmp_path / "l.gpkg", [both, pixel_box(2, 2, 6, 6)])
    cut_chips(tmp_path / "s.tif", tmp_path / "l.gpkg", tmp_path / "out", Cut(window=16, stride=16))
    wanted = np.zeros((16, 16))
    wanted[2:8, 2:8] = wanted[5:11, 5:11] = 1
    np.testing.assert_array_equal(chips_of(tmp_path / "out")["1"][1], wanted)


def test_nodata(tmp_path):
    """A chip with some: float32, NaN in every band, 255 in the mask. With more than half: no chip."""
    image = np.random.default_rng(0).integers(1, 1000, (3, 16, 48)).astype(np.uint16)
    image[1, :, 40:] = 0
    image[:, 3, 20] = 0
    image[:, :, 46] = 0
    write_scene(tmp_path / "s.tif", image, nodata=0)
    write_vector(tmp_path / "l.gpkg", [pixel_box(0, 10, 8, 20)])
    made = cut_chips(tmp_path / "s.tif", tmp_path / "l.gpkg", tmp_path / "out", Cut(16, 16, max_nodata=0.499))
    assert made.dropped == {"nodata": 1}
    found, chips = chips_of(tmp_path / "out"), read_manifest(tmp_path / "out").chips
    (first, _), (second, mask) = found["1"], found["2"]
    np.testing.assert_array_equal(first, image[:, :, :16])
    holed = np.arange(256).reshape(16, 16) == 3 * 16 + 4
    np.testing.assert_array_equal(np.isnan(second), np.broadcast_to(holed, (3, 16, 16)))
    np.testing.assert_array_equal(second[:, ~holed], image[:, :, 16:32][:, ~holed])
    wanted = np.zeros((16, 16))
    wanted[:8, :14] = 1
    wanted[3, 4] = 255
    np.testing.assert_array_equal(mask, wanted)
    assert chips["2"].valid == 255 / 256 and chips["2"].landslide == pytest.approx((8 * 14 - 1) / 255)
    types = [h5py.File(read_manifest(tmp_path / "out").image(id))["img"].dtype for id in ("1", "2")]
    assert types == [np.uint16, np.float32]
    made = cut_chips(tmp_path / "s.tif", tmp_path / "l.gpkg", tmp_path / "half", Cut(16, 16, max_nodata=0.5))
    assert made.dropped == {} and made.manifest.chips["3"].valid == 0.5


def test_mask_rasters(tmp_path):
    image = random_scene(tmp_path / "s.tif", 16, 32)
    mask = np.zeros((16, 32), np.uint8)
    mask[2:9, 3:20], mask[12:, :] = 1, 255
    write_mask(tmp_path / "m.tif", mask)
    cut_chips(tmp_path / "s.tif", tmp_path / "m.tif", tmp_path / "out", Cut(16, 16))
    found, chips = chips_of(tmp_path / "out"), read_manifest(tmp_path / "out").chips
    np.testing.assert_array_equal(np.concatenate([found["1"][1], found["2"][1]], 1), mask)
    assert chips["1"].valid == 0.75 and chips["1"].landslide == pytest.approx(7 * 13 / 192)
    np.testing.assert_array_equal(found["1"][0], image[:, :, :16])  # a pixel without a label keeps its values


def test_what_a_mask_s_own_mask_leaves_out_is_not_labelled(tmp_path):
    random_scene(tmp_path / "s.tif", 16, 32)
    truth = np.zeros((16, 32), np.uint8)
    truth[4:8] = 1
    write_scene(tmp_path / "m.tif", truth[None], ("m",))
    known = np.full((16, 32), 255, np.uint8)
    known[:, 20:] = 0
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(tmp_path / "m.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as target,
    ):
        target.write_mask(known)
    cut_chips(tmp_path / "s.tif", tmp_path / "m.tif", tmp_path / "out", Cut(16, 16))
    found = chips_of(tmp_path / "out")
    np.testing.assert_array_equal(found["1"][1], truth[:, :16])
    np.testing.assert_array_equal(found["2"][1], np.where(known[:, 16:], truth[:, 16:], 255))


def test_chips_of_bands_in_another_order_are_refused(tmp_path):
    random_scene(tmp_path / "s.tif", 16, 16)
    write_vector(tmp_path / "l.gpkg", [pixel_box(2, 2, 9, 9)])
    cut_chips(tmp_path / "s.tif", tmp_path / "l.gpkg", tmp_path / "out", Cut(16, 16))

    def opened(*file):
        bands = Bands(file=file, rgb=file)
        return open_domain("d", DomainConfig(role="target", split="train"), bands, tmp_path / "out", tmp_path / "cache")

    assert len(opened(*BANDS)) == 1 and len(opened("red", "green", "blue")) == 1  # what others call them
    with pytest.raises(DataError, match="domain d: .* cut from a scene with the bands b4, b3, b2, in this order"):
        opened(*reversed(BANDS))


def test_a_crs_that_labels_get_later_changes_what_they_are(tmp_path):
    random_scene(tmp_path / "s.tif", 16, 16)
    arguments = (tmp_path / "s.tif", write_vector(tmp_path / "l.shp", [pixel_box(2, 2, 9, 9)]), tmp_path / "out")
    known = (tmp_path / "l.prj").read_text()
    (tmp_path / "l.prj").unlink()
    cut_chips(*arguments, Cut(16, 16))
    (tmp_path / "l.prj").write_text(known)
    with pytest.raises(DataError, match="out is there and was not made of these files"):
        cut_chips(*arguments, Cut(16, 16))


def test_chips_in_the_folder_one_stands_in(tmp_path, monkeypatch):
    random_scene(tmp_path / "s.tif", 16, 16)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    made = cut_chips(tmp_path / "s.tif", None, Path(), Cut(16, 16))
    assert made.manifest.folder == tmp_path / "here" and made.manifest.image("1").is_file()


def test_chips_that_another_process_made_meanwhile_stay(tmp_path, monkeypatch):
    random_scene(tmp_path / "s.tif", 16, 16)
    arguments = (tmp_path / "s.tif", None, tmp_path / "out", Cut(16, 16))

    def first(point):
        monkeypatch.undo()
        assert cut_chips(*arguments).dropped == {}

    monkeypatch.setattr(rundir, "reached", first)
    assert cut_chips(*arguments).dropped is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "s.tif"]


def test_nodata_of_a_mask_is_no_background_unless_it_is_zero(tmp_path):
    random_scene(tmp_path / "s.tif", 16, 16)
    values = np.zeros((1, 16, 16), np.float32)
    values[0, :4], values[0, 8:] = 1, -9999
    values[0, 15, 0] = np.nan
    write_scene(tmp_path / "f.tif", values, ("m",), nodata=-9999)
    cut_chips(tmp_path / "s.tif", tmp_path / "f.tif", tmp_path / "f", Cut(16, 16))
    mask = chips_of(tmp_path / "f")["1"][1]
    assert (mask[:4] == 1).all() and (mask[4:8] == 0).all() and (mask[8:] == 255).all()
    write_scene(tmp_path / "z.tif", (values == 1).astype(np.uint8), ("m",), nodata=0)
    cut_chips(tmp_path / "s.tif", tmp_path / "z.tif", tmp_path / "z", Cut(16, 16))
    assert (chips_of(tmp_path / "z")["1"][1][4:] == 0).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shape": (16, 31)}, "16 x 31 pixels, not 16 x 32"),
        ({"crs": "EPSG:32653"}, "CRS EPSG:32653, not EPSG:32654"),
        ({"transform": (10.0, 0.0, 500_005.0, 0.0, -10.0, 4_700_000.0)}, "transform"),
        ({"value": 2}, "holds 2 "),
    ],
)
def test_masks_that_do_not_fit(tmp_path, change, says):
    random_scene(tmp_path / "s.tif", 16, 32)
    mask = np.full(change.pop("shape", (16, 32)), change.pop("value", 1))
    write_mask(tmp_path / "m.tif", mask, **change)
    with pytest.raises(DataError, match=rf"m\.tif .*{says}"):
        cut_chips(tmp_path / "s.tif", tmp_path / "m.tif", tmp_path / "out", Cut(16, 16))
    assert not (tmp_path / "out").exists()


def test_points(tmp_path):
    random_scene(tmp_path / "s.tif", 16, 48)
    places = [(500_010.0, 4_699_950.0), (500_030.0, 4_699_970.0), (500_000.0 + 330, 4_699_999.0)]
    write_vector(tmp_path / "l.gpkg", [*shapely.points(places), shapely.Point(400_000, 4_699_950)])
    made = cut_chips(tmp_path / "s.tif", tmp_path / "l.gpkg", tmp_path / "out", Cut(16, 16))
    assert (tmp_path / "out/labels.csv").read_text().splitlines() == [
        "id,label,x,y",
        "1,1,500020.0,4699960.0",
        "2,0,500240.0,4699920.0",
        "3,1,500330.0,4699999.0",
    ]
    assert not (tmp_path / "out/TrainData/mask").exists()
    assert [chip.landslide for chip in made.manifest.chips.values()] == [1.0, 0.0, 1.0]


def test_without_labels(tmp_path):
    image = random_scene(tmp_path / "s.tif", 16, 40)
    cut_chips(tmp_path / "s.tif", None, tmp_path / "out", Cut(16, 16, bands=("b2", "b4")))
    found = chips_of(tmp_path / "out")
    assert all(mask is None for _, mask in found.values()) and not (tmp_path / "out/labels.csv").exists()
    np.testing.assert_array_equal(found["3"][0], image[[2, 0], :, 24:40])
    with pytest.raises(DataError, match="without labels no chip is known to be empty"):
        cut_chips(tmp_path / "s.tif", None, tmp_path / "no", Cut(16, 16, empty=0.5))


def test_empty_chips_are_drawn_by_the_seed(tmp_path):
    random_scene(tmp_path / "s.tif", 64, 64)
    write_vector(tmp_path / "l.gpkg", [pixel_box(9, 9, 2, 2), pixel_box(50, 50, 3, 3)])

    def kept(name, **options):
        made = cut_chips(tmp_path / "s.tif", tmp_path / "l.gpkg", tmp_path / name, Cut(8, 8, **options))
        return {(chip.row, chip.column) for chip in made.manifest.chips.values()}, made

    everything, _ = kept("all")
    some, made = kept("some", empty=0.4)
    fewer, _ = kept("fewer", empty=0.2)
    other, _ = kept("other", empty=0.4, seed=1)
    none, _ = kept("none", empty=0.0)
    assert none == {(8, 8), (48, 48)} < fewer < some < everything and none < other != some
    assert len(everything) == 64 and 15 <= len(some) <= 35 and made.dropped["empty"] == 64 - len(some)
    assert sorted(map(int, made.manifest.chips)) == list(range(1, len(some) + 1))
    _, halves = kept("halves", empty=0.4, split="halves")
    parts = [sum(chip.split == part for chip in halves.manifest.chips.values()) for part in ("train", "test")]
    assert parts[1] == 32 and parts[0] < 24  # what is tested on keeps its background


def test_a_label_that_is_not_known_is_no_nodata(tmp_path):
    random_scene(tmp_path / "s.tif", 16, 48)
    mask = np.full((16, 48), 255, np.uint8)
    mask[:2, :3] = 1, 0, 0
    mask[:, 16:32] = 0
    write_mask(tmp_path / "m.tif", mask)
    made = cut_chips(tmp_path / "s.tif", tmp_path / "m.tif", tmp_path / "out", Cut(16, 16))
    assert made.dropped == {"no label": 1}
    assert [chip.valid for chip in made.manifest.chips.values()] == [6 / 256, 1.0]


@given(st.data())
def test_no_pixel_trains_and_tests(data):
    """Nor is any train pixel nearer than twice the gap to a test pixel; halves use both sides of any scene."""
    height, width = data.draw(st.integers(12, 60)), data.draw(st.integers(12, 60))
    size = data.draw(st.integers(2, 6))
    stride, gap = data.draw(st.integers(1, size)), data.draw(st.integers(0, 3))
    split, block = data.draw(st.sampled_from(["halves", "blocks"])), data.draw(st.integers(size, 30))
    from l4s.tiles import starts

    edges = borders(split, height, width, stride, block)
    owner = np.zeros((height, width), int)
    for row in starts(height, size, stride):
        for column in starts(width, size, stride):
            part = part_of(row, column, size, *edges, gap)
            here = owner[row : row + size, column : column + size]
            bit = {"train": 1, "test": 2, None: 0}[part]
            assert not (here & (3 - bit)).any() or not bit
            here |= bit
    assert not (owner == 3).any()
    train, test = (np.argwhere(owner == bit) for bit in (1, 2))
    if split == "halves":
        assert gap > 2 or (len(train) and len(test)) or max(height, width) < 4 * size
        along = int(width >= height)
        assert not len(train) or not len(test) or train[:, along].max() + 2 * gap < test[:, along].min()
    if len(train) and len(test):
        straight = np.abs(train[:, None] - test[None])
        aligned = straight[(straight == 0).any(-1)]
        assert not len(aligned) or aligned.max(-1).min() > 2 * gap


def test_blocks_are_a_checkerboard():
    rows, columns = borders("blocks", 50, 33, 1, 10)
    assert (rows, columns) == ((0, 10, 20, 30, 40, 50), (0, 10, 20, 33))
    parts = [[part_of(r, c, 10, rows, columns, 0) for c in (0, 10, 20)] for r in (0, 10)]
    assert parts == [["train", "test", "train"], ["test", "train", "test"]]
    assert part_of(0, 5, 10, rows, columns, 0) is None
    assert part_of(0, 1, 8, rows, columns, 1) == "train" and part_of(0, 2, 8, rows, columns, 1) is None


def test_halves_on_disk(tmp_path):
    random_scene(tmp_path / "s.tif", 16, 72)
    write_vector(tmp_path / "l.gpkg", [pixel_box(0, 0, 16, 72)])
    made = cut_chips(tmp_path / "s.tif", tmp_path / "l.gpkg", tmp_path / "out", Cut(8, 8, split="halves", gap=3))
    chips = made.manifest.chips
    assert {chip.column for chip in chips.values() if chip.split == "train"} == {0, 8, 16}
    assert {chip.column for chip in chips.values() if chip.split == "test"} == {40, 48, 56, 64}
    assert made.dropped == {"border": 4}
    assert [int(id) for part in ("train", "test") for id in chips_of(tmp_path / "out", part)] == [
        1,
        2,
        3,
        8,
        9,
        10,
        4,
        5,
        6,
        7,
        11,
        12,
        13,
        14,
    ]


def test_the_same_again_stays_and_another_is_refused(tmp_path, monkeypatch):
    random_scene(tmp_path / "s.tif", 16, 32)
    write_vector(tmp_path / "l.gpkg", [pixel_box(2, 2, 9, 9)])
    arguments = (tmp_path / "s.tif", tmp_path / "l.gpkg", tmp_path / "out", Cut(16, 16))

    def stop(point):
        raise KeyboardInterrupt(point)

    with monkeypatch.context() as patch:
        patch.setattr(rundir, "reached", stop)
        with pytest.raises(KeyboardInterrupt, match="chip.manifest"):
            cut_chips(*arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l.gpkg", "s.tif"]
    cut_chips(*arguments)
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert len(files) == 5 and sorted(path.name for path in tmp_path.iterdir()) == ["l.gpkg", "out", "s.tif"]
    times = [path.stat().st_mtime_ns for path in files]
    assert cut_chips(*arguments).dropped is None
    assert [path.stat().st_mtime_ns for path in files] == times
    with pytest.raises(DataError, match="out is there and was not made of these files with these options"):
        cut_chips(*arguments[:3], Cut(16, 8))
    write_vector(tmp_path / "l.gpkg", [pixel_box(2, 2, 9, 8)])
    with pytest.raises(DataError, match="out is there and was not made of these files"):
        cut_chips(*arguments)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(DataError, match="other is there"):
        cut_chips(*arguments[:2], tmp_path / "other", Cut(16, 16))
    cut_chips(*arguments[:2], tmp_path / "again", Cut(16, 16))
    first, second = tmp_path / "out/TrainData/img/image_1.h5", tmp_path / "again/TrainData/img/image_1.h5"
    assert first.read_bytes() == second.read_bytes()


def test_without_a_crs(tmp_path, capsys):
    random_scene(tmp_path / "s.tif", 16, 16, crs=None)
    write_vector(tmp_path / "l.gpkg", [pixel_box(2, 3, 4, 5)])
    cut_chips(tmp_path / "s.tif", tmp_path / "l.gpkg", tmp_path / "a", Cut(16, 16))
    assert "the scene has no CRS: labels are taken to lie in its coordinates" in " ".join(
        capsys.readouterr().err.split()
    )
    random_scene(tmp_path / "t.tif", 16, 16)
    for name in ("n.gpkg", "n.shp"):
        with pytest.warns(UserWarning, match="crs"):
            write_vector(tmp_path / name, [pixel_box(2, 3, 4, 5)], crs=None)
        cut_chips(tmp_path / "t.tif", tmp_path / name, tmp_path / name[:-1], Cut(16, 16))
        said = " ".join(capsys.readouterr().err.split()).replace(" ", "")
        assert "hasnoCRS:labelsaretakentolieinitscoordinates" in said
        assert chips_of(tmp_path / name[:-1])["1"][1].sum() == 20
    assert json.loads((tmp_path / "a/manifest.json").read_text())["crs"] is None


def test_labels_elsewhere(tmp_path):
    random_scene(tmp_path / "s.tif", 16, 16)
    write_vector(tmp_path / "l.geojson", [shapely.box(10, 50, 11, 51)], crs="EPSG:4326")
    with pytest.raises(
        DataError, match=r"l.geojson does not touch .* span x 10 to 11, y 50 to 51, the scene x 140.9.* to 141.0"
    ):
        cut_chips(tmp_path / "s.tif", tmp_path / "l.geojson", tmp_path / "out", Cut(16, 16))
    write_vector(tmp_path / "near.gpkg", [pixel_box(0, 17, 3, 3)])
    with pytest.raises(DataError, match="near.gpkg does not touch the scene: in the scene's CRS the labels span"):
        cut_chips(tmp_path / "s.tif", tmp_path / "near.gpkg", tmp_path / "out", Cut(16, 16))
    write_vector(tmp_path / "tiny.gpkg", [pixel_box(3.6, 3.6, 0.3, 0.3)])
    with pytest.raises(DataError, match="no landslide of .*tiny.gpkg lies in a chip"):
        cut_chips(tmp_path / "s.tif", tmp_path / "tiny.gpkg", tmp_path / "out", Cut(16, 16))
    assert not (tmp_path / "out").exists()


def test_labels_that_reach_beyond_a_projection(tmp_path):
    random_scene(tmp_path / "s.tif", 16, 16, crs="+proj=gnom +lat_0=10 +lon_0=10", transform=(10.0, 0, 0, 0, -10.0, 0))
    write_vector(tmp_path / "l.gpkg", [shapely.box(-180, -90, 180, 90)], crs="EPSG:4326")
    with pytest.raises(DataError, match="l.gpkg cannot be brought to the scene's CRS .*: clip it"):
        cut_chips(tmp_path / "s.tif", tmp_path / "l.gpkg", tmp_path / "out", Cut(16, 16))


def test_layers_and_geometries(tmp_path):
    random_scene(tmp_path / "s.tif", 16, 16)
    write_vector(tmp_path / "l.gpkg", [pixel_box(2, 2, 4, 4)], layer="slides")
    write_vector(tmp_path / "l.gpkg", [pixel_box(1, 1, 9, 9)], layer="scarps", append=True)
    arguments = (tmp_path / "s.tif", tmp_path / "l.gpkg", tmp_path / "out", Cut(16, 16))
    with pytest.raises(DataError, match="no single layer of geometries; it has slides, scarps: choose with --layer"):
        cut_chips(*arguments)
    with pytest.raises(DataError, match="no layer 'slide'"):
        cut_chips(*arguments, layer="slide")
    cut_chips(*arguments, layer="scarps")
    assert chips_of(tmp_path / "out")["1"][1].sum() == 81
    write_vector(tmp_path / "lines.gpkg", [shapely.LineString([(500_010, 4_699_990), (500_050, 4_699_950)])])
    with pytest.raises(DataError, match="lines.gpkg holds LineString"):
        cut_chips(tmp_path / "s.tif", tmp_path / "lines.gpkg", tmp_path / "no", Cut(16, 16))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"window": 17, "stride": 17}, "16 x 32 pixels, less than a window of 17"),
        ({"stride": 17}, "17 apart, leave gaps"),
        ({"split": "random"}, "split is 'random'"),
        ({"gap": 1}, "gap of 1 pixels means nothing"),
        ({"block": 16}, "blocks of 16 pixels: give them with split blocks"),
        ({"split": "blocks", "block": 15}, "at least a window wide"),
        ({"empty": 1.5}, "empty is 1.5"),
        ({"max_nodata": -1}, "max_nodata is -1"),
        ({"seed": 5}, "the seed draws the chips without landslide that stay, and all stay"),
        ({"bands": ("b8",)}, "no band 'b8'"),
        ({"split": "halves", "gap": 9}, "no chip to test or train with is left"),
        ({"labels": "none.gpkg"}, "there is no file"),
        ({"labels": "notes.txt"}, "notes.txt cannot be read"),
        ({"labels": "broken.gpkg"}, "broken.gpkg"),
        ({"labels": "fake.geojson"}, "fake.geojson is no GeoJSON file"),
        ({"labels": "s.tif"}, "has 3 bands; a mask has one"),
        ({"scene": "cut.tif"}, "cut.tif cannot be read"),
    ],
)
def test_bad_input(tmp_path, options, says):
    random_scene(tmp_path / "s.tif", 16, 32)
    write_vector(tmp_path / "l.gpkg", [pixel_box(2, 2, 4, 4)])
    whole = (tmp_path / "s.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "notes.txt").write_text("no raster")
    (tmp_path / "broken.gpkg").write_bytes((tmp_path / "l.gpkg").read_bytes()[:5000])
    inner = f"<SrcDataSource>{tmp_path / 'l.gpkg'}</SrcDataSource>"
    (tmp_path / "fake.geojson").write_text(
        f'<OGRVRTDataSource><OGRVRTLayer name="labels">{inner}</OGRVRTLayer></OGRVRTDataSource>'
    )
    scene, labels = (tmp_path / options.pop(key, other) for key, other in (("scene", "s.tif"), ("labels", "l.gpkg")))
    with pytest.raises(DataError, match=says):
        cut_chips(scene, labels, tmp_path / "out", Cut(**{"window": 16, "stride": 16} | options))
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path):
    def l4s(*arguments):
        return CliRunner().invoke(app, ["data", "chip", *map(str, arguments)])

    random_scene(tmp_path / "s.tif", 16, 48)
    write_vector(tmp_path / "l.gpkg", [pixel_box(0, 0, 8, 48)])
    paths = (tmp_path / "s.tif", tmp_path / "l.gpkg", tmp_path / "out")
    options = ("--window", 8, "--split", "halves", "--bands", "b2,b3")
    shown = l4s(*paths, *options, "--json")
    assert shown.exit_code == 0, shown.output
    told = json.loads(shown.stdout)
    half = {"chips": 6, "empty": 3, "landslide": 0.5}
    assert told == {"dropped": {}, "parts": {"train": half, "test": half}}
    again = l4s(*paths, *options)
    assert again.exit_code == 0 and "50.00%" in again.stdout and "these chips were there" in again.stdout
    assert l4s(*paths[:2], "--window", 8).exit_code == 2
    assert l4s(paths[0], tmp_path / "u", "--unlabelled", "--window", 8).exit_code == 0
    refused = l4s(*paths, "--window", 16)
    assert refused.exit_code == 2 and "delete it" in refused.stderr
