"""Map landslides where no labels exist: the Landslide4Sense loop as a library and a command.

`import l4s` imports nothing heavy: what `__all__` names is imported when it is first used.

    import l4s

    recipe = l4s.load_recipe("recipe.toml", ["train.steps=200"])
    probs = l4s.open_probs(path)
    report = l4s.submit.check(zip_path, ids)

A file that is named after its function stays a module, so that its other names can be reached as well:
`l4s.ensemble.ensemble(...)`, or `from l4s.ensemble import ensemble`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l4s import ensemble, fit, predict, pseudo, score, submit
    from l4s.data.domain import open_domain
    from l4s.data.probs import open_probs
    from l4s.load import load_recipe
    from l4s.models import build_model
    from l4s.pipeline import run_recipe

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "build_model",
    "ensemble",
    "fit",
    "load_recipe",
    "open_domain",
    "open_probs",
    "predict",
    "pseudo",
    "run_recipe",
    "score",
    "submit",
]

FUNCTIONS = {
    "build_model": "l4s.models",
    "load_recipe": "l4s.load",
    "open_domain": "l4s.data.domain",
    "open_probs": "l4s.data.probs",
    "run_recipe": "l4s.pipeline",
}
"""Function -> the module that it is imported from."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name in FUNCTIONS:
        return getattr(import_module(FUNCTIONS[name]), name)
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What completion shows: the public names, imported or not."""
    return sorted({*globals(), *__all__})
