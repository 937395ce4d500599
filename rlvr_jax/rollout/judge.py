"""Judging sampled trajectories with their task's verifier."""

from collections.abc import Mapping, Sequence

from rlvr_jax.rollout.trajectory import Trajectory
from rlvr_jax.tasks.task import Task
from rlvr_jax.verifiers.pool import Job, Pool
from rlvr_jax.verifiers.verdict import Verdict


def judge(pool: Pool, tasks: Mapping[str, Task], trajectories: Sequence[Trajectory]) -> list[Verdict]:
    """The verdict on each trajectory's response, against the reference of its own example.

    Args:
      pool: the verifier processes.
      tasks: by the names that examples bear.
      trajectories: of any of the tasks.
    """
    jobs = []
    for trajectory in trajectories:
        example, task = trajectory.example, tasks[trajectory.example.task]
        jobs.append(Job(task.verifier, trajectory.response, example.reference, task.verifier_options))
    return pool.judge(jobs)
