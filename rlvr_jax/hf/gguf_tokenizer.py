"""Conversion of the tokenizer of a GGUF file to the files of a Hugging Face one."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_jax.errors import CheckpointError

_CONTROL, _USER_DEFINED = 3, 4  # gguf.TokenType
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Pre-tokenization of byte-level tokenizers, by llama.cpp's names: a pattern, or single digits and GPT-2's pattern.
_PATTERNS = {
    "gpt-2": "",
    "default": "",
    "smollm": "digits",
    "llama-bpe": _CONTRACTIONS + _WORDS + r"\p{N}{1,3}" + _REST,
    "llama3": _CONTRACTIONS + _WORDS + r"\p{N}{1,3}" + _REST,
    "qwen2": _CONTRACTIONS + _WORDS + r"\p{N}" + _REST,
    "deepseek-r1-qwen": _CONTRACTIONS + _WORDS + r"\p{N}" + _REST,
}
_BEGIN_WITH_BOS = ("llama-bpe", "llama3")  # unless the file says otherwise


def tokenizer_files(where: str, values: Mapping[str, Any]) -> dict[str, str]:
    """tokenizer.json, tokenizer_config.json with the chat template, and generation_config.json.

    Args:
      where: the file, for error messages.
      values: the metadata of the file.

    Raises:
      CheckpointError: the tokenizer is of an unsupported kind, or incomplete.
    """
    get = lambda key, default=None: values.get(f"tokenizer.ggml.{key}", default)  # noqa: E731
    tokens, kind, cut = get("tokens"), get("model"), get("pre", "default")
    if not tokens:
        raise CheckpointError(f"{where} holds no tokenizer (tokenizer.ggml.tokens)")
    types = get("token_type", [1] * len(tokens))
    if kind == "gpt2" and cut in _PATTERNS:
        parts = _byte_level(tokens, get("merges", []), _PATTERNS[cut], whole_words=cut in _BEGIN_WITH_BOS)
    elif kind == "llama":
        parts = _sentencepiece(tokens, get("scores", [0.0] * len(tokens)), get("add_space_prefix", True))
    else:
        raise CheckpointError(
            f"{where} has a tokenizer of the kind {kind!r}, {cut!r}, which is not supported; 'llama' and 'gpt2' with "
            f"one of {', '.join(_PATTERNS)} are"
        )
    token_of = lambda name: None if get(f"{name}_token_id") is None else tokens[get(f"{name}_token_id")]  # noqa: E731
    begins = get("add_bos_token", kind == "llama" or cut in _BEGIN_WITH_BOS)
    special = {f"{ours}_token": token_of(theirs) for ours, theirs in
               (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))}  # fmt: skip
    added = [
        {"id": i, "content": token, "special": type == _CONTROL, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for i, (token, type) in enumerate(zip(tokens, types, strict=True))
        if type in (_CONTROL, _USER_DEFINED)
    ]
    parts |= {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}
    parts["post_processor"] = _begin(special["bos_token"], get("bos_token_id")) if begins else None
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **{name: token for name, token in special.items() if token is not None},
        **({"chat_template": values["tokenizer.chat_template"]} if "tokenizer.chat_template" in values else {}),
    }
    ends = [get(f"{name}_token_id") for name in ("eos", "eot", "eom")]
    generation = {"eos_token_id": sorted({token for token in ends if token is not None})}
    files = {
        "tokenizer.json": parts,
        "tokenizer_config.json": settings,
        "generation_config.json": generation,
    }
    return {name: json.dumps(content, indent=1, ensure_ascii=False) + "\n" for name, content in files.items()}


def _begin(token: str, index: int) -> dict[str, Any]:
    """Prepends a token to every text."""
    first, text = {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, second],
        "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]}},
    }


def _byte_level(tokens: Sequence[str], merges: Sequence[str], pattern: str, whole_words: bool) -> dict[str, Any]:
    """Byte pairs over GPT-2's letters for bytes."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    cutting = [{**level, "use_regex": pattern in ("", "digits")}]
    if pattern == "digits":
        cutting = [{"type": "Digits", "individual_digits": True}, *cutting]
    elif pattern:
        cutting = [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}, *cutting]
    pairs = [merge.split(" ") for merge in merges]
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": cutting},
        "decoder": {**level, "use_regex": True},
        "model": _pairs(tokens, pairs, ignore_merges=whole_words),
    }


def _sentencepiece(tokens: Sequence[str], scores: Sequence[float], prefix: bool) -> dict[str, Any]:
    """Pieces of text with `▁` for a space, and a fallback to bytes.

    SentencePiece merges the adjacent pair that gives the piece with the highest score. As a list of merges: every split
    of a piece into two, with the pieces in the order of their scores.
    """
    vocabulary = {token: i for i, token in enumerate(tokens)}
    pairs = []
    for i in sorted(range(len(tokens)), key=lambda i: (-scores[i], i)):
        cuts = [(tokens[i][:place], tokens[i][place:]) for place in range(1, len(tokens[i]))]
        known = [cut for cut in cuts if cut[0] in vocabulary and cut[1] in vocabulary]
        pairs += sorted(known, key=lambda cut: (vocabulary[cut[0]], vocabulary[cut[1]]))
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    first = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    unknown = "<unk>" if "<unk>" in vocabulary else None
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*first, spaces]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": _pairs(tokens, pairs, byte_fallback=True, fuse_unk=True, unk_token=unknown),
    }


def _pairs(tokens: Sequence[str], pairs: Sequence[Sequence[str]], **options: Any) -> dict[str, Any]:
    plain = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    plain |= {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return {"type": "BPE", **plain, **options, "vocab": vocabulary, "merges": [list(pair) for pair in pairs]}
