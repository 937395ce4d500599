"""Makes the golden files: what `transformers` on PyTorch computes with tiny random checkpoints of each family.

    python -m tests.golden.make_golden                    # writes them again
    python -m tests.golden.make_golden --check            # compares what is computed now with them
    python -m tests.golden.make_golden --load FOLDER ...  # the same for exported checkpoints, each named like its case

It needs torch and transformers, and nothing of this package. A golden file holds the config.json, names and shapes of
the tensors, a checksum of their values, the logits of some sequences, and greedy continuations of some prompts, first
one by one, then again as one batch padded on the left, which must be the same. The values of the tensors are not
stored: `weights` draws them from the case's seed. To make greedy tokens independent of rounding, every one of them must
be ahead of the next by `MARGIN`: the first seed with which it is so is taken.
"""

import argparse
import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
MARGIN = 2e-3
NEW_TOKENS = 64
PROMPT_LENGTHS = (3, 9, 1, 6)
LENGTH = 24  # of the sequences whose logits are stored

_BASE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "vocab_size": 41,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 4.0}
_LINEAR = {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
# Frequencies with divisors of their own. All sequences are shorter than the original window, or all are longer.
_LONGROPE = {"type": "longrope", "factor": 4.0, "short_factor": [1.0, 1.5, 2.0], "long_factor": [1.0, 4.0, 16.0]}
_PHI3 = {"hidden_size": 64, "partial_rotary_factor": 0.75, "max_position_embeddings": 130}
_SHORT = {"original_max_position_embeddings": 130, "rope_scaling": _LONGROPE}
_LONG = {"original_max_position_embeddings": 1, "rope_scaling": _LONGROPE | {"attention_factor": 1.25}}
# Heads per key/value head: 1, 2 and 8; odd and even vocabularies; tied and untied embeddings.
_ONE, _TWO, _EIGHT = {"num_key_value_heads": 8}, {"num_key_value_heads": 4}, {"num_key_value_heads": 1}
_TIED = {"tie_word_embeddings": True}
# Two kinds of layers, windows shorter than the sequences, and two bases of the rotary frequencies.
_GEMMA3 = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 5}
_GEMMA3 |= {"rope_theta": 1e6, "rope_local_base_freq": 1e4}


def _case(model_type: str, *changes: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    merged = {"model_type": model_type, **_BASE}
    for change in (*changes, more):
        merged |= change
    return merged


CASES = {
    "llama_mha": _case("llama", _ONE, vocab_size=37),
    "llama3": _case("llama", _TWO, _TIED, rope_scaling=_LLAMA3, rope_theta=5e5, head_dim=8),
    "llama_linear": _case("llama", _EIGHT, rope_scaling={"type": "linear", "factor": 2.0}, vocab_size=64),
    "qwen2_mha": _case("qwen2", _ONE, _TIED, vocab_size=37),
    "qwen2": _case("qwen2", _TWO, rope_theta=1e6, use_sliding_window=True, sliding_window=5, max_window_layers=2),
    "qwen2_yarn": _case("qwen2", _EIGHT, _TIED, rope_scaling=_YARN, vocab_size=64),
    "qwen3_mha": _case("qwen3", _ONE, head_dim=6, vocab_size=37),
    "qwen3": _case("qwen3", _TWO, _TIED, head_dim=10, rope_theta=1e6),
    "qwen3_yarn": _case("qwen3", _EIGHT, head_dim=8, rope_scaling=_YARN, vocab_size=64),
    "olmo2_mha": _case("olmo2", _ONE, vocab_size=37),
    "olmo2": _case("olmo2", _TWO, rope_theta=5e5),
    "olmo2_tied": _case("olmo2", _EIGHT, _TIED, vocab_size=64),
    "olmo3": _case("olmo3", _TWO, num_hidden_layers=5, sliding_window=5, rope_scaling=_YARN),
    "olmo3_mha": _case("olmo3", _ONE, _TIED, num_hidden_layers=4, sliding_window=7, vocab_size=37),
    "olmo3_mqa": _case("olmo3", _EIGHT, sliding_window=4, vocab_size=64, layer_types=["sliding_attention"] * 3),
    "smollm3": _case("smollm3", _TWO, _TIED, num_hidden_layers=5, rope_theta=5e6),
    "smollm3_mha": _case("smollm3", _ONE, vocab_size=37, no_rope_layers=[0, 1, 1]),
    "smollm3_mqa": _case("smollm3", _EIGHT, vocab_size=64, no_rope_layer_interval=2),
    "gemma3": _case("gemma3_text", _GEMMA3, _TWO, _TIED, num_hidden_layers=7),
    "gemma3_mha": _case("gemma3_text", _GEMMA3, _ONE, sliding_window_pattern=2, query_pre_attn_scalar=5, vocab_size=37),
    "gemma3_mqa": _case(
        "gemma3_text", _GEMMA3, _EIGHT, _TIED, _LINEAR, sliding_window_pattern=3, head_dim=10, vocab_size=64
    ),
    "phi3": _case("phi3", _PHI3, _SHORT, _TWO, _TIED),
    "phi3_mha": _case("phi3", _ONE, partial_rotary_factor=0.5, sliding_window=6, vocab_size=37),
    "phi3_mqa": _case("phi3", _PHI3, _LONG, _EIGHT, vocab_size=64),
    "mistral": _case("mistral", _TWO, sliding_window=5, head_dim=6),
    "mistral_mha": _case("mistral", _ONE, _TIED, sliding_window=None, rope_theta=1e6, vocab_size=37),
    "mistral_mqa": _case("mistral", _EIGHT, sliding_window=None, head_dim=8, vocab_size=64),
}


def weights(shapes: Mapping[str, list[int]], seed: int) -> dict[str, np.ndarray]:
    """The values of tensors: uniform and distinct, norms around 1; made of integer generator output, which NumPy keeps
    the same in all versions (NEP 19)."""
    values = {}
    for i, name in enumerate(sorted(shapes)):
        bits = np.random.PCG64(seed=1000 * seed + i).random_raw(int(np.prod(shapes[name])))
        uniform = ((bits >> np.uint64(40)).astype(np.float32) / 2**23 - 1).reshape(shapes[name])  # in [-1, 1)
        if "norm" in name:
            values[name] = 1 + 0.5 * uniform
        else:
            values[name] = uniform * np.float32(1.0 if "embed" in name or "lm_head" in name else 0.5)
    return values


def checksum(values: Mapping[str, np.ndarray]) -> str:
    """Of names, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(values):
        digest.update(f"{name} {values[name].shape} {values[name].dtype}".encode())
        digest.update(np.ascontiguousarray(values[name]).tobytes())
    return digest.hexdigest()


def tokens(config: Mapping[str, Any]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Sequences for the logits, and prompts of different lengths."""
    rng = np.random.Generator(np.random.PCG64(7))
    draw = lambda *shape: (rng.random(shape) * config["vocab_size"]).astype(np.int32)  # noqa: E731
    return draw(2, LENGTH), [draw(length) for length in PROMPT_LENGTHS]


def read(name: str) -> dict[str, Any]:
    """A golden file: "config", "shapes", "checksum", and arrays "logits" and "continuations"."""
    record = json.loads((FOLDER / f"{name}.json").read_text())
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return record | {key: arrays[key] for key in arrays}


def _model(config: Mapping[str, Any]):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(2)
    made = AutoConfig.for_model(**copy.deepcopy(config))  # it writes into nested dictionaries
    return AutoModelForCausalLM.from_config(made, attn_implementation="eager").float().eval()


def _greedy(model, batch: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """Continuations of prompts padded on the left, without a cache, and by how much each token was ahead at least."""
    import torch

    width = max(map(len, batch))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt.tolist() for prompt in batch])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch])
    smallest = float("inf")
    for _ in range(NEW_TOKENS):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits[:, -1]
        best = logits.topk(2).values
        smallest = min(smallest, float((best[:, 0] - best[:, 1]).min()))
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    return ids[:, width:].numpy().astype(np.int32), smallest


