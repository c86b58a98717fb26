"""`--set key.key=value`: changes of single values of a recipe, each of which something must read."""

import tomllib
from collections.abc import Collection, Sequence
from typing import Any

from l4s import log
from l4s.errors import RecipeError, did_you_mean

Table = dict[str, Any]
DEFAULTS = ("train", "normalise", "norm", "adabn")
"""Keys at the top of a recipe that every member inherits."""


def override(table: Table, overrides: Sequence[str]) -> None:
    """Change a recipe, as read from TOML, in place.

    Raises:
        RecipeError: an override is not of the form key.key=value, goes through a value or into a member that is not there,
            or would have no effect; or a value of the recipe has none.
    """
    _check_grids(table)
    there = set(_members(table))
    for each in overrides:
        key, equals, text = each.partition("=")
        if not equals or not key:
            raise RecipeError(f"--set {each!r} is not of the form key.key=value")
        assign(table, key.strip(), _value(text.strip()))
    _check_named(table, there)
    for each in overrides:
        key = each.partition("=")[0].strip()
        _check_swept(table, key)
        check_read(table, key, "--set")


def _check_named(table: Table, there: Collection[str]) -> None:
    """A member that was not there, and has no model now, is a misspelt name, or that of one of a grid."""
    members = _members(table)
    for name in members:
        if name not in there and "model" not in members[name]:
            grids = [base for base in there if name.startswith(f"{base}-") and _grid(members[base])]
            told = f": it is of the grid of {grids[0]!r}" if grids else did_you_mean(name, there)
            raise RecipeError(f"--set: there is no member {name!r}{told}")


def _check_swept(table: Table, key: str) -> None:
    """An override is not read where every cell of a sweep says something else."""
    axes = table.get("sweep", {})
    if key in axes or any(cells and all(key in cell for cell in cells.values()) for cells in _named_cells(axes)):
        raise RecipeError(f"--set {key} has no effect: every cell of [sweep] sets it; --set 'sweep={{}}' drops them")


def check_read(table: Table, key: str, who: str) -> None:
    """A value is not read where a member, its grid, or every round says something else.

    Args:
        table: a recipe, as read from TOML.
        who: sets the value, for messages.

    Raises:
        RecipeError: it would have no effect.
    """
    members = _members(table)
    kind, _, rest = key.partition(".")
    name, _, inside = rest.partition(".")
    if kind == "member" and inside in _grid(members.get(name, {})):
        raise RecipeError(f"{who} {key} has no effect: the grid lists its values; {_change(name, '.grid')} changes it")
    if key == "train.steps" and _sets_steps(table):
        raise RecipeError(f"{who} {key} has no effect: every [[round]] sets steps, round 0 too; change those")
    if key == "train" or kind not in DEFAULTS:
        return
    listed = [name for name, member in members.items() if key in _grid(member)]
    own = [*listed, *(name for name, member in members.items() if name not in listed and _holds(member, key))]
    if not own:
        return
    change = _change(own[0], ".grid" if listed else f".{key}")
    told = f"{', '.join(own)} set {key} for themselves ({change} changes one)"
    if len(own) == len(members):
        raise RecipeError(f"{who} {key} has no effect: {told}")
    log.warn(f"{who} {key} changes some members only: {told}")


def _sets_steps(table: Table) -> bool:
    """Does every round say for how many steps it trains?"""
    listed = table.get("round")
    own = [each for each in listed if isinstance(each, dict) and "steps" in each] if isinstance(listed, list) else []
    rounds = table.get("rounds", 0)
    return bool(own) and isinstance(rounds, int) and {each.get("round") for each in own} >= set(range(rounds + 1))


def _check_grids(table: Table) -> None:
    """A value is not read that a member has beside a grid of others, but for the name of a model, which it needs."""
    for name, member in _members(table).items():
        for key in _grid(member):
            if key not in ("model", "model.name") and _holds(member, key):
                raise RecipeError(
                    f"member.{name} sets {key}, and its grid lists values of it, which win: leave one of them out"
                )


def _members(table: Table) -> dict[str, Table]:
    """The members that are tables: what else stands in their place is refused later."""
    members = table.get("member")
    return {name: own for name, own in members.items() if isinstance(own, dict)} if isinstance(members, dict) else {}


def _grid(member: Table) -> Table:
    grid = member.get("grid")
    return grid if isinstance(grid, dict) else {}


def _change(name: str, key: str) -> str:
    return f"--set 'member.{name}{key}=...'"


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
