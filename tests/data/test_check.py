"""A folder with planted faults: each is found, named, and none hides another."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from picture_factory import RGBD, colours, save, write_bijie, write_both, write_hokkaido
from typer.testing import CliRunner

from l4s.cli import app
from l4s.data.bands import L4S_BANDS, Bands
from l4s.data.check import FolderReport, check_folder
from l4s.data.faults import KINDS
from l4s.data.labels import write_labels
from l4s.data.readers import find_patches, read_image, read_mask
from l4s.data.scale import (
    BYTES,
    CONSTANT,
    OFFICIAL,
    ORGANISERS_MEAN,
    RAW,
    STANDARDISED,
    UNIT,
    UNKNOWN,
    Values,
    guess_scales,
)
from l4s.errors import DataError

RGB = Bands(file=("b4", "b3", "b2"))
SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def write(path: Path, array: np.ndarray, key: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[key] = array
    return path


def image(root: Path, split: str, number: int, array: np.ndarray | None = None, key: str = "img") -> Path:
    values = np.random.default_rng(number).random((8, 8, 3)) if array is None else array
    return write(root / split / "img" / f"image_{number}.h5", values, key)


def mask(root: Path, split: str, number: int, array: np.ndarray | None = None) -> Path:
    values = np.eye(8, dtype=np.uint8) if array is None else array
    return write(root / split / "mask" / f"mask_{number}.h5", values, "mask")


def healthy(root: Path) -> Path:
    for number in range(1, 6):
        image(root, "TrainData", number)
        mask(root, "TrainData", number)
    for number in range(11, 14):
        image(root, "ValidData", number)
    return root


def named(report: FolderReport, kind: str) -> dict[str, str]:
    """Files of a kind of finding, with their details."""
    return {file: detail for each in report.findings if each.kind == kind for file, detail in each.files.items()}


def kinds(report: FolderReport, severity: str = "error") -> set[str]:
    return {finding.kind for finding in report.findings if finding.severity == severity}


def spoilt(shape: tuple[int, ...], where: tuple[int, ...], value: float) -> np.ndarray:
    array = np.random.default_rng(0).random(shape)
    array[where] = value
    return array


def plant(root: Path) -> dict[str, tuple[str, str]]:
    """Faults beside a healthy folder: kind -> (the file to be named, a word of the detail)."""
    train = healthy(root) / "TrainData"
    for number in range(20, 32):
        mask(root, "TrainData", number)
    whole = image(root, "TrainData", 20).read_bytes()
    (train / "img" / "image_20.h5").write_bytes(whole[: len(whole) // 2])
    image(root, "TrainData", 21, key="image")
    image(root, "TrainData", 22, np.full((8, 8, 3), np.nan))
    image(root, "TrainData", 23, spoilt((8, 8, 3), (2, 2, 1), np.inf))
    image(root, "TrainData", 24, spoilt((8, 8, 3), (slice(None), slice(None), 2), 0.25))
    image(root, "TrainData", 25, np.random.default_rng(11).random((8, 8, 3)))  # image 11 of ValidData
    mask(root, "TrainData", 99)
    image(root, "TrainData", 26)
    mask(root, "TrainData", 26, np.diag([7] * 8).astype(np.uint8))
    image(root, "TrainData", 27, np.random.default_rng(27).random((8, 8, 4)))
    image(root, "TrainData", 28)
    mask(root, "TrainData", 28, np.eye(9, dtype=np.uint8))
    image(root, "TrainData", 29, np.zeros((8, 8, 3)))
    image(root, "TrainData", 30, spoilt((8, 8, 3), (0, 0, 0), np.nan))
    image(root, "TrainData", 31, np.random.default_rng(1).random((8, 8, 3)).astype(np.float32))
    (train / "img" / "notes.txt").write_text("x")
    (train / "img" / "Image-7.hdf5").write_text("x")
    image(root, "TrainData", 32)
    return {
        "broken file": ("TrainData/img/image_20.h5", "truncated"),
        "wrong key": ("TrainData/img/image_21.h5", "its keys are image"),
        "no valid pixel": ("TrainData/img/image_22.h5", "everywhere"),
        "infinite values": ("TrainData/img/image_23.h5", "b3 (1.6% of pixels)"),
        "constant band": ("TrainData/img/image_24.h5", "b2 is 0.25"),
        "duplicate across splits": ("ValidData/img/image_11.h5", "TrainData/img/image_25.h5"),
        "mask without image": ("TrainData/mask/mask_99.h5", ""),
        "stray mask value": ("TrainData/mask/mask_26.h5", "holds 7"),
        "wrong band count": ("TrainData/img/image_27.h5", "has 4 bands, not 3"),
        "mask of another size": ("TrainData/mask/mask_28.h5", "is 9 x 9, its image 8 x 8"),
        "blank image": ("TrainData/img/image_29.h5", "all zero"),
        "missing values": ("TrainData/img/image_30.h5", "b4 (1.6% of pixels)"),
        "foreign file": ("TrainData/img/Image-7.hdf5", "rename it to image_7.h5"),
        "training image without mask": ("TrainData/img/image_32.h5", ""),
    }


def test_a_healthy_folder_is_ok_and_reads(tmp_path: Path) -> None:
    report = check_folder(healthy(tmp_path), bands=RGB, workers=0, track=None)
    assert report.ok
    assert not kinds(report) | kinds(report, "warning")
    assert kinds(report, "note") == {"no masks"}  # of ValidData
    for ref in find_patches(tmp_path, "train"):
        read_image(ref, RGB), read_mask(ref)


@pytest.mark.parametrize("bands", [RGB, None])
def test_every_planted_fault_is_found_and_named(tmp_path: Path, bands: Bands | None) -> None:
    planted = plant(tmp_path)
    report = check_folder(tmp_path, bands=bands, workers=1, track=None)
    for kind, (file, word) in planted.items():
        found = named(report, kind)
        assert file in found, kind
        if bands or word[:1] != "b":  # without names, bands have numbers
            assert word in found[file], kind
    assert {kind for kind, _ in planted.items() if KINDS[kind][0] == "error"} == kinds(report)
    assert not report.ok
    assert named(report, "foreign file").keys() == {f"TrainData/img/{n}" for n in ("notes.txt", "Image-7.hdf5")}
    assert named(report, "duplicate").keys() == {"TrainData/img/image_31.h5"}  # float32 of image 1
    assert named(report, "blank image").keys() == {"TrainData/img/image_29.h5"}


def test_the_reader_alone_stops_at_the_first(tmp_path: Path) -> None:
    plant(tmp_path)
    with pytest.raises(DataError):
        find_patches(tmp_path, "train")


def test_shares_by_split_and_region(tmp_path: Path) -> None:
    for number, positive in ((1, 4), (2, 0), (7, 16)):
        values = np.zeros((8, 8), np.uint8)
        values.flat[:positive] = 1
        image(tmp_path, "train", number)
        mask(tmp_path, "train", number, values)
    ignoring = np.full((8, 8), 255, np.uint8)
    ignoring.flat[:2] = (0, 1)
    image(tmp_path, "train", 9)
    mask(tmp_path, "train", 9, ignoring)
    report = check_folder(tmp_path, bands=None, workers=0, track=None, regions={"a": (1, 5), "b": (6, 8)})
    (split,) = report.splits
    assert (split.images, split.masks, split.without_landslide) == (4, 4, 1)
    assert split.landslide == pytest.approx(21 / (3 * 64 + 2))
    assert split.regions is not None
    assert {name: region.landslide for name, region in split.regions.items()} == {"a": 4 / 128, "b": 16 / 64}
    assert named(report, "outside all regions").keys() == {"train/img/image_9.h5"}
    assert named(report, "ignored pixels") == {"train/mask/mask_9.h5": "96.9%"}
    assert named(report, "patches without landslide").keys() == {"train/mask/mask_2.h5"}
    (gap,) = [finding for finding in report.findings if finding.kind == "gaps in ids"]
    assert gap.details == ("5 of ids 1 to 9 do not exist: 3-6, 8",)


def test_masks_of_0_and_255_are_not_taken_for_ignored_pixels(tmp_path: Path) -> None:
    for number in (1, 2):
        image(tmp_path, "train", number)
        mask(tmp_path, "train", number, np.eye(8, dtype=np.uint8) * 255)
    report = check_folder(tmp_path, bands=None, workers=0, track=None)
    assert kinds(report) == {"landslide as 255"}


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("TrainData/img", "TrainData/mask"),
        ("images/train", "annotations/train"),
        ("train/images", "train/masks"),
        ("release/TrainData/img", "release/TrainData/mask"),
        ("", ""),
        ("", "masks"),
        ("img", "mask"),
        ("site", "site"),
    ],
)
def test_every_layout_is_paired_as_the_reader_does(tmp_path: Path, images: str, masks: str) -> None:
    for number in (1, 2, 10):
        write(tmp_path / images / f"image_{number}.h5", np.random.default_rng(number).random((8, 8, 3)), "img")
        write(tmp_path / masks / f"mask_{number}.h5", np.eye(8, dtype=np.uint8), "mask")
    report = check_folder(tmp_path, bands=None, workers=0, track=None)
    assert report.ok, report.findings
    (split,) = report.splits
    assert (split.images, split.masks) == (3, 3)


def test_what_only_the_reader_minds_is_reported_in_its_words(tmp_path: Path) -> None:
    for folder in ("mask", "masks"):
        write(tmp_path / "train" / folder / f"mask_{len(folder)}.h5", np.eye(8, dtype=np.uint8), "mask")
    for number in (4, 5):
        image(tmp_path, "train", number)
    report = check_folder(tmp_path, bands=None, workers=0, track=None)
    assert kinds(report) == {"refused by the reader"}


def test_ids_and_splits_that_mean_the_same(tmp_path: Path) -> None:
    image(tmp_path, "train", 1)
    write(tmp_path / "train" / "img" / "image_01.h5", np.random.default_rng(5).random((8, 8, 3)), "img")
    image(tmp_path, "TrainData", 2)
    report = check_folder(tmp_path, bands=None, workers=0, track=None)
    assert kinds(report) == {"same id", "two folders for one split"}


def test_nothing_to_check(tmp_path: Path) -> None:
    (tmp_path / "TrainData.zip").write_bytes(b"x")
    report = check_folder(tmp_path, bands=None, workers=0, track=None)
    assert kinds(report) == {"empty"}
    assert "TrainData.zip, still packed" in report.findings[0].details[0]
    assert report.looked == {}
    with pytest.raises(DataError, match="does not exist"):
        check_folder(tmp_path / "no", bands=None, workers=0, track=None)


def test_types_sizes_and_bands_of_one_split(tmp_path: Path) -> None:
    healthy(tmp_path)
    image(tmp_path, "TrainData", 4, np.random.default_rng(0).random((4, 4, 3)))
    mask(tmp_path, "TrainData", 4, np.eye(4, dtype=np.uint8))
    image(tmp_path, "TrainData", 5, np.random.default_rng(1).random((3, 8, 8)).astype(np.float32))  # bands first: fine
    image(tmp_path, "ValidData", 11, np.array([[b"x"]]))
    image(tmp_path, "ValidData", 12, np.zeros((8, 8)))
    report = check_folder(tmp_path, bands=RGB, workers=0, track=None)
    assert kinds(report) == {"other size", "wrong type", "wrong shape"}
    assert named(report, "other size") == {"TrainData/img/image_4.h5": "is 4 x 4, most are 8 x 8"}
    assert "4 float64, 1 float32" in {detail for finding in report.findings for detail in finding.details}


def test_a_band_that_is_missing_everywhere(tmp_path: Path) -> None:
    for number in (1, 2):
        values = np.random.default_rng(number).random((8, 8, 3))
        values[..., 1] = np.nan
        image(tmp_path, "train", number, values)
    report = check_folder(tmp_path, bands=RGB, workers=0, track=None)
    assert [f.details for f in report.findings if f.kind == "band without values"] == [("b3",)]


def test_splits_on_different_scales(tmp_path: Path) -> None:
    for number in range(1, 4):
        values = np.random.default_rng(number).random((8, 8, 14))
        image(tmp_path, "train", number, values + 0.5)
        image(tmp_path, "test", number + 3, (values + 0.5) * list(ORGANISERS_MEAN.values()))
    report = check_folder(tmp_path, bands=None, workers=0, track=None)
    scales = {split.where: {band.scale.name for band in split.bands} for split in report.splits}
    assert scales == {"train": {OFFICIAL}, "test": {RAW}}
    assert "scale differs" in kinds(report, "warning")


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (Values("b4", 0.96, 0.57, 0.0, 6.9, False), OFFICIAL),
        (Values("b4", 445.0, 250.0, 12.0, 9000.0, True), RAW),
        (Values("slope", 20.3, 9.0, 0.0, 71.0, False), RAW),
        (Values("b4", 61.0, 31.0, 0.0, 255.0, True), BYTES),
        (Values("b4", 0.01, 1.02, -2.4, 9.0, False), STANDARDISED),
        (Values("b4", 0.11, 0.07, 0.0, 1.4, False), UNIT),
        (Values("ndvi", 0.8, 0.1, 0.3, 1.0, False), UNIT),
        (Values("b4", 0.0, 0.0, 0.0, 0.0, True), CONSTANT),
        (Values("band1", 40.0, 9.0, -3.0, 99.5, False), UNKNOWN),
    ],
)
def test_scale_of_one_band(values: Values, scale: str) -> None:
    (found,) = guess_scales([values])
    assert found.name == scale
    assert found.why


def test_a_band_that_fits_two_scales_follows_the_others() -> None:
    cirrus = Values("b10", 3.8, 9.0, 0.0, 49.3, False)  # as in six real patches: raw cirrus has such a mean, too
    official = [Values(name, 1.0, 0.4, 0.1, 6.0, False) for name in ("b2", "b3", "b4")]
    raw = [Values(name, 700.0, 300.0, 40.0, 6000.0, False) for name in ("b2", "b3", "b4")]
    assert [guess_scales([cirrus, *others])[0].name for others in (official, raw)] == [OFFICIAL, RAW]


@pytest.mark.slow
def test_workers_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path)
    monkeypatch.setattr("l4s.data.check.FEW", 0)
    seen: list[int] = []

    def track(items, text, total):  # type: ignore[no-untyped-def]
        for item in items:
            yield item
            seen.append(item)

    parallel = check_folder(tmp_path, bands=RGB, workers=2, track=track)
    assert parallel == check_folder(tmp_path, bands=RGB, workers=1, track=None)
    assert len(seen) == len(list(tmp_path.rglob("*.h5")))


def test_the_command(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path), "--bands", "b4,b3,b2", "--workers", "1"])
    assert result.exit_code == 1
    assert all(kind in result.stdout for kind in planted)
    result = CliRunner().invoke(
        app, ["data", "check", str(tmp_path), "--bands", "b4,b3,b2", "--workers", "1", "--json"]
    )
    assert result.exit_code == 1
    table = json.loads(result.stdout)
    assert table["ok"] is False
    assert planted.keys() <= {finding["kind"] for finding in table["findings"]}
    assert CliRunner().invoke(app, ["data", "check", str(healthy(tmp_path / "ok"))]).exit_code == 0
    assert CliRunner().invoke(app, ["data", "check", str(tmp_path), "--regions", "a=9"]).exit_code == 2


def test_patches_that_are_labelled_as_a_whole(tmp_path: Path) -> None:
    """Point-labelled radar chips: the table is read, and the patches can be learnt from."""
    for split in ("kaikoura", "TrainData", "plain"):
        for number in (1, 2, 3):
            image(tmp_path / "data", split, number, np.random.default_rng(10 * len(split) + number).random((8, 8, 3)))
    write_labels(tmp_path / "data" / "kaikoura" / "labels.csv", [("1", 1, 4.0, 4.0), ("3", 0, 4.0, 4.0)])
    write_labels(tmp_path / "data" / "labels.csv", [(str(k), 1, 4.0, 4.0) for k in (1, 2, 3)])  # beside TrainData
    report = checked(tmp_path / "data")
    assert report.ok, report.findings
    told = {finding.where: finding.details for finding in report.findings if finding.kind == "labels of patches"}
    assert told == {
        "kaikoura": ("labels.csv labels 2 of 3 patches, 1 of them with landslides",),
        "TrainData": ("labels.csv labels 3 of 3 patches, 3 of them with landslides",),
    }
    assert [finding.where for finding in report.findings if finding.kind == "no masks"] == ["plain"]
    assert not named(report, "other file")


def test_tables_of_labels_that_are_not_read(tmp_path: Path) -> None:
    """Masks win over a table where all patches have them; a broken one is told in the words of its reader."""
    for number in (1, 2):
        image(tmp_path, "masked", number)
        mask(tmp_path, "masked", number)
        image(tmp_path, "broken", number + 5)
    write_labels(tmp_path / "masked" / "labels.csv", [("1", 1, 4.0, 4.0)])
    (tmp_path / "broken" / "labels.csv").write_text("id,label\n6,maybe\n")
    report = checked(tmp_path)
    assert named(report, "other file").keys() == {"masked/labels.csv"}
    (refused,) = [finding for finding in report.findings if finding.kind == "refused by the reader"]
    assert refused.where == "broken" and "line 2: '6,maybe' is not the number" in refused.details[0]


def checked(root: Path, **about: object) -> FolderReport:
    return check_folder(root, **{"workers": 0, "track": None} | about)  # type: ignore[arg-type]


def test_sound_pictures_of_both_layouts_beside_patches(tmp_path: Path) -> None:
    healthy(write_both(tmp_path) / "hdf5")
    report = checked(tmp_path)
    assert report.ok and not kinds(report, "warning"), report.findings
    assert kinds(report, "note") == {"drawn split", "varying sizes", "no masks"}
    bijie, h5 = "Bijie-landslide-dataset", "hdf5"
    counts = {split.where: (split.named, split.images, split.masks, split.without_landslide) for split in report.splits}
    assert counts == {
        f"{bijie}/train": ("train", 9, 6, 3),
        f"{bijie}/test": ("test", 3, 2, 1),
        "HokkaidoLandslide_dataset/train": ("train", 5, 5, 0),
        f"{h5}/TrainData": ("train", 5, 5, 0),
        f"{h5}/ValidData": ("validation", 3, 0, 0),
    }
    assert report.looked == {"pictures": 17, "masks of pictures": 13, "DEMs": 17, "image_N.h5": 8, "mask_N.h5": 5}
    masks = [read_mask(ref) for ref in find_patches(tmp_path / bijie, "train")]
    assert report.splits[0].landslide == pytest.approx(sum(map(np.sum, masks)) / sum(each.size for each in masks))


def plant_in_pictures(root: Path) -> dict[str, tuple[str, str]]:
    """Faults in Bijie's layout: file -> kind, a word of the detail."""
    write_bijie(root, 20, 10)
    place, rng = root / "landslide", np.random.default_rng(0)
    (place / "image" / "p1.png").write_bytes(b"no picture")
    save(place / "image" / "p2.png", rng.integers(0, 9, (10, 10)).astype(np.uint16) * 9)
    save(place / "mask" / "p3.png", np.resize(np.array([0, 1, 255], np.uint8), (14, 16)))
    save(place / "mask" / "p4.png", np.zeros((40, 13), np.uint8))
    save(place / "mask" / "p5.png", np.zeros((12, 15), np.uint8))
    save(place / "dem" / "p6.png", np.zeros((40, 13), np.uint8))
    (place / "dem" / "p7.png").write_bytes(b"no picture")
    (place / "mask" / "p8.png").unlink()
    (place / "dem" / "p9.png").unlink()
    save(root / "non-landslide" / "image" / "p1.png", np.full((9, 9, 3), 4, np.uint8))
    return {
        "image/p1.png": ("refused by the reader", "is no PNG"),
        "image/p2.png": ("refused by the reader", "one channel of more than 8 bits"),
        "mask/p3.png": ("refused by the reader", "holds 0, 1, 255: beside 255"),
        "mask/p4.png": ("refused by the reader", "more than 2 off"),
        "mask/p5.png": ("patches without landslide", ""),
        "dem/p6.png": ("refused by the reader", "more than 2 off"),
        "dem/p7.png": ("refused by the reader", "is no PNG"),
        "image/p9.png": ("image without DEM", ""),
    }


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_fault_of_pictures_is_found_and_named(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("l4s.data.check.FEW", 0)
    planted = plant_in_pictures(tmp_path)
    report = checked(tmp_path, workers=workers)
    for file, (kind, word) in planted.items():
        assert word in named(report, kind)[f"landslide/{file}"], file
    lonely = named(report, "training image without mask") | named(report, "image without mask")
    assert lonely.keys() == {"landslide/image/p8.png"}
    assert named(report, "blank image").keys() == {"non-landslide/image/p1.png"}
    for kind in ("image", "mask", "dem"):  # one line for each file of a broken picture, one fault
        assert f"landslide/{kind}/p1.png" in named(report, "refused by the reader")
    assert kinds(report) <= {"refused by the reader", "training image without mask"}


def test_the_same_picture_in_two_drawn_splits_is_found(tmp_path: Path) -> None:
    write_bijie(tmp_path, 10, 5)
    parts = {split: find_patches(tmp_path, split) for split in ("train", "test")}
    first, copy = (next(ref for ref in part if ref.background).image for part in parts.values())
    copy.write_bytes(first.read_bytes())
    report = checked(tmp_path)
    (across,) = [finding for finding in report.findings if finding.kind == "duplicate across splits"]
    assert across.where == "test" and not report.ok
    assert across.files == {f"non-landslide/image/{copy.name}": f"has the pixels of non-landslide/image/{first.name}"}


def test_names_of_pictures_are_checked_by_their_reader(tmp_path: Path) -> None:
    write_bijie(tmp_path)
    (tmp_path / "non-landslide").rename(tmp_path / "non_landslide")
    report = checked(tmp_path)
    (finding,) = report.findings
    assert finding.kind == "refused by the reader" and "did you mean 'non-landslide'" in finding.details[0]
    hokkaido = write_hokkaido(tmp_path / "h")
    (hokkaido / "train" / "mask" / "h9.png").write_bytes(b"")
    assert "h9.png has no image of its stem" in checked(hokkaido).findings[0].details[0]


def test_pictures_that_no_list_names(tmp_path: Path) -> None:
    write_bijie(tmp_path)
    for split in ("train", "validation", "test"):
        (tmp_path / "splits").mkdir(exist_ok=True)
        (tmp_path / "splits" / f"{split}.txt").write_text("landslide-p1" if split == "train" else "")
    report = checked(tmp_path)
    assert [finding.details for finding in report.findings if finding.kind == "in no list"] == [("11 of 12 pictures",)]
    assert [split.where for split in report.splits] == ["train"] and report.looked["pictures"] == 1


@pytest.mark.parametrize("place", ["train", "train/image", "pngs"])
def test_a_folder_of_pictures_itself(tmp_path: Path, place: str) -> None:
    write_hokkaido(tmp_path)
    (tmp_path / "train" / "image" / "h1.png").write_bytes(b"")
    (tmp_path / "train" / "mask" / "h2.png").write_bytes(b"")
    if place == "pngs":
        (tmp_path / "train" / "image").rename(tmp_path / "pngs")
    report = checked(tmp_path / place)
    assert report.looked["pictures"] == 5
    assert len(named(report, "refused by the reader")) == (1 if place == "pngs" else 4)


def test_figures_are_no_patches(tmp_path: Path) -> None:
    save(healthy(tmp_path) / "figures" / "map.png", colours(np.random.default_rng(0), np.zeros((4, 4), np.uint8)))
    save(tmp_path / "overview.png", np.zeros((4, 4, 3), np.uint8))
    report = checked(tmp_path)
    assert report.ok and "pictures" not in report.looked
    assert named(report, "other file").keys() == {"figures/map.png", "overview.png"}


def test_bands_of_pictures(tmp_path: Path) -> None:
    write_bijie(tmp_path, dem=False)
    assert checked(tmp_path, bands=RGBD.model_copy(update={"use": ("r", "g", "b")})).ok
    report = checked(tmp_path, bands=RGBD)
    assert kinds(report) == {"missing DEM"} and len(named(report, "missing DEM")) == 12
    wrong = named(checked(tmp_path, bands=Bands()), "wrong band count")
    assert set(wrong.values()) == {"has 3 bands, not 14"}


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "bijie_sample").is_dir(), reason="the shared real pictures are not here")
def test_real_pictures() -> None:
    report = checked(SHARED / "bijie_sample")
    assert report.ok and not kinds(report, "warning")
    assert report.looked == {"pictures": 90, "masks of pictures": 60}


@pytest.mark.skipif(not (SHARED / "l4s_14band").is_dir(), reason="the shared real patches are not here")
def test_real_patches() -> None:
    report = check_folder(SHARED / "l4s_14band", bands=None, workers=0, track=None)
    assert report.ok
    (split,) = report.splits
    assert [band.values.name for band in split.bands] == list(L4S_BANDS)
    assert {band.scale.name for band in split.bands} == {OFFICIAL}
