"""Files of probabilities: round trips, equal bytes, nothing half-written, and a named error for what is wrong."""

import os
import pickle
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from l4s.data.probs import ONE, open_probs, write_probs
from l4s.errors import DataError

ABOUT = {"member": "unet", "fingerprint": "ab12", "domain": "iburi", "tta": "d4", "kind": "probability"}
RAGGED = [(2, 3), (1, 1), (4, 2)]


def make(path: Path, values, ids=None, shape=None, **about):
    values = values if isinstance(values, list) else np.asarray(values)
    ids = ids or [str(k) for k in range(len(values))]
    with write_probs(path, ids=ids, shape=shape or values.shape, **(ABOUT | about)) as writer:
        writer.put(0, values)
    return path


def dense(count=5, seed=0):
    return np.random.default_rng(seed).random((count, 4, 3)).astype(np.float16)


def ragged(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.random(shape).astype(np.float16) for shape in RAGGED]


def test_round_trip_keeps_values_ids_and_attributes(tmp_path):
    extra = {"scales": "2,3", "weight": 0.1, "round": 3}
    path = make(tmp_path / "new" / "a.h5", dense(), ids=["7", "10", "ü", "landslide/3", "1"], extra=extra)
    probs = open_probs(path)
    assert probs.ids == ("7", "10", "ü", "landslide/3", "1")
    assert (probs.member, probs.fingerprint, probs.domain, probs.tta, probs.kind) == tuple(ABOUT.values())
    assert dict(probs.extra) == extra and type(probs.extra["round"]) is int
    assert len(probs) == 5 and probs.shape == (5, 4, 3) and not probs.ragged
    assert probs.read().dtype == np.float16
    np.testing.assert_array_equal(probs.read(), dense())
    np.testing.assert_array_equal(probs.read(1, 3), dense()[1:3])
    np.testing.assert_array_equal(probs.read(4, 99), dense()[4:])
    np.testing.assert_array_equal(probs.patch(2), dense()[2])
    np.testing.assert_array_equal(np.stack(list(probs.patches(block=2))), dense())


def test_patches_with_one_value_each(tmp_path):
    values = np.array([0.0, 0.25, 1.0], np.float16)
    probs = open_probs(make(tmp_path / "a.h5", values, kind="score"))
    assert probs.shape == (3,) and probs.shapes == ((), (), ()) and probs.kind == "score"
    np.testing.assert_array_equal(probs.read(), values)
    assert probs.patch(1).shape == () and probs.patch(1) == 0.25
    assert [(type(row), float(row)) for row in probs.patches(2)] == [(np.ndarray, value) for value in (0, 0.25, 1)]


def test_patches_of_different_sizes(tmp_path):
    probs = open_probs(make(tmp_path / "a.h5", ragged(), shape=RAGGED))
    assert probs.ragged and probs.shapes == tuple(RAGGED) and len(probs) == 3
    for got, again, wanted in zip(probs.patches(), map(probs.patch, range(3)), ragged(), strict=True):
        np.testing.assert_array_equal(got, wanted)
        np.testing.assert_array_equal(again, wanted)
    with pytest.raises(DataError, match=r"different sizes.*patch\(i\)"):
        probs.read()
    with pytest.raises(DataError, match="different sizes"):
        probs.shape  # noqa: B018
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["offset"][:].tolist() == [0, 6, 7] and file["values"].shape == (15,)


@pytest.mark.parametrize("index", [-1, 3])
def test_a_patch_that_is_not_there(tmp_path, index):
    with pytest.raises(DataError, match=f"0 to 2, not {index}"):
        open_probs(make(tmp_path / "a.h5", ragged(), shape=RAGGED)).patch(index)


def test_equal_content_makes_equal_bytes_at_any_time_in_any_order(tmp_path):
    first = make(tmp_path / "a.h5", dense(), extra={"a": 1, "b": 2}).read_bytes()
    time.sleep(1.1)  # HDF5 would stamp whole seconds
    with write_probs(tmp_path / "b.h5", ids=list("01234"), shape=(5, 4, 3), extra={"b": 2, "a": 1}, **ABOUT) as writer:
        for row in (3, 0, 4, 2, 1):
            writer.put(row, dense()[row : row + 1].astype(np.float64))
    assert (tmp_path / "b.h5").read_bytes() == first
    assert make(tmp_path / "c.h5", dense(seed=1), extra={"a": 1, "b": 2}).read_bytes() != first


