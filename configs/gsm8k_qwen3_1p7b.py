"""GSM8K with Qwen3-1.7B, thinking switched off, by GRPO: groups of 8, answers in `\\boxed{}`.

Meant for 2 GPUs of 80 GB (46.9 GiB each by estimate) or a v5p-8 slice, 4 chips (docs/scale.md);
`--config.policy.lora.rank=32` needs less. With random weights, whose responses are all of full length, a step took 46
seconds and 63 GB on an H200 (docs/performance.md; on one GPU of 80 GB set XLA_PYTHON_CLIENT_MEM_FRACTION=0.92). It has
not run with the pretrained weights, so there is no curve. To run it:

    rlvr train --config=gsm8k_qwen3_1p7b --workdir=runs/gsm8k_qwen3_1p7b
"""

from rlvr_jax.configs import base, models


def get_config():
    config = base.get_config()
    models.use(config, "Qwen/Qwen3-1.7B", models.QWEN3_1P7B)
    base.set_tasks(config, gsm8k={"options": {"answer_format": "boxed"}, "thinking": "off"})
    models.use_gsm8k(config, max_response_length=1024)
    return config
