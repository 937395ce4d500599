"""Finding papers by searching their abstracts, with Qwen3-1.7B, by GRPO.

The problems are made from a corpus of papers (`rlvr_jax/tasks/papers.py`): JSON Lines, plain or with gzip, of id,
title, abstract, authors and year, such as those of the ACL Anthology. Papers from 2020 on are held out. To find a
described paper takes one search, to find the other papers of its first author two; citations only evaluate, since few
abstracts have any. Meant for 2 GPUs of 80 GB; it has not run with the pretrained weights, so there is no curve.
`configs/kv_search.py` is a miniature that learns on a laptop. To run it:

    rlvr train --config=papers_search:papers.jsonl --workdir=runs/papers
"""

from rlvr_jax.configs import base, models

_CALLS = 6


def get_config(corpus: str = "papers.jsonl"):
    config = base.get_config()
    models.use(config, "Qwen/Qwen3-1.7B", models.QWEN3_1P7B)
    files = {"corpus": corpus, "text": "abstract"}
    searched = {**files, "withhold": True}
    tools = {"search": {**searched, "tokens": 384}, "open": {**searched, "tokens": 640}}
    task = {
        "name": "papers",
        "thinking": "off",
        "environment": "tools",
        "environment_options": {"tools": tools, "format": "hermes", "max_calls": _CALLS},
    }
    kinds = {
        "find_one": {"kind": "description"},
        "find_three": {"kind": "description", "count": 3},
        "author": {"kind": "author"},
        "citation": {"kind": "citation"},
    }
    tasks = {name: {**task, "options": {**files, **options}} for name, options in kinds.items()}
    tasks["citation"]["weight"] = 0.0
    base.set_tasks(config, **tasks)
    config.reward = (("score", 1.0), ("tool_calls", -0.02), ("malformed_calls", -0.05))
    config.policy.max_length = 1024 + 6144
    config.rollout.prompts = 32
    config.rollout.max_prompt_length = 1024
    config.rollout.max_response_length = 6144
    config.rollout.max_turn_length = 512
    config.rollout.max_turns = _CALLS + 2
    config.algorithm.kl_coef = 1e-3
    config.algorithm.reference = "initial"
    config.optimizer.learning_rate = 1e-6
    config.optimizer.warmup_steps = 10
    config.optimizer.microbatches = 32
    config.training.num_steps = 300
    config.evaluation.every = 20
    config.evaluation.problems = 128
    config.evaluation.pass_problems = 0
    return config
