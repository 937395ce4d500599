"""Training prompts that leak evaluation prompts: equal, equal up to numbers, or with long shared n-grams.

Kinds of a match, the strongest first; a pair of prompts is reported once, under the strongest that applies:

| kind             | the two prompts                                                                          |
|------------------|------------------------------------------------------------------------------------------|
| `exact`          | are equal up to letter case, white space, punctuation, and LaTeX markup                   |
| `numbers`        | have the same words, with other numbers, signs or operators                               |
| `ngrams`         | share at least `threshold` of the held-out prompt's n-grams (runs of n words and numbers) |
| `masked_ngrams`  | the same with all numbers masked; n-grams that are mostly formula do not count            |

Boilerplate, such as an instruction, does not count: n-grams and number-free texts that occur in more than a given share
of the prompts of either set (and in more than ten) are ignored, and the common beginning and end of all prompts of a
set are removed. The lengths are those of Tulu 3 (arXiv:2411.15124), which asks whether 8-grams of
the same training prompt cover more than half of the held-out prompt's tokens.

Results depend on the input alone; n-grams are hashed to 64 bits, from ids of the words.
"""

import difflib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["exact", "numbers", "ngrams", "masked_ngrams"]
KINDS: tuple[Kind, ...] = ("exact", "numbers", "ngrams", "masked_ngrams")
NGRAM = 8
THRESHOLD = 0.5
BOILERPLATE_SHARE = 0.01
_LEAST_BOILERPLATE = 10  # prompts: text shared by no more is never boilerplate, however small the set
_LEAST_FRAMED = 3  # different prompts: with fewer, a common beginning or end is not removed
_BLOCK = 512  # held-out prompts compared at a time
_SNIPPET = 160  # characters
_ODD = np.uint64(0x9E3779B97F4A7C15)

_NUMBER = r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?"
_FIRST_IDEOGRAPH = "\u3040"
_IDEOGRAPH = "\u3040-\u30ff\u3400-\u9fff"  # languages written without spaces: each character is a word
_WORD = rf"[{_IDEOGRAPH}]|[^\W\d_{_IDEOGRAPH}]+"
_TOKEN = re.compile(rf"{_NUMBER}|{_WORD}|\d|[-+*/=<>^_!|()\[\]&~%@#]")
_IS_NUMBER = re.compile(r"\d")
_IS_WORD = re.compile(r"\w")
_LATEX_SETTING = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|[dt](?=frac|binom)|q?quad|(?:text|mathrm)(?=\{))|\\[,;:! ()\[\]]"
)


@dataclass(frozen=True)
class Match:
    """A training prompt that leaks a held-out prompt.

    Attributes:
      train_id, heldout_id: of the two prompts.
      kind: of the match.
      overlap: share of the held-out prompt's n-grams that the training prompt has, in [0, 1], number-masked for
        `masked_ngrams`; 1 for `exact` and `numbers`.
      shared: the longest common run of words, as in the held-out prompt, truncated to 160 characters.
    """

    train_id: str
    heldout_id: str
    kind: Kind
    overlap: float
    shared: str


@dataclass(frozen=True)
class _Prompt:
    id: str
    text: str
    places: tuple[tuple[int, int], ...]  # of the words in `text`, normalised as it is
    tokens: tuple[str, ...]  # words, numbers and operators
    words: tuple[str, ...]  # words and numbers
    masked: tuple[str, ...]  # words, with 0 for a number


