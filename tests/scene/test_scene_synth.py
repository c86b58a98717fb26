"""Generated scenes: determined, labelled as they look, with a footprint, and without seams where tiles meet."""

import json

import numpy as np
import pytest
import rasterio
from rasterio.features import rasterize
from scipy.ndimage import label

from l4s.data.runout import Runouts
from l4s.data.terrain import slope_degrees
from l4s.errors import DataError, RecipeError
from l4s.scene import landscape as tiles
from l4s.scene import world as worlds
from l4s.scene.landscape import footprint, landscape, texture
from l4s.scene.raster import open_scene
from l4s.scene.synth import write_scene_pair
from l4s.scene.vector import open_layer, read_shapes
from l4s.scene.world import Noise, Window, make_ground, make_world

BANDS = ("b2", "b3", "b4", "b8")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Tiles of 96 pixels, and texture that is made quickly."""
    monkeypatch.setattr(tiles, "TILE", 96)
    monkeypatch.setattr(worlds, "LARGEST", 512)


@pytest.fixture(scope="module")
def made():
    """A landscape of 4 x 5 tiles: (image (4, H, W), mask (H, W))."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", 96)
        return joined(landscape(3, 380, 470, BANDS))


def joined(strips):
    images, masks = zip(*strips, strict=True)
    return np.concatenate(images, 1), np.concatenate(masks)


def read(path):
    with rasterio.open(path) as source:
        return source.read()


def test_a_scene_its_mask_and_its_polygons_agree(tmp_path):
    pair = write_scene_pair(tmp_path / "s.tif", height=130, width=170, seed=1)
    scene = open_scene(pair.scene)
    assert (scene.bands, scene.dtype, scene.nodata) == (BANDS, "uint16", 0)
    assert (scene.grid.height, scene.grid.width) == (130, 170)
    image, (mask,) = read(pair.scene), read(pair.mask)
    assert open_scene(pair.mask).bands == ("landslide",) and open_scene(pair.mask).nodata == 255
    np.testing.assert_array_equal((image == 0).all(0), mask == 255)
    np.testing.assert_array_equal((image == 0).any(0), mask == 255)
    polygons = read_shapes(open_layer(pair.labels))
    burnt = rasterize(polygons, mask.shape, transform=rasterio.Affine(*scene.grid.transform), dtype="uint8")
    np.testing.assert_array_equal(burnt, mask == 1)
    assert pair.count == len(polygons) == label(mask == 1)[1] > 0
    assert sum(polygon.area for polygon in polygons) == pytest.approx(100.0 * (mask == 1).sum())
    assert open_layer(pair.labels).crs is not None
    assert pair.valid == pytest.approx((mask != 255).mean())
    assert pair.landslide == pytest.approx((mask == 1).sum() / (mask != 255).sum())
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["s-labels.gpkg", "s-mask.tif", "s.tif"]


@pytest.mark.parametrize("plain", [False, True])
def test_equal_arguments_are_equal_bytes(tmp_path, plain):
    about = {"height": 100, "width": 120, "seed": 5, "bands": ("b4", "b3"), "plain": plain}
    for name in ("one", "two"):
        write_scene_pair(tmp_path / name / "s.tif", **about)
    names = ("s.tif", "s-mask.tif", "s-labels.gpkg")
    one, two = ([(tmp_path / folder / name).read_bytes() for name in names] for folder in ("one", "two"))
    assert one == two
    other = write_scene_pair(tmp_path / "other" / "s.tif", **{**about, "seed": 6})
    assert not np.array_equal(read(other.scene), read(tmp_path / "one" / "s.tif"))


