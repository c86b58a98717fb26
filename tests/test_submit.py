"""The zip, its proof and its card: round trips, equal bytes, and a table of planted faults."""

import hashlib
import io
import json
import os
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4s.data.probs import ProbFile, open_probs, write_probs
from l4s.errors import DataError, RecipeError
from l4s.submit import CheckReport, check, pack, read_card, submit

SHAPE = (8, 8)
IDS = ["1", "2", "10"]


def mask_of(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < 0.1).astype(np.uint8)


MASKS = {id: mask_of(int(id)) for id in IDS}


def h5(fill: Callable[[h5py.File], Any]) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
    return buffer.getvalue()


def stored(data: Any, **options: Any) -> bytes:
    return h5(lambda file: file.create_dataset("mask", data=data, **options))


GOOD = {f"mask_{id}.h5": stored(mask) for id, mask in MASKS.items()}


def zipped(path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def with_changes(path: Path, changes: dict[str, bytes]) -> Path:
    return zipped(path, list({**GOOD, **changes}.items()))


def run_check(path: Path) -> CheckReport:
    return check(path, IDS, SHAPE)


def only(report: CheckReport, *words: str) -> None:
    """Exactly one error, holding all the words; the fault hides nothing and nothing else is blamed."""
    assert not report.ok
    assert len(report.errors) == 1, report.errors
    for word in words:
        assert word in report.errors[0], report.errors


# ---- pack ----


def test_round_trip_in_natural_order(tmp_path: Path) -> None:
    out = tmp_path / "new" / "sub.zip"
    pack([(id, MASKS[id]) for id in ("10", "2", "1")], out)
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == ["mask_1.h5", "mask_2.h5", "mask_10.h5"]
        assert archive.testzip() is None
        for id, mask in MASKS.items():
            with h5py.File(io.BytesIO(archive.read(f"mask_{id}.h5"))) as file:
                data = file["mask"]
                assert list(file) == ["mask"] and not file.attrs and not data.attrs
                assert (data.dtype, data.shape, data.chunks, data.compression) == (np.uint8, SHAPE, None, None)
                np.testing.assert_array_equal(data[()], mask)
    report = run_check(out)
    assert report.ok and report.warnings == [] and report.patches == 3
    assert report.positive_share == pytest.approx(np.mean(list(MASKS.values())))
    assert os.listdir(out.parent) == ["sub.zip"]


def test_equal_masks_give_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "a.zip", tmp_path / "b.zip"
    pack(MASKS.items(), first)
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    pack(reversed(MASKS.items()), second)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        for info in archive.infolist():
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert (info.create_system, info.external_attr >> 16) == (3, stat.S_IFREG | 0o644)


def test_hdf5_members_do_not_hold_the_clock(tmp_path: Path) -> None:
    pack(MASKS.items(), tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, h5py.File(io.BytesIO(archive.read("mask_1.h5"))) as file:
        assert h5py.h5g.get_objinfo(file["mask"].id).mtime == 0


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([], "no masks"),
        ([("1", MASKS["1"]), ("1", MASKS["1"])], "twice"),
        ([("../1", MASKS["1"])], r"'\.\./1'"),
        ([("", MASKS["1"])], "''"),
        ([("1", MASKS["1"].astype(np.int64))], "int64"),
        ([("1", MASKS["1"].astype(bool))], "bool"),
        ([("1", MASKS["1"][None])], r"\(1, 8, 8\)"),
        ([("1", MASKS["1"] * 255)], "255"),
        ([("1", MASKS["1"][:0])], r"\(0, 8\)"),
    ],
)
def test_pack_refuses(tmp_path: Path, masks: list[tuple[str, np.ndarray]], message: str) -> None:
    (tmp_path / "sub.zip").write_bytes(b"earlier")
    with pytest.raises(DataError, match=message):
        pack(masks, tmp_path / "sub.zip")
    assert (tmp_path / "sub.zip").read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["sub.zip"]


