r"""The form of an answer: tuples, sets, intervals, equations, units and the like, down to formulas and words.

`read` takes the text of an answer apart by brackets, commas and relations. What is left at the leaves is a `Formula`,
which `expression` can parse or not, or `Words`.
"""

import functools
import re

from rlvr_jax.verifiers.mathematics.clock import read_time
from rlvr_jax.verifiers.mathematics.expression import FUNCTIONS, NAMES
from rlvr_jax.verifiers.mathematics.forms import (
    Answer,
    Formula,
    Group,
    Intersection,
    Interval,
    Matrix,
    Named,
    Relation,
    Union,
    Without,
    Words,
)
from rlvr_jax.verifiers.mathematics.latex import compact, enclosed, inside, split
from rlvr_jax.verifiers.mathematics.quantity import NOT_A_NAME

_CONNECTIVE = re.compile(
    r"\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|\\(?:text|quad)\s*\{\s*;\s*\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])",
    re.IGNORECASE,
)
_CONNECTIVE_OR_TEXT = re.compile(rf"(?P<joins>{_CONNECTIVE.pattern})|\\text\s*\{{[^{{}}]*\}}", re.IGNORECASE)
_DANGLING = re.compile(rf"(?:{_CONNECTIVE.pattern})[\s,;.]*$|^[\s,;.]*(?:\\text\s*\{{\s*or\s*\}}|or\b)", re.IGNORECASE)
_COMMA, _SEMICOLON = frozenset([","]), frozenset([";"])
_RELATIONS = frozenset(["=", "<", ">", r"\le", r"\ge", r"\ne", r"\in", r"\approx"])
_UNIT = (
    r"(?:km|cm|mm|dm|nm|kg|mg|lbs?|oz|ft|yds?|mi|mph|kph|hrs?|mins?|secs?|ms|mL|ml|cc|kWh|kW|Hz|MHz|GHz|kPa|Pa|kJ|"
    r"units?|degrees?|deg|radians?|rad|meters?|metres?|inch(?:es)?|feet|foot|yards?|miles?|liters?|litres?|gallons?|"
    r"grams?|pounds?|ounces?|tons?|seconds?|minutes?|hours?|days?|weeks?|months?|years?|dollars?|cents?|euros?|yuan|"
    r"[\u4e00-\u9fff\u0900-\u097f\u0600-\u06ff\u3040-\u30ff\uac00-\ud7af]+|rupees?|pesos?|USD|EUR|GBP|RMB|people|ways?|times|square|cubic|sq|cu|per|[a-z]{4,})"
)
_TEXT_TAIL = re.compile(
    r"(?:\\text\s*\{(?P<text>[^{}]*)\}|(?<=[\d})\]\s])(?P<plain>"
    + _UNIT
    + r"(?:[ /]"
    + _UNIT
    + r")*)\.?)(?:\s*\^\s*\{?\s*(?P<power>-?\d)\s*\}?)?\s*\.?$"
)
# A lone letter is a unit only where it cannot well be a variable: after a space, or squared after a plain number.
_SHORT_UNIT = re.compile(
    r"(?P<number>.*[\d}\w])(?:\s+(?P<letter>[mgsLhVWNJKA])|\s*(?P<sign>[€£¥₹]))"
    r"|(?P<plain>[-+]?[\d.]+)\s*(?P<power>[m]\s*\^\s*\{?[23]\}?)",
    re.DOTALL,
)
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?\s*(?:\\text\s*\{\s*)?(?P<scale>[CF]?)\s*\}?$")
_PERCENT = re.compile(
    r"(?:%|\\text\s*\{\s*(?:%|percent(?:age)?s?|pct)\s*\}|(?<![a-zA-Z])(?:percent(?:age)?s?|pct))\s*\.?$"
)
_CURRENCY = re.compile(
    r"^(?P<sign>[-+]?)\s*(?:[€£¥₹]|\\pounds|\\euro|(?:USD|US|EUR|GBP|RMB|Rs\.?)(?=\s*\d))\s*(?=[-+.\d(\\])"
)
_SCALE = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
# Words after a number that are no unit but change it, or offer another.
_NOT_A_UNIT = re.compile(
    rf"{NOT_A_NAME.pattern}|\b(?:to|than|times|over|by|halves|mod|modulo|are|if|when|where)\b", re.IGNORECASE
)
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?: \d{3})+(?![\d,])")
_DOTTED_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:\.\d{3}){2,}(?:,\d+)?")
_COMMA_NUMBER = re.compile(r"[-+]?\d+,\d+")
_SET_BUILDER = re.compile(r"[a-z]\s*(?:\\in\s*\\mathbb\s*\{?R\}?)?\s*[|:](?P<condition>[^|:]+)")
_MINUS_SET = re.compile(r"(?<=[)\]}])\s*[-/]\s*(?=\\\{)")
_OUTWARD = re.compile(r"(?P<left>[\[\]])(?P<ends>[^\[\]]*[,;][^\[\]]*)(?P<right>[\[\]])")  # ]1, 2[
_DECIMAL_COMMA = re.compile(r"[-+]?0,\d{3,}")
_MIXED = re.compile(r"(?P<sign>[-+]?)(?P<whole>\d+) (?P<rest>(?P<top>\d+)/(?P<bottom>\d+))")
_REPEATING = re.compile(
    r"(?P<sign>[-+]?)\s*(?P<whole>\d*)\.(?P<start>\d*)\s*\\(?:overline|bar|dot)\s*(?:\{\s*(?P<again>\d{1,40})\s*\}|(?P<one>\d))"
)
_BASE = re.compile(
    r"(?P<digits>-?\s*(?:[0-9A-Fa-f.]+|\\text\s*\{\s*[0-9A-Fa-f.]+\s*\}))\s*"
    r"_\s*(?:\{\s*(?:\\text\s*\{\s*)?(?P<long>\d+|[a-z]+)\s*\}?\s*\}|(?P<short>\d\d?))"
)
_BASE_WORDS = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_ENVIRONMENT = re.compile(
    r"\\begin\s*\{(?P<name>[pbB]?matrix|smallmatrix|array)\}\s*(?:\{[lcr| ]*\})?(?P<body>.*)\\end\s*\{(?P=name)\}",
    re.DOTALL,
)
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_TEXT_AT_END = re.compile(r"\\text\s*\{[^{}]*\}$")
_ORDINAL = re.compile(r"(?<=\d)\s*\^?\s*\{?\s*(?:\\text\s*\{\s*)?(?:st|nd|rd|th)(?:\s*\}){0,2}$")
_NUMBERS_AS_TEXT = re.compile(
    r"\\text\s*\{((?:[-+\d.,:/()\[\]\s]|and|or)*\d(?:[-+\d.,:/()\[\]\s]|and|or)*"
    r"|\s*[A-Z](?:\s*(?:,\s*and|,|and)\s*[A-Z])+\s*)\}"
)
_WORD = re.compile(r"(?<!\\)[^\W\d_]{2,}")
_KNOWN_WORDS = FUNCTIONS | NAMES | {"pi", "sqrt", "infty", "infinity", "oo"}
_SHORT_WORDS = frozenset(["yes", "no", "odd", "all", "one", "two", "six", "ten", "red", "may", "am", "pm", "dne"])
_SIDE = r"(?:[a-zA-Z]|\\(?:" + "|".join(sorted(NAMES)) + r"))(?:_(?:\w|\{\w+\}))?'?"
_FUNCTION = rf"(?:{_SIDE}|[a-z]+)(?:\^\{{?-1\}}?)?\([^()=]*\)"
_SEGMENT = r"(?:\\(?:angle|triangle|overline|widehat|hat|bar)\s*)?\{?[A-Z]{1,4}\}?"
_NAME = re.compile(
    rf"{_SIDE}|{_FUNCTION}|{_SEGMENT}|\[[A-Z]+\]|\((?:{_SIDE},)+{_SIDE}\)|\\frac\{{?{_SEGMENT}\}}?\{{?{_SEGMENT}\}}?"
    rf"|{_SEGMENT}[/:]{_SEGMENT}|\\text\{{[^{{}}]*\}}(?:_\w)?|m?\\angle[A-Z]+|\\frac\{{?d\w\}}?\{{d\w\}}"
)


