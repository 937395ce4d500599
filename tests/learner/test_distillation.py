"""Divergences from a teacher against float64 NumPy, and the loss of a policy whose teacher has another size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import layout
from rlvr_jax.learner.distillation import distillation
from rlvr_jax.policy.divergence import mixture_divergence
from tests.close import assert_close
from tests.learner.by_hand import PROMPT, RESPONSE, SHAPE, logits_by_hand, random_params, sequences

BETAS = (0.0, 0.1, 0.5, 1.0)
TEMPERATURE = 1.5


def log_softmax(x):
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))


def divergence_by_hand(log_p, log_q, beta: float):
    p, q = np.exp(log_p), np.exp(log_q)
    if beta in (0, 1):
        p, q = (p, q) if beta == 0 else (q, p)
        return np.sum(p * np.log(p / q), axis=-1)
    m = beta * p + (1 - beta) * q
    return beta * np.sum(p * np.log(p / m), axis=-1) + (1 - beta) * np.sum(q * np.log(q / m), axis=-1)


@pytest.mark.parametrize("beta", BETAS)
def test_a_divergence_and_its_gradient_are_those_of_the_formula(beta):
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(0, 2, (2, 5, 6))
    found = lambda x: mixture_divergence(jnp.float32(log_softmax(teacher)), jax.nn.log_softmax(x), beta)  # noqa: E731
    of = lambda x: divergence_by_hand(log_softmax(teacher), log_softmax(x), beta)  # noqa: E731
    assert_close(found(jnp.float32(student)), of(student), 1e-5)
    assert np.min(of(student)) > 0
    step, differences = 1e-6, np.zeros_like(student)
    for place in np.ndindex(student.shape):
        moved = np.zeros_like(student)
        moved[place] = step
        differences[place] = np.sum(of(student + moved) - of(student - moved)) / (2 * step)
    assert_close(jax.grad(lambda x: jnp.sum(found(x)))(jnp.float32(student)), differences, 1e-4)


def test_a_policy_that_is_its_teacher_has_no_divergence_even_where_probabilities_vanish():
    log_p = jax.nn.log_softmax(jnp.array([[0.0, -200.0, 3.0]]))
    for beta in BETAS:
        value, gradient = jax.value_and_grad(lambda x, beta=beta: jnp.sum(mixture_divergence(log_p, x, beta)))(log_p)
        assert_close(value, 0.0, 1e-6, terms=1.0)
        assert np.isfinite(gradient).all()


def teacher_params():
    """Of the same architecture with other weights, and two logits that stand for no token."""
    params = jax.tree.map(lambda x: x * 1.3, random_params())
    rows = np.full((2, SHAPE.width), 9.0, np.float32)
    return {**params, "embed": jnp.concatenate([params["embed"], rows])}


def test_the_loss_is_the_weighted_divergence_at_the_sampled_tokens_in_one_piece_or_in_chunks():
    beta, params, teacher = 0.3, random_params(), teacher_params()
    prompts, responses = sequences()
    batch = layout(prompts, responses, PROMPT, RESPONSE)
    batch = batch.with_columns(behaviour=np.zeros_like(batch.action_mask))
    double = [jax.tree.map(np.float64, x) for x in (params, random_params())]
    double[1] = jax.tree.map(lambda x: x * 1.3, double[1])
    expected, chosen, fixed, of_samples = [], [], [], []
    for prompt, response in zip(prompts, responses, strict=True):
        own, other = (
            log_softmax(logits_by_hand(x, [*prompt, *response])[len(prompt) - 1 : -1] / TEMPERATURE) for x in double
        )
        found = divergence_by_hand(other, own, beta) if response else np.zeros(0)
        expected += found.tolist()
        of_samples.append(np.mean(found) if response else 0.0)
        chosen += [own[t, y] for t, y in enumerate(response)]
        fixed += [other[t, y] for t, y in enumerate(response)]
    larger = dataclasses.replace(SHAPE, vocab_size=SHAPE.vocab_size + 2)
    gradients = []
    for chunk, aggregation, value in ((0, "token_mean", np.mean(expected)), (9, "sequence_mean", np.mean(of_samples))):
        algorithm = AlgorithmConfig(loss="distillation", distillation_beta=beta, aggregation=aggregation)
        shape = dataclasses.replace(SHAPE, head_chunk=chunk)
        loss = distillation(shape, larger, algorithm, TEMPERATURE, RESPONSE)
        assert loss.frozen == ("teacher",)

        def of_tokens(params, batch, loss=loss):
            sums = loss.sums({"policy": params, "teacher": teacher}, batch)
            return sums.means["train/teacher_divergence"][0], sums

        gradient, sums = jax.jit(jax.grad(of_tokens, has_aux=True))(params, batch)
        gradients.append(gradient)
        assert_close(sums.loss / sums.weight, value, 1e-5)
        assert_close(sums.means["train/teacher_divergence"][0], np.sum(expected), 1e-5)
        assert_close(sums.means["train/teacher_kl"][0], np.sum(chosen) - np.sum(fixed), 1e-5, terms=-np.sum(chosen))
    assert_close(*gradients, 1e-4)
