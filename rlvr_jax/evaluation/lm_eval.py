"""Policies as language models of EleutherAI's `lm-eval`, whose tasks then run on them."""

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlvr_jax import policy
from rlvr_jax.errors import ConfigError
from rlvr_jax.policy import Params, PolicyConfig
from rlvr_jax.rollout.batches import pad_prompts, prompt_positions
from rlvr_jax.rollout.model import Model, chunks, rounded
from rlvr_jax.text.tokenizers import decode, encode_batch

_MAX_TOKENS = 256  # of a response, if the task does not say
_POSITIONS = 1024  # whose logits are in memory at a time
_LOG = logging.getLogger(__name__)

Pair = tuple[Sequence[int], Sequence[int]]  # token ids of a context and its continuation


def run(
    model: Model, tasks: Sequence[str], folder: str | None = None, batch_size: int = 16, **options: Any
) -> dict[str, Any]:
    """The results of `lm_eval.simple_evaluate`.

    Args:
      model: from `rlvr_jax.load`.
      tasks: names of tasks or groups of tasks.
      folder: with YAML files of further tasks.
      batch_size: rows at a time.
      options: of `simple_evaluate`, such as num_fewshot, limit, apply_chat_template.

    Raises:
      ConfigError: `lm-eval` is not installed, or has no such task.
    """
    installed()
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=folder)
    if unknown := [task for task in tasks if not manager.match_tasks([task])]:
        raise ConfigError(f"lm-eval has no task {unknown[0]!r}; `lm-eval ls tasks` lists those it has")
    return simple_evaluate(as_lm(model, batch_size), tasks=list(tasks), task_manager=manager, **options)


