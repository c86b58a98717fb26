"""The competition's zip: write it with the same bytes every time, and prove it before it is uploaded.

The format (Landslide4Sense 2022): `mask_<id>.h5` for every image, at the root of the zip, each holding one
dataset `mask` of uint8 {0, 1} in the image's shape (128, 128), contiguous and without compression.
"""

import hashlib
import io
import json
import math
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import h5py
import numpy as np

from l4s import log
from l4s.data.patch import natural
from l4s.data.probs import ProbFile
from l4s.errors import DataError
from l4s.files import write_atomic, write_json
from l4s.postprocess import masks

KEY = "mask"
SAFE_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]*")
MEMBER_NAME = re.compile(rf"mask_({SAFE_ID.pattern})\.h5")
DROPPINGS = {".DS_Store": "macOS", "Thumbs.db": "Windows", "desktop.ini": "Windows"}

MIB = 2**20
MAX_MEMBER, MAX_TOTAL = 64 * MIB, 1024 * MIB  # all 800 test masks take 14 MiB
MAX_RATIO, RATIO_FROM = 200, 4 * MIB  # a blank 128 x 128 mask shrinks 82:1; small members cannot hurt at any ratio
MUCH_POSITIVE, MANY_ALIKE = 0.2, 0.5
NAMES_SHOWN = 5
CLOCK = re.compile(r"\d{2}:\d{2}:\d{2}|\d{4}-\d{2}-\d{2}[T ]\d{2}")
NAMES = ("recipe", "run", "set")  # facts in somebody's own words, whatever they say

# What zipfile and h5py raise on broken bytes. RuntimeError covers NotImplementedError, ValueError covers bad Unicode.
BROKEN_ZIP = (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, OverflowError, struct.error, zlib.error)
BROKEN_HDF5 = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError)


@dataclass(frozen=True)
class CheckReport:
    """What `check` found: errors lose the upload, warnings are worth a look.

    `patches` counts the sound masks; `positive_share` in [0, 1] is over all pixels of these.
    """

    errors: list[str]
    warnings: list[str]
    patches: int
    positive_share: float

    @property
    def ok(self) -> bool:
        return not self.errors


@dataclass(frozen=True)
class SubmissionCard:
    """Where a submission comes from: the zip's digest, how its masks were cut, the facts of the run that made it."""

    name: str
    sha256: str
    patches: int
    shape: tuple[int, int]
    threshold: float
    min_area: int
    positive_share: float
    member: str
    fingerprint: str
    domain: str
    tta: str
    facts: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "shape": list(self.shape)}


def submit(
    probs: ProbFile, out: Path, *, threshold: float, min_area: int = 0, facts: Mapping[str, Any]
) -> SubmissionCard:
    """Cut masks from a ProbFile, pack them as `out` (a .zip), check it, and write the card `<name>.json` beside it.

    `facts` are JSON values (run, recipe, round, members, local scores); the card holds no absolute path and no time of day,
    so that equal probabilities give equal bytes. Until the check has passed, `out` is not touched.

    Raises DataError when the zip fails its check, the facts are not fit for a card, or another file stands where the card
    goes; RecipeError for a threshold or an area that cannot mean anything.
    """
    if out.suffix != ".zip":
        raise DataError(f"a submission is a .zip, and its card stands beside it: rename {out.name!r}")
    beside = out.with_suffix(".json")
    if beside.exists():
        read_card(beside)  # somebody else's file is not written over
    plain = {key: _plain(value, key) for key, value in facts.items()}
    data = _zip_bytes(masks(probs, threshold, min_area))
    height, width = probs.shapes[0]
    report = _check(io.BytesIO(data), out.name, probs.ids, (height, width))
    if not report.ok:
        raise DataError(f"{out.name} failed its own check and was not written: " + "; ".join(report.errors))
    card = SubmissionCard(
        name=out.stem,
        sha256=hashlib.sha256(data).hexdigest(),
        patches=report.patches,
        shape=(height, width),
        threshold=threshold,
        min_area=min_area,
        positive_share=report.positive_share,
        member=probs.member,
        fingerprint=probs.fingerprint,
        domain=probs.domain,
        tta=probs.tta,
        facts=plain,
    )
    for warning in report.warnings:
        log.warn(f"{out.name}: {warning}")
    write_atomic(out, data)
    write_json(beside, card.as_dict())
    return card


