"""Masks of unknown origin: read by the ids in their names, and never beyond their own file."""

import io
import zipfile

import h5py
import numpy as np
import pytest

from l4s.errors import DataError
from l4s.masks import read_masks


def h5_bytes(mask, key="mask"):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file[key] = mask
    return buffer.getvalue()


MASKS = {name: np.random.default_rng(k).integers(0, 2, (8, 6), np.uint8) for k, name in enumerate(("12", "3", "007"))}


def put(root, files, zipped):
    if not zipped:
        root.mkdir()
        for name, content in files.items():
            (root / name).write_bytes(content)
        return root
    with zipfile.ZipFile(root, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return root


@pytest.mark.parametrize("zipped", [False, True])
def test_masks_are_read_by_the_ids_in_their_names(tmp_path, zipped):
    masks = MASKS | {"landslide-7": MASKS["3"]}  # as `submit pack` writes ids that are words
    path = put(tmp_path / "masks", {f"mask_{name}.h5": h5_bytes(mask) for name, mask in masks.items()}, zipped)
    read = read_masks(path)
    assert read.keys() == masks.keys()
    for name, mask in masks.items():
        assert read[name].dtype == np.uint8
        np.testing.assert_array_equal(read[name], mask)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"image_1.h5": h5_bytes(MASKS["3"])}, "image_1.h5.* not called mask_<id>.h5"),
        ({"mask_1.h5": h5_bytes(MASKS["3"], "img")}, "mask_1.h5: no dataset 'mask' .found 'img'"),
        ({"mask_1.h5": h5_bytes(MASKS["3"].astype(float))}, r"found float64 \(8, 6\)"),
        ({"mask_1.h5": h5_bytes(MASKS["3"][None])}, r"found uint8 \(1, 8, 6\)"),
        ({"mask_1.h5": h5_bytes(MASKS["3"])[:300]}, "mask_1.h5 cannot be read as HDF5"),
        ({}, "holds no mask_<id>.h5"),
    ],
)
def test_masks_that_cannot_be_read(tmp_path, files, message, zipped):
    with pytest.raises(DataError, match=message):
        read_masks(put(tmp_path / "masks", files, zipped))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zips_that_cannot_be_read(tmp_path):
    good = h5_bytes(MASKS["3"])
    with pytest.raises(DataError, match=r"map/mask_1\.h5': in a folder, not at the root"):
        read_masks(put(tmp_path / "nested.zip", {"map/mask_1.h5": good}, True))
    with pytest.raises(DataError, match=r"README\.txt'?: foreign member"):
        read_masks(put(tmp_path / "more.zip", {"mask_1.h5": good, "README.txt": b"hello"}, True))
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("mask_1.h5", good)
        archive.writestr("mask_1.h5", good)
    with pytest.raises(DataError, match=r"mask_1\.h5'?: stored more than once"):
        read_masks(tmp_path / "twice.zip")
    whole = put(tmp_path / "whole.zip", {"mask_1.h5": good}, True).read_bytes()
    for name, content in (("cut.zip", whole[:-30]), ("flipped.zip", whole.replace(good[-40:], bytes(39) + b"\x07"))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="no sound zip|broken in the zip"):
            read_masks(tmp_path / name)
    with pytest.raises(DataError, match="gone does not exist"):
        read_masks(tmp_path / "gone")


@pytest.mark.parametrize("zipped", [False, True])
def test_a_mask_that_lies_in_another_file_of_this_machine_is_not_read(tmp_path, zipped):
    (tmp_path / "secret").write_bytes(bytes(48))
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("mask", (8, 6), "u1", external=[(str(tmp_path / "secret"), 0, 48)])
    with pytest.raises(DataError, match="mask_1.h5: dataset 'mask' is stored elsewhere"):
        read_masks(put(tmp_path / "masks", {"mask_1.h5": buffer.getvalue()}, zipped))


def test_a_zip_is_not_inflated_beyond_bounds(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mask_1.h5", bytes(16 * 2**20))
    with pytest.raises(DataError, match="mask_1.h5'?: not read, unpacks to more than 200 times its size"):
        read_masks(tmp_path / "bomb.zip")
