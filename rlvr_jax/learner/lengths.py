"""Changes of the reward by the length of a response: functions (config, samples) -> rewards.

They precede the baseline, so that a group is compared by the rewards that it is trained on. n is a response's length
in tokens; a response is right if its reward is above 0.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.samples import Samples

Values = Float[np.ndarray, "samples"]


def unchanged(_: AlgorithmConfig, samples: Samples) -> Values:
    """r."""
    return samples.rewards


def soft_overlong(config: AlgorithmConfig, samples: Samples) -> Values:
    """r + coef clip((L - buffer - n) / buffer, -1, 0), where L is the response budget: 0 up to L - buffer, -coef at L.

    The buffer is `length_buffer`, or a fifth of the budget if that is 0.

    Source: Yu et al. 2025 (DAPO, arXiv:2503.14476), eq. 13, with 4,096 of 20,480 tokens. verl and tunix have no lower
    bound.
    """
    buffer = config.length_buffer or samples.budget / 5
    return samples.rewards + config.length_coef * np.clip((samples.budget - buffer - samples.lengths) / buffer, -1, 0)


def group_range(config: AlgorithmConfig, samples: Samples) -> Values:
    """r + coef b, where b = 0.5 - (n - shortest) / (longest - shortest) in the group, and min(0, b) for wrong
    responses; b = 0 if all have one length.

    Source: Kimi k1.5 (arXiv:2501.12599), section 2.3.3 (number unverified), from secondary sources. The paper warms the
    coefficient up.
    """
    lengths, count = samples.lengths.astype(np.float64), samples.groups.max(initial=0) + 1
    shortest, longest = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(shortest, samples.groups[samples.judged], lengths[samples.judged])
    np.maximum.at(longest, samples.groups[samples.judged], lengths[samples.judged])
    shortest, longest = shortest[samples.groups], longest[samples.groups]
    differ = longest > shortest
    share = np.where(differ, lengths - shortest, 0.0) / np.where(differ, longest - shortest, 1.0)
    bonus = np.where(differ, 0.5 - share, 0.0)
    bonus = np.where(samples.rewards > 0, bonus, np.minimum(bonus, 0.0))
    return samples.rewards + config.length_coef * bonus


def exact_length(config: AlgorithmConfig, samples: Samples) -> Values:
    """r - coef |target - n|.

    Source: Aggarwal & Welleck 2025 (L1, LCPO-Exact, arXiv:2503.04697), with coef 3e-4, where the target is a part of
    the prompt; here it is one number.
    """
    return samples.rewards - config.length_coef * np.abs(config.length_target - samples.lengths)


def maximum_length(config: AlgorithmConfig, samples: Samples) -> Values:
    """r clip(coef (target - n) + 0.5, 0, 1).

    Source: Aggarwal & Welleck 2025 (L1, LCPO-Max, arXiv:2503.04697). Their code has half the slope, and adds the factor
    to the reward unless told otherwise.
    """
    return samples.rewards * np.clip(config.length_coef * (config.length_target - samples.lengths) + 0.5, 0, 1)


def unfinished(config: AlgorithmConfig, samples: Samples) -> Values:
    """r, and -coef instead of it for responses that a limit of tokens or turns cut off, right ones, too.

    Source: Lambert et al. 2024 (Tulu 3, arXiv:2411.15124), as in open-instruct, with a coef of 10 and 10 for a right
    answer: their penalty of responses without an end token.
    """
    return np.where(samples.cut_off, -config.length_coef, samples.rewards)


LENGTHS: Mapping[str, Callable[[AlgorithmConfig, Samples], Values]] = {
    "none": unchanged,
    "soft_overlong": soft_overlong,
    "group_range": group_range,
    "exact": exact_length,
    "maximum": maximum_length,
    "unfinished": unfinished,
}
