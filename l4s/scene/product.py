"""A Sentinel-2 product on disk: which file is which band, and what the metadata say about its numbers."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from l4s.data.bands import L4S_BANDS
from l4s.errors import DataError
from l4s.scene.raster import Scene, open_scene

SPECTRAL = L4S_BANDS[:12]
SUFFIXES = (".jp2", ".tif", ".tiff")
PRODUCT = ("MTD_MSI*.xml", "*_MTD_SAFL1C_*.xml", "*_MTD_SAFL2A_*.xml")  # the latter: products before December 2016
BAND_IDS = ("b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "b8a", "b9", "b10", "b11", "b12")
LARGEST = 2**24  # bytes; metadata of a product are some hundred kB

_BAND = re.compile(r"(?<![A-Z0-9])B(\d{1,2})(A?)(?:_(?:10|20|60)M)?(?![A-Z0-9])")
_TILE = re.compile(r"T\d{2}[A-Z]{3}(?![A-Z0-9])|\d{8}T\d{6}")


@dataclass(frozen=True)
class Metadata:
    """What `path` says: `level` (as `Level-1C`), `baseline` (as `04.00`), and what is added to the numbers of a band."""

    path: Path
    level: str
    baseline: str
    offsets: Mapping[str, float]


@dataclass(frozen=True)
class Product:
    """`sources`: files, each with the `bands` it holds under the release's names; `metadata` where they lie beside."""

    sources: tuple[Scene, ...]
    metadata: Metadata | None

    @property
    def bands(self) -> tuple[str, ...]:
        """All bands, in the order of the sources."""
        return tuple(name for source in self.sources for name in source.bands)

    def source(self, band: str) -> Scene:
        """The file that holds a band."""
        return next(source for source in self.sources if band in source.bands)


def find_product(paths: Sequence[Path], order: Sequence[str] = ()) -> Product:
    """Find the bands b1 to b12 of a product; B8A is left out, as in the release. Reads no pixels.

    Args:
        paths: files of one band each, named as ESA names them (`..._B02.jp2`, `..._B8A_20m.jp2`); or one folder that
            holds them (a .SAFE, its IMG_DATA); or one file of all bands. Of several resolutions the finest is taken.
        order: names of the bands of a file of all bands, in file order, where the file does not say them.

    Raises:
        DataError: a band other than b10 is missing or there twice, files of several products are mixed, or the
            metadata cannot be trusted.
    """
    files = [file for path in paths for file in (_inside(path) if path.is_dir() else [path])]
    stacked = len(files) == 1 and len(open_scene(files[0]).bands) > 1
    if order and not stacked:
        raise DataError(f"--order names the bands of one file that holds them all, but {len(files)} files are given")
    sources = (_stack(files[0], order),) if stacked else _singles(files)
    found = find_metadata([*paths, *(source.path for source in sources)])
    product = Product(sources, read_metadata(found) if found else None)
    if missing := [name for name in SPECTRAL if name not in product.bands and name != "b10"]:
        hint = "; --order says which band is which" if stacked and not order else ""
        raise DataError(f"{paths[0]}{' ...' if len(paths) > 1 else ''} has no band {_listed(missing)}{hint}")
    return product


def band_of(text: str) -> str | None:
    """The band that a file's or a band's name speaks of (`T54TXN_20180910T012651_B8A_20m`: b8a); None: of no band."""
    found = _BAND.findall(text.upper())
    name = f"b{int(found[-1][0])}{found[-1][1].lower()}" if found else ""
    return name if name in BAND_IDS else None


def find_metadata(paths: Iterable[Path]) -> Path | None:
    """The metadata of a product, looked for beside the files named and where a .SAFE folder keeps them.

    Raises:
        DataError: several are found.
    """
    folders = set()
    for path in (path.absolute() for path in paths):
        folders.add(path if path.is_dir() else path.parent)
        folders |= {parent.parent for parent in path.parents if parent.name == "GRANULE"}
    found = sorted({file for folder in folders for pattern in PRODUCT for file in folder.glob(pattern)})
    if len(found) > 1:
        raise DataError(f"{found[0]} and {found[1]} describe two products: give the files of one")
    return found[0] if found else None


def read_metadata(path: Path) -> Metadata:
    """Read the metadata of a product. Nothing in it is executed or fetched, and entities are refused.

    Raises:
        DataError: no XML, a document type is declared, or it says nothing about the numbers.
    """
    texts: dict[str, str] = {}
    offsets: dict[str, float] = {}
    for element in _parse(path).iter():
        name, text = element.tag.rpartition("}")[2], (element.text or "").strip()
        texts.setdefault(name, text)
        if name in ("RADIO_ADD_OFFSET", "BOA_ADD_OFFSET"):
            offsets[_band_id(path, element.get("band_id", ""))] = _number(path, name, text)
    level, baseline = texts.get("PROCESSING_LEVEL", ""), texts.get("PROCESSING_BASELINE", "")
    if not level or not baseline:
        raise DataError(
            f"{path} is not the metadata of a Sentinel-2 product: it states no processing level or baseline"
        )
    _quantified(path, texts)
    if not offsets and _number(path, "PROCESSING_BASELINE", baseline) >= 4:
        raise DataError(f"{path} is of baseline {baseline}, but lists no offset: say it with --offset (-1000 or 0)")
    return Metadata(path, level, baseline, offsets or dict.fromkeys(BAND_IDS, 0.0))


