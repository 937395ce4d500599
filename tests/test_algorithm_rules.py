"""Choices of the algorithm that contradict each other are refused with the reason and another choice."""

import pytest

from rlvr_jax.algorithm_rules import CHOICES
from rlvr_jax.config import from_dict
from rlvr_jax.config_rules import check
from rlvr_jax.errors import ConfigError

# (keys of the algorithm, what the message names, other keys)
REFUSED = [
    *(
        ({key: "nothing like it"}, (f"config.algorithm.{key} = 'nothing like it'", *table))
        for key, table in CHOICES.items()
    ),
    ({"clip": "cispoo"}, ("config.algorithm.clip", "did you mean 'cispo'")),
    ({"kl": "k1"}, ("config.algorithm.kl = 'k1'", "expected gradient", "'k2'", "'ratio_k3'")),
    ({"advantage": "best"}, ("config.algorithm.advantage = 'best'", "module:function")),
    ({"ddof": 2}, ("config.algorithm.ddof", "2")),
    ({"clip_dual": 1.0}, ("config.algorithm.clip_dual", "1.0")),
    ({"importance_cap": 0.0}, ("config.algorithm.importance_cap", "0.0")),
    ({"clip_low": -1.0}, ("config.algorithm.clip_low", "-1.0")),
    ({"kl_coef": float("nan")}, ("config.algorithm.kl_coef", "nan")),
    ({"baseline": "leave_one_out"}, ("'leave_one_out'", "'group_std'", "'batch_std'", "'group_mean'")),
    ({"baseline": "leave_one_out", "scale": "group_mean"}, ("'leave_one_out'", "'group_mean'", "'none'")),
    ({"baseline": "none"}, ("scale = 'group_std'", "baseline = 'none'", "'batch_std'")),
    ({"baseline": "batch_mean"}, ("scale = 'group_std'", "baseline = 'batch_mean'", "'batch_std'")),
    ({"baseline": "pass_at_k"}, ("'pass_at_k'", "'group_std'", "'pass_at_k_std'")),
    ({"scale": "pass_at_k_std"}, ("'group_mean'", "'pass_at_k_std'", "'pass_at_k'")),
    ({"preset": "pass_at_k", "pass_k": 8}, ("pass_k = 8", "group_size = 8")),
    *(({key: float("inf")}, (f"config.algorithm.{key}", "finite", "inf")) for key in ("kl_coef", "scale_epsilon")),
    ({"advantage": "own:best", "preset": "ppo"}, ("advantage = 'own:best'", "baseline = 'value'", "preset = 'ppo'")),
    ({"advantage": "own:best", "preset": "remax"}, ("advantage = 'own:best'", "baseline = 'greedy'")),
    ({"advantage": "own:best", "max_draws": 5}, ("max_draws = 5", "keep = 'all'")),
    ({"advantage": "own:best", "demonstrations": 8}, ("demonstrations", "0 to 7", "8")),
    ({"advantage": "own:best", "length_reward": "exact"}, ("length_reward = 'exact'", "length_target")),
    ({"preset": ["ppo"]}, ("config.algorithm.preset", "['ppo']")),
    (
        {"preset": "pass_at_k"},
        ("'pass_at_k'", "0 and 1", "('format', 0.5)"),
        {"reward": [["score", 1.0], ["format", 0.5]]},
    ),
    ({"preset": "maxrl"}, ("scale = 'group_mean'", "0 and 1"), {"reward": [["score", 2.0]]}),
    ({"preset": "maxrl", "length_reward": "group_range"}, ("scale = 'group_mean'", "length_reward")),
    ({"preset": "maxrl", "kl_reward_coef": 0.1, "reference": "initial"}, ("scale = 'group_mean'", "kl_reward_coef")),
    ({}, ("rollout.group_size is 1", "'group_mean'", "'batch_mean'"), {"rollout": {"group_size": 1}}),
    ({"length_reward": "soft_overlong", "length_buffer": 65}, ("length_buffer = 65", "max_response_length = 64")),
    ({"length_reward": "exact"}, ("length_reward = 'exact'", "length_target")),
    ({"ratio": "none"}, ("ratio = 'none'", "clip = 'none'", "'ppo'")),
    ({"ratio": "geometric", "clip": "dual"}, ("ratio = 'geometric'", "clip = 'none'", "'dual'")),
    ({"ratio": "sequence", "clip": "dcpo"}, ("clip = 'dcpo'", "ratio = 'token'", "'sequence'")),
    ({"ratio": "sequence", "clip": "mirror"}, ("clip = 'mirror'", "ratio = 'token'", "'sequence'")),
    ({"correction": "token_tis"}, ("correction = 'token_tis'", "proximal = 'behaviour'", "'recompute'", "twice")),
    ({}, ("rollout.top_k = 5", "correction = 'none'", "'token_tis'", "'recompute'"), {"rollout": {"top_k": 5}}),
    ({}, ("top_p = 0.9", "correction = 'none'", "top_p = 1,"), {"rollout": {"top_p": 0.9}}),
    ({"proximal": "current", "minibatches": 2}, ("proximal = 'current'", "minibatches = 2", "'recompute'")),
    ({"preset": "opo", "proximal": "recompute"}, ("proximal = 'recompute'", "'behaviour'")),
    ({"importance_floor": 3.0}, ("importance_floor = 3.0", "importance_cap = 2.0")),
    ({"kl": "none", "kl_coef": 0.1, "reference": "initial"}, ("kl_coef = 0.1", "kl = 'none'")),
    ({"kl_coef": 0.1}, ("kl_coef = 0.1", "reference = 'initial'")),
    ({"preset": "spo", "scale": "group_std"}, ("'group_std'", "'tracker'", "'batch_std'")),
    ({"replay": 2, "replay_size": 1}, ("replay = 2", "replay_size = 1")),
    ({"replay": 2, "ratio": "none", "clip": "none"}, ("replay = 2", "ratio = 'none'", "'token_tis'")),
    ({"replay": 2, "proximal": "current"}, ("replay = 2", "'current'", "correction = 'none'")),
    ({"preset": "gkd"}, ("loss = 'distillation'", "config.teacher")),
    ({"preset": "on_policy_distillation"}, ("reference = 'teacher'", "config.teacher")),
    ({}, ("config.teacher = 'there'", "nothing reads it"), {"teacher": "there"}),
    ({"preset": "gkd", "distillation_beta": 1.5}, ("distillation_beta", "1.5"), {"teacher": "there"}),
    ({"preset": "gkd", "entropy": "bonus", "entropy_coef": 0.1}, ("entropy = 'bonus'", "'none'"), {"teacher": "there"}),
    (
        {"preset": "on_policy_distillation", "reference_every": 3},
        ("reference_every = 3", "teacher", "0"),
        {"teacher": "there"},
    ),
    ({"preset": "online_dpo", "baseline": "none"}, ("baseline = 'none'", "'best_worst'")),
    ({"preset": "online_dpo", "loss": "policy_gradient"}, ("baseline = 'best_worst'", "'group_mean'")),
    ({"preset": "gkd", "baseline": "value"}, ("baseline = 'value'", "'distillation'", "'none'"), {"teacher": "there"}),
    ({"preset": "gkd", "keep": "right"}, ("keep = 'right'", "'distillation'", "'all'"), {"teacher": "there"}),
    ({"preset": "gkd", "shuffle_rewards": True}, ("shuffle_rewards = True", "False"), {"teacher": "there"}),
    ({"preset": "online_dpo", "advantage": "a:b"}, ("advantage = 'a:b'", "'baseline'")),
    ({"preset": "online_dpo", "keep": "all"}, ("keep = 'all'", "'best_worst'")),
    ({"preset": "online_dpo"}, ("group_size = 3", "even"), {"rollout": {"group_size": 3}}),
    ({"preset": "online_dpo", "preference": "simpo"}, ("reference = 'initial'", "'simpo'")),
    ({"preset": "online_dpo", "reference": "none"}, ("reference = 'none'", "'dpo'")),
    ({"preset": "online_dpo", "preference_beta": 0.0}, ("preference_beta", "0.0")),
    ({"preset": "online_dpo", "kl_coef": 0.1}, ("kl_coef = 0.1", "'preferences'")),
    ({"preset": "online_dpo", "length_reward": "group_range"}, ("length_reward = 'group_range'", "config.reward")),
    ({"preset": "online_dpo", "aggregation": "constant"}, ("aggregation = 'constant'", "'token_mean'")),
    ({"replay": 2, "preset": "spo"}, ("replay = 2", "baseline = 'tracker'", "'group_mean'")),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: str(case[0]))
def test_a_contradiction_is_one_line_with_the_keys_and_the_alternative(case):
    algorithm, texts, *others = case
    with pytest.raises(ConfigError) as caught:
        check(from_dict({"algorithm": algorithm, **(others[0] if others else {})}), 1)
    message = str(caught.value)
    assert "\n" not in message
    assert [text for text in texts if text not in message] == []


ALLOWED = [
    ({"baseline": "leave_one_out", "scale": "batch_std"}, {}),
    ({"baseline": "pass_at_k", "scale": "none"}, {}),
    ({"baseline": "batch_mean", "scale": "batch_std"}, {"rollout": {"group_size": 1}}),
    ({"ratio": "sequence", "clip": "cispo"}, {}),
    ({"preset": "opo", "proximal": "current", "correction": "sequence_mis"}, {}),
    ({"proximal": "recompute"}, {}),
    ({"proximal": "recompute", "correction": "token_mis"}, {"rollout": {"top_p": 0.9}}),
    ({"kl": "none", "reference": "initial"}, {}),
]


@pytest.mark.parametrize(("algorithm", "others"), ALLOWED)
def test_other_combinations_are_allowed(algorithm, others):
    check(from_dict({"algorithm": algorithm, **others}), 1)
