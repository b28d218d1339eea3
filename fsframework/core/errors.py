"""The exceptions for users' mistakes."""


class UserError(Exception):
    """A mistake in the user's input. The message is one line: `place: what is wrong; what to do`.

    The command line prints it on standard error and exits with status 1, without a traceback.
    """


class EmptySplitError(UserError):
    """Nobody is in the requested split of a data set. A mixture of data sets omits such a part from its test split."""
