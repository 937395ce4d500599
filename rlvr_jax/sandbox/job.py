"""The code in the process of the sandboxed program: loads it, calls it on request, and returns the results.

The program can read and change everything here, so nothing here is worth forging: a job knows the arguments of one call
at a time, never the expected result, and can only return a value.

Requests are `{"do": operation, "args": [value, …], "kw": {name: value}}`. Answers are `{"ok": value}`, with
`"args": [[index, value], …]` if the call has changed what is in its arguments; `{"raised": [names of builtin exception
types], "type", "message"}`; or `{"end": true}`, an iterator's end. During a call the job may call a function that it
got as an argument, by `{"callback": number, "args": [value, …]}`, which is answered like a request.
"""

import _multiprocessing
import _posixsubprocess
import asyncio
import atexit
import builtins
import concurrent.futures
import errno
import operator
import os
import random
import selectors
import site
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

from rlvr_jax.sandbox import codec

CHANNEL = 3  # the file descriptor of the connection to the caller
MAX_MESSAGE = 500  # characters of an exception's message
BINARY = "add sub mul truediv floordiv mod pow matmul and_ or_ xor lshift rshift"
_OTHERS = "neg pos invert abs index getitem setitem delitem"
_OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, *args, **kw: function(*args, **kw),
    "truth": lambda function, *args, **kw: bool(function(*args, **kw)),
    **{name: getattr(operator, name) for name in f"{BINARY} {_OTHERS}".split()},
    **{f.__name__: f for f in (getattr, setattr, delattr, iter, next, len, str, repr, format, round)},
    **{f.__name__: f for f in (int, float, complex, bool)},
}


def raised(error: BaseException) -> dict[str, Any]:
    """The answer for an exception."""
    try:
        message = str(error)[:MAX_MESSAGE]
    except BaseException:
        message = ""
    names = [kind.__name__ for kind in type(error).__mro__ if vars(builtins).get(kind.__name__) is kind]
    return {"raised": names, "type": type(error).__name__[:100], "message": message}


def named(namespace: dict[str, Any], name: str) -> Any:
    """The object of this name in the program: a global, or a method of a new `Solution`, as on LeetCode.

    Raises:
      KeyError: neither.
    """
    solution = namespace.get("Solution")
    if name not in namespace and isinstance(solution, type) and hasattr(solution, name):
        return getattr(solution(), name)
    return namespace[name]


