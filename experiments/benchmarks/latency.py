"""Slow tools in episodes of very different length: idle time of the device with and without overlap.

Each turn but the last calls a tool that sleeps, for up to 2 s, mostly much shorter; episodes have 1 to 6 turns. The
policy is random, so that turns have a geometric distribution of lengths. Everything drawn is a hash of the problem. A
synchronous step waits for tools as late as the others do, once there is nothing to decode.
"""

import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

from .overlap import policy_of
from .parts import table

LONGEST, TURNS = 2.0, 6  # seconds of a call, turns of an episode
SCHEDULES = {
    "synchronous": {},
    "in flight, cache kept": {"in_flight": "keep"},
    "in flight, cache recomputed": {"in_flight": "recompute"},
}


def sleep(seconds: float) -> str:
    """The tool."""
    time.sleep(seconds)
    return "="


def calling(longest: float = LONGEST):
    """The environment: a call after each turn but the last."""
    from rlvr_jax.envs import Call, Done, Env, Say, ToolCall
    from rlvr_jax.tasks.task import uniform

    def start(example):
        return (example.id, 1), example.prompt

    def step(state, text):
        id, turn = state
        if turn >= 1 + TURNS * uniform("turns", id) ** 2:
            return state, Done()
        seconds = longest * uniform("seconds", id, turn, text) ** 4
        return (id, turn + 1), Call((ToolCall(f"{__name__}:sleep", (seconds,)),))

    return Env(start, step, lambda state, results: (state, Say(results[0].value)))


def latency(
    steps: int,
    longest: float = LONGEST,
    prompts: int = 16,
    group: int = 2,
    lag: int = 5,
    patience: int = 100,
    layers: int = 2,
    width: int = 128,
    turn: int = 32,
) -> str:
    """Runs with each schedule: their time, the share of it in which nothing could be sampled or trained, their lag.

    Args:
      steps: that are measured; not those at the beginning, which compile, and at the end, where no more are sampled.
      longest: seconds of a call.
      prompts, group: problems of a step, and samples of each, which is the number of slots, too.
      lag: `training.max_lag` of those in flight.
      patience: decode steps, see `config.rollout.patience`; those of `longest` seconds, updates included.
      layers, width: of the policy.
      turn: maximum tokens of a turn.
    """
    from rlvr_jax.config import Config, EvaluationConfig, RolloutConfig, TaskConfig, TrainingConfig
    from rlvr_jax.learner.algorithm import AlgorithmConfig
    from rlvr_jax.learner.optimizer import OptimizerConfig
    from rlvr_jax.training.loop import train
    from rlvr_jax.verifiers.pool import Pool

    episodes, response = prompts * group, TURNS * (turn + 2)
    config = Config(
        tasks={"modsum": TaskConfig(environment=f"{__name__}:calling", environment_options={"longest": longest})},
        policy=policy_of(layers, width),
        rollout=RolloutConfig(
            prompts=prompts, group_size=group, max_prompt_length=32, max_response_length=response,
            max_turn_length=turn, slots=episodes, chunk=8,
        ),
        algorithm=AlgorithmConfig(kl_coef=0.0, reference="none"),
        optimizer=OptimizerConfig(learning_rate=1e-9),  # the policy stays random
        evaluation=EvaluationConfig(problems=1, pass_problems=0, every=10**6),
    )  # fmt: skip
    lines = []
    with Pool(3 * episodes, timeout=60.0) as pool:  # more than there are calls at a time
        for name, changes in SCHEDULES.items():
            ahead = lag if changes else 0
            changed = dataclasses.replace(
                config,
                rollout=dataclasses.replace(config.rollout, **changes, patience=patience),
                training=TrainingConfig(num_steps=steps + 1 + 2 * ahead, save_every=10**6, max_lag=ahead),
            )
            with tempfile.TemporaryDirectory() as workdir:
                train(changed, Path(workdir), pool)
                rows = [json.loads(line) for line in Path(workdir, "metrics.jsonl").read_text().splitlines()]
            rows = rows[2 + ahead : len(rows) - ahead]
            seconds = [row["time/step"] - row.get("time/evaluate", 0.0) for row in rows]
            step, waits = statistics.median(seconds), sum(row["time/verify"] for row in rows) / sum(seconds)
            lags = statistics.fmean(row["train/lag"] for row in rows), max(row["train/max_lag"] for row in rows)
            used = statistics.fmean(row["rollout/occupancy"] for row in rows)
            row = [f"{step:.2f}", f"{waits:.0%}", f"{3600 / step:.0f}", f"{used:.0%}", f"{lags[0]:.1f}", f"{lags[1]}"]
            lines.append([name, *row])
    columns = ("schedule", "step, s", "device waits", "steps an hour", "slots in use", "mean lag", "largest lag")
    return table(columns, lines)
