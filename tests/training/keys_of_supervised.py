"""Rows of the table of keys: supervised runs on files, reward models, losses beside policy gradients."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.config import Config
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner import distillation
from rlvr_jax.learner.batch import layout
from rlvr_jax.learner.own_pairs import pair_loss
from rlvr_jax.learner.preferences import sums_of
from rlvr_jax.training.frozen import find_teacher
from rlvr_jax.training.preferences import make_pairs, pair_rows
from rlvr_jax.training.sft import chat_batches, chat_rows
from tests.learner import test_own_pairs
from tests.learner.test_preferences import by_hand, random_pairs
from tests.text.pretrained import tokenizer
from tests.text.test_chats import CHATML
from tests.training.keys import By, Row, of_setup, setup_of

CHAT = [
    {"role": "user", "content": "abc"},
    {"role": "assistant", "content": "d"},
    {"role": "user", "content": "e"},
    {"role": "assistant", "content": "fg"},
]


def write_supervised(folder: Path) -> None:
    """The files that the rows name."""
    texts = [("1=", "2"), ("3=", "4"), ("5=", "6" * 30)]
    of_chats = [{"prompt": prompt, "completion": answer} for prompt, answer in texts]
    of_pairs = [{"prompt": prompt, "chosen": answer, "rejected": "9"} for prompt, answer in texts]
    for name, records in (("chats", of_chats), ("pairs", of_pairs), ("turns", [{"messages": CHAT}])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    tokenizer("bytes", template=CHATML).save_pretrained(folder / "chatty")


def sources(section: str, name: str) -> dict[str, Any]:
    return {f"{section}.sources": {"mine": {"file": f"FILES/{name}.jsonl"}}}


def chats(config: Config) -> list[int]:
    """Trained tokens of each chat."""
    if not config.sft.sources:
        return []
    return [int(row.trained.sum()) for row in chat_rows(setup_of(config)).of["mine"]]


def rows_of_updates(config: Config) -> tuple[int, ...]:
    """The shape of the tokens of a call."""
    ready = setup_of(config)
    return chat_batches(ready, chat_rows(ready))(0, 1).tokens.shape


def pairs(config: Config) -> tuple[int, int]:
    """Pairs to train on, and held out."""
    if not config.preferences.sources:
        return 0, 0
    trained, heldout = pair_rows(setup_of(config))
    return len(trained.of["mine"]), len(heldout)


def laid_out(config: Config) -> tuple[int, ...]:
    ready = setup_of(config)
    return make_pairs(ready, pair_rows(ready)[0].of["mine"][:1]).tokens.shape


def loss(config: Config) -> float:
    """Of made-up pairs."""
    made = jax.tree.map(jnp.float32, random_pairs())
    return float(sums_of(config.preferences, made, np.ones(9, bool)).loss)


def of_own_pairs(config: Config) -> float:
    """The loss of made-up samples."""
    batch, logprobs, _, entropy = test_own_pairs.inputs()
    jitted = jax.jit(pair_loss, static_argnums=0)
    return float(jitted(config.algorithm, np.float32(logprobs), np.float32(entropy), batch).loss)


def own_pairs_by_hand(config: Config) -> float:
    _, logprobs, reference, _ = test_own_pairs.inputs()
    a = config.algorithm
    return np.sum(test_own_pairs.by_hand(a.preference, a.preference_beta, logprobs, reference))


def divergence(config: Config) -> float:
    """The kind of the divergence from the teacher in the loss."""
    batch = layout([[1]], [[2, 3]], 1, 2)
    batch = jax.device_put(batch.with_columns(behaviour=np.zeros_like(batch.action_mask)))
    betas, zeros = [], jnp.zeros(batch.action_mask.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distillation, "hidden_states", lambda *_: None)
        patch.setattr(distillation, "divergence_and_logprobs", lambda *x: betas.append(x[-1]) or [zeros] * 4)
        loss = distillation.distillation(config.policy, config.policy, config.algorithm, 1.0, 2)
        loss.sums({"policy": None, "teacher": None}, batch)
    return betas[0]


def teacher_of(config: Config) -> int | str:
    """The width of the teacher, or the reason why there is none."""
    try:
        return find_teacher(setup_of(config)).shape.width
    except ConfigError as error:
        return str(error)


CORRECT = By(lambda config: by_hand(config.preferences, random_pairs()).sum())
MINE, CHATTY = sources("sft", "chats"), {"tokenizer": "FILES/chatty", "prompt.format": "chat"}
PAIRS = sources("preferences", "pairs") | {"preferences.heldout_share": 0.0}
SHORT = {"rollout.max_prompt_length": 10, "rollout.max_response_length": 10}
FOUR = {"sft.batch_size": 32, "sft.updates_per_call": 1}
KTO, BT = {"preferences.loss": "kto"}, {"preferences.loss": "bradley_terry"}
ROWS = [
    Row("sft.sources", MINE["sft.sources"], chats, [2, 2, 31]),
    Row("sft.roles", ("assistant", "user"), chats, [17], CHATTY | sources("sft", "turns")),
    Row("sft.turns", "last", chats, [3], CHATTY | sources("sft", "turns")),
    Row("sft.packing", False, rows_of_updates, (1, 32, 20), MINE | SHORT | FOUR),
    Row("sft.overlong", "drop", chats, [2, 2], MINE | SHORT),
    Row("preferences.sources", PAIRS["preferences.sources"], pairs, (3, 0), {"preferences.heldout_share": 0.0}),
    Row("preferences.heldout_share", 0.0, pairs, (3, 0), PAIRS | {"preferences.heldout_share": 1e-9}),
    Row("preferences.overlong", "drop", pairs, (2, 0), PAIRS | SHORT),
    Row("preferences.packing", "none", laid_out, (2, 20), PAIRS | SHORT),
    Row("preferences.loss", "ipo", loss, CORRECT),
    Row("preferences.beta", 0.3, loss, CORRECT),
    Row("preferences.label_smoothing", 0.2, loss, CORRECT),
    Row("preferences.margin", 0.5, loss, CORRECT),
    Row("preferences.centring", 0.5, loss, CORRECT, BT),
    Row("preferences.desirable", 0.5, loss, CORRECT, KTO),
    Row("preferences.undesirable", 0.5, loss, CORRECT, KTO),
    Row("algorithm.preference", "ipo", of_own_pairs, By(own_pairs_by_hand)),
    Row("algorithm.preference_beta", 0.7, of_own_pairs, By(own_pairs_by_hand)),
    Row("algorithm.distillation_beta", 0.5, divergence, 0.5),
    Row("teacher", "FILES/model", teacher_of, 16,
        {"teacher": "nowhere", "tokenizer": "FILES/model", "algorithm.reference": "teacher"}),
    Row("judges", {"j": {"model": "m", "endpoint": "http://x"}}, of_setup(lambda s: "j" in s.parts), True),
    Row("reward_models", {"rm": "somewhere"}, of_setup(lambda s: "rm" in s.parts), True),
]  # fmt: skip
