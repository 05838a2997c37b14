"""What a user can mend, as opposed to a bug of ours."""


class UserError(ValueError):
    """A mistake in parameters or files: its sentence names the thing, the requirement, the value, and what to do next.

    Command lines print the sentence alone. Any other exception is a bug and shows its traceback.
    """


class StoppedError(Exception):
    """Work that was ended early on purpose, with the reason; its run ends KILLED."""
