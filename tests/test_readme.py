"""Nothing that a page shows may be wrong: its commands parse, its recipes load, the files it names are there."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from l4s.cli import app
from l4s.load import load_cells, shipped

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "recipes/README.md", "submissions/README.md")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LAUNCHERS = {
    "l4s": r"",
    "uv run": r"uv run (--extra \w+ )*",
    "python -m": r"python3? -m ",
    "accelerate": r"accelerate launch (--\w+( [\w.]+)? )*-m ",
    "torchrun": r"(srun )?torchrun (--[\w-]+ [\w.:]+ )*-m ",
}
L4S = re.compile(rf"(\w+=\S+ )*({'|'.join(LAUNCHERS.values())})l4s( (?P<arguments>.*))?")
OTHERS = re.compile(
    r"(cd|export|python3? -m (venv|pip|pytest)|pip|pytest|uv (venv|pip|run .*pytest)|\.ci/run|sha256sum)\b.*|\. .*"
)


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return [text for found, text in FENCE.findall((ROOT / page).read_text()) if found == language]


def lines(block: str) -> Iterator[str]:
    """The commands of a bash block: continued lines joined, comments dropped, `&&` taken apart."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        yield from filter(None, (part.strip() for part in shlex.join(words).replace("'&&'", "&&").split("&&")))


def parse(arguments: str) -> dict[str, Any]:
    """The values that a command line gives to a command's parameters; the command is not run."""
    command, words = typer.main.get_command(app), shlex.split(arguments)
    words = words[: words.index(">")] if ">" in words else words
    while getattr(command, "commands", None):
        name = words.pop(0) if words else "(nothing)"
        if name == "--help":
            return {}
        if name not in command.commands:
            raise ValueError(f"there is no command {name!r} beside {', '.join(command.commands)}")
        command = command.commands[name]
    return dict(command.make_context(command.name, words).params)


def shown() -> list[tuple[str, str]]:
    """Page and command line of everything in a bash block."""
    return [(page, line) for page in PAGES for block in blocks(page, "bash") for line in lines(block)]


def recipes_shown() -> dict[str, dict[str, Any]]:
    """The recipes that pages print, by the file name in their first line."""
    found = {}
    for page in PAGES:
        for block in blocks(page, "toml"):
            if title := re.match(r"# (\w[\w-]*\.toml)\b", block):
                found[title[1]] = tomllib.loads(block)
    return found


@pytest.mark.parametrize(("page", "line"), shown())
def test_every_command_parses(page: str, line: str, tmp_path: Path) -> None:
    match = L4S.fullmatch(line)
    if match is None:
        assert OTHERS.fullmatch(line), f"{page} shows {line!r}, which is no command that is known here"
        return
    values, known = parse(match["arguments"] or "--help"), recipes_shown()
    named = values.get("recipe")
    if named is None or values.get("runs") or values.get("images"):  # no recipe is read then
        return
    (recipe,) = named if isinstance(named, list) else [named]
    assert recipe in {*shipped(), *known}, f"{page} uses recipe {recipe!r}, which neither ships nor is shown"
    load_cells(_written(recipe, tmp_path) if recipe in known else recipe, values.get("sets") or ())


@pytest.mark.parametrize("name", recipes_shown())
def test_every_recipe_loads(name: str, tmp_path: Path) -> None:
    from l4s.models import check_options

    for recipe in load_cells(_written(name, tmp_path)).values():
        for member in recipe.member.values():
            check_options(member.model.name, member.model.options)


def _written(name: str, folder: Path) -> Path:
    (text,) = {block for page in PAGES for block in blocks(page, "toml") if block.startswith(f"# {name}")}
    (folder / name).write_text(text)
    return folder / name


def test_pages_show_the_loop() -> None:
    commands = {
        match["arguments"].split()[0] for _, line in shown() if (match := L4S.fullmatch(line)) and match["arguments"]
    }
    assert commands >= {"demo", "run", "train", "predict", "ensemble", "pseudolabel", "submit", "score"}


@pytest.mark.parametrize(
    "arguments",
    [
        "trian l4s-rgb",
        "train l4s-rgb --rounds 1",
        "train l4s-rgb --round -1",
        "train l4s-rgb --round one",
        "pseudolabel l4s-rgb --round 0",
        "run one.toml two.toml",
        "submit",
    ],
)
def test_a_wrong_command_does_not_parse(arguments: str) -> None:
    with pytest.raises(Exception, match=r"\w"):  # typer's own errors, of which each version has other classes
        parse(arguments)


def test_commands_are_found() -> None:
    block = "# a comment\nl4s train x \\\n    --round 1   # the next\nA=1 uv run --extra dev l4s run y && cd z\n\n"
    found = list(lines(block))
    assert found == ["l4s train x --round 1", "A=1 uv run --extra dev l4s run y", "cd z"]
    assert [match and match["arguments"] for match in map(L4S.fullmatch, found)] == ["train x --round 1", "run y", None]
    assert OTHERS.fullmatch("l4 train") is None
    assert OTHERS.fullmatch("accelerate launch l4s run") is None
    launched = L4S.fullmatch("accelerate launch --multi_gpu --num_processes 4 -m l4s run x")
    assert launched and launched["arguments"] == "run x"


def listed() -> dict[str, str]:
    """What `Where things live` says: path -> its line."""
    section = (ROOT / "README.md").read_text().split("## Where things live")[1].split("\n## ")[0]
    return dict(re.findall(r"^(\S+\.\w+|\.ci/run|LICENSE|\S+/) {2,}(\S.*)$", section, re.MULTILINE))


def test_every_module_is_in_where_things_live() -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "l4s").rglob("*.py") if path.read_text().strip()}
    named = {path for path in listed() if path.startswith("l4s/") and path.endswith(".py")}
    assert modules - named == set(), "missing in README.md, Where things live"
    assert named - modules == set(), "in README.md, Where things live, but not there"


def test_everything_else_there_exists() -> None:
    assert len(listed()) > 20
    assert [path for path in listed() if not (ROOT / path).exists()] == []


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def test_names_of_the_library_exist() -> None:
    import l4s

    names = {name for page in PAGES for block in blocks(page, "python") for name in re.findall(r"\bl4s\.(\w+)", block)}
    assert names
    assert names <= set(l4s.__all__)


def test_every_shipped_recipe_is_described() -> None:
    rows = set(re.findall(r"^\| \[`([\w-]+)`\]", (ROOT / "recipes/README.md").read_text(), re.MULTILINE))
    assert rows == set(shipped())


def test_the_keys_of_a_card_are_described() -> None:
    from l4s.submit import SubmissionCard

    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "submissions/README.md").read_text(), re.MULTILINE)
    assert table == [field.name for field in fields(SubmissionCard)]
