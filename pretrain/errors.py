"""What a user did wrong, said in one line."""


class UserError(Exception):
    """A mistake that the user can mend: what is wrong, the value, and the mend, in one line.

    Commands print the message without a traceback and exit with code 2.
    """
