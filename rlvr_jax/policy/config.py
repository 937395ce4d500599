"""The architecture of a policy."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class RopeScaling:
    """Rescaling of the rotary frequencies, to extend the context window beyond that of pretraining.

    Attributes:
      type: "none", "linear" (positions divided by `factor`), "llama3" or "yarn" (low frequencies divided, high ones
        kept), or "longrope" (each frequency has a divisor of its own); sources in `rotary.py`.
      factor: divisor of low frequencies; in "longrope" that of the window's extension.
      original_length: window in tokens before the extension ("llama3", "yarn", "longrope").
      low_freq_factor, high_freq_factor: frequencies with fewer turns within `original_length` than the first are
        divided, with more than the second kept ("llama3").
      beta_slow, beta_fast: as `low_freq_factor` and `high_freq_factor`, for "yarn".
      truncate: round the resulting bounds outwards to whole frequency indices ("yarn").
      attention_factor: multiplies queries and keys; 0 for the papers' 0.1 ln(factor) + 1 ("yarn") or
        sqrt(1 + ln(factor) / ln(original_length)) ("longrope").
      short_factors, long_factors: divisors of the frequencies of a policy whose `max_length` is at most
        `original_length`, and of a longer one ("longrope"). The same ones serve every position, so that cached keys
        stay valid as a response grows; inference engines choose likewise.
    """

    type: Literal["none", "linear", "llama3", "yarn", "longrope"] = "none"
    factor: float = 1.0
    original_length: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_slow: float = 1.0
    beta_fast: float = 32.0
    truncate: bool = True
    attention_factor: float = 0.0
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters, see `lora.py`.

    Attributes:
      rank: of the adapters; 0 trains the weights themselves.
      alpha: the adapters' product is scaled by alpha / rank.
      targets: the weights of each layer that have adapters.
    """

    rank: int = 0
    alpha: float = 32.0
    targets: tuple[Literal["q", "k", "v", "out", "gate", "up", "down"], ...] = (
        "q", "k", "v", "out", "gate", "up", "down",
    )  # fmt: skip


