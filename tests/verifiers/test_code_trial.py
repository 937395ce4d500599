"""Tests that are code: what they can do with a program that they never meet, and what they refuse to believe."""

import pytest

from rlvr_jax.verifiers import verify

PROGRAM = """
from collections import Counter, OrderedDict, deque, namedtuple
from decimal import Decimal
import re

class Node:
    def __init__(self, value, left=None):
        self.value, self.left, self.items = value, left, []
    def depth(self):
        return 1 + (self.left.depth() if self.left else 0)
    def __add__(self, other):
        return Node(self.value + other.value)
    def __eq__(self, other):
        return True
    __hash__ = None
    def __len__(self):
        return self.value
    def __getitem__(self, i):
        return i * self.value
    def __iter__(self):
        return iter(range(self.value))
    def __enter__(self):
        return self
    def __exit__(self, *error):
        self.items.append("closed")
    def __str__(self):
        return f"<{self.value}>"
    def __float__(self):
        return self.value / 2
    @classmethod
    def two(cls):
        return cls(2)
    LIMIT = 10

Point = namedtuple("Point", "x y")
SIZE = 7

def depth(node): return node.depth()
def evens(n):
    for i in range(0, n, 2): yield i
def sort_in_place(items): items.sort()
def drop(d, key): del d[key]
def nested(x): x[0][1].append(4); x[1]["k"] = {1}; return len(x)
def apply(f, *args, **kw): return f(*args, **kw)
def compose(f, g): return lambda x: f(g(x))
def echo(x): return x
def boom(kind="value"):
    if kind == "own":
        class Own(ValueError): pass
        raise Own("mine")
    raise {"value": ValueError, "key": KeyError, "exit": SystemExit, "stop": StopIteration}[kind]("bad")
def match(text): return re.search("a+", text)
def point(x): return Point(x, x)
def counted(s): return Counter(s)
def many(a, *rest, key=0, **more): return [a, rest, key, more]
def close(x): return x + 1e-9
def fib(n):
    a, b = 0, 1
    while True:
        yield a
        a, b = b, a + b
"""

