"""Judges completions of a JSON Lines file with a verifier: one output line per input line, in order.

    rlvr verify --kind=gsm8k --input=completions.jsonl --output=verdicts.jsonl
    cat completions.jsonl | rlvr verify --kind=gsm8k --input=- --output=- > verdicts.jsonl

Input  {"id"?, "completion": text, "reference": what the kind takes}
Output {"id", "score": 0 to 1, "parts": {name: number}, "answer", "reason", "error"}
An invalid line gets an error with its number, the rest is judged. docs/verifiers.md describes both records. The output
file appears once it is complete; until then, and after a failure, OUTPUT.partial holds the verdicts so far. The exit
status is 0 if every line has its verdict or error; stderr counts the errors, and has the first one.
"""

import contextlib
import inspect
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from rlvr_jax.config import VerifierConfig
from rlvr_jax.errors import ConfigError, RunError

from . import command

if TYPE_CHECKING:
    from rlvr_jax.verifiers.pool import Pool

_DEFAULTS = VerifierConfig()
_KIND = flags.DEFINE_string("kind", None, "Kind of verifier, see docs/verifiers.md.")
_INPUT = flags.DEFINE_string("input", None, "JSON Lines to judge; - reads from stdin.")
_OUTPUT = flags.DEFINE_string("output", None, "File of the verdicts, replaced if it exists; - writes to stdout.")
_OPTIONS = flags.DEFINE_string("options", "{}", "Keyword arguments of the verifier, a JSON object.")
_WORKERS = flags.DEFINE_integer(
    "workers", os.cpu_count(), "Verifier processes; 0 judges in this process, without limits."
)
_TIMEOUT = flags.DEFINE_float("timeout", _DEFAULTS.timeout, "Seconds per completion.")
_MEMORY = flags.DEFINE_integer("memory_mib", _DEFAULTS.memory_mib, "Address space of one process.")


def main() -> None:
    from rlvr_jax.reporting.progress import bar
    from rlvr_jax.verifiers.records import encode, judge_lines, line_batches

    kind, options = _kind_and_options()
    if kind == "code":
        _check_sandbox(options)
    done = errors = 0
    score, first = 0.0, ""
    try:
        with (
            _input(_INPUT.value) as file,
            _pool() as pool,
            _output(_OUTPUT.value) as write,
            bar(_count_lines(file), 0, f"verify {kind}", "line") as progress,
        ):
            for lines in line_batches(file):
                records = judge_lines(pool, kind, lines, options, done + 1)
                write(b"".join(map(encode, records)))
                wrong = [(number, x["error"]) for number, x in enumerate(records, done + 1) if x["error"] is not None]
                first = first or next((f"line {n}: {x.removeprefix(f'line {n}: ')}" for n, x in wrong), "")
                done += len(records)
                errors += len(wrong)
                score += sum(record["score"] for record in records)
                progress.update(len(records))
    except KeyboardInterrupt:
        stopped = RunError(f"interrupted after {done} lines" + _whereabouts())
        stopped.status = 130
        raise stopped from None
    except (OSError, RuntimeError) as error:
        raise RunError(f"after {done} lines: {error}" + _whereabouts()) from error
    of = " of the others" if errors else ""
    mean = f", mean score{of} {score / (done - errors):.4f}" if done > errors else ""
    said = f"; the first is {' '.join(first.split())}" if first else ""
    print(f"{done} lines, {errors} of them with an error{mean}{said}", file=sys.stderr)