# ---- check: one planted fault each; the expected words must stand in the single error ----

ZEROS = np.zeros(SHAPE, np.uint8)
CONTENT_FAULTS: dict[str, tuple[bytes, str]] = {
    "wrong key": (h5(lambda file: file.create_dataset("img", data=ZEROS)), "no dataset 'mask' (found 'img')"),
    "empty file": (h5(lambda file: None), "no dataset 'mask' (found nothing)"),
    "group": (h5(lambda file: file.create_group("mask")), "no dataset 'mask'"),
    "int64": (stored(ZEROS.astype(np.int64)), "dtype is int64"),
    "int8": (stored(ZEROS.astype(np.int8)), "dtype is int8"),
    "bool": (stored(ZEROS.astype(bool)), "dtype is bool"),
    "float": (stored(ZEROS.astype(np.float32)), "dtype is float32"),
    "text": (stored("mask"), "dtype is object"),
    "small": (stored(ZEROS[:4]), "shape is (4, 8), not (8, 8)"),
    "channel": (stored(ZEROS[None]), "shape is (1, 8, 8)"),
    "scalar": (stored(np.uint8(1)), "shape is ()"),
    "null": (stored(h5py.Empty(np.uint8)), "shape is None"),
    "255": (stored(ZEROS + 255), "values other than 0 and 1 (such as 255)"),
    "2": (stored(ZEROS + 2), "(such as 2)"),
    "gzip": (stored(ZEROS, compression="gzip"), "chunked or compressed"),
    "chunks": (stored(ZEROS, chunks=(4, 4)), "chunked or compressed"),
    "soft link": (h5(lambda file: file.update({"x": ZEROS, "mask": h5py.SoftLink("/x")})), "no dataset 'mask'"),
    "external link": (
        h5(lambda file: file.update({"mask": h5py.ExternalLink("/etc/x.h5", "/x")})),
        "no dataset 'mask'",
    ),
    "external storage": (
        h5(lambda file: file.create_dataset("mask", SHAPE, "u1", external=[("/etc/hostname", 0, 64)])),
        "stored elsewhere",
    ),
    "not hdf5": (b"PNG" * 100, "not a readable HDF5 file"),
    "no bytes": (b"", "not a readable HDF5 file"),
    "truncated hdf5": (stored(ZEROS)[:-40], "not a readable HDF5 file"),
}


@pytest.mark.parametrize("fault", CONTENT_FAULTS)
def test_faults_of_content(tmp_path: Path, fault: str) -> None:
    data, words = CONTENT_FAULTS[fault]
    report = run_check(with_changes(tmp_path / "a.zip", {"mask_2.h5": data}))
    only(report, words, "mask_2.h5")
    assert "mask_1.h5" not in report.errors[0]
    assert report.patches == 2


EXTRA_MEMBERS: dict[str, str] = {
    "__MACOSX/._mask_1.h5": "macOS",
    "._mask_1.h5": "macOS",
    ".DS_Store": "macOS folder setting",
    "Thumbs.db": "Windows folder setting",
    "readme.txt": "foreign member",
    "mask_1.hdf5": "foreign member",
    "MASK_1.h5": "foreign member",
    "image_1.h5": "foreign member",
    "mask_.h5": "foreign member",
    "outputs/": "in a folder",
    "outputs/mask_1.h5": "in a folder",
    "/mask_1.h5": "dangerous",
    "/etc/passwd": "dangerous",
    "../mask_1.h5": "dangerous",
    "a/../../mask_1.h5": "dangerous",
    "..\\mask_1.h5": "dangerous",
    "C:/mask_1.h5": "dangerous",
    "C:mask_1.h5": "dangerous",
    "//host/share/mask_1.h5": "dangerous",
    "mask_1.h5\n": "control characters",
    "\x1b[2Jmask_1.h5": "control characters",
}


