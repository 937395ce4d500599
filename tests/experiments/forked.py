"""Ends as the process that a test has for this one, which runs a module on its files: see `calls.forking`.

python -IS forked.py ADDRESS MODULE [ARGUMENT ...]
"""

import json
import os
import socket
import sys
from pathlib import Path

address, *command = sys.argv[1:]
files = [f"/proc/{os.getpid()}/fd/{descriptor}" for descriptor in range(3)]
with socket.socket(socket.AF_UNIX) as test:
    test.connect(address)
    stream = test.makefile("rw")
    print(json.dumps([files, command, str(Path.cwd()), dict(os.environ), []]), file=stream, flush=True)
    sys.exit(int(stream.readline()))
