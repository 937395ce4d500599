"""Errors that end a run. Each message tells the user what is wrong, where, and what to do."""

import signal

_MAX_TEXT = 500  # characters of an error


def error_text(error: BaseException) -> str:
    """`KeyError: 'x'`, in at most 500 characters; without what it says if it can't say it."""
    try:
        text = ": ".join(filter(None, [type(error).__name__, str(error)]))
    except Exception:  # its own __str__ fails
        text = type(error).__name__
    return text[:_MAX_TEXT]


def file_error(error: OSError) -> str:
    """`there is no file x.jsonl`; another error as the system says it."""
    return f"there is no file {error.filename}" if isinstance(error, FileNotFoundError) else str(error)


class RunError(Exception):
    """The run can't go on. `status` is the exit status of a command that it ends."""

    status = 1


class ConfigError(RunError, ValueError):
    """A config that can't run; one line that names the key."""

    status = 2


class FunctionError(RunError, ValueError):
    """A function of the user's own that failed, with its file and line."""


class InUseError(RunError):
    """Another process holds the lock of the folder."""


class CheckpointError(RunError):
    """A checkpoint that can't be written or read."""


class DivergedError(RunError):
    """Too many updates in a row were not finite."""


class PreemptedError(RunError):
    """A signal asked the run to stop, and its state is saved. The status is the shell's: 143 for SIGTERM."""

    def __init__(self, number: signal.Signals, what: str):
        super().__init__(f"{number.name}: saved {what} and stopped; run the same command again to continue")
        self.status = 128 + number
