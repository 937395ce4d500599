"""Conversion between Hugging Face's config.json and `PolicyConfig`, for each supported model family."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from rlvr_jax.errors import CheckpointError
from rlvr_jax.policy.config import PolicyConfig, RopeScaling, problems
from rlvr_jax.quiet import transformers


@dataclass(frozen=True)
class _Family:
    """Properties of a `model_type` that its config.json does not state."""

    architecture: str
    qk_norm: Literal["none", "head", "full"] = "none"
    qkv_bias: bool = False
    norm_placement: Literal["pre", "post"] = "pre"


FAMILIES: Mapping[str, _Family] = {
    "llama": _Family("LlamaForCausalLM"),
    "qwen2": _Family("Qwen2ForCausalLM", qkv_bias=True),
    "qwen3": _Family("Qwen3ForCausalLM", qk_norm="head"),
    "olmo2": _Family("Olmo2ForCausalLM", qk_norm="full", norm_placement="post"),
    "olmo3": _Family("Olmo3ForCausalLM", qk_norm="full", norm_placement="post"),
    "smollm3": _Family("SmolLM3ForCausalLM"),
}
# Fields chosen by the run: a checkpoint's parameters compute the same with any value.
RUN_FIELDS = ("lora", "max_length", "init_scale", "dtype", "param_dtype", "remat", "attention", "head_chunk")

LENGTH = 1024  # of a policy that says none

_ROPE_TYPES = {"default": "none", "linear": "linear", "llama3": "llama3", "yarn": "yarn"}
_ROPE_KEYS = {  # theirs -> ours
    "none": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
        "original_max_position_embeddings": "original_length",
    },
    "yarn": {
        "factor": "factor",
        "beta_slow": "beta_slow",
        "beta_fast": "beta_fast",
        "truncate": "truncate",
        "attention_factor": "attention_factor",
        "original_max_position_embeddings": "original_length",
    },
}


def policy_config(raw: Mapping[str, Any], where: str = "config.json") -> PolicyConfig:
    """The architecture that a config.json describes; compute and storage types keep their defaults.

    Absent keys and older spellings of keys are treated as in `transformers`.

    Raises:
      CheckpointError: an unsupported value, naming its key.
    """
    refuse = lambda what, known: CheckpointError(f"{where}: {what} is not supported; {known} is")  # noqa: E731
    model_type = raw.get("model_type")
    if model_type not in FAMILIES:
        raise refuse(f"model_type {model_type!r}", "one of " + ", ".join(FAMILIES))
    if raw.get("quantization_config") is not None:
        raise refuse("quantization_config", "an unquantised checkpoint")
    family, c = FAMILIES[model_type], _normalised(raw, where)
    if c.hidden_act != "silu":
        raise refuse(f"hidden_act {c.hidden_act!r}", "'silu'")
    for key in ("attention_bias", "mlp_bias"):
        if getattr(c, key, False):
            raise refuse(f"{key} true with model_type {model_type!r}", "false")
    theta, scaling, rope_pattern = _rope(c, where)
    shape = PolicyConfig(
        vocab_size=c.vocab_size,
        num_layers=c.num_hidden_layers,
        width=c.hidden_size,
        num_heads=c.num_attention_heads,
        num_kv_heads=c.num_key_value_heads,
        head_dim=getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads,
        mlp_width=c.intermediate_size,
        rope_theta=theta,
        rope_scaling=scaling,
        rope_pattern=rope_pattern,
        window_pattern=period(_windows(c, where)),
        norm_placement=family.norm_placement,
        norm_eps=float(c.rms_norm_eps),
        qk_norm=family.qk_norm,
        qkv_bias=family.qkv_bias,
        tie_embeddings=bool(c.tie_word_embeddings),
        max_length=c.max_position_embeddings,
        init_scale=float(c.initializer_range),
    )
    if shape.num_kv_heads > 0 and shape.num_heads % shape.num_kv_heads:
        raise CheckpointError(f"{where}: num_key_value_heads does not divide num_attention_heads")
    for text in problems(shape):  # in our names of the keys
        raise CheckpointError(f"{where} is not a valid policy: {text}")
    return shape


def with_shape_of(run: PolicyConfig, pretrained: PolicyConfig) -> PolicyConfig:
    """The architecture of a checkpoint with the choices of a run, including its length unless that is 0."""
    chosen = {name: getattr(run, name) for name in RUN_FIELDS}
    return replace(pretrained, **chosen | {"max_length": run.max_length or pretrained.max_length})


def period(entries: Sequence[Any]) -> tuple[Any, ...]:
    """The shortest pattern whose repetition gives these entries; empty for none."""
    patterns = (tuple(entries[:n]) for n in range(1, len(entries) + 1))
    return next((p for p in patterns if all(entry == p[i % len(p)] for i, entry in enumerate(entries))), ())


def _normalised(raw: Mapping[str, Any], where: str) -> Any:
    """The config as `transformers` parses it."""
    try:
        return (
            transformers().CONFIG_MAPPING[raw["model_type"]].from_dict(copy.deepcopy(dict(raw)))
        )  # it writes into nested ones
    except Exception as error:  # its checks raise many kinds
        raise CheckpointError(f"{where} is not a valid config: {type(error).__name__}: {error}") from error


def _windows(c: Any, where: str) -> list[int]:
    """The sliding window of each layer; 0 for none."""
    kinds = getattr(c, "layer_types", None) or ["full_attention"] * c.num_hidden_layers
    window = getattr(c, "sliding_window", None) if getattr(c, "use_sliding_window", True) else None
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise CheckpointError(f"{where}: layer_types entry {kind!r} is not supported; full_attention and "
                                  "sliding_attention are")  # fmt: skip
        if kind == "sliding_attention" and not window:
            raise CheckpointError(f"{where}: layer_types has sliding_attention, and sliding_window is {window}")
    if len(kinds) != c.num_hidden_layers:
        raise CheckpointError(f"{where}: layer_types has {len(kinds)} entries for {c.num_hidden_layers} layers")
    return [window if kind == "sliding_attention" else 0 for kind in kinds]


def _rope(c: Any, where: str) -> tuple[float, RopeScaling, tuple[Literal["scaled", "unscaled", "none"], ...]]:
    """Theta, scaling, and the pattern of scaled layers."""
    parameters = c.rope_parameters
    if c.model_type != "olmo3":
        turned = getattr(c, "no_rope_layers", None) or [1] * c.num_hidden_layers
        pattern = period(["scaled" if turn else "none" for turn in turned[: c.num_hidden_layers]])
        return *_rope_scaling(parameters, where), pattern
    theta, scaling = _rope_scaling(parameters["full_attention"], where)
    window_theta, window_scaling = _rope_scaling(parameters["sliding_attention"], where)
    if window_theta != theta:
        raise CheckpointError(
            f"{where}: rope_theta {window_theta} of sliding and {theta} of full layers differ, which is not supported"
        )
    if window_scaling == scaling:
        return theta, scaling, ("scaled",)
    if window_scaling.type != "none":
        raise CheckpointError(f"{where}: rope_type {window_scaling.type!r} of sliding layers only is not supported")
    return theta, scaling, period(["unscaled" if window else "scaled" for window in _windows(c, where)])


def _rope_scaling(parameters: Mapping[str, Any], where: str) -> tuple[float, RopeScaling]:
    given = {key: value for key, value in parameters.items() if value is not None}
    given.pop("type", None)
    theta, kind = float(given.pop("rope_theta")), given.pop("rope_type", "default")
    if kind not in _ROPE_TYPES:
        raise CheckpointError(f"{where}: rope_type {kind!r} is not supported; one of {', '.join(_ROPE_TYPES)} is")
    if given.pop("partial_rotary_factor", 1.0) != 1.0:
        raise CheckpointError(f"{where}: partial_rotary_factor other than 1 is not supported")
    kind, keys = _ROPE_TYPES[kind], _ROPE_KEYS[_ROPE_TYPES[kind]]
    unknown = sorted(given.keys() - keys)
    if unknown:
        raise CheckpointError(f"{where}: {', '.join(unknown)} of rope_type {kind!r} is not supported")
    kinds = {field.name: type(field.default) for field in fields(RopeScaling)}
    values = {keys[key]: kinds[keys[key]](value) for key, value in given.items()}
    return theta, RopeScaling(kind, **values)


def pretrained_dict(config: PolicyConfig) -> dict[str, Any]:
    """A config.json for this architecture, with the keys of `transformers` 4 and 5 and of inference engines.

    Raises:
      CheckpointError: no supported family has this architecture.
    """
    c = config
    windows = [c.window_pattern[i % len(c.window_pattern)] for i in range(c.num_layers)]
    turns = [c.rope_pattern[i % len(c.rope_pattern)] for i in range(c.num_layers)]
    sizes = {window for window in windows if window}
    model_type = _model_type(c, bool(sizes), set(turns))
    raw = {
        "architectures": [FAMILIES[model_type].architecture],
        "model_type": model_type,
        "vocab_size": c.vocab_size,
        "hidden_size": c.width,
        "intermediate_size": c.mlp_width,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": c.max_length or LENGTH,
        "initializer_range": c.init_scale,
        "rms_norm_eps": c.norm_eps,
        "tie_word_embeddings": c.tie_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    scaling = _rope_dict(c.rope_scaling)
    raw |= {"rope_theta": c.rope_theta, "rope_scaling": scaling or None}
    if model_type == "olmo3":  # of which transformers applies `rope_theta` to full layers only
        plain = {"rope_type": "default", "rope_theta": c.rope_theta}
        full = {**plain, **scaling}
        raw["rope_parameters"] = {
            "full_attention": full,
            "sliding_attention": plain if "unscaled" in turns else full,
        }
    if model_type == "smollm3":
        raw |= {"no_rope_layers": [int(turn != "none") for turn in turns]}
    if model_type in ("qwen2", "qwen3", "olmo3", "smollm3"):
        raw |= {"sliding_window": max(sizes, default=None), "use_sliding_window": bool(sizes)}
        raw |= {"layer_types": ["sliding_attention" if window else "full_attention" for window in windows]}
    check_same_shape(c, policy_config(raw), model_type)
    return raw


def _model_type(c: PolicyConfig, windows: bool, turns: set[str]) -> str:
    """The family closest to an architecture."""
    if c.norm_placement == "post":
        return "olmo3" if windows or turns != {"scaled"} else "olmo2"
    if c.qk_norm != "none":
        return "qwen3"
    if c.qkv_bias:
        return "qwen2"
    return "smollm3" if windows or turns != {"scaled"} else "llama"


def _rope_dict(scaling: RopeScaling) -> dict[str, Any]:
    if scaling.type == "none":
        return {}
    values = {theirs: getattr(scaling, ours) for theirs, ours in _ROPE_KEYS[scaling.type].items()}
    if not values.get("attention_factor", True):
        del values["attention_factor"]
    return {"rope_type": scaling.type, **values}


def _canonical(c: PolicyConfig) -> PolicyConfig:
    """A canonical form: configs that compute the same become equal."""
    used = {name: getattr(c.rope_scaling, name) for name in _ROPE_KEYS[c.rope_scaling.type].values()}
    repeated = lambda pattern: tuple(pattern[i % len(pattern)] for i in range(c.num_layers))  # noqa: E731
    turns = repeated(c.rope_pattern)
    if c.rope_scaling.type == "none":
        turns = tuple("scaled" if turn == "unscaled" else turn for turn in turns)
    return replace(
        with_shape_of(PolicyConfig(), c),
        max_length=0,
        rope_scaling=RopeScaling(c.rope_scaling.type, **used),
        rope_pattern=turns,
        window_pattern=repeated(c.window_pattern),
    )


def check_same_shape(config: PolicyConfig, other: PolicyConfig, what: str) -> None:
    """Refuses a policy that computes another function of its parameters than `other`, the architecture of `what`.

    Raises:
      CheckpointError: naming the fields that differ.
    """
    ours, theirs = _canonical(config), _canonical(other)
    differ = [field.name for field in fields(PolicyConfig) if getattr(ours, field.name) != getattr(theirs, field.name)]
    if differ:
        lines = "; ".join(f"{name}: {getattr(ours, name)!r}, there {getattr(theirs, name)!r}" for name in differ)
        raise CheckpointError(f"the policy is not of the shape of {what}, and can't be written as such: {lines}")
