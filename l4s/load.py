"""From a TOML file (or a shipped name) and `--set` overrides to a checked `Recipe`, its sweep cells and its members."""

import copy
import importlib.resources
import itertools
import json
import tomllib
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from l4s.consistency import check_recipe
from l4s.errors import RecipeError, did_you_mean
from l4s.files import read_json
from l4s.overrides import DEFAULTS, Table, assign, check_read, override
from l4s.recipe import MemberConfig, Recipe
from l4s.rundir import CONFIG, COPY

M = TypeVar("M", bound=BaseModel)
Location = tuple[str | int, ...]  # keys and positions from the top of a table down


@dataclass(frozen=True)
class Member:
    """One member after its grid is expanded: `name` is its folder, `base` its table in the recipe, `axes` its cell."""

    name: str
    base: str
    axes: Mapping[str, Any]
    config: MemberConfig
    needs: tuple[str, ...]  # names of expanded members that must be trained first
    init: str | None  # "member:<expanded name>", "run:...", or a file
    features: str | None = None  # "member:<expanded name>"

    def named(self, names: Collection[str]) -> bool:
        """Whether `names` has this member, by its own name or by that of its table, which stands for its whole grid."""
        return self.name in names or self.base in names


def recipe_folder() -> Path:
    """Where the shipped recipes lie: inside the wheel, or at the top of a checkout."""
    packaged = Path(str(importlib.resources.files("l4s"))) / "recipes"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "recipes"


def shipped() -> tuple[str, ...]:
    """Names of the recipes that come with l4s."""
    return tuple(sorted(path.stem for path in recipe_folder().glob("*.toml")))


