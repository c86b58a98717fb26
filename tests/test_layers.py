"""The house rules that a parser can see: who may import whom, nothing is unpickled, no global random numbers."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {_module(path): path.read_text() for path in sorted((ROOT / "l4s").rglob("*.py"))}

ONLY = {
    "accelerate": ("l4s.engine",),
    "albumentations": ("l4s.data.augment",),
    "cv2": ("l4s.data.augment",),
    "pyogrio": ("l4s.scene",),
    "rasterio": ("l4s.scene",),
    "shapely": ("l4s.scene",),
    "segmentation_models_pytorch": ("l4s.models",),
    "typer": ("l4s.cli",),
    "xarray": ("l4s.sar.cube",),
    "zarr": ("l4s.sar.cube",),
    "l4s.cli": ("l4s.cli", "l4s.__main__"),
}
"""Package -> the modules (with all below them) that may import it."""

MAY = {
    "l4s.errors": (),
    "l4s.log": ("l4s.errors",),
    "l4s.files": ("l4s.errors",),
    "l4s.rundir": ("l4s.errors", "l4s.files"),
    "l4s.recipe": ("l4s.errors", "l4s.data.bands"),
    "l4s.pixels": ("l4s.errors",),
    "l4s.lovasz": ("l4s.errors", "l4s.pixels"),
    "l4s.ohem": ("l4s.errors", "l4s.pixels"),
    "l4s.losses": ("l4s.errors", "l4s.lovasz", "l4s.ohem", "l4s.pixels"),
    "l4s.metrics": ("l4s.errors",),
    "l4s.thresholds": ("l4s.errors", "l4s.metrics"),
    "l4s.ssim": ("l4s.errors",),
    "l4s.optim": ("l4s.errors",),
    "l4s.promote": ("l4s.errors",),
    "l4s.engine": ("l4s.errors", "l4s.log"),
    # l4s.scene.raster: for GeoTIFFs that Pillow cannot hold, inside the function that needs it
    "l4s.data": ("l4s.data", "l4s.errors", "l4s.files", "l4s.log", "l4s.recipe", "l4s.scene.raster"),
    "l4s.models": ("l4s.models", "l4s.errors", "l4s.log", "l4s.data.bands", "l4s.ssim"),
    "l4s.tasks": (
        "l4s.tasks",
        "l4s.data",
        "l4s.models",
        *(
            "l4s.errors",
            "l4s.recipe",
            "l4s.losses",
            "l4s.metrics",
            "l4s.promote",
            "l4s.score",
            "l4s.ssim",
            "l4s.thresholds",
        ),
    ),
}
"""Room -> all of l4s that it may import; a file that is not named here may import any but the command line."""

SEEDERS = {"torch.manual_seed", "torch.cuda.manual_seed_all", "np.random.seed"}
PICKLERS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def _within(module: str, rooms: Sequence[str]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def _imports(node: ast.AST) -> Iterator[str]:
    """The modules that an import statement names; other nodes name none."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            yield full if full in SOURCES else node.module or "."


def _at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: no function bodies, nothing for type checkers alone."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)


