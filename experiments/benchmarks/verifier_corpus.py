r"""Synthetic completions in the style of language models, made from templates: problems, chains of thought, closings.

`corpus` draws them: a chain of 2 to 40 steps with LaTeX, Markdown, units and intermediate results, then a closing in
one of many styles. Half are right. The others end with another value, offer several, deny the gold answer, have it only
in the work, or are cut off; all but the last two mention the gold answer near the end where the style allows it.

The closings were written by the authors of the verifier, who fixed its faults on them: agreement here shows that it
does what it is meant to. The public cases of `verifier_report` are independent.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

NAMES = ["Mara", "Tom", "Ines", "Mr. Okafor", "Lena", "Raj", "Dr. Silva", "Yuki"]
ITEMS = ["apples", "red pens", "boxes of tea", "old stamps", "tickets", "cups", "wet dogs", "pages", "bus rides"]
UNITS = ["minutes", "hours per week", "years old", "cm", "miles", "times", "pounds of rice", "euros", "degrees"]

# gold, other ways to write it, values that are near and wrong
FORMULAS: Sequence[tuple[str, Sequence[str], Sequence[str]]] = [
    (
        r"\frac{3}{8}",
        [r"\dfrac{3}{8}", "3/8", "0.375", r"\frac38", r"\frac{6}{16}"],
        [r"\frac{8}{3}", "0.38", r"\frac{3}{5}"],
    ),
    (r"2\sqrt{5}", [r"2 \sqrt 5", r"\sqrt{20}", r"\sqrt{5}\cdot 2"], [r"5\sqrt{2}", r"\sqrt{10}", "4.47"]),
    (r"-\frac{7}{4}", [r"\frac{-7}{4}", "-1.75", r"-\dfrac{7}{4}"], [r"\frac{7}{4}", "-1.7", r"-\frac{4}{7}"]),
    ("(2,-3)", [r"\left(2, -3\right)", "(2, -3)", r"(2,\,-3)"], ["(-3,2)", "(2,3)", r"\{2,-3\}"]),
    (
        r"\left(\frac{1}{2},\frac{4}{3}\right)",
        [r"\left( \dfrac{1}{2}, \dfrac{4}{3} \right)", "(1/2, 4/3)"],
        ["(1/2, 3/4)"],
    ),
    ("[-1,4)", [r"\left[-1, 4\right)", r"-1 \le x < 4"], ["(-1,4)", "[-1,4]", r"-1 < x < 4"]),
    ("3x^2-2x+1", ["3x^2 - 2x + 1", "1 - 2x + 3x^2"], ["3x^2-2x-1", "3x^2+2x+1", "-2x+1"]),
    (r"12\pi", [r"12 \pi", r"\pi \cdot 12"], [r"6\pi", "12", "37.7"]),
    ("1,4,9", ["1, 4, 9", r"\{1, 4, 9\}", "9, 4, 1"], ["1, 4", "1, 4, 8", "1, 4, 9, 16"]),
    (
        r"\begin{pmatrix}1&0\\2&3\end{pmatrix}",
        [r"\begin{pmatrix} 1 & 0 \\ 2 & 3 \end{pmatrix}"],
        [r"\begin{pmatrix}1&2\\0&3\end{pmatrix}"],
    ),
    ("2^{10}", ["1024", "2^{10}"], ["2^{11}", "1000", "20"]),
    (r"35\%", [r"35\%", "35%", "0.35", r"\frac{7}{20}"], [r"3.5\%", "0.035", r"65\%"]),
    ("60^\\circ", [r"60^{\circ}", "60", "60°"], ["30^\\circ", "120", r"\frac{\pi}{6}"]),
    ("x=5", ["5", "x = 5"], ["x = -5", "y=5", "6"]),
    ("1250", ["1,250", r"1{,}250", "1250.0"], ["1205", "12500", "125.0"]),
]
RIGHT_NUMBER = [
    "#### {n}",
    "#### {n} {unit}",
    "**#### {n}**",
    "#### **{n}**",
    "#### ${n}$",
    "#### \\boxed{{{n}}}",
    "#### {n}.",
    "The answer is {n}.",
    "The answer is {n} {unit}.",
    "So the answer is ${n}$ {unit}, as {a} + {b} = {n}.",
    "Therefore, {name} has **{n} {unit}** in total.",
    "Therefore, {name} needs {n} {unit}.",
    "In total that is {n} {unit}.",
    "**Answer:** {n} {unit}",
    "**Final Answer: {n} {unit}**",
    "### Final Answer\n\nThe final answer is: $\\boxed{{{n}}}$",
    "Final Answer: The number of {unit} is {n}.",
    "Final Answer: The final answer is ${n}$. I hope it is correct.",
    "<answer>{n}</answer>",
    "<answer>The answer is {n}.</answer>",
    "<answer>{n} {unit}</answer>",
    "<answer>\\boxed{{{n}}}</answer>",
    "\\[\n\\boxed{{{n}}}\n\\]",
    "Thus, the total is $\\boxed{{{n}\\text{{ {unit}}}}}$.",
    "$$\\boxed{{{n}}}$$\n\n#### Check\nIndeed, {a} + {b} = {n}.",
    "Therefore, {name} will have \\({n}\\) {unit}.",
    "Hence {name}'s total is:\n\\[ {a} + {b} = {n} \\]\nSo the answer is \\( {n} \\).",
    "The answer is not {w}, since we forgot a step. The answer is {n}.",
    "First I thought of \\boxed{{{w}}}. Wait, that is wrong. It is \\boxed{{{n}}}.",
    "#### {n}\n\n#### Verification\n{b} + {a} = {n}.",
    "$\\boxed{{{n}}}$, which is not a prime number.",
    "So {a} + {b} = {n}.\nAnswer: {n}",
    "Antwort: {n}",
    "\u7b54\u6848\u662f{n}\u3002",
    "The answer is **{n}**.<|im_end|>",
]
WRONG_NUMBER = [
    "#### {w}",
    "#### {w} {unit}",
    "#### {n} or {w}",
    "#### {n}, {w}",
    "#### not {n}",
    "#### {n}\n#### {w}",
    "#### {n} dozen",
    "The answer is {w} {unit}.",
    "The answer is {n} or {w}.",
    "The answer is {w}, not {n}.",
    "The answer is not {n}.",
    "The answer is $\\frac{{{n}}}{{2}}$.",
    "The answer is at most {n}.",
    "The answer is ${w}$, since $x = {n}$.",
    "The answer is half of {n}.",
    "Therefore, {name} has **{w} {unit}** in total, and {n} without the last step.",
    "Either \\boxed{{{n}}} or \\boxed{{{w}}}.",
    "\\boxed{{{n}}} is not the answer; it is {w}.",
    "\\boxed{{{w}}}, not \\boxed{{{n}}}.",
    "I first got \\boxed{{{n}}}, but that is wrong. \\boxed{{{w}}}",
    "\\boxed{{{n}, {w}}}",
    "<answer>{w}</answer>",
    "<answer>{n} or {w}</answer>",
    "<answer>{n}</answer> or <answer>{w}</answer>",
    "<answer>The answer is {w}, not {n}.</answer>",
    "Final Answer: The number of {unit} is {w}, where one is {n}.",
    "**Answer:** between {n} and {w}",
    "**Answer:** {n}00 {unit}",
    "I am not sure. Maybe {n}, maybe {w}.",
    "\\boxed{{{n}",
    "Now we multiply {n} by 2 and then",
    "Possible answers: {w}, {n}, {a}, {b}.",
    "#### {n} + {a}",
    "$\\boxed{{{n}x}}$",
    "$\\boxed{{-{n}}}$",
    "Answer: {n} times as many as {w}",
]
RIGHT_FORMULA = [
    "$\\boxed{{{f}}}$",
    "\\[\\boxed{{{f}}}\\]",
    "The answer is $\\boxed{{{f}}}$.",
    "Hence the answer is ${f}$.",
    "**Answer:** ${f}$",
    "**Final Answer**\n\n$${f}$$",
    "Final Answer: The final answer is ${f}$. I hope it is correct.",
    "Final Answer: The value for the given $k$ is ${f}$.",
    "<answer>${f}$</answer>",
    "<answer>{f}</answer>",
    "<answer>The final answer is \\({f}\\).</answer>",
    "#### ${f}$",
    "#### \\({f}\\)",
    "#### **${f}$**",
    "So it is \\({f}\\).",
    "Therefore the result is\n\\[ {f} \\]",
    "$\\boxed{{{f}}}$\n\n### Check\nSubstituting back gives $0 = 0$, as it should be.",
    "The answer is ${f}$, not ${w}$.",
    "The answer is ${f}$, because $k = 2$.",
    "We had \\boxed{{{w}}} before. But no, the correct value is \\boxed{{{f}}}.",
]
WRONG_FORMULA = [
    "$\\boxed{{{w}}}$",
    "\\[\\boxed{{{w}}}\\]",
    "Hence the answer is ${w}$.",
    "The answer is ${w}$, not ${f}$.",
    "The answer is ${f}$ or ${w}$.",
    "**Final Answer**\n\n$${w}$$",
    "<answer>{w}</answer>",
    "<answer>${f}$</answer> or <answer>${w}$</answer>",
    "$\\boxed{{{f}}}$ or $\\boxed{{{w}}}$",
    "$\\boxed{{{f}}}$ is wrong, it is ${w}$.",
    "#### ${w}$",
    "#### ${f}$ or ${w}$",
    "So it isn't \\({f}\\).",
    "With ${f}$ in place of $k$ we go on and find that",
    "The answer is not ${f}$.",
    "We had \\boxed{{{f}}} before. But no, the correct value is \\boxed{{{w}}}.",
    "Final Answer: It is one of ${f}$, ${w}$.",
]
STEPS = [
    "First, {name} starts with {x} and adds {y}, which gives ${x} + {y} = {z}$.",
    "Next, we compute\n\\[\n{x} \\times {y} = {p}.\n\\]",
    "**Step {i}:** Since $\\frac{{{p}}}{{{y}}} = {x}$, we have \\({x}\\) left over.",
    "- There are {x} of the first kind and {y} of the second, so {z} in all.",
    "### Step {i}: Simplify\nWe use that $a^2 - b^2 = (a-b)(a+b)$ with $a = {x}$ and $b = {y}$.",
    "That costs ${x} for each and ${z} for all of them together.",
    "\\begin{{align*}}\nt &= {x} \\cdot {y} \\\\\n  &= {p}\n\\end{{align*}}",
    "Let $k$ be the number of ways. Then $k \\ge {x}$, because $\\binom{{{y}}}{{2}} > 0$.",
    "So far the answer to the first part is {z}, but we still need the rest.",
    "Wait, let me check this again: {x} + {y} = {z}. Yes, that is right.",
    "{i}. Multiply both sides by {y}; this gives \\[ x \\left( {y} - \\frac{{1}}{{{x}}} \\right) = {z}. \\]",
]


@dataclass(frozen=True)
class Item:
    """A completion with its gold answer.

    Attributes:
      completion: what a model might write.
      gold: the right answer.
      right: whether the completion gives it.
      style: the template of its closing.
      formula: whether the answer is LaTeX rather than a number.
    """

    completion: str
    gold: str
    right: bool
    style: str
    formula: bool


def corpus(seed: int = 0, long: bool = False, rounds: int = 4) -> list[Item]:
    """Each closing `rounds` times, with other values: several hundred items, the same for the same arguments.

    Args:
      seed: of all choices.
      long: chains of 25 to 40 steps, about 3,000 characters; else of 2 to 6.
      rounds: how often each closing is used.
    """
    draw = random.Random(f"{seed}/{long}")
    styles = [
        (style, right, formula)
        for formula, right, group in (
            (False, True, RIGHT_NUMBER),
            (False, False, WRONG_NUMBER),
            (True, True, RIGHT_FORMULA),
            (True, False, WRONG_FORMULA),
        )
        for style in group
    ]
    make = {True: _formula_item, False: _number_item}
    return [make[formula](draw, style, right, long) for _ in range(rounds) for style, right, formula in styles]


def _chain(draw: random.Random, long: bool) -> str:
    count = draw.randint(25, 40) if long else draw.randint(2, 6)
    steps = []
    for index in range(count):
        x, y = draw.randint(2, 60), draw.randint(2, 60)
        values = {"x": x, "y": y, "z": x + y, "p": x * y, "i": index + 1, "name": draw.choice(NAMES)}
        steps.append(draw.choice(STEPS).format(**values))
    return draw.choice(["\n", "\n\n"]).join(steps)


def _number_item(draw: random.Random, style: str, right: bool, long: bool) -> Item:
    a, b = draw.randint(61, 4000), draw.randint(61, 4000)
    total = a + b
    wrong = total + draw.choice([-10, -2, -1, 1, 2, 9, 100])
    written = draw.choice([f"{total}", f"{total:,}"]) if right else f"{total}"
    values = {"n": written, "w": wrong, "a": a, "b": b, "name": draw.choice(NAMES)}
    closing = style.format(unit=draw.choice(ITEMS + UNITS), **values)
    return Item(f"{_chain(draw, long)}\n\n{closing}", str(total), right, style, False)


def _formula_item(draw: random.Random, style: str, right: bool, long: bool) -> Item:
    gold, same, other = draw.choice(FORMULAS)
    closing = style.format(f=draw.choice(same) if right else gold, w=draw.choice(other))
    return Item(f"{_chain(draw, long)}\n\n{closing}", gold, right, style, True)
