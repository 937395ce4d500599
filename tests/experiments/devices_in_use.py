"""Runs a command that prints whether JAX has touched a device when its verifier processes start.

python -m tests.experiments.devices_in_use MODULE FLAGS...
"""

import runpy
import sys

from jax._src import xla_bridge

from rlvr_jax.verifiers import pool


def main() -> None:
    start = pool.Pool.__init__

    def checked(*args, **kwargs):
        print("devices in use:", xla_bridge.backends_are_initialized())
        start(*args, **kwargs)

    pool.Pool.__init__ = checked
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