def find_matches(
    train: Sequence[tuple[str, str]],
    heldout: Sequence[tuple[str, str]],
    n: int = NGRAM,
    threshold: float = THRESHOLD,
    boilerplate_share: float = BOILERPLATE_SHARE,
    progress: Callable[[int], object] = lambda _count: None,
) -> list[Match]:
    """All matches, in the order of held-out prompts, then by kind, overlap, and order of training prompts.

    Args:
      train: (id, prompt) of the training problems.
      heldout: (id, prompt) of the evaluation problems.
      n: words in an n-gram. A prompt with fewer words takes part in `exact` and `numbers` only.
      threshold: least overlap of n-grams, in (0, 1].
      boilerplate_share: text that more than this share of the prompts of one set has, but more than ten prompts, is
        boilerplate.
      progress: called with the number of held-out prompts done since the last call.

    Raises:
      ValueError: an argument is out of range, or two prompts of a set have the same id.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], not {threshold}")
    if not 0 <= boilerplate_share <= 1:
        raise ValueError(f"boilerplate_share must be in [0, 1], not {boilerplate_share}")
    sets = []
    for name, prompts in (("training", train), ("held-out", heldout)):
        repeated = [id for id, count in Counter(id for id, _ in prompts).items() if count > 1]
        if repeated:
            raise ValueError(f"two {name} prompts have the id {repeated[0]!r}")
        sets.append(_without_frame([_prompt(id, text) for id, text in prompts], n))
    limits = [max(_LEAST_BOILERPLATE, boilerplate_share * len(prompts)) for prompts in sets]
    same = _same(*sets, limits)
    overlaps = [
        _overlaps([[getattr(p, view) for p in prompts] for prompts in sets], n, threshold, limits, least)
        for view, least in (("words", 0), ("masked", n / 2))  # half of a masked n-gram must be words of some length
    ]
    matches = []
    for start in range(0, len(sets[1]), _BLOCK):
        found = {(h, t): ("masked_ngrams", overlap) for h, t, overlap in overlaps[1](start)}
        found |= {(h, t): ("ngrams", overlap) for h, t, overlap in overlaps[0](start)}
        stop = min(start + _BLOCK, len(sets[1]))
        found |= {(h, t): (kind, 1.0) for h in range(start, stop) for t, kind in same[h].items()}
        order = sorted(found, key=lambda pair: (pair[0], KINDS.index(found[pair][0]), -found[pair][1], pair[1]))
        for h, t in order:
            kind, overlap = found[h, t]
            a, b = sets[0][t], sets[1][h]
            matches.append(Match(a.id, b.id, kind, overlap, _shared(a, b, masked=kind in ("numbers", "masked_ngrams"))))
        progress(stop - start)
    return matches


def _prompt(id: str, text: str) -> _Prompt:
    text = unicodedata.normalize("NFKC", text)
    tokens, words, places = [], [], []
    for match in _TOKEN.finditer(_LATEX_SETTING.sub(lambda mark: " " * len(mark[0]), text)):
        token = match[0].casefold()
        tokens.append(token.replace(",", ""))
        if _IS_WORD.match(token) and token != "_":
            words.append(tokens[-1])
            places.append(match.span())
    masked = tuple("0" if _IS_NUMBER.match(word) else word for word in words)
    return _Prompt(id, text, tuple(places), tuple(tokens), tuple(words), masked)


def _without_frame(prompts: list[_Prompt], n: int) -> list[_Prompt]:
    """The prompts without a common beginning or end of at least n words, such as an instruction."""
    if len({prompt.tokens for prompt in prompts}) < _LEAST_FRAMED:
        return prompts
    head = _common([prompt.tokens for prompt in prompts])
    tail = _common([prompt.tokens[: head - 1 if head else None : -1] for prompt in prompts])
    tokens = prompts[0].tokens
    head_words, tail_words = (
        sum(token != "_" and bool(_IS_WORD.match(token)) for token in part)
        for part in (tokens[:head], tokens[len(tokens) - tail :])
    )
    if head_words < n:
        head = head_words = 0
    if tail_words < n:
        tail = tail_words = 0

    def inner(prompt: _Prompt) -> _Prompt:
        stop = len(prompt.words) - tail_words
        return _Prompt(
            prompt.id,
            prompt.text,
            prompt.places[head_words:stop],
            prompt.tokens[head : len(prompt.tokens) - tail],
            prompt.words[head_words:stop],
            prompt.masked[head_words:stop],
        )

    return [inner(prompt) for prompt in prompts]


def _common(sequences: Sequence[tuple[str, ...]]) -> int:
    """The number of tokens that all sequences begin with."""
    first, last = min(sequences), max(sequences)
    length = min(len(first), len(last))
    return next((place for place in range(length) if first[place] != last[place]), length)


def _same(train: list[_Prompt], heldout: list[_Prompt], limits: Sequence[float]) -> list[dict[int, Kind]]:
    """For each held-out prompt the training prompts that are equal, exactly or up to numbers."""
    exact, numbers = defaultdict(list), defaultdict(list)
    for place, prompt in enumerate(train):
        exact[prompt.tokens].append(place)
        numbers[prompt.masked].append(place)
    heldout_counts = Counter(prompt.masked for prompt in heldout)
    result: list[dict[int, Kind]] = []
    for prompt in heldout:
        found: dict[int, Kind] = {}
        candidates = numbers.get(prompt.masked, [])
        # "12 + 5 =" without its numbers is no text. A text with many different numbers is the task, not a leak.
        is_text = any(word != "0" for word in prompt.masked)
        if is_text and len(candidates) <= limits[0] and heldout_counts[prompt.masked] <= limits[1]:
            found |= dict.fromkeys(candidates, "numbers")
        found |= dict.fromkeys(exact.get(prompt.tokens, []), "exact")
        result.append(found)
    return result


def _overlaps(
    sets: Sequence[Sequence[tuple[str, ...]]], n: int, threshold: float, limits: Sequence[float], least_plain: float
) -> Callable[[int], Iterator[tuple[int, int, float]]]:
    """A function from the first prompt of a block to its (held-out, training, overlap) from `threshold` on."""
    ids: dict[str, int] = {}
    (train_grams, train_owners), (grams, owners) = (_grams(prompts, n, ids, least_plain) for prompts in sets)
    common = [_frequent(each, limit) for each, limit in zip((train_grams, grams), limits, strict=True)]
    boilerplate = np.concatenate(common)
    kept = ~np.isin(train_grams, boilerplate)
    train_grams, train_owners = train_grams[kept], train_owners[kept]
    kept = ~np.isin(grams, boilerplate)
    grams, owners = grams[kept], owners[kept]
    order = np.argsort(train_grams, kind="stable")
    train_grams, train_owners = train_grams[order], train_owners[order]
    totals = np.bincount(owners, minlength=len(sets[1]))
    width = max(1, len(sets[0]))

    def block(start: int) -> Iterator[tuple[int, int, float]]:
        part = slice(*np.searchsorted(owners, [start, start + _BLOCK]))
        low, high = (np.searchsorted(train_grams, grams[part], side) for side in ("left", "right"))
        counts = high - low
        # Every n-gram of the block paired with every training prompt that has it: positions low, low + 1, …, high - 1.
        positions = np.arange(counts.sum()) + np.repeat(low - (np.cumsum(counts) - counts), counts)
        pairs = np.repeat(owners[part], counts) * width + train_owners[positions]
        for pair, count in zip(*(each.tolist() for each in np.unique(pairs, return_counts=True)), strict=True):
            overlap = count / int(totals[pair // width])
            if overlap >= threshold:
                yield pair // width, pair % width, overlap

    return block


def _grams(
    prompts: Sequence[tuple[str, ...]], n: int, ids: dict[str, int], least_plain: float
) -> tuple[np.ndarray, np.ndarray]:
    """The distinct n-grams of each prompt as hashes, and the indices of their prompts, in order.

    N-grams with fewer than `least_plain` words that are neither a number nor a single letter are left out. A new word
    gets the next free id in `ids`.
    """
    lengths = np.array([len(words) for words in prompts], np.int64)
    tokens = np.array([ids.setdefault(word, len(ids)) for words in prompts for word in words], np.uint64)
    owners = np.repeat(np.arange(len(prompts)), lengths)
    if len(tokens) < n:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    tokens = _mixed(tokens)
    starts = len(tokens) - n + 1
    hashes = np.zeros(starts, np.uint64)
    for offset in range(n):
        hashes = hashes * _ODD + tokens[offset : offset + starts]
    whole = owners[:starts] == owners[n - 1 :]  # no n-gram crosses from one prompt into the next
    plain = np.array([_is_plain(word) for words in prompts for word in words], np.int64)
    whole &= np.convolve(plain, np.ones(n, np.int64), "valid") >= least_plain
    hashes, owners = _mixed(hashes[whole]), owners[:starts][whole]
    order = np.lexsort((hashes, owners))
    hashes, owners = hashes[order], owners[order]
    first = np.ones(len(hashes), bool)
    first[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    return hashes[first], owners[first]


def _is_plain(word: str) -> bool:
    return word.isalpha() and (len(word) > 1 or word >= _FIRST_IDEOGRAPH)


def _mixed(values: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit integers that spreads small ones: the finaliser of SplitMix64 (Steele et al. 2014)."""
    values = (values + np.uint64(1)) * _ODD
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _frequent(grams: np.ndarray, limit: float) -> np.ndarray:
    values, counts = np.unique(grams, return_counts=True)
    return values[counts > limit]


def _shared(train: _Prompt, heldout: _Prompt, masked: bool) -> str:
    a, b = (prompt.masked if masked else prompt.words for prompt in (train, heldout))
    run = difflib.SequenceMatcher(None, a, b, autojunk=False).find_longest_match()
    if run.size == 0:  # the two are equal, without a word
        return heldout.text.strip()[:_SNIPPET]
    start, stop = heldout.places[run.b][0], heldout.places[run.b + run.size - 1][1]
    return " ".join(heldout.text[start:stop].split())[:_SNIPPET]