def _words_only(text: str) -> str | None:
    r"""The words of a text that says nothing in mathematics, or None: `\text{(C)}`, `New York`, `Even`."""
    stripped = _TEXT.sub(r" \1 ", text).strip(" .!?,;:*\"'{}")
    if _TEXT.fullmatch(text.strip(" .")) and not re.fullmatch(r"[-+\d.,/ ]*", stripped):
        return stripped
    if "\\" in stripped or not re.search(r"[^\W\d_]", stripped) or re.search(r"[=<>^_+*/|{}]", stripped):
        return None
    words = _WORD.findall(stripped)
    unknown = [word for word in words if word.lower() not in _KNOWN_WORDS]
    if not unknown or (len(unknown) == 1 and re.match(r"[-+(\d.]", stripped)):
        return None
    if re.match(r"[-+]?\d", stripped):  # 5 apples, but not 2nd or 10 is the answer
        return stripped if _NOT_A_UNIT.search(stripped) else None
    if len(words) == 1 and len(stripped) < 4 and stripped.lower() not in _SHORT_WORDS:
        return None  # a product: xy, AB
    return stripped


def _unit(text: str) -> tuple[str, str]:
    """The text without the unit or the ending of an ordinal that follows it, and the unit."""
    if found := _ORDINAL.search(text):
        return text[: found.start()], ""
    if found := _DEGREES.search(text):
        return text[: found.start()].strip(), "°" + found["scale"]
    found = _TEXT_TAIL.search(text)
    if found and found.start() > 0:
        unit = (found["text"] if found["text"] is not None else found["plain"]).strip(" .")
        scale = re.fullmatch(rf"({'|'.join(_SCALE)})\b\s*(.*)", unit)
        before = text[: found.start()].strip()
        if scale:
            return f"{before}*10^{{{_SCALE[scale[1]]}}}", scale[2]
        if not _NOT_A_UNIT.search(unit) and re.search(r"[\d})\]a-z]$", before) and not _TEXT_AT_END.search(before):
            return before, unit + (found["power"] or "")
        return text, ""
    if found := _SHORT_UNIT.fullmatch(text):
        number, unit = found["number"] or found["plain"], found["letter"] or found["sign"] or found["power"]
        return number.strip(), re.sub(r"[\s^{}]", "", unit)
    return text, ""


