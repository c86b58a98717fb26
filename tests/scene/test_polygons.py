"""Polygons of landslides: against scipy on the whole mask, whatever the height of a strip."""

import json
import math
from collections import Counter

import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio import features
from scene_factory import NORTH_UP, UTM54
from scipy import ndimage
from vector_factory import read_vector, write_codes, write_mask

from l4s.errors import DataError
from l4s.scene import polygons as module
from l4s.scene.area import Areas
from l4s.scene.polygons import stitch, write_polygons
from l4s.scene.vector import write_shapes


def random_codes(seed, height, width, share=0.5):
    """Codes of which about a share is landslide (>= 127), some of the others nodata."""
    rng = np.random.default_rng(seed)
    codes = np.where(rng.random((height, width)) < share, rng.integers(127, 255, (height, width)), 20)
    codes[rng.random((height, width)) < 0.05] = 255
    return codes.astype(np.uint8)


def reference(codes, first=127):
    """Of every component of the whole mask: pixels, mean and maximum probability."""
    labels, count = ndimage.label((codes >= first) & (codes != 255))
    values = [codes[labels == label].astype(float) / 254 for label in range(1, count + 1)]
    return labels, [(len(each), each.mean(), each.max()) for each in values]


def burn(shapes, size, transform=NORTH_UP):
    """A label for each polygon, on the pixels whose centres it holds."""
    from rasterio.transform import Affine

    numbered = [(shape, number) for number, shape in enumerate(shapes, 1)]
    return features.rasterize(numbered, size, transform=Affine(*transform), dtype="int32") if numbered else None


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
@pytest.mark.parametrize(("share", "rows"), [(0.3, 1), (0.5, 2), (0.6, 5), (0.6, 64), (0.75, 3)])
def test_as_scipy_has_it_on_the_whole_mask(tmp_path, suffix, share, rows):
    codes = random_codes(int(share * 100), 37, 29, share)
    probs = write_codes(tmp_path / "p.tif", codes)
    found = write_polygons(probs, tmp_path / f"out{suffix}", rows=rows)
    crs, shapes, columns = read_vector(tmp_path / f"out{suffix}")
    labels, wanted = reference(codes)
    assert crs == UTM54
    assert found.landslides == len(shapes) == len(wanted) > 10
    assert found.pixels == (labels > 0).sum() and found.area == 100.0 * found.pixels
    assert shapely.is_valid(shapes).all() and (shapely.get_type_id(shapes) == 3).all()
    np.testing.assert_array_equal(columns["id"], np.arange(1, len(wanted) + 1))
    np.testing.assert_array_equal(columns["area"], 100.0 * columns["pixels"])
    np.testing.assert_array_equal(shapely.area(shapes), columns["area"])
    burnt = burn(shapes, codes.shape)
    for number, (pixels, mean, best) in enumerate(
        zip(columns["pixels"], columns["mean"], columns["maximum"], strict=True), 1
    ):
        [label] = np.unique(labels[burnt == number])
        assert (labels == label).sum() == (burnt == number).sum() == pixels
        np.testing.assert_allclose((mean, best), wanted[label - 1][1:], rtol=1e-12)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_the_bytes_do_not_depend_on_strips_or_on_the_day(tmp_path, suffix, monkeypatch):
    probs = write_codes(tmp_path / "p.tif", random_codes(3, 40, 31, 0.6))
    outs = []
    for rows in (1, 3, 7, 40):
        write_polygons(probs, tmp_path / f"{rows}{suffix}", rows=rows)
        outs.append((tmp_path / f"{rows}{suffix}").read_bytes())
    assert len(set(outs)) == 1
    monkeypatch.setattr(module, "BATCH", 2)
    write_polygons(probs, tmp_path / f"batches{suffix}", rows=7)
    one, many = (read_vector(tmp_path / f"{name}{suffix}")[1] for name in ("7", "batches"))
    assert shapely.equals_exact(one, many).all()
    assert not list(tmp_path.glob("*part*"))


FLAT = Areas(np.ones(1000, np.int64), 1.0, 1.0)


