"""Scores of rasters against the truth: scikit-learn over all pixels that both know."""

import json

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scene_factory import NORTH_UP
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from typer.testing import CliRunner
from vector_factory import pixel_box, write_codes, write_mask, write_vector

from l4s.cli import app
from l4s.errors import DataError
from l4s.scene.polygons import write_polygons
from l4s.scene.score import score_scene


def some(seed=0, height=23, width=17):
    """Codes and a truth that go together, both with unknown pixels."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((height, width)) < 0.3).astype(np.uint8)
    codes = np.clip(rng.normal(90 + 60 * truth, 50), 0, 254).astype(np.uint8)
    codes[rng.random(codes.shape) < 0.1] = 255
    truth[rng.random(truth.shape) < 0.1] = 255
    return codes, truth


def reference(codes, truth, threshold):
    known = (codes != 255) & (truth != 255)
    t, p = truth[known], codes[known] / 254
    cut = p >= threshold
    landslide, background = jaccard_score(t, cut), jaccard_score(1 - t, ~cut)
    return {
        "pixels": known.sum(),
        "precision": precision_score(t, cut),
        "recall": recall_score(t, cut),
        "f1": f1_score(t, cut),
        "iou": landslide,
        "mean_iou": (landslide + background) / 2,
        "accuracy": accuracy_score(t, cut),
        "predicted_share": cut.mean(),
        "true_share": t.mean(),
        "average_precision": average_precision_score(t, p),
        "auroc": roc_auc_score(t, p),
        "oracle_f1": max(f1_score(t, p >= value) for value in np.unique(p)),
    }


def close(found, wanted):
    assert {key: getattr(found, key) for key in wanted} == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("threshold", [None, 0.3, 100 / 254, 1.0])
@pytest.mark.parametrize("block", [1, 5, 512])
def test_against_sklearn(tmp_path, threshold, block):
    codes, truth = some()
    codes[0, 0], truth[0, 0] = 254, 1
    pred, mask = write_codes(tmp_path / "p.tif", codes), write_mask(tmp_path / "t.tif", truth)
    found = score_scene(pred, mask, threshold=threshold, block=block)
    close(found, reference(codes, truth, 0.5 if threshold is None else threshold))
    assert found.threshold == (0.5 if threshold is None else threshold)
    again = score_scene(pred, mask, threshold=found.oracle_threshold)
    assert again.f1 == pytest.approx(found.oracle_f1, abs=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 254), st.integers(0, 99))
def test_every_code_is_landslide_at_its_own_threshold(tmp_path_factory, code, seed):
    folder = tmp_path_factory.mktemp("score")
    codes, truth = some(seed, 5, 5)
    codes[2, 2], truth[2, 2] = code, 1
    pred, mask = write_codes(folder / "p.tif", codes), write_mask(folder / "t.tif", truth)
    threshold = max(code, 1) / 254
    found = score_scene(pred, mask, threshold=threshold)
    close(found, {"predicted_share": (codes[(codes != 255) & (truth != 255)] >= max(code, 1)).mean()})


def test_masks(tmp_path):
    codes, truth = some(1)
    cut = np.where(codes == 255, 255, codes >= 127).astype(np.uint8)
    pred, mask = write_mask(tmp_path / "p.tif", cut), write_mask(tmp_path / "t.tif", truth)
    found = score_scene(pred, mask)
    wanted = reference(codes, truth, 0.5)
    close(found, {key: value for key, value in wanted.items() if not key.startswith(("average", "auroc", "oracle"))})
    assert {found.threshold, found.average_precision, found.auroc, found.oracle_threshold, found.oracle_f1} == {None}
    with pytest.raises(DataError, match="threshold of 0.5 means nothing"):
        score_scene(pred, mask, threshold=0.5)


def test_a_part(tmp_path):
    codes, truth = some(2)
    pred, mask = write_codes(tmp_path / "p.tif", codes), write_mask(tmp_path / "t.tif", truth)
    close(score_scene(pred, mask, columns="8:"), reference(codes[:, 8:], truth[:, 8:], 0.5))
    close(score_scene(pred, mask, rows="3:21", columns=":9", block=4), reference(codes[3:21, :9], truth[3:21, :9], 0.5))
    for text in ("8", "a:b", "-1:4", "9:9", "5:24"):
        with pytest.raises(DataError, match="rows .*(first:end|do not lie in the raster, which has 23)"):
            score_scene(pred, mask, rows=text)


def test_polygons_as_truth(tmp_path):
    codes, truth = some(3, 20, 20)
    truth[:] = 0
    truth[2:9, 3:11] = truth[12:17, 1:4] = 1
    pred = write_codes(tmp_path / "p.tif", codes)
    shapes = [pixel_box(2, 3, 7, 8), pixel_box(12, 1, 5, 3)]
    close(score_scene(pred, write_vector(tmp_path / "t.gpkg", shapes), block=3), reference(codes, truth, 0.5))


def test_one_class_alone(tmp_path):
    none = write_mask(tmp_path / "none.tif", np.zeros((3, 4)))
    found = score_scene(none, none)
    assert (found.f1, found.iou, found.accuracy, found.mean_iou) == (0, 0, 1, pytest.approx(0.5))


def test_what_cannot_be_scored(tmp_path):
    codes, truth = some(4)
    pred, mask = write_codes(tmp_path / "p.tif", codes), write_mask(tmp_path / "t.tif", truth)
    with pytest.raises(DataError, match="t.tif lies on another grid than the scene: 23 x 17 pixels, not 22 x 17"):
        score_scene(write_codes(tmp_path / "q.tif", codes[1:]), mask)
    with pytest.raises(DataError, match="no pixel in common"):
        score_scene(pred, write_mask(tmp_path / "u.tif", np.full(codes.shape, 255)))
    with pytest.raises(DataError, match="holds 90 "):
        score_scene(write_codes(tmp_path / "odd.tif", np.full(codes.shape, 90), band="something"), mask)
    points = write_vector(tmp_path / "points.gpkg", [shapely.Point(500_010, 4_699_990)])
    with pytest.raises(DataError, match="points, which have no area"):
        score_scene(pred, points)
    coarse = (100.0, *NORTH_UP[1:4], -100.0, NORTH_UP[5])
    heat = write_codes(tmp_path / "heat.tif", codes, transform=coarse, L4S_STEP="10")
    slides = write_vector(tmp_path / "slides.gpkg", [pixel_box(0, 0, 40, 40)])
    with pytest.raises(DataError, match="stands for 10 x 10 of the scene, where polygons have no rule"):
        score_scene(heat, slides)
    close(score_scene(heat, write_mask(tmp_path / "v.tif", truth, transform=coarse)), reference(codes, truth, 0.5))


def test_the_commands(tmp_path):
    def l4s(*arguments):
        shown = CliRunner().invoke(app, ["scene", *map(str, arguments)])
        assert shown.exit_code == 0, shown.output
        return shown.stdout

    codes, truth = some(5)
    pred, mask = write_codes(tmp_path / "p.tif", codes), write_mask(tmp_path / "t.tif", truth)
    wanted = reference(codes, truth, 0.4)
    told = json.loads(l4s("score", pred, mask, "--threshold", 0.4, "--json"))
    assert {key: told[key] for key in wanted} == pytest.approx(wanted, abs=1e-12)
    table = l4s("score", pred, mask, "--threshold", 0.4)
    assert all(f"{wanted[key]:.4f}" in table for key in ("f1", "mean_iou", "accuracy", "average_precision"))
    assert "oracle" not in json.loads(l4s("score", mask, mask, "--json", "--rows", "0:9"))
    told = json.loads(l4s("polygons", pred, tmp_path / "out.gpkg", "--threshold", 0.4, "--json"))
    cut = (codes != 255) & (codes / 254 >= 0.4)
    assert (told["pixels"], told["area_m2"]) == (cut.sum(), 100.0 * cut.sum())
    assert f"{told['landslides']} landslides" in l4s("polygons", pred, tmp_path / "out.geojson", "--threshold", 0.4)


def test_scores_that_are_only_ordered_have_no_threshold_of_their_own(tmp_path):
    codes, truth = some()
    pred, mask = write_codes(tmp_path / "p.tif", codes, L4S_KIND="score"), write_mask(tmp_path / "m.tif", truth)
    with pytest.raises(DataError, match="p.tif holds scores that are only ordered, and 0.5 means nothing to them"):
        score_scene(pred, mask)
    close(score_scene(pred, mask, threshold=0.4), reference(codes, truth, 0.4))
    with pytest.raises(DataError, match="only ordered"):
        write_polygons(pred, tmp_path / "o.gpkg")
    assert (
        write_polygons(pred, tmp_path / "o.gpkg", threshold=0.4).pixels == ((codes != 255) & (codes / 254 >= 0.4)).sum()
    )
    own = write_mask(tmp_path / "own.tif", np.where(codes == 255, 255, codes > 200).astype(np.uint8))
    assert write_polygons(pred, tmp_path / "own.gpkg", mask=own).pixels > 0
