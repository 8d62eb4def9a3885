"""The one error a user can mend."""


class UserError(ValueError):
    """A mistake of the user's or of their files: the command line prints its text, without a traceback."""
