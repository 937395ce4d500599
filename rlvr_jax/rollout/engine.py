"""From examples to trajectories: tokenize, sample on the device, decode."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from rlvr_jax.policy import PolicyConfig
from rlvr_jax.rollout.sampler import FINISH_REASONS, Samples, SamplingConfig, sample
from rlvr_jax.rollout.trajectory import Trajectory
from rlvr_jax.tasks.task import Example
from rlvr_jax.tasks.tokenizers import decode, encode_batch

Rollout = Callable[..., list[Trajectory]]


def pad_prompts(
    prompts: Sequence[Sequence[int]], length: int, pad_token: int
) -> tuple[Int[np.ndarray, "prompts length"], Bool[np.ndarray, "prompts length"]]:
    """Left-padded prompts, and True on their real tokens.

    Raises:
      ValueError: a prompt is empty or longer than `length`.
    """
    tokens = np.full((len(prompts), length), pad_token, np.int32)
    for row, prompt in enumerate(prompts):
        if not 0 < len(prompt) <= length:
            raise ValueError(
                f"prompt {row} has {len(prompt)} tokens; 1 to {length} (config.rollout.max_prompt_length) fit"
            )
        tokens[row, length - len(prompt) :] = prompt
    lengths = np.array([len(prompt) for prompt in prompts])
    return tokens, np.arange(length) >= length - lengths[:, None]


def make_rollout(
    config: PolicyConfig,
    sampling: SamplingConfig,
    tokenizer: Any,
    prompt_length: int,
    batch_size: int,
    param_shardings: Any,
    batch_sharding: jax.sharding.NamedSharding,
) -> Rollout:
    """A function `(params, examples, key, temperature=1.0) -> trajectories`, compiled once at its first call.

    The samples of one example follow each other, `sampling.group_size` of them. Sample `i` of a call draws from the
    random stream `fold_in(key, i)`. Any number of examples goes, in device batches of `batch_size`.
    """
    everywhere = jax.sharding.NamedSharding(batch_sharding.mesh, jax.sharding.PartitionSpec())
    sample_batch = jax.jit(
        partial(sample, config, sampling),
        in_shardings=(param_shardings, batch_sharding, batch_sharding, batch_sharding, everywhere, everywhere),
        out_shardings=batch_sharding,
    )

    def rollout(params: Any, examples: Sequence[Example], key: jax.Array, temperature: float = 1.0) -> list[Trajectory]:
        if not examples:
            return []
        prompts = encode_batch(tokenizer, [example.prompt for example in examples])
        tokens, mask = pad_prompts(prompts, prompt_length, sampling.pad_token)
        group, parts = sampling.group_size, []
        for start in range(0, len(examples), batch_size):
            # The last batch is filled up with copies of its first prompt, whose samples are dropped.
            rows = np.arange(start, start + batch_size)
            rows = np.where(rows < len(examples), rows, start)
            sample_ids = np.arange(start * group, (start + batch_size) * group, dtype=np.int32)
            parts.append(sample_batch(params, tokens[rows], mask[rows], sample_ids, key, jnp.float32(temperature)))
        samples = jax.tree.map(lambda *x: np.concatenate(x)[: len(examples) * group], *jax.device_get(parts))
        return _trajectories(examples, prompts, samples, group, tokenizer)

    return rollout


def _trajectories(
    examples: Sequence[Example],
    prompts: Sequence[Sequence[int]],
    samples: Samples,
    group: int,
    tokenizer: Any,
) -> list[Trajectory]:
    responses = [tokens[:length] for tokens, length in zip(samples.tokens, samples.lengths, strict=True)]
    reasons = [FINISH_REASONS[int(finish)] for finish in samples.finish]
    spoken = [  # without the stop token
        tokens[: len(tokens) - (reason == "stop")].tolist() for tokens, reason in zip(responses, reasons, strict=True)
    ]
    prompts = [np.asarray(prompt, np.int32) for prompt in prompts]
    return [
        Trajectory(
            example=examples[i // group],
            sample=i,
            prompt=prompts[i // group],
            tokens=tokens,
            action_mask=np.ones(len(tokens), bool),
            sampling_logprobs=samples.sampling_logprobs[i, : len(tokens)],
            policy_logprobs=samples.policy_logprobs[i, : len(tokens)],
            finish_reason=reasons[i],
            text=text,
        )
        for i, (tokens, text) in enumerate(zip(responses, decode(tokenizer, spoken), strict=True))
    ]
