"""Plans only where they pay: operations on digits, of which one can't be done without a plan.

Half of the problems ask for a sum modulo 10, which takes a plan of running sums; the others for a maximum, the first or
the last digit, which do not (`rlvr_jax/tasks/operations.py`). Plans cost nothing here, and spread to all problems; with
a cost of 0.06 a token only sums are planned. docs/long_contexts.md has the numbers:

    rlvr sft --config=plans --workdir=runs/plans/sft
    rlvr train --config=plans --workdir=runs/plans --config.init_from=runs/plans/sft
"""

from rlvr_jax.configs import base

_MARKS = {"plan": ("[", "]"), "thinking": ("<think>", "</think>")}  # no token of the policy begins a thought


def get_config():
    config = base.get_config()
    shared = {"name": "operations", "environment": "plans", "environment_options": {"marks": _MARKS}}
    weights = {"sum": 3.0, "maximum": 1.0, "first": 1.0, "last": 1.0}
    tasks = {
        name: {**shared, "options": {"operation": name[0].upper(), "least": 6}, "weight": weight}
        for name, weight in weights.items()
    }
    base.set_tasks(config, **tasks)
    config.reward = (("score", 1.0), ("plan_tokens", 0.0))
    config.policy.init_scale = 0.125
    config.policy.max_length = 32
    config.rollout.max_prompt_length = 8
    config.rollout.max_response_length = 12
    config.algorithm.scale = "none"
    config.optimizer.learning_rate = 3e-4
    config.sft.batch_size = 64
    config.sft.num_steps = 900
    config.sft.save_every = 900
    config.training.num_steps = 120
    config.training.save_every = 120
    config.evaluation.problems = 64
    config.evaluation.pass_problems = 0
    return config
