"""A curriculum by pass rate, where most problems are out of reach.

Running sums of six digits, n of which are not 0: `030900=` is answered by `33222#2`, and only a chain without any
mistake is right. The warm start imitates n = 1 and 2. Of the problems 80 % have n = 6 and 12 % n = 5, which hardly one
of eight samples solves, so a step that takes problems as they come has little to learn from: 99 % of its groups are
without a signal, and at this learning rate the few others undo the warm start. Held-out greedy accuracy over all n,
mean of seeds 0 to 2, goes from 0.28 to 0.00 in 200 steps by the shares above, and to 0.86 (0.68 to 0.96) with the
curriculum; docs/curriculum.md has it by n. Six runs in 3 minutes on 2 CPU cores:

    rlvr sweep --config=curriculum_modsum --grid="curriculum.sampling=mixture,towards_half;seed=0..2"
"""

from rlvr_jax.configs import base

_WEIGHTS = {1: 1.0, 2: 1.0, 3: 2.0, 4: 4.0, 5: 12.0, 6: 80.0}  # of n in the training problems


def get_config():
    config = base.get_config()
    levels = {f"n{n}": {"name": "chains", "options": {"nonzero": n}, "weight": w} for n, w in _WEIGHTS.items()}
    base.set_tasks(config, **levels)
    config.policy.init_scale = 0.125
    config.policy.max_length = 32
    config.rollout.max_prompt_length = 7
    config.rollout.max_response_length = 10
    config.algorithm.minibatches = 2
    config.optimizer.learning_rate = 1e-3
    config.curriculum.sampling = "towards_half"
    config.sft.tasks = {"n1": 0.7, "n2": 0.3}
    config.sft.num_steps = 340
    config.sft.updates_per_call = 20
    config.sft.save_every = 340
    config.training.num_steps = 200
    config.training.save_every = 100
    config.evaluation.every = 20
    config.evaluation.problems = 32
    config.evaluation.pass_problems = 0
    return config
