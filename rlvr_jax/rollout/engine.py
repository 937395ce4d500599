"""From examples to trajectories: tokenize, sample on the device, decode."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from rlvr_jax.errors import ConfigError
from rlvr_jax.rollout.sampler import Request, RolloutStats, Sampler, Turn, episode_keys
from rlvr_jax.rollout.trajectory import Trajectory
from rlvr_jax.tasks.task import Example
from rlvr_jax.text.tokenizers import decode, encode_batch

Rollout = Callable[..., list[Trajectory]]
Stream = Callable[..., Iterator[tuple[list[Trajectory], RolloutStats]]]


def collected(stream: Stream) -> Rollout:
    """The function that gives all trajectories of a stream, in the order of the samples."""

    def rollout(
        params: Any, examples: Sequence[Example], key: jax.Array, temperature: float = 1.0, budgets: Any = None
    ) -> list[Trajectory]:
        parts = stream(params, examples, key, temperature, budgets)
        return sorted((trajectory for part, _ in parts for trajectory in part), key=lambda t: t.sample)

    return rollout


def make_stream(sampler: Sampler, tokenizer: Any, group_size: int, stop_tokens: tuple[int, ...]) -> Stream:
    """A generator function `(params, examples, key, temperature=1.0, budgets=None)` that hands out what has ended.

    Sample `i` of a call is one of `group_size` of example `i // group_size`; it draws from the random stream
    `fold_in(key, i)` and has at most `budgets[i]` tokens, by default as many as the sampler allows. Each item is
    (trajectories, in the order in which they ended; the `RolloutStats` so far), and each sample is in exactly one.
    The device goes on while the caller has an item.

    Raises:
      ValueError: by a call, a budget is out of range, or, as ConfigError with its id, a prompt is empty or too long.
    """
    prompt_length, longest = sampler.sampling.prompt_length, sampler.sampling.max_response_length

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
        samples = len(prompts) * group_size
        budgets = np.full(samples, longest) if budgets is None else np.asarray(budgets)
        if budgets.shape != (samples,) or not ((budgets >= 1) & (budgets <= longest)).all():
            raise ValueError(
                f"budgets must be {samples} numbers from 1 to {longest} (max_response_length), one a sample"
            )
        keys, before = episode_keys(key, range(samples)), sampler.stats
        sampler.set_params(params, 0)
        sampler.submit(
            [
                Request(
                    id=i,
                    key=keys[i],
                    prompt=prompts[i // group_size],
                    budget=int(budgets[i]),
                    temperature=temperature,
                    stop_tokens=stop_tokens,
                )
                for i in range(samples)
            ]
        )
        while turns := sampler.poll():
            yield _trajectories(examples, prompts, turns, group_size, tokenizer), sampler.stats - before

    return stream


def _trajectories(
    examples: Sequence[Example],
    prompts: Sequence[Int[np.ndarray, "_length"]],
    turns: Sequence[Turn],
    group: int,
    tokenizer: Any,
) -> list[Trajectory]:
    spoken = [turn.tokens[: len(turn.tokens) - (turn.finish == "stop")].tolist() for turn in turns]  # no stop token
    return [
        Trajectory(
            example=examples[turn.id // group],
            sample=turn.id,
            prompt=prompts[turn.id // group],
            tokens=turn.tokens,
            action_mask=np.ones(len(turn.tokens), bool),
            policy_logprobs=turn.logprobs,
            finish_reason=turn.finish,
            text=text,
        )
        for turn, text in zip(turns, decode(tokenizer, spoken), strict=True)
    ]
