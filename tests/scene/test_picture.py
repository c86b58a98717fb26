"""Panels of a scene: every dot stands for the pixels under it, whatever the step of a map."""

import numpy as np
import pytest
from scene_factory import write_scene
from vector_factory import write_codes, write_mask

from l4s.errors import DataError
from l4s.scene import picture as module
from l4s.scene.picture import draw_scene
from l4s.scene.raster import open_scene, write_cog


@pytest.fixture
def panels(monkeypatch):
    seen = {}
    monkeypatch.setattr(module, "SIDE", 10)
    monkeypatch.setattr(module.plots, "draw_panels", lambda out, found: seen.update(found) or out)
    return seen


def test_truth_and_maps_are_shrunk_to_the_same_dots(tmp_path, panels):
    rng = np.random.default_rng(0)
    scene = write_scene(tmp_path / "s.tif", rng.integers(1, 1000, (3, 20, 40)).astype(np.uint16))
    mask = np.zeros((20, 40), np.uint8)
    mask[5, 7] = 1
    mask[12:16, 20:24] = 255
    codes = np.full((20, 40), 127, np.uint8)
    codes[0:4, 0:4] = 254
    codes[16:20, 36:40] = 255
    write_mask(tmp_path / "truth.tif", mask)
    write_codes(tmp_path / "map.tif", codes)
    draw_scene(tmp_path / "p.png", scene.path, [tmp_path / "map.tif"], truth=tmp_path / "truth.tif")
    assert list(panels) == ["s", "truth", "map"]
    assert panels["s"].shape == (5, 10, 3)
    expected = np.zeros((5, 10), np.float32)  # a dot is 4 x 4 pixels
    expected[1, 1], expected[3, 5] = 1, np.nan
    np.testing.assert_array_equal(panels["truth"], expected)
    values = np.full((5, 10), 0.5, np.float32)
    values[0, 0], values[4, 9] = 1, np.nan
    np.testing.assert_allclose(panels["map"], values, atol=1e-6)


def test_a_part_of_a_scene_is_cut_from_maps_of_any_step(tmp_path, panels):
    scene = write_scene(tmp_path / "s.tif", np.arange(1, 1 + 3 * 8 * 24, dtype=np.uint16).reshape(3, 8, 24))
    codes = np.arange(12, dtype=np.uint8).reshape(2, 6)
    write_codes(tmp_path / "coarse.tif", codes, L4S_STEP="4")
    draw_scene(tmp_path / "p.png", scene.path, [tmp_path / "coarse.tif"], rows="4:8", columns="8:16")
    assert panels["s"].shape == (4, 8, 3)
    np.testing.assert_allclose(panels["coarse"], np.repeat([[8, 9]], 4, 1).repeat(4, 0) / 254, atol=1e-6)
    draw_scene(tmp_path / "p.png", scene.path, [tmp_path / "coarse.tif"], rows="2:8", columns="10:20")
    here = np.repeat(np.repeat(codes, 4, 0), 4, 1)[2:8, 10:20]  # cells that the part cuts are cut
    np.testing.assert_allclose(panels["coarse"], here / 254, atol=1e-6)


def test_bands_called_by_their_colours_are_colours(tmp_path, panels):
    image = np.random.default_rng(0).random((4, 8, 8)).astype(np.float32)
    scene = write_scene(tmp_path / "s.tif", image, ("blue", "green", "red", "nir"))
    draw_scene(tmp_path / "p.png", scene.path, [])
    same = write_scene(tmp_path / "t.tif", image[[2, 1, 0]])
    draw_scene(tmp_path / "p.png", same.path, [])
    np.testing.assert_array_equal(panels["s"], panels["t"])


def test_a_mask_is_drawn_as_what_lies_under_the_dots_and_not_as_its_overviews(tmp_path, panels):
    mask = np.zeros((1, 2048, 2048), np.uint8)
    mask[0, 5::8] = 1
    scene = write_scene(tmp_path / "s.tif", np.ones((1, 2048, 2048), np.uint8), ("b4",))
    grid = open_scene(scene.path).grid
    strips = (mask[:, top : top + 512] for top in range(0, 2048, 512))
    path = tmp_path / "m.tif"
    write_cog(path, grid, strips, dtype="uint8", nodata=255, bands=["landslide"], overviews="mode")
    draw_scene(tmp_path / "p.png", scene.path, [path], truth=path)
    np.testing.assert_array_equal(panels["m"], panels["truth"])


def test_the_picture_is_a_png_and_foreign_maps_are_refused(tmp_path):
    scene = write_scene(tmp_path / "s.tif", np.ones((3, 8, 8), np.uint16))
    write_codes(tmp_path / "map.tif", np.zeros((8, 8), np.uint8))
    write_codes(tmp_path / "other.tif", np.zeros((8, 9), np.uint8))
    out = draw_scene(tmp_path / "p.png", scene.path, [tmp_path / "map.tif"])
    assert out.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DataError, match="no map of"):
        draw_scene(tmp_path / "q.png", scene.path, [tmp_path / "other.tif"])
    with pytest.raises(DataError, match="name of two panels"):
        draw_scene(tmp_path / "q.png", scene.path, [tmp_path / "map.tif", tmp_path / "map.tif"])