@settings(max_examples=150)
@given(st.data())
def test_pieces_are_never_cut(data):
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(bits).reshape(height, width)
    cuts = sorted({0, height, *data.draw(st.lists(st.integers(0, height), max_size=5))})
    least = data.draw(st.sampled_from([0, 2, 4]))
    codes = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    strips = [(mask[a:b], codes[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
    pieces = [piece for batch in stitch(strips, FLAT, least) for piece in batch]
    labels, count = ndimage.label(mask)
    wanted = [np.flatnonzero(labels.ravel() == label) for label in range(1, count + 1)]
    wanted = sorted((each for each in wanted if len(each) >= least), key=lambda each: each[-1])
    assert [(p.pixels, p.total, p.best, p.last) for p in pieces] == [
        (len(each), each.sum(), each[-1], each[-1]) for each in wanted
    ]
    shapes = [shapely.union_all(piece.shapes) for piece in pieces]
    assert all(shape.is_valid and shape.geom_type == "Polygon" for shape in shapes)
    for shape, each in zip(shapes, wanted, strict=True):
        boxes = [shapely.box(at % width, at // width, at % width + 1, at // width + 1) for at in each]
        assert shape.equals(shapely.union_all(boxes))


def test_holes_and_corners_that_touch(tmp_path):
    """A ring with a hole, an island in it, and a hole that touches the outside at a corner."""
    mask = np.array(
        [
            [1, 1, 1, 1, 1, 0, 0, 0],
            [1, 0, 0, 0, 1, 0, 1, 1],
            [1, 0, 1, 0, 1, 0, 1, 0],
            [1, 0, 0, 0, 1, 0, 1, 1],
            [1, 1, 1, 1, 1, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
            [1, 1, 1, 0, 1, 0, 0, 0],
            [1, 0, 1, 0, 0, 1, 0, 0],
            [0, 1, 1, 0, 0, 0, 0, 0],
        ]
    )
    probs = write_codes(tmp_path / "p.tif", mask * 254)
    for rows in (1, 2, 9):
        write_polygons(probs, tmp_path / f"{rows}.gpkg", rows=rows)
        _, shapes, columns = read_vector(tmp_path / f"{rows}.gpkg")
        assert sorted(columns["pixels"]) == [1, 1, 1, 5, 7, 16]
        assert shapely.is_valid(shapes).all()
        holes = Counter(zip(columns["pixels"].tolist(), shapely.get_num_interior_rings(shapes).tolist(), strict=True))
        assert holes[16, 1] == 1 and holes[7, 1] == 1


def test_threshold_is_exact(tmp_path):
    """100 / 254 itself is landslide at that threshold; the code below it is not."""
    probs = write_codes(tmp_path / "p.tif", np.array([[99, 255, 100, 0, 101]]))
    assert write_polygons(probs, tmp_path / "a.gpkg", threshold=100 / 254).pixels == 2
    assert write_polygons(probs, tmp_path / "b.gpkg", threshold=math.nextafter(100 / 254, 1)).pixels == 1
    assert write_polygons(probs, tmp_path / "c.gpkg", threshold=1.0).pixels == 0


def test_least_area_and_simplified_outlines(tmp_path):
    codes = np.zeros((40, 40), np.uint8)
    rows, columns = np.indices((30, 30))
    codes[5:35, 5:35] = np.where(rows >= columns, 200, 0)  # a triangle with steps
    codes[0, 39] = codes[1, 39] = 200
    probs = write_codes(tmp_path / "p.tif", codes)
    assert write_polygons(probs, tmp_path / "a.gpkg").landslides == 2
    assert write_polygons(probs, tmp_path / "b.gpkg", min_area=200.0).landslides == 2
    assert write_polygons(probs, tmp_path / "c.gpkg", min_area=200.1, rows=3).landslides == 1
    write_polygons(probs, tmp_path / "d.gpkg", min_area=1000, simplify=10)
    (exact,), (simple,) = (read_vector(tmp_path / f"{name}.gpkg")[1] for name in "cd")
    assert shapely.get_num_coordinates(simple) < 10 < shapely.get_num_coordinates(exact)
    assert shapely.hausdorff_distance(simple, exact) <= 10 and simple.is_valid
    assert read_vector(tmp_path / "d.gpkg")[2]["area"] == exact.area


def test_nothing_is_a_valid_file(tmp_path):
    probs = write_codes(tmp_path / "p.tif", np.zeros((4, 4)))
    for suffix in (".gpkg", ".geojson"):
        assert write_polygons(probs, tmp_path / f"out{suffix}").landslides == 0
        crs, shapes, _ = read_vector(tmp_path / f"out{suffix}")
        assert (crs, len(shapes)) == (UTM54, 0)
    assert set(read_vector(tmp_path / "out.gpkg")[2]) == {"id", "area", "pixels", "mean", "maximum"}


def test_a_mask_in_place_of_the_threshold(tmp_path):
    codes = random_codes(5, 20, 20)
    mask = ((codes % 2 == 0) & (codes != 255)).astype(np.uint8)
    probs, masks = write_codes(tmp_path / "p.tif", codes), write_mask(tmp_path / "m.tif", mask)
    found = write_polygons(probs, tmp_path / "out.gpkg", mask=masks, rows=3)
    assert found.landslides == ndimage.label(mask)[1] and found.pixels == mask.sum()
    with pytest.raises(DataError, match="threshold of 0.4 means nothing"):
        write_polygons(probs, tmp_path / "out.gpkg", mask=masks, threshold=0.4)
    holed = codes.copy()
    holed[tuple(np.argwhere(mask)[0])] = 255
    with pytest.raises(DataError, match=r"m.tif marks landslides where .*q.tif has no value"):
        write_polygons(write_codes(tmp_path / "q.tif", holed), tmp_path / "out.gpkg", mask=masks)
    with pytest.raises(DataError, match="another grid than the scene: 19 x 20 pixels, not 20 x 20"):
        write_polygons(probs, tmp_path / "out.gpkg", mask=write_mask(tmp_path / "n.tif", mask[1:]))


def test_areas_on_the_ellipsoid(tmp_path):
    """One degree of longitude between the equator and the pole is 1/720 of the Earth: 510,065,621.7 km2 on WGS 84."""
    codes = np.full((90, 1), 254, np.uint8)
    probs = write_codes(tmp_path / "p.tif", codes, crs="EPSG:4326", transform=(1.0, 0, 20.0, 0, -1.0, 90.0))
    found = write_polygons(probs, tmp_path / "a.geojson", rows=7)
    assert found.area == pytest.approx(510_065_621_724_078.9 / 720, rel=1e-11)
    crs, (shape,), _ = read_vector(tmp_path / "a.geojson")
    assert crs == "EPSG:4326" and shape.equals(shapely.box(20, 0, 21, 90))
    small = write_codes(tmp_path / "s.tif", codes[:5], crs="EPSG:4326", transform=(1e-4, 0, 141.0, 0, -1e-4, 43.0))
    # 1e-4 degrees at 43 degrees north: 8.14998 m by 11.11002 m (radii of curvature of WGS 84, hand computed)
    e2, a, latitude = 0.00669437999014, 6378137.0, math.radians(43 - 2.5e-4)
    prime = a / math.sqrt(1 - e2 * math.sin(latitude) ** 2)
    meridian = prime * (1 - e2) / (1 - e2 * math.sin(latitude) ** 2)
    pixel = math.radians(1e-4) ** 2 * prime * meridian * math.cos(latitude)
    assert write_polygons(small, tmp_path / "b.gpkg").area == pytest.approx(5 * pixel, rel=1e-7)
    with pytest.raises(DataError, match="degrees, where 10 metres have no length"):
        write_polygons(small, tmp_path / "b.gpkg", simplify=10)
    turned = write_codes(tmp_path / "t.tif", codes[:5], crs="EPSG:4326", transform=(1e-4, 1e-5, 141, 1e-5, -1e-4, 43))
    with pytest.raises(DataError, match="rotated grid of degrees"):
        write_polygons(turned, tmp_path / "b.gpkg")


def test_feet_are_not_metres_and_rotated_grids_have_areas(tmp_path):
    probs = write_codes(tmp_path / "p.tif", np.full((2, 2), 254), crs="EPSG:2263", transform=(10, 5, 9e5, 5, -10, 2e5))
    write_polygons(probs, tmp_path / "out.gpkg")
    _, (shape,), columns = read_vector(tmp_path / "out.gpkg")
    assert shape.area == pytest.approx(4 * 125)
    assert columns["area"][0] == pytest.approx(4 * 125 * (1200 / 3937) ** 2, rel=1e-9)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_without_a_crs(tmp_path, capsys, suffix):
    probs = write_codes(tmp_path / "p.tif", np.full((2, 3), 254), crs=None)
    found = write_polygons(probs, tmp_path / f"out{suffix}")
    assert found.area == 600.0
    assert "has no CRS with units" in " ".join(capsys.readouterr().err.split())
    crs, (shape,), _ = read_vector(tmp_path / f"out{suffix}")
    assert shape.area == 600.0
    assert suffix == ".geojson" or crs is None or "Undefined" in crs


def test_geojson_names_the_crs_or_refuses(tmp_path):
    probs = write_codes(tmp_path / "p.tif", np.full((2, 3), 254))
    write_polygons(probs, tmp_path / "out.geojson")
    assert (
        json.loads((tmp_path / "out.geojson").read_text())["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32654"
    )
    own = "+proj=laea +lat_0=43.5 +lon_0=141.5 +ellps=WGS84 +units=m"
    probs = write_codes(tmp_path / "q.tif", np.full((2, 3), 254), crs=own)
    with pytest.raises(DataError, match="EPSG code alone"):
        write_polygons(probs, tmp_path / "own.geojson")
    write_polygons(probs, tmp_path / "own.gpkg")
    assert "Lambert_Azimuthal" in read_vector(tmp_path / "own.gpkg")[0]


def test_a_failure_leaves_the_older_file(tmp_path, monkeypatch):
    probs = write_codes(tmp_path / "p.tif", np.full((2, 3), 254))
    for suffix in (".gpkg", ".geojson"):
        out = tmp_path / f"out{suffix}"
        out.write_bytes(b"older")

        def stop(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(module, "_columns", stop)
            with pytest.raises(KeyboardInterrupt):
                write_polygons(probs, out)
        assert out.read_bytes() == b"older"
        with pytest.raises(KeyboardInterrupt), write_shapes(out, UTM54) as put:
            put(np.array([shapely.box(0, 0, 1, 1)]), {"id": np.array([1])})
            stop()
        assert out.read_bytes() == b"older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.geojson", "out.gpkg", "p.tif"]
    assert pyogrio.get_gdal_config_option("OGR_CURRENT_DATE") is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threshold": 0.0}, "threshold must be above 0"),
        ({"threshold": 1.1}, "threshold must be above 0"),
        ({"min_area": -1.0}, "least area is -1"),
        ({"simplify": float("nan")}, "simplification is nan"),
        ({"out": "out.shp"}, "'.shp': polygons are written to .gpkg or .geojson"),
        ({"probs": "m.tif"}, "m.tif has no band 'probability' but 'landslide'"),
        ({"probs": "f.tif"}, "f.tif holds float32"),
        ({"probs": "none.tif"}, "there is no file"),
        ({"probs": "cut.tif"}, "cut.tif cannot be read"),
    ],
)
def test_wrong_use(tmp_path, options, says):
    from l4s.scene.raster import Grid, write_cog

    rng = np.random.default_rng(0)
    write_codes(tmp_path / "p.tif", rng.integers(0, 255, (64, 64)))
    write_mask(tmp_path / "m.tif", np.ones((4, 4)))
    write_cog(
        tmp_path / "f.tif",
        Grid(4, 4, UTM54, NORTH_UP),
        [np.zeros((1, 4, 4), np.float32)],
        dtype="float32",
        nodata=None,
        bands=("probability",),
    )
    whole = (tmp_path / "p.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    names = {"probs": "p.tif", "out": "out.gpkg"} | {key: options[key] for key in options.keys() & {"probs", "out"}}
    rest = {key: value for key, value in options.items() if key not in names}
    with pytest.raises(DataError, match=says):
        write_polygons(tmp_path / names["probs"], tmp_path / names["out"], **rest)
    assert not (tmp_path / names["out"]).exists()
