"""Unrelated sequences in one row against the same ones in rows of their own, and against a policy in NumPy."""

import jax
import numpy as np
import pytest

from rlvr_jax.learner.bins import Row, bins, fill
from rlvr_jax.learner.losses import imitation
from tests.close import assert_close
from tests.learner.by_hand import SHAPE, logits_by_hand, random_params

LENGTHS = (5, 2, 7, 4, 3)


def sequences() -> list[Row]:
    rng = np.random.default_rng(0)
    return [
        Row(rng.integers(0, 7, n).astype(np.int32), rng.random(n) < 0.7, source=i % 2) for i, n in enumerate(LENGTHS)
    ]


def test_first_fit_decreasing():
    assert bins(LENGTHS, 8) == [[2], [0, 4], [3, 1]]
    assert bins([], 8) == []
    assert sorted(i for members in bins([1] * 9, 4) for i in members) == list(range(9))


def test_packed_rows_have_the_loss_and_gradient_of_separate_ones():
    rows, params = sequences(), random_params()
    loss = imitation(SHAPE, ("a", "b"))
    of = jax.jit(jax.value_and_grad(lambda params, batch: loss.sums({"policy": params}, batch).loss))
    packed, alone = fill(rows, bins(LENGTHS, 8), 4, 8), fill(rows, [[i] for i in range(5)], 5, 8)
    values, gradients = zip(*(of(params, batch) for batch in (packed, alone)), strict=True)
    expected, by_source = 0.0, [[0.0, 0], [0.0, 0]]
    hand = jax.tree.map(np.float64, params)
    for row in rows:
        logits = logits_by_hand(hand, row.tokens)
        logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        own = [-logprobs[t - 1, row.tokens[t]] for t in range(1, len(row.tokens)) if row.trained[t]]
        expected += sum(own)
        by_source[row.source][0] += sum(own)
        by_source[row.source][1] += len(own)
    for value in values:
        assert_close(value, expected, 2e-6)
    assert_close(gradients[0], gradients[1])
    means = jax.jit(lambda batch: loss.sums({"policy": params}, batch).means)(packed)
    for name, (total, count) in zip("ab", by_source, strict=True):
        assert_close(means[f"sft/{name}/loss"][0], total, 2e-6)
        assert means[f"sft/{name}/loss"][1] == count
    assert packed.samples.tolist() == [1, 2, 2, 0]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="5 tokens"):
        fill(sequences(), [[0]], 1, 4)
    with pytest.raises(ValueError, match="2 rows"):
        fill(sequences(), [[0], [1]], 1, 8)