def test_a_finished_scene_is_left_alone_and_others_are_not_overwritten(tmp_path):
    first = write_scene_pair(tmp_path / "s.tif", height=64, width=64, plain=True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert write_scene_pair(tmp_path / "s.tif", height=64, width=64, plain=True) == first
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    first.labels.unlink()
    assert write_scene_pair(tmp_path / "s.tif", height=64, width=64, plain=True) == first
    with pytest.raises(DataError, match="other arguments"):
        write_scene_pair(tmp_path / "s.tif", height=64, width=65, plain=True)


@pytest.mark.parametrize("name", ["s-mask.tif", "mine.gpkg"])
def test_files_of_others_are_not_overwritten(tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(DataError, match=name):
        write_scene_pair(tmp_path / "s.tif", tmp_path / "mine.gpkg", height=64, width=64, plain=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: b"mine"}


def test_a_stopped_scene_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("l4s.scene.synth._write_polygons", stop)
    with pytest.raises(KeyboardInterrupt):
        write_scene_pair(tmp_path / "s.tif", height=64, width=64, plain=True)
    assert list(tmp_path.iterdir()) == []


def test_the_footprint_is_a_tilted_rectangle():
    inside = footprint(300, 200, np.arange(300), np.arange(200))
    # the area of the rectangle whose corners touch the sides of the scene, by the shoelace formula
    tilt = tiles.TILT
    left = (300 - tilt * 200) / (1 - tilt**2)
    corners = [(0, left * tilt), ((200 - left * tilt) * tilt, 200)]
    corners += [(300 - y, 200 - x) for y, x in corners]
    area = 0.5 * abs(sum(y * x1 - y1 * x for (y, x), (y1, x1) in zip(corners, [*corners[1:], corners[0]], strict=True)))
    assert inside.sum() == pytest.approx(area, rel=0.005)
    np.testing.assert_array_equal(inside, inside[::-1, ::-1])
    assert not (inside[0, 0] or inside[0, -1] or inside[-1, 0] or inside[-1, -1])
    for side in (inside[:2], inside[-2:], inside[:, :2], inside[:, -2:]):
        assert side.any()
    part = footprint(300, 200, np.arange(100, 150), np.arange(20, 90))
    np.testing.assert_array_equal(part, inside[100:150, 20:90])
    assert footprint(16, 400, np.arange(16), np.arange(400)).mean() > 0.5


def test_about_two_percent_are_landslides_on_steep_ground(made):
    image, mask = made
    assert image.dtype == np.uint16 and image.shape == (4, 380, 470)
    share = (mask == 1).sum() / (mask != 255).sum()
    assert 0.008 < share < 0.045
    world = make_world(3, 380, 470)
    slope = make_ground(world, Window(0, 0, 470)).slope[:380]
    assert slope[mask == 1].mean() > slope[mask == 0].mean() + 5


def test_slides_look_like_other_bare_ground(made):
    """Most bright pixels are no landslides: brightness alone does not find them; vegetation does a part."""
    image, mask = made
    valid = mask != 255
    red, near = image[2].astype(float), image[3].astype(float)
    bare = valid & (near < 2 * red)
    assert bare[mask == 1].mean() > 0.7 and 0.05 < (mask[bare] == 1).mean() < 0.6
    assert np.median(red[mask == 1]) > 1.5 * np.median(red[valid])


def edge_ratio(values: np.ndarray, valid: np.ndarray, axis: int) -> float:
    """Mean difference of neighbours across borders of tiles, over that of neighbours inside tiles."""
    step = np.abs(np.diff(values, axis=axis))
    known = np.take(valid, range(1, valid.shape[axis]), axis) & np.take(valid, range(valid.shape[axis] - 1), axis)
    border = np.zeros(step.shape, bool)
    index = [slice(None)] * 2
    index[axis] = slice(95, None, 96)
    border[tuple(index)] = True
    return float(np.mean(step[known & border]) / np.mean(step[known & ~border]))


def test_tiles_have_no_seams(made):
    image, mask = made
    for axis in (0, 1):
        for band in image.astype(float):
            assert edge_ratio(band, mask != 255, axis) == pytest.approx(1.0, abs=0.15)


def test_the_test_of_seams_sees_one(made):
    image, mask = made
    spoilt = image[2].astype(float)
    spoilt[:, 96:192] *= 1.1
    assert edge_ratio(spoilt, mask != 255, 1) > edge_ratio(image[2].astype(float), mask != 255, 1) + 0.05


def test_a_window_shows_the_same_ground_as_a_larger_one():
    world = make_world(0, 200, 260)
    whole, part = make_ground(world, Window(-20, -20, 300)), make_ground(world, Window(60, 100, 64))
    inside = (slice(80, 144), slice(120, 184))
    np.testing.assert_allclose(part.dem, whole.dem[inside], atol=1e-4)
    np.testing.assert_allclose(part.slope, whole.slope[inside], atol=1e-3)
    np.testing.assert_allclose(slope_degrees(part.dem)[1:-1, 1:-1], part.slope[1:-1, 1:-1], atol=1e-6)


def test_what_tiles_show_does_not_depend_on_where_they_meet(monkeypatch):
    """Land cover of one large tile and of small ones: the same, but for noise and the slides that are drawn by tile."""
    none = Runouts(np.zeros((0, 2)), np.zeros(0), np.zeros(0, np.int64))
    monkeypatch.setattr(tiles, "_draw", lambda *_: none)
    monkeypatch.setattr(tiles, "NOISE", np.zeros(12))
    small, _ = joined(landscape(2, 190, 200, ("b4", "b8")))
    monkeypatch.setattr(tiles, "TILE", 200)
    large, _ = joined(landscape(2, 190, 200, ("b4", "b8")))
    np.testing.assert_allclose(small.astype(int), large.astype(int), atol=1)


def test_noise_is_normal_has_its_spectrum_and_does_not_repeat_soon():
    noise = Noise(0, 512)
    axes = (np.arange(512), np.arange(900))
    field = noise.over("x", 3.0, 60.0, *axes)
    assert field.dtype == np.float32 and abs(field.mean()) < 0.1 and field.std() == pytest.approx(1, abs=0.1)
    power = np.abs(np.fft.fft2(field[:512, :512] * np.hanning(512) * np.hanning(512)[:, None])) ** 2
    k = np.hypot(np.fft.fftfreq(512), np.fft.fftfreq(512)[:, None])
    use = (k > 0.05) & (k < 0.3)
    assert np.polyfit(np.log(k[use]), np.log(power[use]), 1)[0] == pytest.approx(-3.0, abs=0.3)
    assert np.corrcoef(field[:, :300].ravel(), field[:, 512:812].ravel())[0, 1] < 0.8
    np.testing.assert_array_equal(
        noise.over("x", 3.0, 60.0, np.arange(40, 70), np.arange(700, 720)), field[40:70, 700:720]
    )
    points = np.array([[3.2, 4.9], [100.0, 700.4]])
    np.testing.assert_allclose(noise.at("x", 3.0, 60.0, points), [field[3, 5], field[100, 700]], rtol=1e-6)
    assert np.corrcoef(field.ravel(), noise.over("y", 3.0, 60.0, *axes).ravel())[0, 1] < 0.3


def test_a_plain_scene_has_blobs_that_differ_in_one_band():
    image, mask = joined(texture(0, 300, 700, ("b4", "b3", "b2")))
    share = (mask == 1).sum() / (mask != 255).sum()
    assert 0.008 < share < 0.04
    image = image.astype(float)
    assert image[2][mask == 1].mean() > image[2][mask == 0].mean() + 200
    bright = (image[0] > image[0][mask == 1].mean()) & (mask != 255)
    assert 0.2 < (mask[bright] == 1).mean() < 0.9
    assert ((image == 0).all(0) == (mask == 255)).all()


def test_what_cannot_be_generated(tmp_path):
    for about, says in (
        ({"bands": ("b2", "b11")}, "b11"),
        ({"bands": ("b2", "b2")}, "each once"),
        ({"bands": ()}, "each once"),
        ({"height": 8}, "8 x 64"),
        ({"seed": -1}, "seed -1"),
        ({"labels": tmp_path / "x.shp"}, ".shp"),
    ):
        with pytest.raises(RecipeError, match=says):
            write_scene_pair(tmp_path / "s.tif", **{"height": 64, "width": 64, **about})
    assert list(tmp_path.iterdir()) == []


def test_the_command(l4s, tmp_path):
    arguments = ("data", "synth", tmp_path / "s.tif", "--kind", "scene", "--height", 64, "--width", 80)
    shown = l4s(*arguments, "--plain", "--bands", "b4,b3,b2", "--labels", tmp_path / "l.geojson", "--json")
    assert shown.exit_code == 0, shown.output
    about = json.loads(shown.stdout)
    assert (about["height"], about["width"], about["labels"]) == (64, 80, str(tmp_path / "l.geojson"))
    assert open_scene(tmp_path / "s.tif").bands == ("b4", "b3", "b2") and (tmp_path / "l.geojson").is_file()
    text = l4s(*arguments, "--plain", "--bands", "b4,b3,b2", "--labels", tmp_path / "l.geojson")
    assert "64 x 80 pixels" in text.stdout and "polygons" in text.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("--kind", "scene", "--train", "3"), "--train"), (("--plain",), "--plain"), (("--height", "64"), "--height")],
)
def test_options_of_the_other_kind_are_refused(l4s, tmp_path, arguments, says):
    shown = l4s("data", "synth", tmp_path / "x", *arguments)
    assert shown.exit_code == 2 and says in shown.stderr and "no effect" in shown.stderr
    assert list(tmp_path.iterdir()) == []