RIGHT = [
    "n = Node(1)\nn.left = Node(2)\nn.left.left = Node(3)\nassert depth(n) == 3 and n.left.left.value == 3",
    "assert depth(Node(1, Node(2))) == 2",
    "assert (Node(1) + Node(2)).value == 3",
    "assert len(Node(4)) == 4 and Node(4)[3] == 12 and list(Node(3)) == [0, 1, 2] and 2 in Node(3)",
    "assert sum(Node(4)) == 6 and sorted(Node(3), reverse=True) == [2, 1, 0]",
    "assert str(Node(5)) == '<5>' and f'{Node(5)}' == '<5>' and float(Node(5)) == 2.5",
    "n = Node(1)\nassert n == n and not n != n and n in [n]",
    "with Node(1) as n:\n    n.value = 9\nassert n.value == 9 and n.items == ['closed']",
    "assert Node.two().value == 2 and Node.LIMIT == 10 and hasattr(Node(1), 'left') and not hasattr(Node(1), 'right')",
    "assert getattr(Node(1), 'nothing', 5) == 5",
    "assert list(evens(5)) == [0, 2, 4] and max(evens(9)) == 8",
    "g = evens(5)\nassert next(g) == 0 and next(g) == 2 and next(g) == 4\ntry:\n    next(g)\n    assert False\n"
    "except StopIteration:\n    pass",
    "from itertools import islice\nassert list(islice(fib(0), 6)) == [0, 1, 1, 2, 3, 5]",
    "items = [3, 1, 2]\nassert sort_in_place(items) is None\nassert items == [1, 2, 3]",
    "d = {'a': 1, 'b': 2}\nalias = d\ndrop(d, 'a')\nassert alias == {'b': 2}",
    "inner = [1]\nx = [[0, inner], {}]\nnested(x)\nassert inner == [1, 4] and x == [[0, [1, 4]], {'k': {1}}]",
    "assert apply(lambda x, y: x + y, 3, 4) == 7 and apply(len, 'abc') == 3 and apply(sorted, [2, 1]) == [1, 2]",
    "assert compose(lambda x: x + 1, lambda x: x * 2)(5) == 11",
    "assert apply(lambda n: n.value + depth(n), Node(3)) == 4",
    "assert echo({(1, 2): {3, 4}, 'z': 1 + 2j}) == {(1, 2): {3, 4}, 'z': 1 + 2j}",
    "assert echo(int) is int and echo(...) is ... and echo(b'x') == b'x' and echo(range(3)) == range(3)",
    "for kind in ('value', 'own'):\n    try:\n        boom(kind)\n    except ValueError as e:\n"
    "        assert str(e) in ('bad', 'mine')\n    else:\n        assert False",
    "try:\n    boom(kind='key')\nexcept LookupError:\n    pass\nelse:\n    raise AssertionError",
    "assert match('bar') and not match('box') and match('baa').group() == 'aa' and match('xy') is None",
    "assert point(2) == (2, 2) and counted('aab') == {'a': 2, 'b': 1} and counted('aa') == Counter('aa')",
    "assert many(1, 2, key=3, z=4) == [1, (2,), 3, {'z': 4}]",
    "assert abs(close(0.5) - 0.5) < 1e-6 and math.isclose(close(2), 2) and round(close(1.5), 3) == 1.5",
    "assert SIZE == 7",
    "assert [len(n) for n in [Node(1), Node(2)]] == [1, 2]",
    "assert isinstance(echo([1]), list) and not isinstance(echo(1), str) and type(echo(True)) is bool",
    "assert tuple(map(echo, (1, 2))) == (1, 2) and all(echo(i) == i for i in range(3))",
]
# What a program might claim, and the tests do not believe; none of them would fail in one process with the program.
NOT_BELIEVED = [
    "assert Node(1) == Node(1)",
    "assert Node(1) == 5",
    "assert 5 == Node(1)",
    "assert [Node(1)] == [5]",
    "assert Node(1) in [1, 2]",
    "assert not Node(1) != 5",
    "assert Node(1) + 1 == 2",
    "assert abs(Node(1) - 3) < 1e-6",
    "assert Node(1) < Node(2)",
    "assert sorted([Node(2), Node(1)])[0].value == 1",
    "boom('stop')",
    "assert list(map(lambda x: boom('stop'), [1, 2])) == []",
    "boom('exit')",
    "assert isinstance(Node(1), int)",
    "items = [3, 1, 2]\nassert sort_in_place(items) is None and items == [1, 2, 3]",
]


def _passed(program, tests, setup="import math\nSKIP = 1"):
    reference = {"type": "asserts", "setup": setup, "tests": tests}
    return verify("code", program, reference, score="share", cpu_seconds=5)


def test_tests_work_with_classes_generators_functions_and_arguments_that_change():
    for test in RIGHT:  # one by one, to see which
        assert _passed(PROGRAM, [test, "assert SIZE == 7"]).reason == "2 of 2 tests pass", test
    assert _passed(PROGRAM, RIGHT).score == 1.0


def test_the_programs_word_is_not_taken_for_a_comparison():
    verdict = _passed(PROGRAM, [*NOT_BELIEVED, "assert SIZE == 7"])
    assert verdict.parts["passed"] == 1 / (len(NOT_BELIEVED) + 1), verdict.reason


def test_an_argument_does_not_change_while_it_is_compared():
    program = "def double(items):\n    items.clear()\n    return []\n"
    assert _passed(program, ["items = [1, 2]\nassert double(items) == [2 * x for x in items]"]).score == 0.0


def test_a_test_that_no_assertion_was_reached_in_does_not_pass():
    check = "def check(candidate):\n    for x in candidate():\n        assert x == 1\n"
    reference = {"type": "humaneval", "prompt": 'def f():\n    """Ones."""\n', "entry_point": "f", "test": check}
    assert verify("code", "    return [1, 1]", reference).score == 1.0
    verdict = verify("code", "    return []", reference)
    assert (verdict.score, verdict.reason) == (0.0, "0 of 1 tests pass; not reached")


