"""GSM8K with Gemma-3-1B-it by GRPO: groups of 8, answers after `####`.

Meant for one GPU of 80 GB (35.3 GiB by estimate), a v5p-8 slice, 4 chips, or 8 v5e chips (docs/scale.md). Three arrays
of the logits of 512 tokens over a vocabulary of 262,144 take 1.6 GB of it. It has not been run at this size, so there
is no curve; Google's technical report (arXiv:2503.19786) gives 62.8 % on GSM8K. The weights are gated: accept their
licence on the hub first, or use a local folder.

    rlvr train --config=gsm8k_gemma3_1b --workdir=runs/gsm8k_gemma3_1b
"""

from rlvr_jax.configs import base, models


def get_config():
    config = base.get_config()
    models.use(config, "google/gemma-3-1b-it", models.GEMMA3_1B)
    base.set_tasks(config, gsm8k={})
    config.policy.head_chunk = 512
    models.use_gsm8k(config, max_response_length=512)
    return config
