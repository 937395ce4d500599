"""From examples to trajectories: tokenize, sample on the device, decode."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from rlvr_jax.errors import ConfigError
from rlvr_jax.policy import PolicyConfig
from rlvr_jax.rollout.continuous import Response, all_budgets, make_generate
from rlvr_jax.rollout.sampler import FINISH_REASONS, Samples, SamplingConfig, sample
from rlvr_jax.rollout.trajectory import RolloutStats, Trajectory
from rlvr_jax.tasks.task import Example
from rlvr_jax.text.tokenizers import decode, encode_batch

Rollout = Callable[..., list[Trajectory]]
Stream = Callable[..., Iterator[tuple[list[Trajectory], RolloutStats]]]


def pad_prompts(
    prompts: Sequence[Sequence[int] | Int[np.ndarray, "_length"]], length: int, pad_token: int
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


def collected(stream: Stream) -> Rollout:
    """The function that gives all trajectories of a stream, in the order of the samples."""

    def rollout(
        params: Any, examples: Sequence[Example], key: jax.Array, temperature: float = 1.0, budgets: Any = None
    ) -> list[Trajectory]:
        parts = stream(params, examples, key, temperature, budgets)
        return sorted((trajectory for part, _ in parts for trajectory in part), key=lambda t: t.sample)

    return rollout


def make_stream(
    config: PolicyConfig,
    sampling: SamplingConfig,
    tokenizer: Any,
    prompt_length: int,
    batch_size: int,
    param_shardings: Any,
    batch_sharding: jax.sharding.NamedSharding,
) -> Stream:
    """A generator function `(params, examples, key, temperature=1.0, budgets=None)` that hands out what has ended.

    Sample `i` of a call is one of `sampling.group_size` of example `i // group_size`; it draws from the random stream
    `fold_in(key, i)` and has at most `budgets[i]` tokens, by default `sampling.max_response_length`. Each item is
    (trajectories, in the order in which they ended; the `RolloutStats` so far), and each sample is in exactly one.
    The device goes on while the caller has an item. Any number of examples goes: with `sampling.slots` over so many
    slots (`continuous.py`), otherwise in batches of `batch_size` prompts (`sampler.py`). Compiled at the first call.

    Raises:
      ValueError: the numbers in `sampling` don't go together; by a call, a budget is out of range, or, as ConfigError
        with its id, a prompt is empty or too long.
    """
    if sampling.slots:
        generate = make_generate(config, sampling, prompt_length, param_shardings, batch_sharding)
    else:
        generate = _make_batches(config, sampling, prompt_length, batch_size, param_shardings, batch_sharding)

    def stream(
        params: Any, examples: Sequence[Example], key: jax.Array, temperature: float = 1.0, budgets: Any = None
    ) -> Iterator[tuple[list[Trajectory], RolloutStats]]:
        if not examples:
            return
        prompts = encode_batch(tokenizer, [example.prompt for example in examples])
        for example, prompt in zip(examples, prompts, strict=True):
            if not 0 < len(prompt) <= prompt_length:
                raise ConfigError(
                    f"the prompt of {example.id} has {len(prompt)} tokens; 1 to config.rollout.max_prompt_length = "
                    f"{prompt_length} fit"
                )
        prompts = [np.asarray(prompt, np.int32) for prompt in prompts]
        for responses, stats in generate(params, prompts, key, temperature, budgets):
            yield _trajectories(examples, prompts, responses, sampling.group_size, tokenizer), stats

    return stream


def _make_batches(config, sampling, prompt_length, batch_size, param_shardings, batch_sharding):
    """`continuous.make_generate` without slots: whole batches, each until its longest sample has finished."""
    everywhere = jax.sharding.NamedSharding(batch_sharding.mesh, jax.sharding.PartitionSpec())
    sample_batch = jax.jit(
        partial(sample, config, sampling),
        in_shardings=(param_shardings, *[batch_sharding] * 3, *[everywhere] * 2, batch_sharding),
        out_shardings=batch_sharding,
    )

    def generate(params, prompts, key, temperature, budgets):
        tokens, mask = pad_prompts(prompts, prompt_length, sampling.pad_token)
        group, parts = sampling.group_size, []
        total = len(prompts) * group
        budgets = all_budgets(budgets, total, sampling.max_response_length)
        for start in range(0, len(prompts), batch_size):
            # The last batch is filled up with copies of its first prompt, whose samples are dropped.
            rows = np.arange(start, start + batch_size)
            rows = np.where(rows < len(prompts), rows, start)
            sample_ids = np.arange(start * group, (start + batch_size) * group, dtype=np.int32)
            limits = budgets[np.where(sample_ids < total, sample_ids, start * group)]
            # All batches are the device's before the host waits for the first.
            parts.append(
                sample_batch(params, tokens[rows], mask[rows], sample_ids, key, jnp.float32(temperature), limits)
            )
        stats = RolloutStats()
        for batch, samples in enumerate(parts):
            first = batch * batch_size * group
            samples = jax.device_get(samples)
            steps, real = int(samples.lengths.max()), slice(0, total - first)
            stats = RolloutStats(
                steps=stats.steps + steps,
                slot_steps=stats.slot_steps + steps * len(samples.lengths),
                active_slot_steps=stats.active_slot_steps + int(samples.lengths[real].sum()),
                prefill_tokens=stats.prefill_tokens + int(mask[batch * batch_size :][:batch_size].sum()),
            )
            yield _responses(jax.tree.map(lambda x: x[real], samples), first), stats  # noqa: B023

    return generate


def _responses(samples: Samples, first: int) -> list[Response]:
    return [
        Response(
            sample=first + i,
            tokens=samples.tokens[i, :length],
            sampling_logprobs=samples.sampling_logprobs[i, :length],
            policy_logprobs=samples.policy_logprobs[i, :length],
            finish_reason=FINISH_REASONS[int(samples.finish[i])],
        )
        for i, length in enumerate(samples.lengths)
    ]


def _trajectories(
    examples: Sequence[Example],
    prompts: Sequence[Int[np.ndarray, "_length"]],
    responses: Sequence[Response],
    group: int,
    tokenizer: Any,
) -> list[Trajectory]:
    spoken = [r.tokens[: len(r.tokens) - (r.finish_reason == "stop")].tolist() for r in responses]  # no stop token
    return [
        Trajectory(
            example=examples[r.sample // group],
            sample=r.sample,
            prompt=prompts[r.sample // group],
            tokens=r.tokens,
            action_mask=np.ones(len(r.tokens), bool),
            sampling_logprobs=r.sampling_logprobs,
            policy_logprobs=r.policy_logprobs,
            finish_reason=r.finish_reason,
            text=text,
        )
        for r, text in zip(responses, decode(tokenizer, spoken), strict=True)
    ]
