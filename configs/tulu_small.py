"""Tulu 3's chain in small: SFT on mixed demonstrations, DPO on own pairs, RLVR, of five instructions about letters.

A policy of 87 thousand parameters; docs/tulu.md has the commands and what each stage adds.
"""

from rlvr_jax.configs import base


def get_config():
    config = base.get_config()
    base.set_tasks(
        config,
        **{
            name: {"name": "rlvr_jax.experiments.benchmarks.instructions:instruction", "options": {"name": name}}
            for name in ("copy", "reverse", "sort", "next", "pairs")
        },
    )
    config.policy.init_scale = 0.125
    config.policy.max_length = 32
    config.rollout.max_prompt_length = 8
    config.rollout.max_response_length = 10
    config.rollout.prompts = 20
    config.optimizer.learning_rate = 1e-3
    config.sft.num_steps = 800
    config.sft.save_every = 800
    config.preferences.loss = "dpo_norm"
    config.preferences.beta = 5.0
    config.preferences.num_steps = 100
    config.preferences.save_every = 100
    config.preferences.optimizer.learning_rate = 3e-4
    config.preferences.optimizer.warmup_steps = 0
    config.training.num_steps = 200
    config.training.save_every = 100
    config.evaluation.every = 20
    config.evaluation.problems = 64
    config.evaluation.pass_problems = 64
    config.evaluation.pass_samples = 4
    config.evaluation.ks = (1, 4)
    return config
