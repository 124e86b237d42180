"""Errors for users."""


class UserError(Exception):
    """An error that the user can fix; the message is one line with the cause and the remedy."""


def reason_of(error: Exception) -> str:
    """The first line of the message of a file system or Arrow."""
    return getattr(error, "strerror", None) or str(error).splitlines()[0]
