"""The exception for users' mistakes."""


class UserError(Exception):
    """A mistake in the user's input. The message is one line: `place: what is wrong; what to do`.

    The command line prints it on standard error and exits with status 1, without a traceback.
    """
