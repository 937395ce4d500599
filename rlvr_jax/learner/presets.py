"""Published methods as sets of choices for `config.algorithm`.

A preset sets every choice in which its method differs from the defaults of `AlgorithmConfig`. It does not set sizes
(group, batch, updates per batch unless the method is defined by them), the optimizer, the task or its reward: `paper`
gives those. `differs` says in what a run with the preset is not the paper's method.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rlvr_jax.learner.algorithm import AlgorithmConfig

# Keys of a run rather than of a method: a preset on a command line leaves them as the config file has them.
OF_THE_RUN = (
    "shuffle_rewards",
    "minibatches",
    "epochs",
    "pass_k",
    "aggregation_tokens",
    "length_buffer",
    "length_target",
)


@dataclass(frozen=True)
class Preset:
    """A published method.

    Attributes:
      source: authors, name, arXiv number, equation.
      choices: keys of `AlgorithmConfig` and their values.
      paper: constants of the paper that a preset does not set.
      differs: what is missing or other than in the paper; empty if nothing is known.
    """

    source: str
    choices: Mapping[str, Any]
    paper: str = ""
    differs: str = ""


_KL_IN_REWARD = {"reference": "initial", "kl_reward_coef": 0.05}
_PPO = _KL_IN_REWARD | {"baseline": "value", "scale": "token_whitening", "gae_lambda": 0.95, "return_lambda": 0.95}
_SEQUENCES = {"aggregation": "sequence_mean"}
_REINFORCE = {"ratio": "none", "clip": "none"}
_ON_POLICY = _REINFORCE | {"minibatches": 1}
_REFILL = {"keep": "mixed_groups", "max_draws": 10}
_DAPO = {"clip_high": 0.28, "aggregation": "group_token_mean"} | _REFILL

PRESETS: Mapping[str, Preset] = {
    "grpo": Preset(
        "Shao et al. 2024 (arXiv:2402.03300), eq. 3-4",
        _SEQUENCES | {"kl": "k3", "kl_coef": 0.04, "reference": "initial", "minibatches": 1},
        "group of 64, learning rate 1e-6, 1,024 tokens, batch of 1,024; these and kl_coef are unverified",
    ),
    "dr_grpo": Preset(
        "Liu et al. 2025 (arXiv:2503.20783)",
        {"scale": "none", "aggregation": "constant"},
        "group of 8, 3,000 tokens, which are the constant",
        "the constant is config.rollout.max_response_length unless aggregation_tokens says otherwise",
    ),
    "dapo": Preset(
        "Yu et al. 2025 (arXiv:2503.14476), eq. 8 and 13",
        _DAPO | {"length_reward": "soft_overlong"},
        "group of 16, 512 prompts in 16 updates, learning rate 1e-6, temperature 1, rewards of 1 and -1 (with 0 and 1 "
        "a length_coef of 0.5 has the same weight)",
        "groups are mixed by reward, theirs by accuracy; draws follow each other, theirs are three times as large. "
        "Released code: a mean over all tokens (aggregation 'token_mean') and a dual clip at 10 (clip 'dual')",
    ),
    "rloo": Preset(
        "Ahmadian et al. 2024 (arXiv:2402.14740)",
        _ON_POLICY | _KL_IN_REWARD | {"baseline": "leave_one_out", "scale": "none", "aggregation": "sequence_sum"},
        "groups of 2 or 4",
        "kl_reward_coef is that of TRL",
    ),
    "reinforce_pp_baseline": Preset(
        "Hu 2025 (REINFORCE++, arXiv:2501.03262), with the group's mean",
        {"scale": "token_whitening", "kl": "k2", "reference": "initial", "kl_coef": 0.01},
        differs="kl_coef is not the paper's, which is unverified",
    ),
    "gspo": Preset(
        "Zheng et al. 2025 (arXiv:2507.18071), eq. 5-7",
        _SEQUENCES | {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4},
        "4 updates per batch, without which the ratio is 1",
    ),
    "gspo_token": Preset(
        "Zheng et al. 2025 (arXiv:2507.18071), eq. 13-14",
        _SEQUENCES | {"ratio": "sequence_token", "clip_low": 3e-4, "clip_high": 4e-4},
        "as gspo; the same gradient, if all tokens of a sample have one advantage",
    ),
    "cispo": Preset(
        "MiniMax 2025 (MiniMax-M1, arXiv:2506.13585), eq. 4-5",
        {"clip": "cispo", "clip_low": 1.0, "clip_high": 4.0, "aggregation": "group_token_mean"} | _REFILL,
        "several updates per batch; the dynamic sampling is unverified",
        "the paper gives no clip_high; weights up to 5 are those of ScaleRL (arXiv:2510.13786). No early stop at "
        "repetitions",
    ),
    "sapo": Preset("Gao et al. 2025 (arXiv:2511.20347)", _SEQUENCES | {"clip": "sapo"}, "several updates per batch"),
    "gmpo": Preset(
        "Zhao et al. 2025 (arXiv:2507.20673)",
        _SEQUENCES | {"ratio": "geometric", "clip": "none", "clip_low": 0.4, "clip_high": 0.4},
        "several updates per batch",
    ),
    "lite_ppo": Preset("Liu et al. 2025 (arXiv:2508.08221)", {"scale": "batch_std"}, "group of 8"),
    "opo": Preset(
        "Hao et al. 2025 (arXiv:2505.23585)",
        _ON_POLICY | {"baseline": "length_weighted", "scale": "none", "aggregation": "token_mean"},
        "exactly on-policy, without KL and entropy terms; the mean over tokens is that of verl",
    ),
    "maxrl": Preset(
        "MaxRL (arXiv:2602.02710)",
        {"scale": "group_mean", "clip": "dppo", "clip_low": 0.2, "clip_high": 0.2},
        "rewards of 0 and 1",
        "ratio, mask and mean over tokens are those of prime-rl's implementation",
    ),
    "pass_at_k": Preset(
        "Chen et al. 2025 (arXiv:2508.10751)",
        {"baseline": "pass_at_k", "scale": "pass_at_k_std"},
        "rewards of 0 and 1; k is pass_k",
        "everything but the advantage is that of the defaults",
    ),
    "clip_cov": Preset(
        "Cui et al. 2025 (arXiv:2505.22617), Clip-Cov",
        {"clip_low": 1.0, "clip_high": 1.0, "entropy": "clip_cov", "entropy_share": 2e-4} | _REFILL,
        "8 updates per batch",
    ),
    "kl_cov": Preset(
        "Cui et al. 2025 (arXiv:2505.22617), KL-Cov",
        {"clip": "none", "entropy": "kl_cov", "entropy_share": 2e-3, "entropy_coef": 1.0} | _REFILL,
        "8 updates per batch; a share of 2e-4 for 32B",
    ),
    "forking_80_20": Preset(
        "Wang et al. 2025 (arXiv:2506.01939)",
        _DAPO | {"length_reward": "soft_overlong", "entropy": "top_share", "entropy_share": 0.2},
        "as dapo",
        "as dapo; the tokens are chosen once, before the step's first update",
    ),
    "raft": Preset(
        "Xiong et al. 2025 (arXiv:2504.11343)",
        _REINFORCE | {"baseline": "none", "scale": "none", "keep": "right"},
        "groups of 4, learning rate 1e-6",
        "their scripts keep a k3 term of 0.001",
    ),
    "expert_iteration": Preset(
        "the M step of ReST-EM, Singh et al. 2023 (arXiv:2312.06585)",
        _REINFORCE | {"baseline": "none", "scale": "none", "keep": "right"},
        "many samples per problem, several updates per batch; rewards of 0 and 1",
        "goes on from the last policy, where ReST-EM and STaR (arXiv:2203.14465) return to the first one; no limit of "
        "right samples per problem, and no hints for unsolved ones. The same as raft",
    ),
    "raft_pp": Preset(
        "Xiong et al. 2025 (arXiv:2504.11343), RAFT++",
        {"baseline": "none", "scale": "none", "keep": "right"},
        "groups of 4, learning rate 1e-6, several updates per batch",
        "their scripts keep a k3 term of 0.001",
    ),
    "reinforce_rej": Preset(
        "Xiong et al. 2025 (arXiv:2504.11343), Reinforce-Rej",
        {"baseline": "none", "scale": "none", "keep": "mixed_groups"},
        "rewards of 1 and -1, groups of 4, learning rate 1e-6",
    ),
    "online_dpo": Preset(
        "Guo et al. 2024 (online AI feedback, arXiv:2402.04792), with DPO (arXiv:2305.18290), eq. 7",
        _REINFORCE
        | {"loss": "preferences", "baseline": "best_worst", "scale": "none", "keep": "best_worst"}
        | {"reference": "initial"},
        "groups of 2; preference_beta 0.1, which is that of TRL; learning rate 5e-7",
        "with more than two samples the best and the worst of a group by reward are its pair; groups of equal rewards "
        "are none. The paper's judge is a language model: here any reward",
    ),
    "gkd": Preset(
        "Agarwal et al. 2023 (GKD, arXiv:2306.13649), eq. 1 and 4",
        _REINFORCE | {"loss": "distillation", "distillation_beta": 0.5, "baseline": "none", "scale": "none"},
        "distillation_beta 0.5 is TRL's default, the paper varies it from 0 to 1; the share of samples that are not "
        "the policy's own is config.algorithm.demonstrations; config.teacher",
        "demonstrations are those of the task; rewards are measured, and have no part in the loss",
    ),
    "on_policy_distillation": Preset(
        "Lu & Thinking Machines Lab 2025 (On-Policy Distillation), by the log-probs of sampled tokens",
        _REINFORCE
        | {"baseline": "none", "scale": "none", "gamma": 0.0}
        | {"reference": "teacher", "kl_reward_coef": 1.0},
        "config.reward = (('score', 0.0),): the teacher alone; groups of 4; config.teacher",
        "an update on-policy, without their importance ratio; with the loss 'distillation' the divergence is exact "
        "over the vocabulary, which has less variance",
    ),
    "ppo": Preset(
        "Schulman et al. 2017 (arXiv:1707.06347), eq. 7, and 2016 (GAE, arXiv:1506.02438), eq. 16; KL in the reward as "
        "in Ziegler et al. 2019 (arXiv:1909.08593)",
        _PPO | {"epochs": 4},
        "values clipped at 0.2, which is the default of config.critic.clip",
        "kl_reward_coef is Tulu 3's; the critic is a network of its own and starts from the policy; whitening and "
        "clipping of values are those of the implementations, not of the papers",
    ),
    "tulu3": Preset(
        "Lambert et al. 2024 (Tulu 3 RLVR, arXiv:2411.15124), by the commands and code of open-instruct for 8B",
        _PPO
        | {"epochs": 4, "minibatches": 1, "aggregation": "sequence_mean"}
        | {"length_reward": "unfinished", "length_coef": 10.0},
        "learning rates of policy and critic 3e-7, linear to 0, AdamW with eps 1e-5; batch of 224 with one sample per "
        "prompt (config.rollout.group_size = 1); 2,048 tokens, temperature 1; reward 10 if right (config.reward = "
        "(('score', 10.0),)). 70B: learning rates 1e-7 after a warm-up of 10 %, kl_reward_coef 0.07, batch "
        "of 640",
        "the critic starts from the policy unless `critic.init` names a reward model, theirs from one of 8B; their "
        "losses are means over micro-batches of one or two samples, nearly those over samples; they whiten per device, "
        "and put the reward after the end token, whose value counts",
    ),
    "remax": Preset(
        "Li et al. 2023 (ReMax, arXiv:2310.10505)",
        _ON_POLICY | _KL_IN_REWARD | {"baseline": "greedy", "scale": "none", "aggregation": "sequence_sum"},
        "one sample per prompt",
        "kl_reward_coef is not the paper's, which is unverified; the penalties of a sample are summed over all of it",
    ),
    "vine_ppo": Preset(
        "Kazemnejad et al. 2024 (VinePPO, arXiv:2410.01679)",
        {"baseline": "monte_carlo", "scale": "token_whitening", "state_samples": 9, "max_states": 25, "epochs": 2}
        | {"kl": "k3", "kl_coef": 1e-4, "reference": "initial"},
        "64 prompts of 8 samples, minibatches of 64 samples, learning rate 1e-6, temperature 0.6",
        "steps end at line breaks, theirs at delimiters of each task; equal states of a group share their episodes; "
        "k3 is not clipped, theirs to [0, 10]",
    ),
    "kimi_mirror": Preset(
        "Kimi k1.5 (arXiv:2501.12599), section 2.3.2, from secondary sources",
        {"scale": "none", "clip": "mirror", "aggregation": "sequence_sum", "length_reward": "group_range"},
        "several updates per batch; harder problems later, and those more often that are solved less often",
        "mirror_tau is not the paper's, which is unverified; the coefficient of length is constant, theirs is warmed "
        "up; the optimizer goes on, theirs starts anew at each batch",
    ),
    "spo": Preset(
        "Xu & Ding 2025 (SPO, arXiv:2509.13232), as in verl's recipe",
        {"baseline": "tracker", "scale": "batch_whitening", "scale_epsilon": 1e-8}
        | {"clip": "dual", "clip_high": 0.28, "clip_dual": 10.0},
        "one sample per prompt (config.rollout.group_size = 1); problems are drawn with the weight sqrt(p (1 - p)) + "
        "0.05: config.curriculum.by = 'problem', sampling = 'towards_half', power = 0.5, floor = 0.05",
        "no samples of each problem before the run, theirs are 8; the divisor of their std is unverified",
    ),
    "luffy": Preset(
        "Yan et al. 2025 (LUFFY, arXiv:2504.14945)",
        {"demonstrations": 1, "clip": "none", "aggregation": "constant", "entropy": "bonus", "entropy_coef": 1e-3},
        "groups of 8, learning rate 1e-6, demonstrations by a stronger model",
        "demonstrations are those of the task",
    ),
    "reinforce_pp": Preset(
        "Hu 2025 (REINFORCE++, arXiv:2501.03262)",
        _KL_IN_REWARD | {"baseline": "none", "scale": "token_whitening"},
        differs="kl_reward_coef is not the paper's, which is unverified",
    ),
    "reinforce": Preset(
        "Williams 1992 (REINFORCE), without a baseline",
        _ON_POLICY | {"baseline": "none", "scale": "none", "aggregation": "sequence_sum"},
    ),
}


def preset(name: str, **choices: Any) -> AlgorithmConfig:
    """The defaults with the choices of a preset, and others besides, which take precedence; "" is no preset.

    Raises:
      ValueError: there is no such preset.
    """
    if not isinstance(name, str):
        raise ValueError(f"a preset is a name, not {name!r}")
    if name and name not in PRESETS:
        close = ", ".join(map(repr, difflib.get_close_matches(name, PRESETS)))
        hint = f"did you mean {close}? (`rlvr keys algorithm.preset` lists all)" if close else ""
        hint = hint or f"there are {', '.join(PRESETS)}"
        raise ValueError(f"there is no preset {name!r}; {hint}")
    return replace(AlgorithmConfig(), preset=name, **{**(PRESETS[name].choices if name else {}), **choices})
