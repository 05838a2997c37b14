"""Which processes live. Standard library only, because served models and worker processes import this."""

import os


def lives(pid: int) -> bool:
    """Whether a process of this number runs on this machine, also one of another user."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
