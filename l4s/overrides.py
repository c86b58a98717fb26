"""`--set key.key=value`: changes of single values of a recipe, each of which something must read."""

import tomllib
from collections.abc import Sequence
from typing import Any

from l4s import log
from l4s.errors import RecipeError

Table = dict[str, Any]
DEFAULTS = ("train", "normalise", "norm", "adabn")
"""Keys at the top of a recipe that every member inherits."""


def override(table: Table, overrides: Sequence[str]) -> None:
    """Change a recipe, as read from TOML, in place.

    Raises:
        RecipeError: an override is not of the form key.key=value, goes through a value, or would have no effect.
    """
    for each in overrides:
        key, equals, text = each.partition("=")
        if not equals or not key:
            raise RecipeError(f"--set {each!r} is not of the form key.key=value")
        assign(table, key.strip(), _value(text.strip()))
    for each in overrides:
        _check_read(table, each.partition("=")[0].strip())


def _check_read(table: Table, key: str) -> None:
    """An override is not read where every cell of a sweep, or a member or its grid, says something else."""
    axes = table.get("sweep", {})
    if key in axes or any(cells and all(key in cell for cell in cells.values()) for cells in _named_cells(axes)):
        raise RecipeError(f"--set {key} has no effect: every cell of [sweep] sets it; --set 'sweep={{}}' drops them")
    members = table.get("member")
    if key == "train" or key.partition(".")[0] not in DEFAULTS or not isinstance(members, dict):
        return
    own = [name for name, member in members.items() if _holds(member, key) or key in member.get("grid", {})]
    told = f"{', '.join(own)} set {key} for themselves (--set member.{own[0]}.{key}=... changes one)" if own else ""
    if own and len(own) == len(members):
        raise RecipeError(f"--set {key} has no effect: {told}")
    if own:
        log.warn(f"--set {key} changes some members only: {told}")


def _named_cells(axes: object) -> list[Table]:
    """The axes of a sweep that are tables of cells, each with the keys that it changes."""
    return [axis for axis in axes.values() if isinstance(axis, dict)] if isinstance(axes, dict) else []


def _holds(table: object, key: str) -> bool:
    """Is a dotted key set in a table?"""
    for part in key.split("."):
        if not isinstance(table, dict) or part not in table:
            return False
        table = table[part]
    return True


def _value(text: str) -> Any:
    """A TOML value; what is not TOML is taken as a bare string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def assign(table: Table, key: str, value: Any) -> None:
    """Set a dotted key, making tables on the way."""
    *folders, last = key.split(".")
    for folder in folders:
        table = table.setdefault(folder, {})
        if not isinstance(table, dict):
            raise RecipeError(f"cannot set {key}: {folder} is a value, not a table")
    table[last] = value
