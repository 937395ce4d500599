"""Judging sampled trajectories with their task's verifier."""

from collections.abc import Sequence

from rlvr_jax.rollout.trajectory import Trajectory
from rlvr_jax.tasks.task import Task
from rlvr_jax.verifiers.pool import Job, Pool
from rlvr_jax.verifiers.verdict import Verdict


def judge(pool: Pool, task: Task, trajectories: Sequence[Trajectory]) -> list[Verdict]:
    """The verdict on each trajectory's text, against the reference of its own example."""
    return pool.judge([Job(task.verifier, t.text, t.example.reference, task.verifier_options) for t in trajectories])
