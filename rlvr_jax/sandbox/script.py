"""A program run as a script: standard input in, standard output out."""

import os
import select
from dataclasses import dataclass

from rlvr_jax.sandbox.host import JobError, Limits, Sandbox

_ERROR_BYTES = 16 << 10  # of standard error that are kept; the rest is read and dropped


@dataclass(frozen=True)
class Output:
    """The outcome of a script.

    Attributes:
      stdout: all that it printed.
      stderr: the beginning of what it wrote there; an exception that ended it is the last line.
      failure: None if it ended by itself with exit status 0, otherwise why not.
      timed_out: whether it came to its limit of CPU or wall time.
    """

    stdout: bytes
    stderr: bytes
    failure: str | None
    timed_out: bool = False


def run_script(sandbox: Sandbox, program: str, stdin: bytes, limits: Limits) -> Output:
    """Runs the program to its end, within the limits; nothing of it is left after that.

    Raises:
      CodecError: the program is longer than a message can be.
      SandboxError: the sandbox broke down.
    """
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    received: dict[int, bytearray] = {out: bytearray(), err: bytearray()}
    failure = None
    try:
        try:
            job = sandbox.job("script", limits, (out_end, err_end), stdin)
        finally:
            os.close(out_end)
            os.close(err_end)
        with job:
            try:
                job.send({"program": program})
                waiting = {out, err}
                while waiting:
                    for file in job.wait(dict.fromkeys(waiting, select.POLLIN)):
                        data = os.read(file, 1 << 16)
                        if not data:
                            waiting.remove(file)
                        elif file == err:
                            received[err] += data[: _ERROR_BYTES - len(received[err])]
                        else:
                            received[out] += data
                    if len(received[out]) > limits.output_bytes:
                        raise JobError(f"printed more than {limits.output_bytes} bytes")
                ending = job.ending()
                failure = None if job.end()["code"] == 0 else ending
            except JobError as error:
                failure = str(error)
    finally:
        os.close(out)
        os.close(err)
    return Output(bytes(received[out]), bytes(received[err]), failure, "timed out" in (failure or ""))
