"""Two processes on the CPU: the same rows as one, every step once, one set of files."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from data_factory import write_data, write_recipe

from l4s.data.probs import open_probs
from l4s.experiment import weights

pytestmark = pytest.mark.slow

DRIVER = """
import hashlib, json, os, time
from pathlib import Path
from sys import argv

from l4s import steps
from l4s.data.dataset import Steps
from l4s.pipeline import run_recipe
from l4s.session import Machine, open_session

place, root, rank = Path(argv[1]), Path(argv[2]), int(os.environ.get("RANK", 0))
rows, fits = [], []
item_of, fit, is_made, predict = Steps.__getitem__, steps.fit, steps._is_made, steps.predict

def watch(self, item):
    batch = item_of(self, item)
    for domain, index, image in zip(batch.domain.tolist(), batch.index.tolist(), batch.image.numpy()):
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        rows.append([fits[-1], item // self.cut.accumulate, domain, index, digest])
    return batch

def named(engine, job):
    fits.append(job.name)
    return fit(engine, job)

def late(*arguments):  # the first process may have written the file by the time that the second looks for it
    time.sleep(0.05 * rank)
    return is_made(*arguments)

Steps.__getitem__, steps.fit, steps._is_made = watch, named, late
steps.predict = lambda *given, **more: predict(*given, **{"batch": 1} | more)  # so that each predicts a part
machine = Machine("cpu", "fp32", cache=place / "cache")
for x in open_session(str(place / "tiny.toml"), argv[3:], place / "data", root, machine):
    world = x.engine.world
    run_recipe(x)
(root.parent / f"{root.name}.{rank}-{world}.json").write_text(json.dumps(rows))
"""

# four parts of a batch in b: two processes of two accumulated slices
SETS = ("train.batch=8", "predict.batch=1", "predict.tta=['none']")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("distributed")
    write_data(place / "data")
    write_recipe(place / "tiny.toml")
    (place / "driver.py").write_text(DRIVER)
    return place


def run(place, name, processes, *sets, check=True, root="run"):
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
    )
    here = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, *launcher, str(place / "driver.py"), str(place), str(place / name / root), *SETS, *sets]
    (place / name).mkdir(exist_ok=True)
    return subprocess.run(command, env=os.environ | here, capture_output=True, text=True, check=check, timeout=300)


@pytest.fixture(scope="module")
def one(place):
    run(place, "one", 1)
    return place / "one"


@pytest.fixture(scope="module")
def two(place):
    run(place, "two", 2)
    return place / "two"


def rows(folder, processes):
    """Rows of each step of each training."""
    found = defaultdict(list)
    for rank in range(processes):
        for fit, step, *row in json.loads((folder / f"run.{rank}-{processes}.json").read_text()):
            found[fit, step].append(tuple(row))
    return {key: sorted(value) for key, value in found.items()}


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_two_processes_see_the_rows_of_one(one, two):
    ours, theirs = rows(two, 2), rows(one, 1)
    assert len(theirs) == 4 * 6 and {len(value) for value in theirs.values()} == {8}
    assert ours == theirs  # the augmented images too


def test_every_process_has_half_of_the_rows(two):
    each = [json.loads((two / f"run.{rank}-2.json").read_text()) for rank in (0, 1)]
    assert [len(part) for part in each] == [4 * 6 * 4] * 2


def test_two_processes_leave_the_files_of_one(one, two):
    assert files(two / "run") == files(one / "run")
    assert json.loads((two / "run" / "env.json").read_text())["processes"] == 2


def test_metrics_are_written_once(two):
    lines = [json.loads(line) for line in (two / "run" / "round-0" / "a" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]


def test_what_is_judged_is_what_is_kept(two):
    """Each process has running statistics of its own rows: those of the first are saved, so they are what to score."""
    folder = two / "run" / "round-0" / "b"  # its last weights are its last evaluation's
    assert len(weights(folder)) == 1
    judged, kept = (open_probs(folder / name).read() for name in ("heldout/home.h5", "probs/home.none.h5"))
    np.testing.assert_array_equal(judged, kept)


def test_a_finished_run_is_finished_for_any_number_of_processes(place, two):
    before = {path: path.stat().st_mtime_ns for path in (two / "run").rglob("*.h5")}
    run(place, "two", 1)
    assert json.loads((two / "run.0-1.json").read_text()) == []
    assert {path: path.stat().st_mtime_ns for path in (two / "run").rglob("*.h5")} == before


def test_an_equal_run_is_taken_over_by_two_processes_at_once(place, two):
    run(place, "two", 2, root="beside")
    assert json.loads((two / "beside.1-2.json").read_text()) == []
    for name in ("round-0/a", "round-1/b"):
        ours, theirs = weights(two / "beside" / name)[0], weights(two / "run" / name)[0]
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_batch_that_two_processes_cannot_share_is_refused(place):
    done = run(place, "uneven", 2, "train.batch=3", "member.b.train.accumulate=1", "rounds=0", check=False)
    assert done.returncode != 0
    assert "a batch of 3 source and 0 target rows does not fit 2 processes" in done.stderr


def test_layers_that_nothing_runs_stop_no_process(place):
    """An encoder cut short keeps its last stages."""
    short = "{ name = 'unet', encoder = 'resnet18', decoder = [8, 8, 8], size = 16 }"
    done = run(place, "short", 2, f"member.a.model={short}", "rounds=0")
    assert (place / "short/run/round-0/a/done.json").is_file()
    assert "BatchNorm and the losses see" in " ".join(done.stderr.split())
