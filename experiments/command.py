"""Common code of the commands: flags, `--help`, and one-line errors."""

import contextlib
import inspect
import itertools
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

from absl import flags, logging
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

from rlvr_jax.config import Config, check_key, from_dict, overridden
from rlvr_jax.errors import ConfigError, PreemptedError, RunError
from rlvr_jax.parallel import Processes, connected
from rlvr_jax.parallel.host import keep_freed_memory, same_kernels_each_time
from rlvr_jax.reporting import files
from rlvr_jax.verifiers.pool import Pool, make_pool

from . import builtin
from .cli import show, table

FLAGS = flags.FLAGS
_POLICY = ("pretrained=FOLDER_OR_HUB_ID", "policy.lora.rank=32")
_TASKS = "tasks=\"{'gsm8k': {}, 'math': {'weight': 0.5}}\""
_ANSWERS = (_TASKS, "pretrained=FOLDER_OR_HUB_ID", "rollout.max_response_length=512")
OVERRIDES = {  # examples for the page of a command, by its name: keys and values
    "train": (
        "seed=1",
        "training.num_steps=200",
        "rollout.prompts=32",
        "rollout.group_size=16",
        "algorithm.preset=dapo",
        "optimizer.learning_rate=1e-6",
        *_POLICY,
        "evaluation.every=20",
        "mesh.fsdp=-1",
        _TASKS,
        "reward=\"(('score', 1.0), ('length', -0.001))\"",
    ),
    "sft": (
        "seed=1",
        "sft.num_steps=1000",
        "sft.batch_size=128",
        "sft.optimizer.learning_rate=1e-4",
        *_POLICY,
        "mesh.fsdp=-1",
        "sft.sources=\"{'mine': {'file': 'chats.jsonl'}}\"",
    ),
    "prefer": (
        "seed=1",
        "preferences.sources=\"{'mine': {'file': 'pairs.jsonl'}}\"",
        "preferences.loss=bradley_terry",
        "preferences.beta=0.1",
        "preferences.num_steps=1000",
        "preferences.optimizer.learning_rate=5e-7",
        "init_from=WORKDIR",
        *_POLICY,
        "mesh.fsdp=-1",
    ),
    "sample": (*_ANSWERS, "reward_models=\"{'rm': 'WORKDIR'}\"", "reward=\"(('rm', 1.0),)\""),
    "evaluate": (*_ANSWERS, "policy.dtype=bfloat16", "verifier.timeout=20"),
    "pairs": (*_ANSWERS, "reward_models=\"{'rm': 'WORKDIR'}\""),
    "synthesize": (*_ANSWERS, "verifier.timeout=20"),
    "sweep": ("training.num_steps=200", "sft.num_steps=1000", "rollout.prompts=32", "evaluation.every=20"),
    "compile": (
        "rollout.prompts=256",
        "mesh.fsdp=32",
        "mesh.rollout_tensor=4",
        "optimizer.microbatches=16",
        "policy.remat=full",
        "policy.head_chunk=512",
        "policy.lora.rank=32",
    ),
    "keys": ("rollout.slots=32", "algorithm.preset=dapo"),
    "decontaminate": (_TASKS, "data.manual_dir=data"),
}


class _Tuple(flags.ArgumentParser):
    """Tuples as ml_collections reads them. With its own parser all values of a repeated flag would be joined; with any
    other one the last counts, as for the other types."""

    def parse(self, argument: Any) -> tuple[Any, ...]:
        return tuple_parser.TupleParser().parse(argument)


config_flags.register_flag_parser_for_type(tuple, _Tuple())


def define(config: bool = True, workdir: str = "Folder of the run. The same command in the same folder continues it."):
    """Defines the common flags."""
    if config:
        config_flags.DEFINE_config_file(
            "config", None, "Name of a built-in config, path of a file like them, or RUN/config.json."
        )
    if workdir:
        flags.DEFINE_string("workdir", None, workdir)


def define_processes() -> None:
    """Defines the flags of a command that can run in several processes."""
    flags.DEFINE_string(
        "coordinator", None, "HOST:PORT of process 0 of several; 'auto' to find it out (TPU pods, GKE, Slurm)."
    )
    flags.DEFINE_integer("num_processes", None, "Number of processes, with --coordinator=HOST:PORT.")
    flags.DEFINE_integer("process_id", None, "Of this process, from 0, with --coordinator=HOST:PORT.")


