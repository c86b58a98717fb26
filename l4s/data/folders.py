"""Data sets of pictures: the layouts of Bijie (Ji 2020) and of Hokkaido (Lissak 2024), whose files pair by their stems."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from l4s import log
from l4s.data.patch import SPLIT_OF, PatchRef, natural, only_folder, split_folder, tolerated
from l4s.data.pictures import DEM_FOLDER, IMAGES, SUFFIXES, around, is_picture
from l4s.data.splits import FOLDER as LISTS
from l4s.data.splits import SHARES, draw_splits, read_splits, write_splits
from l4s.errors import DataError, RecipeError, did_you_mean

CLASSES = ("landslide", "non-landslide")
IN_CLASS = ("image", "mask", DEM_FOLDER, "polygon_coordinate")  # the last holds outlines as text, which nothing reads
PNG = (".png",)
MASKS = ("mask", "masks", "label", "labels")  # names that Hokkaido's folder of masks may have
DRAWN_SEED = 0  # of the split that is drawn where no lists lie and nobody asks for another


def bijie(root: Path, split: str, seed: int | None) -> tuple[PatchRef, ...] | None:
    """`landslide/{image,mask,dem}` and `non-landslide/{image,dem}`, PNG; a folder doubled around them is tolerated.

    Ids are `landslide-<stem>` and `non-landslide-<stem>`, because stems are unique only in their class; numbers count all
    patches in natural order from 1. Patches of `non-landslide` are background throughout. The release has no split: see
    `bijie_splits`. `.` is all patches.

    Raises:
        DataError: a foreign file or folder, a file without its image, lists that contradict the files, or an empty split.
        RecipeError: a seed is given that draws other splits than those listed.
    """
    folder = bijie_folder(root) if split in SPLIT_OF or Path(split) == Path(".") else None
    if folder is None:
        return None
    every = bijie_patches(folder)
    if split not in SPLIT_OF:
        return every
    splits = bijie_splits(folder, every, seed)
    if left := len(every) - sum(map(len, splits.values())):
        log.warn(f"{left} of {len(every)} patches are left out: no list in {folder / LISTS} names them")
    found = splits[SPLIT_OF[split]]
    if not found:
        raise DataError(_empty(folder, SPLIT_OF[split], len(every)))
    return found


def bijie_folder(root: Path) -> Path | None:
    """The folder that holds the classes: `root`, or the only thing in it; None where neither does."""
    inside = [path for path in sorted(root.iterdir()) if not tolerated(path)] if root.is_dir() else []
    for folder in (root, *(inside if len(inside) == 1 else [])):
        if any((folder / name / "image").is_dir() for name in CLASSES):
            return folder
    return None


def bijie_patches(folder: Path) -> tuple[PatchRef, ...]:
    """All patches below the folder of the classes, in natural order of their ids.

    Raises:
        DataError: a foreign file or folder, a file without its image, or no patch at all.
    """
    _refuse_others([path for path in sorted(folder.iterdir()) if path.is_dir()], (*CLASSES, LISTS))
    refs = [ref for name in CLASSES if (folder / name).is_dir() for ref in _class(folder / name)]
    return _numbered(refs, folder)


def bijie_splits(folder: Path, every: Sequence[PatchRef], seed: int | None = None) -> dict[str, tuple[PatchRef, ...]]:
    """The patches of train, validation and test, each of which may be empty.

    Args:
        folder: the folder of the classes. Lists in its `splits/` are honoured; without any, splits are drawn by class.
        every: all patches of the folder.
        seed: of the draw; None where nobody asked for one, and lists may say anything.

    Raises:
        DataError: lists contradict the files. RecipeError: `seed` draws other splits than those listed.
    """
    drawn = draw_splits(by_class(every), seed=DRAWN_SEED if seed is None else seed)
    listed = read_splits(folder, [ref.id for ref in every])
    if listed and seed is not None and any(set(listed[name]) != set(ids) for name, ids in drawn.items()):
        raise RecipeError(f"split_seed = {seed} draws other splits than {folder / LISTS} lists: leave it out")
    inside = {name: set(ids) for name, ids in (listed or drawn).items()}
    return {name: tuple(ref for ref in every if ref.id in ids) for name, ids in inside.items()}


def _empty(folder: Path, split: str, count: int) -> str:
    path = folder / LISTS / f"{split}.txt"
    if path.is_file():
        return f"{path} lists none of the {count} patches: list some, or remove {path.parent} to draw splits"
    return (
        f"{folder} has {count} patches, of which none is in split {split!r}: too few to draw from. Add some, or list those of "
        f"each split in {path.parent}"
    )


def _refuse_others(found: Sequence[Path], known: Sequence[str]) -> None:
    """A folder of another name may be a class, or the pictures of one, whose name is misspelt."""
    for path in found:
        if path.name not in known and not tolerated(path):
            raise DataError(
                f"{path} is no part of the layout 'bijie'{did_you_mean(path.name, known)}; rename it or move it away, so "
                "that nothing is skipped silently"
            )


def _class(folder: Path) -> list[PatchRef]:
    _refuse_others(sorted(folder.iterdir()), IN_CLASS)
    if not (folder / "image").is_dir():
        raise DataError(
            f"{folder} has no folder image: put the pictures of the class there, or move {folder.name} away"
        )
    masks = folder / "mask"
    background = folder.name == CLASSES[1]
    if background and masks.is_dir():
        raise DataError(f"{masks} is there, but patches of {folder.name} are background throughout: move it away")
    images = _files(folder / "image", PNG)
    truth = _files(masks, PNG) if masks.is_dir() else {}
    return _pair(images, truth, _dems(folder / "image"), f"{folder.name}-", background)


def hokkaido(root: Path, split: str, _: int | None = None) -> tuple[PatchRef, ...] | None:
    """`train|validation|valid|val|test`, or another folder, each with `image|images|img`, and perhaps masks and `dem`.

    Or a folder that holds pictures openly: called `image|images|img`, its masks and DEMs lie beside it; called anything
    else, in it. PNG or TIFF; ids are stems, numbers count them in natural order from 1.

    Raises:
        DataError: a foreign file, a file without its image, or two folders or files for the same.
    """
    folder = split_folder(root, "hokkaido", split) or root / split
    images = picture_folder(folder) if folder.is_dir() else None
    if images is None:
        return None
    masks = only_folder(around(images), MASKS)
    inside = (*MASKS, DEM_FOLDER) if around(images) == images else ()
    refs = _pair(_files(images, SUFFIXES, inside), _files(masks, SUFFIXES) if masks else {}, _dems(images))
    return _numbered(refs, images)


def picture_folder(folder: Path) -> Path | None:
    """The folder of a split's pictures: one called `image`, `images` or `img`, or itself; None where neither holds any."""
    images = only_folder(folder, IMAGES)
    if images is None:
        return folder if _lie_openly(folder) else None
    return images if holds_pictures(images) else None