def find_recipe(path_or_name: str) -> Path:
    """The file of a recipe given by path, or by the name of a shipped one.

    Raises:
        RecipeError: there is no such file or name.
    """
    path = Path(path_or_name)
    if path.suffix == ".toml" and path.is_file():
        return path
    if path.suffix == ".toml":
        raise RecipeError(f"there is no recipe {path}: give the path of a .toml file, or one of {', '.join(shipped())}")
    if path_or_name not in shipped():
        raise RecipeError(f"no recipe {path_or_name!r}{did_you_mean(path_or_name, shipped())}; a file ends in .toml")
    return recipe_folder() / f"{path_or_name}.toml"


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and lay overrides such as `train.steps=200` over it.

    Args:
        path_or_name: a TOML file, or the name of a shipped recipe.
        overrides: `key.key=value` each; the value is TOML, or a bare word for a string.

    Raises:
        RecipeError: the file is not TOML, a key does not exist (the nearest that does is named), or a value is wrong.
    """
    path = find_recipe(str(path_or_name))
    return parse_recipe(_read(path, overrides), str(path))


def load_cells(path_or_name: str | Path, overrides: Sequence[str] = ()) -> dict[str, Recipe]:
    """The recipe of each cell of `[sweep]` by cell name; one cell named "" where nothing is swept.

    Raises:
        RecipeError: as `load_recipe`; a swept key lists no values or has no effect, or two cells are one or would have one name.
    """
    path = find_recipe(str(path_or_name))
    table = _read(path, overrides)
    sweep = parse_recipe(copy.deepcopy(table), str(path)).sweep
    table.pop("sweep", None)
    named = {axis for axis, choices in sweep.items() if isinstance(choices, Mapping)}
    for axis, choices in sweep.items():
        inside = (
            dict.fromkeys(key for own in choices.values() for key in own) if isinstance(choices, Mapping) else [axis]
        )
        for key in inside:
            check_read(table, key, f"{path}: [sweep]")
    cells: dict[str, Recipe] = {}
    for axes in _cells(sweep, f"{path}: sweep"):
        cell = copy.deepcopy(table)
        for axis, value in axes.items():
            choices = sweep[axis]
            for key, own in (choices[value] if isinstance(choices, Mapping) else {axis: value}).items():
                assign(cell, key, own)
        name = _cell_name(axes, named)
        if name in cells:
            raise RecipeError(f"{path}: sweep has two cells called {name!r}: list values whose names differ")
        cells[name] = parse_recipe(cell, str(path))
        if equal := [other for other in cells if other != name and cells[other] == cells[name]]:
            raise RecipeError(
                f"{path}: sweep has the cells {equal[0]!r} and {name!r}, which are the same recipe: leave one out"
            )
    return cells


def parse_recipe(table: Table, where: str) -> Recipe:
    """Check a recipe given as a plain table, which is not changed; `where` names it in errors.

    `[train]` and the other `DEFAULTS` at the top are merged into each member here.

    Raises:
        RecipeError: a key or value is wrong, or tables contradict each other.
    """
    defaults = {key: table[key] for key in DEFAULTS if key in table}
    members = table.get("member", {})
    if not isinstance(members, dict) or not all(isinstance(member, dict) for member in members.values()):
        raise RecipeError(f"{where}: members are tables such as [member.unet]")
    merged = {key: value for key, value in table.items() if key not in defaults}
    merged["member"] = {name: _merge(defaults, member) for name, member in members.items()}
    recipe = validate(Recipe, merged, where, lambda at: _written(at, defaults, members))
    check_recipe(recipe, expand(recipe, where), where)
    return recipe


def resolved(recipe: Recipe) -> Table:
    """The recipe with every default written out: a JSON-able table that `parse_recipe` reads back equal."""
    return typing.cast(Table, json.loads(recipe.model_dump_json()))


def expand(recipe: Recipe, where: str = "recipe") -> tuple[Member, ...]:
    """The recipe's members with grids expanded, each after the members that it needs.

    Raises:
        RecipeError: a grid key or a needed member does not exist, a grid is empty, two members would have one name,
            or members need each other in a circle.
    """
    drafts = [draft for base, config in recipe.member.items() for draft in _expand_grid(base, config, where)]
    names = [draft.name for draft in drafts]
    if twice := [name for name in names if names.count(name) > 1]:
        raise RecipeError(f"{where}: two members are called {twice[0]!r}: list grid values whose names differ")
    linked = {draft.name: _link(draft, drafts, where) for draft in drafts}
    ordered: dict[str, Member] = {}
    while len(ordered) < len(linked):
        ready = [m for m in linked.values() if m.name not in ordered and set(m.needs) <= set(ordered)]
        if not ready:
            circle = ", ".join(name for name in linked if name not in ordered)
            raise RecipeError(f"{where}: members need each other in a circle: {circle}")
        ordered |= {member.name: member for member in ready}
    return tuple(ordered.values())


def validate(model: type[M], table: Table, where: str, written: Callable[[Location], Location] = lambda at: at) -> M:
    """Build a pydantic model from a table as TOML and JSON give it, with errors that name the key and its neighbours.

    `written` says where the reader wrote what stands at a place of `table`.

    Raises:
        RecipeError: one line for each thing that is wrong.
    """
    try:
        text = json.dumps(table, allow_nan=False)
    except (TypeError, ValueError) as error:  # TOML has dates, inf and nan
        raise RecipeError(
            f"{where}: a value is no text, finite number, true, false, list or table ({error})"
        ) from error
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        lines = dict.fromkeys(_explain(model, dict(problem), written) for problem in error.errors())
        raise RecipeError("\n".join(f"{where}: {line}" for line in lines)) from error


def _read(path: Path, overrides: Sequence[str]) -> Table:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}") from error
    table.setdefault("name", _name(path))
    override(table, overrides)
    return table


def _name(path: Path) -> str:
    """What a recipe without a name is called: after its file, or, of the copy that a run keeps, as the run calls it."""
    config = path.with_name(CONFIG)
    if path.name != COPY or not config.is_file():
        return path.stem
    return str(read_json(config).get("name", path.stem))


def _merge(defaults: Table, table: Table) -> Table:
    """`table` laid over `defaults`, tables within tables merged key by key."""
    merged = dict(defaults)
    for key, value in table.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _written(location: Location, defaults: Table, members: Table) -> Location:
    """Where a recipe writes what stands at `location` of its merged table: what members share stands at the top."""
    if len(location) < 3 or location[0] != "member" or location[2] not in defaults:
        return location
    own: Any = members[str(location[1])]
    for part in location[2:]:
        if not isinstance(own, dict):
            return location
        if part not in own:
            return location[2:]
        own = own[part]
    return location


def _expand_grid(base: str, config: MemberConfig, where: str) -> Iterator[Member]:
    table = json.loads(config.model_dump_json())
    for axes in _cells(table.pop("grid"), f"{where}: member.{base}.grid"):
        cell = copy.deepcopy(table)
        for key, value in axes.items():
            assign(cell, key, value)
        name = "-".join((base, _cell_name(axes))) if axes else base
        checked = validate(MemberConfig, cell, f"{where}: member.{base}.grid")
        yield Member(name, base, axes, checked, checked.needs, checked.init, checked.features)


def _cells(axes: Mapping[str, Collection[Any]], where: str) -> Iterator[dict[str, Any]]:
    """Every combination of the axes' values; one without axes where there are none."""
    if empty := [key for key, values in axes.items() if not values]:
        raise RecipeError(f"{where}: {empty[0]} lists no values: give one or more, or leave it out")
    yield from (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))


