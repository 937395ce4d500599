"""Judges behind an OpenAI-compatible endpoint: bounded in flight, in time and in size, retried, paced."""

import contextlib
import dataclasses
import json
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx2

from rlvr_jax.errors import ConfigError
from rlvr_jax.judges.asking import Answer, Ask
from rlvr_jax.text.messages import Messages
from rlvr_jax.verifiers.judge import JudgeConfig

FIRST_DELAY = 0.5  # seconds before the first retry, doubled for each further one
_LONGEST_DELAY = 60.0
_MOST_BYTES = 8 << 20  # of a response
_SPARE = 1.1  # times the limit, so that a read that takes too long is told first
_SHOWN = 200  # characters of an error's body
_PASSING = (408, 409, 425, 429)  # statuses that are worth another try, besides 5xx


class _LateError(Exception):
    """The response did not end in time, or is too large."""


def endpoint(config: JudgeConfig, name: str = "judge") -> Ask:
    """The model of an endpoint. Each answer is a text, or the error of its last try.

    Args:
      config: of the judge.
      name: of the judge, for errors.

    Raises:
      ConfigError: the key can't be sent, or the endpoint does not answer a first, short question.
    """
    url = config.endpoint.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
    key = os.environ.get(config.key, "") if config.key else ""
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"config.judges.{name}.key: the variable {config.key} holds no text of printable ASCII")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    trusted = httpx2.create_ssl_context()  # once: reading the certificates takes longer than a question
    make_client = partial(httpx2.Client, headers=headers, timeout=config.timeout, verify=trusted)
    pace = _pace(config.per_minute)

    def ask(chats: Sequence[Messages]) -> list[Answer]:
        stop = threading.Event()
        with _clients(make_client) as client:
            workers = ThreadPoolExecutor(config.in_flight, "judge")
            try:
                return list(workers.map(lambda chat: _answered(client, url, config, chat, pace, stop), chats))
            finally:  # after an interrupt nothing more is begun
                stop.set()
                workers.shutdown(cancel_futures=True)

    if error := _refusal(url, make_client, config):
        raise ConfigError(f"config.judges.{name}: {error}")
    return ask


def _refusal(url: str, make_client: Callable[[], httpx2.Client], config: JudgeConfig) -> str | None:
    """Why the endpoint does not take questions; None if it does, whatever it answers."""
    chat = ({"role": "user", "content": "Answer with: Score: 1"},)
    once = dataclasses.replace(config, retries=min(1, config.retries))
    with _clients(make_client) as client:
        error = _answered(client, url, once, chat, lambda _: None, threading.Event()).error
    return error if error and error.startswith("the endpoint") else None


@contextlib.contextmanager
def _clients(make_client: Callable[[], httpx2.Client]) -> Iterator[Callable[[], httpx2.Client]]:
    """A function that returns the client of its thread, which has one connection: to close it ends its request."""
    local, every = threading.local(), []

    def client() -> httpx2.Client:
        if getattr(local, "client", None) is None or local.client.is_closed:
            local.client = make_client()
            every.append(local.client)
        return local.client

    try:
        yield client
    finally:
        for each in every:
            each.close()


def _answered(
    client: Callable[[], httpx2.Client],
    url: str,
    config: JudgeConfig,
    chat: Messages,
    pace: Callable[[threading.Event], None],
    stop: threading.Event,
) -> Answer:
    """The answer to one chat, after as many tries as it takes."""
    request = {"model": config.model, "messages": list(chat), "temperature": config.temperature}
    request |= {"max_tokens": config.max_tokens, **config.options}
    body = json.dumps({key: value for key, value in request.items() if value is not None}).encode()
    error, again = "", 0.0
    for attempt in range(config.retries + 1):
        if attempt:
            stop.wait(max(again, _delay(attempt, body)))
        pace(stop)
        if stop.is_set():
            return Answer(error="interrupted")
        try:
            status, told, data = _post(client(), url, body, config.timeout)
        except httpx2.TimeoutException:
            error, again = f"the endpoint did not answer within {config.timeout:g} s", 0.0
        except _LateError as late:
            error, again = str(late), 0.0
        except (httpx2.TransportError, httpx2.InvalidURL, httpx2.DecodingError, UnicodeError) as wrong:
            error, again = f"the endpoint can't be reached: {type(wrong).__name__}: {wrong}", 0.0
        else:
            if status == 200:
                return _content(data, config.max_tokens)
            shown = " ".join(data[:_SHOWN].decode(errors="replace").split())
            error, again = f"the endpoint answered with status {status}: {shown}", _retry_after(told)
            if status not in _PASSING and status < 500:
                return Answer(error=error)
    return Answer(error=f"{error} ({config.retries + 1} tries)")


def _post(client: httpx2.Client, url: str, body: bytes, seconds: float) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and content; a response may not come in drops for longer than `seconds`, nor be endless.

    The client's own limit is that of one read, and headers may come in drops, too.
    """
    parts, size, late = [], 0, threading.Event()
    headers = {"Content-Type": "application/json"}
    timer = threading.Timer(_SPARE * seconds, lambda: (late.set(), client.close()))
    timer.daemon = True
    timer.start()
    try:
        with client.stream("POST", url, content=body, headers=headers) as response:
            for part in response.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > _MOST_BYTES:
                    raise _LateError(f"the endpoint answered with more than {_MOST_BYTES} bytes")
            return response.status_code, response.headers, b"".join(parts)
    except Exception:
        if late.is_set():
            raise _LateError(f"the endpoint's answer did not end within {seconds:g} s") from None
        raise
    finally:
        timer.cancel()


def _content(data: bytes, max_tokens: int) -> Answer:
    """The text of a chat completion."""
    try:
        choice = json.loads(data)["choices"][0]
        text, finish = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return Answer(error="the endpoint's answer has not the form of a chat completion")
    if not isinstance(text, str):
        return Answer(error="the endpoint's answer has no text")
    if finish == "length":
        return Answer(error=f"its answer did not end within max_tokens = {max_tokens}")
    return Answer(text)


def _delay(attempt: int, body: bytes) -> float:
    """Seconds before a try: doubled each time, and different for each request, so that they don't come at once."""
    share = zlib.crc32(body + bytes([attempt % 256])) / 2**32
    return min(_LONGEST_DELAY, FIRST_DELAY * 2 ** min(attempt - 1, 20)) * (0.5 + share / 2)


def _retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that the endpoint asks to wait, at most a minute."""
    with contextlib.suppress(ValueError):
        return min(_LONGEST_DELAY, max(0.0, float(headers.get("retry-after", "0"))))
    return 0.0  # a date


def _pace(per_minute: int) -> Callable[[threading.Event], None]:
    """A function that waits until the next request may begin."""
    lock, due = threading.Lock(), [0.0]

    def wait(stop: threading.Event) -> None:
        if not per_minute:
            return
        with lock:
            begin = due[0] = max(time.monotonic(), due[0])
            due[0] += 60 / per_minute
        stop.wait(begin - time.monotonic())

    return wait


def identity_of(config: JudgeConfig) -> dict[str, Any]:
    """The settings that decide a model's answers to given messages; its address is none of them."""
    of_endpoint = {"options": dict(config.options)} if config.endpoint else {}
    return {"model": config.model, "temperature": config.temperature, "max_tokens": config.max_tokens} | of_endpoint
