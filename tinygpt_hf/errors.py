"""What a user can cause is a `UsageError`: one line, no traceback, exit status 2."""


class UsageError(Exception):
    """A mistake a user can make and mend: what was seen; what was wanted; what to do.

    >>> str(UsageError("--block_size is 0", "it must be at least 1", "try --block_size 128"))
    '--block_size is 0; it must be at least 1; try --block_size 128'
    """

    def __init__(self, seen: str, wanted: str, what_to_do: str):
        self.seen, self.wanted, self.what_to_do = seen, wanted, what_to_do
        super().__init__(f"{seen}; {wanted}; {what_to_do}")


class UsageErrors(UsageError):
    """Several mistakes found in one check, reported together, one line each."""

    def __init__(self, errors: list[UsageError]):
        self.errors = errors
        Exception.__init__(self, "\n".join(str(error) for error in errors))


class RunError(Exception):
    """A failure at run time that is nobody's wrong input (disk full, NaN, damaged file): one line, exit status 1."""


class Interrupted(Exception):
    """A signal asked the work to end; what could be saved is saved. `exit_status` is 130 for Ctrl-C, else 143."""

    def __init__(self, message: str, signal: int):
        self.exit_status = 130 if signal == 2 else 143
        super().__init__(message)
