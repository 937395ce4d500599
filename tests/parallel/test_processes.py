import threading

import numpy as np
import pytest

from rlvr_jax.errors import ConfigError, RunError
from rlvr_jax.parallel import Processes, connected
from rlvr_jax.parallel.processes import in_cluster
from tests.parallel.coordination import Service, together


def test_every_process_gets_the_values_of_all_in_their_order():
    def body(processes):
        rounds = [processes.exchange([processes.index, number]) for number in range(5)]
        return rounds, processes.merged({10 + processes.index: "x" * processes.index})

    for rounds, merged in together(3, body):
        assert rounds == [[[0, number], [1, number], [2, number]] for number in range(5)]
        assert merged == {10: "", 11: "x", 12: "xx"}


def test_the_service_holds_the_last_rounds_only():
    service = Service()
    together(2, lambda processes: [processes.exchange("x" * 1000) for _ in range(50)], service)
    assert len([key for key in service.values if key.startswith("rlvr/exchange")]) <= 4


def test_the_first_value_that_is_not_none():
    assert together(3, lambda processes: processes.first([None, 15, 2][processes.index])) == [15] * 3
    assert together(2, lambda processes: processes.first(None)) == [None] * 2


def test_a_single_process_exchanges_nothing():
    alone, value = Processes(), object()
    assert (alone.index, alone.count) == (0, 1)
    assert alone.exchange(value) == [value]
    assert alone.merged({1: value}) == {1: value}
    assert alone.first(value) is value
    alone.check_equal("the batch", np.ones(3))
    with alone.first_goes_ahead(), alone.ending_together():
        pass
    alone.close()


def test_other_arrays_are_an_error_in_all_processes_that_names_the_one_that_has_them():
    def body(processes):
        array = np.arange(6).reshape(2, 3)
        processes.check_equal("the batch of step 3", {"tokens": array.T.copy().T, "mask": array > 2})
        array[1, 1] += processes.index == 2
        processes.check_equal("the batch of step 4", {"tokens": array})

    for error in together(3, body):
        assert isinstance(error, RunError)
        assert "batch of step 4" in str(error)
        assert "process 2 on " in str(error)
        assert "process 1 on " not in str(error)


def test_the_first_process_goes_ahead():
    order, lock = [], threading.Lock()

    def body(processes):
        with processes.first_goes_ahead(), lock:
            order.append(processes.index)

    together(3, body)
    assert order[0] == 0
    assert sorted(order) == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("", 2, None), "--coordinator"),
        (("", None, 0), "--coordinator"),
        (("host", 2, 0), "HOST:PORT"),
        (("host:1", None, 0), "--num_processes"),
        (("host:1", 2, 2), "--process_id"),
        (("host:1", 2, None), "--process_id"),
    ],
)
def test_arguments_that_do_not_go_together(arguments, name):
    with pytest.raises(ConfigError, match=name), connected(*arguments):
        pytest.fail("connected")


def test_several_tasks_of_slurm_or_workers_of_a_slice_are_found():
    assert not in_cluster({})
    assert not in_cluster({"SLURM_JOB_ID": "1", "SLURM_STEP_NUM_TASKS": "1", "TPU_WORKER_HOSTNAMES": "localhost"})
    assert in_cluster({"SLURM_STEP_NUM_TASKS": "16"})
    assert in_cluster({"TPU_WORKER_HOSTNAMES": "a-0.a,a-1.a"})