def _formula(text: str) -> Answer:
    """A leaf: a formula with its unit, percent sign or base; or words."""
    if (words := _words_only(text)) is not None:
        return Words(words)
    text = _CURRENCY.sub(r"\g<sign>", text.strip().rstrip(".;,") if not text.endswith("...") else text)
    if found := _PERCENT.search(text):
        return Formula(_numeral(text[: found.start()].strip()), percent=True)
    if found := _BASE.fullmatch(text):
        base = found["long"] or found["short"]
        if base in _BASE_WORDS:
            base = str(_BASE_WORDS.index(base) + 2)
        digits = re.sub(r"\\text|[\s{}]", "", found["digits"]).lower()
        # a_2 is a variable with an index
        if (
            base.isdigit()
            and 2 <= int(base) <= 36
            and (re.search(r"\d", digits) or (int(base) > 10 and len(digits) > 1))
        ):
            return Formula(digits, base=base)
    text, unit = _unit(text)
    return Formula(_numeral(_CURRENCY.sub(r"\g<sign>", text)), unit=unit)


def _numeral(text: str) -> str:
    """Digits joined that stand in groups, a mixed number as a sum, and a repeating decimal as a fraction."""
    text = _SPACED_THOUSANDS.sub(lambda match: match[0].replace(" ", ""), text)
    if _DOTTED_THOUSANDS.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    if (found := _MIXED.fullmatch(text)) and int(found["top"]) < int(found["bottom"]):
        text = f"{found['sign']}({found['whole']}+{found['rest']})"
    if found := _REPEATING.fullmatch(text):
        start, again = found["start"], found["again"] or found["one"]
        text = f"{found['sign']}({found['whole'] or 0}.{start or 0}+{again}/({10 ** len(again) - 1}*10^{len(start)}))"
    return text


