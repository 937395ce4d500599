"""Runs a command that can't write files of more than so many bytes.

python -m tests.experiments.small_files BYTES MODULE FLAGS...
"""

import resource
import runpy
import sys

if __name__ == "__main__":
    size, *sys.argv = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
