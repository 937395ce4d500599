"""A local OpenAI-compatible endpoint for tests: it answers by a function, and can misbehave."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = str | int | dict | bytes | None  # text, status, whole body, raw body; None hangs


@dataclass
class Server:
    """The requests that a test sees.

    Attributes:
      url: for `JudgeConfig.endpoint`.
      requests: their bodies, in order of arrival.
      headers: of the last one.
      most: requests at a time, at most.
      closing: set when the test is over; a reply that hangs waits for it.
    """

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    most: int = 0
    closing: threading.Event = field(default_factory=threading.Event)


def completion(text: str, finish: str = "stop") -> dict:
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]}


@contextlib.contextmanager
def serving(reply: Callable[[dict[str, Any], int], Reply]) -> Iterator[Server]:
    """A server whose `reply(request, number of this same request)` is what it answers.

    The question with which an endpoint is tried is answered with a score, and not kept.
    """
    server, lock, counts, active = Server(""), threading.Lock(), {}, [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            body = json.loads(raw)
            tried = body["messages"][-1]["content"] == "Answer with: Score: 1"
            with lock:
                active[0] += 1
                if not tried:
                    server.requests.append(body)
                    server.headers, server.most = dict(self.headers), max(server.most, active[0])
                    counts[raw] = counts.get(raw, 0) + 1
            found = "Score: 1" if tried else reply(body, counts[raw])
            with lock:
                active[0] -= 1
            if found is None:
                server.closing.wait(30)
                self.close_connection = True
                return
            status = found if isinstance(found, int) else 200
            found = completion(found) if isinstance(found, str) else {"error": "x"} if isinstance(found, int) else found
            data = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(data)

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None: ...

    with Quiet(("127.0.0.1", 0), Handler) as running:
        server.url = f"http://127.0.0.1:{running.server_port}/v1"
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            running.shutdown()
            thread.join()


def last_of(body: dict[str, Any]) -> str:
    """The question of a request."""
    return body["messages"][-1]["content"]
