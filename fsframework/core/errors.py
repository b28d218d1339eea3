"""The exceptions for users' mistakes."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in the user's input. The message is one line: `place: what is wrong; what to do`.

    The command line prints it on standard error and exits with status 1, without a traceback.
    """


def did_you_mean(name: str, names: Iterable[str], otherwise: str = "") -> str:
    """Return "did you mean X?" with the closest of the names, or `otherwise` if none is close."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {close[0]}?" if close else otherwise


class EmptySplitError(UserError):
    """Nobody is in the requested split of a data set. A mixture of data sets omits such a part from its test split."""
