"""Dense policies of 8, 32 and 70 billion parameters by GRPO on MATH, to plan with `rlvr compile`.

`--config=dense:8b` is Llama 3.1 8B Instruct, `dense:32b` Qwen3-32B and `dense:70b` Llama 3.1 70B Instruct: 256
problems in groups of 8, prompts of 1,024 and responses of 3,072 tokens, no reference. docs/scale.md has the layouts
that fit pods of TPUs and 8 GPUs. None of them has been run.

    rlvr compile --config=dense:8b --topology=v5p:4x4x8 --fit
"""

from rlvr_jax.configs import base, models

_MODELS = {
    "8b": ("meta-llama/Llama-3.1-8B-Instruct", models.LLAMA3_1_8B),
    "32b": ("Qwen/Qwen3-32B", models.QWEN3_32B),
    "70b": ("meta-llama/Llama-3.1-70B-Instruct", models.LLAMA3_1_70B),
}


def get_config(size: str = "8b"):
    if size not in _MODELS:
        raise ValueError(f"the sizes are {', '.join(_MODELS)}, not {size!r}")
    config = base.get_config()
    models.use(config, *_MODELS[size])
    base.set_tasks(config, math={"options": {"heldout": "500"}})
    config.policy.max_length = 4096
    config.rollout.prompts = 256
    config.rollout.max_prompt_length = 1024
    config.rollout.max_response_length = 3072
    config.algorithm.preset = "dr_grpo"
    config.optimizer.learning_rate = 1e-6
    config.optimizer.microbatches = 8
    config.training.num_steps = 200
    config.evaluation.every = 20
    config.evaluation.problems = 500
    return config
