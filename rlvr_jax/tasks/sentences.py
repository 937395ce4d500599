"""One sentence about a topic under one constraint, in the style of IFEval, for small pretrained models.

Each problem has one of several kinds of constraints and is judged by IFEval's checkers. The sentence must also name
its topic and have some words, so that an empty one does not pass. Topics and words of held-out problems are never
trained on.
"""

from collections.abc import Callable, Sequence
from typing import Any

from rlvr_jax.tasks.task import Example, Split, Task, draw

_Instruction = tuple[str, str, dict[str, Any]]  # text of the prompt; name and arguments of the check

# Each is a prefix of its plural, since keywords match inside of words: "cats" names the topic "cat".
TOPICS: dict[Split, str] = {
    "train": "winter music train bread river book dog rain tea cat clock bridge horse bird film letter stone boat "
    "summer shoe milk paper friend market tree coffee",
    "heldout": "garden mountain school snow ship lamp fish chess flower town",
}
WORDS: dict[Split, str] = {
    "train": "apple river stone green house light water night smile quiet open warm small road garden long morning "
    "window table old",
    "heldout": "yellow blue home simple bright street evening door young soft",
}
MIN_WORDS = 4

KINDS: dict[str, Callable[[str, int], _Instruction]] = {
    "short": lambda _, number: (
        f"Use fewer than {7 + number % 6} words.",
        "length_constraints:number_words",
        {"num_words": 7 + number % 6, "relation": "less than"},
    ),
    "quoted": lambda _word, _number: ("Put the whole sentence in double quotes.", "startend:quotation", {}),
    "word": lambda word, _: (f"Use the word {word}.", "keywords:existence", {"keywords": [word]}),
    "end": lambda word, _: (f"End it with the text: {word}.", "startend:end_checker", {"end_phrase": f"{word}."}),
    "long": lambda _, number: (
        f"Use at least {10 + number % 4} words.",
        "length_constraints:number_words",
        {"num_words": 10 + number % 4, "relation": "at least"},
    ),
    "lower": lambda _word, _number: ("Use lowercase letters only.", "change_case:english_lowercase", {}),
    "twice": lambda word, _: (
        f"Use the word {word} at least twice.",
        "keywords:frequency",
        {"keyword": word, "frequency": 2, "relation": "at least"},
    ),
}
TRAINED = ("short", "quoted", "word", "end")


def sentences(kinds: Sequence[str] = TRAINED) -> Task:
    """The task of writing one constrained sentence.

    Args:
      kinds: the constraints, of `KINDS`; by default those of `TRAINED`, which leaves the others to show what a policy
        does with constraints that it was not trained on.

    Raises:
      ValueError: a kind is unknown, or there is none.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds or isinstance(kinds, str):
        raise ValueError(f"sentences: kinds must be some of {', '.join(KINDS)}, not {kinds!r}")

    def example(split: Split, index: int) -> Example:
        if index < 0:
            raise IndexError(f"sentences: index must be at least 0, not {index}")
        pick = lambda name, values: values[draw("sentences", split, index, name) % len(values)]  # noqa: E731
        topic, word = pick("topic", TOPICS[split].split()), pick("word", WORDS[split].split())
        asked, name, arguments = KINDS[pick("kind", kinds)](word, draw("sentences", split, index, "number"))
        prompt = f"Write one short sentence with the word {topic}. {asked}"
        instructions = [
            (name, arguments),
            ("keywords:existence", {"keywords": [topic]}),
            ("length_constraints:number_words", {"num_words": MIN_WORDS, "relation": "at least"}),
        ]
        reference = {
            "prompt": prompt,
            "instruction_id_list": [name for name, _ in instructions],
            "kwargs": [arguments for _, arguments in instructions],
        }
        return Example(f"sentences/{split}/{index}", f"{prompt}\n", reference, "sentences")

    return Task("sentences", "constraints", example, lambda _split: None)