def _cell_name(axes: Mapping[str, Any], named: Collection[str] = ()) -> str:
    """A folder name for a cell: the last part of each key and its value, such as `seed0` or `normalise-source`.

    Values on the axes in `named` are names already.
    """
    parts = []
    for key, value in axes.items():
        text = "".join(c if c.isalnum() or c in "._" else "-" for c in str(value)).strip("-")
        parts.append(text if key in named else key.rsplit(".", 1)[-1] + ("" if text[:1].isdigit() else "-") + text)
    return "-".join(parts)


def _link(draft: Member, drafts: Sequence[Member], where: str) -> Member:
    """Resolve `needs`, and `init` and `features` of "member:x", to the expanded members that agree on the axes they share."""
    needs = [name for base in draft.needs for name in _agreeing(draft, base, drafts, where)]
    links = {"init": draft.init, "features": draft.features}
    for key, wanted in links.items():
        if wanted and wanted.startswith("member:"):
            found = _agreeing(draft, wanted.removeprefix("member:"), drafts, where)
            if len(found) != 1:
                base = wanted.removeprefix("member:")
                raise RecipeError(f"{where}: member.{draft.base}.{key} {base!r} stands for {len(found)} members")
            links[key] = f"member:{found[0]}"
            needs += found
    return replace(draft, needs=tuple(dict.fromkeys(needs)), init=links["init"], features=links["features"])


def _agreeing(draft: Member, base: str, drafts: Sequence[Member], where: str) -> list[str]:
    others = [other for other in drafts if other.base == base]
    if not others:
        known = sorted({other.base for other in drafts})
        raise RecipeError(f"{where}: member.{draft.base} needs {base!r}{did_you_mean(base, known)}")
    agreeing = [
        o.name for o in others if all(o.axes[key] == draft.axes[key] for key in o.axes.keys() & draft.axes.keys())
    ]
    if not agreeing:
        raise RecipeError(f"{where}: {draft.name} needs {base!r}, but no {base!r} agrees with it on {dict(draft.axes)}")
    return agreeing


def _explain(model: type[BaseModel], problem: Mapping[str, Any], written: Callable[[Location], Location]) -> str:
    location = problem["loc"]
    key = ".".join(str(part) for part in written(location)) or "recipe"
    if problem["type"] == "extra_forbidden":
        return f"there is no key {key!r}{did_you_mean(str(location[-1]), _fields_at(model, location[:-1]))}"
    message = problem["msg"].removeprefix("Value error, ")
    given = "" if isinstance(problem["input"], dict) else f" (given: {problem['input']!r})"
    return f"{key}: {message}{given}"


def _fields_at(model: type[BaseModel], location: Sequence[str | int]) -> tuple[str, ...]:
    """The keys that the table at `location` of a recipe may hold."""
    named = False  # the next part is a name that the recipe gives, such as that of a member
    for part in location:
        if not named and part in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
            named = typing.get_origin(annotation) is Mapping
            model = next(_models_in(annotation), model)
        else:
            named = False
    return (*model.model_fields, *(DEFAULTS if model is Recipe else ()))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
