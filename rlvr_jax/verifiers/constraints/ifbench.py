"""Instructions of IFBench (Pyatkin et al. 2025, https://arxiv.org/abs/2507.02833): 50 of 58 types.

Included are those that description and kwargs specify completely; the ids in `LEFT_OUT` need a lexicon, a tagger or
world knowledge, or are defined only by their code, and are refused by name. `ifbench_words` has the
instructions about words and sentences, `ifbench_format` those about form.

The checks agree with the published ones (https://github.com/allenai/IFBench) except where these reward what the
description rules out:

- What an instruction says of "each" or "every" thing needs such things: a text of one sentence has no last words that
  the next sentence repeats, one without bullets has no bullets with sub-bullets, one without quotes none that are
  explained, one without words none of prime length, and a single word is in no order.
- `count:conjunctions` counts `And` and `and` as one; `ratio:sentence_words` wants all words to differ;
  `format:output_template` wants its labels in order; a bullet of `format:sub-bullets` and `format:no_bullets_bullets`
  starts a line, and blank lines don't count.
- `sentence:keyword` finds a word that begins or ends with a sign (`C++`), and the instructions about positions do.
  Printed quotes, dashes and bullets are no part of words. A sentence in quotes starts with its first letter.
- Sentences are those of `text.sentences`; words are cut at spaces, where the published check uses NLTK's tokens.

`ratio:overlap` compares trigrams of characters, as the published check does; the description does not say of what.
"""

from collections.abc import Callable, Mapping

from rlvr_jax.verifiers.constraints import ifbench_format, ifbench_words

CHECKS: Mapping[str, Callable[..., bool]] = {**ifbench_words.CHECKS, **ifbench_format.CHECKS}

# IFBench's other instructions, and why they are not here.
LEFT_OUT: Mapping[str, str] = {
    "custom:european_capitals_sort": "it needs a list of capitals by latitude",
    "custom:reverse_newline": "it needs a list of countries",
    "custom:word_reverse": "its description does not say how a reversed sentence is told from others",
    "format:thesis": "its description does not say what a section is",
    "ratio:stop_words": "its description does not say which words are stop words",
    "sentence:alliteration_increment": "its description does not say how several runs in a sentence count",
    "words:odd_even_syllables": "it needs a dictionary of syllables",
    "words:start_verb": "it needs a tagger for parts of speech",
}
