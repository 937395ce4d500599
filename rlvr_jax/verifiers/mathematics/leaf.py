r"""Equality of the leaves of two answers: formulas with their units, percent signs and bases, and words.

An answer may leave out what the reference says beyond the value (a unit, the base), since the question then asked for
it. It may add a unit, but not a base, which changes the value. Percent signs: see `rlvr_jax.verifiers.percent`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rlvr_jax.verifiers import percent
from rlvr_jax.verifiers.mathematics import expression, numeric
from rlvr_jax.verifiers.mathematics.expression import UndefinedError, UnsupportedError
from rlvr_jax.verifiers.mathematics.forms import Answer, Formula, Words
from rlvr_jax.verifiers.mathematics.latex import compact


@dataclass(frozen=True)
class Rules:
    """The options that leaves are compared by.

    Attributes:
      symbolic: whether two formulas in LaTeX (reference, answer) are equal, for what `numeric` cannot express.
      percent: one of `percent.CONVENTIONS`.
    """

    symbolic: Callable[[str, str], bool]
    percent: str = percent.DEFAULT


MIN_SIGNIFICANT = 6  # digits of a decimal that is taken for a number with more digits, rounded
OPERATORS = re.compile(
    r"\\(?:i+nt|oint|sum|prod|lim|bmod|pmod|mod|gcd|det|max|min)(?![a-zA-Z])|\\begin|\\cap|\\setminus"
)
# What `expression` does not know and computer algebra does; all else that it does not know equals only itself.
_FOR_SYMBOLIC = re.compile(OPERATORS.pattern + r"|(?<![a-zA-Z\\])[fgh]\s*\(")
_DECIMAL = re.compile(r"-?\s*\d*\.\d+")
_OPTION = re.compile(r"\(?([A-J])\)?[.)]?")
_WORD_OR_NUMBER = re.compile(r"(?:(?<!\w)-\s?)?\d+(?:[.,:/]\d+)*|[^\W_]+")
_APART = re.compile(r"\d\.? +\.?\d")
_UNITS: Mapping[str, str] = {
    alias: unit
    for unit, aliases in {
        "m": "meter metre",
        "cm": "centimeter centimetre",
        "mm": "millimeter millimetre",
        "km": "kilometer kilometre",
        "in": "inch inches",
        "ft": "foot feet",
        "yd": "yard",
        "mi": "mile",
        "g": "gram",
        "kg": "kilogram",
        "mg": "milligram",
        "lb": "lbs pound",
        "oz": "ounce",
        "s": "sec second",
        "min": "minute",
        "h": "hr hour",
        "day": "",
        "week": "",
        "month": "",
        "year": "yr",
        "L": "liter litre",
        "mL": "ml milliliter millilitre",
        "°": "degree deg degrees",
        "rad": "radian radians",
        "dollar": "",
        "cent": "",
        "euro": "",
        "mi h": "mph",
        "km h": "kph",
    }.items()
    for alias in (unit, *aliases.split(), *(name + "s" for name in (unit, *aliases.split()) if len(name) > 2))
}
_NUMBER_WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]


def same_formula(reference: Formula, answer: Formula, rules: Rules) -> bool:
    """True if the two formulas are equal in base, unit and value."""
    if reference.base or answer.base:
        if answer.base not in (None, reference.base) and (answer.base, reference.base) != ("10", None):
            return False
        return reference.text.lstrip("0") == answer.text.lower().lstrip("0")
    if _conflict(reference.unit, answer.unit):
        return False
    if reference.percent == answer.percent:
        return same_value(reference.text, answer.text, rules)
    share = answer.percent and _is_share(reference.text)
    return any(
        same_value(reference.text, answer.text if factor == 1 else f"({answer.text})*({factor})", rules)
        for factor in percent.factors(reference.percent, answer.percent, rules.percent, share)
    )


def _is_share(text: str) -> bool:
    try:
        return bool(abs(numeric.value(expression.parse(text))) <= 1)
    except ValueError:
        return False


def _conflict(reference: str, answer: str) -> bool:
    """True if two units are both known and not the same. Unknown ones, as in `5 boxes`, are taken for words."""
    left, right = _unit(reference), _unit(answer)
    return bool(left) and bool(right) and left != right


def _unit(text: str) -> str:
    """The one way to write a unit, or `""` if it is not known: `square meters` → `m 2`."""
    words = [word for word in re.findall(r"[^\W\d_]+|°|\d", text) if word != "per"]
    power = {"square": "2", "sq": "2", "squared": "2", "cubic": "3", "cu": "3"}
    names = [_UNITS.get(word, _UNITS.get(word.lower(), word.lower())) for word in words if word not in power]
    known = bool(names) and names[0] in _UNITS
    return " ".join([*names, *(power[word] for word in words if word in power)]) if known else ""


def latex(text: str) -> str:
    """Without the spaces after commands where LaTeX needs none, which not every parser expects."""
    return re.sub(r"(\\[a-zA-Z]+) +(?![a-zA-Z])", r"\1", text).replace("*", r"\cdot ")


def same_value(reference: str, answer: str, rules: Rules) -> bool:
    """True if the two texts are one formula, or formulas of one value."""
    if compact(reference) == compact(answer):
        return True
    if not set(OPERATORS.findall(answer)) <= set(OPERATORS.findall(reference)):
        return False  # a sum or an integral is not an answer unless the reference is one
    try:
        left, right = expression.parse(reference), expression.parse(answer)
        return numeric.equal(left, right) or _is_rounded(left, reference, right, answer)
    except UndefinedError:
        return False
    except UnsupportedError:
        if _APART.search(reference + "\n" + answer):  # not every parser keeps 1 2 apart
            return False
        return bool(_FOR_SYMBOLIC.search(reference)) and rules.symbolic(latex(reference), latex(answer))


def _is_rounded(left: expression.Tree, reference: str, right: expression.Tree, answer: str) -> bool:
    """True if one is a decimal with enough digits that is the other one rounded."""
    if expression.names(left) | expression.names(right):
        return False
    for tree, text in ((left, answer), (right, reference)):
        if _DECIMAL.fullmatch(text.strip()):
            decimal = text.replace(" ", "")
            if len(decimal.lstrip("-0.").replace(".", "")) >= MIN_SIGNIFICANT and numeric.rounds_to(tree, decimal):
                return True
    return False


def _plain(text: str) -> str:
    """Words in lower case without articles and punctuation, and numbers with their signs."""
    words = _WORD_OR_NUMBER.findall(re.sub(r"\\text\s*", " ", text).casefold())
    return " ".join(word for word in words if word not in ("a", "an", "the")) or " ".join(words)


def written(answer: Answer) -> str | None:
    """The text of words, or of a formula without unit that may be meant as a word."""
    if isinstance(answer, Words):
        return answer.text
    if isinstance(answer, Formula) and not answer.percent:
        return f"{answer.text} {answer.unit}".strip()
    return None


def same_words(right: str, said: str) -> bool:
    """True if two texts are the same words, the same letter of an option, or a word for a number and that number."""
    option = _OPTION.fullmatch(right.strip(" ."))
    if option:
        offered = _OPTION.fullmatch(said.strip(" ."))
        return offered is not None and offered[1] == option[1]
    for words, number in ((right, said), (said, right)):
        if words.lower() in _NUMBER_WORDS and re.fullmatch(r"[0-9]+", number):
            return int(number) == _NUMBER_WORDS.index(words.lower()) if len(number) < 3 else False
    if not re.search(r"[^\W\d_]{2}", right):
        return right.strip() == said.strip()
    if _plain(right) == _plain(said):
        return True
    joined = [re.sub(r"(?<!\d) | (?!\d)", "", _plain(text)) for text in (right, said)]  # but not 1 2 to 12
    return bool(re.search(r"[^\W\d_]{4}", right)) and joined[0] == joined[1]
