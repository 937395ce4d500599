"""Random packed rows, and attention over them in float64 NumPy with its gradients."""

import jax
import jax.numpy as jnp
import numpy as np


def random_rows(rng, batch, time, tree=True):
    """Positions, segment ids and parents [batch, time]: groups of a prompt and its responses, then padding."""
    positions, segments, parents = np.zeros((3, batch, time), np.int32)
    for row in range(batch):
        at, segment = 0, 1
        end = time - rng.integers(0, max(1, time // 4))
        while at < end:
            prompt, first = segment, rng.integers(1, max(2, time // 3))
            lengths = [first, *rng.integers(1, max(2, time // 4), size=rng.integers(0, 4) if tree else 0)]
            for child, length in enumerate(lengths):
                stop = min(at + length, end)
                positions[row, at:stop] = np.arange(stop - at) + (first if child else 0)
                segments[row, at:stop] = segment
                parents[row, at:stop] = prompt if child else 0
                at, segment = stop, segment + 1
    return positions, segments, parents


def readable(positions, segments, parents, window=None):
    """[batch, time, time]: the rule by positions, one pair of tokens at a time in spirit."""
    q, k = np.s_[:, :, None], np.s_[:, None, :]
    reads = (segments[k] == segments[q]) | ((segments[k] == parents[q]) & (parents[q] > 0))
    reads &= (segments[k] > 0) & (segments[q] > 0) & (positions[k] <= positions[q])
    return reads if window is None else reads & (positions[q] - positions[k] < window)


def attention_and_gradients(query, keys, values, reads, weights, scale=1.0, soft_cap=None):
    """In float64: the output [batch, time, heads, dim], and the gradients of sum(output * weights)."""
    query, keys, values, weights = (np.asarray(x, np.float64) for x in (query, keys, values, weights))
    group = query.shape[2] // keys.shape[2]
    output, d_query, d_keys, d_values = (np.zeros(x.shape) for x in (query, query, keys, values))
    for row in range(query.shape[0]):
        for head in range(query.shape[2]):
            q, g = query[row, :, head], weights[row, :, head]
            k, v = keys[row, :, head // group], values[row, :, head // group]
            scores, slope = scale * (q @ k.T), 1.0
            if soft_cap is not None:
                slope = 1 - np.tanh(scores / soft_cap) ** 2
                scores = soft_cap * np.tanh(scores / soft_cap)
            top = np.max(scores, axis=-1, keepdims=True, initial=-np.inf, where=reads[row])
            p = np.where(reads[row], np.exp(scores - np.where(np.isfinite(top), top, 0)), 0)
            p /= np.maximum(p.sum(-1, keepdims=True), 1e-300)
            output[row, :, head] = p @ v
            d_p = g @ v.T
            d_scores = p * (d_p - (d_p * p).sum(-1, keepdims=True)) * slope * scale
            d_query[row, :, head] = d_scores @ k
            d_keys[row, :, head // group] += d_scores.T @ q
            d_values[row, :, head // group] += p.T @ g
    return output, (d_query, d_keys, d_values)


def random_vectors(rng, batch, time, heads, kv, dim, dtype=jnp.float32):
    """Query, keys, values, and weights of the output in a loss."""
    return tuple(jax.device_put(rng.normal(size=(batch, time, h, dim)).astype(dtype)) for h in (heads, kv, kv, heads))
