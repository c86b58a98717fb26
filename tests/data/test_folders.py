"""Layouts of pictures: what belongs together, what is left alone, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from picture_factory import RGB, RGBD, save, write_bijie, write_both, write_hokkaido

from l4s.data.folders import picture_layout, save_splits
from l4s.data.patch import natural
from l4s.data.readers import find_patches, patch_sides, read_image, read_mask
from l4s.errors import DataError, RecipeError


def test_ids_carry_their_class_and_numbers_their_place(tmp_path):
    write_bijie(tmp_path, positive=11, negative=2)
    refs = find_patches(tmp_path, ".", layout="bijie")
    assert [ref.id for ref in refs[:3]] == ["landslide-p1", "landslide-p2", "landslide-p3"]
    assert [ref.id for ref in refs[9:]] == ["landslide-p10", "landslide-p11", "non-landslide-p1", "non-landslide-p2"]
    assert [ref.number for ref in refs] == list(range(1, 14))
    assert [ref.background for ref in refs] == [False] * 11 + [True] * 2
    assert all(ref.labelled for ref in refs)
    for ref in (refs[0], refs[-1]):
        assert read_image(ref, RGBD).shape[1:] == read_mask(ref).shape == patch_sides(ref)
    assert read_mask(refs[0]).any() and not read_mask(refs[-1]).any()


def test_splits_are_parts_and_the_layout_is_found_by_itself(tmp_path):
    write_bijie(tmp_path, positive=10, negative=10)
    parts = [find_patches(tmp_path, split) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [14, 2, 4]
    assert len({ref.id for part in parts for ref in part}) == 20
    for part, share in zip(parts, (7, 1, 2), strict=True):  # by class
        assert sum(ref.background for ref in part) == share
    assert find_patches(tmp_path, "train", layout="bijie") == parts[0]
    assert find_patches(tmp_path, "val") == parts[1]


def test_another_seed_is_another_draw(tmp_path):
    write_bijie(tmp_path, positive=10, negative=0)
    one, two = (find_patches(tmp_path, "train", layout="bijie", seed=seed) for seed in (0, 1))
    assert len(one) == len(two) == 7 and one != two


@pytest.mark.parametrize(
    "doubled", [("Bijie-landslide-dataset",), ("Bijie_landslide_dataset", "Bijie-landslide-dataset")]
)
def test_a_doubled_outer_folder(tmp_path, doubled):
    write_bijie(tmp_path.joinpath(*doubled))
    (tmp_path / doubled[0] / ".DS_Store").write_bytes(b"")
    assert len(find_patches(tmp_path, "train")) == 9
    assert len(find_patches(tmp_path, "train", layout="bijie")) == 9
    (tmp_path / "other").mkdir()
    assert len(find_patches(tmp_path, "train", layout="bijie")) == 9


def test_two_data_sets_in_one_data_folder(tmp_path):
    write_both(tmp_path)
    assert len(find_patches(tmp_path, "train", layout="bijie")) == 9
    assert len(find_patches(tmp_path, "train", layout="hokkaido")) == 5
    with pytest.raises(DataError, match="several folders: Bijie-landslide-dataset, HokkaidoLandslide_dataset"):
        find_patches(tmp_path, "train")


def test_what_systems_leave_behind_is_left_alone(tmp_path):
    write_bijie(tmp_path)
    (tmp_path / "landslide" / "polygon_coordinate").mkdir()
    (tmp_path / "landslide" / "polygon_coordinate" / "p1.txt").write_text("1 2")
    for name in ("image/.hidden.png", "mask/Thumbs.db", "dem/desktop.ini"):
        (tmp_path / "landslide" / name).write_bytes(b"")
    (tmp_path / "landslide" / "image" / "__MACOSX").mkdir()
    for name in ("p1.png.aux.xml", "p1.pgw", "p1.png.ovr"):  # and what GIS programs do
        (tmp_path / "landslide" / "image" / name).write_bytes(b"")
    assert len(find_patches(tmp_path, ".", layout="bijie")) == 12


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("landslide/image/p1.jpg", "p1.jpg is no .png"),
        ("landslide/mask/p1.tif", "p1.tif is no .png"),
        ("landslide/dem/p1.txt", "p1.txt is no .png or .tif or .tiff"),
        ("landslide/dem/p1.tif", "p1.png and p1.tif have the same stem"),
        ("landslide/mask/p99.png", "mask/p99.png has no image of its stem: add the image or remove the mask"),
        ("non-landslide/dem/p99.png", "dem/p99.png has no image of its stem: add the image or remove the DEM"),
        ("non-landslide/image/notes/x", "notes is no .png"),
        ("non-landslide/mask/p1.png", "non-landslide are background throughout"),
    ],
)
def test_foreign_files(tmp_path, name, told):
    write_bijie(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=told):
        find_patches(tmp_path, "train", layout="bijie")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("non-landslide", "non_landslide", "non_landslide is no part of .*, did you mean 'non-landslide'"),
        ("landslide", "landslides", "landslides is no part of the layout 'bijie', did you mean 'landslide'"),
        ("non-landslide/image", "non-landslide/images", "images is no part of .*, did you mean 'image'"),
        ("landslide/mask", "landslide/masks", "masks is no part of .*, did you mean 'mask'"),
        ("landslide/dem", "landslide/DEM", r"DEM is no part of .* \(there are: dem, image, mask, polygon_coordinate"),
        ("non-landslide/image", "images", "images is no part of .*there are: landslide, non-landslide, splits"),
        ("non-landslide/image", ".images", "non-landslide has no folder image"),
    ],
)
def test_a_misspelt_folder_drops_nothing(tmp_path, old, new, told):
    write_bijie(tmp_path)
    (tmp_path / old).rename(tmp_path / new)
    for read in (lambda: find_patches(tmp_path, "train"), lambda: save_splits(tmp_path)):
        with pytest.raises(DataError, match=told):
            read()


def test_what_else_may_lie_beside_the_classes(tmp_path):
    write_bijie(tmp_path)
    for name in ("__MACOSX", ".git", "splits"):
        (tmp_path / name).mkdir()
    (tmp_path / "README.md").write_text("the release")
    assert len(find_patches(tmp_path, ".", layout="bijie")) == 12


def test_a_patch_without_its_mask_is_unlabelled(tmp_path):
    write_bijie(tmp_path)
    (tmp_path / "landslide" / "mask" / "p3.png").unlink()
    refs = find_patches(tmp_path, ".", layout="bijie")
    assert [ref.id for ref in refs if not ref.labelled] == ["landslide-p3"]


def test_other_splits_than_a_layout_has(tmp_path):
    write_bijie(tmp_path)
    with pytest.raises(DataError, match="looked for train, validation and test, the splits that layout 'bijie' has"):
        find_patches(tmp_path, "east", layout="bijie")
    with pytest.raises(DataError, match="looked for train/image|images|img"):
        find_patches(tmp_path, "train", layout="hokkaido")
    (tmp_path / "none" / "landslide" / "image").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no pictures"):
        find_patches(tmp_path / "none", "train", layout="bijie")


def test_too_few_to_draw_from(tmp_path):
    write_bijie(tmp_path, positive=2, negative=0)
    with pytest.raises(DataError, match="2 patches, of which none is in split 'test': too few to draw from"):
        find_patches(tmp_path, "test", layout="bijie")


def test_a_list_that_is_empty(tmp_path):
    listed(write_bijie(tmp_path), train="landslide-p1")
    with pytest.raises(DataError, match=r"splits/validation.txt lists none of the 12 patches: list some, or remove"):
        find_patches(tmp_path, "val", layout="bijie")


def test_pictures_that_no_list_names_are_counted(tmp_path, capsys):
    listed(write_bijie(tmp_path), train="landslide-p1", test="landslide-p2")
    find_patches(tmp_path, "train")
    assert "10 of 12 patches are left out: no list in" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "splits")
    find_patches(tmp_path, "train")
    save_splits(tmp_path)
    find_patches(tmp_path, "train")
    assert "left out" not in capsys.readouterr().err


def listed(root: Path, **lists: str) -> Path:
    (root / "splits").mkdir()
    for split in ("train", "validation", "test"):
        (root / "splits" / f"{split}.txt").write_text(lists.get(split, ""))
    return root


def test_a_shipped_split_is_honoured(tmp_path):
    write_bijie(tmp_path)
    lists = {"train": "landslide/p1.png\nnon-landslide/p2\n\n", "test": "landslide-p3\r\n"}
    listed(tmp_path, **lists)
    assert [ref.id for ref in find_patches(tmp_path, "train")] == ["landslide-p1", "non-landslide-p2"]
    assert [ref.id for ref in find_patches(tmp_path, "test")] == ["landslide-p3"]
    assert len(find_patches(tmp_path, ".")) == 12
    for seed in (0, 3):
        with pytest.raises(
            RecipeError, match=f"split_seed = {seed} draws other splits than .*splits lists: leave it out"
        ):
            find_patches(tmp_path, "train", layout="bijie", seed=seed)


def test_a_saved_draw_may_be_drawn_again(tmp_path):
    write_bijie(tmp_path)
    before = find_patches(tmp_path, "train", layout="bijie", seed=3)
    save_splits(tmp_path, seed=3)
    assert find_patches(tmp_path, "train", layout="bijie", seed=3) == before == find_patches(tmp_path, "train")


@pytest.mark.parametrize(
    ("lists", "told"),
    [
        ({"train": "landslide-p1\nlandslide-p77"}, r"train.txt, line 2: 'landslide-p77' is no patch"),
        ({"train": "p1.png"}, "line 1: 'p1.png' is no patch"),
        (
            {"train": "landslide-p1", "test": "landslide/p1"},
            r"test.txt, line 1.* was named before, in train.txt, line 1",
        ),
    ],
)
def test_lists_that_contradict_the_files(tmp_path, lists, told):
    listed(write_bijie(tmp_path), **lists)
    with pytest.raises(DataError, match=told):
        find_patches(tmp_path, "train", layout="bijie")


def test_lists_of_other_names(tmp_path):
    listed(write_bijie(tmp_path), train="landslide-p1")
    (tmp_path / "splits" / "val.txt").write_text("")
    with pytest.raises(DataError, match="splits holds test.txt, train.txt, val.txt, validation.txt, where"):
        find_patches(tmp_path, "train", layout="bijie")
    (tmp_path / "splits" / "val.txt").rename(tmp_path / "splits" / "validation.txt")
    (tmp_path / "splits" / "test.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="test.txt is no readable text"):
        find_patches(tmp_path, "train", layout="bijie")


@pytest.mark.parametrize("layout", ["auto", "hokkaido"])
@pytest.mark.parametrize(("image", "mask"), [("image", "mask"), ("images", "masks"), ("img", "label")])
def test_hokkaido(tmp_path, layout, image, mask):
    write_hokkaido(tmp_path, "train", count=11)
    (tmp_path / "train" / "image").rename(tmp_path / "train" / image)
    (tmp_path / "train" / "mask").rename(tmp_path / "train" / mask)
    refs = find_patches(tmp_path, "train", layout=layout)
    assert [ref.id for ref in refs] == [f"h{number}" for number in range(1, 12)]
    assert [ref.number for ref in refs] == list(range(1, 12))
    assert all(ref.mask and ref.dem and ref.dem.suffix == ".tif" for ref in refs)
    assert read_image(refs[0], RGBD)[3].min() > 99  # metres


@pytest.mark.parametrize("folder", ["valid", "val", "validation"])
def test_hokkaidos_names_of_splits(tmp_path, folder):
    write_hokkaido(tmp_path, folder, masks=False)
    refs = find_patches(tmp_path, "validation")
    assert len(refs) == 5 and not any(ref.labelled for ref in refs)


def test_a_folder_of_pictures_by_its_name(tmp_path):
    write_hokkaido(tmp_path, "east")
    assert len(find_patches(tmp_path, "east")) == len(find_patches(tmp_path / "east", ".")) == 5
    shutil.rmtree(tmp_path / "east" / "dem")
    assert read_image(find_patches(tmp_path, "east")[0], RGB).shape[0] == 3


@pytest.mark.parametrize("split", ["east", "train"])
def test_pictures_that_lie_openly_in_a_folder(tmp_path, split):
    write_hokkaido(tmp_path, "x")
    (tmp_path / "x" / "image").rename(tmp_path / split)
    refs = find_patches(tmp_path, split)
    assert [ref.id for ref in refs] == [f"h{number}" for number in range(1, 6)]
    assert refs == tuple(find_patches(tmp_path / split, "."))
    assert not any(ref.mask or ref.dem for ref in refs)
    with pytest.raises(DataError, match=f"h1.tiff in .*{split}/dem, but there is no such folder"):
        read_image(refs[0], RGBD)
    for name in ("mask", "dem"):  # beside a folder of any name they may be somebody else's: they lie in it
        (tmp_path / "x" / name).rename(tmp_path / split / name)
    refs = find_patches(tmp_path, split)
    assert len(refs) == 5 and all(ref.mask and ref.dem for ref in refs)
    (tmp_path / split / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="notes.txt is no .png"):
        find_patches(tmp_path, split)


def test_a_folder_called_image_has_its_masks_and_dems_beside_it(tmp_path, monkeypatch):
    write_hokkaido(tmp_path)
    monkeypatch.chdir(tmp_path / "train" / "image")
    for refs in (find_patches(tmp_path / "train" / "image", "."), find_patches(tmp_path, "train/image")):
        assert len(refs) == 5 and all(ref.mask and ref.dem for ref in refs)
    assert len(find_patches(Path("."), ".")) == 5


def test_a_picture_beside_folders_of_something_else_is_none(tmp_path):
    write_bijie(tmp_path)
    save(tmp_path / "overview.png", np.zeros((4, 4, 3), np.uint8))
    assert len(find_patches(tmp_path, ".")) == 12
    save(tmp_path / "other" / "overview.png", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "other" / "TrainData").mkdir()
    with pytest.raises(DataError, match=r"no patches of split '\.'.* looked for .*\./image\|images\|img, \./\*\.png"):
        find_patches(tmp_path / "other", ".")


def test_pictures_and_patches_do_not_mix(tmp_path):
    write_hokkaido(tmp_path)
    (tmp_path / "train" / "image").rename(tmp_path / "train" / "img")
    (tmp_path / "train" / "img" / "image_1.h5").write_bytes(b"")
    with pytest.raises(DataError, match="h1.png is no (image|mask)_N.h5"):
        find_patches(tmp_path, "train")


def test_two_folders_for_the_same(tmp_path):
    write_hokkaido(tmp_path)
    save(tmp_path / "train" / "images" / "x.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="train holds image and images, which mean the same"):
        find_patches(tmp_path, "train", layout="hokkaido")


def test_which_layout_of_pictures_lies_there(tmp_path):
    assert picture_layout(write_bijie(tmp_path / "a" / "b")) == picture_layout(tmp_path / "a") == "bijie"
    assert picture_layout(write_hokkaido(tmp_path / "c")) == "hokkaido"
    (tmp_path / "d").mkdir()
    assert picture_layout(tmp_path / "d") is None


def test_natural_order():
    assert sorted(["a10", "a9", "b1", "a09", "a"], key=natural) == ["a", "a09", "a9", "a10", "b1"]
