"""The one kind of error that is meant for the person at the keyboard."""


class UserError(Exception):
    """Something the user can mend; the message is one line that names what is wrong and the remedy."""
