"""`labels.csv`: what it says, where it is looked for, and what is wrong with it."""

import numpy as np
import pytest
from data_factory import write_images, write_split
from picture_factory import save

from l4s.data.labels import labels_beside, read_labels, with_labels, write_labels
from l4s.data.readers import find_patches
from l4s.errors import DataError

IMAGES = [np.ones((4, 4, 3))] * 3


def table(path, *lines, header="id,label,x,y"):
    path.write_text("\n".join((header, *lines)) + "\n")
    return path


def test_labels_come_back_as_written(tmp_path):
    write_labels(tmp_path / "labels.csv", [("1", 1, 0.5, 3.25), ("20", 0, 7.0, 8.0)])
    assert (tmp_path / "labels.csv").read_text() == "id,label,x,y\n1,1,0.5,3.25\n20,0,7.0,8.0\n"
    assert read_labels(tmp_path / "labels.csv") == {1: 1, 20: 0}
    assert read_labels(table(tmp_path / "short.csv", "007,1", header="id,label")) == {7: 1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "begins with nothing"),
        ("id;label;x;y\n1;1;0;0\n", "begins with id;label"),
        ("id,label,x,y\n1,1\n", "line 2: '1,1' is not the number"),
        ("id,label\n1,2\n", "line 2: '1,2' is not"),
        ("id,label\n1,1\nb,0\n", "line 3: 'b,0' is not"),
        ("id,label\n-1,0\n", "line 2: '-1,0' is not"),
        ("id,label\n1,0\n01,0\n", "line 3: patch 01 has a label already"),
        ("id,label\n1,0\n1,1\n", "line 3: patch 1 has a label already"),
    ],
)
def test_other_tables_are_refused(tmp_path, text, says):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"labels\.csv.*{says}"):
        read_labels(path)


def test_files_that_are_no_text(tmp_path):
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_labels(tmp_path / "labels.csv")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_labels(tmp_path / "none.csv")


def test_a_table_beside_the_images_labels_them(tmp_path):
    write_images(tmp_path / "place/img", IMAGES)
    assert labels_beside(find_patches(tmp_path, "place")) == {}
    table(tmp_path / "place/labels.csv", "1,1,0,0", "3,0,0,0", "9,1,0,0")
    assert labels_beside(find_patches(tmp_path, "place")) == {1: 1, 3: 0}


def test_the_table_of_cut_scenes_lies_above(tmp_path):
    """`l4s data chip` writes one for TrainData and TestData together."""
    write_split(tmp_path, "train", [1, 2], masks=False)
    write_split(tmp_path, "test", [3], masks=False)
    table(tmp_path / "labels.csv", "1,1,0,0", "2,0,0,0", "3,1,0,0")
    assert labels_beside(find_patches(tmp_path, "train")) == {1: 1, 2: 0}
    assert labels_beside(find_patches(tmp_path, "test")) == {3: 1}


def test_a_table_above_other_folders_is_none_of_theirs(tmp_path):
    write_images(tmp_path / "place/img", IMAGES)
    table(tmp_path / "labels.csv", "1,1,0,0")
    assert labels_beside(find_patches(tmp_path, "place")) == {}
    write_images(tmp_path / "bare", IMAGES)
    assert labels_beside(find_patches(tmp_path, "bare")) == {}


def test_masks_say_more_than_a_table(tmp_path):
    write_split(tmp_path, "train", [1, 2])
    table(tmp_path / "TrainData/labels.csv", "1,1,0,0")
    assert labels_beside(find_patches(tmp_path, "train")) == {}
    (tmp_path / "TrainData/mask/mask_2.h5").unlink()
    with pytest.raises(DataError, match=r"labels\.csv labels whole patches, but .*mask_1\.h5 labels pixels"):
        labels_beside(find_patches(tmp_path, "train"))


def pictures(folder, *stems):
    for stem in stems:
        save(folder / f"{stem}.png", np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize("images", ["image", "images", "img"])
def test_pictures_are_labelled_by_their_ids_and_not_by_their_places(tmp_path, images):
    pictures(tmp_path / "place" / images, "3", "10", "12")
    table(tmp_path / "place/labels.csv", "3,1,0,0", "10,0,0,0", "12,0,0,0")
    refs = with_labels(find_patches(tmp_path, "place"))
    assert [(ref.id, ref.number, ref.label) for ref in refs] == [("3", 1, 1), ("10", 2, 0), ("12", 3, 0)]


def test_ids_of_pictures_are_words_and_one_may_have_no_label(tmp_path):
    pictures(tmp_path / "place/img", "north_7", "north_8", "south_1")
    table(tmp_path / "place/labels.csv", "south_1,1", "north_7,0", header="id,label")
    assert [ref.label for ref in with_labels(find_patches(tmp_path, "place"))] == [0, None, 1]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (
            ("7,1",),
            r"labels\.csv labels '7', but .*img holds no picture of that name, did you mean '07'\?; write the names",
        ),
        (("07,1", "08.png,1", "x,0"), r"labels '08.png' and 1 more, but .*without \.png, or take"),
        (("07,1", "07,1"), "line 3: patch 07 has a label already"),
        ((",1",), "line 2: ',1' is not the id of a patch"),
    ],
)
def test_lines_that_name_no_picture(tmp_path, lines, says):
    pictures(tmp_path / "place/img", "07", "08")
    table(tmp_path / "place/labels.csv", *lines, header="id,label")
    with pytest.raises(DataError, match=says):
        labels_beside(find_patches(tmp_path, "place"))


def test_a_table_above_labels_the_pictures_of_several_folders(tmp_path):
    pictures(tmp_path / "TrainData/img", "a")
    pictures(tmp_path / "TestData/img", "b")
    table(tmp_path / "labels.csv", "a,1", "b,0", header="id,label")
    assert [ref.label for ref in with_labels(find_patches(tmp_path, "TestData", layout="hokkaido"))] == [0]
