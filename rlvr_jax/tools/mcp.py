"""Tools of a server of the Model Context Protocol, which a command starts and which speaks over its standard streams.

A server is asked for its tools when a config is read, and ended. For calls each worker process of the pool starts one
of its own on its first call, in the worker's process group, so that it ends with the worker; a server that has died,
hung or sent what is no message is replaced by a new one on the next call. It may thus keep no state that a policy
relies on: the calls of an episode come to any of these servers, and a server gets those of many episodes.

The protocol is that of the package `mcp` (https://modelcontextprotocol.io); the extra of that name installs it.
"""

import asyncio
import contextlib
import functools
import json
import os
import re
import shlex
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_jax.tools.schema import resolved
from rlvr_jax.tools.tool import TOKENS, CallError, Tool

try:  # here, since the imports of a tool's module do not count as time of its calls
    import anyio
    import jsonschema
    import mcp
    import mcp_types
    import pydantic
    from mcp.client.stdio import get_default_environment
    from mcp.shared.message import SessionMessage
except ImportError:  # the extra is not installed, which `tools` says
    mcp = None

SERVER = "mcp.server"  # keys of the options of a call, which no argument of a tool has as its name
_LONGEST_LINE = 4 << 20  # bytes of a message
_MOST_PAGES = 100  # of a list of tools
_SPARE_SECONDS = 5.0  # between a call's own limit and the pool's, after which the process is replaced
_ERRORS = 300  # characters of what a server writes to its standard error that are shown

Key = tuple[tuple[str, ...], str, tuple[str, ...]]  # command, folder, names of environment variables


@dataclass(eq=False)
class _Connection:
    """A running server.

    Attributes:
      client: of the package.
      close: ends it.
      ended: outcome and reason of its end, once it has ended.
      task: that runs it, done when its process has ended.
    """

    client: "mcp.Client"
    close: asyncio.Event
    ended: list[tuple[str, str]]
    task: asyncio.Task


def tools(
    command: str | Sequence[str],
    only: Sequence[str] = (),
    prefix: str = "",
    folder: str = "",
    variables: Sequence[str] = (),
    timeout: float = 10.0,
    start_seconds: float = 30.0,
    tokens: int = TOKENS,
) -> tuple[Tool, ...]:
    """The tools of a server: `mcp`.

    Args:
      command: that starts it, as a list of words, or as text in the form of a shell's; no shell runs it.
      only: names of the tools that are taken, in this order; by default all.
      prefix: of the names by which the policy calls them.
      folder: in which it is started; by default the working directory.
      variables: names of environment variables that it gets, besides the likes of `PATH` and `HOME`.
      timeout: seconds of a call.
      start_seconds: within which it must be ready.
      tokens: of the output that are shown.

    Raises:
      ValueError: the package is not installed, the server can't be started, or has no such tools.
    """
    if mcp is None:
        raise ValueError("the package mcp is not installed: pip install 'rlvr_jax[mcp]'")
    words = tuple(shlex.split(command) if isinstance(command, str) else command)
    if not words or not all(isinstance(word, str) and word for word in words):
        raise ValueError(f"command must be the words of a command, not {command!r:.100}")
    for name, seconds in (("timeout", timeout), ("start_seconds", start_seconds)):
        if not 0 < seconds < 3600:
            raise ValueError(f"{name} must be a number of seconds above 0, and below 3600, not {seconds}")
    key: Key = words, str(Path(folder).expanduser().absolute()), tuple(variables)
    found = _waited(_listed(key, start_seconds))
    names = [tool.name for tool in found]
    if unknown := [name for name in only if name not in names]:
        raise ValueError(f"the server {_shown(key)} has no tool {unknown[0]!r}; it has {', '.join(names) or 'none'}")
    if not found:
        raise ValueError(f"the server {_shown(key)} has no tools")
    made = []
    for tool in found if not only else [found[names.index(name)] for name in only]:
        try:
            schema = _checked(tool.input_schema)
        except ValueError as error:
            raise ValueError(f"the server {_shown(key)}: the schema of {tool.name!r}: {error}") from None
        options = {SERVER: {"key": key, "tool": tool.name, "seconds": timeout, "start_seconds": start_seconds}}
        made.append(
            Tool(
                prefix + re.sub(r"[^A-Za-z0-9_-]", "_", tool.name),
                tool.description or "",
                schema,
                f"{__name__}:call",
                options,
                timeout=start_seconds + timeout + _SPARE_SECONDS,
                tokens=tokens,
            )
        )
    return tuple(made)


