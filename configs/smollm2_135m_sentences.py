"""Constrained sentences with SmolLM2-135M-Instruct: a real model learns to follow instructions on a laptop.

"Write one short sentence with the word lamp. Use fewer than 8 words." IFEval's checkers judge the
constraint, and that the sentence names its topic and has four words. Topics and words of held-out problems are never
trained on. All parameters are trained, 8 problems x 8 samples of at most 24 tokens per step.
Greedy accuracy on 128 held-out problems rises from 0.34 to 0.87, 0.84 and 0.69 (seeds 0 to 2), and falls to
0.16 with shuffled rewards, in 5.3 GB of memory; to 0.93 with LoRA of rank 16 and a learning rate of 3e-4 (seed 0).
docs/real_model.md has the curves, the time and the caveats:

    make real
"""

from rlvr_jax.configs import base, models


def get_config():
    config = base.get_config()
    base.set_tasks(config, sentences={})
    models.use_smollm2_135m(config)
    config.rollout.temperature = 0.8
    config.rollout.max_prompt_length = 64
    config.training.num_steps = 24
    config.training.save_every = 24
    return config
