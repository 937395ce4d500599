import re
import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_jax.verifiers import VERIFIERS, guarded, verify
from rlvr_jax.verifiers.verdict import Verdict
from tests.verifiers import misbehaving
from tests.verifiers.hostile import HOSTILE

RIGHT = {
    "modsum": ("44261#1", "1"),
    "countdown": ("44+19", {"numbers": [19, 44], "target": 63}),
    "gsm8k": ("so\n#### 1,080", "1080"),
    "math": (r"so it is $\boxed{0.5}$", r"\frac{1}{2}"),
    "constraints": (
        "<<Ode>> That is all.",
        {
            "prompt": "Write an ode.",
            "instruction_id_list": ["detectable_format:title", "startend:end_checker"],
            "kwargs": [{}, {"end_phrase": "That is all."}],
        },
    ),
    "code": (
        "```python\ndef double(n):\n    return 2 * n\n```",
        {"type": "function", "entry_point": "double", "cases": [{"args": [4], "expected": 8}]},
    ),
    "cryptarithm": ("A=1, B=2, C=3", {"equation": "A + B = C"}),
    "reasoning_gym": (
        "<answer>214</answer>",
        {"dataset": "chain_sum", "settings": {"seed": 0, "size": 10}, "index": 3},
    ),
    "programs": ("x+4", {"visible": [1, 4, 7], "outputs": list(range(4, 14))}),
    "arc": ("<answer>0 1\n2 0</answer>", [[[0, 1], [2, 0]]]),
    "tic_tac_toe": ("second 132659", {"position": "........."}),
    "nim": ("first 131", {"position": "05"}),
    "grid_world": ("n\nx\ne\ns", {"size": 3, "start": [2, 0], "goal": [1, 1], "walls": [[2, 1]]}),
    "key_value": ("#je", {"world": "2/train/0", "start": "df", "answer": "je"}),
    "bfcl": (
        "[area(base=10, unit='cm')]",
        {
            "function": "area",
            "parameters": {
                "properties": {"base": {"type": "integer"}, "unit": {"type": "string"}},
                "required": ["base"],
            },
            "allowed": {"base": [10], "unit": ["cm", ""]},
        },
    ),
    "papers": ("<answer>C16-1130, Q16-1037</answer>", {"papers": ["Q16-1037", "C16-1130"]}),
}

# A program may compute for seconds; these tests need not wait for that.
OPTIONS = {"code": {"cpu_seconds": 1}}


def test_every_kind_is_listed_and_judges_a_right_completion():
    assert set(VERIFIERS) == {*RIGHT, "judge"}
    for kind, (completion, reference) in RIGHT.items():
        assert verify(kind, completion, reference).score == 1.0
        assert verify(kind, completion.encode(), reference) == verify(kind, completion, reference)
        assert verify(kind, "no", reference).score == 0.0


@pytest.mark.parametrize(
    ("form", "score"),
    [
        ("<think>{}", 0),
        ("<think>{}</think>", 0),
        ("<think>{}</think>no", 0),
        ("{}</think>", 0),
        ("{}</think>no", 0),
        ("{}<think>", 0),
        ("<think>no</think>{}<think>", 0),
        ("<think>no</think>{}", 1),
        ("no</think>{}", 1),
        ("<think>no</think>no</think>{}", 1),
    ],
)
def test_what_stands_in_a_thought_is_no_answer_to_any_kind(form, score):
    for kind, (completion, reference) in RIGHT.items():
        verdict = verify(kind, form.format(completion), reference, **OPTIONS.get(kind, {}))
        assert (kind, verdict.score, verdict.error) == (kind, score, None)


def test_what_is_left_to_a_judge_is_unjudged_until_it_has_answered():
    assert "'helpful'" in verify("judge", "a poem", None, judge="helpful").error


def test_a_thought_without_end_scores_0_whatever_the_verifier_likes_and_keeps_the_parts():
    verdict = guarded(lambda text, _: Verdict(1.0, {"short": float(len(text) < 5)}), "<think>well", None, {})
    assert (verdict.score, dict(verdict.parts), verdict.answer) == (0.0, {"short": 1.0}, None)
    assert guarded(lambda text, _: Verdict(1.0, answer=text), "<think>well</think>so", None, {}).answer == "so"


def test_an_unknown_kind_is_refused_with_the_list_of_kinds():
    with pytest.raises(ValueError, match="no verifier 'maths'; the kinds are modsum, countdown, gsm8k"):
        verify("maths", "1", "1")


@pytest.mark.parametrize("kind", RIGHT)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_completions_score_zero_without_an_error(kind, name):
    verdict = verify(kind, HOSTILE[name], RIGHT[kind][1], **OPTIONS.get(kind, {}))
    assert (verdict.score, verdict.error) == (0.0, None)


ANYTHING = st.text(st.characters(exclude_categories=["Cs", "No"]))  # of the latter "½" is a right answer


@pytest.mark.parametrize("kind", RIGHT)
@given(completion=st.one_of(ANYTHING, st.binary(), st.text(st.characters(categories=["Cs", "Nd", "Po"]))))
def test_random_completions_never_fail_and_never_score(kind, completion):
    verdict = verify(kind, completion, RIGHT[kind][1])
    assert (verdict.score, verdict.error) == (0.0, None)


