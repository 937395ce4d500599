"""The Python interpreter: a cell of code in the sandbox, with its output as in a notebook.

The output is what the cell prints, and the value of its last line if that is an expression. With state the episode's
earlier cells are executed again before, silently: programs of the sandbox are deterministic unless they read the clock
or `os.urandom`, so this gives the state that they left, without a process that lives as long as the episode. A cell
that was ended by a limit is not repeated.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_jax.sandbox.codec import CodecError
from rlvr_jax.sandbox.engine import ENGINES, UNSAFE, discard, sandbox_of_process
from rlvr_jax.sandbox.host import START_SECONDS, Limits, SandboxError, package_folders
from rlvr_jax.sandbox.script import Output, run_script
from rlvr_jax.tools.tool import TOKENS, CallError, Tool

_FAILED = 3  # exit status of a cell that raised
_CELL = """
import ast, contextlib, sys, traceback

class Nowhere:
    def write(self, text):
        return len(text)
    def flush(self):
        pass

def execute(source, name, names, shown):
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), name, "eval"), names)
        if value is not None and shown:
            print(repr(value))

names = {"__name__": "__main__"}
for number, source in enumerate(EARLIER, 1):
    with contextlib.redirect_stdout(Nowhere()), contextlib.redirect_stderr(Nowhere()):
        try:
            execute(source, f"cell {number}", names, False)
        except BaseException:
            pass
try:
    execute(CELL, f"cell {len(EARLIER) + 1}", names, True)
except BaseException as error:
    if isinstance(error, SystemExit) and not error.code:
        raise
    sys.stdout.flush()
    frames = error.__traceback__
    while frames is not None and not frames.tb_frame.f_code.co_filename.startswith("cell "):
        frames = frames.tb_next
    sys.stderr.write("".join(traceback.format_exception(type(error), error, frames)))
    sys.stderr.flush()
    sys.stdout.flush()
    raise SystemExit(STATUS)
"""


def tool(
    state: bool = True,
    engine: str = "auto",
    packages: Sequence[str] = (),
    cpu_seconds: int = 5,
    wall_seconds: float = 5.0,
    memory_bytes: int = 1 << 30,
    output_bytes: int = 1 << 20,
    tokens: int = TOKENS,
) -> Tool:
    """Python code in the sandbox: `python`.

    Args:
      state: names of earlier cells of the episode are known.
      engine, packages: of the sandbox, see `rlvr_jax.sandbox.engine.open_sandbox`.
      cpu_seconds, wall_seconds, memory_bytes, output_bytes: limits of a cell, with state those of all cells together.
      tokens: of the output that are shown.

    Raises:
      ValueError: a limit is out of range, there is no such engine, or a package is not installed.
    """
    if engine not in (choices := ("auto", *ENGINES, UNSAFE)):
        raise ValueError(f"engine must be one of {', '.join(choices)}, not {engine!r}")
    for package in packages:
        package_folders(package)  # for its error
    limits = Limits(cpu_seconds, wall_seconds, memory_bytes, output_bytes)
    code = {"type": "string", "description": "The code; print what you want to see."}
    kept = " Names are kept between calls." if state else " Each call starts anew."
    options = {"engine": engine, "packages": list(packages), "limits": vars(limits)}
    return Tool(
        "python",
        f"Runs Python code and returns what it prints, and the value of the last line.{kept}",
        {"type": "object", "properties": {"code": code}, "required": ["code"]},
        "rlvr_jax.tools.python:run",
        options,
        timeout=2 * (START_SECONDS + limits.longest_seconds),
        tokens=tokens,
        state=state,
        sandbox=(engine, tuple(packages)),
    )


def run(
    code: str,
    engine: str,
    packages: Sequence[str],
    limits: Mapping[str, Any],
    earlier: Sequence[Mapping[str, str]] = (),
) -> str:
    """The output of a cell.

    Raises:
      CallError: it raised ("raised"), or was ended by a limit of time ("timed_out"), memory ("out_of_memory") or output
        ("flood"), or printed what is no text ("binary"); the text has what it printed before.
      SandboxError: no sandbox works on this machine, or it failed twice.
    """
    values = {"EARLIER": [call["code"] for call in earlier], "CELL": code, "STATUS": _FAILED}
    program = "\n".join(f"{name} = {value!r}" for name, value in values.items()) + _CELL
    wanted, bounds = tuple(sorted(packages)), Limits(**limits)
    try:
        try:
            output = run_script(sandbox_of_process(engine, wanted), program, b"", bounds)
        except SandboxError:
            discard(engine, wanted)
            output = run_script(sandbox_of_process(engine, wanted), program, b"", bounds)
    except CodecError as error:
        raise CallError(f"the code can't be run: {error}") from None
    return _read(output)


def _read(output: Output) -> str:
    try:
        printed, errors = output.stdout.decode(), output.stderr.decode(errors="replace").strip()
    except UnicodeDecodeError:
        raise CallError(f"the output is no text ({len(output.stdout)} bytes)", "binary") from None
    if output.failure is None:
        return printed
    if f"exit code {_FAILED}" in output.failure and errors:
        outcome = "out_of_memory" if errors.rpartition("\n")[2].startswith("MemoryError") else "raised"
        raise CallError(printed + errors, outcome)
    outcome = "timed_out" if output.timed_out else "flood" if "printed more" in output.failure else "died"
    kept = "" if outcome == "flood" else printed
    raise CallError(kept + output.failure, outcome)