class Server:
    """Answers requests about the objects of a program.

    `objects` are those that the other side knows by number; they live as long as the job. `room` is the maximum number
    of bytes and items of an answer.
    """

    def __init__(self, channel: int, namespace: dict[str, Any], room: tuple[int, int]):
        self.channel, self.namespace, self.room = channel, namespace, room
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}  # id of an object: its number

    def _handle(self, value: Any) -> tuple[str, int, str]:
        if type(value) is _Callback:
            return "y", value.number, "function"
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return "h", self.numbers[id(value)], type(value).__name__

    def _stand_in(self, tag: str, number: int, _: str) -> Any:
        return self.objects[number] if tag == "h" else _Callback(self, number)

    def encode(self, value: Any) -> Any:
        return codec.encode(value, self._handle, self.room[1])

    def decode(self, data: Any) -> Any:
        return codec.decode(data, self._stand_in, functions=True, arrays=True)

    def perform(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request."""
        name, data = request["do"], request["args"]
        try:
            if name == "global":
                return {"ok": self.encode(named(self.namespace, data[0]))}
            args = self.decode(["l", *data])
            kw = {key: self.decode(value) for key, value in request.get("kw", {}).items()}
            answer = {"ok": self.encode(_OPERATIONS[name](*args, **kw))}
            if any(type(item) is list for item in data):
                after = self.encode(args)[1:]
                if changed := [[i, new] for i, (old, new) in enumerate(zip(data, after, strict=True)) if old != new]:
                    answer["args"] = changed
            return answer
        except StopIteration as error:
            return {"end": True} if name == "next" else raised(error)
        except BaseException as error:
            return raised(error)

    def serve(self, until_answer: bool = False) -> dict[str, Any]:
        """Performs requests until the connection ends or, if requested, an answer arrives, which is returned."""
        while True:
            message = codec.receive(self.channel)
            if "do" not in message and until_answer:
                return message
            answer = self.perform(message)
            try:
                data = codec.framed(answer, self.room[0])
            except (codec.CodecError, MemoryError) as error:  # too much to send
                data = codec.framed(raised(error))
            codec.write(self.channel, data)


class _Callback:
    """A function of the other side."""

    def __init__(self, server: Server, number: int):
        self.server, self.number = server, number

    def __call__(self, *args: Any) -> Any:
        server = self.server
        codec.send(server.channel, {"callback": self.number, "args": [server.encode(item) for item in args]})
        answer = server.serve(until_answer=True)
        if "raised" in answer:
            raise error_of(answer)
        return server.decode(answer["ok"])


class ProgramError(Exception):
    """An exception of the program without a builtin counterpart."""


_NOT_TO_RAISE = (StopIteration, StopAsyncIteration)  # they would silently end a loop of the tests


def error_of(answer: dict[str, Any]) -> Exception:
    """The exception of an answer: the closest builtin one, or `ProgramError`."""
    message = str(answer.get("message", ""))[:MAX_MESSAGE]
    for name in answer["raised"] if isinstance(answer["raised"], list) else []:
        kind = vars(builtins).get(name) if isinstance(name, str) else None
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _NOT_TO_RAISE):
            try:
                return kind(message)
            except TypeError:  # e.g. UnicodeDecodeError takes other arguments
                continue
    return ProgramError(f"{str(answer.get('type', ''))[:100]}: {message}")


def _module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    sys.modules[name] = module
    return module


_NO_THREADS = "the sandbox runs a thread to its end when it is started; it has none that run side by side"


def _start(thread: threading.Thread) -> None:
    """Runs a thread to completion: many programs start a single one, for its larger stack, and wait for it."""
    if thread.daemon:
        raise RuntimeError(f"can't start new thread: {_NO_THREADS}")
    try:
        thread.run()
    except SystemExit:
        return
    except BaseException:
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), thread)))


def _wait(_: threading.Condition, timeout: float | None = None) -> bool:
    """Raises instead of waiting for another thread."""
    if timeout is None:
        raise RuntimeError(f"waits for another thread for ever: {_NO_THREADS}")
    time.sleep(max(0.0, timeout))
    return False


def _submit(
    executor: concurrent.futures.Executor, function: Callable[..., Any], /, *args: Any, **kw: Any
) -> concurrent.futures.Future:
    """Calls the function immediately."""
    if executor._shutdown:
        raise RuntimeError("cannot schedule new futures after shutdown")
    future: concurrent.futures.Future = concurrent.futures.Future()
    future.set_running_or_notify_cancel()
    try:
        future.set_result(function(*args, **kw))
    except BaseException as error:
        future.set_exception(error)
    return future


def _run_in_one_thread() -> None:
    """Makes threads, executors and event loops work with one thread, and without sockets."""
    threading.Thread.start, threading.Thread.join = _start, lambda *_, **__: None
    threading.Thread.is_alive = lambda _: False
    threading.Condition.wait = _wait
    concurrent.futures.ThreadPoolExecutor.submit = _submit
    selectors.DefaultSelector = selectors.SelectSelector
    loop = asyncio.selector_events.BaseSelectorEventLoop
    loop._make_self_pipe = lambda self: setattr(self, "_csock", None)  # for wake-ups by other threads
    loop._close_self_pipe = lambda _: None


_ONE_PROCESS = "the sandbox has one process and no sockets: multiprocessing, subprocess and fork can't work"


def _refuse(*_: Any, **__: Any) -> None:
    raise PermissionError(errno.EPERM, _ONE_PROCESS)


class _Semaphore:
    """That of `multiprocessing`, which makes one before it starts a process."""

    SEM_VALUE_MAX = _multiprocessing.SemLock.SEM_VALUE_MAX
    _rebuild = __init__ = _refuse


def _say_that_there_is_one_process() -> None:
    """Gives what the kernel would refuse anyway an error that says why."""
    for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "execv", "execve"):
        setattr(os, name, _refuse)
    _posixsubprocess.fork_exec = subprocess._fork_exec = socket.socketpair = _refuse
    _multiprocessing.SemLock = _Semaphore


def prepare() -> None:
    """The environment of programs: seeded random numbers, `exit`, one thread and process, integers of any length."""
    _run_in_one_thread()
    _say_that_there_is_one_process()
    sys.set_int_max_str_digits(0)  # the limit of CPU time suffices
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    site.setquit()
    sys.argv = ["program.py"]


def serve_program() -> None:
    """Loads the program of the first message, reports the result, and serves requests."""
    message = codec.receive(CHANNEL)
    module = _module("program")
    try:
        exec(compile(message["program"], "program.py", "exec", dont_inherit=True), module.__dict__)
        answer: dict[str, Any] = {"ok": None}
    except BaseException as error:
        answer = raised(error)
    codec.send(CHANNEL, answer)
    Server(CHANNEL, module.__dict__, tuple(message["room"])).serve()


def run_script() -> None:
    """Runs the program of the first message as a script, with the files 0 and 1."""
    message = codec.receive(CHANNEL)
    os.close(CHANNEL)
    sys.stdin, sys.stdout = open(0, encoding="utf-8"), open(1, "w", encoding="utf-8")  # noqa: SIM115
    module = _module("__main__")
    try:
        exec(compile(message["program"], "program.py", "exec", dont_inherit=True), module.__dict__)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        status = 1
        os.write(2, f"{type(error).__name__}: {error}"[:MAX_MESSAGE].encode(errors="replace"))
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        status = status or 1
    finally:
        os._exit(status & 255)
