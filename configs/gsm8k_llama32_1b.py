"""GSM8K with Llama-3.2-1B-Instruct by GRPO: groups of 8, answers after `####`.

Meant for one GPU of 80 GB (44.6 GiB by estimate), a v5p-8 slice, 4 chips, or 8 v5e chips (docs/scale.md). It has not
been run at this size, so there is no curve; Meta's model card reports 44.4 % on GSM8K (8-shot, with reasoning), and a
run should start in a similar range. The weights are gated: accept their licence on the hub first, or use a local
folder.

    rlvr train --config=gsm8k_llama32_1b --workdir=runs/gsm8k_llama32_1b
"""

from rlvr_jax.configs import base, models


def get_config():
    config = base.get_config()
    models.use(config, "meta-llama/Llama-3.2-1B-Instruct", models.LLAMA3_2_1B)
    base.set_tasks(config, gsm8k={})
    models.use_gsm8k(config, max_response_length=512)
    return config
