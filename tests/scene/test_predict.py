"""A run on whole scenes: against a slow loop, with models whose answer is known, and badly used."""

import json
import shutil

import numpy as np
import pytest
import rasterio
import torch
from scene_factory import write_scene
from scene_helpers import CPU, SIZE, left_in, noise, read, run_on, says

from l4s.data.stats import pool
from l4s.engine import start_engine
from l4s.errors import DataError, RecipeError, RunError
from l4s.experiment import weights
from l4s.files import write_json
from l4s.member import trained_member
from l4s.plan import read_plan
from l4s.rundir import RunDir
from l4s.scene import job
from l4s.scene.job import SceneUse, decide, read_shard
from l4s.scene.parts import mask_of
from l4s.scene.predict import predict_scene
from l4s.scene.raster import Reader, open_scene, read_tags
from l4s.scene.statistics import scene_moments
from l4s.scene.windows import Layout, ahead, strips
from l4s.tasks import build_task


def slow(run, image, valid, stride, size=SIZE):
    """The ensemble's probabilities by a loop over single windows, with plain weights and a division at the end."""
    plan, engine = read_plan(RunDir(run)), start_engine("cpu", "fp32")
    mean = np.array([band[valid].mean(dtype=np.float64) for band in image])[:, None, None]
    std = np.array([band[valid].std(dtype=np.float64) for band in image])[:, None, None]
    ready = torch.from_numpy(np.where(valid, (image - mean) / std, 0).astype(np.float32))
    places = [sorted({*range(0, n - size, stride), n - size}) for n in valid.shape]
    bell = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(size) + 0.5) / size)
    total, weight = np.zeros((2, *valid.shape))
    for member in plan.members:
        task = build_task(member.config)
        (model,) = trained_member(plan.recipe, member, 0, weights(plan.run.member(0, member.name)), engine)
        for top in places[0]:
            for left in places[1]:
                here = np.s_[top : top + size, left : left + size]
                with torch.no_grad():
                    probs = task.probs(model, ready[None, :, *here])[0].double().numpy()
                total[here] += probs * np.outer(bell, bell)
                weight[here] += np.outer(bell, bell)
    return total / weight


def close(found, probs, valid=None):
    """Stored values are those probabilities, but for rounding."""
    valid = np.ones(found.shape, bool) if valid is None else valid
    np.testing.assert_array_equal(found == 255, ~valid)
    assert np.abs(found[valid] - probs[valid] * 254).max() < 0.501