def run(main: Callable[..., None], required: tuple[str, ...] = ("config", "workdir"), arguments: str = "") -> None:
    """Parses the command line and calls `main`. Errors of the user are one line on stderr, without traceback.

    With a name for arguments that are no flags, `main` is called with them.
    """
    program = name_of(main)
    if {"-h", "-help", "--help"} & set(sys.argv[1:]):
        show(_usage(main, program, required, arguments))
        return
    try:
        sys.argv[1:] = _config_first(sys.argv[1:])
        rest = FLAGS([sys.argv[0], *map(builtin.resolve, sys.argv[1:])])[1:]
        missing = [f"--{name}" for name in required if not FLAGS[name].value]
        unknown = "" if arguments else next(iter(rest), "")
        if unknown or missing:
            raise flags.Error(f"unknown argument {unknown!r}" if unknown else f"{' and '.join(missing)} must be given")
        if "config" in FLAGS and FLAGS.config is not None:
            FLAGS.config.to_dict()  # raises the error of a file that could not be loaded
    except (Exception, SystemExit) as error:  # also what a config file raises
        _fail(f"{_message(error, sys.argv[1:])} (see {program} --help)", 2)
    logging.set_verbosity(logging.FATAL)  # Orbax logs every file that it writes, and errors that it also raises
    keep_freed_memory()
    same_kernels_each_time()
    # Suppresses further errors of threads that still read a damaged checkpoint, or write one to a full disk.
    sys.unraisablehook = lambda _: None
    getLogger("asyncio").setLevel("CRITICAL")
    try:
        main(*rest)
    except PreemptedError as error:
        _stop(str(error), error.status)
    except RunError as error:
        _fail(str(error), error.status)
    except OSError as error:
        _fail(str(error), 1)
    except MemoryError as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        _fail(f"this machine has too little memory ({where}); take smaller batches, fewer slots or problems", 1)
    except KeyboardInterrupt:
        _stop("interrupted; run the same command again to continue from the last checkpoint", 130)


def name_of(main: Callable[[], None]) -> str:
    """The command line name of `main`: `rlvr train`, or `python -m experiments.train`."""
    return sys.argv[0] if sys.argv[0].startswith("rlvr ") else f"python -m {main.__globals__['__spec__'].name}"


def config() -> Config:
    """The config of the command line."""
    # They are applied already, but for the effect of a preset.
    return from_dict(overridden(FLAGS.config.to_dict(), overrides("algorithm.")))


def overrides(prefix: str) -> dict[str, Any]:
    """The overrides of the command line whose keys begin so."""
    given = config_flags.get_override_values(FLAGS["config"])
    return {key: value for key, value in given.items() if key.startswith(prefix)}


def workdir() -> Path:
    """The folder of the command line."""
    return Path(FLAGS.workdir).expanduser()


