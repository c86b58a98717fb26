"""The errors a user can cause. Each message says what, where, and what to do about it."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager


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


@contextmanager
def refusals(what: str, options: Mapping[str, object]) -> Iterator[None]:
    """Turn a TypeError of what is called with a recipe's options into a RecipeError that names both."""
    try:
        yield
    except TypeError as error:
        raise RecipeError(f"{what} refuses {dict(options)}: {error}") from error
