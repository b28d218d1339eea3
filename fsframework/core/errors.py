"""The one exception that users are meant to see."""


class UserError(Exception):
    """A mistake in what the user gave. The message is one line: `place: what is wrong; what to do`.

    The command line prints it on standard error and exits with status 1, without a traceback.
    """
