"""Which members train in a round, are averaged with each other, and predict which domains together; imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from l4s.recipe import Recipe, Round

if TYPE_CHECKING:
    from l4s.load import Member


def round_of(recipe: Recipe, number: int) -> Round:
    """What the recipe says of a round."""
    return next((entry for entry in recipe.round if entry.round == number), Round(round=number))


def trained(recipe: Recipe, members: Sequence[Member], number: int) -> list[Member]:
    """Those of the members that train in a round: all, or those that its `[[round]]` names."""
    names = round_of(recipe, number).train
    return [member for member in members if not names or member.named(names)]


def group(recipe: Recipe, members: Sequence[Member], member: Member) -> str:
    """The ensemble a member belongs to; "" where there is one.

    Answers to different tasks are never averaged: where the recipe has several, each has an ensemble of its own.

    Args:
        members: all of the recipe.
    """
    several = len({each.config.task.name for each in members}) > 1
    own = member.config.ensemble or (member.config.task.name if several else "")
    axes = [f"{key.rsplit('.', 1)[-1]}-{member.axes[key]}" for key in recipe.ensemble.group_by if key in member.axes]
    return "-".join(filter(None, (own, *axes)))


def by_group(recipe: Recipe, members: Sequence[Member], chosen: Sequence[Member]) -> dict[str, list[Member]]:
    """Those of the members that are `chosen`, by ensemble."""
    groups: dict[str, list[Member]] = {}
    for member in chosen:
        groups.setdefault(group(recipe, members, member), []).append(member)
    return groups


def predicted(recipe: Recipe, members: Sequence[Member] = ()) -> list[str]:
    """Domains that are predicted by all of these members: targets, eval domains and held-out sources."""
    names = [name for name, d in recipe.domain.items() if d.role != "source" or d.holdout.by != "none"]
    return [name for name in names if all(name in (m.config.predicts or names) for m in members)]
