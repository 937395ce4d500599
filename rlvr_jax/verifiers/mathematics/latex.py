r"""LaTeX as text: one spelling for what is written in many ways, brackets, and splitting outside of brackets.

Nothing here knows what a formula means. Every function takes time linear in its input, but for `split` and `enclosed`,
which are only ever given answers of at most `MAX_LENGTH` characters.
"""

import re
import unicodedata
from collections.abc import Mapping

MAX_LENGTH = 600  # characters of an answer that is looked into; the longest answer of MATH has 160
MAX_DEPTH = 24  # brackets around one character
MAX_DIGITS = 120  # of one number

# Characters that are used for mathematics, as LaTeX. Whatever is not here, such as a Cyrillic letter that looks like a
# Latin one or a digit of another script, stays as it is and then equals only itself.
_UNICODE: Mapping[str, str] = {
    r"-": "\u2212\u2013\u2014\u2010",  # − – — ‐
    r"\times ": "\u00d7",  # ×
    r"\cdot ": "\u00b7\u22c5\u2219",  # · ⋅ ∙
    r"/": "\u00f7\u2215\u2044",  # ÷ ∕ ⁄
    r"*": "\u2217",  # ∗
    r"\pm ": "\u00b1",  # ±
    r"\mp ": "\u2213",  # ∓
    r"\sqrt ": "\u221a",  # √
    r"\infty ": "\u221e",  # ∞
    r"\le ": "\u2264\u2a7d",  # ≤ ⩽
    r"\ge ": "\u2265\u2a7e",  # ≥ ⩾
    r"\ne ": "\u2260",  # ≠
    r"\approx ": "\u2248",  # ≈
    r"\in ": "\u2208",  # ∈
    r"\cup ": "\u222a",  # ∪
    r"\cap ": "\u2229",  # ∩
    r"\emptyset ": "\u2205",  # ∅
    r"\mathbb{R}": "\u211d",  # ℝ
    r"^\circ ": "\u00b0",  # °
    r"'": "\u2032\u2019",  # ′ ’
    '"': "\u201c\u201d",  # “ ”
    r"\langle ": "\u27e8",  # ⟨
    r"\rangle ": "\u27e9",  # ⟩
    r"\angle ": "\u2220",  # ∠
    r"\ldots ": "\u2026",  # …
    r"\%": "\uff05",  # ％
    r"\frac{1}{2}": "\u00bd",  # ½
    r"\frac{1}{3}": "\u2153",  # ⅓
    r"\frac{2}{3}": "\u2154",  # ⅔
    r"\frac{1}{4}": "\u00bc",  # ¼
    r"\frac{3}{4}": "\u00be",  # ¾
    r",": "\uff0c\u3001",  # ， 、
    r";": "\uff1b",  # ；
    r":": "\uff1a",  # ：
    r"(": "\uff08",  # （
    r")": "\uff09",  # ）
    r" ": "\u00a0\u2009\u202f",  #
    r"\alpha ": "\u03b1",  # α
    r"\beta ": "\u03b2",  # β
    r"\gamma ": "\u03b3",  # γ
    r"\delta ": "\u03b4",  # δ
    r"\theta ": "\u03b8",  # θ
    r"\lambda ": "\u03bb",  # λ
    r"\mu ": "\u03bc",  # μ
    r"\pi ": "\u03c0",  # π
    r"\rho ": "\u03c1",  # ρ
    r"\sigma ": "\u03c3",  # σ
    r"\tau ": "\u03c4",  # τ
    r"\phi ": "\u03c6",  # φ
    r"\omega ": "\u03c9",  # ω
    r"\Delta ": "\u0394",  # Δ
    r"\Sigma ": "\u03a3",  # Σ
    r"\Omega ": "\u03a9",  # Ω
}
_CHARACTERS: Mapping[str, str] = {
    **{character: latex for latex, characters in _UNICODE.items() for character in characters},
    **{character: f"^{digit}" for digit, character in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
    **{character: f"_{digit}" for digit, character in enumerate("₀₁₂₃₄₅₆₇₈₉")},
}
_TRANSLATION = str.maketrans(dict(_CHARACTERS))

_SPELLING: Mapping[str, str] = {
    **dict.fromkeys([",", ";", ":", ">", " ", "quad", "qquad", "thinspace", "enspace", "thickspace", "\n", "$"], " "),
    **dict.fromkeys(["!", "left", "right", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr"], ""),
    **dict.fromkeys(["biggl", "biggr", "Biggl", "Biggr", "middle", "displaystyle", "textstyle", "limits"], ""),
    **dict.fromkeys(["mathbf", "boldsymbol", "bm", "vec", "overrightarrow", "mathit", "bf", "rm", "boxed"], ""),
    **dict.fromkeys(["nolimits", "scriptstyle", "mathopen", "mathclose", "mathord", "ensuremath", "fbox"], ""),
    **dict.fromkeys(["dfrac", "tfrac", "cfrac", "frac"], r"\frac "),
    **dict.fromkeys(["dbinom", "tbinom", "binom"], r"\binom "),
    **dict.fromkeys(["text", "textbf", "textrm", "textit", "textsf", "texttt", "textnormal", "textup"], r"\text"),
    **dict.fromkeys(["mathrm", "mathsf", "mbox", "hbox", "emph", "operatorname", "textsc", "mathtt"], r"\text"),
    **dict.fromkeys(["(", ")", "[", "]"], " "),  # delimiters of formulas
    **dict.fromkeys(["le", "leq", "leqslant"], r"\le "),
    **dict.fromkeys(["ge", "geq", "geqslant"], r"\ge "),
    **dict.fromkeys(["ne", "neq"], r"\ne "),
    **dict.fromkeys(["approx", "simeq", "doteq", "thickapprox"], r"\approx "),
    **dict.fromkeys(["lt"], "<"),
    **dict.fromkeys(["gt"], ">"),
    **dict.fromkeys(["times", "cdot", "ast", "cdotp"], "*"),
    **dict.fromkeys(["div"], "/"),
    **dict.fromkeys(["lvert", "rvert", "vert", "mid", "|", "lVert", "rVert"], "|"),
    **dict.fromkeys(["lbrace"], r"\{"),
    **dict.fromkeys(["rbrace"], r"\}"),
    **dict.fromkeys(["lbrack"], "["),
    **dict.fromkeys(["rbrack"], "]"),
    **dict.fromkeys(["lparen"], "("),
    **dict.fromkeys(["rparen"], ")"),
    **dict.fromkeys(["emptyset", "varnothing", "empty"], r"\emptyset "),
    **dict.fromkeys(["R", "Reals", "reals"], r"\mathbb{R}"),
    **dict.fromkeys(["degree", "degrees"], r"^\circ "),
    **dict.fromkeys(["colon"], ":"),
    **dict.fromkeys(["%"], "%"),
    **dict.fromkeys(["land", "wedge"], r"\text{and}"),
    **dict.fromkeys(["lor", "vee"], r"\text{or}"),
    **dict.fromkeys(["dots", "ldots", "cdots", "dotsc", "dotsb"], r"\ldots "),
    **dict.fromkeys(["varphi"], r"\phi "),
    **dict.fromkeys(["varepsilon"], r"\epsilon "),
    **dict.fromkeys(["infin"], r"\infty "),
    **dict.fromkeys(["setminus", "smallsetminus", "backslash"], r"\setminus "),
}
_COMMAND = re.compile(r"\\(?:[a-zA-Z]+|[^a-zA-Z])", re.DOTALL)
_OVERESCAPED = re.compile(r"\\\\(?=[a-zA-Z{}()\[\]%$!,;])")
_ESCAPED_ONCE = re.compile(r"(?<!\\)\\[a-zA-Z]")
_DIGIT_GROUPS = re.compile(r"(?<=\d)\s*(?:\{\s*,\s*\}|,\s*\\!)\s*(?:\\!\s*)*(?=\d{3}(?!\d))")
_BRACED_SIGN = re.compile(r"\{\s*([:;])\s*\}")
_DECIMAL_COMMA = re.compile(r"(?<=\d)\s*\{\s*,\s*\}\s*(?=\d)")
# A narrow gap between digits may group them, as in 1 234; a wide one, of `\quad` or a line break, separates numbers.
_GAP = re.compile(r"(?<=\d)(?:[\s~$]|\\(?:[,;:> ]|(?:quad|qquad|enspace)(?![a-zA-Z])))+(?=\.?\d)")
_WIDE = re.compile(r"[\n\r\t\f\v\u2001\u2003\u2028\u2029]|\\[qe]")
_ASCII_RELATIONS = {"<=": r"\le ", ">=": r"\ge ", "!=": r"\ne ", "==": "=", "=<": r"\le ", "=>": r"\ge "}
_ASCII_RELATION = re.compile("|".join(_ASCII_RELATIONS))
_NO_TEXT = re.compile(r"\\text\s*\{\s*\}")
_PHANTOM = re.compile(r"\\[hv]?phantom\s*(?:\{[^{}]*\}|[^{\\])")
_CHOOSE = re.compile(r"\{([^{}]*)\\choose(?![a-zA-Z])([^{}]*)\}")
_SPACE = re.compile(r"[\s~]+")

_OPENING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\langle": r"\rangle", r"\lfloor": r"\rfloor"}
_OPENING |= {r"\lceil": r"\rceil"}
_CLOSING = frozenset(_OPENING.values())
TOKEN = re.compile(r"\\(?:[a-zA-Z]+|.)|.", re.DOTALL)


def refusal(text: str) -> str | None:
    """Why an answer is not looked into, or None: it is too long, too deep, has huge numbers or deceptive characters."""
    if len(text) > MAX_LENGTH:
        return f"the answer has {len(text)} characters, more than {MAX_LENGTH}"
    if re.search(rf"\d{{{MAX_DIGITS + 1}}}", text):
        return f"the answer has a number of more than {MAX_DIGITS} digits"
    depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth > MAX_DEPTH:
            return f"the answer is nested deeper than {MAX_DEPTH}"
        if character > "\x7f":
            if unicodedata.category(character) in ("Cf", "Cc", "Co", "Cs", "Cn"):
                return f"the answer has the invisible character U+{ord(character):04X}"
            if unicodedata.decimal(character, None) is not None and character not in _CHARACTERS:
                return f"the answer has the digit U+{ord(character):04X} of another script"
    return None


def _respell(match: re.Match[str]) -> str:
    return _SPELLING.get(match[0][1:], match[0] + " " if match[0][1].isalpha() else match[0])


def clean(text: str) -> str:
    r"""One spelling: no spacing, sizes, fonts or `$`; `\frac` for `\dfrac`, `\text` for `\mathrm`, `*` for `\cdot`.

    Digits grouped by `{,}` or `,\!` are joined: `11,\! 111` → `11111`; other digits with a `{,}` are a decimal number.
    A wide gap between digits becomes `;`. What was escaped twice is escaped once: `\\a` → `\a`.
    """
    text = text.replace("\x0crac", r"\frac").replace("\x08oxed", r"\boxed").translate(_TRANSLATION)
    if "\\\\" in text and not _ESCAPED_ONCE.search(text):
        text = _OVERESCAPED.sub(r"\\", text)
    text = _CHOOSE.sub(r"\\binom{\1}{\2}", _PHANTOM.sub(" ", text))
    text = _BRACED_SIGN.sub(r"\1", _DECIMAL_COMMA.sub(".", _DIGIT_GROUPS.sub("", text)))
    text = _GAP.sub(lambda gap: ";" if _WIDE.search(gap[0]) else " ", text)
    text = _COMMAND.sub(_respell, text.replace("\\\\%", "%"))
    text = _ASCII_RELATION.sub(lambda match: _ASCII_RELATIONS[match[0]], text)
    return _SPACE.sub(" ", _NO_TEXT.sub(" ", text.replace("$", " "))).strip()


def compact(text: str) -> str:
    """The cleaned text without spaces but those between digits, and with braces only around several characters."""
    text = re.sub(r"(?<!\\)\{(\w)\}", r" \1", text)
    text = re.sub(r"(\\[a-zA-Z]+) +(?![a-zA-Z])", r"\1", text)
    text = re.sub(r"(?<=[\d.]) +(?=\.?\d)", "\0", text)  # 1 2 is not 12
    return re.sub(r"(?<!\\) +(?![a-zA-Z])|(?<![\\a-zA-Z]) +|(?<=[^a-zA-Z].) +", "", text)


def tokens(text: str) -> list[str]:
    r"""Commands (`\frac`, `\{`) and single characters."""
    return TOKEN.findall(text)


def enclosed(text: str) -> tuple[str, str] | None:
    """The opening and the closing bracket if one pair, of whatever two kinds, encloses the whole text, or None."""
    parts = tokens(text)
    if len(parts) < 2 or parts[0] not in _OPENING or parts[-1] not in _CLOSING:
        return None
    depth = 0
    for index, token in enumerate(parts):
        depth += (token in _OPENING) - (token in _CLOSING)
        if depth == 0:
            return (parts[0], parts[-1]) if index == len(parts) - 1 else None
    return None


def inside(text: str) -> str:
    """The text between the first and the last bracket of an `enclosed` text."""
    parts = tokens(text)
    return "".join(parts[1:-1]).strip()


def split(text: str, separators: frozenset[str]) -> list[tuple[str, str]]:
    """Pairs (separator before the part or "", part), split at the separators outside of brackets and environments.

    A separator is a token: one character or one command.
    """
    result, depth, start_separator = [], 0, ""
    current: list[str] = []
    for token in tokens(text):
        if token in (r"\begin", *_OPENING):
            depth += 1
        elif token in (r"\end", *_CLOSING):
            depth -= 1
        if depth == 0 and token in separators:
            result.append((start_separator, "".join(current).strip()))
            current, start_separator = [], token
        else:
            current.append(token)
    return [*result, (start_separator, "".join(current).strip())]
