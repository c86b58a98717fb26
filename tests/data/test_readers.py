"""Layouts, pairing and arrays of patches on disk, on small generated files."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from l4s.data.bands import Bands
from l4s.data.patch import PatchRef
from l4s.data.readers import READERS, find_patches, image_shape, read_image, read_mask
from l4s.errors import DataError, RecipeError

RGB = Bands(file=("b4", "b3", "b2"))
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
REGIONS = {"taiwan": (1, 3018), "iburi": (3037, 3184), "gorkha": (3197, 3306), "kodagu": (3322, 3629)}


def write(path: Path, array: np.ndarray, key: str = "img") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[key] = array
    return path


def fill(images: Path, masks: Path | None = None, ids: tuple[int, ...] = (10, 2, 1)) -> None:
    for number in ids:
        write(images / f"image_{number}.h5", np.full((2, 2, 3), float(number)))
        if masks is not None:
            write(masks / f"mask_{number}.h5", np.full((2, 2), number % 2, np.uint8), "mask")


def image_ref(path: Path) -> PatchRef:
    return PatchRef("1", 1, path, None)


def mask_ref(path: Path) -> PatchRef:
    return PatchRef("1", 1, path.with_name("image_1.h5"), path)


def ids(refs: tuple[PatchRef, ...]) -> list[int]:
    return [ref.number for ref in refs]


LAYOUTS = [
    ("official", "train", "TrainData/img", "TrainData/mask"),
    ("official", "validation", "ValidData/img", "ValidData/mask"),
    ("official", "test", "TestData/img", "TestData/mask"),
    ("huggingface", "train", "images/train", "annotations/train"),
    ("huggingface", "validation", "images/validation", "annotations/validation"),
    ("huggingface", "test", "images/test", "annotations/test"),
    ("split-folders", "train", "train/images", "train/masks"),
    ("split-folders", "validation", "val/img", "val/mask"),
    ("split-folders", "validation", "valid/images", "valid/annotations"),
    ("split-folders", "validation", "validation/img", "validation/masks"),
    ("split-folders", "test", "test/images", "test/annotations"),
    ("flat", ".", ".", "."),
    ("flat", ".", ".", "masks"),
    ("flat", "img", "img", "mask"),
    ("flat", "site", "site/img", "site/mask"),
    ("flat", "a/b", "a/b", "a/b"),
]


def test_every_layout_is_tried_here() -> None:
    assert {layout for layout, *_ in LAYOUTS} | {"bijie", "hokkaido"} == set(READERS)  # pictures: test_folders


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize(("layout", "split", "images", "masks"), LAYOUTS)
def test_layout(tmp_path: Path, layout: str, split: str, images: str, masks: str, explicit: bool) -> None:
    fill(tmp_path / images, tmp_path / masks)
    refs = find_patches(tmp_path, split, layout=layout if explicit else "auto")
    assert [(ref.id, ref.number, ref.region) for ref in refs] == [("1", 1, ""), ("2", 2, ""), ("10", 10, "")]
    for ref in refs:
        assert read_image(ref, RGB)[0, 0, 0] == ref.number
        assert read_mask(ref)[0, 0] == ref.number % 2


@pytest.mark.parametrize(("layout", "split", "images", "masks"), LAYOUTS)
def test_layout_without_masks(tmp_path: Path, layout: str, split: str, images: str, masks: str) -> None:
    fill(tmp_path / images)
    refs = find_patches(tmp_path, split, layout=layout)
    assert ids(refs) == [1, 2, 10]
    assert all(ref.mask is None for ref in refs)


def test_some_masks_missing(tmp_path: Path) -> None:
    fill(tmp_path / "TrainData/img", tmp_path / "TrainData/mask")
    (tmp_path / "TrainData/mask/mask_2.h5").unlink()
    refs = find_patches(tmp_path, "train")
    assert [ref.mask and ref.mask.name for ref in refs] == ["mask_1.h5", None, "mask_10.h5"]
    with pytest.raises(DataError, match="patch 2 has no mask"):
        read_mask(refs[1])


def test_pairs_by_integer_and_keeps_the_id_as_written(tmp_path: Path) -> None:
    write(tmp_path / "image_007.h5", np.zeros((2, 2, 3)))
    write(tmp_path / "image_12.h5", np.zeros((2, 2, 3)))
    write(tmp_path / "mask_7.h5", np.zeros((2, 2)), "mask")
    refs = find_patches(tmp_path, ".")
    assert [(ref.id, ref.number, ref.mask and ref.mask.name) for ref in refs] == [
        ("007", 7, "mask_7.h5"),
        ("12", 12, None),
    ]


@pytest.mark.parametrize("split", ["validation", "ValidData", "valid", "val"])
@pytest.mark.parametrize("images", ["ValidData/img", "images/validation", "valid/images"])
def test_aliases(tmp_path: Path, split: str, images: str) -> None:
    fill(tmp_path / images)
    fill(tmp_path / "TrainData/img", ids=(5,))
    assert ids(find_patches(tmp_path, split)) == [1, 2, 10]


def test_folder_of_a_split_may_be_flat(tmp_path: Path) -> None:
    fill(tmp_path / "ValidData", tmp_path / "ValidData")
    assert ids(find_patches(tmp_path, "ValidData")) == [1, 2, 10]
    fill(tmp_path / "train", ids=(4,))
    assert ids(find_patches(tmp_path, "train")) == [4]


def test_root_is_never_a_named_split_unless_flat_is_asked_for(tmp_path: Path) -> None:
    fill(tmp_path)
    with pytest.raises(DataError, match=r"'\.' is .* itself"):
        find_patches(tmp_path, "train")
    assert ids(find_patches(tmp_path, "train", layout="flat")) == [1, 2, 10]


def test_masks_of_a_neighbour_are_not_taken(tmp_path: Path) -> None:
    fill(tmp_path / "site_a")
    fill(tmp_path / "site_b", tmp_path / "mask")
    assert all(ref.mask is None for ref in find_patches(tmp_path, "site_a"))


def test_one_outer_folder(tmp_path: Path) -> None:
    fill(tmp_path / "landslide4sense/TrainData/img")
    (tmp_path / "__MACOSX/TrainData/img").mkdir(parents=True)
    (tmp_path / "notes.txt").touch()
    assert ids(find_patches(tmp_path, "train")) == [1, 2, 10]
    assert ids(find_patches(tmp_path, "TrainData")) == [1, 2, 10]
    fill(tmp_path / "copy/TrainData/img")
    with pytest.raises(DataError, match="several folders: copy, landslide4sense"):
        find_patches(tmp_path, "train")


def test_root_wins_over_an_outer_folder(tmp_path: Path) -> None:
    fill(tmp_path / "TrainData/img", ids=(3,))
    fill(tmp_path / "old/TrainData/img")
    assert ids(find_patches(tmp_path, "train")) == [3]


def test_dot_is_not_a_folder_below(tmp_path: Path) -> None:
    fill(tmp_path / "TrainData/img")
    with pytest.raises(DataError, match="no patches of split '.'"):
        find_patches(tmp_path, ".")
    with pytest.raises(DataError, match="no patches of split 'test'"):
        find_patches(tmp_path, "test", layout="flat")


def test_several_layouts(tmp_path: Path) -> None:
    fill(tmp_path / "TrainData/img", ids=(1,))
    fill(tmp_path / "images/train", ids=(2,))
    with pytest.raises(DataError, match="set `layout` to official or huggingface"):
        find_patches(tmp_path, "train")
    assert ids(find_patches(tmp_path, "train", layout="huggingface")) == [2]
    assert ids(find_patches(tmp_path, "TrainData")) == [1]


def test_two_folders_of_one_meaning(tmp_path: Path) -> None:
    fill(tmp_path / "valid/img")
    fill(tmp_path / "val/img")
    with pytest.raises(DataError, match="valid and val"):
        find_patches(tmp_path, "validation")
    assert ids(find_patches(tmp_path, "val")) == [1, 2, 10]


def test_masks_in_two_places(tmp_path: Path) -> None:
    fill(tmp_path, tmp_path)
    fill(tmp_path, tmp_path / "mask")
    with pytest.raises(DataError, match="several places"):
        find_patches(tmp_path, ".")


def test_nothing_found_says_where_and_what(tmp_path: Path) -> None:
    (tmp_path / "Pictures").mkdir()
    (tmp_path / "readme.txt").touch()
    with pytest.raises(DataError) as caught:
        find_patches(tmp_path, "validation")
    for part in (str(tmp_path), "ValidData/img", "images/validation", "valid/img", "Pictures/", "readme.txt", "`root`"):
        assert part in str(caught.value)


def test_nothing_found_in_a_layout_without_that_split(tmp_path: Path) -> None:
    fill(tmp_path / "site/img")
    with pytest.raises(DataError, match="train, validation and test, the splits that layout 'official' has"):
        find_patches(tmp_path, "site", layout="official")


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'offical' is unknown; choose auto, official"):
        find_patches(tmp_path, "train", layout="offical")
    with pytest.raises(RecipeError, match="is absolute"):
        find_patches(tmp_path, str(tmp_path / "x"))
    with pytest.raises(DataError, match=r"missing does not exist.*--data"):
        find_patches(tmp_path / "missing", "train")


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "TestData/img").mkdir(parents=True)
    with pytest.raises(DataError, match=r"TestData.img holds no image_N\.h5"):
        find_patches(tmp_path, "test")


@pytest.mark.parametrize("name", [".DS_Store", "._image_1.h5", "Thumbs.db", "__MACOSX", ".hidden"])
def test_tolerated_files(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "TrainData/img", tmp_path / "TrainData/mask")
    for folder in ("img", "mask"):
        (tmp_path / "TrainData" / folder / name).touch()
    assert ids(find_patches(tmp_path, "train")) == [1, 2, 10]


@pytest.mark.parametrize(
    "name", ["img/image_3.tif", "img/image_3 (1).h5", "img/mask_3.h5", "img/sub", "mask/image_3.h5"]
)
def test_foreign_files(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "TrainData/img", tmp_path / "TrainData/mask")
    (tmp_path / "TrainData" / name).touch()
    with pytest.raises(DataError) as caught:
        find_patches(tmp_path, "train")
    assert Path(name).name in str(caught.value)


@pytest.mark.parametrize(("images", "masks"), [("TrainData/img", "TrainData/mask"), ("train", "train")])
def test_duplicate_ids_and_lost_masks(tmp_path: Path, images: str, masks: str) -> None:
    fill(tmp_path / images, tmp_path / masks)
    extra = write(tmp_path / images / "image_02.h5", np.zeros((2, 2, 3)))
    with pytest.raises(DataError, match=r"image_02\.h5 and image_2\.h5 have the same id 2"):
        find_patches(tmp_path, "train")
    extra.unlink()
    write(tmp_path / masks / "mask_77.h5", np.zeros((2, 2)), "mask")
    with pytest.raises(DataError, match=r"mask_77\.h5 has no image_77\.h5"):
        find_patches(tmp_path, "train")


def test_regions(tmp_path: Path) -> None:
    fill(tmp_path, ids=(1, 2, 3, 10))
    refs = find_patches(tmp_path, ".", regions={"east": (3, 10), "west": (1, 2), "unused": (11, 12)})
    assert [ref.region for ref in refs] == ["west", "west", "east", "east"]
    with pytest.raises(DataError, match=r"'west' and 'east' both hold id 2"):
        find_patches(tmp_path, ".", regions={"east": (2, 10), "west": (1, 2)})
    with pytest.raises(DataError, match=r"id 10 .* none of the regions west"):
        find_patches(tmp_path, ".", regions={"west": (1, 9)})
    with pytest.raises(DataError, match=r"'west' ends before it begins: 9 to 1"):
        find_patches(tmp_path, ".", regions={"west": (9, 1)})


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "uint8", "int16", "uint16", "int64"])
def test_image_bands_last_and_first(tmp_path: Path, dtype: str) -> None:
    bands = Bands(file=("a", "b", "slope"), use=("slope", "a"))
    values = np.arange(2 * 5 * 3).reshape(2, 5, 3).astype(dtype)  # value = row * 15 + column * 3 + band
    last = image_ref(write(tmp_path / "image_1.h5", values))
    first = image_ref(write(tmp_path / "image_2.h5", np.moveaxis(values, 2, 0)))
    for ref in (last, first):
        image = read_image(ref, bands)
        assert image.dtype == np.float32 and image.shape == (2, 2, 5) and image.flags["C_CONTIGUOUS"]
        assert image[0, 1, 2] == 15 + 6 + 2 and image[1, 1, 2] == 15 + 6 + 0
        assert image_shape(ref, bands) == (2, 5)


def test_image_where_both_ends_fit_is_bands_last(tmp_path: Path) -> None:
    values = np.arange(3 * 4 * 3).reshape(3, 4, 3)
    ref = image_ref(write(tmp_path / "image_1.h5", values))
    assert image_shape(ref, RGB) == (3, 4)
    np.testing.assert_array_equal(read_image(ref, RGB)[2], values[:, :, 2])


def test_image_keeps_nan_and_refuses_infinity(tmp_path: Path) -> None:
    values = np.zeros((2, 2, 3))
    values[0, 1, 2] = np.nan
    path = write(tmp_path / "image_1.h5", values)
    assert np.argwhere(np.isnan(read_image(image_ref(path), RGB))).tolist() == [[2, 0, 1]]
    for bad in (np.inf, -np.inf, 1e39):
        values[1, 1, 1] = bad
        write(path, values)
        with pytest.raises(DataError, match=r"image_1\.h5 is infinite in float32 in b3;"):
            read_image(image_ref(path), RGB)


def test_wrong_key(tmp_path: Path) -> None:
    path = write(tmp_path / "image_1.h5", np.zeros((2, 2, 3)), "image")
    for call in (lambda: read_image(image_ref(path), RGB), lambda: image_shape(image_ref(path), RGB)):
        with pytest.raises(DataError, match=r"image_1\.h5 has no array 'img'; its keys are image"):
            call()
    with h5py.File(path, "w") as file:
        file.create_group("img/deeper")
    with pytest.raises(DataError, match="no array 'img'"):
        read_image(image_ref(path), RGB)
    with pytest.raises(DataError, match="no array 'mask'"):
        read_mask(mask_ref(path))


@pytest.mark.parametrize("shape", [(4, 5, 14), (14, 4, 5), (4, 3, 5), (4, 5), (1, 4, 5, 3), ()])
def test_wrong_band_count(tmp_path: Path, shape: tuple[int, ...]) -> None:
    ref = image_ref(write(tmp_path / "image_1.h5", np.zeros(shape)))
    for function in (read_image, image_shape):
        with pytest.raises(DataError) as caught:
            function(ref, RGB)
        assert str(shape) in str(caught.value) and "b4, b3, b2" in str(caught.value)


@pytest.mark.parametrize("values", [np.zeros((2, 2, 3), bool), np.full((2, 2, 3), b"x"), np.zeros((2, 2, 3), complex)])
def test_image_of_another_type(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(DataError, match="store integers or floats"):
        read_image(image_ref(write(tmp_path / "image_1.h5", values)), RGB)


def test_broken_files(tmp_path: Path) -> None:
    path = write(tmp_path / "image_1.h5", np.ones((8, 8, 3)))
    whole = path.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"image_1\.h5 cannot be read"):
            read_image(image_ref(path), RGB)
    path.unlink()
    with pytest.raises(DataError, match=r"image_1\.h5 cannot be read"):
        image_shape(image_ref(path), RGB)


def test_damaged_bytes_are_a_data_error_or_readable(tmp_path: Path) -> None:
    path = write(tmp_path / "image_1.h5", np.ones((2, 2, 3)))
    whole = path.read_bytes()
    refused = 0
    for at in range(0, len(whole), 5):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            read_image(image_ref(path), RGB)
        except DataError as error:
            refused += 1
            assert "image_1.h5" in str(error)
    assert refused > 10


def test_no_handle_stays_open(tmp_path: Path) -> None:
    path = write(tmp_path / "image_1.h5", np.ones((2, 2, 3)))
    read_image(image_ref(path), RGB)
    image_shape(image_ref(path), RGB)
    write(path, np.zeros((2, 2, 3)))  # HDF5 refuses to truncate a file that is open
    assert read_image(image_ref(path), RGB).sum() == 0


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (1, 2, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float64"])
def test_mask(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    values = np.array([[0, 1, 255], [1, 0, 0]]).astype(dtype).reshape(shape)
    mask = read_mask(mask_ref(write(tmp_path / "mask_1.h5", values, "mask")))
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[0, 1, 255], [1, 0, 0]]


def test_mask_values(tmp_path: Path) -> None:
    ref = mask_ref(write(tmp_path / "mask_1.h5", np.array([[0, 255, 3], [-1, 1, 0]], np.int16), "mask"))
    with pytest.raises(DataError, match=r"mask_1\.h5 holds -1, 3, beside .*`positive` or `ignore`"):
        read_mask(ref)
    assert read_mask(ref, (1, 255), (3, -1)).tolist() == [[0, 1, 255], [255, 1, 0]]
    assert read_mask(ref, (1, 3, -1, 255), ()).tolist() == [[0, 1, 1], [1, 1, 0]]


def test_mask_of_truth_values_and_nan(tmp_path: Path) -> None:
    ref = mask_ref(write(tmp_path / "mask_1.h5", np.array([[True, False]]), "mask"))
    assert read_mask(ref).tolist() == [[1, 0]]
    write(tmp_path / "mask_1.h5", np.array([[0.5, np.nan]]), "mask")
    with pytest.raises(DataError, match=r"holds 0\.5, nan"):
        read_mask(ref)
    write(tmp_path / "mask_1.h5", np.full((2, 2), b"1"), "mask")
    with pytest.raises(DataError, match="store integers"):
        read_mask(ref)


@pytest.mark.parametrize(("positive", "ignore"), [((1, 255), (255,)), ((0, 1), ()), ((1,), (0,))])
def test_mask_value_with_two_meanings(tmp_path: Path, positive: tuple[int, ...], ignore: tuple[int, ...]) -> None:
    ref = mask_ref(write(tmp_path / "mask_1.h5", np.zeros((2, 2), np.uint8), "mask"))
    with pytest.raises(RecipeError, match="two meanings"):
        read_mask(ref, positive, ignore)


@pytest.mark.parametrize("shape", [(2, 3, 2), (4,), (1, 1, 2, 2)])
def test_mask_of_another_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="is needed"):
        read_mask(mask_ref(write(tmp_path / "mask_1.h5", np.zeros(shape, np.uint8), "mask")))


@pytest.mark.skipif(not (SHARED / "l4s_14band").is_dir(), reason="the real data are not on this machine")
def test_real_14_band_files() -> None:
    refs = find_patches(SHARED / "l4s_14band", ".")
    assert ids(refs) == [31, 37, 901, 902, 903, 904]
    for ref in refs:
        assert image_shape(ref, Bands()) == (128, 128) and ref.mask is None
        image = read_image(ref, Bands(use=("dem", "b1")))
        with h5py.File(ref.image) as file:
            np.testing.assert_array_equal(image, np.stack([file["img"][..., 13], file["img"][..., 0]]).astype("f4"))


@pytest.mark.skipif(not (SHARED / "l4s_rgb.npz").is_file(), reason="the real data are not on this machine")
def test_real_ids_fall_into_their_regions(tmp_path: Path) -> None:
    with np.load(SHARED / "l4s_rgb.npz") as data:
        truth = dict(zip(data["official_id"].tolist(), data["region"].tolist(), strict=True))
    for number in truth:
        (tmp_path / f"image_{number}.h5").touch()
    refs = find_patches(tmp_path, ".", regions=REGIONS)
    assert {ref.number: ref.region for ref in refs} == truth


def test_an_array_that_only_promises_its_pixels(tmp_path: Path) -> None:
    path = tmp_path / "image_1.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("img", (400_000, 400_000, 3), "f8")  # a kilobyte on disk
    with pytest.raises(DataError, match=r"image_1\.h5 has shape \(400000, 400000, 3\) under 'img', 3576 GiB"):
        read_image(image_ref(path), RGB)


@pytest.mark.parametrize("key", ["img", "mask"])
def test_an_array_without_shape(tmp_path: Path, key: str) -> None:
    path = tmp_path / "image_1.h5"
    with h5py.File(path, "w") as file:
        file[key] = h5py.Empty("u1")
    with pytest.raises(DataError, match=f"image_1.h5 has no array '{key}'"):
        read_image(image_ref(path), RGB) if key == "img" else read_mask(mask_ref(path))