def _quantified(path: Path, texts: Mapping[str, str]) -> None:
    for name in ("QUANTIFICATION_VALUE", "BOA_QUANTIFICATION_VALUE"):
        if texts.get(name) and _number(path, name, texts[name]) != 10_000:
            raise DataError(
                f"{path}: {name} is {texts[name]}, where the release's scale is 10000: rescale the bands first"
            )


def _parse(path: Path) -> ElementTree.Element:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if len(data) > LARGEST:
        raise DataError(f"{path} is larger than {LARGEST >> 20} MiB, which no metadata are")

    def refuse(*_: object) -> None:
        raise DataError(
            f"{path} declares a document type, which no Sentinel-2 metadata do: it could hold entities that expand"
        )

    # a first pass: ElementTree itself would expand what such a document type defines
    guard = expat.ParserCreate()
    guard.StartDoctypeDeclHandler = refuse
    try:
        guard.Parse(data, True)
        return ElementTree.fromstring(data)
    except (expat.ExpatError, ElementTree.ParseError) as error:
        raise DataError(f"{path} is no XML ({error}): download it again, or take it away and use --offset") from error


def _band_id(path: Path, text: str) -> str:
    if not text.isdecimal() or int(text) >= len(BAND_IDS):
        raise DataError(f"{path}: an offset is of band_id {text!r}, where 0 to {len(BAND_IDS) - 1} exist")
    return BAND_IDS[int(text)]


def _number(path: Path, name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{path}: {name} is {text!r}, not a number") from None


def _inside(folder: Path) -> list[Path]:
    """The files of bands in a folder; a product's masks and previews have such names too, so IMG_DATA goes first."""
    images = sorted(path for path in folder.rglob("IMG_DATA") if path.is_dir()) or [folder]
    files = sorted(path for image in images for path in image.rglob("*") if path.suffix.lower() in SUFFIXES)
    bands = [path for path in files if band_of(path.stem) and "QI_DATA" not in path.parts]
    if not bands:
        raise DataError(f"{folder} holds no .jp2 or .tif with a band in its name, as in T54TXN_20180910T012651_B02.jp2")
    return bands


def _singles(files: Sequence[Path]) -> tuple[Scene, ...]:
    candidates: dict[str, list[Scene]] = {}
    for file in files:
        if not (band := band_of(file.stem)):
            raise DataError(f"{file}: the name says no band (as in ..._B02.jp2 or ..._B8A_20m.jp2)")
        if band in SPECTRAL:
            candidates.setdefault(band, []).append(_single(file, band))
    chosen = tuple(_finest(band, candidates[band]) for band in SPECTRAL if band in candidates)
    words = {tuple(_TILE.findall(scene.path.stem)): scene.path for scene in chosen}
    if len(words) > 1:
        one, other, *_ = words.values()
        raise DataError(f"{one} and {other} are of different tiles or times: give the bands of one product")
    return chosen


def _single(file: Path, band: str) -> Scene:
    scene = open_scene(file)
    if len(scene.bands) > 1:
        raise DataError(f"{file} has {len(scene.bands)} bands: give one file for each band, or one file of all of them")
    return replace(scene, bands=(band,))


def _finest(band: str, scenes: Sequence[Scene]) -> Scene:
    scenes = sorted(scenes, key=lambda scene: abs(scene.grid.transform[0]))
    if len(scenes) > 1 and abs(scenes[0].grid.transform[0]) == abs(scenes[1].grid.transform[0]):
        raise DataError(f"{scenes[0].path} and {scenes[1].path} both are {_listed([band])}: give the files of one tile")
    return scenes[0]


def _stack(file: Path, order: Sequence[str]) -> Scene:
    scene = open_scene(file, order=order)
    named = [band_of(name) for name in scene.bands]
    if twice := [band for band in SPECTRAL if named.count(band) > 1]:
        raise DataError(f"{file} has {_listed(twice)} twice: name its bands with --order")
    held = tuple(band for band in SPECTRAL if band in named)
    return replace(scene, bands=held, index=tuple(scene.index[named.index(band)] for band in held))


def _listed(bands: Iterable[str]) -> str:
    """Bands as ESA writes them."""
    return ", ".join(f"B{int(band[1:]):02d}" for band in bands)
