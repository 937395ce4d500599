"""Validity rules of `config.curriculum` and of the stages of tasks."""

import math
from collections.abc import Iterator

from rlvr_jax.config import Config

Rules = Iterator[tuple[bool, str]]  # (is it wrong, message)


def rules(c: Config) -> Rules:
    """All rules."""
    u = c.curriculum
    for name, fits, what in (
        ("decay", 0 <= u.decay < 1, "in [0, 1)"),
        ("power", 0 < u.power < math.inf, "above 0 and finite"),
        ("floor", 0 <= u.floor <= 1, "in [0, 1]"),
        ("tries", u.tries > 0, "above 0"),
        ("threshold", 0 < u.threshold <= 1, "in (0, 1]"),
    ):
        yield not fits, f"config.curriculum.{name} must be {what}, not {getattr(u, name)}"
    yield (
        not 0 <= u.low <= u.high <= 1,
        f"config.curriculum.low = {u.low} and high = {u.high} must be from 0 to 1, in this order",
    )
    yield (
        u.sampling != "mixture" and u.floor == 0,
        f"config.curriculum.floor = 0 with sampling = {u.sampling!r} never draws what is always right, and "
        "nothing at all if that is everything; set a small one, such as 0.02",
    )
    stages = {name: task.stage for name, task in c.tasks.items() if task.weight > 0}
    for name, stage in stages.items():
        yield stage < 0, f"config.tasks.{name}.stage must be 0 or more, not {stage}"
    yield (
        min(stages.values(), default=0) > 0,
        f"config.tasks: no task with a weight above 0 has the stage 0, so none is open: {stages}",
    )
    spans = {name: task.steps for name, task in c.tasks.items() if task.steps}
    for name, steps in spans.items():
        yield (
            not (len(steps) == 2 and 1 <= steps[0] <= steps[1]),
            f"config.tasks.{name}.steps = {steps} must be two steps, the first and the last, or empty",
        )
    first = [spans.get(name, (1, math.inf)) for name, stage in stages.items() if stage == 0]
    for step in sorted({1, *(steps[1] + 1 for steps in spans.values())}):
        yield (
            step <= c.training.num_steps and not any(low <= step <= high for low, high in first),
            f"config.tasks: no task of stage 0 is trained on in step {step}, by their keys steps: {spans}",
        )
    chooses = u.sampling != "mixture" or (u.low, u.high) != (0, 1)
    yield (
        c.algorithm.baseline == "tracker" and chooses and u.by == "level",
        "config.curriculum.by = 'level' with config.algorithm.baseline = 'tracker', which tracks problems; set by = "
        "'problem'",
    )
