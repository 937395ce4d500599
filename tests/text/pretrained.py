"""Small tokenizers of the kinds that pretrained models have."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|eot|>"]
BOS, EOS, EOT = 1, 2, 5
WRITES_ITS_OWN = (
    "<s>{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %} <|eot|>{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer(kind: str, begins: str = "<s>", ends: str = "", template: str | None = None):
    """Bytes, or words behind marks of a space as SentencePiece has them, with what it adds to a text."""
    if kind == "bytes":
        vocabulary = {token: i for i, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
        backend = Tokenizer(models.BPE(vocabulary, []))
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    else:
        pieces = [*SPECIAL, *"▁0123456789+=?:\n", *map(chr, range(ord("A"), ord("z") + 1))]
        backend = Tokenizer(models.BPE({token: i for i, token in enumerate(pieces)}, []))
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind)
        backend.decoder = decoders.Metaspace(prepend_scheme=kind)
    backend.add_special_tokens(SPECIAL)
    if begins or ends:
        ids = [(token, SPECIAL.index(token)) for token in ("<s>", "</s>")]
        backend.post_processor = processors.TemplateProcessing(f"{begins} $A {ends}".strip(), special_tokens=ids)
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    made.chat_template = template
    return made