def read_card(path: Path) -> SubmissionCard:
    """Read the card of a submission. Raises DataError when the file is not one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} is not a readable submission card: {error}") from error
    expected = {field.name for field in fields(SubmissionCard)}
    if not isinstance(values, dict) or set(values) != expected:
        found = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise DataError(f"{path.name} is not a submission card: it holds {found}, a card holds {sorted(expected)}")
    return SubmissionCard(**{**values, "shape": tuple(values["shape"])})


def pack(masks: Iterable[tuple[str, np.ndarray]], out: Path) -> None:
    """Write (id, mask (H, W) uint8 in {0, 1}) pairs as the competition's flat zip, in natural order of the ids.

    Equal masks give equal bytes (with the same HDF5 and zlib): no dates, no user, no machine. The file
    appears when it is whole.

    Raises DataError for an unsafe or repeated id, a mask of another dtype, rank or value, and for no masks at all.
    """
    write_atomic(out, _zip_bytes(masks))


def check(zip: Path, ids: Sequence[str] | None = None, shape: tuple[int, ...] | None = (128, 128)) -> CheckReport:
    """Prove that a zip is a submission: flat, complete for `ids`, every mask (H, W) uint8 in {0, 1} of `shape`.

    `ids` or `shape` None skips that proof. Made for zips of unknown origin: nothing is extracted to disk, sizes are
    bounded before anything is inflated, and whatever is broken becomes an error in the report, never an exception.
    """
    return _check(zip, zip.name, ids, shape)


def read_members(zip: Path) -> Iterator[tuple[str, bytes]]:
    """The masks in a zip of unknown origin, name and content, one by one: nothing on disk, and bounded before it is inflated.

    Raises:
        DataError: it is no zip, or holds something that `check` would call an error of the zip or of a name.
    """
    faults: dict[str, list[str]] = defaultdict(list)
    try:
        with zipfile.ZipFile(zip) as archive:
            readable = _readable(_members(archive, faults), faults)
            for fault, names in faults.items():
                raise DataError(f"{zip}: {_listed(names)}: {fault}")
            for name, info in readable.items():
                yield name, _inflate(archive, info)
    except DataError:
        raise
    except BROKEN_ZIP as error:
        raise DataError(f"{zip} is no sound zip ({error}); pack or download it again") from error


def _check(zip: Path | io.BytesIO, name: str, ids: Sequence[str] | None, shape: tuple[int, ...] | None) -> CheckReport:
    faults: dict[str, list[str]] = defaultdict(list)
    sound: list[np.ndarray] = []
    try:
        with zipfile.ZipFile(zip) as archive:
            members = _members(archive, faults)
            for member, info in _readable(members, faults).items():
                try:
                    sound.append(_decode(_inflate(archive, info), shape))
                except DataError as fault:
                    faults[str(fault)].append(member)
    except BROKEN_ZIP as error:
        return CheckReport([f"{name} is not a readable zip: {error}"], [], 0, 0.0)
    errors = [f"{fault}: {_listed(names)}" for fault, names in faults.items()]
    errors += _id_errors([member[len("mask_") : -len(".h5")] for member in members], ids)
    pixels = sum(mask.size for mask in sound)
    share = sum(int(mask.sum()) for mask in sound) / pixels if pixels else 0.0
    return CheckReport(errors, _warnings(sound, share), len(sound), share)


def _zip_bytes(masks: Iterable[tuple[str, np.ndarray]]) -> bytes:
    encoded: dict[str, bytes] = {}
    for id, mask in masks:
        if not SAFE_ID.fullmatch(id) or id in encoded:
            reason = "given twice" if id in encoded else "not a name made of letters, digits, '_', '.' and '-'"
            raise DataError(f"patch id {id!r} is {reason}: every mask needs its own plain id")
        encoded[id] = _encode(id, mask)
    if not encoded:
        raise DataError("no masks to pack: a submission needs one for every image")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for id in sorted(encoded, key=natural):
            info = zipfile.ZipInfo(f"mask_{id}.h5", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, encoded[id], compress_type=zipfile.ZIP_DEFLATED, compresslevel=9)
    return buffer.getvalue()


def _encode(id: str, mask: np.ndarray) -> bytes:
    """Return the HDF5 file of one mask, made in memory, in the oldest file format because every reader knows it."""
    if mask.dtype != np.uint8 or mask.ndim != 2 or mask.size == 0 or mask.max() > 1:
        values = np.unique(mask)[:NAMES_SHOWN].tolist()
        raise DataError(
            f"mask {id!r} is {mask.dtype} of shape {mask.shape} with values {values}: give (H, W) uint8 of 0 and 1"
        )
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("earliest", "v108"), track_order=False) as file:
        file.create_dataset(KEY, data=mask, track_times=False)
    return buffer.getvalue()


def _members(archive: zipfile.ZipFile, faults: dict[str, list[str]]) -> dict[str, zipfile.ZipInfo]:
    """Return the members that are masks by their name; name all others in `faults`."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        # zipfile cuts a name at its first NUL: only the original is what other unpackers see.
        name = info.orig_filename
        fault = _name_fault(name) or ("stored more than once" if name in members else None)
        if fault:
            faults[fault].append(name)
        else:
            members[name] = info
    return members


