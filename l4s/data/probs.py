"""The one currency: HDF5 files of float16 probabilities (or scores in [0,1]) with the ids of their patches.

A file holds `ids (N,)` and either `values (N,H,W)`, `values (N,)` (one a patch), or, where patch sizes differ, all
pixels in a row as `values (P,)` with `offset (N,)` (first pixel of each patch) and `shape (N,2)`. Its attributes say
where the values come from. Equal content makes equal bytes: no times, no variable-length strings, one fixed order.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import h5py
import numpy as np

from l4s.errors import DataError
from l4s.files import whole

Kind = Literal["probability", "score"]
Extra = Mapping[str, str | float | int]
CUT = "cut"  # the key of `extra` that names the manifest of the scene that the patches were cut from

ONE = 0x3C00
"""The bits of float16 1.0: the values in [0,1] are exactly the codes 0..ONE, in the same order."""
NOISE = 1e-6
"""How far float32 averages may leave [0,1] by rounding; further out is an error."""
ATTRIBUTES = ("member", "fingerprint", "domain", "tta", "kind", "extra")


@dataclass(frozen=True)
class ProbFile:
    """A checked file of probabilities. It holds no file handle, so it may cross a fork.

    `shapes` is the shape of each patch, (H, W), or () where a patch has one value; `ragged` files have patches of
    different sizes. `kind` is "probability", or "score" for values in [0,1] that are only ordered.
    """

    path: Path
    ids: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    ragged: bool
    member: str
    fingerprint: str
    domain: str
    tta: str
    kind: Kind
    extra: Extra = field(default_factory=dict, hash=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W), or (N,) where a patch has one value. Raises DataError for ragged files."""
        self._refuse_ragged()
        return (len(self), *self.shapes[0])

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Values of the patches `start:stop` (a slice), (n, H, W) float16 in [0,1], or (n,).

        Raises DataError where patches differ in size (use `patch`), or where a value is not in [0,1].
        """
        self._refuse_ragged()
        with _opened(self.path) as file:
            values = file["values"][start:stop]
        first = slice(start, stop).indices(len(self))[0]
        _refuse_outside(self.path, values, self.ids[first:])
        return cast(np.ndarray, values)

    def patch(self, index: int) -> np.ndarray:
        """Values of one patch, (H, W) float16 in [0,1], or () where a patch has one value; for every kind of file."""
        if not 0 <= index < len(self):
            raise DataError(f"{self.path} has patches 0 to {len(self) - 1}, not {index}")
        if not self.ragged:
            return self.read(index, index + 1)[0, ...]
        with _opened(self.path) as file:
            start = int(file["offset"][index])
            values = file["values"][start : start + _area(self.shapes[index])].reshape(self.shapes[index])
        _refuse_outside(self.path, values[None], self.ids[index:])
        return cast(np.ndarray, values)

    def patches(self, block: int = 64) -> Iterator[np.ndarray]:
        """Each patch in the order of `ids`, as `patch` gives it; reads `block` patches at a time."""
        if self.ragged:
            yield from (self.patch(index) for index in range(len(self)))
            return
        for start in range(0, len(self), block):
            rows = self.read(start, start + block)
            yield from (rows[row, ...] for row in range(len(rows)))  # the dots keep a single value an array

    def _refuse_ragged(self) -> None:
        if self.ragged:
            raise DataError(f"{self.path} holds patches of different sizes: read them one by one with .patch(i)")


def open_probs(path: Path) -> ProbFile:
    """Check a file of probabilities and describe it; values themselves are checked as they are read.

    Raises DataError for a file that is missing, truncated or no HDF5, for missing keys or attributes, wrong types,
    sizes that contradict each other, and repeated ids.
    """
    with _opened(path) as file:
        for key in ("ids", "values"):
            _dataset(path, file, key)
        ids = _read_ids(path, file)
        shapes, ragged = _read_shapes(path, file, len(ids))
        text = {name: _read_attribute(path, file, name) for name in ATTRIBUTES}
    if text["kind"] not in ("probability", "score"):
        raise DataError(f"{path}: kind is {text['kind']!r}, not 'probability' or 'score'")
    try:
        extra = json.loads(text.pop("extra"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: the attribute 'extra' is not JSON ({error})") from error
    return ProbFile(path=path, ids=ids, shapes=shapes, ragged=ragged, extra=extra, **cast(Any, text))


class ProbWriter:
    """Fills a file of probabilities; `write_probs` makes one and decides whether the file is finished."""

    def __init__(self, path: Path, file: h5py.File, ids: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> None:
        self._path, self._file, self._ids, self._shapes = path, file, ids, shapes
        self._ragged = "offset" in file
        self._written = np.zeros(len(ids), dtype=bool)

    def put(self, start: int, array: np.ndarray | Sequence[np.ndarray]) -> None:
        """Write patches `start`, `start + 1`, ...: (n, H, W) or (n,) floats in [0,1], or a sequence of (H, W) arrays.

        Values are rounded to float16; those at most `NOISE` outside [0,1] are moved to its ends.
        Raises DataError, with the id of the patch, for other values, sizes or types, and for patches put before.
        """
        stop = start + len(array)
        if not 0 <= start <= stop <= len(self._ids):
            raise DataError(f"{self._path}: patches {start} to {stop - 1} put into a file of {len(self._ids)}")
        if self._written[start:stop].any():
            again = start + int(self._written[start:stop].argmax())
            raise DataError(f"{self._path}: patch {self._ids[again]} was put twice; put every patch once")
        if start == stop:
            return
        if self._ragged:
            first = int(self._file["offset"][start])
            rows = [self._rounded(start + k, np.asarray(row)[None]) for k, row in enumerate(array)]
            values = np.concatenate([row.ravel() for row in rows])
        else:
            first, values = start, self._rounded(start, np.asarray(array))
        self._file["values"][first : first + len(values)] = values
        self._written[start:stop] = True

    def refuse_unfinished(self) -> None:
        """Raises DataError where patches have not been put."""
        if missing := int((~self._written).sum()):
            first = self._ids[int(self._written.argmin())]
            raise DataError(f"{self._path}: {missing} of {len(self._ids)} patches were never put, first {first}")

    def _rounded(self, start: int, values: np.ndarray) -> np.ndarray:
        if values.dtype.kind != "f" or values.shape[1:] != self._shapes[start]:
            raise DataError(
                f"{self._path}: patch {self._ids[start]} must be floats of shape {self._shapes[start]}, "
                f"got {values.dtype} {values.shape[1:]}"
            )
        bad = ~((values >= -NOISE) & (values <= 1 + NOISE))  # written so that NaN is bad
        if bad.any():
            name = self._ids[start + int(np.argwhere(bad)[0][0])]
            raise DataError(f"{self._path}: patch {name} holds {values[bad].flat[0]}, which is not in [0, 1]")
        return cast(np.ndarray, (np.clip(values, 0, 1) + 0.0).astype(np.float16))  # + 0.0 turns -0.0 into 0.0


@contextmanager
def write_probs(
    path: Path,
    *,
    ids: Sequence[str],
    shape: Sequence[int] | Sequence[Sequence[int]],
    member: str,
    fingerprint: str,
    domain: str,
    tta: str,
    kind: Kind,
    extra: Extra | None = None,
) -> Iterator[ProbWriter]:
    """Write a file of probabilities: `with write_probs(...) as writer: writer.put(0, array)`.

    `shape` is (N, H, W), (N,), or one (H, W) for each id where sizes differ. The file appears at `path` when the block
    ends without an error and every patch was put exactly once; otherwise nothing appears and an older file stays.
    Bytes depend on the content alone, not on the order or the size of the puts.

    Raises DataError for ids that are repeated or do not fit `shape`, an unknown `kind`, and as `ProbWriter.put`.
    """
    if kind not in ("probability", "score"):
        raise DataError(f"{path}: kind is {kind!r}, not 'probability' or 'score'")
    _refuse_bad_ids(path, ids)
    shapes, ragged = _planned_shapes(path, shape, len(ids))
    texts = (member, fingerprint, domain, tta, kind, json.dumps(dict(extra or {}), sort_keys=True))
    with whole(path) as part, h5py.File(part, "w") as file:
        _create(file, ids, shapes, ragged, dict(zip(ATTRIBUTES, texts, strict=True)))
        writer = ProbWriter(path, file, tuple(ids), shapes)
        yield writer
        writer.refuse_unfinished()


def _create(
    file: h5py.File, ids: Sequence[str], shapes: tuple[tuple[int, ...], ...], ragged: bool, texts: dict[str, str]
) -> None:
    for name, value in texts.items():
        raw = value.encode()
        file.attrs.create(name, raw, dtype=h5py.string_dtype("utf-8", max(1, len(raw))))
    names = np.array([name.encode() for name in ids])
    file.create_dataset("ids", data=names, track_times=False)
    size: tuple[int, ...] = (len(ids), *shapes[0])
    if ragged:
        area = np.array([_area(shape) for shape in shapes], dtype=np.int64)
        file.create_dataset("offset", data=np.cumsum(area) - area, track_times=False)
        file.create_dataset("shape", data=np.array(shapes, dtype=np.int64), track_times=False)
        size = (int(area.sum()),)
    file.create_dataset("values", shape=size, dtype=np.float16, track_times=False)


def _planned_shapes(
    path: Path, shape: Sequence[int] | Sequence[Sequence[int]], count: int
) -> tuple[tuple[tuple[int, ...], ...], bool]:
    ragged = len(shape) > 0 and not isinstance(shape[0], int | np.integer)
    if ragged:
        shapes = tuple((int(height), int(width)) for height, width in cast(Sequence[Sequence[int]], shape))
        if len(shapes) != count:
            raise DataError(f"{path}: {count} ids but {len(shapes)} shapes; give one (H, W) for each id")
        return shapes, True
    flat = tuple(int(size) for size in cast(Sequence[int], shape))
    if len(flat) not in (1, 3) or flat[0] != count:
        raise DataError(f"{path}: shape {flat} does not fit {count} ids; give ({count}, H, W) or ({count},)")
    return (flat[1:],) * count, False


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; a file of probabilities was expected there") from error
    except DataError:
        raise
    except (
        OSError,
        RuntimeError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:  # h5py raises any of them for broken bytes
        raise DataError(f"{path} cannot be read as HDF5, make it again ({error})") from error


def _dataset(path: Path, file: h5py.File, key: str) -> h5py.Dataset:
    if not isinstance(file.get(key), h5py.Dataset):
        raise DataError(
            f"{path} has no dataset {key!r}: it is no file of probabilities (it holds {', '.join(map(str, file)) or 'nothing'})"
        )
    return file[key]


def _read_attribute(path: Path, file: h5py.File, name: str) -> str:
    if name not in file.attrs:
        raise DataError(f"{path} has no attribute {name!r}: it is no file of probabilities")
    value = file.attrs[name]
    if not isinstance(value, str | bytes):
        raise DataError(f"{path}: the attribute {name!r} must be a string, got {value!r}")
    return value if isinstance(value, str) else value.decode()


def _read_ids(path: Path, file: h5py.File) -> tuple[str, ...]:
    data = file["ids"]
    if data.ndim != 1 or data.dtype.kind != "S":
        raise DataError(f"{path}: ids must be strings of fixed length (N,), got {data.dtype} {data.shape}")
    ids = tuple(raw.decode() for raw in data[:].tolist())
    _refuse_bad_ids(path, ids)
    return ids


def _read_shapes(path: Path, file: h5py.File, count: int) -> tuple[tuple[tuple[int, ...], ...], bool]:
    values = file["values"]
    if values.dtype != np.float16:
        raise DataError(f"{path}: values must be float16, got {values.dtype}")
    if "offset" not in file and "shape" not in file:
        if values.ndim not in (1, 3) or len(values) != count:
            raise DataError(f"{path}: values {values.shape} do not fit {count} ids")
        return (tuple(values.shape[1:]),) * count, False
    offset, shape = (_dataset(path, file, key)[...] for key in ("offset", "shape"))
    if shape.shape != (count, 2) or shape.dtype.kind not in "iu" or (shape < 0).any():
        raise DataError(f"{path}: shape must be ({count}, 2) integers, got {shape.dtype} {shape.shape}")
    area = shape.prod(axis=1)
    if not np.array_equal(offset, np.cumsum(area) - area) or values.shape != (area.sum(),):
        raise DataError(f"{path}: offset and values {values.shape} do not fit shape; make the file again")
    return tuple((int(height), int(width)) for height, width in shape), True


def _area(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _refuse_bad_ids(path: Path, ids: Sequence[str]) -> None:
    if not ids:
        raise DataError(f"{path}: no patches; a file of probabilities needs at least one")
    seen: set[str] = set()
    for name in ids:
        if not name or name in seen:
            raise DataError(f"{path}: id {name!r} is {'repeated' if name else 'empty'}; ids must name one patch each")
        seen.add(name)


def _refuse_outside(path: Path, values: np.ndarray, ids: Sequence[str]) -> None:
    bad = values.view(np.uint16) > ONE  # NaN, infinity and everything negative, -0.0 too, have higher codes
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        raise DataError(f"{path}: patch {ids[row]} holds {values[bad].flat[0]}, which is not in [0, 1]")
