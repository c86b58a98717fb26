"""`l4s bench`."""

from pathlib import Path
from typing import Annotated

import typer

from l4s.cli import loop, show


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(bench)


def bench(
    recipe: loop.Recipe = None,
    data: loop.Data = None,
    members: loop.Members = None,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps of each kind.")] = 20,
    sets: loop.Sets = None,
    device: loop.Device = "auto",
    precision: loop.Precision = "auto",
    workers: loop.Workers = 0,
    cache: loop.Cache = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time training from the cache against the same step on one resident batch."""
    import tempfile

    from l4s.bench import bench as time_member
    from l4s.pipeline import chosen
    from l4s.session import Machine, open_session

    recipe, overrides, place, _ = loop.asked(recipe, sets, data, None)
    with tempfile.TemporaryDirectory() as scratch:
        opened = open_session(recipe, overrides, place, Path(scratch), Machine(device, precision, workers, cache))
        times = [time_member(x, member, steps) for x in opened for member in chosen(x, 0, members or ())]
    if json:
        show.as_json([vars(each) | {"ratio": each.ratio} for each in times])
        return
    rows = [
        (each.member, f"{each.cache:.1f}", f"{each.resident:.1f}", f"{each.ratio:.2f}", _gib(each.memory))
        for each in times
    ]
    header = ("member", "from the cache", "resident batch", "ratio", "GPU memory")
    show.table("patches a second", header, rows)


def _gib(memory: float | None) -> str:
    return "" if memory is None else f"{memory:.1f} GiB"