@pytest.mark.parametrize("name", EXTRA_MEMBERS)
def test_foreign_and_dangerous_members(tmp_path: Path, name: str) -> None:
    report = run_check(with_changes(tmp_path / "a.zip", {name: stored(ZEROS)}))
    only(report, EXTRA_MEMBERS[name], ascii(name))
    assert report.errors[0].isprintable()
    assert report.patches == 3
    assert os.listdir(tmp_path) == ["a.zip"]


def test_name_that_goes_on_after_a_nul(tmp_path: Path) -> None:
    path = with_changes(tmp_path / "a.zip", {"mask_3.h5~.exe": stored(ZEROS)})
    path.write_bytes(path.read_bytes().replace(b"mask_3.h5~", b"mask_3.h5\0"))
    only(run_check(path), "control characters", "mask_3.h5\\x00.exe")


@pytest.mark.parametrize(
    ("mode", "word"), [(stat.S_IFLNK | 0o777, "symbolic link"), (stat.S_IFIFO | 0o644, "neither a file")]
)
def test_links_and_pipes(tmp_path: Path, mode: int, word: str) -> None:
    info = zipfile.ZipInfo("mask_10.h5")
    info.create_system, info.external_attr = 3, mode << 16
    members = [(name, data) for name, data in GOOD.items() if name != "mask_10.h5"]
    report = run_check(zipped(tmp_path / "a.zip", [*members, (info, b"/etc/passwd")]))
    only(report, word, "mask_10.h5")


def test_the_folder_was_zipped(tmp_path: Path) -> None:
    ids = [str(id) for id in range(1, 13)]
    members = [(f"outputs/mask_{id}.h5", GOOD["mask_1.h5"]) for id in reversed(ids)]
    report = check(zipped(tmp_path / "a.zip", members), ids, SHAPE)
    assert report.patches == 0 and report.positive_share == 0 and report.warnings == []
    folder, missing = report.errors
    assert folder.startswith("in a folder, not at the root")
    assert "'outputs/mask_1.h5', 'outputs/mask_2.h5'" in folder and folder.endswith("and 7 more")
    assert missing.startswith("12 of 12 masks missing: mask_1.h5, mask_2.h5") and missing.endswith("and 7 more")


def test_missing_unexpected_and_repeated_ids(tmp_path: Path) -> None:
    missing = zipped(tmp_path / "a.zip", [(name, data) for name, data in GOOD.items() if name != "mask_2.h5"])
    only(run_check(missing), "1 of 3 masks missing: mask_2.h5")
    assert check(missing, None, SHAPE).ok
    unexpected = with_changes(tmp_path / "b.zip", {"mask_01.h5": stored(mask_of(7))})
    only(run_check(unexpected), "1 masks of no image: mask_01.h5")
    with pytest.warns(UserWarning, match="Duplicate name"):
        repeated = zipped(tmp_path / "c.zip", [*GOOD.items(), ("mask_2.h5", GOOD["mask_2.h5"])])
    only(run_check(repeated), "more than once: mask_2.h5")
    only(check(zipped(tmp_path / "d.zip", [])), "no member is called mask_<id>.h5")


def test_broken_zips(tmp_path: Path) -> None:
    good = with_changes(tmp_path / "a.zip", {})
    only(run_check(tmp_path / "none.zip"), "none.zip is not a readable zip", "No such file")
    only(run_check(tmp_path), "is not a readable zip")
    for name, data in {"text.zip": b"mask", "empty.zip": b"", "cut.zip": good.read_bytes()[:-30]}.items():
        (tmp_path / name).write_bytes(data)
        only(run_check(tmp_path / name), f"{name} is not a readable zip")


def test_broken_member_is_named(tmp_path: Path) -> None:
    path = with_changes(tmp_path / "a.zip", {})
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("mask_2.h5").header_offset + 30 + len("mask_2.h5")
    data = bytearray(path.read_bytes())
    data[start + 20 : start + 40] = bytes(20)
    path.write_bytes(data)
    only(run_check(path), "broken in the zip", "mask_2.h5")