def _readable(members: dict[str, zipfile.ZipInfo], faults: dict[str, list[str]]) -> dict[str, zipfile.ZipInfo]:
    """Return the members whose headers promise plain files of bounded size; name all others in `faults`."""
    readable: dict[str, zipfile.ZipInfo] = {}
    for name, info in members.items():
        fault = _header_fault(info)
        if fault:
            faults[fault].append(name)
        else:
            readable[name] = info
    total = sum(info.file_size for info in readable.values())
    if total > MAX_TOTAL:
        faults[f"not read, together {total // MIB} MiB unpacked where {MAX_TOTAL // MIB} are allowed"] += readable
        return {}
    return readable


def _name_fault(name: str) -> str | None:
    parts = name.split("/")
    if "\\" in name or ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        return "dangerous name, it points outside the zip"
    if not name.isprintable():
        return "dangerous name, it holds control characters"
    if "__MACOSX" in parts or parts[-1].startswith("._"):
        return "macOS resource fork, no part of a submission (zip with -X, without __MACOSX)"
    if parts[-1] in DROPPINGS:
        return f"{DROPPINGS[parts[-1]]} folder setting, no part of a submission"
    if len(parts) > 1:
        return "in a folder, not at the root (zip the files, not the folder that holds them)"
    if not MEMBER_NAME.fullmatch(name):
        return "foreign member, not called mask_<id>.h5"
    return None


