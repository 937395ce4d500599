import faulthandler
import threading
import time

from rlvr_jax.parallel import Processes
from rlvr_jax.training.watchdog import watchdog


class Ended(Processes):
    """Three processes, of which this one notes that it ends instead of ending."""

    def __init__(self):
        super().__init__()
        self.index, self.hosts, self.awaited = 1, ["a", "b", "c"], 2
        self.over, self.reasons = threading.Event(), []

    def end(self, reason):
        self.reasons.append(reason)
        self.over.set()


def a_step_that_hangs(over):
    assert over.wait(60)


def test_a_phase_that_hangs_is_named_with_its_host_and_stack(capfd):
    processes = Ended()
    with watchdog(0.2, True, processes) as begin:
        begin("rollout of step 3")
        begin("update of step 3")
        a_step_that_hangs(processes.over)
    (reason,) = processes.reasons
    for word in ("process 1 on b", "'update of step 3'", "0.2 s", "waits for process 2 on c"):
        assert word in reason
    stderr = capfd.readouterr().err
    assert stderr.startswith("watchdog: process 1 on b")
    assert "a_step_that_hangs" in stderr
    assert "rollout of step 3" not in stderr


def test_phases_within_the_limit_are_not_reported_and_one_that_hangs_once(capfd, monkeypatch):
    processes = Processes()
    with watchdog(60.0, True, processes) as begin:
        for step in range(100):
            begin(f"step {step}")
    with watchdog(0.0, True, processes) as begin:
        begin("no watchdog")
    assert capfd.readouterr().err == ""
    said = threading.Event()
    monkeypatch.setattr(faulthandler, "dump_traceback", lambda _: said.set())
    with watchdog(0.05, False, processes) as begin:
        begin("the first")
        assert said.wait(60)
        time.sleep(0.2)  # in which it could say so again
        begin("the second")
    assert capfd.readouterr().err.count("'the first'") == 1
