"""Validity rules of the losses beside policy gradients, which leave most choices without a part, and of the teacher."""

from collections.abc import Iterator, Mapping

from rlvr_jax.config import Config

_OF_POLICY_GRADIENTS = {
    **dict.fromkeys(("ratio", "clip", "correction", "entropy"), "none"),
    **dict.fromkeys(("kl_coef", "kl_reward_coef"), 0.0),
}

# What goes before the loss, of losses that leave it one choice.
_SIGNALS: Mapping[str, tuple[str, Mapping[str, str | bool]]] = {
    "preferences": (
        "the pairs of loss = 'preferences' are the best and the worst sample of each group (preset 'online_dpo')",
        {"keep": "best_worst", "baseline": "best_worst", "scale": "none", "advantage": "baseline"},
    ),
    "distillation": (
        "rewards have no part in loss = 'distillation', which trains on all samples (preset 'gkd')",
        {"keep": "all", "baseline": "none", "scale": "none", "advantage": "baseline"}
        | {"length_reward": "none", "shuffle_rewards": False},
    ),
}


def rules(c: Config) -> Iterator[tuple[bool, str]]:
    """(Is it wrong, message) of each rule."""
    a, size = c.algorithm, c.rollout.group_size
    reads = a.reference == "teacher" or a.loss == "distillation"
    yield (
        reads and not c.teacher,
        f"config.algorithm.reference = {a.reference!r} and loss = {a.loss!r} need a teacher: set config.teacher to a "
        "workdir or a Hugging Face checkpoint",
    )
    yield (
        bool(c.teacher) and not reads,
        f"config.teacher = {c.teacher!r}, and nothing reads it: set config.algorithm.loss = 'distillation', or "
        "config.algorithm.reference = 'teacher' with kl_coef or kl_reward_coef",
    )
    yield (
        a.reference == "teacher" and a.reference_every > 0,
        f"config.algorithm.reference_every = {a.reference_every} would move it, and a teacher stays; set 0",
    )
    pairs = a.loss == "preferences"
    for loss, (why, choices) in _SIGNALS.items():
        for key, wanted in choices.items():
            yield (
                a.loss == loss and getattr(a, key) != wanted,
                f"config.algorithm.{key} = {getattr(a, key)!r}: {why}; set {wanted!r}",
            )
    yield (
        a.baseline == "best_worst" and a.loss == "policy_gradient",
        "config.algorithm.baseline = 'best_worst' marks pairs, which loss = 'policy_gradient' has no use for; set loss "
        "= 'preferences', or baseline = 'group_mean'",
    )
    yield (
        pairs and size % 2 != 0,
        f"config.rollout.group_size = {size} is odd, and loss = 'preferences' lays samples out in pairs; use an even "
        "number",
    )
    needs_reference = a.preference != "simpo"
    yield (
        pairs and needs_reference == (a.reference == "none"),
        f"config.algorithm.reference = {a.reference!r} with preference = {a.preference!r}: 'simpo' has no reference "
        "policy, and the others need one, 'initial' or 'teacher'",
    )
    yield (
        a.keep == "best_worst" and a.length_reward != "none",
        f"config.algorithm.length_reward = {a.length_reward!r} changes rewards after keep = 'best_worst' has chosen by "
        "them; use terms of config.reward, such as ('length', -0.001) or ('truncated', -1.0)",
    )
    for key, plain in _OF_POLICY_GRADIENTS.items():
        yield (
            a.loss in ("preferences", "distillation") and getattr(a, key) != plain,
            f"config.algorithm.{key} = {getattr(a, key)!r} has no part in loss = {a.loss!r}; set {plain!r}",
        )
    yield (
        pairs and a.aggregation != "token_mean",
        f"config.algorithm.aggregation = {a.aggregation!r} weighs tokens, and loss = 'preferences' is a mean over "
        "pairs; leave 'token_mean'",
    )
