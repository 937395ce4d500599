"""Two small tokenizers that need no training: one token per character, and one token per byte.

Both are a `tokenizers.Tokenizer` inside transformers' fast tokenizer class, so that a toy policy's text takes the same
path as that of a pretrained model. Id 0 pads, id 1 ends a sequence. Special tokens are never read out of text: a
problem that contains the characters `<eos>` doesn't end there.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

PAD_ID = 0
EOS_ID = 1
_SPECIAL = {"<pad>": PAD_ID, "<eos>": EOS_ID}


def make_tokenizer(kind: str, alphabet: str | None = None) -> "PreTrainedTokenizerFast":
    """The tokenizer of a config: `characters`, over a task's alphabet, or `bytes`.

    Raises:
      ValueError: the kind is unknown, or the task has no alphabet for a character tokenizer.
    """
    if kind == "bytes":
        return byte_tokenizer()
    if kind == "characters":
        if alphabet is None:
            raise ValueError("tokenizer 'characters' needs a task with an alphabet, this one has none: use 'bytes'")
        return character_tokenizer(alphabet)
    raise ValueError(f"unknown tokenizer {kind!r}; choose one of: bytes, characters")


def character_tokenizer(alphabet: str) -> "PreTrainedTokenizerFast":
    """One token per character of `alphabet`: the n-th character, from 0, has id n + 2.

    Raises:
      ValueError: the alphabet is empty or holds a character twice.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    repeated = sorted({character for character in alphabet if alphabet.count(character) > 1})
    if not alphabet or repeated:
        raise ValueError(f"an alphabet needs different characters, at least one; {alphabet!r} repeats {repeated}")
    vocabulary = _SPECIAL | {character: index for index, character in enumerate(alphabet, start=len(_SPECIAL))}
    # No unknown token: a character outside the alphabet is an error, not an id that stands for something else.
    backend = Tokenizer(models.WordLevel(vocabulary))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return _fast_tokenizer(backend)


def byte_tokenizer() -> "PreTrainedTokenizerFast":
    """One token per byte of the UTF-8 text: byte b has id b + 2. Any text survives the round trip unchanged.

    Ids that form no valid UTF-8 decode to U+FFFD, the replacement character.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    # GPT-2's printable stand-ins, which the byte-level pre-tokenizer and decoder speak: printable Latin-1 bytes stand
    # for themselves, the others in order for the characters from 256 on.
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


def decode(tokenizer: "PreTrainedTokenizerFast", ids_batch: Sequence[Sequence[int]]) -> list[str]:
    """The texts of a batch of id sequences (lists or integer arrays).

    Left out are the special tokens, such as pad and eos, and ids beyond the tokenizer's vocabulary, which a policy has
    if its embedding is padded to a round size.
    """
    rows = [row.tolist() if hasattr(row, "tolist") else list(row) for row in ids_batch]
    return tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=True)


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
            except Exception:
                tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
                alphabet = "".join(token for token, _ in tokens if len(token) == 1)
                return f"no token for {where}; the alphabet is {alphabet!r}"
    return f"the tokenizer could not encode {texts!r}"


def _fast_tokenizer(backend: "Tokenizer") -> "PreTrainedTokenizerFast":
    with _no_warning_about_pytorch():
        from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
    )


@contextlib.contextmanager
def _no_warning_about_pytorch() -> Iterator[None]:
    """Keeps transformers, when it is imported, from warning that it can't find PyTorch, which nothing here uses."""

    def other(record: logging.LogRecord) -> bool:
        return "PyTorch was not found" not in record.getMessage()

    logger = logging.getLogger("transformers")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)
