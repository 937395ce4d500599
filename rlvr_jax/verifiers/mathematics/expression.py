"""Formulas: a parser for the LaTeX and the plain text of answers. Its cost is bounded by their length."""

import functools
import re
from fractions import Fraction
from typing import Any

from rlvr_jax.verifiers.mathematics.latex import MAX_DEPTH

Tree = tuple[Any, ...]  # ("number", Fraction), ("name", text), or (operator, Tree, …)
_MAX_LEVELS = 200  # of a tree; Python allows a thousand calls within each other, and a level takes three

_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi chi psi omega"
_GREEK += " Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell"
NAMES = frozenset(_GREEK.split())
_INVERSE = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "ln": "log", "lg": "log10"}
_RECIPROCAL = ("sec", "csc", "cot")
FUNCTIONS = frozenset(
    ["sin", "cos", "tan", "sinh", "cosh", "tanh", "exp", "log", "asin", "acos", "atan", *_INVERSE, *_RECIPROCAL]
)
_WORDS = re.compile(r"sqrt|pi|infty|infinity|oo|" + "|".join(sorted(FUNCTIONS, key=len, reverse=True)))
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+(?![\d.]))?|\d+\.(?!\d))|\\text\s*\{\s*(?P<text>[a-zA-Z]+)\s*\}"
    r"|\\(?P<command>[a-zA-Z]+|[{}])|(?P<word>[a-zA-Z]+)|(?P<power>\*\*)|(?P<symbol>[-+*/^_(){}\[\]|!'=]))"
)


class UnsupportedError(ValueError):
    """The text is not a formula that this module knows."""


class TooLargeError(ValueError):
    """A value is beyond the bounds of this module."""


class UndefinedError(ValueError):
    """The formula has no value (division by zero), or no real one at this point."""


def _lex(text: str) -> list[str]:
    r"""Tokens: numbers, names as `\x`, and symbols; then the end."""
    found, position, text = [], 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise UnsupportedError(f"unexpected {text[position : position + 10]!r}")
        position = match.end()
        if match["number"]:
            found.append(match["number"])
        elif match["text"]:
            if len(match["text"]) > 1 and match["text"] not in FUNCTIONS:
                raise UnsupportedError(f"unexpected word {match['text']!r}")
            found.append("\\" + match["text"])
        elif match["command"]:
            found.append("\\" + match["command"])
        elif match["word"]:
            word, start = match["word"], 0
            while start < len(word):
                known = _WORDS.match(word, start)
                name = known[0] if known else word[start]
                found.append("\\" + {"oo": "infty", "infinity": "infty"}.get(name, name))
                start += len(name)
        else:
            found.append("^" if match["power"] else match["symbol"])
    return [*found, "the end"]


def _is_number(token: str) -> bool:
    return token[0].isdigit() or (token[0] == "." and len(token) > 1)


def _is_braced(tokens: list[str]) -> bool:
    return len(tokens) == 3 and tokens[0] == "{" and _is_number(tokens[1]) and tokens[2] == "}"


