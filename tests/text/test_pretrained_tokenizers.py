"""Tokenizers of pretrained models: what they put before a text, what ends a response, what is wrong with a folder."""

import json

import pytest

from rlvr_jax.text.prompts import continuation, end_of_turn, renderer
from rlvr_jax.text.tokenizers import encode, pretrained_tokenizer, stop_tokens, text_start
from tests.text.pretrained import BOS, EOS, EOT, WRITES_ITS_OWN, tokenizer

DATED = (
    "{% if strftime_now is defined %}{{ strftime_now('%d %B %Y') }}{% endif %} "
    '{%- macro day() %}{{ strftime_now( "%j" ) }}{% endmacro %} ({{ day() }}): {{ messages[0].content }}'
)

# As in Gemma's: no role for the system prompt, which begins the first turn, and turns that must alternate.
ALTERNATING = (
    "{{ bos_token }}{% set system = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}"
    "{% for m in (messages[1:] if system else messages) %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ system if loop.first else '' }}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


@pytest.mark.parametrize("kind", ["bytes", "first", "always", "never"])
@pytest.mark.parametrize("ends", ["", "</s>"])
@pytest.mark.parametrize(
    ("prompt", "template"), [("plain", ""), ("template", "Q: {prompt}\nA:"), ("chat", "Q: {prompt}\nA:")]
)
def test_a_prompt_begins_as_the_texts_that_the_model_was_trained_on(kind, ends, prompt, template):
    made = tokenizer(kind, ends=ends)
    text = "Sum 4+5?" if prompt == "plain" else "Q: Sum 4+5?\nA:"
    wanted = made(text)["input_ids"]
    assert encode(made, renderer(made, prompt, template)("Sum 4+5?")) == (wanted[:-1] if ends else wanted)
    assert wanted[0] == BOS


@pytest.mark.parametrize("kind", ["bytes", "first"])
@pytest.mark.parametrize("prompt", ["plain", "template", "chat"])
def test_a_tokenizer_that_puts_nothing_before_a_text_gets_no_more(kind, prompt):
    made = tokenizer(kind, begins="")
    assert text_start(made) == ""
    assert renderer(made, prompt, "Q: {prompt}")("4+5?") == ("4+5?" if prompt == "plain" else "Q: 4+5?")


def test_a_template_that_writes_the_beginning_gets_no_second():
    made = tokenizer("bytes", template=WRITES_ITS_OWN)
    messages = [{"role": "user", "content": "2+2?"}]
    ids = encode(made, renderer(made, "chat", "")("2+2?"))
    assert ids == made.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids.count(BOS) == 1
    assert encode(made, renderer(made, "template", "<s>Q: {prompt}")("2+2?")).count(BOS) == 1
    without = tokenizer("bytes", template=WRITES_ITS_OWN.removeprefix("<s>"))
    assert BOS not in encode(without, renderer(without, "chat", "")("2+2?"))


def test_a_beginning_that_no_text_encodes_to_is_refused():
    made = tokenizer("bytes")
    made.backend_tokenizer.encode_special_tokens = True
    with pytest.raises(ValueError, match="'<s>'"):
        renderer(made, "plain", "")


def test_a_template_without_a_role_for_the_system_prompt_has_it_in_the_first_turn():
    made = tokenizer("bytes", template=ALTERNATING)
    made.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    prompt = renderer(made, "chat", "", system="Be brief.", shots=[("1+1?", "2")])("2+2?")
    assert prompt == (
        "<s><start_of_turn>user\nBe brief.\n\n1+1?<end_of_turn>\n<start_of_turn>model\n2<end_of_turn>\n"
        "<start_of_turn>user\n2+2?<end_of_turn>\n<start_of_turn>model\n"
    )
    end = made.convert_tokens_to_ids("<end_of_turn>")
    assert (encode(made, prompt).count(BOS), encode(made, prompt).count(end), end_of_turn(made)) == (1, 3, end)
    follows = encode(made, "\n<start_of_turn>user\nWrong.<end_of_turn>\n<start_of_turn>model\n")
    assert continuation(made, "chat")("Wrong.", end) == follows
    assert continuation(made, "chat")("Wrong.", EOS) == [end, *follows]
    twice = ({"role": "user", "content": "a"}, {"role": "user", "content": "b"})
    with pytest.raises(ValueError, match="roles must alternate"):
        renderer(made, "chat", "")(twice)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (WRITES_ITS_OWN, EOT),
        (WRITES_ITS_OWN.replace(" <|eot|>", "</s>"), EOS),
        (WRITES_ITS_OWN.replace(" <|eot|>", " END"), None),
        ("{{ messages[0].content }}", None),
        (None, None),
    ],
)
def test_the_token_that_ends_a_turn_is_read_off_the_template(template, expected):
    made = tokenizer("bytes", template=template)
    assert end_of_turn(made) == expected
    assert stop_tokens(made, (expected, 9)) == tuple(sorted({EOS, 9, expected or EOS}))


def test_a_template_that_asks_for_the_day_is_told_the_runs():
    made = tokenizer("bytes", template=DATED)
    assert renderer(made, "chat", "", date="2031-12-04")("Hi") == "04 December 2031 (338): Hi"
    assert renderer(made, "chat", "")("Hi") == renderer(made, "chat", "")("Hi") == "01 January 2025 (001): Hi"


def test_a_day_that_cant_be_fixed_is_refused():
    made = tokenizer("bytes", template="{% set f = '%d' %}{{ strftime_now(f) }}")
    with pytest.raises(ValueError, match="it asks for today's date in a form that is computed"):
        renderer(made, "chat", "")


def test_what_is_wrong_with_the_tokenizer_of_a_folder_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"has no tokenizer \(none of tokenizer\.json"):
        pretrained_tokenizer(tmp_path)
    tokenizer("bytes").save_pretrained(tmp_path)
    assert encode(pretrained_tokenizer(str(tmp_path)), "</s>") == [EOS]
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=f"the tokenizer in {tmp_path} can't be read"):
        pretrained_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=f"{tmp_path}"):
        pretrained_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(ValueError, match=f"{tmp_path}"):
        pretrained_tokenizer(tmp_path)