def _lie_openly(folder: Path) -> bool:
    """Does a folder hold pictures itself? One with other folders holds something else, and a picture by the way."""
    others = [path for path in folder.iterdir() if path.is_dir() and not tolerated(path)]
    return holds_pictures(folder) and all(path.name in (*MASKS, DEM_FOLDER) for path in others)


def picture_layout(root: Path) -> str | None:
    """`bijie` or `hokkaido` where `root` or a folder right below it holds pictures like that; else None."""
    for folder in (root, *(path for path in sorted(root.iterdir()) if path.is_dir() and not tolerated(path))):
        if bijie_folder(folder):
            return "bijie"
        images = only_folder(folder, IMAGES)
        if images and holds_pictures(images):
            return "hokkaido"
    return None


def holds_pictures(folder: Path) -> bool:
    """Does a folder hold pictures, and no patches of HDF5?"""
    names = [path for path in folder.iterdir() if not tolerated(path)]
    return any(map(is_picture, names)) and not any(path.suffix.lower() == ".h5" for path in names)


def save_splits(root: Path, *, shares: Sequence[int] = SHARES, seed: int = 0) -> tuple[Path, dict[str, list[str]]]:
    """Draw the splits of a data set in Bijie's layout, and save them as `splits/{train,validation,test}.txt`.

    Returns:
        The folder of the lists, and the ids of each split in natural order.

    Raises:
        DataError: `root` is no such data set, or other lists lie there. RecipeError: the shares mean nothing.
    """
    folder = bijie_folder(root)
    if folder is None:
        raise DataError(
            f"{root} is no data set in the layout 'bijie', which alone comes without splits: looked for "
            f"{' and '.join(f'{name}/image' for name in CLASSES)}"
        )
    drawn = draw_splits(by_class(bijie_patches(folder)), seed=seed, shares=shares)
    ordered = {name: sorted(ids, key=natural) for name, ids in drawn.items()}
    return write_splits(folder, ordered), ordered


def by_class(patches: Sequence[PatchRef]) -> list[list[str]]:
    """The ids of patches with landslides, and of those without."""
    return [[ref.id for ref in patches if ref.background is background] for background in (False, True)]


def _files(folder: Path, suffixes: Sequence[str], folders: Sequence[str] = ()) -> dict[str, Path]:
    """The files of a folder by their stems; `folders` may lie among them."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if tolerated(path) or path.name in folders:
            continue
        if path.suffix.lower() not in suffixes or not path.is_file():
            raise DataError(f"{path} is no {' or '.join(suffixes)}: move it away, so that nothing is skipped silently")
        other = found.setdefault(path.stem, path)
        if other is not path:
            raise DataError(f"{other} and {path.name} have the same stem: keep one of them")
    return found


def _dems(images: Path) -> dict[str, Path]:
    dems = around(images) / DEM_FOLDER
    return _files(dems, SUFFIXES) if dems.is_dir() else {}


def _pair(
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    dems: Mapping[str, Path],
    prefix: str = "",
    background: bool = False,
) -> list[PatchRef]:
    for kind, files in (("mask", masks), ("DEM", dems)):
        if lost := sorted(files.keys() - images.keys()):
            more = f" (and {len(lost) - 1} more)" if lost[1:] else ""
            raise DataError(f"{files[lost[0]]}{more} has no image of its stem: add the image or remove the {kind}")
    return [
        PatchRef(f"{prefix}{stem}", 0, path, masks.get(stem), dem=dems.get(stem), background=background)
        for stem, path in images.items()
    ]


def _numbered(refs: Sequence[PatchRef], folder: Path) -> tuple[PatchRef, ...]:
    if not refs:
        raise DataError(f"{folder} holds no pictures: unpack them there, or change `split` or `root` (--data)")
    ordered = sorted(refs, key=lambda ref: natural(ref.id))
    return tuple(replace(ref, number=number) for number, ref in enumerate(ordered, 1))