def _name(text: str) -> str | None:
    r"""The name on the left of an equation, `\text{…}` for words; None if it is a condition, as in `x^2 = 4`."""
    if _NAME.fullmatch(compact(text)):
        return compact(text)
    words = _words_only(text)
    return None if words is None or re.search(r"\d", words) else rf"\text{{{words}}}"


def _relation(parts: list[tuple[str, str]]) -> Answer | None:
    operators, sides = [operator for operator, _ in parts[1:]], [side for _, side in parts]
    if operators[0] == r"\approx" and not sides[0]:
        return _items(sides[1]) if len(sides) == 2 else None
    if r"\approx" in operators:  # the exact value stands before it
        first = operators.index(r"\approx")
        if first == 0 and _name(sides[0]) is None:
            return _value(sides[0])
        if first > 0:
            operators, sides = operators[:first], sides[: first + 1]
        else:
            operators[0] = "="
    if operators in ([r"\in"], ["="]) and (name := _name(sides[0])) is not None and sides[1]:
        equation = Relation(("=",), tuple(sides)) if operators == ["="] else None
        return Named(name, _items(sides[1]), equation)
    if r"\in" in operators or "" in sides:
        return None
    return Relation(tuple(operators), tuple(sides))


def _comma_parts(text: str) -> list[str]:
    return [part for _, part in split(text, _COMMA)]


def _coordinates(text: str) -> list[str]:
    """The parts of what stands in brackets: between semicolons, so that commas may be of decimals, or commas."""
    parts = [part for _, part in split(text, _SEMICOLON)]
    if len(parts) > 1:
        return [part.replace(",", ".") if _COMMA_NUMBER.fullmatch(part) else part for part in parts]
    return _comma_parts(text)


def _bracketed(text: str, brackets: tuple[str, str]) -> Answer | None:
    content = inside(text)
    if brackets == (r"\{", r"\}"):
        if found := _SET_BUILDER.fullmatch(content):
            return _items(found["condition"])
        items = _items(content) if content else Group("list", ())
        return Group("set", items.items if isinstance(items, Group) and items.kind == "list" else (items,))
    if brackets == ("{", "}"):
        return _items(content)
    parts = _coordinates(content)
    if brackets in (("[", ")"), ("(", "]")) or (brackets == ("[", "]") and len(parts) == 2):
        if len(parts) == 2 and all(parts):
            return Interval(brackets[0] + brackets[1], _value(parts[0]), _value(parts[1]))
        return None
    if brackets in (("(", ")"), (r"\langle", r"\rangle"), ("[", "]")):
        if len(parts) > 1 and all(parts):
            return Group("tuple", tuple(_value(part) for part in parts))
        if len(split(content, _RELATIONS)) > 1 or "matrix" in content or (brackets[0] == "[" and content):
            return _item(content)
    return None