@dataclass(frozen=True)
class PolicyConfig:
    """A decoder-only transformer.

    The defaults give Llama's layer. Patterns repeat over the layers: layer `i` takes entry `i % len(pattern)`.

    Attributes:
      vocab_size: number of token ids; 0 takes the tokenizer's.
      num_layers, width, num_heads, num_kv_heads, head_dim, mlp_width: sizes; `num_kv_heads` divides `num_heads`.
      rotary_dim: number of leading dimensions of a head that rotary positions turn (Phi-4-mini); 0 for all.
      rope_theta: base of the rotary frequencies.
      rope_theta_unscaled: base in "unscaled" layers of `rope_pattern` (Gemma 3); 0 for `rope_theta`.
      rope_scaling: rescaling of the frequencies.
      rope_pattern: the rotary frequencies of each layer: "scaled" (by `rope_scaling`), "unscaled", or "none" for layers
        without positions.
      window_pattern: sliding window of each layer in tokens, the current one included; 0 for full attention.
      norm_placement: RMS norms on the inputs of attention and MLP ("pre"), on their outputs ("post", OLMo 2) or on
        "both" (Gemma 3).
      norm_eps: epsilon of the RMS norms.
      norm_offset: added to the scale parameters of all RMS norms; with 1 they are offsets from 1 (Gemma).
      qk_norm: RMS-normalise queries and keys before the rotation, each "head" separately (Qwen3) or the "full" width
        of all heads together (OLMo 2).
      qkv_bias: add biases to queries, keys and values (Qwen2).
      score_dim: attention scores are divided by its square root; 0 for `head_dim`.
      activation: of the gate in the MLP: "silu" (SwiGLU) or "gelu_tanh" (GeGLU with the tanh approximation, Gemma).
      scale_embeddings: multiply the embeddings of tokens by sqrt(width) (Gemma); the output head is not scaled.
      tie_embeddings: the output head is the transposed embedding table.
      lora: low-rank adapters; if there are any, only they are trained.
      max_length: longest prompt plus response, in tokens; 0 takes that of the pretrained checkpoint, or 1,024
        without one.
      init_scale: standard deviation of the initial embeddings, and of every weight matrix times sqrt(width / fan-in).
      dtype: compute dtype of matrix products; "float32" is that on GPU and TPU, too, not TF32 or bfloat16. Norm
        statistics, softmax and log-probs are always float32.
      param_dtype: storage dtype of the parameters. "bfloat16" halves their memory; updates are then rounded
        stochastically, so that small ones are not lost, see `rlvr_jax.learner.rounding`.
      cache_dtype: storage dtype of the KV cache: "same" as `dtype`, or "int8" with a scale per token and head, in half
        the memory of bfloat16. Sampling then deviates slightly from the policy being trained (`train/logprob_gap`).
      remat: rematerialisation in the backward pass: "none" (only norms, rotations, activations and softmax), "dots"
        (everything but products with weights) or "full" (whole layers). Attention outputs are always kept, so that
        attention runs once. A run resolves "auto" by the sizes of policy and batch, see `rlvr_jax.training.memory`;
        elsewhere it is "none".
      attention: implementation of training attention, see `rlvr_jax.kernels.training`; "auto" chooses by platform and
        length.
      head_chunk: tokens whose logits are in memory at a time in training; 0 for all. A run resolves -1 like "auto"
        above; elsewhere it is 0.
    """

    vocab_size: int = 0
    num_layers: int = 2
    width: int = 64
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 16
    mlp_width: int = 128
    rotary_dim: int = 0
    rope_theta: float = 10_000.0
    rope_theta_unscaled: float = 0.0
    rope_scaling: RopeScaling = RopeScaling()
    rope_pattern: tuple[Literal["scaled", "unscaled", "none"], ...] = ("scaled",)
    window_pattern: tuple[int, ...] = (0,)
    norm_placement: Literal["pre", "post", "both"] = "pre"
    norm_eps: float = 1e-6
    norm_offset: float = 0.0
    qk_norm: Literal["none", "head", "full"] = "none"
    qkv_bias: bool = False
    score_dim: int = 0
    activation: Literal["silu", "gelu_tanh"] = "silu"
    scale_embeddings: bool = False
    tie_embeddings: bool = True
    lora: LoraConfig = LoraConfig()
    max_length: int = 0
    init_scale: float = 0.02
    dtype: Literal["float32", "bfloat16"] = "float32"
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    cache_dtype: Literal["same", "int8"] = "same"
    remat: Literal["auto", "none", "dots", "full"] = "auto"
    attention: Literal["auto", "pallas", "xla", "splash", "cudnn", "reference"] = "auto"
    head_chunk: int = -1