class _Parser:
    """Recursive descent over tokens; the state is the position."""

    def __init__(self, text: str):
        self.tokens, self.position, self.depth, self.bars = _lex(text), 0, 0, 0

    @property
    def next(self) -> str:
        return self.tokens[self.position]

    def take(self) -> str:
        self.position += 1
        return self.tokens[self.position - 1]

    def expect(self, token: str) -> None:
        if self.take() != token:
            raise UnsupportedError(f"expected {token!r}")

    def sum(self) -> Tree:
        """Terms joined by + and -. Raises ValueError beyond the largest depth."""
        self.depth += 1
        if self.depth > 2 * MAX_DEPTH:
            raise UnsupportedError("nested too deep")
        tree = self.product()
        while self.next in "+-":
            tree = (self.take(), tree, self.product())
        self.depth -= 1
        return tree

    def product(self) -> Tree:
        """Factors joined by *, / or nothing."""
        tree = self.signed()
        while True:
            if self.next in "*/":
                tree = (self.take(), tree, self.signed())
            elif self.starts_factor():
                if self.between_digits():
                    raise UnsupportedError("two numbers side by side")
                tree = ("*", tree, self.power())
            else:
                return tree

    def between_digits(self) -> bool:
        r"""True if digits, perhaps in braces of their own, stand on both sides: `1 2`, `{1}{2}`; not `\frac12 3`."""
        after = self.tokens[self.position : self.position + 3]
        if not _is_number(after[0]) and not _is_braced(after):
            return False
        before = ["(", *self.tokens[: self.position]][-4:]
        return _is_number(before[-1]) or (_is_braced(before[1:]) and before[0] in "+-*/({[|")

    def starts_factor(self) -> bool:
        """True if the next token can begin a factor, so that a product goes on without a sign."""
        token = self.next
        if token == "|":
            return self.bars == 0
        return (
            token in ("(", "{", "[", r"\lfloor", r"\lceil")
            or _is_number(token)
            or (token[0] == "\\" and token[1:].isalpha() and token not in (r"\rfloor", r"\rceil", r"\circ"))
        )

    def signed(self) -> Tree:
        """A power after any number of signs."""
        signs = 0
        while self.next in "+-":
            signs += self.take() == "-"
            if self.next == "the end":
                raise UnsupportedError("a sign at the end")
        tree = self.power()
        return ("negate", tree) if signs % 2 else tree

    def power(self) -> Tree:
        """An atom with its exponents, degree signs and factorial; or a mixed number."""
        start = self.position
        tree = self.atom()
        # 918\frac{1}{2} is a mixed number; so is 1 1/2, but not 2\frac{x}{3} or 3\frac{5}{2}
        if tree[0] == "number" and self.next == r"\frac" and "." not in self.tokens[start]:
            here = self.position
            fraction = self.atom()
            if fraction[1][0] == fraction[2][0] == "number" and 0 < fraction[1][1] < fraction[2][1]:
                return ("+", tree, fraction)
            self.position = here
        while self.next in "!^'":
            token = self.take()
            if token == "!":
                if self.next == "!":
                    raise UnsupportedError("double factorial")
                tree = ("factorial", tree)
            elif token == "'":
                raise UnsupportedError("a prime")
            elif self.next == r"\circ" or self.tokens[self.position : self.position + 3] == ["{", r"\circ", "}"]:
                self.position += 1 if self.next == r"\circ" else 3
                tree = ("degrees", tree)
            else:
                tree = ("^", tree, self.argument())
        return tree

    def argument(self) -> Tree:
        r"""The argument of `\frac`, `^` and the like: a group, a signed atom, or the first digit of a number."""
        if self.next == "{":
            return self.atom()
        if self.next in "+-":
            sign = self.take()
            tree = self.argument()
            return ("negate", tree) if sign == "-" else tree
        return self.atom()

    def digit(self) -> Tree:
        token = self.next
        if len(token) > 1 and token.isdigit():
            self.tokens[self.position] = token[1:]
            return ("number", Fraction(int(token[0])))
        return self.argument()

    def group(self, closing: str) -> Tree:
        bars, self.bars = self.bars, 0
        tree = self.sum()
        self.bars = bars
        self.expect(closing)
        return tree

    def atom(self) -> Tree:
        """A number, a symbol, a function of something, or a sum in brackets."""
        token = self.take()
        if _is_number(token):
            return ("number", _number(token))
        if token in "({[":
            return self.group({"(": ")", "{": "}", "[": "]"}[token])
        if token == "|":
            self.bars += 1
            tree = self.sum()
            self.bars -= 1
            self.expect("|")
            return ("abs", tree)
        if token in (r"\lfloor", r"\lceil"):
            return (token[2:], self.group("\\r" + token[2:]))
        if token == r"\frac":
            numerator = self.digit()
            return ("/", numerator, self.digit())
        if token == r"\binom":
            return ("binomial", self.digit(), self.digit())
        if token == r"\sqrt":
            degree: Tree = ("number", Fraction(2))
            if self.next == "[":
                self.take()
                degree = self.group("]")
            return ("root", degree, self.digit())
        name = token[1:]
        if token[0] != "\\" or not name.isalpha():
            raise UnsupportedError(f"unexpected {token!r}")
        if name in FUNCTIONS:
            return self.function(name)
        if len(name) > 1 and name not in NAMES and name not in ("pi", "infty"):
            raise UnsupportedError(f"unexpected {token}")
        if name in ("f", "g", "h") and self.next == "(":
            raise UnsupportedError("a function without a definition")
        if self.next == "_":
            self.take()
            name += "_" + self.subscript()
        return ("name", name)

    def subscript(self) -> str:
        """The index of a symbol as text."""
        if self.next != "{":
            return self.take()
        self.take()
        found = []
        while self.next not in ("}", "the end"):
            found.append(self.take())
        self.expect("}")
        return "".join(found)

    def function(self, name: str) -> Tree:
        """A named function with its base, power and argument."""
        base: Tree | None = None
        power: Tree | None = None
        while self.next in "_^":
            if self.take() == "_":
                if name != "log":
                    raise UnsupportedError(f"a subscript of {name}")
                base = self.digit()
            else:
                power = self.digit()
        if self.next in ("(", "{", "["):
            argument = self.power()
        else:  # \sin 2x is the sine of 2x, \sin x \cos x a product
            argument = self.signed()
            while self.starts_factor() and self.next[1:] not in FUNCTIONS and self.next not in ("(", "["):
                argument = ("*", argument, self.power())
            while self.next == "/" and self.tokens[self.position + 1].isdigit():  # \sin \pi/2
                self.take()
                argument = ("/", argument, self.power())
        if power == ("negate", ("number", Fraction(1))):
            if "a" + name not in _INVERSE.values():
                raise UnsupportedError(f"the inverse of {name}")
            return ("a" + name, argument)
        name = _INVERSE.get(name, name)
        tree: Tree = (name, argument)
        if name in _RECIPROCAL:
            tree = ("/", ("number", Fraction(1)), ({"sec": "cos", "csc": "sin", "cot": "tan"}[name], argument))
        if base is not None:
            tree = ("/", tree, ("log", base))
        return tree if power is None else ("^", tree, power)


