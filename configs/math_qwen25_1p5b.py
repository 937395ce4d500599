"""MATH with Qwen2.5-1.5B, a base model, by Dr. GRPO (arXiv:2503.20783): no normalisation by std or length, no KL.

Trained on the 12,000 problems of the PRM800K split, evaluated on the other 500 ("MATH-500"). Meant for 2 GPUs of 80 GB
(35.3 GiB each by estimate) or a v5p-8 slice, 4 chips (docs/scale.md). It has not been run at this size, so there is no
curve; the paper's Figure 1 shows the kind to expect (for Qwen2.5-Math models).

    rlvr train --config=math_qwen25_1p5b --workdir=runs/math_qwen25_1p5b
"""

from rlvr_jax.configs import base, models


def get_config():
    config = base.get_config()
    models.use(config, "Qwen/Qwen2.5-1.5B", models.QWEN2_5_1P5B)
    base.set_tasks(config, math={"options": {"heldout": "500"}})
    config.policy.max_length = 4096
    config.rollout.prompts = 128
    config.rollout.max_prompt_length = 1024
    config.rollout.max_response_length = 3072
    config.algorithm.preset = "dr_grpo"
    config.optimizer.learning_rate = 1e-6
    config.optimizer.microbatches = 64
    config.training.num_steps = 200
    config.evaluation.every = 20
    config.evaluation.problems = 500
    return config
