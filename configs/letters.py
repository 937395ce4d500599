"""Letters: a task with a known gold reward, for the over-optimisation of learned ones (docs/preferences.md).

A policy of 87 thousand parameters writes 6 to 12 letters, of which three are wanted. About half a minute on 2 CPU cores
for the warm start and as much for 120 steps.
"""

from rlvr_jax.configs import base


def get_config():
    config = base.get_config()
    base.set_tasks(config, letters={"name": "rlvr_jax.experiments.benchmarks.letters:letters"})
    config.policy.init_scale = 0.125
    config.policy.max_length = 32
    config.rollout.max_prompt_length = 4
    config.rollout.max_response_length = 15
    config.algorithm.reference = "initial"
    config.optimizer.learning_rate = 3e-4
    config.sft.num_steps = 400
    config.sft.save_every = 400
    config.preferences.loss = "bradley_terry"
    config.preferences.batch_size = 64
    config.preferences.num_steps = 600
    config.preferences.updates_per_call = 20
    config.preferences.save_every = 600
    config.preferences.optimizer.learning_rate = 1e-3
    config.preferences.optimizer.warmup_steps = 0
    config.preferences.optimizer.decay = "constant"
    config.training.num_steps = 120
    config.training.save_every = 120
    config.evaluation.every = 120
    config.evaluation.problems = 64
    config.evaluation.pass_problems = 0
    return config
