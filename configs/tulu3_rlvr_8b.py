"""Tulu 3's last stage, RLVR, from Llama-3.1-Tulu-3-8B-DPO: a mixture of GSM8K, MATH and IFEval-style constraints.

Hyper-parameters as published (arXiv:2411.15124, section 6, and the command in docs/tulu3.md of allenai/open-instruct):
learning rate 3e-7, 224 samples per update, temperature 1, KL 0.05, prompts and responses of 2,048 tokens, reward 10 for
a correct answer and -10 for a truncated one. Differences: GRPO (32 prompts in groups of 7) replaces PPO with a value
model, as in Tulu 3.1, and their 15,000 prompts with constraints are not public as a TFDS data set, so half of IFEval's
own 541 prompts are trained on and the other half held out; the shares are those of the three parts of their mixture
(7,473, 7,500 and 14,973 prompts). Meant for 16 v5p chips (41 GiB each, compiled) or 8 GPUs of 80 GB with
`--config.mesh.rollout_tensor=4` (47.5 GiB each by estimate; docs/scale.md). It has not been run at this size; the
paper's Figure 20 shows the curves of GSM8K, MATH and IFEval.

    rlvr train --config=tulu3_rlvr_8b --workdir=runs/tulu3_rlvr_8b
"""

from rlvr_jax.configs import base, models


def get_config():
    config = base.get_config()
    models.use(config, "allenai/Llama-3.1-Tulu-3-8B-DPO", models.TULU3_8B)
    base.set_tasks(
        config,
        gsm8k={"options": {"answer_format": "boxed"}, "weight": 7473},
        math={"options": {"heldout": "500"}, "weight": 7500},
        ifeval={"options": {"heldout_share": 0.5}, "weight": 14_973},
    )
    config.policy.max_length = 4096
    config.rollout.prompts = 32
    config.rollout.group_size = 7
    config.rollout.max_prompt_length = 2048
    config.rollout.max_response_length = 2048
    config.reward = (("score", 10.0),)
    config.algorithm.length_reward = "unfinished"
    config.algorithm.length_coef = 10.0
    config.algorithm.kl_coef = 0.05
    config.algorithm.reference = "initial"
    config.optimizer.learning_rate = 3e-7
    config.optimizer.decay = "linear"
    config.optimizer.microbatches = 7
    config.training.num_steps = 1000
    config.training.save_every = 100
    config.evaluation.every = 100
    config.evaluation.problems = 500
    config.evaluation.pass_samples = 7
    config.evaluation.ks = (1, 7)
    return config