def _number(text: str) -> Fraction:
    mantissa, _, exponent = text.lower().partition("e")
    if exponent and (len(exponent) > 6 or abs(int(exponent)) > 4000):
        raise TooLargeError(f"the exponent of {text}")
    return Fraction(mantissa.rstrip(".") or "0") * Fraction(10) ** int(exponent or 0)


@functools.lru_cache(4096)
def parse(text: str) -> Tree:
    """The formula in a cleaned text (see `latex.clean`) as a tree.

    Raises:
      UnsupportedError: the text is something else. TooLargeError: a number in it is too large.
    """
    parser = _Parser(text)
    try:
        tree = parser.sum()
    except (RecursionError, IndexError):
        raise UnsupportedError("nested too deep or cut off") from None
    if parser.next != "the end":
        raise UnsupportedError(f"unexpected {parser.next!r}")
    if _levels(tree) > _MAX_LEVELS:
        raise UnsupportedError("too many terms or factors")
    return tree


def _levels(tree: Tree) -> int:
    """The depth of a tree: each further term or factor of a chain adds one."""
    level, count = [tree], 0
    while level:
        level, count = [part for node in level for part in node[1:] if isinstance(part, tuple)], count + 1
    return count


@functools.lru_cache(4096)
def names(tree: Tree) -> frozenset[str]:
    """The variables, and `e` and `i`, of a formula."""
    if tree[0] == "name":
        return frozenset() if tree[1] in ("pi", "infty") else frozenset([tree[1]])
    if tree[0] == "number":
        return frozenset()
    return frozenset().union(*map(names, tree[1:]))