def test_equal_bytes_where_sizes_differ(tmp_path):
    first = make(tmp_path / "a.h5", ragged(), shape=RAGGED).read_bytes()
    with write_probs(tmp_path / "b.h5", ids=list("012"), shape=RAGGED, **ABOUT) as writer:
        writer.put(1, ragged()[1:])
        writer.put(0, ragged()[:1])
    assert (tmp_path / "b.h5").read_bytes() == first


@given(hnp.arrays(np.float32, (2, 3, 2), elements=st.floats(0, 1, width=32)))
def test_float32_is_rounded_to_the_nearest_float16(tmp_path_factory, values):
    probs = open_probs(make(tmp_path_factory.mktemp("p") / "a.h5", values))
    np.testing.assert_array_equal(probs.read(), values.astype(np.float16))
    assert (probs.read().view(np.uint16) <= ONE).all()


def test_noise_of_averaging_is_moved_to_the_ends_and_zero_has_one_sign(tmp_path):
    values = np.array([1 + 5e-7, -5e-7, -0.0, 1.0], np.float32)
    codes = open_probs(make(tmp_path / "a.h5", values)).read().view(np.uint16)
    assert codes.tolist() == [ONE, 0, 0, ONE]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.001, -0.001, -1.0])
@pytest.mark.parametrize("sizes", ["dense", "single", "ragged"])
def test_values_outside_are_refused_by_patch(tmp_path, value, sizes):
    shapes = {"dense": [(4, 3)] * 3, "single": [()] * 3, "ragged": RAGGED}[sizes]
    rows = [np.zeros(shape, np.float32) for shape in shapes]
    rows[2][...] = np.where(np.arange(rows[2].size).reshape(shapes[2]) == rows[2].size - 1, value, 0)
    values, shape = (rows, RAGGED) if sizes == "ragged" else (np.stack(rows), None)
    with pytest.raises(DataError, match=f"patch c holds {re.escape(f'{np.float32(value)}')}, which is not"):
        make(tmp_path / "a.h5", values, ids=["a", "b", "c"], shape=shape)
    assert list(tmp_path.iterdir()) == []


def start(path, ids=("a", "b", "c"), shape=(3, 2, 2), **about):
    return write_probs(path, ids=ids, shape=shape, **(ABOUT | about))


@pytest.mark.parametrize(
    ("puts", "message"),
    [
        ([(0, np.zeros((2, 2, 2)))], "1 of 3 patches were never put, first c"),
        ([], "3 of 3 patches were never put, first a"),
        ([(0, np.zeros((3, 2, 2))), (1, np.zeros((1, 2, 2)))], "patch b was put twice"),
        ([(2, np.zeros((2, 2, 2)))], "patches 2 to 3 put into a file of 3"),
        ([(-1, np.zeros((1, 2, 2)))], "patches -1 to -1 put"),
        ([(1, np.zeros((1, 2, 3)))], r"patch b must be floats of shape \(2, 2\), got float64 \(2, 3\)"),
        ([(0, np.zeros((3, 2, 2), np.uint8))], "must be floats"),
    ],
)
def test_an_unfinished_or_wrong_file_never_appears(tmp_path, puts, message):
    older = make(tmp_path / "a.h5", dense(2)).read_bytes()
    with pytest.raises(DataError, match=message), start(tmp_path / "a.h5") as writer:
        for row, array in puts:
            writer.put(row, array)
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]
    assert (tmp_path / "a.h5").read_bytes() == older


def test_an_interrupt_leaves_nothing_and_what_killed_processes_left_goes(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    here = socket.gethostname()
    # of this machine's dead and of a number given again; of a living process and of another machine, who may be writing
    gone = {f"a.h5.{here}.{number}.part" for number in (killed.pid, os.getpid())}
    stay = {f"a.h5.{here}.{os.getppid()}.part", f"a.h5.else{here}.{killed.pid}.part", f"b.h5.{here}.{killed.pid}.part"}
    for name in gone | stay:
        (tmp_path / name).touch()
    with pytest.raises(KeyboardInterrupt), start(tmp_path / "a.h5") as writer:
        writer.put(0, np.zeros((3, 2, 2)))
        assert len(list(tmp_path.iterdir())) == len(stay) + 1
        raise KeyboardInterrupt
    assert {file.name for file in tmp_path.iterdir()} == stay
    make(tmp_path / "a.h5", dense())
    assert {file.name for file in tmp_path.iterdir()} == stay | {"a.h5"}


def test_two_processes_may_write_the_same_file(tmp_path, monkeypatch):
    with start(tmp_path / "a.h5") as writer:
        writer.put(0, np.zeros((2, 2, 2)))
        monkeypatch.setattr("os.getpid", lambda: 1)
        make(tmp_path / "a.h5", dense())
        writer.put(2, np.zeros((1, 2, 2)))
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]
    assert not any(patch.any() for patch in open_probs(tmp_path / "a.h5").patches())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": ("a", "b", "a")}, "id 'a' is repeated"),
        ({"ids": ("a", "", "c")}, "id '' is empty"),
        ({"ids": ("a", "b")}, r"\(3, 2, 2\) does not fit 2 ids"),
        ({"ids": (), "shape": (0, 2, 2)}, "no patches"),
        ({"shape": (3, 2)}, "does not fit 3 ids"),
        ({"shape": [(2, 2), (1, 1)]}, "3 ids but 2 shapes"),
        ({"kind": "logit"}, "kind is 'logit'"),
    ],
)
def test_what_cannot_be_written(tmp_path, change, message):
    with pytest.raises(DataError, match=message), start(tmp_path / "a.h5", **change):
        pass
    assert list(tmp_path.iterdir()) == []


