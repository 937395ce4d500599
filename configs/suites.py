"""The built-in suites of `rlvr evaluate --suite`."""

_PYTHON = {"environment": "tools", "environment_options": {"tools": ["python"], "format": "hermes"}}
_LONG = {"rollout.max_prompt_length": 1024, "rollout.max_response_length": 1024, "rollout.overlong_prompts": "drop"}
_DEVELOPMENT = {"gsm8k": {}, "math": {}, "mbpp": {}, "humaneval": {}, "ifeval": {}}
_UNSEEN = {
    "countdown_tinyzero": {},
    "arc_agi": {"options": {"largest_grid": 12}},  # 114 of the 400 problems, nearly all of which fit into the prompt
    "chain_sum": {"name": "reasoning_gym", "options": {"dataset": "chain_sum"}},
    "spell_backward": {"name": "reasoning_gym", "options": {"dataset": "spell_backward"}},
    "family_relationships": {"name": "reasoning_gym", "options": {"dataset": "family_relationships"}},
}

SUITES = {
    "development": {"tasks": _DEVELOPMENT, "changes": _LONG},
    "unseen": {"tasks": _UNSEEN, "unseen": True, "changes": _LONG | {"rollout.max_prompt_length": 2048}},
    # Each task twice: what a tool, or thinking, is worth to a policy.
    "tools": {"tasks": {"gsm8k": {}, "gsm8k-python": {"name": "gsm8k", **_PYTHON}}, "changes": _LONG},
    "thinking": {
        "tasks": {
            f"{name}-thinking_{thinking}": {"name": name, "thinking": thinking}
            for name in ("gsm8k", "math")
            for thinking in ("off", "on")
        },
        "changes": _LONG,
    },
    # For small pretrained models, made without downloads.
    "small": {
        "tasks": {
            "sums": {},
            "sentences": {},
            **{
                name: {"name": "reasoning_gym", "options": {"dataset": name}}
                for name in ("chain_sum", "letter_counting", "number_sorting")
            },
        },
        "changes": {"rollout.max_prompt_length": 512, "rollout.max_response_length": 64},
    },
}
