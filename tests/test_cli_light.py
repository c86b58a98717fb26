"""The command line starts at once: importing l4s and asking for help load no library that computes."""

import os
import resource
import statistics
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = (
    *(
        "torch",
        "torchvision",
        "timm",
        "transformers",
        "segmentation_models_pytorch",
        "accelerate",
        "albumentations",
        "xarray",
        "zarr",
    ),
    *("numpy", "scipy", "skimage", "h5py", "matplotlib", "cv2", "safetensors"),
    *("rasterio", "shapely", "pyogrio"),
)
LOADED = f"import sys; print(*(name for name in {HEAVY} if name in sys.modules))"
HELP = """
import contextlib, io, sys, typer
from l4s.cli import app

def walk(command, words):
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        try:
            app([*words, "--help"])
        except SystemExit as end:
            assert end.code == 0, (words, end.code)
    assert "Usage" in shown.getvalue(), words
    for name, below in getattr(command, "commands", {}).items():
        walk(below, [*words, name])

walk(typer.main.get_command(app), [])
"""
EMPTY = "import typer; app = typer.Typer(); app.command()(lambda: None); app()"
BOUND = 0.5  # seconds


def python(*arguments: str, folder: Path | None = None, path: Path | None = None) -> str:
    """What a fresh interpreter prints."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light() -> None:
    assert python("-c", f"import l4s; {LOADED}").split() == []


def test_help_of_every_command_is_light() -> None:
    assert python("-c", f"{HELP}\n{LOADED}").split() == []


def test_heavy_would_be_seen() -> None:
    assert python("-c", f"import l4s, numpy; {LOADED}").split() == ["numpy"]


def test_the_public_names_are_there() -> None:
    import l4s
    from l4s.load import load_recipe

    assert l4s.load_recipe is load_recipe
    for name in l4s.__all__:
        assert name == "__version__" or getattr(l4s, name).__name__.rpartition(".")[2] == name


@pytest.mark.parametrize("before", ["", "import l4s.submit;", "from l4s.submit import submit;"])
def test_a_name_means_the_same_in_any_order(before: str) -> None:
    assert (
        python("-c", f"{before}import l4s; print(type(l4s.submit).__name__, l4s.submit.submit.__name__)")
        == "module submit\n"
    )
    assert python("-c", f"{before}from l4s import submit; print(type(submit).__name__)") == "module\n"


def test_no_other_name_is_there() -> None:
    import l4s

    assert set(l4s.__all__) <= set(dir(l4s))
    with pytest.raises(AttributeError, match="'l4s' has no attribute 'load_recipes'"):
        l4s.load_recipes  # noqa: B018


def _median(*arguments: str) -> tuple[float, float]:
    """Median seconds of five runs: by the wall clock, and of processor time, which waiting for others leaves out."""
    wall, processor = [], []
    for _ in range(5):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        wall.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(wall), statistics.median(processor)


def test_help_takes_less_than_half_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    wall, processor = _median("-m", "l4s", "--help")
    bare, floor = _median("-c", "pass")[0], _median("-c", EMPTY, "--help")[1]
    with capsys.disabled():
        sys.stdout.write(
            f"\nl4s --help: {wall:.2f} s, {processor:.2f} s of them computing; python alone {bare:.2f} s, "
            f"an empty Typer app {floor:.2f} s computing\n"
        )
    # On a slow or busy machine an empty app takes as long; no library that computes loads in half of that again.
    assert min(wall, processor) < max(BOUND, 1.5 * floor)


@pytest.mark.slow
def test_the_wheel_carries_the_recipes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True)
    [wheel] = tmp_path.glob("l4s-*.whl")
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    names = sorted(path.stem for path in (ROOT / "recipes").glob("*.toml"))
    script = "import l4s, l4s.load; print(l4s.__file__, *l4s.load.shipped()); l4s.load_recipe('l4s-rgb')"
    imported, *found = python("-c", script, folder=tmp_path, path=unpacked).split()
    assert imported == str(unpacked / "l4s" / "__init__.py")
    assert found == names != []
    assert sorted(path.name for path in unpacked.iterdir() if path.suffix != ".dist-info") == ["l4s"]


@pytest.mark.parametrize(
    "arguments",
    [["scene", "polygons", "a.tif", "b.gpkg"], ["scene", "picture", "a.tif", "b.png"], ["data", "chip", *"abc"]],
)
def test_without_the_libraries_of_scenes_it_says_what_to_install(arguments: list[str]) -> None:
    script = f"import sys; sys.modules['pyogrio'] = None; from l4s.cli import app; app({arguments})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2 and "pip install 'l4s[geo]'" in done.stderr, done.stderr
