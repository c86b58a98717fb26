"""Stopped, in shards or short of memory, a prediction ends in the same bytes; what was made otherwise is refused."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from scene_factory import write_scene
from scene_helpers import CPU, Killed, left_in, noise, read, run_on, says, stop_at

from l4s.errors import DataError, RunError
from l4s.scene import network, parts
from l4s.scene.job import SceneUse
from l4s.scene.parts import folder_of, mask_of, mosaic
from l4s.scene.predict import predict_scene

STOPS = [
    *(("scene.statistics", 1), ("scene.batch", 1), ("scene.batch", 8)),
    *(("scene.part", 1), ("scene.part", 3), ("scene.part", 6), ("scene.joined", 1), ("scene.mask", 1)),
]


@pytest.fixture(scope="module")
def whole(scene_run, tmp_path_factory):
    """A scene, and the bytes of the result that nothing stopped."""
    place = tmp_path_factory.mktemp("whole")
    image = noise(50, 37)
    image[:, 10:44, 20:] = np.nan
    scene = write_scene(place / "s.tif", image)
    run_on(scene_run, scene, place / "o.tif", batch=2, stride=7)
    return scene, (place / "o.tif").read_bytes(), (place / "o-mask.tif").read_bytes()


def assert_same(out, whole):
    assert out.read_bytes() == whole[1] and mask_of(out).read_bytes() == whole[2]
    assert left_in(out.parent) == sorted([out.name, mask_of(out).name])


@pytest.mark.parametrize(("point", "nth"), STOPS)
def test_a_stopped_prediction_ends_in_the_same_bytes(scene_run, tmp_path, monkeypatch, whole, point, nth):
    out, use = tmp_path / "o.tif", SceneUse(batch=2, stride=7)
    stop_at(monkeypatch, point, nth)
    with pytest.raises(Killed, match=point):
        predict_scene(scene_run, whole[0].path, out, CPU, use)
    made = len(list(folder_of(out).glob("rows-*.npy")))
    calls = stop_at(monkeypatch, "")
    predict_scene(scene_run, whole[0].path, out, CPU, use)
    assert calls["scene.part"] == (0 if out.exists() and point in ("scene.joined", "scene.mask") else 6 - made)
    assert calls["scene.statistics"] == 0
    assert_same(out, whole)


def test_a_prediction_that_is_stopped_again_and_again(scene_run, tmp_path, monkeypatch, whole):
    for _ in range(20):
        stop_at(monkeypatch, "scene.part", 2)
        try:
            predict_scene(scene_run, whole[0].path, tmp_path / "o.tif", CPU, SceneUse(batch=2, stride=7))
            break
        except Killed:
            continue
    assert_same(tmp_path / "o.tif", whole)


def test_parts_that_were_lost_are_made_again(scene_run, tmp_path, monkeypatch, whole):
    out, use = tmp_path / "o.tif", SceneUse(batch=2, stride=7)
    stop_at(monkeypatch, "scene.joined")
    with pytest.raises(Killed):
        predict_scene(scene_run, whole[0].path, out, CPU, use)
    out.unlink()
    for name in ("rows-0.npy", "rows-14.npy", "rows-21.npy"):
        (folder_of(out) / name).unlink()
    calls = stop_at(monkeypatch, "")
    predict_scene(scene_run, whole[0].path, out, CPU, use)
    assert calls["scene.part"] == 3
    assert_same(out, whole)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_make_what_one_process_makes(scene_run, tmp_path, whole, order, capsys):
    out = tmp_path / "o.tif"
    for number in order[:-1]:
        assert predict_scene(scene_run, whole[0].path, out, CPU, SceneUse(batch=2, stride=7, shard=(number, 3))) is None
        assert not out.exists()
    assert f"of shard {order[-1]}/3" in " ".join(capsys.readouterr().err.split())
    assert predict_scene(scene_run, whole[0].path, out, CPU, SceneUse(batch=2, stride=7, shard=(order[-1], 3))) == out
    assert_same(out, whole)


def test_more_shards_than_rows_of_windows(scene_run, tmp_path, whole):
    for number in range(1, 10):
        predict_scene(scene_run, whole[0].path, tmp_path / "o.tif", CPU, SceneUse(batch=2, stride=7, shard=(number, 9)))
    assert_same(tmp_path / "o.tif", whole)


def test_mosaic_joins_when_all_is_there(scene_run, tmp_path, monkeypatch, whole, l4s):
    out = tmp_path / "o.tif"
    shown = l4s("scene", "mosaic", out)
    assert shown.exit_code == 2 and "has no parts" in shown.stderr
    shards = [SceneUse(batch=2, stride=7, shard=(number, 3)) for number in (1, 2, 3)]
    predict_scene(scene_run, whole[0].path, out, CPU, shards[1])
    shown = l4s("scene", "mosaic", out)
    assert shown.exit_code == 2
    assert "lacks 4 of 6 parts, of shard 1/3, 3/3: run what is missing" in shown.stderr
    predict_scene(scene_run, whole[0].path, out, CPU, shards[0])
    with monkeypatch.context() as patch:
        patch.setattr(parts, "join", lambda out, plan: None)
        assert predict_scene(scene_run, whole[0].path, out, CPU, shards[2]) is None
    shown = l4s("scene", "mosaic", out)
    assert (shown.exit_code, shown.stdout) == (0, f"{out}\n")
    assert_same(out, whole)
    assert l4s("scene", "mosaic", out).exit_code == 0  # joined already


def test_two_processes_that_join_at_once(scene_run, tmp_path, monkeypatch, whole):
    """The one that comes second finds the raster made, or not even the folder."""
    out, held = tmp_path / "o.tif", []
    monkeypatch.setattr(parts, "join", lambda out, plan: held.append(plan))
    predict_scene(scene_run, whole[0].path, out, CPU, SceneUse(batch=2, stride=7))
    monkeypatch.undo()
    parts.join(out, held[0])
    parts.join(out, held[0])
    assert_same(out, whole)


def test_a_damaged_part_is_named(scene_run, tmp_path, monkeypatch, whole):
    out = tmp_path / "o.tif"
    stop_at(monkeypatch, "scene.part", 6)
    with pytest.raises(Killed):
        predict_scene(scene_run, whole[0].path, out, CPU, SceneUse(batch=2, stride=7))
    part = folder_of(out) / "rows-14.npy"
    intact = part.read_bytes()
    for data in (b"", intact[:100], b"no array at all"):
        part.write_bytes(data)
        with pytest.raises(DataError, match=r"rows-14.npy is damaged .*delete it and predict again"):
            mosaic(out)
    np.save(part, np.zeros((7, 36), np.uint8))
    with pytest.raises(DataError, match=r"rows-14.npy holds uint8 of shape \(7, 36\), not uint8 of \(7, 37\)"):
        mosaic(out)
    assert not out.exists()
    part.write_bytes(intact)
    mosaic(out)
    assert_same(out, whole)


def test_what_is_made_is_kept_and_something_else_refused(scene_run, tmp_path, monkeypatch):
    scene, out = write_scene(tmp_path / "s.tif", noise()), tmp_path / "o.tif"
    run_on(scene_run, scene, out, batch=2)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (out, mask_of(out))}
    calls = stop_at(monkeypatch, "")
    run_on(scene_run, scene, out, batch=7)  # the batch changes nothing that counts
    assert not calls
    with pytest.raises(RunError, match=r"o.tif was made with another run, scene or options.*delete it, or choose"):
        predict_scene(scene_run, scene.path, out, CPU, SceneUse(stride=3))
    with pytest.raises(RunError, match=r"o-mask.tif was made with another"):
        predict_scene(scene_run, scene.path, out, CPU, SceneUse(threshold=0.7))
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    mask_of(out).unlink()
    found = run_on(scene_run, scene, out, threshold=0.45)
    assert calls == {"scene.mask": 1}
    np.testing.assert_array_equal(read(mask_of(out)), found / 254 >= 0.45)
    write_scene(tmp_path / "x.tif", noise())
    with pytest.raises(RunError, match=r"x.tif was made with another .*\(fingerprint None"):  # nobody's file is lost
        predict_scene(scene_run, scene.path, tmp_path / "x.tif", CPU, SceneUse())


@pytest.mark.parametrize(
    "other", [{"stride": 5}, {"window": 20}, {"tta": "flip"}, {"normalise": "source"}, {"bands": ("b3", "b4", "b2")}]
)
def test_parts_of_something_else_are_refused(scene_run, tmp_path, monkeypatch, other):
    scene, out = write_scene(tmp_path / "s.tif", noise()), tmp_path / "o.tif"
    stop_at(monkeypatch, "scene.part")
    with pytest.raises(Killed):
        predict_scene(scene_run, scene.path, out, CPU, SceneUse(window=16))
    with pytest.raises(RunError, match=r"o.tif.parts holds parts made with another .*delete the folder"):
        predict_scene(scene_run, scene.path, out, CPU, SceneUse(**{"window": 16} | other))
    scene = write_scene(tmp_path / "s.tif", noise(seed=3))
    with pytest.raises(RunError, match="holds parts made with another run, scene or options"):
        predict_scene(scene_run, scene.path, out, CPU, SceneUse(window=16))


def test_a_broken_plan_is_named(scene_run, tmp_path):
    folder_of(tmp_path / "o.tif").mkdir()
    (folder_of(tmp_path / "o.tif") / "plan.json").write_text('{"grid": {}}')
    with pytest.raises(RunError, match=r"plan.json is no plan of parts"):
        mosaic(tmp_path / "o.tif")


ERRORS = {
    "gpu": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 4398046511104 bytes. Error code 12 (Cannot allocate memory)"
    ),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_out_of_memory_halves_the_batch_and_goes_on(scene_run, tmp_path, monkeypatch, whole, kind, capsys):
    mean = network.Network._mean
    tried = []

    def scarce(self, images, valid):
        tried.append(len(images))
        if len(images) > 2:
            raise ERRORS[kind]()
        return mean(self, images, valid)

    monkeypatch.setattr(network.Network, "_mean", scarce)
    predict_scene(scene_run, whole[0].path, tmp_path / "o.tif", CPU, SceneUse(batch=16, stride=7))
    told = " ".join(capsys.readouterr().err.split())
    assert tried[:3] == [4, 2, 2] and max(tried[1:]) == 2  # four windows a row, and never so many again
    assert told.count("out of memory") == 1 and "batches of 2 windows from here on (--batch 2)" in told
    with rasterio.MemoryFile(whole[1]) as file, file.open() as source:
        assert np.abs(read(tmp_path / "o.tif").astype(int) - source.read(1)).max() <= 1
    assert left_in(tmp_path) == ["o-mask.tif", "o.tif"]


def test_one_window_that_does_not_fit_is_an_error_and_so_is_any_other(scene_run, tmp_path, monkeypatch, whole):
    def fails(error):
        def mean(self, images, valid):
            raise error

        monkeypatch.setattr(network.Network, "_mean", mean)
        predict_scene(scene_run, whole[0].path, tmp_path / "o.tif", CPU, SceneUse(batch=4))

    with pytest.raises(RunError, match=r"one window of 16 x 16 pixels does not fit into the memory of cpu"):
        fails(ERRORS["cpu"]())
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"):
        fails(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        fails(RuntimeError("CUDA error: an illegal memory access was encountered"))


def test_patch_rasters_are_the_same_in_shards_and_after_a_stop(scene_run, tmp_path, monkeypatch):
    says(monkeypatch, lambda window: window[:, 0, 3, 3].sigmoid())
    scene = write_scene(tmp_path / "s.tif", noise(70, 37))
    run_on(scene_run, scene, tmp_path / "one" / "o.tif")
    for number in (1, 2):
        predict_scene(scene_run, scene.path, tmp_path / "two" / "o.tif", CPU, SceneUse(shard=(number, 2)))
    stop_at(monkeypatch, "scene.part", 4)
    with pytest.raises(Killed):
        predict_scene(scene_run, scene.path, tmp_path / "three" / "o.tif", CPU, SceneUse())
    stop_at(monkeypatch, "")
    run_on(scene_run, scene, tmp_path / "three" / "o.tif")
    assert len({(tmp_path / name / "o.tif").read_bytes() for name in ("one", "two", "three")}) == 1


KILLER = """
import os, signal, sys
from pathlib import Path
from l4s import rundir
from l4s.scene.job import SceneUse
from l4s.scene.predict import predict_scene
from l4s.session import Machine

