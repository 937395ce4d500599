"""Errors that end a run. Each message tells the user what is wrong, where, and what to do."""

import signal


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