def _header_fault(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "symbolic link, not a file"
    if kind not in (0, stat.S_IFREG):
        return "neither a file nor a folder"
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"packed by zip method {info.compress_type}, where every reader knows only 0 (stored) and 8 (deflate)"
    if info.file_size > MAX_MEMBER:
        return f"not read, more than {MAX_MEMBER // MIB} MiB unpacked"
    if info.file_size > max(RATIO_FROM, MAX_RATIO * info.compress_size):
        return f"not read, unpacks to more than {MAX_RATIO} times its size like a zip bomb"
    return None


def _inflate(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return the bytes of one member, never more than its header promises."""
    try:
        with archive.open(info) as member:
            # A read without a size would inflate all there is before it cuts: the header may lie.
            data = member.read(info.file_size)
    except BROKEN_ZIP as error:
        raise DataError(f"broken in the zip ({error})") from error
    if len(data) < info.file_size:
        raise DataError("broken in the zip (it ends too early)")
    return data


def _decode(data: bytes, shape: tuple[int, ...] | None) -> np.ndarray:
    """Return the mask (H, W) uint8 of one HDF5 file; the DataError for any other content does not name the member."""
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            return _read_dataset(file, shape)
    except DataError:
        raise
    except BROKEN_HDF5 as error:
        raise DataError("not a readable HDF5 file") from error


def own_dataset(file: h5py.File) -> h5py.Dataset:
    """The mask in an HDF5 file of unknown origin, no larger than `MAX_MEMBER` bytes, which nothing is read of yet.

    Raises:
        DataError: there is none, it is larger, or it lies in another file: links, external storage and virtual layouts can
            make HDF5 open other files of this machine.
    """
    if not isinstance(file.get(KEY, getlink=True), h5py.HardLink) or not isinstance(file[KEY], h5py.Dataset):
        raise DataError(f"no dataset {KEY!r} (found {_listed(list(file))})")
    dataset = file[KEY]
    layout = dataset.id.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise DataError(f"dataset {KEY!r} is stored elsewhere, not in this file")
    # Space that was never written takes no bytes, so that a tiny file can promise a mask of any size.
    if (dataset.size or 0) > MAX_MEMBER:
        raise DataError(f"not read, a mask of more than {MAX_MEMBER // MIB} MiB")
    return dataset


def _read_dataset(file: h5py.File, shape: tuple[int, ...] | None) -> np.ndarray:
    dataset = own_dataset(file)
    if dataset.id.get_create_plist().get_layout() != h5py.h5d.CONTIGUOUS:
        raise DataError(f"dataset {KEY!r} is chunked or compressed, not contiguous")
    if dataset.dtype != np.uint8:
        raise DataError(f"dtype is {dataset.dtype}, not uint8")
    if len(dataset.shape or ()) != 2 or (shape is not None and dataset.shape != tuple(shape)):
        raise DataError(f"shape is {dataset.shape}, not {'(H, W)' if shape is None else tuple(shape)}")
    mask = np.asarray(dataset[()])
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)[2:]) + 2
    if values.size:
        raise DataError(f"values other than 0 and 1 (such as {values[0]})")
    return mask


def _id_errors(found: Sequence[str], ids: Sequence[str] | None) -> list[str]:
    if ids is None:
        return [] if found else ["no member is called mask_<id>.h5"]
    missing = [f"mask_{id}.h5" for id in set(ids) - set(found)]
    unexpected = [f"mask_{id}.h5" for id in set(found) - set(ids)]
    errors = []
    if missing:
        errors.append(f"{len(missing)} of {len(set(ids))} masks missing: {_listed(missing)}")
    if unexpected:
        errors.append(f"{len(unexpected)} masks of no image: {_listed(unexpected)}")
    return errors


def _warnings(masks: Sequence[np.ndarray], share: float) -> list[str]:
    if masks and share == 0:
        return ["every mask is empty: no pixel is marked as landslide"]
    warnings = []
    if share > MUCH_POSITIVE:
        warnings.append(f"{share:.1%} of all pixels are positive, where the competition's training masks have 2 %")
    alike = max(Counter((mask.shape, mask.tobytes()) for mask in masks).values(), default=0)
    if alike > max(1, MANY_ALIKE * len(masks)):
        warnings.append(f"{alike} of {len(masks)} masks are identical")
    return warnings


def _listed(names: Sequence[str]) -> str:
    """Name the first few in natural order, and count the rest; a strange name is shown escaped and cut."""
    ordered = sorted(names, key=natural)
    shown = [name if MEMBER_NAME.fullmatch(name) else ascii(name[:80]) for name in ordered[:NAMES_SHOWN]]
    more = len(names) - len(shown)
    return (", ".join(shown) or "nothing") + (f" and {more} more" if more else "")


def _plain(value: Any, where: str) -> Any:
    """Return a fact as it will be read back from JSON, or say why it is unfit for a card that equal runs share."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, where) for inner in value]
    if isinstance(value, str) and (PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()):
        raise DataError(f"fact {where} is the absolute path {value!r}: a card names no folder of one machine")
    if isinstance(value, str) and CLOCK.search(value) and where not in NAMES:
        raise DataError(f"fact {where} is {value!r}: a card tells no time of day, equal runs would differ")
    if isinstance(value, float) and not math.isfinite(value) or not isinstance(value, (str, int, float, type(None))):
        raise DataError(f"fact {where} is {value!r}: give text, a finite number, true, false, null, a list or a table")
    return value
