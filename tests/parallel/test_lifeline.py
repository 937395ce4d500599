import signal
import threading

import pytest

from rlvr_jax.errors import ConfigError, PreemptedError
from rlvr_jax.parallel import Processes, lifeline
from rlvr_jax.parallel.lifeline import Lifeline
from tests.parallel.coordination import Service

NAMES = ["process 0 on a", "process 1 on b", "process 2 on c"]


@pytest.fixture
def left(monkeypatch):
    """The last words of the processes, here threads; `wait()` for the first."""
    messages, some = [], threading.Event()

    def leave(status, message=""):
        messages.append((threading.current_thread().name, status, message))
        some.set()

    monkeypatch.setattr(lifeline, "leave", leave)
    monkeypatch.setattr(lifeline, "_BEAT", 0.02)
    monkeypatch.setattr(lifeline, "_GRACE", 60.0)
    monkeypatch.setattr(lifeline.atexit, "register", lambda *_: None)
    return lambda: (some.wait(60), messages)[1]


def test_the_others_say_why_one_has_failed(left):
    service = Service()
    first, second = Lifeline(service, 0, NAMES), Lifeline(service, 1, NAMES)
    second.fail(ConfigError("config.seed is\nnot good"))
    second.fail(ConfigError("a later error, of the same cause"))
    assert left() == [("lifeline", 1, "process 1 on b ended the run: config.seed is not good")]
    assert second.is_over
    first.close()


def test_one_that_gives_no_sign_of_life_is_named(left, monkeypatch):
    monkeypatch.setattr(lifeline, "PATIENCE", 0.3)
    service = Service()
    second = Lifeline(service, 1, NAMES[:2])
    second.close()  # as if it had been killed
    first = Lifeline(service, 0, NAMES[:2])
    ((_, status, message),) = left()
    assert status == 1
    assert message.startswith("process 1 on b ended the run: it is gone")
    first.close()


def test_the_end_of_the_coordinator_ends_the_others(left):
    service = Service()
    second = Lifeline(service, 1, NAMES)
    with service.changed:
        service.gone = True
        service.changed.notify_all()
    ((_, _, message),) = left()
    assert message.startswith("process 0 on a ended the run: it is gone")
    second.close()


def test_what_all_processes_raise_is_no_failure_of_one(left):
    service = Service()
    processes = [Processes.__new__(Processes) for _ in range(2)]
    for index, one in enumerate(processes):
        one._lifeline = Lifeline(service, index, NAMES[:2])
    with pytest.raises(PreemptedError), processes[0].ending_together():
        raise PreemptedError(signal.SIGTERM, "the state of step 3")
    assert lifeline._FAILED not in service.values
    with pytest.raises(ValueError, match="on one host"), processes[0].ending_together():
        raise ValueError("on one host")
    assert b"ValueError: on one host" in service.values[lifeline._FAILED]
    left()
    processes[1]._lifeline.close()
