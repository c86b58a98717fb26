"""A GeoTIFF of amplitudes goes through `l4s data chip`, and its patches through made bands."""

import numpy as np
import pytest
from scene_factory import write_scene
from vector_factory import pixel_box, write_vector

from l4s.data.bands import Bands, Made
from l4s.data.labels import labels_beside
from l4s.data.readers import find_patches, read_image, read_mask
from l4s.sar.layout import band_names
from l4s.scene.chip import Cut, cut_chips

shapely = pytest.importorskip("shapely")
NAMES = band_names(1)


@pytest.fixture
def image(tmp_path):
    values = np.random.default_rng(0).gamma(4, 0.1, (4, 16, 32)).astype(np.float32)
    values[:, :3, :5] = np.nan
    write_scene(tmp_path / "s.tif", values, NAMES, nodata=np.nan)
    return values


def test_with_polygons(image, tmp_path):
    write_vector(tmp_path / "l.gpkg", [pixel_box(5, 20, 4, 6)])
    cut_chips(tmp_path / "s.tif", tmp_path / "l.gpkg", tmp_path / "out", Cut(16, 16))
    first, second = find_patches(tmp_path / "out", "train")
    np.testing.assert_array_equal(read_image(first, Bands(file=NAMES)), image[:, :, :16])
    np.testing.assert_array_equal(read_image(second, Bands(file=NAMES)), image[:, :, 16:])
    assert read_mask(second).sum() == 24 and (read_mask(first)[:3, :5] == 255).all()
    make = {
        "vv_pre": Made(how="log10", of=("vv_pre_1",)),
        "vv_post": Made(how="log10", of=("vv_post_1",)),
        "change": Made(how="difference", of=("vv_post", "vv_pre")),
    }
    bands = Bands(file=NAMES, make=make, use=("vv_pre", "change"), groups={"pre": ("vv_pre",)})
    found = read_image(first, bands)
    np.testing.assert_allclose(found[0], np.log10(np.maximum(image[0, :, :16], 1e-4)), rtol=1e-5)
    np.testing.assert_allclose(found[1], np.log10(image[2, :, :16] / image[0, :, :16]), rtol=1e-3, atol=1e-5)


def test_with_points(image, tmp_path):
    write_vector(tmp_path / "l.gpkg", [shapely.Point(500_205, 4_699_945)])
    cut_chips(tmp_path / "s.tif", tmp_path / "l.gpkg", tmp_path / "out", Cut(16, 16))
    assert labels_beside(find_patches(tmp_path / "out", "train")) == {1: 0, 2: 1}
