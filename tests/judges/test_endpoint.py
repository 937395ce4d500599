"""Judges behind an endpoint: what fails is bounded, named and its own; what was answered replays without a network."""

import contextlib
import dataclasses
import json
import socket
import threading
from collections.abc import Iterator
from functools import partial

import httpx2
import pytest

from rlvr_jax.errors import ConfigError
from rlvr_jax.judges import endpoint as endpoints
from rlvr_jax.judges.asking import no_model, recorded
from rlvr_jax.judges.endpoint import endpoint, identity_of
from rlvr_jax.judges.judge import Sample, make_judge
from rlvr_jax.verifiers.judge import JudgeConfig
from tests.judges.server import completion, last_of, serving


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(endpoints, "FIRST_DELAY", 0.001)


def config_of(server, **changes):
    return JudgeConfig(model="m", endpoint=server.url, timeout=20.0, retries=2, **changes)


PATIENT = (lambda _: None, threading.Event())  # no pace, and no interrupt


def chat(text):
    return ({"role": "user", "content": text},)


def test_the_request_is_that_of_the_config(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    with serving(lambda *_: "fine") as server:
        options = {"seed": 3, "max_tokens": None, "max_completion_tokens": 9}
        ask = endpoint(config_of(server, key="MY_KEY", temperature=0.5, options=options))
        assert [answer.text for answer in ask([chat("hello")])] == ["fine"]
        (body,) = server.requests
        assert body == {
            "model": "m",
            "messages": [*chat("hello")],
            "temperature": 0.5,
            "seed": 3,
            "max_completion_tokens": 9,
        }
        assert server.headers["Authorization"] == "Bearer secret"


def test_each_failure_is_that_of_its_own_question():
    hostile = {
        "good": lambda _: "Score: 7",
        "busy once": lambda n: 429 if n == 1 else "later",
        "broken once": lambda n: 503 if n == 1 else "up again",
        "broken": lambda _: 500,
        "forbidden": lambda _: 403,
        "no json": lambda _: b"<html>",
        "no choices": lambda _: {"choices": []},
        "no text": lambda _: {"choices": [{"message": {"content": None}}]},
        "a list": lambda _: [1],
        "cut off": lambda _: completion("Score: 7", "length"),
        "silent": lambda _: "",
    }  # fmt: skip
    with serving(lambda body, n: hostile[last_of(body)](n)) as server:
        found = dict(zip(hostile, endpoint(config_of(server))([chat(x) for x in hostile]), strict=True))
        asked = [last_of(body) for body in server.requests]
    assert [found[x].text for x in ("good", "busy once", "broken once", "silent")] == [
        "Score: 7",
        "later",
        "up again",
        "",
    ]
    assert {x: asked.count(x) for x in ("good", "busy once", "broken", "forbidden", "no json")} == {
        "good": 1, "busy once": 2, "broken": 3, "forbidden": 1, "no json": 1,
    }  # fmt: skip
    for name, said in (("broken", "500"), ("forbidden", "403"), ("no json", "chat completion"), ("cut off", "512")):
        assert said in found[name].error
    assert all(found[x].error for x in ("no choices", "no text", "a list"))


def test_an_endpoint_that_hangs_or_has_no_end_is_left(monkeypatch):
    monkeypatch.setattr(endpoints, "_MOST_BYTES", 1000)
    replies = {"hangs": None, "endless": b"x" * 2000, "fine": "ok"}
    with serving(lambda body, _: replies[last_of(body)]) as server:
        endless, fine = endpoint(config_of(server))([chat("endless"), chat("fine")])
        ask = endpoint(config_of(server))
        monkeypatch.setattr(endpoints, "_post", partial(_impatiently, endpoints._post))
        (hung,) = ask([chat("hangs")])
        assert [last_of(body) for body in server.requests].count("hangs") == 3
    assert (fine.text, fine.error) == ("ok", None)
    assert "1000 bytes" in endless.error
    assert "did not answer within 20 s (3 tries)" in hung.error


def _impatiently(post, client, url, body, _):
    client.timeout = 0.1
    return post(client, url, body, 20.0)


@contextlib.contextmanager
def dripping(begin: bytes, drop: bytes) -> Iterator[str]:
    """The URL of a server that takes a request, and answers in drops without end."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError), server.accept()[0] as connection:
                connection.recv(1 << 16)
                connection.sendall(begin)
                while not done.wait(0.01):
                    connection.sendall(drop)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            done.set()
            with contextlib.suppress(OSError):  # if nobody has come
                socket.create_connection(server.getsockname()).close()
            thread.join()


@pytest.mark.parametrize(
    ("begin", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    ],
    ids=["body", "headers", "interim responses"],
)
def test_a_response_that_comes_in_drops_is_left_after_its_time(begin, drop):
    with dripping(begin, drop) as url, endpoints._clients(partial(httpx2.Client, timeout=0.2)) as client:
        answer = endpoints._answered(client, url, JudgeConfig(retries=0, timeout=0.2), chat("x"), *PATIENT)
    assert "did not end within 0.2 s" in answer.error


def test_requests_in_flight_and_in_a_minute_are_bounded(monkeypatch):
    together = threading.Barrier(3, timeout=60)
    with serving(lambda *_: str(together.wait() >= 0)) as server:
        assert len(endpoint(config_of(server, in_flight=3))([chat(str(i)) for i in range(12)])) == 12
        assert server.most == 3
    waits = []
    monkeypatch.setattr(endpoints.threading.Event, "wait", lambda _, seconds=None: waits.append(seconds))
    wait, stop = endpoints._pace(120), endpoints.threading.Event()
    for _ in range(3):
        wait(stop)
    assert [round(x, 1) for x in waits] == [0.0, 0.5, 1.0]


def test_an_endpoint_that_takes_no_questions_is_refused_before_anything_else():
    with serving(lambda *_: "ok") as server:
        gone = dataclasses.replace(config_of(server), retries=0)
    for refused in (gone, dataclasses.replace(gone, endpoint="http://a..b/v1")):
        with pytest.raises(ConfigError, match=r"config\.judges\.mine: the endpoint can't be reached"):
            endpoint(refused, "mine")


def test_a_record_replays_to_the_bit_without_a_network(tmp_path):
    file, samples = tmp_path / "judges" / "j.jsonl", [Sample("1+1?", text) for text in ("2", "3", "2", "?")]
    replies = {"| 2": "Well.\nScore: 10", "| 3": "Score: 3.25", "| ?": 404}
    with serving(lambda body, _: next(y for x, y in replies.items() if f"Response:\n{x}\n" in last_of(body))) as server:
        config = config_of(server)
        judge = make_judge(config, recorded(endpoint(config), file, identity_of(config)))
        first, again = judge(samples), judge(samples)
        assert len(server.requests) == 3
    assert [verdict.score for verdict in first] == [1.0, 0.25, 1.0, 0.0]
    assert [verdict.error is None for verdict in first] == [True, True, True, False]
    lines = file.read_text()
    assert lines.count("\n") == 3
    replayed = make_judge(config, recorded(no_model, file, identity_of(config), replay=True))
    assert first == again == replayed(samples)
    other = dataclasses.replace(config, temperature=0.1)
    (new,) = make_judge(other, recorded(no_model, file, identity_of(other), replay=True))(samples[:1])
    assert "record" in new.error
    file.rename(file.with_name("j@1.jsonl"))
    assert make_judge(config, recorded(no_model, file, identity_of(config), replay=True))(samples) == first
    file.write_text(lines + '{"key": "torn')
    assert make_judge(config, recorded(no_model, file, identity_of(config), replay=True))(samples) == first
    file.write_text(json.dumps({"no": "key"}) + "\n")
    with pytest.raises(ConfigError, match=r"j\.jsonl"):
        recorded(no_model, file, {})
    with pytest.raises(ConfigError, match="replay"):
        recorded(no_model, tmp_path / "absent.jsonl", {}, replay=True)
