"""TinyZero: Countdown with Qwen2.5-3B, a base model without a warm start, in the style of R1-Zero.

After https://github.com/Jiayi-Pan/TinyZero: its problems and its prompt for base models, prompts of 256 and responses
of 1,024 tokens, learning rate 1e-6, 256 prompts per step in two updates, KL 0.001. Difference: GRPO with groups of 5
replaces PPO with a value model. Meant for 4 GPUs of 80 GB (36.4 GiB each by estimate) or a v5p-8 slice, 4 chips
(39.1 GiB each, compiled; docs/scale.md). It has not been run at this size; the project's README reports that a 3B base
model learns to search and to check its answers.

    rlvr train --config=r1_zero_countdown_qwen25_3b --workdir=runs/r1_zero_countdown
"""

from rlvr_jax.configs import base, models


def get_config():
    config = base.get_config()
    models.use(config, "Qwen/Qwen2.5-3B", models.QWEN2_5_3B)
    base.set_tasks(config, countdown_tinyzero={})
    config.prompt.format = "template"
    config.prompt.template = (
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The "
        "assistant first thinks about the reasoning process in the mind and then provides the user with the answer.\n"
        "User: {prompt}\nAssistant: Let me solve this step by step.\n<think>"
    )
    config.policy.max_length = 1280
    config.rollout.prompts = 256
    config.rollout.group_size = 5
    config.rollout.max_prompt_length = 256
    config.rollout.max_response_length = 1024
    config.algorithm.kl_coef = 1e-3
    config.algorithm.reference = "initial"
    config.algorithm.minibatches = 2
    config.optimizer.learning_rate = 1e-6
    config.optimizer.microbatches = 16
    config.training.num_steps = 200
    config.evaluation.every = 20
    config.evaluation.problems = 256
    config.evaluation.pass_samples = 5
    config.evaluation.ks = (1, 5)
    return config
