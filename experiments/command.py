"""What the commands of this folder share: `--config`, `--workdir`, and errors as one line."""

import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from rlvr_jax.config import Config, from_dict
from rlvr_jax.errors import RunError
from rlvr_jax.parallel.host import keep_freed_memory

FLAGS = flags.FLAGS


def define(config: bool = True) -> None:
    """The flags that most commands have."""
    if config:
        config_flags.DEFINE_config_file("config", None, "Config file; --config.key=value overrides a key of it.")
    flags.DEFINE_string("workdir", None, "Folder of the run. The same command in the same folder continues it.")


def run(main: Callable[[], None], required: tuple[str, ...] = ("config", "workdir")) -> None:
    """Parses the command line and calls `main`. What the user can mend is one line on stderr and no traceback."""
    program = f"python -m {main.__globals__['__spec__'].name}"
    try:
        rest = FLAGS(sys.argv)[1:]
        missing = [f"--{name}" for name in required if not FLAGS[name].value]
        if rest or missing:
            raise flags.Error(f"unknown argument {rest[0]!r}" if rest else f"{' and '.join(missing)} must be given")
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        _fail(f"{_first_line(error)} (see {program} --help)", 2)
    logging.set_verbosity(logging.ERROR)  # Orbax reports every file that it writes
    keep_freed_memory()
    try:
        main()
    except RunError as error:
        _fail(str(error), error.status)
    except OSError as error:
        _fail(str(error), 1)


def config() -> Config:
    """The config of the command line."""
    return from_dict(FLAGS.config.to_dict())


def workdir() -> Path:
    """The folder of the command line."""
    return Path(FLAGS.workdir).expanduser()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    if isinstance(error, AttributeError | KeyError):  # from ml_collections: a key in quotes, perhaps with a proposal
        return "config: unknown key " + " ".join(line.strip("\"'") for line in lines)
    return lines[0] if lines else type(error).__name__


def _fail(message: str, status: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
