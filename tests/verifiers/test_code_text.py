"""The program in a completion."""

import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.verifiers import verify
from rlvr_jax.verifiers.code_text import completed, program_of
from tests.verifiers.test_code import ADD, PROMPT, RIGHT


@pytest.mark.parametrize("text", ["def add(a, b:\n", "I would add them.", "def add(a, b):\nreturn 1", "x = '\0'", " "])
def test_what_is_not_python_has_no_format(text):
    stdio = {"type": "stdio", "cases": [{"stdin": "", "stdout": "3"}]}
    for reference in (ADD, stdio) if text != "x = '\0'" else ():
        verdict = verify("code", text, reference)
        assert (verdict.score, verdict.parts) == (0.0, dict.fromkeys(("passed", "format", "runs", "stage"), 0.0)), (
            verdict.reason
        )


FENCED = "```python\n" + RIGHT + "```"


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        (RIGHT, RIGHT),
        (f"Here:\n\n{FENCED}\n\nIt adds.", RIGHT),
        (f"```python\nx = 1\n```\nBetter:\n{FENCED}", RIGHT),
        (f"{FENCED}\nRun it:\n```bash\npython add.py\n```\n", RIGHT),
        (f"{FENCED}\nOutput:\n```\n3\n```\n", RIGHT),
        (f"```\n{RIGHT}```", RIGHT),
        (f"~~~py\n{RIGHT}~~~", RIGHT),
        (f"````Python3 title=add\n{RIGHT}````", RIGHT),
        (f"```python\n{RIGHT}", RIGHT + "\n"),  # cut off
        ("```python\ns = '''\n~~~\n'''\n```", "s = '''\n~~~\n'''\n"),
        ("```bash\nls\n```", ""),
        ("```python\n```", ""),
        (" \n", ""),
        (f"```python\r\n{RIGHT}```", RIGHT),
        (f"1. Add:\n\n   ```python\n{textwrap.indent(RIGHT, '   ')}   ```\n2. Done.", RIGHT),
        (f"- Add:\n    ```py\n{textwrap.indent(RIGHT, '    ')}    ```", RIGHT),
        (f"10) a\n    - b\n\n      ~~~python\n{textwrap.indent(RIGHT, '      ')}      ~~~\n", RIGHT),
        (f"> Add:\n> ```python\n{textwrap.indent(RIGHT, '> ')}> ```\nThat is all.", RIGHT),
        (f"> - > ```python\n{textwrap.indent(RIGHT, '>   > ')}", RIGHT),
        (f"- Add:\n  ```python\n{RIGHT}  ```", RIGHT.replace("    ", "  ")),
        (f"    ```python\n{textwrap.indent(RIGHT, '    ')}    ```", RIGHT),
        (f"<answer>\n```python\n{RIGHT}```\n</answer>", RIGHT),
        (f"<div>\n- x\n</div>\n{FENCED}", RIGHT),
        (f"- ```python\n  x = 1\n  ```\n{FENCED}\n- ```\n  3\n  ```", RIGHT),
        (f"{FENCED}\n```python\n```", RIGHT),
        (f"* ```\n{textwrap.indent(RIGHT, '  ')}  ```", RIGHT),
        (
            '```python\ndef f():\n    """\n    ```\n    f()\n    ```\n    """\n```',
            'def f():\n    """\n    ```\n    f()\n    ```\n    """',
        ),
    ],
)
def test_the_program_is_the_last_python_block(completion, program):
    assert program_of(completion).rstrip("\n") == program.rstrip("\n")


@settings(max_examples=200)
@given(st.text(st.sampled_from("`~ \nabpython"), max_size=60))
def test_finding_the_program_never_fails(text):
    assert program_of(text) in (*[text[i:] for i in range(len(text) + 1)], program_of(text))
    assert len(program_of(text)) <= len(text)


@pytest.mark.parametrize(
    "text",
    [
        "    return [helper(n)]\n",
        "\n    m = helper(n)\n    return [m]\n",
        "return [helper(n)]",
        "m = helper(n)\n    return [m]\n",
        "m = helper(n)\nif n:\n    return [m]\n",
        "for m in [helper(n)]:\n    return [m]\n",
        "    return [inner(n)]\n\n\ndef inner(n):\n    return helper(n)\n",
        PROMPT + "    return [helper(n)]\n",
        "def up(n: int) -> List[int]:\n    return [helper(n)]\n",
        "import math\n\n\ndef up(n):\n    return [math.floor(helper(n))]\n",
        "up = lambda n: [helper(n)]\n",
        "```python\ndef up(n):\n    return [helper(n)]\n```",
        "```python\n    return [helper(n)]\n```",
    ],
)
def test_a_humaneval_completion_is_the_body_or_the_whole_function(text):
    check = "def check(candidate):\n    assert candidate(1) == [2]\n    assert candidate(-1) == [0]\n"
    reference = {"type": "humaneval", "prompt": PROMPT, "entry_point": "up", "test": check}
    assert verify("code", text, reference).reason == "2 of 2 tests pass"
    assert "def helper" in completed(PROMPT, "up", program_of(text))
