"""Self-play that learns to win: Nim with one pile, from random moves to the best ones.

Each game of the task `self_play` gives two samples, one for each role, and advantages compare the samples of a role.
`against_random` and `against_optimal` are evaluated alone, from piles that can be won: the accuracy is the share of
games that are won. The warm start imitates random moves. docs/environments.md has what came of it:

    rlvr sft --config=nim --workdir=runs/nim/sft
    rlvr train --config=nim --workdir=runs/nim --config.init_from=runs/nim/sft
"""

from rlvr_jax.configs import base

PILE = 13  # the largest


def get_config():
    config = base.get_config()
    game = {"name": "nim", "options": {"most": PILE}, "environment": "nim"}
    won = game | {"options": {"most": PILE, "winnable": True}, "weight": 0.0}
    random, optimal = ({"environment_options": {"opponent": opponent}} for opponent in ("random", "optimal"))
    base.set_tasks(config, self_play=game, against_random=won | random, against_optimal=won | optimal)
    config.reward = (("score", 1.0), ("illegal", -1.0))
    config.policy.init_scale = 0.125
    config.policy.max_length = 40
    config.rollout.prompts = 16
    config.rollout.group_size = 16
    config.rollout.max_prompt_length = 3
    config.rollout.max_response_length = 32
    config.rollout.max_turn_length = 2
    config.rollout.max_turns = 8
    config.algorithm.entropy = "bonus"
    config.algorithm.entropy_coef = 0.15
    config.optimizer.learning_rate = 1e-3
    config.sft.num_steps = 200
    config.sft.save_every = 200
    config.training.num_steps = 120
    config.training.save_every = 120
    config.evaluation.every = 20
    config.evaluation.problems = 40
    config.evaluation.pass_problems = 0
    return config
