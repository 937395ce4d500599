"""The shape of a policy."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PolicyConfig:
    """A decoder-only transformer.

    Attributes:
      vocab_size: number of token ids; 0 takes the tokenizer's.
      num_layers, width, num_heads, num_kv_heads, head_dim, mlp_width: sizes; `num_kv_heads` divides `num_heads`.
      rope_theta: base of the rotary frequencies.
      norm_eps: epsilon of the RMS norms.
      qk_norm: RMS-normalise queries and keys per head, before the rotation (Qwen3).
      qkv_bias: add biases to queries, keys and values (Qwen2).
      tie_embeddings: the output head is the transposed embedding table.
      max_length: the window: longest prompt plus response, in tokens.
      init_scale: standard deviation of the initial embeddings, and of every weight matrix times sqrt(width / fan-in).
      dtype: compute dtype of matrix products. Norm statistics, softmax and log-probs are float32 always.
      param_dtype: storage dtype of the parameters. Updates are added to them in it: in bfloat16, small ones round away.
      remat: what the backward pass computes again: "none", "dots" (all but products with weights) or "full"
        (whole layers).
      head_chunk: tokens whose logits exist at one time in training; 0 for all of them at once.
    """

    vocab_size: int = 0
    num_layers: int = 2
    width: int = 64
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 16
    mlp_width: int = 128
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    qk_norm: bool = False
    qkv_bias: bool = False
    tie_embeddings: bool = True
    max_length: int = 1024
    init_scale: float = 0.02
    dtype: Literal["float32", "bfloat16"] = "float32"
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Literal["none", "dots", "full"] = "none"
    head_chunk: int = 0
