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
      longest: tokens that one may attend to; 0 for all of the row.
    """

    rows: int
    length: int
    actions: int
    longest: int = 0


def activation_bytes(config: PolicyConfig, load: Load) -> int:
    """Bytes that the forward pass keeps for the backward pass without rematerialisation.

    For each layer and token: the residual stream and the output of attention, both of its width, with a norm behind it
    that of the MLP, too, gate and up of the MLP, queries, keys and values, the output of attention, and in short rows
    the scores (see `rlvr_jax.policy.model`).
    """
    return config.num_layers * _layer_bytes(config, load, 1, scores=True)


def kept_bytes(config: PolicyConfig, load: Load, tensor: int = 1, platform: str = "cpu") -> int:
    """Bytes that the backward pass needs with the config's rematerialisation, on one device.

    With `remat` "full" the inputs of the layers and the outputs of attention are kept, and one layer is computed again
    at a time; its values and their gradients are in memory together.

    Args:
      config: the policy's architecture.
      load: on the device.
      tensor: devices of the mesh axis.
      platform: of the device; only on CPU are there scores in memory.
    """
    tokens, heads = load.rows * load.length, config.num_heads * config.head_dim // tensor
    layer = _layer_bytes(config, load, tensor, scores=config.remat != "dots" and platform == "cpu")
    if config.remat != "full":
        return (config.num_layers + 1) * layer
    return config.num_layers * tokens * (config.width + heads) * _itemsize(config) + 2 * layer


def forward_bytes(config: PolicyConfig, load: Load, tensor: int = 1, platform: str = "cpu") -> int:
    """Bytes of a forward pass without gradients: the values of one layer."""
    return _layer_bytes(config, load, tensor, scores=platform == "cpu")


def logit_bytes(config: PolicyConfig, load: Load) -> int:
    """Three float32 arrays of logits: raw, shifted by the largest, and exponentials."""
    return 3 * 4 * load.rows * load.actions * config.vocab_size


def head_bytes(config: PolicyConfig, load: Load, fsdp: int = 1, tensor: int = 1, gradients: bool = True) -> int:
    """Bytes of the head on one device: logits, and its table where it is gathered over `fsdp`, with its gradient."""
    count = load.rows * load.actions
    count = min(count, config.head_chunk) if config.head_chunk > 0 else count
    table = config.vocab_size * config.width // tensor * (2 + 4 * gradients) if fsdp > 1 else 0
    return logit_bytes(config, Load(1, count, count)) // tensor + table


def resolved(config: PolicyConfig, load: Load) -> PolicyConfig:
    """The config with "auto" resolved."""
    if config.remat == "auto":
        config = replace(config, remat="none" if activation_bytes(config, load) <= _ACTIVATIONS else "full")
    if config.head_chunk < 0:
        chunk = 1 << max(7, (_CHUNK // (4 * config.vocab_size)).bit_length() - 1)
        config = replace(config, head_chunk=0 if logit_bytes(config, load) <= _LOGITS else chunk)
    return config


def _layer_bytes(config: PolicyConfig, load: Load, tensor: int, scores: bool) -> int:
    """Bytes that a layer computes, see `activation_bytes`, on one device of the mesh axis `tensor`."""
    heads, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    of_heads = 2 * config.mlp_width + 2 * heads + 2 * kv
    longest = load.longest or load.length
    if scores and longest <= DENSE_LENGTH:
        of_heads += config.num_heads * longest
    wide = 2 if config.norm_placement == "pre" else 3
    return load.rows * load.length * (wide * config.width + of_heads // tensor) * _itemsize(config)


def _itemsize(config: PolicyConfig) -> int:
    return 2 if config.dtype == "bfloat16" else 4
