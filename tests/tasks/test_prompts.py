"""Prompts are what the chat template renders, to the letter; bad templates are refused before any long work."""

import dataclasses

import pytest

from rlvr_jax.tasks import make_task, modsum, rendered, shots_of
from rlvr_jax.text.prompts import R1_ZERO, renderer
from rlvr_jax.text.tags import opens_thinking
from rlvr_jax.text.tokenizers import byte_tokenizer, encode

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# In the manner of Qwen3: thinking switched off is an empty thought.
SWITCH = TEMPLATE + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE


def tokenizer(template: str | None):
    made = byte_tokenizer()
    made.chat_template = template
    return made


def test_a_chat_prompt_is_the_rendering_of_the_tokenizer_itself():
    made = tokenizer(TEMPLATE)
    prompt = renderer(made, "chat", R1_ZERO, system="Be brief.")("Wie groß ist 雪? {x} {{ y }}")
    assert prompt == "<|system|>Be brief.\n<|user|>Wie groß ist 雪? {x} {{ y }}\n<|assistant|>"
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Wie groß ist 雪? {x} {{ y }}"},
    ]
    ids = made.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert encode(made, prompt) == ids


@pytest.mark.parametrize(
    ("template", "thinking", "end"),
    [
        (SWITCH, "default", "<|assistant|>"),
        (SWITCH, "on", "<|assistant|>"),
        (SWITCH, "off", "<|assistant|><think>\n\n</think>\n\n"),
        (TEMPLATE, "default", "<|assistant|>"),
        (TEMPLATE, "on", "<|assistant|><think>\n"),
        (TEMPLATE, "off", "<|assistant|>"),
        (TEMPLATE + "{{ '<think>\\n' }}", "on", "<|assistant|><think>\n"),
        (None, "on", "Assistant:<think>\n"),
        (None, "off", "Assistant:"),
    ],
)
def test_thinking_is_told_to_templates_that_know_it_and_opened_for_others(template, thinking, end):
    prompt = renderer(tokenizer(template), "chat", R1_ZERO, thinking=thinking)("1 + 1 = ?")
    assert prompt.endswith(end)
    assert prompt.count("<think>\n") <= 1
    assert opens_thinking(prompt) == end.endswith("<think>\n")


def test_a_model_without_a_chat_template_gets_the_plain_one():
    problem = "What is {system} {prompt}?"
    prompt = renderer(tokenizer(None), "chat", "{system}Q: {prompt}\nA:", system="Be brief.")(problem)
    assert prompt == f"Be brief.\nQ: {problem}\nA:"
    assert renderer(tokenizer(TEMPLATE), "template", "Q: {prompt}\nA:")("2?") == "Q: 2?\nA:"
    assert renderer(tokenizer(None), "chat", R1_ZERO)("2?").startswith("A conversation between User and Assistant.")


def test_plain_prompts_are_the_problem_alone():
    assert renderer(tokenizer(TEMPLATE), "plain", R1_ZERO)("{prompt} 2?") == "{prompt} 2?"


@pytest.mark.parametrize(
    ("template", "kind", "system", "message"),
    [
        (NO_SYSTEM, "chat", "s", "can't be rendered with a system prompt: .*no system role.*'template' does without"),
        ("{{ messages[7].content }}", "chat", "", "the chat template of the tokenizer can't be rendered: "),
        (TEMPLATE, "plain", "s", "a system prompt needs prompt format 'chat' or 'template', it is 'plain'"),
        (None, "template", "s", "{system}"),
    ],
)
def test_what_cannot_be_rendered_is_refused_before_any_problem_is(template, kind, system, message):
    with pytest.raises(ValueError, match=message):
        renderer(tokenizer(template), kind, "Q: {prompt}", system=system)


def test_a_rendered_task_has_its_label_and_prompts_and_the_same_demonstrations():
    plain = modsum(digits=3)
    render = renderer(tokenizer(TEMPLATE), "chat", R1_ZERO)
    task = rendered(plain, "sums", lambda example: render(example.prompt))
    example, before = task.example("heldout", 3), plain.example("heldout", 3)
    assert (task.name, example.id, example.task) == ("sums", "sums/heldout/3", "sums")
    assert example.prompt == f"<|user|>{before.prompt}\n<|assistant|>"
    assert example.reference == before.reference
    same = dataclasses.replace(example, id=before.id)
    assert task.demonstration(same, 0) == plain.demonstration(before, 0)


SHOTS = [("2 + 2?\n", "#4"), ("3 {prompt}?", "#{system}")]


def test_shots_are_earlier_turns_of_the_chat():
    prompt = renderer(tokenizer(TEMPLATE), "chat", R1_ZERO, system="Be brief.", shots=SHOTS)("5?\n")
    turns = "<|user|>2 + 2?\n<|assistant|>#4\n<|user|>3 {prompt}?\n<|assistant|>#{system}\n"
    assert prompt == f"<|system|>Be brief.\n{turns}<|user|>5?\n<|assistant|>"


def test_shots_of_a_model_without_a_chat_template_are_text_under_one_system_prompt():
    prompt = renderer(tokenizer(None), "chat", "{system}Q: {prompt}\nA:", system="Be brief.", shots=SHOTS)("5?")
    assert prompt == "Be brief.\nQ: 2 + 2?\nA: #4\n\nQ: 3 {prompt}?\nA: #{system}\n\nQ: 5?\nA:"
    assert renderer(tokenizer(None), "plain", "", shots=[("2 + 2?\n", "#4")])("5?\n") == "2 + 2?\n#4\n\n5?\n"


def test_shots_are_solved_training_problems_and_refused_where_there_are_none():
    task = make_task("sums", {"digits": 2})
    for index, (problem, answer) in enumerate(shots_of(task, 2)):
        example = task.example("train", index)
        assert problem == example.prompt
        assert answer.endswith(f"#### {example.reference}")
    assert shots_of(make_task("sentences"), 0) == []
    with pytest.raises(ValueError, match=r"shots = 1, .*'sentences' has no demonstrations"):
        shots_of(make_task("sentences"), 1)
