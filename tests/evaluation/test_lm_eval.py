"""The bridge to lm-eval: log-probs, greedy matches and responses that it is given, without the package itself."""

import dataclasses

import numpy as np
import pytest

from rlvr_jax.errors import ConfigError
from rlvr_jax.evaluation import lm_eval
from rlvr_jax.rollout.model import Model
from rlvr_jax.text.tokenizers import encode
from tests.policy.reference import log_softmax
from tests.policy.reference import logits as reference_logits
from tests.test_notebook import folder, model  # noqa: F401

PAIRS = [("2+2=", "4"), ("A long context, ", " of words"), ("x ", "y"), ("", "no context")]


@pytest.fixture(scope="module")
def short(model: Model) -> Model:  # noqa: F811
    """With a window of 20 tokens."""
    return dataclasses.replace(model, config=dataclasses.replace(model.config, max_length=20))


def test_tokens_are_those_of_the_whole_text(model):  # noqa: F811
    for context, continuation in PAIRS:
        before, after = lm_eval.pair_of(model, context, continuation)
        if context:
            assert [*before, *after] == encode(model.tokenizer, f"<s>{context}{continuation}")
            assert len(before) == len(encode(model.tokenizer, f"<s>{context.rstrip()}"))
        else:
            assert len(before) == 1


def test_scores_are_those_of_a_reference_and_tell_what_greedy_decoding_gives(model):  # noqa: F811
    pairs = [lm_eval.pair_of(model, *pair) for pair in PAIRS]
    (turn,) = model.continued([pairs[0][0]], 1, 5, 1, temperature=0.0)
    pairs.append((pairs[0][0], turn.tokens.tolist()))
    found = lm_eval.scores(model, pairs, batch_size=2)
    for (before, after), (logprob, greedy) in zip(pairs, found, strict=True):
        table = log_softmax(reference_logits(model.config, model.params, [*before, *after]))
        rows = table[len(before) - 1 : -1]
        assert logprob == pytest.approx(rows[np.arange(len(after)), after].sum(), rel=1e-4)
        assert greedy == bool((rows.argmax(-1) == after).all())
    assert found[-1][1]
    assert not all(greedy for _, greedy in found)


def test_what_does_not_fit_is_cut_at_its_beginning_and_a_continuation_never(short, caplog):
    context, said = list(range(10, 40)), [5, 6, 7]
    (found,) = lm_eval.scores(short, [(context, said)], batch_size=4)
    (expected,) = lm_eval.scores(short, [(context[-17:], said)], batch_size=4)
    assert found == expected
    assert "1 contexts" in caplog.text
    with pytest.raises(ValueError, match=r"continuation 0 .*20.* 19"):
        lm_eval.scores(short, [([1], [5] * 20)], batch_size=4)


def test_responses_end_before_the_first_text_to_stop_at(short):
    requests = [(text, {"until": [], "max_gen_toks": 6, "do_sample": False}) for text in ("2+2=", "z" * 40, "")]
    plain = lm_eval.generated(short, requests, batch_size=2)
    assert plain[1] == lm_eval.generated(short, [("z" * 30, requests[1][1])], batch_size=2)[0]
    stops = [text[2:3] for text in plain]
    cut = [(text, options | {"until": [stop, "never"]}) for (text, options), stop in zip(requests, stops, strict=True)]
    expected = [text.split(stop)[0] if stop else text for text, stop in zip(plain, stops, strict=True)]
    assert lm_eval.generated(short, cut, batch_size=2) == expected


def test_without_the_package_the_command_says_so(monkeypatch):
    monkeypatch.setattr(lm_eval.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="pip install lm_eval"):
        lm_eval.installed()