def file_to_write(
    flag: str, value: str | Path | None, beside: Sequence[str] = (), read: Sequence[Path] = ()
) -> Path | None:
    """The path of a flag whose file is written once all work is done, or None without one.

    Args:
      flag: its name.
      value: its value.
      beside: suffixes of further files that are written beside it.
      read: the files that the command reads.

    Raises:
      ConfigError: no file can be written there, or only over one that is needed.
    """
    if not value:
        return None
    path = Path(value).expanduser()
    if not path.parent.is_dir():
        raise ConfigError(f"--{flag}={path}: there is no folder {path.parent}")
    if path.is_dir():
        raise ConfigError(f"--{flag}={path} is a folder; name a file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"--{flag}={path} is not writable")
    for file in (path, *map(path.with_suffix, beside)):
        keep_run(flag, file)
        if file.resolve() in [x.resolve() for x in read]:
            raise ConfigError(f"--{flag}={path} would overwrite {file}, which is read; choose another name")
    return path


def keep_run(flag: str, file: Path) -> None:
    """Raises ConfigError if a flag would overwrite a file that a run needs."""
    file = file.resolve()
    if not (file.parent / "config.json").exists():
        return
    from rlvr_jax.training.workdir import is_of_a_run  # here: it takes seconds

    if is_of_a_run(file):
        raise ConfigError(f"--{flag} would overwrite {file}, of the run there; choose another name")


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Writes the results of a command, which may have taken hours, as its last act.

    Each file that can't be written, because its disk is full, goes into a temporary folder instead, and if that is full
    as well, what is text goes to stdout.

    Raises:
      RunError: a file could not be written; it says where its content is.
    """
    told, folder = [], None
    for path, data in contents.items():
        try:
            files.replace(path, data)
            continue
        except OSError as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            reason = cause.strerror or cause
        try:
            folder = folder or Path(tempfile.mkdtemp(prefix="rlvr-"))
            files.replace(folder / path.name, data)
            where = f"is in {folder / path.name}"
        except OSError:
            text = path.suffix != ".png"
            where = "is on stdout" if text else "is lost"
            if text:
                print(data.decode(errors="replace"))
        told.append(f"cannot write {path}: {reason}; its content {where}")
    if told:
        raise RunError(". ".join(told))


def pool(config: Config) -> Pool:
    """The verifier processes of a config. Start them before JAX touches a device."""
    return make_pool(config.verifier)


def processes() -> contextlib.AbstractContextManager[Processes]:
    """The processes of this command, connected. Before JAX touches a device."""
    return connected(FLAGS.coordinator or "", FLAGS.num_processes, FLAGS.process_id)


def _config_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--config=NAME` before its overrides, as ml_collections requires; the last of several counts.

    It may also be `--config NAME`.
    """
    chosen, others, rest = [], [], iter(arguments)
    for argument in rest:
        if argument == "--":
            others.append(argument)
            break
        flag, equals, _ = argument.partition("=")
        if flag not in ("--config", "-config"):
            others.append(argument)
        else:
            chosen = [argument if equals else "=".join([flag, *itertools.islice(rest, 1)])]
    return [*chosen, *others, *rest]


def _usage(main: Callable[..., None], program: str, required: tuple[str, ...], arguments: str) -> str:
    shared, own = FLAGS.flags_by_module_dict().get(__name__, []), FLAGS.get_flags_for_module(sys.argv[0])
    lines = {
        f"--{flag.name}": flag.help + (" Required." if flag.name in required else _default(flag.default))
        for flag in [*shared, *own]
    }
    page = [
        f"usage: {program} [flags]{f' {arguments}' if arguments else ''}\n",
        inspect.cleandoc(main.__globals__["__doc__"]),
        "\nflags:",
        *table(lines),
    ]
    if "config" in FLAGS:
        own = OVERRIDES[main.__globals__["__spec__"].name.rpartition(".")[2]]
        page += ["\noverrides, for example (`rlvr keys` lists every key):", *(f"  --config.{x}" for x in own)]
        page += ["\nbuilt-in configs:", *table(builtin.summaries())]
    return "\n".join(page)


def _default(value: object) -> str:
    return "" if value is None or value == "" or value == [] else f" Default: {value}."


_WORDS = {  # of absl and ml_collections, for a value of the wrong type
    r"invalid literal for int\(\) with base 10: (.*)": r"must be an integer, not \1",
    r"could not convert string to float: (.*)": r"must be a number, not \1",
    r"\('Non-boolean argument to boolean flag', (.*)\)": r"must be True or False, not \1",
    r"Failed to parse .* as a ConfigDict: .*": "is no Python literal of a dictionary",
}


def _message(error: BaseException, arguments: Sequence[str]) -> str:
    for argument in arguments:
        name, *_ = argument.lstrip("-").partition("=")
        try:
            if name == "config":
                builtin.made(builtin.resolve(argument).partition("=")[2])
            elif name.startswith("config."):
                check_key(name.removeprefix("config."))
        except ConfigError as found:
            return str(found)
        except ValueError:  # of `resolve`, which is `error`
            break
    names = [argument.lstrip("-").partition("=")[0] for argument in arguments]
    overriding = next((name for name in names if name.startswith("config.")), None)
    if overriding and "config" in FLAGS and "config" not in names:
        return f"--{overriding} changes a key of --config, which is not given"
    if isinstance(error, AttributeError | KeyError):  # from ml_collections, one in the other
        text = str(error.args[0].args[0] if isinstance(error.args[0], KeyError) else error.args[0])
        name, _, proposal = text.partition("\n")
        return f"config: there is no key {name}. {proposal}".strip(" .")
    # The error of a config file has several lines, the last of which ends with the reason.
    text = (str(error).splitlines() or [type(error).__name__])[-1].rpartition("failure to load: ")[2].strip()
    for pattern, words in _WORDS.items():
        text = re.sub(pattern, words, text)
    return text


def _fail(message: str, status: int) -> None:
    _stop("error: " + " ".join(line.strip() for line in message.splitlines()), status)


def _stop(message: str, status: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(status)