def problems(c: PolicyConfig) -> Iterator[str]:
    """The reasons why this architecture is impossible, each as the text after "config.policy."."""
    sizes = ("num_layers", "width", "num_heads", "num_kv_heads", "head_dim", "mlp_width")
    for name in (*sizes, "rope_theta", "norm_eps", "init_scale"):
        if not getattr(c, name) > 0:  # catches nan, too
            yield f"{name} must be above 0, not {getattr(c, name)}"
    for name in ("vocab_size", "max_length", "score_dim", "rope_theta_unscaled", "rotary_dim"):
        if not getattr(c, name) >= 0:
            yield f"{name} must be 0 or more, not {getattr(c, name)}"
    if not math.isfinite(c.norm_offset):
        yield f"norm_offset must be finite, not {c.norm_offset}"
    if c.head_chunk < -1:
        yield f"head_chunk must be -1, 0 or more, not {c.head_chunk}"
    if c.num_kv_heads > 0 and c.num_heads % c.num_kv_heads:
        yield f"num_kv_heads = {c.num_kv_heads} does not divide config.policy.num_heads = {c.num_heads}"
    if c.head_dim % 2:
        yield f"head_dim = {c.head_dim} must be even (rotary positions go in pairs)"
    if c.rotary_dim > c.head_dim or c.rotary_dim % 2:
        yield f"rotary_dim = {c.rotary_dim} must be even, and at most config.policy.head_dim = {c.head_dim}"
    for name in ("rope_pattern", "window_pattern"):
        if not getattr(c, name):
            yield f"{name} has no entry; the plain one is {getattr(PolicyConfig, name)}"
    if any(window < 0 for window in c.window_pattern):
        yield f"window_pattern holds a negative number: {c.window_pattern}; 0 is for no window"
    if c.attention in ("splash", "cudnn") and len(set(c.window_pattern)) > 1:
        yield f"attention = {c.attention!r} takes one window for all layers, not {c.window_pattern}; use 'pallas'"
    if c.lora.rank < 0:
        yield f"lora.rank must be 0 or more, not {c.lora.rank}"
    if not c.lora.alpha > 0:
        yield f"lora.alpha must be above 0, not {c.lora.alpha}"
    if c.lora.rank and (not c.lora.targets or len(set(c.lora.targets)) < len(c.lora.targets)):
        yield f"lora.targets must name different weights, at least one, not {c.lora.targets}"
    scaling = c.rope_scaling
    if not scaling.factor >= 1:
        yield f"rope_scaling.factor must be 1 or more, not {scaling.factor}"
    if scaling.type in ("llama3", "yarn", "longrope") and scaling.original_length <= 0:
        yield f"rope_scaling.original_length must be above 0 for type {scaling.type!r}, not {scaling.original_length}"
    frequencies = (c.rotary_dim or c.head_dim) // 2
    for name in ("short_factors", "long_factors") if scaling.type == "longrope" else ():
        factors = getattr(scaling, name)
        if len(factors) != frequencies or not all(factor > 0 for factor in factors):
            yield f"rope_scaling.{name} must be {frequencies} numbers above 0, for as many frequencies, not {factors}"
    if not 0 < scaling.low_freq_factor < scaling.high_freq_factor:
        yield (
            f"rope_scaling.low_freq_factor = {scaling.low_freq_factor} must be above 0 and below "
            f"config.policy.rope_scaling.high_freq_factor = {scaling.high_freq_factor}"
        )
    if not 0 < scaling.beta_slow < scaling.beta_fast:
        yield (
            f"rope_scaling.beta_slow = {scaling.beta_slow} must be above 0 and below "
            f"config.policy.rope_scaling.beta_fast = {scaling.beta_fast}"
        )
    if not scaling.attention_factor >= 0:
        yield f"rope_scaling.attention_factor must be 0 or more, not {scaling.attention_factor}"


def lora_scale(config: PolicyConfig) -> float:
    """The scale of the adapters' product."""
    return config.lora.alpha / config.lora.rank


def shrunk(config: PolicyConfig, factor: int) -> PolicyConfig:
    """The same architecture with sizes divided by `factor`, down to the smallest valid ones.

    The ratio of query heads to key/value heads is kept, and so is one period of the layer patterns.
    """
    if factor == 1:
        return config
    num_kv_heads = max(1, config.num_kv_heads // factor)
    head_dim = max(8, config.head_dim // factor // 2 * 2)
    rotary_dim = config.rotary_dim and max(2, head_dim * config.rotary_dim // config.head_dim // 2 * 2)
    scaling, frequencies = config.rope_scaling, (rotary_dim or head_dim) // 2
    patterns = (len(config.rope_pattern), len(config.window_pattern))
    return replace(
        config,
        vocab_size=config.vocab_size // factor,
        num_layers=max(2, *patterns, config.num_layers // factor),
        width=max(16, config.width // factor),
        num_kv_heads=num_kv_heads,
        num_heads=num_kv_heads * (config.num_heads // config.num_kv_heads),
        head_dim=head_dim,
        rotary_dim=rotary_dim,
        rope_scaling=replace(
            scaling,
            short_factors=scaling.short_factors[:frequencies],
            long_factors=scaling.long_factors[:frequencies],
        ),
        mlp_width=max(16, config.mlp_width // factor),
    )
