"""A policy for interactive use: text in, text out, on one device and without a config.

`rlvr_jax.load` makes one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32

from rlvr_jax import parallel, policy
from rlvr_jax.hf.families import LENGTH
from rlvr_jax.parallel import MeshConfig
from rlvr_jax.policy import Params, PolicyConfig
from rlvr_jax.rollout.batches import pad_prompts
from rlvr_jax.rollout.sampler import Request, Sampler, SamplingConfig, Turn, episode_keys
from rlvr_jax.text.messages import wrong_messages
from rlvr_jax.text.prompts import chat_text, renderer
from rlvr_jax.text.tokenizers import decode, encode_batch

HEAD_CHUNK = 1024  # tokens whose logits are in memory at a time


@dataclass(frozen=True)
class Completion:
    """A response of the policy.

    Attributes:
      prompt: the rendered prompt, chat template included.
      text: without special tokens.
      tokens: with the stop token, if there is one.
      logprobs: of each token, in nats, under the policy at temperature 1.
      finish_reason: "stop", or "length" if `max_tokens` ended it.
    """

    prompt: str
    text: str
    tokens: Int32[np.ndarray, "length"]
    logprobs: Float32[np.ndarray, "length"]
    finish_reason: str


@dataclass(frozen=True)
class Model:
    """A policy with its tokenizer.

    Attributes:
      config: its architecture.
      params: on the first device, without adapters.
      tokenizer: of transformers.
      stop_tokens: the ids that end a completion.
    """

    config: PolicyConfig
    params: Params = field(repr=False)  # not shown as the result of a notebook cell
    tokenizer: Any = field(repr=False)
    stop_tokens: tuple[int, ...]

    def generate(
        self,
        prompts: Any,
        *,
        samples: int = 1,
        max_tokens: int = 256,
        temperature: float | int = 1.0,
        top_k: int = 0,
        top_p: float | int = 1.0,
        seed: int = 0,
        batch_size: int = 32,
        template: Mapping[str, Any] | None = None,
    ) -> list[Completion]:
        """Completions of one prompt or of several, `samples` of each, in their order.

        The same arguments give the same completions. The first call of a size compiles.

        Args:
          prompts: text, which is continued as it stands, or messages, which the chat template renders.
          samples: of each prompt.
          max_tokens: maximum length of a completion, stop token included; fewer at the end of the policy's window.
          temperature: of the samples; 0 is greedy.
          top_k, top_p: filters; 0 and 1 switch them off.
          seed: of the samples.
          batch_size: completions at a time, at least those of one prompt.
          template: options of the chat template, such as {"enable_thinking": False}.

        Raises:
          ValueError: a prompt is empty, is neither text nor messages, or fills the window; or a number is out of range.
        """
        if min(samples, max_tokens, batch_size) < 1 or not 0 <= temperature < inf or not 0 < top_p <= 1 or top_k < 0:
            raise ValueError(
                "samples, max_tokens and batch_size must be above 0, temperature and top_k 0 or more, top_p in (0, 1]: "
                f"{samples}, {max_tokens}, {batch_size}; {temperature}, {top_k}; {top_p}"
            )
        texts = self.texts(prompts, template)
        ids = self._ids(texts)
        if not ids:
            return []
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        found = self.continued(ids, samples, max_tokens, batch_size, **options)
        spoken = decode(self.tokenizer, [turn.tokens[: len(turn.tokens) - (turn.finish == "stop")] for turn in found])
        return [
            Completion(texts[turn.id // samples], text, turn.tokens, turn.logprobs, turn.finish)
            for turn, text in zip(found, spoken, strict=True)
        ]

    def continued(
        self,
        prompts: Sequence[Sequence[int]],
        samples: int,
        max_tokens: int,
        batch_size: int,
        temperature: float | int = 1.0,
        top_k: int = 0,
        top_p: float | int = 1.0,
        seed: int = 0,
    ) -> list[Turn]:
        """Turns of prompts that are token ids and leave room in the window; arguments as of `generate`."""
        sampling = SamplingConfig(
            prompt_length=rounded(max(map(len, prompts))),
            max_response_length=rounded(max_tokens),
            group_size=samples,
            batch_size=max(1, batch_size // samples),
            top_k=top_k,
            top_p=top_p,
            max_stop_tokens=len(self.stop_tokens),
        )
        sampler = Sampler(self.config, sampling, parallel.make_mesh(MeshConfig(data=1), jax.local_devices()[:1]))
        sampler.set_params(self.params, 0)
        arrays = [np.asarray(prompt, np.int32) for prompt in prompts]
        sampler.submit(
            [
                Request(
                    id=i,
                    key=key,
                    prompt=arrays[i // samples],
                    budget=min(max_tokens, self.window - len(arrays[i // samples])),
                    temperature=float(temperature),
                    stop_tokens=self.stop_tokens,
                )
                for i, key in enumerate(episode_keys(jax.random.key(seed), range(len(arrays) * samples)))
            ]
        )
        return sorted((turn for turns in iter(sampler.poll, []) for turn in turns), key=lambda turn: turn.id)

    @property
    def window(self) -> int:
        """Tokens of a prompt and its completion at most."""
        return self.config.max_length or LENGTH

    def logprobs(
        self,
        prompts: Any,
        completions: str | Completion | Sequence[str | Completion | Sequence[int]],
        *,
        batch_size: int = 32,
        template: Mapping[str, Any] | None = None,
    ) -> list[Float32[np.ndarray, "length"]]:
        """Log-probability of each token of a completion given its prompt, in nats, at temperature 1.

        Args:
          prompts: as of `generate`.
          completions: one per prompt: text, token ids, or results of `generate`.
          batch_size: rows at a time.
          template: as of `generate`.

        Raises:
          ValueError: there are not as many completions as prompts; or a prompt is empty, is neither text nor messages,
            or does not fit into the policy's window with its completion; or a token is not in the vocabulary.
        """
        texts = self.texts(prompts, template)
        completions = [completions] if isinstance(completions, str | Completion) else list(completions)
        if len(completions) != len(texts):
            raise ValueError(f"there are {len(texts)} prompts and {len(completions)} completions")
        said = [
            encode_batch(self.tokenizer, [x])[0] if isinstance(x, str) else [int(t) for t in getattr(x, "tokens", x)]
            for x in completions
        ]
        for i, tokens in enumerate(said):
            if not all(0 <= token < self.config.vocab_size for token in tokens):
                raise ValueError(f"completion {i} has tokens that are not from 0 to {self.config.vocab_size - 1}")
        pairs = list(zip(self._ids(texts, said), said, strict=True))
        found = []
        for batch in chunks(pairs, batch_size):
            length = rounded(max(len(prompt) + len(tokens) for prompt, tokens in batch))
            rows, mask = pad_prompts([[*prompt, *tokens] for prompt, tokens in batch], length)
            logprobs = np.asarray(_teacher_forced(self.config, self.params, rows, mask))
            found += [row[len(row) - len(tokens) :] for row, (_, tokens) in zip(logprobs, batch, strict=True)]
        return found[: len(texts)]

    def texts(self, prompts: Any, template: Mapping[str, Any] | None = None) -> list[str]:
        """The prompts as `generate` continues them."""
        prompts = [prompts] if isinstance(prompts, str | Mapping) else list(prompts)
        prompts = [prompts] if prompts and isinstance(prompts[0], Mapping) else prompts
        plain = renderer(self.tokenizer, "plain", "")
        chat = partial(chat_text, self.tokenizer, add_generation_prompt=True, **(template or {}))
        for i, prompt in enumerate(prompts):
            if not isinstance(prompt, str | Sequence) or isinstance(prompt, bytes):
                raise ValueError(f"prompt {i} is {type(prompt).__name__}, neither text nor a list of messages")
            if not isinstance(prompt, str) and (wrong := wrong_messages(prompt, f"prompt {i}")):
                raise ValueError(wrong)
        return [plain(x) if isinstance(x, str) else chat(x) for x in prompts]

    def _ids(self, texts: Sequence[str], said: Sequence[Sequence[int]] | None = None) -> list[list[int]]:
        """Tokens of prompts, checked to fit into the window together with their completions, or with one more token."""
        ids, window = encode_batch(self.tokenizer, texts), self.window
        for i, prompt in enumerate(ids):
            more = 1 if said is None else len(said[i])
            if not prompt or len(prompt) + more > window:
                raise ValueError(f"prompt {i} has {len(prompt)} tokens; 1 to {window - more} fit into the window")
        return ids


def rounded(length: int) -> int:
    """A length rounded up, so that few lengths are compiled."""
    return max(32, 1 << (length - 1).bit_length())


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Batches of equal size; the last one is padded with copies of an item."""
    size = min(size, len(items))
    for start in range(0, len(items), size or 1):
        batch = list(items[start : start + size])
        yield batch + [batch[0]] * (size - len(batch))


@partial(jax.jit, static_argnums=0)
def _teacher_forced(
    config: PolicyConfig, params: Params, tokens: Int[Array, "batch time"], mask: Any
) -> Float[Array, "batch time-1"]:
    """Log-probability of each token but the first, in left-padded rows."""
    positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
    hidden, _ = policy.forward(config, params, tokens, positions, mask.astype(jnp.int32))
    return policy.logprobs_and_entropy(config, params, hidden[:, :-1], tokens[:, 1:])[0]
