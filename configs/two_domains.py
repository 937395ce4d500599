"""Two domains with rewards of different size: digit sums and letters, one policy.

Sums score 0 or 1, and letters their gold reward, with a standard deviation of a tenth of that
(`experiments/benchmarks/letters.py`). `config.reward` makes the letters louder by the weight of their part `gold`, and
`config.algorithm.scale` says by what advantages are divided: with the standard deviation of the whole batch the louder
domain drowns the other, with that of a group or a domain it does not.

    rlvr sft --config=two_domains --workdir=runs/two_domains/sft
    rlvr train --config=two_domains --workdir=runs/two_domains --config.init_from=runs/two_domains/sft
"""

from rlvr_jax.configs import base


def get_config():
    config = base.get_config()
    base.set_tasks(
        config,
        sums={"name": "modsum", "options": {"digits": 6, "direct_share": 0.6}},
        letters={"name": "rlvr_jax.experiments.benchmarks.letters:letters"},
    )
    config.reward = (("score", 1.0), ("gold", 10.0))
    config.policy.init_scale = 0.125
    config.policy.max_length = 32
    config.rollout.max_prompt_length = 7
    config.rollout.max_response_length = 15
    config.optimizer.learning_rate = 3e-4
    config.sft.num_steps = 1600
    config.sft.save_every = 1600
    config.training.num_steps = 40
    config.training.save_every = 40
    config.evaluation.every = 8
    config.evaluation.problems = 64
    config.evaluation.pass_problems = 0
    return config
