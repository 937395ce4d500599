"""Memory estimates of a training step, and the choice of rematerialisation and chunking."""

from dataclasses import dataclass, replace

from rlvr_jax.policy import PolicyConfig
from rlvr_jax.policy.layers import DENSE_LENGTH

# Up to these sizes everything is kept in memory, which is fastest.
_ACTIVATIONS = 2 << 30  # bytes for the backward pass, on one device
_LOGITS = 256 << 20
_CHUNK = 64 << 20  # bytes of one array of logits, when they are computed in chunks


@dataclass(frozen=True)
class Load:
    """The rows of a microbatch on one device.

    Attributes:
      rows: sequences.
      length: tokens of each, padding included.
      actions: tokens per row whose log-probs are computed.
    """

    rows: int
    length: int
    actions: int


def activation_bytes(config: PolicyConfig, load: Load) -> int:
    """Bytes that the forward pass keeps for the backward pass without rematerialisation.

    For each layer and token: the residual stream and the output of attention, both of its width, with a norm behind it
    that of the MLP, too, gate and up of the MLP, queries, keys and values, the output of attention, and in short rows
    the scores (see `rlvr_jax.policy.model`).
    """
    heads = config.num_heads * config.head_dim
    wide = 2 if config.norm_placement == "pre" else 3
    numbers = wide * config.width + 2 * config.mlp_width + 2 * heads + 2 * config.num_kv_heads * config.head_dim
    if load.length <= DENSE_LENGTH:
        numbers += config.num_heads * load.length
    return config.num_layers * load.rows * load.length * numbers * _itemsize(config)


def logit_bytes(config: PolicyConfig, load: Load) -> int:
    """Three float32 arrays of logits: raw, shifted by the largest, and exponentials."""
    return 3 * 4 * load.rows * load.actions * config.vocab_size


def resolved(config: PolicyConfig, load: Load) -> tuple[PolicyConfig, str]:
    """The config with "auto" resolved, and a line with the choices; empty if nothing is recomputed."""
    said = []
    if config.remat == "auto":
        size = activation_bytes(config, load)
        config = replace(config, remat="none" if size <= _ACTIVATIONS else "full")
        if config.remat != "none":
            said.append(f"policy.remat = 'full', for {size / 2**30:.1f} GiB of activations otherwise")
    if config.head_chunk < 0:
        size = logit_bytes(config, load)
        chunk = 1 << max(7, (_CHUNK // (4 * config.vocab_size)).bit_length() - 1)
        config = replace(config, head_chunk=0 if size <= _LOGITS else chunk)
        if config.head_chunk:
            said.append(f"policy.head_chunk = {chunk}, for {size / 2**30:.1f} GiB of logits otherwise")
    return config, f"memory of a training step: {'; '.join(said)}" if said else ""


def _itemsize(config: PolicyConfig) -> int:
    return 2 if config.dtype == "bfloat16" else 4
