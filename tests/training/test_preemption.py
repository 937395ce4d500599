import os
import signal

import pytest

from rlvr_jax.errors import PreemptedError
from rlvr_jax.training import preemption


def test_sigterm_and_sigint_are_noted_and_said_and_do_not_kill(capfd):
    for number, again in ((signal.SIGTERM, False), (signal.SIGINT, True)):
        with preemption.watch() as arrived:
            assert arrived() is None
            os.kill(os.getpid(), number)
            assert arrived() == number
        said = capfd.readouterr().err
        assert number.name in said
        assert ("again" in said) == again


def test_the_first_signal_is_the_one_that_counts():
    with preemption.watch() as arrived:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert arrived() == signal.SIGTERM


def test_a_second_ctrl_c_interrupts_at_once():
    def wait_for_ever():
        with preemption.watch() as arrived:
            os.kill(os.getpid(), signal.SIGINT)
            assert arrived() == signal.SIGINT
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the second signal did not interrupt")

    with pytest.raises(KeyboardInterrupt):
        wait_for_ever()


def test_afterwards_the_handlers_are_those_of_before():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with preemption.watch():
        assert all(signal.getsignal(number) is not handler for number, handler in before.items())
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_exit_status_is_the_shell_s(number, status):
    error = PreemptedError(number, "the state of step 7")
    assert error.status == status
    assert number.name in str(error)
    assert "step 7" in str(error)