def _import_offences(module: str, node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and node.level:
        yield "imports relatively"
    for name in _imports(node):
        for package, users in ONLY.items():
            if _within(name, [package]) and not _within(module, users):
                yield f"imports {name}, which only {' and '.join(users)} may"
        for room, allowed in MAY.items():
            if _within(module, [room]) and _within(name, ["l4s"]) and not _within(name, allowed):
                yield f"imports {name}, which {room} may not"
        if _within(name, sorted(PICKLERS)):
            yield f"imports {name}: nothing here is pickled"
        if name == "random":
            yield "imports random: a seed is an argument"


def _call_offences(module: str, node: ast.AST) -> Iterator[str]:
    if not isinstance(node, ast.Call):
        return
    called = ast.unparse(node.func)
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if called in ("eval", "exec"):
        yield f"calls {called}"
    if options.get("allow_pickle", "False") != "False":
        yield "allows pickles"
    pickles = called == "torch.save" or (called.startswith("torch.") and called.endswith(".load"))
    if pickles and (module, called, options.get("weights_only")) != ("l4s.models.weights", "torch.load", "True"):
        yield f"calls {called}, which pickles"
    if called in SEEDERS and module != "l4s.fit":  # the loop seeds dropout at each step
        yield f"calls {called}: a seed is an argument"


def offences(module: str, source: str) -> list[str]:
    """What a file does that the house forbids."""
    nodes = list(ast.walk(ast.parse(source)))
    return [text for node in nodes for rule in (_import_offences, _call_offences) for text in rule(module, node)]


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """Some modules that import each other in a circle; none where importing has an order."""
    left = dict(graph)
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_keeps_the_house_rules(module: str) -> None:
    assert offences(module, SOURCES[module]) == []


def test_no_circle_of_imports() -> None:
    graph = {
        module: {name for node in _at_import(ast.parse(source)) for name in _imports(node) if name in SOURCES}
        - {module}
        for module, source in SOURCES.items()
    }
    assert sum(len(needs) for needs in graph.values()) > len(SOURCES)  # the parser saw imports at all
    assert cycle(graph) == []


def test_every_rule_names_files_that_exist() -> None:
    later = {"l4s.scene"}  # rasterio comes with whole scenes
    rooms = {room for users in ONLY.values() for room in users} | {name for names in MAY.values() for name in names}
    assert rooms | MAY.keys() <= SOURCES.keys() | later


@pytest.mark.parametrize(
    ("module", "line", "offence"),
    [
        ("l4s.fit", "import accelerate", "only l4s.engine may"),
        ("l4s.fit", "from accelerate.utils import gather_object", "only l4s.engine may"),
        ("l4s.fit", "def f():\n    from accelerate import Accelerator", "only l4s.engine may"),
        ("l4s.data.dataset", "import albumentations as A", "only l4s.data.augment may"),
        ("l4s.engineer", "import accelerate", "only l4s.engine may"),
        ("l4s.steps", "from l4s.cli.loop import run", "only l4s.cli and l4s.__main__ may"),
        ("l4s.steps", "from l4s import cli", "only l4s.cli and l4s.__main__ may"),
        ("l4s.data.cache", "from l4s.steps import run_fit", "l4s.data may not"),
        ("l4s.data.cache", "from l4s import fit", "l4s.data may not"),
        ("l4s.data.cache", "import l4s.pipeline", "l4s.data may not"),
        ("l4s.models.unet", "from l4s.data.domain import Domain", "l4s.models may not"),
        ("l4s.losses", "from l4s.recipe import Train", "l4s.losses may not"),
        ("l4s.tasks.segment", "from l4s.fit import fit", "l4s.tasks may not"),
        ("l4s.fit", "from .errors import RunError", "imports relatively"),
        ("l4s.fit", "import pickle", "nothing here is pickled"),
        ("l4s.fit", "from joblib import load", "nothing here is pickled"),
        ("l4s.fit", "torch.load(path, weights_only=True)", "which pickles"),
        ("l4s.models.weights", "torch.load(path)", "which pickles"),
        ("l4s.models.weights", "torch.load(path, weights_only=False)", "which pickles"),
        ("l4s.models.weights", "torch.jit.load(path)", "which pickles"),
        ("l4s.state", "torch.save(state, path)", "which pickles"),
        ("l4s.data.cache", "np.load(path, allow_pickle=True)", "allows pickles"),
        ("l4s.load", "eval(text)", "calls eval"),
        ("l4s.fit", "import random", "a seed is an argument"),
        ("l4s.predict", "torch.manual_seed(0)", "a seed is an argument"),
    ],
)
def test_the_rules_bite(module: str, line: str, offence: str) -> None:
    found = offences(module, line)
    assert found, line
    assert all(offence in text for text in found)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("l4s.engine", "from accelerate import Accelerator"),
        ("l4s.cli.loop", "from l4s.cli import app"),
        ("l4s.data.cache", "from l4s.data.stats import pool\nfrom l4s.errors import DataError"),
        ("l4s.models.weights", "torch.load(path, map_location='cpu', weights_only=True)"),
        ("l4s.fit", "model.load(path)\nnp.load(path, allow_pickle=False)\nnp.random.default_rng(0)"),
    ],
)
def test_the_rules_do_not_bite_what_is_right(module: str, line: str) -> None:
    assert offences(module, line) == []


def test_a_circle_is_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
    assert cycle({"a": {"b", "outside"}, "b": set()}) == []


def test_only_what_runs_at_import_makes_a_circle() -> None:
    source = (
        "import json\n"
        "if TYPE_CHECKING:\n    import typing\nelse:\n    import types\n"
        "class C:\n    import enum\n    def f(self):\n        import csv\n"
    )
    names = {name for node in _at_import(ast.parse(source)) for name in _imports(node)}
    assert names == {"json", "types", "enum"}