def central(path: Path, name: str, offset: int, form: str, value: int) -> None:
    """Overwrite one field of a member's entry in the central directory (APPNOTE 4.3.12)."""
    data = bytearray(path.read_bytes())
    entry = data.rindex(name.encode()) - 46
    assert data[entry : entry + 4] == b"PK\1\2"
    struct.pack_into(form, data, entry + offset, value)
    path.write_bytes(data)


def test_member_that_ends_too_early(tmp_path: Path) -> None:
    path = with_changes(tmp_path / "a.zip", {})
    central(path, "mask_10.h5", 24, "<I", len(GOOD["mask_10.h5"]) + 1000)
    only(run_check(path), "broken in the zip", "mask_10.h5")


def test_encrypted_and_strange_methods(tmp_path: Path) -> None:
    path = with_changes(tmp_path / "a.zip", {})
    central(path, "mask_10.h5", 8, "<H", 1)
    only(run_check(path), "encrypted: mask_10.h5")
    only(run_check(zipped(tmp_path / "b.zip", list(GOOD.items()), zipfile.ZIP_LZMA)), "zip method 14")


def test_bombs_are_not_inflated(tmp_path: Path) -> None:
    ratio = with_changes(tmp_path / "a.zip", {"mask_2.h5": bytes(5 * 2**20)})
    only(run_check(ratio), "200 times its size", "mask_2.h5")
    large = with_changes(tmp_path / "b.zip", {})
    central(large, "mask_2.h5", 24, "<I", 64 * 2**20 + 1)
    only(run_check(large), "more than 64 MiB", "mask_2.h5")


def test_all_members_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_changes(tmp_path / "a.zip", {})
    monkeypatch.setattr("l4s.submit.MAX_TOTAL", sum(map(len, GOOD.values())) - 1)
    report = run_check(path)
    only(report, "not read, together", "mask_1.h5, mask_2.h5, mask_10.h5")
    assert report.patches == 0