def _kind_and_options() -> tuple[str, dict[str, Any]]:
    from rlvr_jax import named
    from rlvr_jax.verifiers import verifier_of

    try:
        verifier = verifier_of(_KIND.value)
    except ValueError as error:
        raise ConfigError(f"--kind: {error}") from None
    try:
        options = json.loads(_OPTIONS.value)
    except ValueError as error:
        raise ConfigError(f"--options={_OPTIONS.value}: not valid JSON: {error}") from None
    if not isinstance(options, dict):
        raise ConfigError(f"--options={_OPTIONS.value}: not a JSON object such as {{}}")
    if named.is_name(_KIND.value):
        try:
            named.check_arguments(_KIND.value, "completion", "reference", **options)
        except ValueError as error:
            raise ConfigError(f"--kind: {error}") from None
        return _KIND.value, options
    signature = inspect.signature(verifier)
    try:
        signature.bind("completion", "reference", **options)
    except TypeError as error:
        _, _, *known = signature.parameters
        raise ConfigError(f"--options: {error}; {_KIND.value} takes {', '.join(known) or 'none'}") from None
    return _KIND.value, options


def _check_sandbox(options: dict[str, Any]) -> None:
    """Prints the sandbox engine of this machine, or fails without one, before any program runs."""
    from rlvr_jax.sandbox.engine import open_sandbox
    from rlvr_jax.sandbox.host import SandboxError

    try:
        with open_sandbox(options.get("engine", "auto")) as sandbox:
            print(f"sandbox engine: {sandbox.engine}", file=sys.stderr)
    except (SandboxError, ValueError) as error:
        raise ConfigError(f"--kind=code: {error}") from error


def _pool() -> "Pool":
    from rlvr_jax.verifiers.pool import Pool

    try:
        return Pool(_WORKERS.value, _TIMEOUT.value, _MEMORY.value << 20)
    except ValueError as error:
        raise ConfigError(f"--workers, --timeout or --memory_mib: {error}") from error


@contextlib.contextmanager
def _input(name: str) -> Iterator[io.BufferedIOBase]:
    if name == "-":
        yield sys.stdin.buffer
        return
    path = Path(name).expanduser()
    if _OUTPUT.value != "-" and path.resolve() in (_target(_OUTPUT.value), _partial(_OUTPUT.value)):
        raise ConfigError(f"--output={_OUTPUT.value} would overwrite --input={name}; give the verdicts another file")
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigError(f"--input={name}: {error.strerror}") from error
    with file:
        yield file


def _count_lines(file: io.BufferedIOBase) -> int | None:
    """The number of lines, for the progress bar; None if it is unknown or there is no bar."""
    if not (sys.stderr.isatty() and file.seekable()):
        return None
    count, last = 0, b"\n"
    while block := file.read(1 << 20):
        count, last = count + block.count(b"\n"), block[-1:]
    file.seek(0)
    return count + (last != b"\n")


@contextlib.contextmanager
def _output(name: str) -> Iterator[Callable[[bytes], None]]:
    """A function that writes. A file is called `*.partial` until it is complete."""
    if name == "-":
        yield _write_to_stdout
        return
    path, partial = _target(name), _partial(name)
    if path.is_dir():
        raise ConfigError(f"--output={name} is a folder")
    command.keep_run("output", path)
    try:
        file = partial.open("wb")
    except OSError as error:
        raise ConfigError(f"--output={name}: can't write {partial}: {error.strerror}") from error
    with file:

        def write(data: bytes) -> None:
            file.write(data)
            file.flush()  # readers of the file see complete lines

        yield write
        if partial != path:
            os.fsync(file.fileno())
    partial.replace(path)


def _write_to_stdout(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # avoids an error at interpreter exit
        raise OSError("the reader of the output has gone") from None


def _target(name: str) -> Path:
    """The file of an output; a link is followed."""
    return Path(name).expanduser().resolve()


def _partial(name: str) -> Path:
    """The file until it is complete; what is no file, such as a device, is written to."""
    path = _target(name)
    return path if path.exists() and not path.is_file() else path.with_name(f"{path.name}.partial")


def _whereabouts() -> str:
    return "" if _OUTPUT.value == "-" else f"; their verdicts are in {_partial(_OUTPUT.value)}"


if __name__ == "__main__":
    command.run(main, required=("kind", "input", "output"))
