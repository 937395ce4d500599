"""Tulu 3's first stage: Llama-3.1-8B on the 939,343 chats of its SFT mixture, 2 epochs.

The mixture, `allenai/tulu-3-sft-mixture`, is read from a folder (`config.sft.sources.tulu.file`), and so is a tokenizer
with Tulu's chat template (`config.tokenizer`; without one only chats of a single turn are used, by
`config.prompt.template`). Learning rate 5e-6, batches of 128, rows of 4,096 tokens, linear decay after 3 % of warm-up:
as in arXiv:2411.15124, section 4, to our memory, and not compared with their code, which also sums the loss of a batch
where this takes the mean. Meant for 8 GPUs of 80 GB (40.0 GiB each by estimate) or 16 v5p chips (23.3 GiB; 24.2
compiled). It has not been run at this size.

    rlvr sft --config=tulu3_sft_8b --workdir=runs/tulu3_sft_8b
"""

from rlvr_jax.configs import base, models


def get_config():
    config = base.get_config()
    models.use(config, "meta-llama/Llama-3.1-8B", models.LLAMA3_1_8B)
    config.prompt.template = "{system}<|user|>\n{prompt}\n<|assistant|>\n"
    config.policy.max_length = 4096
    config.rollout.max_prompt_length = 2048
    config.rollout.max_response_length = 2048
    config.sft.sources = {"tulu": {"file": "data/tulu-3-sft-mixture", "weight": 1.0}}
    config.sft.num_steps = 14_680
    config.sft.batch_size = 128
    config.sft.updates_per_call = 1
    config.sft.save_every = 1000
    config.sft.optimizer.learning_rate = 5e-6
    config.sft.optimizer.warmup_steps = 440
    config.sft.optimizer.decay = "linear"
    config.sft.optimizer.b2 = 0.999
    config.sft.optimizer.microbatches = 4
    return config
