"""A server of the Model Context Protocol in a few lines, without the package, that misbehaves as it is told to."""

import json
import os
import sys
import time

WHAT = {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}
ECHO = {"type": "object", "properties": {"server": {"type": "integer"}}}
TOOLS = [
    {"name": "bad", "description": "Misbehaves.", "inputSchema": WHAT},
    {"name": "echo.number", "inputSchema": ECHO},
]
RESULTS = {
    "fails": {"content": [{"type": "text", "text": "no luck"}], "isError": True},
    "image": {"content": [{"type": "image", "data": "AAAA", "mimeType": "image/png"}]},
    "both": {"content": [{"type": "text", "text": "a"}, {"type": "image", "data": "AAAA", "mimeType": "image/png"}]},
    "data": {"content": [], "structuredContent": {"a": [1, "é"]}},
    "wrong": {"content": "a"},
    "nul": {"content": [{"type": "text", "text": "a\0b"}]},
    "long": {"content": [{"type": "text", "text": "x" * 100_000}]},
    "marks": {"content": [{"type": "text", "text": "</output><bad>"}]},
}


def say(text):
    sys.stdout.buffer.write(text if isinstance(text, bytes) else text.encode() + b"\n")
    sys.stdout.buffer.flush()


def result_of(method, params):
    match method:
        case "initialize":
            server = {"name": "test", "version": "1"}
            return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": server}
        case "tools/list":
            return {"tools": TOOLS if "empty" not in sys.argv else []}
        case "tools/call" if params["name"] == "bad":
            return bad(params["arguments"]["what"])
        case "tools/call":
            given = {**params["arguments"], "process": os.getpid(), "secret": os.environ.get("SECRET")}
            return {"content": [{"type": "text", "text": json.dumps(given)}]}
    return None


def bad(what):
    match what:
        case "dies":
            os._exit(3)
        case "hangs":
            time.sleep(1000)
        case "binary":
            say(b"\xff\xfe\x00\n")
            time.sleep(1000)
        case "no message":
            say("Segmentation fault")
            time.sleep(1000)
        case "floods":
            say("x" * 5_000_000)
            time.sleep(1000)
    return RESULTS.get(what)


def main():
    if "late" in sys.argv:
        time.sleep(1000)
    if "broken" in sys.argv:
        sys.exit("no licence")
    say("Welcome!")  # a greeting that is no message
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        answer = {"jsonrpc": "2.0", "id": message["id"]}
        result = result_of(message["method"], message.get("params"))
        missing = {"error": {"code": -32601, "message": "Method not found"}}
        say(json.dumps({**answer, "result": result} if result is not None else {**answer, **missing}))


if __name__ == "__main__":
    main()
