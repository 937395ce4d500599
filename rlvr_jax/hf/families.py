"""Conversion between Hugging Face's config.json and `PolicyConfig`, for each supported model family."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from rlvr_jax.errors import CheckpointError
from rlvr_jax.policy.config import PolicyConfig, RopeScaling, problems
from rlvr_jax.quiet import transformers


@dataclass(frozen=True)
class _Family:
    """Properties of a `model_type` that its config.json does not state.

    Attributes:
      architecture: the class in `transformers`.
      shape: fields of `PolicyConfig`.
      slides: every layer has the window of `sliding_window`, whatever `layer_types` says.
      fused: a checkpoint has one tensor for q, k and v of a layer, and one for gate and up.
      partial_rotary: `partial_rotary_factor` counts.
    """

    architecture: str
    shape: Mapping[str, Any] = field(default_factory=dict)
    slides: bool = False
    fused: bool = False
    partial_rotary: bool = False


_OLMO = {"qk_norm": "full", "norm_placement": "post"}
_GEMMA3 = {"qk_norm": "head", "norm_placement": "both", "norm_offset": 1.0, "scale_embeddings": True}
FAMILIES: Mapping[str, _Family] = {
    "llama": _Family("LlamaForCausalLM"),
    "mistral": _Family("MistralForCausalLM", slides=True),
    "qwen2": _Family("Qwen2ForCausalLM", {"qkv_bias": True}),
    "qwen3": _Family("Qwen3ForCausalLM", {"qk_norm": "head"}),
    "olmo2": _Family("Olmo2ForCausalLM", _OLMO),
    "olmo3": _Family("Olmo3ForCausalLM", _OLMO),
    "smollm3": _Family("SmolLM3ForCausalLM"),
    "gemma3_text": _Family("Gemma3ForCausalLM", _GEMMA3),
    "phi3": _Family("Phi3ForCausalLM", slides=True, fused=True, partial_rotary=True),
}
TEXT_MODELS = {"gemma3": "gemma3_text"}  # of multimodal families
# Fields chosen by the run: a checkpoint's parameters compute the same with any value.
RUN_FIELDS = (
    *("lora", "max_length", "init_scale", "dtype", "param_dtype", "cache_dtype"),
    *("remat", "attention", "head_chunk"),
)

LENGTH = 1024  # of a policy that says none

_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}  # theirs -> ours
# Keys of what the decoder does not do, with the values by which it is off.
_OFF = {
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "use_bidirectional_attention": (False, None),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
}
_ROPE_TYPES = {"default": "none", "linear": "linear", "llama3": "llama3", "yarn": "yarn", "longrope": "longrope"}
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
    "longrope": {
        "factor": "factor",
        "short_factor": "short_factors",
        "long_factor": "long_factors",
        "attention_factor": "attention_factor",
        "original_max_position_embeddings": "original_length",
    },
}


def policy_config(raw: Mapping[str, Any], where: str = "config.json") -> PolicyConfig:
    """The architecture that a config.json describes; compute and storage types keep their defaults.

    Of a multimodal checkpoint it is that of the text model. Absent keys and older spellings of keys are treated as in
    `transformers`.

    Raises:
      CheckpointError: an unsupported value, naming its key.
    """
    refuse = lambda what, known: CheckpointError(f"{where}: {what} is not supported; {known} is")  # noqa: E731
    raw = text_config(raw, where)
    model_type = raw.get("model_type")
    if model_type not in FAMILIES:
        raise refuse(f"model_type {model_type!r}", "one of " + ", ".join((*FAMILIES, *TEXT_MODELS)))
    if raw.get("quantization_config") is not None:
        raise refuse("quantization_config", "an unquantised checkpoint")
    family, c = FAMILIES[model_type], _normalised(raw, where)
    key = "hidden_activation" if hasattr(c, "hidden_activation") else "hidden_act"
    activation = getattr(c, key)
    if activation not in _ACTIVATIONS:
        raise refuse(f"{key} {activation!r}", "one of " + ", ".join(_ACTIVATIONS))
    for key, off in _OFF.items():
        value = getattr(c, key, off[0])
        if value not in off:
            raise refuse(f"{key} {json.dumps(value)} with model_type {model_type!r}", json.dumps(off[0]))
    head_dim = _head_dim(c)
    score_dim = getattr(c, "query_pre_attn_scalar", head_dim)
    shape = PolicyConfig(
        vocab_size=c.vocab_size,
        num_layers=c.num_hidden_layers,
        width=c.hidden_size,
        num_heads=c.num_attention_heads,
        num_kv_heads=c.num_key_value_heads,
        head_dim=head_dim,
        mlp_width=c.intermediate_size,
        window_pattern=period(_windows(c, where)),
        norm_eps=float(c.rms_norm_eps),
        score_dim=0 if score_dim == head_dim else score_dim,
        activation=_ACTIVATIONS[activation],
        tie_embeddings=bool(c.tie_word_embeddings),
        max_length=c.max_position_embeddings,
        init_scale=float(c.initializer_range),
        **family.shape,
        **_rope(c, where),
    )
    if shape.num_kv_heads > 0 and shape.num_heads % shape.num_kv_heads:
        raise CheckpointError(f"{where}: num_key_value_heads does not divide num_attention_heads")
    for text in problems(shape):  # in our names of the keys
        raise CheckpointError(f"{where} is not a valid policy: {text}")
    return shape


def text_config(raw: Mapping[str, Any], where: str = "config.json") -> dict[str, Any]:
    """The config.json of a multimodal checkpoint's text model alone; that of a text model itself.

    Raises:
      CheckpointError: it has none.
    """
    model_type = TEXT_MODELS.get(raw.get("model_type"))
    if model_type is None:
        return dict(raw)
    text = raw.get("text_config")
    if not isinstance(text, Mapping):
        raise CheckpointError(f"{where} of model_type {raw['model_type']!r} lacks text_config, its text model's config")
    kept = ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings", "dtype", "torch_dtype")
    kept = {key: raw[key] for key in (*kept, "quantization_config") if key in raw}
    return {**text, **kept, "model_type": model_type, "architectures": [FAMILIES[model_type].architecture]}


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


def _head_dim(c: Any) -> int:
    return getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads


def _windows(c: Any, where: str) -> list[int]:
    """The sliding window of each layer; 0 for none."""
    window = getattr(c, "sliding_window", None) if getattr(c, "use_sliding_window", True) else None
    if FAMILIES[c.model_type].slides:
        return [window or 0] * c.num_hidden_layers
    kinds = getattr(c, "layer_types", None) or ["full_attention"] * c.num_hidden_layers
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise CheckpointError(f"{where}: layer_types entry {kind!r} is not supported; full_attention and "
                                  "sliding_attention are")  # fmt: skip
        if kind == "sliding_attention" and not window:
            raise CheckpointError(f"{where}: layer_types has sliding_attention, and sliding_window is {window}")
    if len(kinds) != c.num_hidden_layers:
        raise CheckpointError(f"{where}: layer_types has {len(kinds)} entries for {c.num_hidden_layers} layers")
    return [window if kind == "sliding_attention" else 0 for kind in kinds]


def _rope(c: Any, where: str) -> dict[str, Any]:
    """The fields of `PolicyConfig` for rotary positions."""
    parameters = dict(c.rope_parameters)
    if "full_attention" not in parameters:  # the same for layers of both kinds
        part = parameters.get("partial_rotary_factor") or 1.0
        if part != 1 and not FAMILIES[c.model_type].partial_rotary:
            raise CheckpointError(f"{where}: partial_rotary_factor other than 1 is not supported")
        if parameters.get("rope_type") == "longrope" and parameters.get("factor") is None:
            parameters["factor"] = c.max_position_embeddings / parameters["original_max_position_embeddings"]
        theta, scaling = _rope_scaling(parameters, where)
        turned = getattr(c, "no_rope_layers", None) or [1] * c.num_hidden_layers
        pattern = period(["scaled" if turn else "none" for turn in turned[: c.num_hidden_layers]])
        shape = {"rope_theta": theta, "rope_scaling": scaling, "rope_pattern": pattern}
        return shape | ({"rotary_dim": int(_head_dim(c) * part)} if part != 1 else {})
    theta, scaling = _rope_scaling(parameters["full_attention"], where)
    window_theta, window_scaling = _rope_scaling(parameters["sliding_attention"], where)
    shape = {"rope_theta": theta, "rope_scaling": scaling}
    if (window_theta, window_scaling) == (theta, scaling):
        return shape
    if window_scaling.type != "none":
        raise CheckpointError(f"{where}: rope_type {window_scaling.type!r} of sliding layers only is not supported")
    pattern = period(["unscaled" if window else "scaled" for window in _windows(c, where)])
    return shape | {"rope_pattern": pattern, "rope_theta_unscaled": 0.0 if window_theta == theta else window_theta}


def _rope_scaling(parameters: Mapping[str, Any], where: str) -> tuple[float, RopeScaling]:
    given = {key: value for key, value in parameters.items() if value is not None}
    for key in ("type", "partial_rotary_factor"):
        given.pop(key, None)
    theta, kind = float(given.pop("rope_theta")), given.pop("rope_type", "default")
    if kind not in _ROPE_TYPES:
        raise CheckpointError(f"{where}: rope_type {kind!r} is not supported; one of {', '.join(_ROPE_TYPES)} is")
    kind, keys = _ROPE_TYPES[kind], _ROPE_KEYS[_ROPE_TYPES[kind]]
    unknown = sorted(given.keys() - keys)
    if unknown:
        raise CheckpointError(f"{where}: {', '.join(unknown)} of rope_type {kind!r} is not supported")
    values = {keys[key]: _typed(keys[key], value) for key, value in given.items()}
    return theta, RopeScaling(kind, **values)


def _typed(name: str, value: Any) -> Any:
    """A value of a field of `RopeScaling`, which JSON may have as another kind of number."""
    kind = type(getattr(RopeScaling, name))
    return tuple(map(float, value)) if kind is tuple else kind(value)


def classifier_keys(model_type: str) -> dict[str, Any]:
    """The keys of config.json by which `transformers` loads a reward model: a classifier with one label."""
    name = "Gemma3TextForCausalLM" if model_type == "gemma3_text" else FAMILIES[model_type].architecture
    architecture = name.replace("CausalLM", "SequenceClassification")
    return {"architectures": [architecture], "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}


def pretrained_dict(config: PolicyConfig) -> dict[str, Any]:
    """A config.json for this architecture, with the keys of `transformers` 4 and 5 and of inference engines.

    Raises:
      CheckpointError: no supported family has this architecture.
    """
    c = config
    windows = [c.window_pattern[i % len(c.window_pattern)] for i in range(c.num_layers)]
    turns = [c.rope_pattern[i % len(c.rope_pattern)] for i in range(c.num_layers)]
    sizes = {window for window in windows if window}
    model_type = closest_family(c)
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
        "hidden_act": next(theirs for theirs, ours in _ACTIVATIONS.items() if ours == c.activation),
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
    if model_type in ("olmo3", "gemma3_text"):  # of which transformers applies `rope_theta` to full layers only
        full = {"rope_type": "default", "rope_theta": c.rope_theta, **scaling}
        plain = {"rope_type": "default", "rope_theta": c.rope_theta_unscaled or c.rope_theta}
        raw["rope_parameters"] = {
            "full_attention": full,
            "sliding_attention": plain if "unscaled" in turns else full,
        }
    if model_type == "gemma3_text":
        raw |= {"hidden_activation": raw.pop("hidden_act"), "query_pre_attn_scalar": c.score_dim or c.head_dim}
        raw |= {"rope_local_base_freq": raw["rope_parameters"]["sliding_attention"]["rope_theta"]}
        raw |= dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping"))
    if model_type == "phi3":
        raw |= {"partial_rotary_factor": (c.rotary_dim or c.head_dim) / c.head_dim}
        raw |= {"original_max_position_embeddings": c.rope_scaling.original_length or raw["max_position_embeddings"]}
    if model_type == "smollm3":
        raw |= {"no_rope_layers": [int(turn != "none") for turn in turns]}
    if model_type not in ("llama", "olmo2"):
        raw["sliding_window"] = max(sizes, default=None)
        if not FAMILIES[model_type].slides:
            raw["layer_types"] = ["sliding_attention" if window else "full_attention" for window in windows]
    if model_type in ("qwen2", "qwen3", "smollm3"):
        raw["use_sliding_window"] = bool(sizes)
    check_same_shape(c, policy_config(raw), model_type)
    return raw


def closest_family(c: PolicyConfig) -> str:
    """The `model_type` as which an architecture is written."""
    windows, turns = set(c.window_pattern[: c.num_layers]), set(c.rope_pattern[: c.num_layers])
    plain = windows == {0} and turns == {"scaled"}
    if c.rotary_dim or c.rope_scaling.type == "longrope":
        return "phi3"
    if c.norm_placement == "both":
        return "gemma3_text"
    if c.norm_placement == "post":
        return "olmo2" if plain else "olmo3"
    if c.qk_norm != "none":
        return "qwen3"
    if c.qkv_bias:
        return "qwen2"
    if plain:
        return "llama"
    return "mistral" if len(windows) == 1 and turns == {"scaled"} else "smollm3"


def _rope_dict(scaling: RopeScaling) -> dict[str, Any]:
    if scaling.type == "none":
        return {}
    values = {theirs: getattr(scaling, ours) for theirs, ours in _ROPE_KEYS[scaling.type].items()}
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    if not values.get("attention_factor", True):
        del values["attention_factor"]
    return {"rope_type": scaling.type, **values}


def _canonical(c: PolicyConfig) -> PolicyConfig:
    """A canonical form: configs that compute the same become equal."""
    used = {name: getattr(c.rope_scaling, name) for name in _ROPE_KEYS[c.rope_scaling.type].values()}
    repeated = lambda pattern: tuple(pattern[i % len(pattern)] for i in range(c.num_layers))  # noqa: E731
    turns, theta = repeated(c.rope_pattern), c.rope_theta_unscaled or c.rope_theta
    if c.rope_scaling.type == "none" and theta == c.rope_theta:
        turns = tuple("scaled" if turn == "unscaled" else turn for turn in turns)
    return replace(
        with_shape_of(PolicyConfig(), c),
        max_length=0,
        rope_theta_unscaled=theta if "unscaled" in turns else c.rope_theta,
        rotary_dim=c.rotary_dim or c.head_dim,
        score_dim=c.score_dim or c.head_dim,
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