calls, (run, scene, out, point, nth) = [], sys.argv[1:]

def reached(name):
    calls.append(name)
    if calls.count(point) == int(nth):
        os.kill(os.getpid(), signal.SIGKILL)

rundir.reached = reached
predict_scene(Path(run), Path(scene), Path(out), Machine("cpu", "fp32"), SceneUse(batch=2, stride=7))
"""
HERE = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.slow
@pytest.mark.parametrize(("point", "nth"), [("scene.batch", 8), ("scene.joined", 1)])
def test_a_killed_process_ends_in_the_same_bytes(scene_run, tmp_path, whole, point, nth):
    out = tmp_path / "o.tif"
    command = [sys.executable, "-c", KILLER, *map(str, (scene_run, whole[0].path, out, point, nth))]
    assert subprocess.run(command, env=os.environ | HERE).returncode == -signal.SIGKILL
    assert list(folder_of(out).glob("rows-*.npy"))
    predict_scene(scene_run, whole[0].path, out, CPU, SceneUse(batch=2, stride=7))
    assert_same(out, whole)


@pytest.mark.slow
def test_two_processes_share_the_rows_and_make_what_one_makes(scene_run, tmp_path, whole):
    out = tmp_path / "o.tif"
    (tmp_path / "driver.py").write_text(KILLER)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, tmp_path / "driver.py", scene_run, whole[0].path, out, "never", "1"]
    done = subprocess.run([*map(str, command)], env=os.environ | HERE, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (tmp_path / "driver.py").unlink()
    assert_same(out, whole)