def test_header_that_lies_about_the_size_costs_no_memory(tmp_path: Path) -> None:
    path = with_changes(tmp_path / "a.zip", {"mask_10.h5": bytes(64 * 2**20)})
    central(path, "mask_10.h5", 24, "<I", 3000)
    tracemalloc.start()
    report = run_check(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    only(report, "broken in the zip", "mask_10.h5")
    assert peak < 4 * 2**20


def test_tiny_file_that_promises_a_huge_mask(tmp_path: Path) -> None:
    huge = h5(lambda file: file.create_dataset("mask", (2**20, 2**20), "u1"))
    assert len(huge) < 4096
    only(check(with_changes(tmp_path / "a.zip", {"mask_2.h5": huge}), IDS, None), "more than 64 MiB", "mask_2.h5")


def test_shape_none_takes_every_size(tmp_path: Path) -> None:
    path = with_changes(tmp_path / "a.zip", {"mask_2.h5": stored(mask_of(0, (4, 6)))})
    assert check(path, IDS, None).ok
    only(run_check(path), "shape is (4, 6)")
    only(check(with_changes(path, {"mask_2.h5": stored(ZEROS[None])}), IDS, None), "not (H, W)")


def test_one_line_for_one_kind_of_fault(tmp_path: Path) -> None:
    members = [(f"mask_{id}.h5", stored(ZEROS.astype(float))) for id in range(20)]
    report = check(zipped(tmp_path / "a.zip", members), None, SHAPE)
    only(report, "dtype is float64", "mask_0.h5, mask_1.h5, mask_2.h5, mask_3.h5, mask_4.h5 and 15 more")


def warned(tmp_path: Path, masks: list[np.ndarray]) -> list[str]:
    pack([(str(row), mask) for row, mask in enumerate(masks)], tmp_path / "w.zip")
    report = check(tmp_path / "w.zip", None, SHAPE)
    assert report.ok
    return report.warnings


def test_warnings(tmp_path: Path) -> None:
    some = [mask_of(seed) for seed in range(4)]
    assert warned(tmp_path, some) == []
    assert warned(tmp_path, [ZEROS, ZEROS]) == ["every mask is empty: no pixel is marked as landslide"]
    fifth = ZEROS.copy()
    fifth.flat[:13] = 1  # 13 of 64 pixels are 20.3 %, 12 are 18.8 %
    assert [text[:6] for text in warned(tmp_path, [fifth])] == ["20.3% "]
    fifth.flat[12] = 0
    assert warned(tmp_path, [fifth]) == []
    assert warned(tmp_path, [*some[:2], some[0], some[3]]) == []
    assert warned(tmp_path, [*some[:2], some[0], some[0]]) == ["3 of 4 masks are identical"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_broken_bytes_end_in_a_report(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = with_changes(tmp_path_factory.getbasetemp() / "fuzz.zip", {})
    original = path.read_bytes()
    places = data.draw(st.lists(st.integers(0, len(original) - 1), min_size=1, max_size=6))
    broken = bytearray(original)
    for place in places:
        broken[place] = data.draw(st.integers(0, 255))
    path.write_bytes(broken[: data.draw(st.integers(0, len(broken)))] if data.draw(st.booleans()) else broken)
    assert isinstance(run_check(path), CheckReport)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_broken_hdf5_ends_in_a_report(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    broken = bytearray(GOOD["mask_2.h5"])
    for place in data.draw(st.lists(st.integers(0, len(broken) - 1), min_size=1, max_size=4)):
        broken[place] = data.draw(st.integers(0, 255))
    path = with_changes(tmp_path_factory.getbasetemp() / "fuzz.zip", {"mask_2.h5": bytes(broken)})
    assert isinstance(run_check(path), CheckReport)


# ---- submit and the card ----


def probs_in(folder: Path, ids: list[str], values: np.ndarray) -> ProbFile:
    origin = {"member": "ensemble", "fingerprint": "abc", "domain": "test", "tta": "d4", "kind": "probability"}
    with write_probs(folder / "p.h5", ids=ids, shape=values.shape, **origin) as writer:
        writer.put(0, values)
    return open_probs(folder / "p.h5")


VALUES = np.random.default_rng(3).random((3, *SHAPE)).astype(np.float16)
FACTS = {"run": "zhao2022", "commit": "1234abc", "scores": {"f1": 0.71, "folds": (1, 2)}, "oracle": False, "note": None}


def test_submit_writes_zip_and_card(tmp_path: Path) -> None:
    out = tmp_path / "subs" / "r4.v2.zip"
    probs = probs_in(tmp_path, IDS, VALUES)
    card = submit(probs, out, threshold=0.9, facts=FACTS)
    assert sorted(os.listdir(out.parent)) == ["r4.v2.json", "r4.v2.zip"]
    assert check(out, IDS, SHAPE).ok
    with zipfile.ZipFile(out) as archive, h5py.File(io.BytesIO(archive.read("mask_10.h5"))) as file:
        np.testing.assert_array_equal(file["mask"][()], VALUES[2].astype(float) >= 0.9)
    assert read_card(out.with_suffix(".json")) == card
    text = out.with_suffix(".json").read_text()
    written = json.loads(text)
    assert written == card.as_dict() and list(written) == sorted(written) and str(tmp_path) not in text
    assert written == {
        "name": "r4.v2",
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "patches": 3,
        "shape": [8, 8],
        "threshold": 0.9,
        "min_area": 0,
        "positive_share": pytest.approx((VALUES.astype(float) >= 0.9).mean()),
        "member": "ensemble",
        "fingerprint": "abc",
        "domain": "test",
        "tta": "d4",
        "facts": {**FACTS, "scores": {"f1": 0.71, "folds": [1, 2]}},
    }


def test_what_is_no_card_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text('{"mine": 1}')
    probs = probs_in(tmp_path, IDS, VALUES)
    with pytest.raises(DataError, match="results.json is not a submission card"):
        submit(probs, tmp_path / "results.zip", threshold=0.9, facts=FACTS)
    assert (tmp_path / "results.json").read_text() == '{"mine": 1}' and not (tmp_path / "results.zip").exists()
    submit(probs, tmp_path / "s.zip", threshold=0.01, facts=FACTS)
    submit(probs, tmp_path / "s.zip", threshold=0.9, facts=FACTS)  # our own is
    assert "s.zip: " in capsys.readouterr().err and read_card(tmp_path / "s.json").threshold == 0.9


def test_submit_twice_is_byte_equal_and_min_area_counts(tmp_path: Path) -> None:
    probs = probs_in(tmp_path, IDS, VALUES)
    first = submit(probs, tmp_path / "a" / "s.zip", threshold=0.9, facts=FACTS)
    again = submit(probs, tmp_path / "b" / "s.zip", threshold=0.9, facts=FACTS)
    assert first == again
    for name in ("s.zip", "s.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    fewer = submit(probs, tmp_path / "c" / "s.zip", threshold=0.9, min_area=3, facts=FACTS)
    assert fewer.positive_share < first.positive_share and fewer.min_area == 3


def test_failed_check_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "subs"
    with write_probs(
        tmp_path / "p.h5",
        ids=["1", "2"],
        shape=[(4, 4), (4, 5)],
        member="m",
        fingerprint="f",
        domain="d",
        tta="none",
        kind="score",
    ) as writer:
        writer.put(0, [np.zeros((4, 4), np.float32), np.zeros((4, 5), np.float32)])
    with pytest.raises(DataError, match=r"failed its own check.*\(4, 5\), not \(4, 4\): mask_2.h5"):
        submit(open_probs(tmp_path / "p.h5"), folder / "s.zip", threshold=0.5, facts={})
    assert not folder.exists()


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"root": "/home/someone/data"}, "absolute path"),
        ({"a": {"b": ["C:\\data"]}}, "fact a.b is the absolute path"),
        ({"made": "2022-06-15T12:00"}, "time of day"),
        ({"seeds": {"run": "2022-06-15T12:00"}}, "time of day"),
        ({"made": "at 12:30:01"}, "time of day"),
        ({"f1": float("nan")}, "nan"),
        ({"path": Path("x")}, "PosixPath"),
    ],
)
def test_facts_unfit_for_a_card(tmp_path: Path, facts: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        submit(probs_in(tmp_path, IDS, VALUES), tmp_path / "s.zip", threshold=0.5, facts=facts)
    assert os.listdir(tmp_path) == ["p.h5"]


def test_a_run_may_be_called_by_the_time_it_began(tmp_path: Path) -> None:
    facts = {"run": "2022-06-15T12-30", "set": ["name=2022-06-15T12-30"]}
    assert submit(probs_in(tmp_path, IDS, VALUES), tmp_path / "s.zip", threshold=0.5, facts=facts).facts == facts


def test_submit_refuses(tmp_path: Path) -> None:
    probs = probs_in(tmp_path, IDS, VALUES)
    with pytest.raises(RecipeError, match="threshold is 1"):
        submit(probs, tmp_path / "s.zip", threshold=1, facts={})
    with pytest.raises(DataError, match=r"'s\.json'"):
        submit(probs, tmp_path / "s.json", threshold=0.5, facts={})
    with pytest.raises(DataError, match=r"shape \(\)"):
        submit(probs_in(tmp_path, IDS, VALUES[:, 0, 0]), tmp_path / "s.zip", threshold=0.5, facts={})
    assert os.listdir(tmp_path) == ["p.h5"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "x"}', "\udcff"])
def test_read_card_refuses(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"s\.json is not a"):
        read_card(tmp_path / "s.json")
