"""Sums of two-digit numbers with SmolLM2-135M-Instruct, after two solved examples.

The pretrained model is correct about half of the time with greedy decoding, and less often when sampled. All parameters
are trained, 8 problems x 8 samples per step. Greedy accuracy on 128 held-out problems rises from 0.48 to 0.59, 0.66 and
0.59 (seeds 0 to 2), and falls to 0 with shuffled rewards; see docs/real_model.md:

    rlvr train --config=smollm2_135m_sums --workdir=runs/sums
"""

from rlvr_jax.configs import base, models


def get_config():
    config = base.get_config()
    base.set_tasks(config, sums={"options": {"digits": 2}, "shots": 2})
    models.use_smollm2_135m(config)
    config.rollout.max_prompt_length = 136
    config.training.num_steps = 16
    config.training.save_every = 16
    return config
