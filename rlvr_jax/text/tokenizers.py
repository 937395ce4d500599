"""Tokenizers: of pretrained models, and two small ones without training, for characters and bytes.

The small ones are a `tokenizers.Tokenizer` inside transformers' fast tokenizer class, so that toy policies use the same
code path as pretrained models. Id 0 is padding, id 1 ends a sequence. Special tokens are never parsed from text: a
problem that contains the characters `<eos>` doesn't end there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlvr_jax.quiet import transformers
from rlvr_jax.text.tags import TAGS

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

PAD_ID = 0
EOS_ID = 1
_SPECIAL = {"<pad>": PAD_ID, "<eos>": EOS_ID}
_REMEDY = "config.tasks.NAME.alphabet adds to it, config.tokenizer = 'bytes' has every character"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")


def make_tokenizer(kind: str, alphabets: Mapping[str, str | None] | None = None) -> "PreTrainedTokenizerFast":
    """The tokenizer of a config: `characters`, over the alphabets of its tasks, `bytes`, or that of a folder.

    Args:
      kind: one of these.
      alphabets: of each task by name; None for a task whose text may contain any character.

    Raises:
      ValueError: a task has no alphabet for a character tokenizer, or there is no such tokenizer.
    """
    if kind == "bytes":
        return byte_tokenizer()
    if kind != "characters":
        return pretrained_tokenizer(kind)
    alphabets = alphabets or {}
    for task, alphabet in alphabets.items():
        if alphabet is None:
            raise ValueError(f"tokenizer 'characters' needs tasks with an alphabet, {task!r} has none: use 'bytes'")
    return character_tokenizer("".join(dict.fromkeys("".join(alphabets.values()))))


def pretrained_tokenizer(folder: str | Path) -> "PreTrainedTokenizerFast":
    """The tokenizer in the folder of a Hugging Face checkpoint. Without a pad token, eos is used for padding.

    Raises:
      ValueError: there is none, it is damaged, or it has no fast implementation.
    """
    folder = Path(folder).expanduser()
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ValueError(f"{folder} has no tokenizer (none of {', '.join(_TOKENIZER_FILES)})")
    try:
        tokenizer = transformers().AutoTokenizer.from_pretrained(str(folder))
        backend = tokenizer.backend_tokenizer
    except Exception as error:  # transformers and its backends raise many types
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the tokenizer in {folder} can't be read: {type(error).__name__}: {reason}") from error
    # The file may ask for either, and ids are laid out here.
    backend.no_padding()
    backend.no_truncation()
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise ValueError(f"the tokenizer in {folder} has neither a pad token nor an end-of-sequence token")
    return tokenizer


def stop_tokens(tokenizer: "PreTrainedTokenizerFast", listed: Sequence[int | None] = ()) -> tuple[int, ...]:
    """The ids that end a response: the tokenizer's end-of-sequence token and the `listed` ones."""
    return tuple(sorted({token for token in (tokenizer.eos_token_id, *listed) if token is not None}))


def text_start(tokenizer: "PreTrainedTokenizerFast") -> str:
    """The start text that a tokenizer prepends to every text, such as `<s>`; empty for most.

    Models are trained on texts that begin with it. Prepended to a text, it encodes to the first tokens of
    `tokenizer(text)`.

    Raises:
      ValueError: there is no such text.
    """
    backend = tokenizer.backend_tokenizer
    if not backend.num_special_tokens_to_add(False):
        return ""
    probe = "1 + 1"
    encoding = backend.encode(probe, add_special_tokens=True)
    count = encoding.special_tokens_mask.index(0)
    if not count:
        return ""
    start = "".join(map(backend.id_to_token, encoding.ids[:count]))
    wanted = [*encoding.ids[:count], *encode(tokenizer, probe)]
    # Some mark the beginning of a text by a space, which they omit after a special token.
    for text in (start, f"{start} "):
        if encode(tokenizer, text + probe) == wanted:
            return text
    raise ValueError(f"the tokenizer prepends {start!r} to texts, but does not parse it from one")


