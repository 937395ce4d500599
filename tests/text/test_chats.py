"""The trained turns of a chat, for templates of several kinds."""

import re

import pytest

from rlvr_jax.text.chats import pieces
from rlvr_jax.text.prompts import end_of_turn
from tests.text.pretrained import EOT, tokenizer

# Tools in a system prompt, calls as JSON, and like Qwen's no thoughts in turns before the last question.
CHATML = (
    "{% if tools %}<|user|>tools: {{ tools | tojson }}<|eot|>\n{% endif %}"
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}"
    "<|{{ 'assistant' if m.role == 'assistant' else 'user' }}|>"
    "{{ '' if m.role in ('user', 'assistant') else m.role }}\n"
    "{% if m.role == 'assistant' and loop.index0 < ns.last %}{{ m.content.split('</think>')[-1] | trim }}"
    "{% else %}{{ m.content | trim }}{% endif %}"
    "{% for call in m.tool_calls or [] %}[{{ call | tojson }}]{% endfor %}<|eot|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
COUNTS = "{{ messages | length }}{% for m in messages %}{{ m.content }}<|eot|>{% endfor %}"
NO_END = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def chat(*contents: str, system: str = ""):
    roles = ("user", "assistant") * len(contents)
    messages = tuple({"role": role, "content": x} for role, x in zip(roles, contents, strict=False))
    return (({"role": "system", "content": system},) if system else ()) + messages


def trained(messages, template=CHATML, **options):
    made = tokenizer("bytes", template=template)
    found = pieces(made, messages, EOT, **options)
    whole = made.apply_chat_template(
        list(messages), tokenize=False, **({"tools": options["tools"]} if "tools" in options else {})
    )
    assert whole.startswith("".join(text for text, _ in found))
    assert end_of_turn(made) == EOT
    return [text for text, learn in found if learn]


def test_every_turn_of_the_assistant_is_trained_with_its_end_and_without_what_follows():
    messages = chat("1+1?", "2", "2+2?", " 4 ", system="be brief")
    assert trained(messages) == ["2<|eot|>", "4<|eot|>"]
    assert trained(messages, last_only=True) == ["4<|eot|>"]


def test_tool_calls_are_trained_and_results_are_not():
    call = {"name": "add", "arguments": {"a": 1}}
    messages = (
        {"role": "user", "content": "sum?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "It is 3"},
    )
    first, second = trained(messages, tools=[{"name": "add"}])
    assert first == '[{"name": "add", "arguments": {"a": 1}}]<|eot|>'
    assert second == "It is 3<|eot|>"


def test_other_roles_are_trained_with_all_that_their_message_adds():
    found = trained(chat("ab", "c"), roles=("user", "assistant"))
    assert found == ["<|user|>\nab<|eot|>\n", "c<|eot|>"]


def test_the_last_turn_may_think_and_earlier_thoughts_are_refused_by_name():
    thoughts = chat("1+1?", "<think>so</think>2", "2+2?", "<think>hm</think>4")
    assert trained(thoughts, last_only=True) == ["<think>hm</think>4<|eot|>"]
    with pytest.raises(ValueError, match=r"sft\.turns='last'"):
        trained(thoughts)


@pytest.mark.parametrize(
    ("messages", "template", "named"),
    [
        (chat("a", "b<|eot|>c"), CHATML, "<|eot|>"),
        (chat("a", "b"), NO_END, "<|eot|>"),
        (chat("a", "b")[1:], CHATML, "begin with the assistant"),
        (chat("a", "b"), "{{ raise_exception('no role') }}", "no role"),
        (chat("a", "b", "c", "d"), COUNTS, "turns"),
    ],
)  # fmt: skip
def test_chats_that_can_not_be_located_are_named(messages, template, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        pieces(tokenizer("bytes", template=template), messages, EOT)
