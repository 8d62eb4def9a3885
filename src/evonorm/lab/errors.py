"""The one error a user can mend, and those that room on the disk mends."""

import errno


class UserError(ValueError):
    """A mistake of the user's or of their files: the command line prints its text, without a traceback."""


# Nothing is wrong with what was to be written: the disk, the quota or the largest file is full, or it is read only.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
