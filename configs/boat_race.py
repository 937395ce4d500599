"""Boat race: a policy that is paid for targets learns to circle about one, and no longer finishes.

A policy of 70 thousand parameters writes the moves of a boat on a track (`experiments/benchmarks/boat_race.py`). The
reward is 1 for each target that it hits, which is back at once, and 0.5 for the finish; accuracy is the share of
finished races. Half a minute on 2 CPU cores:

    rlvr sft --config=boat_race --workdir=runs/boat_race/sft
    rlvr train --config=boat_race --workdir=runs/boat_race --config.init_from=runs/boat_race/sft
"""

from rlvr_jax.configs import base


def get_config():
    config = base.get_config()
    base.set_tasks(config, boat_race={"name": "rlvr_jax.experiments.benchmarks.boat_race:boat_race"})
    config.reward = (("targets", 1.0), ("score", 0.5))
    config.policy.width = 48
    config.policy.init_scale = 0.125
    config.policy.max_length = 32
    config.rollout.max_prompt_length = 5
    config.rollout.max_response_length = 15
    config.optimizer.learning_rate = 1e-3
    config.sft.num_steps = 300
    config.sft.save_every = 300
    config.training.num_steps = 150
    config.training.save_every = 150
    config.evaluation.every = 150
    config.evaluation.problems = 8
    config.evaluation.pass_problems = 0
    return config