def test_each_assertion_of_a_check_is_a_test_and_those_not_reached_have_failed():
    check = "def check(candidate):\n    k = 1\n    assert candidate(k) == 1\n    assert candidate(2) == k + 2\n"
    check += "    candidate(0)\n    assert candidate(4) == 4\n    assert True\n"
    reference = {"type": "humaneval", "prompt": 'def f(n):\n    """n."""\n', "entry_point": "f", "test": check}
    verdict = verify("code", "    return n if n else 1 / n", reference, score="share")
    assert verdict.score == 1 / 3  # the first holds, the second does not, an exception comes before the third
    assert "assert candidate(2) == k + 2: AssertionError" in verdict.reason


def test_the_helpers_of_a_prompt_are_the_prompts_and_not_the_programs():
    prompt = 'def code(s):\n    return s[::-1]\n\n\ndef decode(s):\n    """Undoes code."""\n'
    check = "def check(candidate):\n    for s in ('ab', 'xyz'):\n        assert candidate(code(s)) == s\n"
    reference = {"type": "humaneval", "prompt": prompt, "entry_point": "decode", "test": check}
    assert verify("code", "    return s[::-1]", reference).score == 1.0
    cheat = "def code(s):\n    return s\n\ndef decode(s):\n    return s\n"
    assert verify("code", cheat, reference).score == 0.0


def test_a_program_that_dies_fails_the_test_that_expects_an_exception_and_all_after_it():
    tests = ["assert f(1) == 1 + 0", "try:\n    f(0)\nexcept:\n    pass", "assert f(1) == 1 + 0"]
    verdict = _passed("import os\ndef f(x):\n    return x or os._exit(0)\n", tests)
    assert verdict.parts["passed"] == 1 / 3
    assert verdict.reason.endswith("its process ended early (exit code 0)")


@pytest.mark.parametrize(
    ("program", "tests", "score"),
    [
        ("def sum(a, b):\n    return a + b\n", ["assert sum(1, 2) == 3"], 1.0),
        ("def sum(a, b):\n    return a - b\n", ["assert sum(1, 2) == 3"], 0.0),
        ("def sum(a, b):\n    return a + b\n", ["assert sum(1, 2) == 1 + 2"], 1.0),
        ("def len(x):\n    return 1\ndef f(x):\n    return [0]\n", ["assert len(f(1)) == 1 and len([1, 2]) == 2"], 1.0),
        ("def len(x):\n    return 2\ndef f(x):\n    return [0]\n", ["assert len(f(1)) == 2"], 0.0),
        ("import sys\ndef size(x):\n    return sys.getsizeof(x)\n", ["assert size((1,)) == sys.getsizeof((1,))"], 1.0),
        ("class sys:\n    pass\ndef size(x):\n    return 5\n", ["assert size((1,)) == sys.getsizeof((1,))"], 0.0),
        ("class Counter:\n    def most(self):\n        return 4\n", ["assert Counter().most() == 2 + 2"], 1.0),
        ("def Average(x):\n    return sum(x) / len(x)\n", ["assert abs(Average([1, 2]) - 1.5) < 1e-6"], 1.0),
    ],
)
def test_names_in_tests_mean_the_program_only_where_they_are_under_test(program, tests, score):
    assert _passed(program, tests, setup="").score == score