def replaced(key, data):
    def change(file):
        del file[key]
        file[key] = data

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.pop("ids"), "no dataset 'ids'"),
        (lambda file: file.pop("values"), "no dataset 'values'"),
        (lambda file: file.attrs.pop("tta"), "no attribute 'tta'"),
        (lambda file: file.attrs.create("member", 3), "'member' must be a string, got"),
        (lambda file: file.attrs.modify("extra", "{"), "'extra' is not JSON"),
        (lambda file: file.attrs.modify("kind", "mixed"), "kind is 'mixed'"),
        (replaced("values", np.zeros((5, 4, 3), np.float32)), "must be float16, got float32"),
        (replaced("values", np.zeros((4, 4, 3), np.float16)), r"\(4, 4, 3\) do not fit 5 ids"),
        (replaced("values", np.zeros((5, 4), np.float16)), r"\(5, 4\) do not fit 5 ids"),
        (replaced("ids", np.arange(5)), "ids must be strings"),
        (replaced("ids", np.array([b"a", b"b", b"c", b"a", b"d"])), "id 'a' is repeated"),
    ],
)
def test_what_cannot_be_opened(tmp_path, change, message):
    path = make(tmp_path / "a.h5", dense())
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(DataError, match=message) as caught:
        open_probs(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.pop("offset"), "no dataset 'offset'"),
        (lambda file: file.pop("shape"), "no dataset 'shape'"),
        (replaced("offset", np.array([0, 6, 8])), "do not fit shape"),
        (replaced("shape", np.array([[2, 3], [1, 1], [4, 3]])), "do not fit shape"),
        (replaced("shape", np.array([[2, 3], [1, 1]])), r"must be \(3, 2\) integers"),
        (replaced("values", np.zeros(14, np.float16)), "do not fit shape"),
    ],
)
def test_what_cannot_be_opened_where_sizes_differ(tmp_path, change, message):
    path = make(tmp_path / "a.h5", ragged(), shape=RAGGED)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(DataError, match=message):
        open_probs(path)


@pytest.mark.parametrize("size", [0, 7, 500, -1])
def test_files_cut_short(tmp_path, size):
    path = make(tmp_path / "a.h5", np.zeros((50, 16, 16), np.float32))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        open_probs(path)


def test_no_file(tmp_path):
    with pytest.raises(DataError, match=r"gone\.h5 does not exist"):
        open_probs(tmp_path / "gone.h5")


@pytest.mark.parametrize("value", [np.nan, 1.001, -0.5, np.inf])
def test_values_changed_behind_our_back_are_named(tmp_path, value):
    for name, values, shape in (("dense", dense(3), None), ("ragged", ragged(), RAGGED)):
        path = make(tmp_path / f"{name}.h5", values, ids=["a", "b", "c"], shape=shape)
        with h5py.File(path, "r+") as file:
            file["values"][(1, 0, 0) if name == "dense" else 6] = value
        probs = open_probs(path)
        with pytest.raises(DataError, match=f"patch b holds {np.float16(value)}"):
            probs.patch(1)
        if name == "dense":
            with pytest.raises(DataError, match="patch b holds"):
                probs.read(1)
        probs.patch(0)
        probs.patch(2)


def test_holds_no_handle(tmp_path):
    probs = open_probs(make(tmp_path / "a.h5", dense()))
    copy = pickle.loads(pickle.dumps(probs))
    assert copy == probs and hash(copy) == hash(probs)
    np.testing.assert_array_equal(copy.read(), dense())
    make(tmp_path / "a.h5", dense(seed=1))  # the file is free to be replaced between reads
    np.testing.assert_array_equal(probs.read(), dense(seed=1))
