"""The one kind of error that is meant for the person at the keyboard."""


class UserError(Exception):
    """Something the user can mend; the message is one line that names what is wrong and the remedy."""


def reason_of(error: Exception) -> str:
    """The first line of what a file system or Arrow says."""
    return getattr(error, "strerror", None) or str(error).splitlines()[0]