def installed() -> None:
    """Raises ConfigError if `lm-eval` is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError("lm-eval is needed for its tasks: pip install lm_eval")


def as_lm(model: Model, batch_size: int = 16) -> Any:
    """The policy as an `lm_eval.api.model.LM`. Contexts that do not fit are cut at their beginning, with a warning."""
    from lm_eval.api.model import LM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    class Policy(LM):  # `simple_evaluate` asks for a subclass
        tokenizer_name = str(getattr(model.tokenizer, "name_or_path", "") or "rlvr_jax")

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            return scores(model, [pair_of(model, *request.args) for request in requests], batch_size)

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            found = []
            for (text,) in (request.args for request in requests):
                windows = get_rolling_token_windows(_encoded(model, text), _first(model), model.window - 1, 1)
                pairs = [make_disjoint_window(window) for window in windows]
                found.append(sum(logprob for logprob, _ in scores(model, pairs, batch_size)))
            return found

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            return generated(model, [request.args for request in requests], batch_size)

        def apply_chat_template(self, chat_history: Sequence[Any], add_generation_prompt: bool = True) -> str:
            last = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
            return model.tokenizer.apply_chat_template(list(chat_history), tokenize=False, **last)

        def chat_template(self, chat_template: bool | str = False) -> str:  # noqa: ARG002
            return str(getattr(model.tokenizer, "chat_template", None) or "")

    return Policy()


def pair_of(model: Model, context: str, continuation: str) -> Pair:
    """The tokens of a context and its continuation, as those of both together are divided.

    Spaces at the end of the context count to the continuation, because tokenizers join them with the next word.
    """
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    (start,) = model.texts([kept])
    if not start:
        return [_first(model)], _encoded(model, continuation)
    whole, before = _encoded(model, start + continuation), _encoded(model, start)
    return before, whole[len(before) :]


def scores(model: Model, pairs: Sequence[Pair], batch_size: int) -> list[tuple[float, bool]]:
    """Log-probability of each continuation (nats), and whether greedy decoding gives it.

    Raises:
      ValueError: a continuation does not fit into the window.
    """
    window, rows = model.window, []
    for i, (context, said) in enumerate(pairs):
        if len(said) >= window:
            raise ValueError(f"continuation {i} has {len(said)} tokens; at most {window - 1} fit into the window")
        rows.append((context[-(window - len(said)) :], said))
    _warn(sum(len(x) < len(y) for (x, _), (y, _) in zip(rows, pairs, strict=True)), window)
    # Rows of like length are computed together, and few lengths are compiled.
    order = sorted(range(len(rows)), key=lambda i: -sum(map(len, rows[i])))
    found: dict[int, tuple[float, bool]] = {}
    for batch in chunks(order, batch_size):
        length = rounded(max(sum(map(len, rows[i])) for i in batch))
        tokens, mask = pad_prompts([[*rows[i][0], *rows[i][1]] for i in batch], length)
        logprobs, greedy = jax.device_get(_scored(model.config, model.params, tokens, mask))
        for row, i in enumerate(batch):
            start = length - 1 - len(rows[i][1])
            found[i] = float(logprobs[row, start:].sum(dtype=np.float64)), bool(greedy[row, start:].all())
    return [found[i] for i in range(len(rows))]


@partial(jax.jit, static_argnums=0)
def _scored(
    config: PolicyConfig, params: Params, tokens: Int[Array, "batch time"], mask: Bool[Array, "batch time"]
) -> tuple[Float[Array, "batch time-1"], Bool[Array, "batch time-1"]]:
    """Log-probability of each token but the first in left-padded rows, and whether it is the likeliest one."""
    hidden, _ = policy.forward(config, params, tokens, *prompt_positions(mask))
    states, wanted = hidden[:, :-1].reshape(-1, hidden.shape[-1]), tokens[:, 1:].reshape(-1)
    size = min(_POSITIONS, len(wanted))
    more = -len(wanted) % size
    parts = jnp.pad(states, ((0, more), (0, 0))).reshape(-1, size, states.shape[1]), jnp.pad(wanted, (0, more))

    def of_part(part):
        logits = policy.head_logits(config, params, part[0])
        own = jnp.take_along_axis(logits, part[1][:, None], axis=1)[:, 0]
        return own - jax.nn.logsumexp(logits, axis=1), own >= jnp.max(logits, axis=1)

    found = jax.lax.map(of_part, (parts[0], parts[1].reshape(-1, size)))
    return tuple(x.reshape(-1)[: len(wanted)].reshape(tokens.shape[0], -1) for x in found)


def generated(model: Model, requests: Sequence[tuple[str, Mapping[str, Any]]], batch_size: int) -> list[str]:
    """Responses to (context, options), cut before the first of the texts in `until`.

    Options: max_gen_toks, until, and with do_sample temperature and top_p; greedy by default.
    """
    kinds: dict[tuple[int, float, float], list[int]] = {}
    for i, (_, options) in enumerate(requests):
        temperature = float(options.get("temperature") or 0.0) if options.get("do_sample", True) else 0.0
        top_p = float(options.get("top_p") or 1.0) if temperature else 1.0
        kinds.setdefault((int(options.get("max_gen_toks", _MAX_TOKENS)), temperature, top_p), []).append(i)
    found = [""] * len(requests)
    for (most, temperature, top_p), members in kinds.items():
        room = max(1, model.window - most)
        ids = [_encoded(model, text) or [_first(model)] for text in model.texts([requests[i][0] for i in members])]
        _warn(sum(len(x) > room for x in ids), model.window)
        cut = [x[-room:] for x in ids]
        turns = model.continued(cut, 1, min(most, model.window - 1), batch_size, temperature=temperature, top_p=top_p)
        texts = decode(model.tokenizer, [turn.tokens[: len(turn.tokens) - (turn.finish == "stop")] for turn in turns])
        for i, text in zip(members, texts, strict=True):
            until = requests[i][1].get("until") or []
            for end in [until] if isinstance(until, str) else until:
                text = text.split(end)[0] if end else text
            found[i] = text
    return found


def _encoded(model: Model, text: str) -> list[int]:
    try:
        return encode_batch(model.tokenizer, [text])[0]
    except ValueError as error:
        raise ConfigError(f"the policy's tokenizer can't encode the text of a task: {error}") from error


def _first(model: Model) -> int:
    """The token that the first one of a text follows."""
    known = (model.tokenizer.bos_token_id, model.tokenizer.eos_token_id, *model.stop_tokens)
    return next((token for token in known if token is not None), 0)


def _warn(count: int, window: int) -> None:
    if count:
        _LOG.warning(
            "%d contexts did not fit into the policy's window of %d tokens and lost their beginning", count, window
        )