@pytest.mark.parametrize("stride", [None, 5])
def test_a_scene_is_what_a_slow_loop_over_windows_says(scene_run, tmp_path, stride):
    image = noise()
    image[1, 20:34, 3:21] = np.nan
    valid = np.isfinite(image).all(0)
    found = run_on(scene_run, write_scene(tmp_path / "s.tif", image), tmp_path / "o.tif", stride=stride, batch=3)
    wanted = slow(scene_run, np.nan_to_num(image), valid, stride or SIZE // 2)
    close(found, wanted, valid)
    assert np.unique(found[valid]).size > 10  # the probabilities are no formality
    assert left_in(tmp_path) == ["o-mask.tif", "o.tif", "s.tif"]


def test_rasters_say_what_they_are(scene_run, tmp_path, monkeypatch):
    says(monkeypatch, lambda image: torch.sigmoid(image[:, 0]))
    scene = write_scene(tmp_path / "s.tif", noise())
    found = run_on(scene_run, scene, tmp_path / "o.tif", threshold=0.5)
    tags = read_tags(tmp_path / "o.tif")
    assert (tags["L4S_KIND"], tags["L4S_STEP"], len(tags["L4S_RUN"])) == ("probability", "1", 16)
    for path, band, scale in ((tmp_path / "o.tif", "probability", 1 / 254), (tmp_path / "o-mask.tif", "landslide", 1)):
        with rasterio.open(path) as source, rasterio.open(scene.path) as like:
            assert (source.crs, source.transform, source.shape) == (like.crs, like.transform, like.shape)
            assert (source.dtypes, source.nodata, source.descriptions) == (("uint8",), 255, (band,))
            assert source.scales == (scale,) and source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    np.testing.assert_array_equal(read(tmp_path / "o-mask.tif"), found / 254 >= 0.5)
    assert 0 < read(tmp_path / "o-mask.tif").mean() < 1
    assert read_tags(tmp_path / "o-mask.tif")["L4S_THRESHOLD"] == "0.5"


@pytest.mark.parametrize("shape", [(50, 37), (16, 16), (17, 33), (7, 9), (1, 40), (40, 1), (1, 1)])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_model_gives_a_constant_map(scene_run, tmp_path, monkeypatch, shape, value):
    says(monkeypatch, lambda image: torch.full_like(image[:, 0], value))
    found = run_on(scene_run, write_scene(tmp_path / "s.tif", noise(*shape)), tmp_path / "o.tif", batch=100)
    assert found.shape == shape and (found == round(value * 254)).all()


@pytest.mark.parametrize(("shape", "stride"), [((50, 37), None), ((50, 37), 3), ((16, 40), 16), ((9, 7), None)])
def test_a_model_that_says_one_band_gives_that_band_back(scene_run, tmp_path, monkeypatch, shape, stride):
    image = np.random.default_rng(1).random((3, *shape)).astype(np.float32)
    mean, std = image[1].mean(dtype=np.float64), image[1].std(dtype=np.float64)
    says(monkeypatch, lambda window: window[:, 1] * std + mean)
    close(run_on(scene_run, write_scene(tmp_path / "s.tif", image), tmp_path / "o.tif", stride=stride), image[1])


@pytest.mark.parametrize("tta", ["flip", "d4"])
def test_views_are_turned_back(scene_run, tmp_path, monkeypatch, tta):
    image = np.random.default_rng(1).random((3, 20, 30)).astype(np.float32)
    mean, std = image[2].mean(dtype=np.float64), image[2].std(dtype=np.float64)
    asked = says(monkeypatch, lambda window: window[:, 2] * std + mean)
    close(run_on(scene_run, write_scene(tmp_path / "s.tif", image), tmp_path / "o.tif", tta=tta), image[2])
    assert len(asked) > 8


def test_nodata_stays_nodata_and_windows_of_nothing_else_are_not_asked_about(scene_run, tmp_path, monkeypatch):
    image = np.random.default_rng(2).integers(1, 99, (3, 64, 64)).astype(np.uint16)
    image[0, :40] = image[2, :, 48:] = 0  # in some band only
    valid = (image > 0).all(0)
    asked = says(monkeypatch, lambda window: torch.full_like(window[:, 0], 0.5))
    found = run_on(scene_run, write_scene(tmp_path / "s.tif", image, nodata=0), tmp_path / "o.tif", batch=100)
    np.testing.assert_array_equal(found, np.where(valid, 127, 255))
    np.testing.assert_array_equal(read(tmp_path / "o-mask.tif"), np.where(valid, 1, 255))
    windows = [(row, column) for row in range(0, 49, 8) for column in range(0, 49, 8)]
    seen = sum(valid[row : row + SIZE, column : column + SIZE].any() for row, column in windows)
    members, probes = 2, 2
    assert sum(asked) == members * seen + probes and seen < len(windows) / 2


def test_what_is_not_valid_stands_at_the_mean(scene_run, tmp_path, monkeypatch):
    image = noise(16, 16)
    image[2, 3, 4] = np.nan
    seen = []
    says(monkeypatch, lambda window: seen.append(window.clone()) or window[:, 0].sigmoid())
    run_on(scene_run, write_scene(tmp_path / "s.tif", image), tmp_path / "o.tif")
    valid = np.isfinite(image).all(0)
    window = seen[-1][0].numpy()
    assert (window[:, 3, 4] == 0).all()
    np.testing.assert_allclose(window[:, valid].mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(window[:, valid].std(1), 1, atol=1e-4)


@pytest.mark.parametrize("block", [2**21, 700, 1])
def test_statistics_of_a_scene_are_those_of_the_whole(tmp_path, block):
    image = noise(60, 41) + np.float32(1e4)  # a mean far from zero, where sums of squares would lose their digits
    image[0, :7] = image[1, 30:32, 5:9] = np.nan
    valid = np.isfinite(image).all(0)
    scene = write_scene(tmp_path / "s.tif", image)
    count, mean, variance = scene_moments(scene, block)
    exact = np.where(valid, image, np.nan).astype(np.float64).reshape(3, -1)
    np.testing.assert_array_equal(count, valid.sum())
    np.testing.assert_allclose(mean, np.nanmean(exact, 1), rtol=1e-13)
    np.testing.assert_allclose(np.sqrt(variance), np.nanstd(exact, 1), rtol=1e-11)


def test_a_scene_of_nodata_is_refused(scene_run, tmp_path):
    scene = write_scene(tmp_path / "s.tif", np.zeros((3, 20, 20), np.uint8), nodata=0)
    with pytest.raises(DataError, match=r"s.tif has no valid pixel"):
        predict_scene(scene_run, scene.path, tmp_path / "o.tif", CPU, SceneUse())


@pytest.mark.parametrize("mode", ["separated", "source", "imagenet"])
def test_what_members_standardise_by(scene_run, tmp_path, monkeypatch, mode):
    image = noise(16, 16)
    seen = []
    says(monkeypatch, lambda window: seen.append(window.clone()) or window[:, 0].sigmoid())
    run_on(scene_run, write_scene(tmp_path / "s.tif", image), tmp_path / "o.tif", normalise=mode)
    stored = np.array(json.loads((scene_run / "stats" / "home.json").read_text())["moments"])
    mean, std = {
        "separated": (image.mean((1, 2), dtype=np.float64), image.std((1, 2), dtype=np.float64)),
        "source": pool(stored[:, None]),
        "imagenet": (255 * np.array([0.485, 0.456, 0.406]), 255 * np.array([0.229, 0.224, 0.225])),
    }[mode]
    wanted = (image - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(seen[-1][0], wanted, rtol=1e-4, atol=1e-4)


def test_members_have_the_weights_of_their_ensemble(scene_run, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(scene_run, run)
    config = json.loads((run / "config.json").read_text())
    config["ensemble"]["weights"] = {"a": 3.0, "b": 1.0}
    (run / "config.json").write_text(json.dumps(config))
    scene = write_scene(tmp_path / "s.tif", noise(16, 16))
    values = iter([0.5, 0.5, 1.0, 0.2])  # a and b are looked at, then asked
    says(monkeypatch, lambda window: torch.full_like(window[:, 0], next(values)))
    assert (run_on(run, scene, tmp_path / "o.tif") == round(254 * (0.75 * 1.0 + 0.25 * 0.2))).all()


def test_bands_are_found_by_name_and_told_by_the_user(scene_run, tmp_path):
    image = noise()
    wanted = run_on(scene_run, write_scene(tmp_path / "s.tif", image), tmp_path / "o.tif")
    turned = write_scene(tmp_path / "t.tif", image[::-1], ("b2", "b3", "b4"))
    np.testing.assert_array_equal(run_on(scene_run, turned, tmp_path / "p.tif"), wanted)
    more = np.concatenate([image[:1], image])
    unnamed = write_scene(tmp_path / "u.tif", more, ("x", "y", "z", "w"))
    named = run_on(scene_run, unnamed, tmp_path / "q.tif", bands=("b8", "b4", "b3", "b2"))
    np.testing.assert_array_equal(named, wanted)


def test_a_file_without_names_is_taken_in_the_runs_order_aloud(scene_run, tmp_path, capsys):
    image = noise()
    named = run_on(scene_run, write_scene(tmp_path / "n.tif", image), tmp_path / "o.tif")
    assert "does not name its bands" not in capsys.readouterr().err
    bare = write_scene(tmp_path / "u.tif", image, ("",) * len(image))
    np.testing.assert_array_equal(run_on(scene_run, bare, tmp_path / "p.tif"), named)
    assert "u.tif does not name its bands: taken as b4, b3, b2" in " ".join(capsys.readouterr().err.split())


def test_wrong_bands_are_refused_before_anything_is_written(scene_run, tmp_path):
    four = np.ones((4, 20, 20), np.uint8)
    scene = write_scene(tmp_path / "s.tif", four, ("b2", "b3", "red", "b8"))
    with pytest.raises(DataError, match=r"s.tif has no band 'b4'.*it has b2, b3, red, b8"):
        predict_scene(scene_run, scene.path, tmp_path / "o.tif", CPU, SceneUse())
    with pytest.raises(DataError, match="has 4 bands, but 3 names are given"):
        predict_scene(scene_run, scene.path, tmp_path / "o.tif", CPU, SceneUse(bands=("b4", "b3", "b2")))
    assert left_in(tmp_path) == ["s.tif"]


def test_a_scene_without_a_crs_has_none_afterwards(scene_run, tmp_path):
    run_on(scene_run, write_scene(tmp_path / "s.tif", noise(), crs=None), tmp_path / "o.tif")
    assert open_scene(tmp_path / "o.tif").grid == open_scene(tmp_path / "s.tif").grid
    assert open_scene(tmp_path / "o.tif").grid.crs is None


def test_a_truncated_scene_is_named(scene_run, tmp_path):
    scene = write_scene(tmp_path / "s.tif", np.random.default_rng(0).random((3, 600, 600)).astype(np.float32))
    scene.path.write_bytes(scene.path.read_bytes()[: scene.path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"s.tif cannot be read.*copy or download it again"):
        predict_scene(scene_run, scene.path, tmp_path / "o.tif", CPU, SceneUse(stride=16, normalise="source"))
    assert not (tmp_path / "o.tif").exists()


@pytest.mark.parametrize(("height", "width", "stride"), [(50, 37, 8), (48, 32, 16), (5, 40, 10), (9, 7, 8)])
def test_patch_models_give_a_raster_at_the_stride(scene_run, tmp_path, monkeypatch, height, width, stride):
    """The model says the mean of the first band: what lies beyond the scene mirrors what a window has of it."""
    image = np.random.default_rng(1).random((3, height, width)).astype(np.float32)
    image[0, : height // 3, : width // 3] = np.nan
    valid = np.isfinite(image).all(0)
    mean, std = (function(image[0][valid].astype(np.float64)) for function in (np.mean, np.std))
    says(monkeypatch, lambda window: window[:, 0].mean((1, 2)) * std + mean)
    scene = write_scene(tmp_path / "s.tif", image)
    found = run_on(scene_run, scene, tmp_path / "o.tif", stride=stride, batch=3)
    assert found.shape == (-(-height // stride), -(-width // stride))
    filled = np.where(valid, image[0], mean)
    for row in range(found.shape[0]):
        for column in range(found.shape[1]):
            here = np.s_[row * stride : row * stride + SIZE, column * stride : column * stride + SIZE]
            if not valid[here].any():
                assert found[row, column] == 255
                continue
            assert abs(found[row, column] - 254 * mirrored(filled[here]).mean()) < 0.51
    assert read_tags(tmp_path / "o.tif")["L4S_STEP"] == str(stride)
    grid = open_scene(tmp_path / "o.tif").grid
    assert grid == scene.grid.coarser(stride, *found.shape)


def test_answers_once_a_window_lie_side_by_side(scene_run, tmp_path, monkeypatch):
    """A cell is the ground of its window: overlapping windows would lie half a cell beside it."""
    monkeypatch.setattr(job, "ANSWERS", {"baseline": "classify"})
    says(monkeypatch, lambda window: window[:, 0].mean((1, 2)).sigmoid())
    found = run_on(scene_run, write_scene(tmp_path / "s.tif", noise(48, 32)), tmp_path / "o.tif")
    assert found.shape == (3, 2) and read_tags(tmp_path / "o.tif")["L4S_STEP"] == str(SIZE)


def test_sub_domains_are_not_found_in_scenes(scene_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(scene_run, run)
    config = json.loads((run / "config.json").read_text())
    config["domain"]["away"] = {"role": "target", "subdomains": {"by": "cluster", "k": 2}}
    (run / "config.json").write_text(json.dumps(config))
    run_on(run, write_scene(tmp_path / "s.tif", noise()), tmp_path / "o.tif")
    assert "standardises away by sub-domains; a scene is" in " ".join(capsys.readouterr().err.split())


def mirrored(window):
    """What there is of a window, padded below and on the right to its full size."""
    for axis in (0, 1):
        beyond = [(0, SIZE - length if number == axis else 0) for number, length in enumerate(window.shape)]
        window = np.pad(window, beyond, "reflect" if window.shape[axis] > 1 else "edge")
    return window


def test_scores_have_no_mask_but_where_a_threshold_is_given(scene_run, tmp_path, monkeypatch):
    says(monkeypatch, lambda window: window[:, 0].sigmoid(), kind="score")
    scene = write_scene(tmp_path / "s.tif", noise())
    run_on(scene_run, scene, tmp_path / "o.tif")
    assert read_tags(tmp_path / "o.tif")["L4S_KIND"] == "score" and not mask_of(tmp_path / "o.tif").exists()
    found = run_on(scene_run, scene, tmp_path / "o.tif", threshold=0.6)
    np.testing.assert_array_equal(read(mask_of(tmp_path / "o.tif")), found / 254 >= 0.6)


def test_a_mask_is_cut_where_the_expected_f1_of_the_scene_is_highest(scene_run, tmp_path, monkeypatch):
    says(monkeypatch, lambda image: torch.sigmoid(image[:, 0] - 3))
    image = noise()
    image[:, :20, :11] = np.nan
    found = run_on(scene_run, write_scene(tmp_path / "s.tif", image), tmp_path / "o.tif", threshold="expected_f1")
    known = found != 255
    p = np.sort(found[known] / 254)[::-1]
    threshold = (np.cumsum(p) / (np.arange(1, len(p) + 1) + p.sum())).max()
    assert 0 < threshold < 0.4
    np.testing.assert_array_equal(read(mask_of(tmp_path / "o.tif")), np.where(known, found / 254 >= threshold, 255))
    assert float(read_tags(mask_of(tmp_path / "o.tif"))["L4S_THRESHOLD"]) == pytest.approx(threshold, abs=1e-12)


def test_a_mask_is_cut_where_the_held_out_source_was_best(scene_run, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(scene_run, run)
    write_json(RunDir(run).heldout(0), {"none": 0.25, "d4": 0.75})
    says(monkeypatch, lambda window: window[:, 0].sigmoid())
    found = run_on(run, write_scene(tmp_path / "s.tif", noise()), tmp_path / "o.tif", threshold="heldout")
    np.testing.assert_array_equal(read(mask_of(tmp_path / "o.tif")), found / 254 >= 0.25)


def test_scores_have_no_expected_f1(scene_run, tmp_path, monkeypatch):
    says(monkeypatch, lambda window: window[:, 0].sigmoid(), kind="score")
    scene = write_scene(tmp_path / "s.tif", noise())
    with pytest.raises(RunError, match="expected_f1 needs probabilities"):
        predict_scene(scene_run, scene.path, tmp_path / "o.tif", CPU, SceneUse(threshold="expected_f1"))


def test_members_of_pixels_and_of_windows_do_not_mix(scene_run, tmp_path, monkeypatch):
    kinds = iter([2, 0])
    says(monkeypatch, lambda window: window[:, 0] if next(kinds) else window[:, 0, 0, 0])
    scene = write_scene(tmp_path / "s.tif", noise())
    with pytest.raises(RunError, match="of members a, b some say one value of a window"):
        predict_scene(scene_run, scene.path, tmp_path / "o.tif", CPU, SceneUse())


def changed_run(scene_run, folder, **keys):
    """A copy of the run whose members say something else in its config."""
    shutil.copytree(scene_run, folder)
    config = json.loads((folder / "config.json").read_text())
    for member in config["member"].values():
        member.update(keys)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_statistics_of_each_window_are_refused(scene_run, tmp_path):
    scene = write_scene(tmp_path / "s.tif", noise())
    with pytest.raises(RunError, match="--normalise patch would give each window statistics of its own"):
        predict_scene(scene_run, scene.path, tmp_path / "o.tif", CPU, SceneUse(normalise="patch"))
    run = changed_run(scene_run, tmp_path / "run", normalise="patch")
    with pytest.raises(
        RunError, match="member a was trained with normalise = 'patch', which would.*--normalise separated"
    ):
        predict_scene(run, scene.path, tmp_path / "o.tif", CPU, SceneUse())
    run_on(run, scene, tmp_path / "o.tif", normalise="separated")


def test_a_run_of_resized_pictures_is_refused(scene_run, tmp_path):
    run = changed_run(scene_run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["domain"]["home"]["fit"] = {"by": "resize", "side": 16}
    (run / "config.json").write_text(json.dumps(config))
    scene = write_scene(tmp_path / "s.tif", noise())
    with pytest.raises(RunError, match="pictures of home resized to 16 pixels.*l4s data chip"):
        predict_scene(run, scene.path, tmp_path / "o.tif", CPU, SceneUse())


def test_adabn_is_refused(scene_run, tmp_path):
    run = changed_run(scene_run, tmp_path / "run", adabn=True)
    scene = write_scene(tmp_path / "s.tif", noise())
    with pytest.raises(RunError, match=r"member a adapts its BatchNorm .*--set member.a.adabn=false"):
        predict_scene(run, scene.path, tmp_path / "o.tif", CPU, SceneUse())


def test_windows_of_another_size_than_a_swin_is_built_for_are_refused(scene_run, tmp_path):
    swin = {"name": "unet", "encoder": "tu-swin_tiny_patch4_window7_224", "size": 64}
    run = changed_run(scene_run, tmp_path / "run", model=swin, train={"scale": {"factor": 4.0}})
    scene = write_scene(tmp_path / "s.tif", noise())
    assert decide(run, scene.path, CPU, SceneUse()).window == 16
    with pytest.raises(
        RunError, match="windows of 32 pixels reach member a with 128, but it is built for 64.*--window 16"
    ):
        decide(run, scene.path, CPU, SceneUse(window=32))


@pytest.mark.parametrize(
    ("use", "error", "says"),
    [
        ({"window": 16, "stride": 17}, RunError, "windows of 16 pixels every 17 leave gaps"),
        ({"stride": 0}, RunError, "windows of 16 pixels every 0 leave gaps"),
        ({"window": 0}, RunError, "windows of 0 pixels"),
        ({"threshold": 1.1}, RunError, "threshold is 1.1"),
        ({"tta": "d8"}, RecipeError, r"tta is 'd8' \(there are: d4, flip, none\)"),
        ({"normalise": "seperated"}, RecipeError, "normalise is 'seperated', did you mean 'separated'"),
        ({"normalise": "official", "bands": ("b4", "b3", "b2")}, None, ""),
        ({"round": 1}, RunError, "has rounds 0 to 0"),
        ({"group": "x"}, RunError, "has no ensemble group 'x'"),
    ],
)
def test_options_that_cannot_be_used(scene_run, tmp_path, use, error, says):
    scene = write_scene(tmp_path / "s.tif", noise())
    if error is None:
        run_on(scene_run, scene, tmp_path / "o.tif", **use)
        return
    with pytest.raises(error, match=says):
        predict_scene(scene_run, scene.path, tmp_path / "o.tif", CPU, SceneUse(**use))
    assert left_in(tmp_path) == ["s.tif"]


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "a/2", "-1/2", "1/2/3", "1/", "½/2"])
def test_what_is_no_shard(text):
    with pytest.raises(RunError, match="is not i/n"):
        read_shard(text)
    assert read_shard("2/3") == (2, 3)


def test_windows_are_as_large_as_the_patches_of_training(scene_run, tmp_path, monkeypatch):
    scene = write_scene(tmp_path / "s.tif", noise())
    sides = set()
    says(monkeypatch, lambda window: sides.add(tuple(window.shape[2:])) or window[:, 0].sigmoid())
    run_on(scene_run, scene, tmp_path / "o.tif")
    assert sides == {(16, 16)}
    run = tmp_path / "run"
    shutil.copytree(scene_run, run)
    stats = json.loads((run / "stats" / "home.json").read_text())
    assert stats.pop("size") == [16, 16]
    (run / "stats" / "home.json").write_text(json.dumps(stats | {"size": [16, 32]}))
    with pytest.raises(RunError, match="patches of home are 16 x 32 pixels, and windows are square: choose --window"):
        predict_scene(run, scene.path, tmp_path / "p.tif", CPU, SceneUse())
    (run / "stats" / "home.json").write_text(json.dumps(stats))  # as an older l4s wrote it
    with pytest.raises(RunError, match="did not note how large its patches are: give --window"):
        predict_scene(run, scene.path, tmp_path / "p.tif", CPU, SceneUse())
    run_on(scene_run, scene, tmp_path / "q.tif", window=20)
    assert sides == {(16, 16), (20, 20)}


def test_a_run_that_is_not_trained_is_refused(scene_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(scene_run, run)
    (run / "round-0" / "b" / "done.json").unlink()
    scene = write_scene(tmp_path / "s.tif", noise())
    with pytest.raises(RunError, match="has no finished round to predict with: round 0 lacks b"):
        predict_scene(run, scene.path, tmp_path / "o.tif", CPU, SceneUse())
    with pytest.raises(RunError, match="is no run directory"):
        predict_scene(tmp_path / "none", scene.path, tmp_path / "o.tif", CPU, SceneUse())


def test_every_pixel_row_is_read_once(tmp_path, monkeypatch):
    scene = write_scene(tmp_path / "s.tif", noise(50, 37))
    layout = Layout(50, 37, SIZE, 5)
    rows = []
    stored = Reader.stored

    def watched(self, row, column, height, width):
        rows.extend(range(row, row + height))
        return stored(self, row, column, height, width)

    monkeypatch.setattr(Reader, "stored", watched)
    for place, strip in enumerate(strips(scene, layout, range(len(layout.rows)))):
        np.testing.assert_array_equal(strip.image, noise(50, 37)[:, layout.rows[place] : layout.rows[place] + SIZE])
    assert rows == list(range(50))


def test_a_thread_runs_one_item_ahead_and_is_closed_whatever_happens():
    made, ended = [], []

    def items():
        try:
            for number in range(5):
                made.append(number)
                yield number
            raise ValueError("the end")
        finally:
            ended.append(True)

    source = ahead(items)
    assert next(source) == 0
    source.close()
    assert ended == [True] and made in ([0, 1], [0])
    with pytest.raises(ValueError, match="the end"):
        list(ahead(items))


def test_the_command(scene_run, tmp_path, monkeypatch, l4s):
    monkeypatch.chdir(tmp_path)
    scene = write_scene(tmp_path / "s.tif", noise())
    flags = ("--device", "cpu", "--precision", "fp32")
    shown = l4s("scene", "predict", scene.path, "--run", scene_run, *flags, "--stride", 4, "--threshold", 0.45)
    assert (shown.exit_code, shown.stdout) == (0, "s-landslides.tif\n"), shown.output
    wanted = run_on(scene_run, scene, tmp_path / "o.tif", stride=4, threshold=0.45)
    np.testing.assert_array_equal(read("s-landslides.tif"), wanted)
    np.testing.assert_array_equal(read("s-landslides-mask.tif"), read("o-mask.tif"))
    shown = l4s(
        "scene", "predict", scene.path, "p.tif", "--run", scene_run, *flags, "--shard", "1/2", "--bands", "b4,b3,b2"
    )
    assert (shown.exit_code, shown.stdout) == (0, ""), shown.output
    for arguments, message in (
        ((), "--run"),
        (("--run", "nowhere"), "nowhere"),
        (("--run", scene_run, "--shard", "3/2"), "3/2"),
    ):
        shown = l4s("scene", "predict", scene.path, "q.tif", *arguments)
        assert shown.exit_code == 2 and message in shown.stderr
