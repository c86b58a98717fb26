"""The errors a user can cause. Each message says what, where, and what to do about it."""

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class L4SError(ValueError):
    """Anything a user can put right: the command line prints the message without a traceback."""


class RecipeError(L4SError):
    """A recipe, or an override of it, cannot mean anything."""


class DataError(L4SError):
    """A file, a folder or an array is not what it should be."""


class RunError(L4SError):
    """A step cannot run: something earlier is missing, or training went wrong."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """What to say after an unknown word: the nearest known one where there is one, and all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    return (f", did you mean {near[0]!r}?" if near else "") + f" (there are: {', '.join(known) or 'none'})"


def chosen(what: str, table: Mapping[str, F], name: str, options: Iterable[str], given: Collection[str] = ()) -> F:
    """The function that a recipe names in a table of them, which has all of these options.

    Args:
        what: the function is, for errors: "loss" or "task".
        given: its parameters that are no options of a recipe.

    Raises:
        RecipeError: there is no such function, or it has no such option.
    """
    if name not in table:
        raise RecipeError(f"{what} {name!r} does not exist{did_you_mean(name, table)}")
    parameters = inspect.signature(table[name]).parameters.values()
    known = [each.name for each in parameters if each.kind is not each.POSITIONAL_ONLY and each.name not in given]
    if unknown := [option for option in options if option not in known]:
        raise RecipeError(f"{what} {name!r} has no option {unknown[0]!r}{did_you_mean(unknown[0], known)}")
    return table[name]


@contextmanager
def refusals(what: str, options: Mapping[str, object]) -> Iterator[None]:
    """Turn a TypeError of what is called with a recipe's options into a RecipeError that names both."""
    try:
        yield
    except TypeError as error:
        raise RecipeError(f"{what} refuses {dict(options)}: {error}") from error
