"""The errors a user can cause. Each message says what, where, and what to do about it."""


class L4SError(ValueError):
    """Anything a user can put right: the command line prints the message without a traceback."""


class RecipeError(L4SError):
    """A recipe, or an override of it, cannot mean anything."""


class DataError(L4SError):
    """A file, a folder or an array is not what it should be."""


class RunError(L4SError):
    """A step cannot run: something earlier is missing, or training went wrong."""
