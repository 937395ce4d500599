"""A program run as a script: standard input in, standard output out."""

import os
import select
from dataclasses import dataclass

from rlvr_jax.sandbox.host import JobError, Limits, Sandbox

_ERROR_BYTES = 16 << 10  # of standard error that are kept


@dataclass(frozen=True)
class Output:
    """The outcome of a script.

    Attributes:
      stdout: all standard output.
      stderr: the beginning of standard error; the last line is an exception that ended the program.
      failure: None if it exited with status 0, otherwise the reason.
      timed_out: whether it hit its limit of CPU or wall time.
    """

    stdout: bytes
    stderr: bytes
    failure: str | None
    timed_out: bool = False


def run_script(sandbox: Sandbox, program: str, stdin: bytes, limits: Limits) -> Output:
    """Runs the program to completion within the limits; no process is left afterwards.

    Raises:
      CodecError: the program is longer than a message may be.
      SandboxError: the sandbox failed.
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
