"""Several processes as threads of one, with a coordination service of the test's own."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import pytest

from rlvr_jax.parallel import Processes, lifeline


class Service:
    """A stand-in for the client of `jax.distributed`, shared by all threads."""

    def __init__(self):
        self.values: dict[str, bytes] = {}
        self.changed = threading.Condition()
        self.gone = False

    def key_value_set_bytes(self, key: str, value: bytes, allow_overwrite: bool = False) -> None:
        with self.changed:
            self._check()
            if key in self.values and not allow_overwrite:
                raise jax.errors.JaxRuntimeError(f"ALREADY_EXISTS: {key}")
            self.values[key] = value
            self.changed.notify_all()

    def blocking_key_value_get_bytes(self, key: str, milliseconds: int) -> bytes:
        with self.changed:
            self.changed.wait_for(lambda: key in self.values or self.gone, milliseconds / 1000)
            self._check()
            if key not in self.values:
                raise jax.errors.JaxRuntimeError(f"DEADLINE_EXCEEDED: {key}")
            return self.values[key]

    def key_value_dir_get_bytes(self, folder: str) -> list[tuple[str, bytes]]:
        with self.changed:
            self._check()
            return [(key, value) for key, value in self.values.items() if key.startswith(folder)]

    def key_value_delete(self, key: str) -> None:
        with self.changed:
            del self.values[key]

    def _check(self) -> None:
        if self.gone:
            raise jax.errors.JaxRuntimeError("UNAVAILABLE: the service is gone")


def together(count: int, body: Callable[[Processes], Any], service: Service | None = None) -> list[Any]:
    """The results or errors of `body(processes)` in each of `count` processes."""
    service = service or Service()

    def do(index: int) -> Any:
        processes = Processes(service, index, count)
        try:
            return body(processes)
        except Exception as error:
            return error
        finally:
            processes.close()

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(count) as threads:
        patch.setattr(lifeline, "_BEAT", 0.02)  # seconds, which the end waits for, too
        return list(threads.map(do, range(count)))