class _NearTieError(Exception):
    pass


def _outputs(model, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    import torch

    sequences, prompts = tokens(config)
    with torch.inference_mode():
        continuations, margin = _greedy(model, prompts)
        if margin < MARGIN:
            raise _NearTieError(f"a greedy token is ahead by {margin:.1e} only")
        logits = model(input_ids=torch.tensor(sequences)).logits.float().numpy()
        alone = [_greedy(model, [prompt])[0] for prompt in prompts]
        cached = model.generate(
            torch.tensor(prompts[0])[None], max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
        )[0, len(prompts[0]) :]
    np.testing.assert_array_equal(continuations, np.concatenate(alone))
    np.testing.assert_array_equal(continuations[0], cached.numpy())
    return {"logits": logits, "continuations": continuations}


def compute(name: str, seed: int) -> dict[str, Any]:
    """What a golden file holds, computed now."""
    import torch

    model = _model(CASES[name])
    state = model.state_dict()
    if CASES[name]["tie_word_embeddings"]:
        del state["lm_head.weight"]
    shapes = {key: list(value.shape) for key, value in state.items()}
    values = weights(shapes, seed)
    model.load_state_dict({key: torch.tensor(value) for key, value in values.items()}, strict=False)
    model.tie_weights()
    config = json.loads(model.config.to_json_string(use_diff=True)) | {"dtype": "float32"}
    record = {"seed": seed, "config": config, "shapes": shapes, "checksum": checksum(values)}
    return record | _outputs(model, config)


def _first_without_ties(name: str) -> dict[str, Any]:
    for seed in range(100):
        try:
            return compute(name, seed)
        except _NearTieError:
            continue
    raise ValueError(f"{name}: near ties with all of 100 seeds")


def write(name: str) -> None:
    """Writes one golden file."""
    record = _first_without_ties(name)
    arrays = {key: record.pop(key) for key in ("logits", "continuations")}
    (FOLDER / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    np.savez_compressed(FOLDER / f"{name}.npz", **arrays)


def compare(name: str, now: Mapping[str, Any]) -> None:
    """Raises AssertionError where what is computed now is not what the golden file holds."""
    golden = read(name)
    for key in ("checksum", "shapes"):
        if key in now:
            assert now[key] == golden[key], f"{name}: {key}"
    np.testing.assert_allclose(
        now["logits"], golden["logits"], rtol=0, atol=1e-5 * np.abs(golden["logits"]).max(), err_msg=name
    )
    np.testing.assert_array_equal(now["continuations"], golden["continuations"], err_msg=name)


def loaded(folder: Path) -> dict[str, Any]:
    """What `transformers` computes with a checkpoint in a folder."""
    import torch
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    return _outputs(model.eval(), read(folder.name)["config"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--load", nargs="+", type=Path, default=[])
    args = parser.parse_args()
    for folder in args.load:
        compare(folder.name, loaded(folder))
        print(f"{folder}: as the golden file")
    for name in [] if args.load else CASES:
        compare(name, compute(name, read(name)["seed"])) if args.check else write(name)
        print(f"{name}: {'as the golden file' if args.check else 'written'}, seed {read(name)['seed']}")


if __name__ == "__main__":
    main()