def call(**given: Any) -> str:
    """The output of a server's tool.

    Args:
      **given: the tool's arguments, and the option `SERVER`.

    Raises:
      CallError: the tool failed ("raised"); it took too long ("timed_out"); the server died ("died"), can't be started
        again ("not_started"), sent a message of several megabytes ("flood") or what is no message or no result of a
        call ("malformed"); the output has no text ("binary"), or the arguments are none in UTF-8 ("raised").
    """
    server = given.pop(SERVER)
    _check_characters(given)
    key = (tuple(server["key"][0]), server["key"][1], tuple(server["key"][2]))
    return _waited(_called(key, server["tool"], given, server["seconds"], server["start_seconds"]))


def _check_characters(arguments: Mapping[str, Any]) -> None:
    try:
        json.dumps(arguments, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise CallError("the arguments have a character that is none: half of a surrogate pair") from None


async def _called(key: Key, tool: str, arguments: Mapping[str, Any], seconds: float, start_seconds: float) -> str:
    async with _lock():
        connections = _connections()
        if key in connections and connections[key].ended:
            del connections[key]
        if key not in connections:
            try:
                connections[key] = await _started(key, start_seconds)
            except ValueError as error:
                raise CallError(str(error), "not_started") from None
        connection = connections[key]
    try:
        async with asyncio.timeout(seconds):
            result = await connection.client.call_tool(tool, dict(arguments))
    except TimeoutError:
        failure = "timed_out", f"the call took more than {seconds:g} s"
    except Exception as error:  # of the package, or of a connection that has broken
        if not (connection.ended or connection.task.done()):
            if isinstance(error, mcp.MCPError):
                raise CallError(error.message) from None
            raise CallError(f"the server's result is malformed: {_first_line(error)}", "malformed") from None
        failure = connection.ended[0] if connection.ended else ("died", _first_line(error))
    else:
        return _text(result)
    connections.pop(key, None)
    connection.close.set()
    raise CallError(failure[1], failure[0])


def _text(result: Any) -> str:
    """The text of a call's result; raises CallError if the tool says that it failed, or there is none."""
    texts = [getattr(getattr(item, "resource", item), "text", None) for item in result.content]
    told = "\n".join(
        f"({item.type} left out)" if x is None else x for item, x in zip(result.content, texts, strict=True)
    )
    if result.is_error:
        raise CallError(told or "the tool failed")
    if texts and not any(isinstance(text, str) for text in texts):
        raise CallError(f"the output is no text: {told}", "binary")
    if not result.content and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return told


async def _listed(key: Key, seconds: float) -> list[Any]:
    """The tools of a server, which is started for it. Raises ValueError if it can't be, or gives no list."""
    connection = await _started(key, seconds)
    try:
        found, cursor = [], None
        async with asyncio.timeout(seconds):
            for _ in range(_MOST_PAGES):
                page = await connection.client.list_tools(cursor=cursor)
                found += page.tools
                cursor = page.next_cursor
                if cursor is None:
                    return found
        raise ValueError(f"more than {_MOST_PAGES} pages of them")
    except Exception as error:  # the package's, and those of its checks
        why = connection.ended[0][1] if connection.ended else _first_line(error)
        raise ValueError(f"the server {_shown(key)} does not list its tools: {why}") from None
    finally:
        connection.close.set()
        await asyncio.wait([connection.task], timeout=_SPARE_SECONDS)


async def _started(key: Key, seconds: float) -> _Connection:
    """A connection to a new server. Raises ValueError if it is not ready within so many seconds."""
    opened = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(_serve(key, opened))
    _tasks().add(task)
    task.add_done_callback(_tasks().discard)
    done, _ = await asyncio.wait([opened], timeout=seconds)
    if not done:
        task.cancel()
        opened.cancel()
        await asyncio.wait([task], timeout=_SPARE_SECONDS)
        raise ValueError(f"the server {_shown(key)} is not ready after {seconds:g} s")
    return opened.result()


async def _serve(key: Key, opened: asyncio.Future) -> None:
    """Runs a server until its connection is closed, in one task, as the package needs it."""
    ended: list[tuple[str, str]] = []
    errors = bytearray()
    try:
        async with mcp.Client(_transport(key, ended, errors)) as client:
            connection = _Connection(client, asyncio.Event(), ended, asyncio.current_task())
            opened.set_result(connection)
            await connection.close.wait()
    except (Exception, asyncio.CancelledError) as error:
        ended.append(("died", f"the connection broke: {_first_line(error)}"))  # unless there is a reason before
        if not opened.done():
            reason = ended[0][1] if ended else _first_line(error)
            wrote = bytes(errors[-_ERRORS:]).decode(errors="replace").strip()
            told = f"; it wrote: {wrote.splitlines()[-1]}" if wrote else ""
            opened.set_exception(ValueError(f"the server {_shown(key)} can't be started: {reason}{told}"))


@contextlib.asynccontextmanager
async def _transport(key: Key, ended: list[tuple[str, str]], errors: bytearray) -> AsyncIterator[tuple[Any, Any]]:
    """The process of a server, as the two streams of messages that a client needs.

    Unlike the package's own it keeps the process in this one's group, bounds the length of a message, and appends to
    `ended` why there are no more messages. What the server writes before its first message, such as a greeting, is
    left out.
    """
    words, folder, variables = key
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=get_default_environment() | {x: os.environ[x] for x in variables if x in os.environ},
        cwd=folder,
        limit=_LONGEST_LINE,
    )
    to_client, messages = anyio.create_memory_object_stream(0)
    answers, from_client = anyio.create_memory_object_stream(0)

    async def receive() -> None:
        spoken = False
        async with to_client:
            while not ended:
                try:
                    line = await process.stdout.readline()
                except ValueError:
                    ended.append(("flood", f"the server sent a message of more than {_LONGEST_LINE >> 20} MiB"))
                    return
                if not line:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(process.wait(), 1.0)
                    status = "" if process.returncode is None else f" (exit status {process.returncode})"
                    ended.append(("died", f"the server died{status}"))
                    return
                try:
                    message = mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    if spoken:
                        ended.append(("malformed", "the server sent what is no message"))
                        return
                    continue
                spoken = True
                await to_client.send(SessionMessage(message))

    async def send() -> None:
        async for message in from_client:
            try:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            except ValueError as error:
                ended.append(("malformed", f"the message can't be sent: {_first_line(error)}"))
                raise
            with contextlib.suppress(OSError):  # it has died, which `receive` finds
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()

    async def listen() -> None:
        while chunk := await process.stderr.read(1 << 12):
            errors.extend(chunk)
            del errors[: -10 * _ERRORS]

    async with anyio.create_task_group() as group:
        for task in (receive, send, listen):
            group.start_soon(task)
        try:
            yield messages, answers
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            with anyio.CancelScope(shield=True):
                await process.wait()
            group.cancel_scope.cancel()


def _waited(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine, run by the process's event loop."""
    return asyncio.run_coroutine_threadsafe(work, _loop()).result()


# Of this process, which is a worker of the pool, or the trainer while it reads a config:


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="mcp", daemon=True).start()
    return loop


@functools.cache
def _connections() -> dict[Key, _Connection]:
    return {}


@functools.cache
def _tasks() -> set[asyncio.Task]:
    return set()  # an event loop itself holds no task


@functools.cache
def _lock() -> asyncio.Lock:
    return asyncio.Lock()  # so that two calls at a time do not start two servers


def _checked(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a tool's arguments, without references. Raises ValueError if it can't be used."""
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"at {error.json_path}: {error.message.partition(chr(10))[0]:.200}") from None
    schema = resolved(schema)
    properties = schema.get("properties", {})
    if not set(schema.get("required", ())) <= properties.keys():
        raise ValueError(f"it requires {schema['required']}, and has the properties {', '.join(properties) or 'none'}")
    return schema


def _shown(key: Key) -> str:
    return repr(shlex.join(key[0]))


def _first_line(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return _first_line(error.exceptions[0])
    if isinstance(error, pydantic.ValidationError):
        return "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in error.errors()[:3])
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