def _value(text: str) -> Answer:
    """A value without relations and without commas outside of brackets."""
    text = text.strip()
    brackets = enclosed(text)
    if brackets:
        answer = _bracketed(text, brackets)
        if answer is not None:
            return answer
    if (found := _OUTWARD.fullmatch(text)) and found["left"] + found["right"] != "[]":
        return _value(("(" if found["left"] == "]" else "[") + found["ends"] + (")" if found["right"] == "[" else "]"))
    text = _MINUS_SET.sub(r"\\setminus ", text)
    if r"\pm" in text or r"\mp" in text:
        signs = [text.replace(r"\pm", a).replace(r"\mp", b) for a, b in (("+", "-"), ("-", "+"))]
        return Group("list", tuple(_value(re.sub(r"^\s*\+", "", signed)) for signed in signs))
    for sign, form in ((r"\setminus", None), (r"\cup", Union), (r"\cap", Intersection)):
        parts = [part for _, part in split(text, frozenset([sign]))]
        if len(parts) > 1 and all(parts):
            values = tuple(map(_value, parts))
            return form(values) if form else functools.reduce(Without, values)
    if (found := _ENVIRONMENT.fullmatch(text)) and r"\begin" not in found["body"]:
        rows = [row for row in re.split(r"\\\\", found["body"]) if row.replace(r"\hline", "").strip()]
        cells = [[cell for _, cell in split(row, frozenset(["&"]))] for row in rows]
        return Matrix(tuple(tuple(_value(cell) for cell in row) for row in cells), text)
    if text == r"\emptyset":
        return Group("set", ())
    if re.fullmatch(
        r"\\mathbb\s*\{?\s*R\s*\}?|\{?\\text\s*\{\s*all real(?:s| numbers)?\s*\}\}?|all real(?:s| numbers)", text
    ):
        return Interval("()", Formula(r"-\infty"), Formula(r"\infty"))
    if (time := read_time(text)) is not None:
        return time
    ratio = split(text, frozenset([":"]))
    if len(ratio) > 1 and all(part for _, part in ratio):
        items = [_formula(part) for _, part in ratio]
        time = read_time(":".join(item.text for item in items if isinstance(item, Formula)))
        return time if time is not None else Group("ratio", tuple(items))
    return _formula(text)


def _item(text: str) -> Answer:
    parts = split(text, _RELATIONS)
    if len(parts) > 1:
        relation = _relation(parts)
        if relation is not None:
            return relation
    return _value(text)


def _items(text: str) -> Answer:
    """One item, or the list of those that stand side by side; `x = 1, y = 2; x = 3, y = 4` is a list of two tuples."""
    if _DANGLING.search(text):  # 3 or
        return Group("list", (Words(text), Words("")))
    text = _CONNECTIVE_OR_TEXT.sub(lambda found: " ; " if found["joins"] else found[0], text)
    groups = [[part for part in _comma_parts(group) if part] for _, group in split(text, _SEMICOLON)]
    groups = [group for group in groups if group]
    if len(groups) == 1 and len(groups[0]) == 1:
        return _item(groups[0][0])
    if not groups:
        return Words("")
    items = [[_item(part) for part in group] for group in groups]
    flat = [item for group in items for item in group]
    if isinstance(flat[0], Named) and not any(isinstance(item, Named | Relation) for item in flat[1:]):
        return Named(flat[0].name, Group("list", (flat[0].value, *flat[1:])))  # n = 1, 2, 3
    if all(isinstance(item, Named) for item in flat):
        return _records(flat)
    return Group("list", tuple(flat))


def _records(items: list[Named]) -> Answer:
    """Named values: one solution with several names, or several solutions, a new one wherever a name comes again."""
    records: list[list[Named]] = []
    for item in items:
        if not records or item.name in [other.name for other in records[-1]]:
            records.append([])
        records[-1].append(item)
    if len(records[0]) == 1:
        if len({item.name for item in items}) == 1:
            return Named(items[0].name, Group("list", tuple(item.value for item in items)))
        return Group("list", tuple(items))
    names = "(" + ",".join(item.name for item in records[0]) + ")"
    solutions = tuple(Group("tuple", tuple(item.value for item in record)) for record in records)
    if any([item.name for item in record] != [item.name for item in records[0]] for record in records):
        return Group("list", tuple(items))
    return Named(names, solutions[0] if len(solutions) == 1 else Group("list", solutions))


@functools.lru_cache(8192)
def read(text: str, thousands: bool = True) -> Answer:
    """The form of an answer in a cleaned text.

    Args:
      text: see `latex.clean`.
      thousands: whether `1,234` is a number, unless it stands in brackets, or else two.
    """
    text = text.strip().rstrip(".").strip()
    if found := _NUMBERS_AS_TEXT.fullmatch(text):
        text = found[1]
    if _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    if thousands and not (("(" in text or "[" in text or r"\{" in text) and enclosed(text)):
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    return _items(text)
