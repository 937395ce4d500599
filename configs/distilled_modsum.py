"""A policy of a tenth of the quickstart's size learns from the quickstart's, on its own samples.

The teacher is a finished quickstart, of 75 thousand parameters, and the student has 7.5 thousand. It begins with a warm
start on the same demonstrations, three times as long, and then the divergence KL(student || teacher) is lowered at the
tokens that it samples itself: greedy accuracy goes from 0.11 to 0.95 in 10 steps, if the warm start has taught it
running sums at all (docs/self_training.md has the numbers):

    make quickstart
    rlvr sft --config=distilled_modsum --workdir=runs/student/sft
    rlvr train --config=distilled_modsum --workdir=runs/student --config.init_from=runs/student/sft
"""

from rlvr_jax.configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.teacher = "runs/quickstart"
    config.policy.width = 20
    config.policy.num_heads = 2
    config.policy.num_kv_heads = 1
    config.policy.head_dim = 10
    config.policy.mlp_width = 40
    config.algorithm.preset = "gkd"
    config.algorithm.distillation_beta = 1.0
    config.optimizer.learning_rate = 3e-3
    config.sft.num_steps = 2100
    config.training.num_steps = 60
    config.training.save_every = 60
    config.evaluation.every = 10
    return config