def character_tokenizer(alphabet: str) -> "PreTrainedTokenizerFast":
    """One token per character of `alphabet`: the n-th character, from 0, has id n + 2.

    Raises:
      ValueError: the alphabet is empty or repeats a character.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    repeated = sorted({character for character in alphabet if alphabet.count(character) > 1})
    if not alphabet or repeated:
        raise ValueError(f"an alphabet needs different characters, at least one; {alphabet!r} repeats {repeated}")
    vocabulary = _SPECIAL | {character: index for index, character in enumerate(alphabet, start=len(_SPECIAL))}
    # No unknown token: a character outside the alphabet is an error.
    backend = Tokenizer(models.WordLevel(vocabulary))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return _fast_tokenizer(backend)


def byte_tokenizer() -> "PreTrainedTokenizerFast":
    """One token per byte of the UTF-8 text: byte b has id b + 2. Any text survives the round trip unchanged.

    Ids that form no valid UTF-8 decode to U+FFFD, the replacement character.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    # GPT-2's printable stand-ins of the byte-level pre-tokenizer and decoder: printable Latin-1 bytes map to
    # themselves, the others in order to the characters from 256 on.
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = [byte for byte in range(256) if byte not in printable]
    character = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    vocabulary = _SPECIAL | {character[byte]: byte + len(_SPECIAL) for byte in range(256)}
    backend = Tokenizer(models.BPE(vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return _fast_tokenizer(backend)


def encode(tokenizer: "PreTrainedTokenizerFast", text: str) -> list[int]:
    """The ids of `text`, without special tokens around them.

    Raises:
      ValueError: the tokenizer has no token for a character of the text; the message names the character.
    """
    return encode_batch(tokenizer, [text])[0]


def encode_batch(tokenizer: "PreTrainedTokenizerFast", texts: Sequence[str]) -> list[list[int]]:
    """`encode` for several texts at once.

    Raises:
      ValueError: as `encode`.
    """
    try:
        encodings = tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)
    except Exception as error:  # `tokenizers` raises bare Exception, and TypeError for text that is not Unicode
        raise ValueError(_why_not_encoded(tokenizer, texts)) from error
    return [encoding.ids for encoding in encodings]


def lacking(tokenizer: "PreTrainedTokenizerFast", texts: Sequence[str]) -> list[str]:
    """The characters of the texts that alone have no tokens, in order, each once."""
    return [character for character in dict.fromkeys("".join(texts)) if not _has_tokens(tokenizer, character)]


def _has_tokens(tokenizer: "PreTrainedTokenizerFast", character: str) -> bool:
    try:
        return bool(encode(tokenizer, character))
    except ValueError:
        return False


def decode(tokenizer: "PreTrainedTokenizerFast", ids_batch: Sequence[Sequence[int]]) -> list[str]:
    """The texts of a batch of id sequences (lists or integer arrays).

    Special tokens, such as pad and eos, and ids beyond the tokenizer's vocabulary (of padded embeddings) are left out.
    The tags of `rlvr_jax.text.tags` are kept, even if they are special tokens: without `</think>` a thought would count
    as the answer.
    """
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    silent = {id for id, token in added.items() if token.special and token.content.strip() not in TAGS}
    rows = [row.tolist() if hasattr(row, "tolist") else list(row) for row in ids_batch]
    rows = [[id for id in row if id not in silent] for row in rows]
    return tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=False)


def _why_not_encoded(tokenizer: "PreTrainedTokenizerFast", texts: Sequence[str]) -> str:
    for text in texts:
        if not isinstance(text, str):
            return f"a tokenizer encodes text, not {type(text).__name__}: {text!r}"
        for place, character in enumerate(text):
            where = f"{character!r}, character {place} of {text[max(0, place - 20) : place + 20]!r}"
            if "\ud800" <= character <= "\udfff":
                return f"no token for {where} (half a surrogate pair, which is not Unicode text)"
            try:
                tokenizer.backend_tokenizer.encode(character, add_special_tokens=False)
            except Exception:  # the error that this function explains; `tokenizers` raises no narrower type
                tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
                alphabet = "".join(token for token, _ in tokens if len(token) == 1)
                return f"no token for {where}; the alphabet is {alphabet!r}, {_REMEDY}"
    return f"the tokenizer could not encode {texts!r}"


def _fast_tokenizer(backend: "Tokenizer") -> "PreTrainedTokenizerFast":
    return transformers().PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
    )
