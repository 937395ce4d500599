"""Tulu 3's last stage as published: PPO with a value model from the reward model, on verifiable rewards.

The problems and their shares are those of `tulu3_rlvr_8b`, which has GRPO in place of PPO. By the commands and code of
allenai/open-instruct for 8B: learning rates 3e-7, linear to 0, AdamW with eps 1e-5; 224 samples of as many prompts per
batch, 4 epochs; KL 0.05 in the reward, gamma 1, lambda 0.95, clip 0.2; prompts and responses of 2,048 tokens,
temperature 1, reward 10 if right. The paper's table, which is not verified, has responses of 1,024 tokens but for MATH,
and 100,000 episodes, which is the number of steps here. Differences: a truncated response costs 10, where theirs gets
-10 whatever its answer; see also the preset `tulu3` (docs/algorithms.md). Meant for 16 v5p chips (46.3 GiB each,
compiled) or 8 GPUs of 80 GB with `--config.mesh.rollout_tensor=4 --config.optimizer.microbatches=14` (52.5 GiB each by
estimate; docs/scale.md). It has not been run at this size.

    rlvr train --config=tulu3_ppo_8b --workdir=runs/tulu3_ppo_8b --config.critic.init=runs/tulu3_rm_8b
"""

from rlvr_jax.configs import tulu3_rlvr_8b


def get_config():
    config = tulu3_rlvr_8b.get_config()
    for key in config.algorithm:
        config.algorithm[key] = None
    config.algorithm.preset = "tulu3"
    config.rollout.prompts = 224
    config.rollout.group_size = 1
    config.critic.init = "runs/tulu3_rm_8b"
    for optimizer in (config.optimizer, config.critic.optimizer):
        optimizer.learning_rate = 3e-7
        optimizer.decay = "linear"
        optimizer.eps = 1e-5
        optimizer.b2 = 0.999
        optimizer.microbatches = 7
    config.training.num_steps = 446
    return config
