"""Tulu 3's reward model, from Llama-3.1-Tulu-3-8B-SFT, on the preferences of its second stage.

By the commands of allenai/open-instruct: learning rate 3e-6, batches of 256 (on 8 GPUs, as is assumed there), 2,048
tokens of prompt and completion together (here 1,024 each), one epoch; the number of steps is for about 271,000 pairs, a
count that is not verified, as is the linear decay. The value model of `tulu3_ppo_8b` starts from it. Meant for 8
GPUs of 80 GB (30.0 GiB each by estimate) or 16 v5p chips (15.4 GiB; 18.2 compiled). It has not been
run at this size.

    rlvr prefer --config=tulu3_rm_8b --workdir=runs/tulu3_rm_8b
"""

from rlvr_jax.configs import tulu3_dpo_8b


def get_config():
    config = tulu3_dpo_8b.get_config()
    config.preferences.loss = "bradley_terry"
    config.preferences.beta = 0.1
    config.preferences.num_steps = 1060
    config.preferences.batch_size = 256
    config.preferences.optimizer.learning_rate = 3e-6
    config.preferences.optimizer.warmup_steps = 0
    return config