@pytest.mark.parametrize(
    ("setup", "tests"),
    [
        ("def mean(xs):\n    total = 0\n    for x in xs:\n        total += x\n    return total / len(xs)",
         ["assert total([1, 2]) == 1 + 2", "assert mean([total([1, 2]), 5]) == 4"]),
        ("", ["total = total([1, 2])\nassert total == 3"]),
        ("", ["for total_of in ([1, 2], [3]):\n    assert total(total_of) == 3"]),
        ("", ["assert [total(x) for x in [[1], [2]]] == [x for x in (1, 2)]", "x = total([1])\nassert x == 1"]),
        ("def helper(total):\n    return total + 1", ["assert helper(total([1])) == 2"]),
        ("class Case:\n    total = 3\n    def sum(self, xs): return total(xs)", ["assert Case().sum([1]) == 1"]),
        ("def later():\n    return total([4])", ["assert later() == 4"]),
        ("expected = total([1, 2])", ["assert expected == 3", "assert total([3]) == expected"]),
        ("def outer():\n    def inner(xs):\n        return total(xs)\n    return inner", ["assert outer()([1]) == 1"]),
        ("def reset():\n    global seen\n    seen = total([])", ["reset()\nassert seen == 0"]),
        ("", ["try:\n    total(3)\nexcept TypeError as total_error:\n    assert str(total_error) and total([]) == 0"]),
        ("", ["(lambda total: total)(1)\nassert total([5]) == 5"]),
    ],
)  # fmt: skip
def test_names_in_tests_have_scopes(setup, tests):
    program = "def total(xs):\n    n = 0\n    for x in xs:\n        n += x\n    return n\n"
    assert _passed(program, tests, setup).score == 1.0, _passed(program, tests, setup)
    wrong = program.replace("return n", "return n + 1").replace("for x in xs", "for x in list(xs or [])")
    assert _passed(wrong, tests, setup).score < 1.0


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("max", "assert isinstance(max([1, 3, 2]), int) and max([1, 3, 2]) == 3"),
        ("sum", "assert abs(sum([1, 3, 2]) - 6) < 1e-9"),
        ("sum", "assert sum([int(x) for x in ['1', '2']]) == 3"),
        ("sorted", "assert list(sorted([2, 1])) == [1, 2]"),
        ("len", "assert len(['a', 'b']) == 2"),
    ],
)
def test_a_program_that_defines_a_builtin_is_the_one_that_is_tested(name, test):
    right = f"import builtins\ndef {name}(xs):\n    return builtins.{name}(xs)\n"
    assert _passed(right, [test], setup="").score == 1.0
    for wrong in (f"def {name}(xs):\n    return None\n", "def other(xs):\n    return None\n", "x = 1\n"):
        assert _passed(wrong, [test], setup="").score == 0.0


SIZED = """
class Bag:
    def __init__(self, items, claimed=None):
        self.all, self.claimed = list(items), claimed
    def __len__(self):
        return len(self.all) if self.claimed is None else self.claimed
    def __iter__(self):
        return iter(self.all)
def bag(n): return Bag(range(n))
def everything(n): return Bag(range(1000), n)
def another(n):
    bag = Bag(range(n))
    type(bag).__iter__ = lambda self: iter([turns.pop(0)] + [0] * (n - 1))
    turns = list(range(1000))
    return bag
def unsaid(n):
    class Late(Bag):
        said = 0
        def __len__(self):
            self.said += 1
            if self.said > 1: return n
            raise TypeError
    return Late(range(1000))
def grow(bag): bag.all.append(len(bag.all))
"""


def test_what_has_a_length_has_as_many_items_and_the_same_ones():
    tests = "r = {}(3)\nassert len(r) == 3 and 0 in r and 1 in r and 2 in r"
    reverse = "r = {}(3)\nassert 0 in r and 1 in r and 2 in r and len(r) == 3"
    for test in (tests, reverse):
        assert _passed(SIZED, [test.format("bag")]).score == 1.0
        for stand_in in ("everything", "another", "unsaid"):
            assert _passed(SIZED, [test.format(stand_in)]).score == 0.0, stand_in
    changed = (
        "r = bag(2)\nassert len(r) == 2 and 2 not in r\ngrow(r)\nassert len(r) == 3 and 2 in r and list(r) == [0, 1, 2]"
    )
    assert _passed(SIZED, [changed]).score == 1.0


def test_a_program_cannot_define_the_helpers_of_tests_that_name_their_entry_point():
    tests = ["assert close(add(1, 2), 3)", "assert sum([add(1, 2)]) == 3"]
    reference = {"type": "asserts", "setup": "", "tests": tests, "entry_point": "add"}
    fooling = "def close(*_): return True\ndef sum(_): return 3\ndef add(a, b): return None\n"
    assert (verdict := verify("code", fooling, reference)).score == 0.0, verdict
    literal = reference | {"tests": ["assert add(1, 2) == 3", "assert twice(1) == 2"]}
    assert "twice" in verify("code", "def twice(n): return 2\ndef add(a, b): return a + b\n", literal).error
    reference["setup"] = "def close(a, b):\n    return abs(a - b) < 1e-6"
    assert verify("code", fooling.replace("None", "a + b"), reference).score == 1.0
