"""Multi-hop questions over a small key-value world, which a policy can only answer by search.

Keys are two letters from a to j, and every problem has a function f over them of its own, so nothing can be memorised.
The prompt `1cg?` asks for f(cg), `2df?` for f(f(df)). The environment `key_value` answers the call `<cg>` with `gj|`,
and the answer is written `#gj`:

    1cg? <cg> gj| #gj
    2df? <df> jb| <jb> je| #je

The demonstrations teach the format and not when to use it: they ignore the number of hops, search for random keys and
answer with random ones, so reinforcement learning has to find that a search pays, of which key, and how many.
"""

from rlvr_jax.tasks.task import Example, Split, Task, draw, uniform
from rlvr_jax.text.messages import Messages

LETTERS = "abcdefghij"
KEYS = tuple(first + second for first in LETTERS for second in LETTERS)
ALPHABET = f"{LETTERS}12?<>|#!"

_GUESSES = 0.4  # share of the demonstrations that answer at once, with a random key
_RIGHT_KEY = 0.7  # of the searches, those of the key that was named last; the others are of random keys
_SECOND = 0.4  # of the demonstrations with a search, those with a second one


def value(world: str, key: str) -> str:
    """f(key) of a world, a key drawn by hash."""
    return KEYS[draw("key_value", world, key) % len(KEYS)]


def key_value(hops: int = 1) -> Task:
    """The task of `hops` searches, each for what the one before has found.

    The splits share no world: a problem is a prompt and a function.

    Args:
      hops: 1 or 2.

    Raises:
      ValueError: there is no such number of hops.
    """
    if hops not in (1, 2):
        raise ValueError(f"key_value: hops must be 1 or 2, not {hops}")

    def example(split: Split, index: int) -> Example:
        if index < 0:
            raise IndexError(f"key_value: index must be at least 0, not {index}")
        world = f"{hops}/{split}/{index}"
        start = answer = KEYS[draw("key_value", "start", world) % len(KEYS)]
        for _ in range(hops):
            answer = value(world, answer)
        reference = {"world": world, "start": start, "answer": answer}
        return Example(f"key_value/{split}/{index}", f"{hops}{start}?", reference, "key_value")

    def demonstration(example: Example, index: int) -> Messages:
        def random_key(which: str) -> str:
            return KEYS[draw("key_value", which, example.id, index) % len(KEYS)]

        def chance(which: str) -> float:
            return uniform("key_value", "chance", which, example.id, index)

        found = random_key("answer")
        messages = []
        if chance("guess") >= _GUESSES:
            key = example.reference["start"]
            for search in ("first", "second"):
                if chance(f"{search} key") >= _RIGHT_KEY:
                    key = random_key(search)
                found = value(example.reference["world"], key)
                messages.append({"role": "assistant", "content": f"<{key}>"})
                messages.append({"role": "user", "content": f"{found}|"})
                key = found
                if chance("another") >= _SECOND:
                    break
        return (*messages, {"role": "assistant", "content": f"#{found}"})

    return Task("key_value", "key_value", example, lambda _split: None, demonstration, ALPHABET)