@pytest.mark.parametrize("completion", [None, 1, ["#1"], {}])
def test_a_completion_that_is_not_text_gets_an_error_verdict(completion):
    verdict = verify("modsum", completion, "1")
    assert verdict == Verdict(0.0, error=f"TypeError: the completion is {type(completion).__name__}, not str")


def test_a_bad_reference_or_option_gets_an_error_verdict():
    assert "ValueError: the reference of a modsum example" in verify("modsum", "#1", 1).error
    assert "ValueError: the reference of a countdown example" in verify("countdown", "1", "1").error
    assert "ValueError: the reference of a gsm8k example" in verify("gsm8k", "#### 1", "one").error
    assert "TypeError" in verify("modsum", "#1", "1", tolerance=3).error


@pytest.mark.parametrize(
    ("verifier", "error"),
    [
        (misbehaving.raises, "KeyError: 'what a pity'"),
        (misbehaving.raises_unprintable, "Unprintable"),
        (misbehaving.exits, "SystemExit: good bye"),
    ],
)
def test_what_a_verifier_raises_is_the_error_of_the_verdict_with_its_place(verifier, error):
    line = verifier.__code__.co_firstlineno + 1
    assert guarded(verifier, "x", None, {}) == Verdict(0.0, error=f"{error} ({misbehaving.__file__}, line {line})")


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("none", "TypeError: the verifier returned NoneType, not a number, a bool, a dictionary"),
        ("nan", "ValueError: the verifier gave score nan"),
        ("above", "ValueError: the verifier gave score 1.5"),
        ("below", "ValueError: the verifier gave score -0.1"),
        ("text", "TypeError: the verifier gave a score of type str"),
        ("no parts", "AttributeError"),
        ("nan part", "ValueError: the verifier gave part 'a' = inf"),
        ("nameless part", "ValueError: the verifier gave part 1 = 1.0"),
        ("answer", "TypeError: the verifier gave answer of type object"),
        ("reason", "TypeError: the verifier gave reason of type NoneType"),
        ("no such case", "KeyError"),
    ],
)
def test_what_a_verifier_wrongly_returns_is_the_error_of_the_verdict(what, error):
    verdict = guarded(misbehaving.returns_what_it_is_told, what, None, {})
    assert verdict.score == 0.0
    assert verdict.error.startswith(error)


@pytest.mark.parametrize(
    ("returned", "verdict"),
    [
        (True, Verdict(1.0)),
        (0, Verdict(0.0)),
        (0.25, Verdict(0.25)),
        (Fraction(1, 2), Verdict(0.5)),
        ({"score": 1}, Verdict(1.0)),
        ({"short": True, "score": 0.5}, Verdict(0.5, {"short": 1.0})),
        (Verdict(1.0, answer="x"), Verdict(1.0, answer="x")),
    ],
)
def test_a_verifier_may_return_a_number_a_bool_a_dictionary_of_parts_or_a_verdict(returned, verdict):
    assert guarded(lambda *_: returned, "x", None, {}) == verdict


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        ("1.0", "TypeError: the verifier returned str, not a number"),
        ([1.0], "TypeError: the verifier returned list"),
        (1j, "TypeError: the verifier returned complex"),
        ({"short": 1.0}, "TypeError: the verifier returned a dictionary without 'score'"),
        ({"score": 2}, "ValueError: the verifier gave score 2.0, which is not from 0 to 1"),
        ({"score": "1"}, "TypeError: the verifier gave a score of type str, not a number"),
        ({"score": 1, "short": None}, "TypeError: the verifier gave part 'short' of type NoneType"),
        ({"score": 1, "": 0.5}, "ValueError: the verifier gave part '' = 0.5; parts are .* names"),
        ({"score": 1, "\ud800": 0.5}, r"ValueError: the verifier gave part '\\ud800' = 0.5"),
        ({"score": 1, "a\nb": 0.5}, r"ValueError: the verifier gave part 'a\\nb'"),
        ({"score": 1, "x" * 101: 0.5}, "ValueError: the verifier gave part 'xxx"),
        ({"score": 1, **{f"part {i}": 0.5 for i in range(300)}}, "ValueError: the verifier gave 300 parts"),
        (-1, "ValueError: the verifier gave score -1.0"),
    ],
)
def test_other_returned_values_are_the_error_of_the_verdict(returned, error):
    verdict = guarded(lambda *_: returned, "x", None, {})
    assert re.match(error, verdict.error)


def test_a_kind_may_be_the_name_of_a_function():
    name = "tests.verifiers.misbehaving:hangs_when_told"
    assert verify(name, "<think>so</think>yes", None) == Verdict(1.0, answer="yes")
    assert verify(name, "<think>yes", None).score == 0.0
    with pytest.raises(ValueError, match="has no 'nothing'"):
        verify("tests.verifiers.misbehaving:nothing", "", None)


def test_a_verdict_with_an_error_never_scores():
    verdict = guarded(lambda *_: Verdict(1.0, error="not sure"), "x", None, {})
    assert (verdict.score, verdict.error) == (0.0, "not sure")


def test_the_package_imports_without_jax():
    code = (
        "import sys, rlvr_jax.verifiers.worker, rlvr_jax.verifiers.pool\n"
        "print(*{'jax', 'jaxlib', 'flax', 'numpy', 'transformers'} & {name.split('.')[0] for name in sys.modules})"
    )
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert imported.strip() == ""
