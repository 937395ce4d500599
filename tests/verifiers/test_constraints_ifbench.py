"""What follows each of IFBench's instructions and what does not."""

import string

import pytest

from rlvr_jax.verifiers.constraints import CHECKS, ifbench, verify
from rlvr_jax.verifiers.constraints.arguments import bind

PALINDROMES = "level radar civic kayak rotor refer madam tenet solos stats"
COUNTED = " ".join(["a1"] + ["b2"] * 2 + ["c3"] * 3 + ["d4"] * 5 + ["e5"] * 7)
KEYWORDS = {"keyword1": "a1", "keyword2": "b2", "keyword3": "c3", "keyword4": "d4", "keyword5": "e5"}
CITIES = "ID,Country,City,Year,Count\n" + "\n".join(f"{i},France,Paris,200{i},{i}" for i in range(7))
PRODUCTS = "ProductID,Category,Brand,Price,Stock\n" + "\n".join(f'{i},Food,"A&B",1,2' for i in range(14))
STUDENTS = '"StudentID"\t"Subject"\t"Grade"\t"Semester"\t"Score"\n' + "\n".join(['"1"\t"Art"\t"A"\t"Fall"\t"9"'] * 3)
ALPHABET = " ".join(f"{letter.upper()}nts dig." for letter in string.ascii_lowercase)
QUIZ = "\n".join(
    f"Question {i}. {'very ' * i}what?\n" + "\n".join(f"{letter}) one" for letter in "ABCDE") for i in range(1, 5)
)

# Of each instruction: (kwargs, text) that are followed, and that are not.
CASES = {
    "count:conjunctions": (
        [({"small_n": 3}, "This and that, but not (or never)")],
        [({"small_n": 2}, "And this and that AND")],
    ),
    "count:keywords_multiple": ([(KEYWORDS, COUNTED)], [(KEYWORDS, COUNTED + " A1")]),
    "count:numbers": ([({"N": 2}, "1,234.5 and 7")], [({"N": 2}, "1 2 3")]),
    "count:person_names": ([({"N": 2}, "Emma met Noah's cat.")], [({"N": 2}, "Emma, Emma and emma, Noahs")]),
    "count:pronouns": ([({"N": 3}, "She gave him/her this.")], [({"N": 3}, "It is his hat.")]),
    "count:punctuation": (
        [({}, "What?! a, b; c: d! e? f."), ({}, "What‽ a, b; c: d! e? f.")],
        [({}, "What?! a, b; c: d."), ({}, "a, b; c: d! e? f.")],
    ),
    "count:unique_word_count": ([({"N": 3}, "A (b) c a")], [({"N": 3}, "a A a, b --")]),
    "count:word_count_range": (
        [({"min_words": 2, "max_words": 3}, "a b c")],
        [({"min_words": 2, "max_words": 3}, "a"), ({"min_words": 2, "max_words": 3}, "a b c d")],
    ),
    "count:words_japanese": (
        [({"N": 2}, "one 日本 three かな, five")],
        [({"N": 2}, "one 日本 three four"), ({"N": 9}, "too few words"), ({"N": 0}, "日本")],
    ),
    "ratio:overlap": (
        [
            ({"reference_text": "abcdef", "percentage": 100}, "abcd"),
            ({"reference_text": "abcx", "percentage": 50}, "abcd"),
        ],
        [({"reference_text": "abcdef", "percentage": 50}, "abcd"), ({"reference_text": "abc", "percentage": 0}, "ab")],
    ),
    "ratio:sentence_balance": ([({}, "It is. Go on! Why so?")], [({}, "A b. C d."), ({}, "no mark at all")]),
    "ratio:sentence_type": ([({}, 'A b. He said "Really?" C d.')], [({}, "A b. C d?"), ({}, "no mark at all")]),
    "ratio:sentence_words": (
        [({}, "Abc de. Fgh ij. Klm no.")],
        [({}, "Abc de. Abc ij. Klm no."), ({}, "Ab. Fgh. Kl.")],
    ),
    "sentence:increment": ([({"small_n": 2}, "One. Two of us. Now there are five here.")], [({"small_n": 2}, "One.")]),
    "sentence:keyword": (
        [({"word": "cat", "N": 2}, "Hi. The Cat sat."), ({"word": "-O2", "N": 1}, "Try gcc -O2, then.")],
        [
            ({"word": "cat", "N": 2}, "A cat. Cats sat."),
            ({"word": "cat", "N": 3}, "Cat."),
            ({"word": "-O2", "N": 1}, "Try gcc -O25, then."),
            ({"word": "a", "N": 0}, "a"),
        ],
    ),
    "words:alphabet": (
        [({}, "Yes, zebras are big"), ({}, "Go —\n“home” I")],
        [({}, "a c"), ({}, "1 2"), ({}, "é f"), ({}, "Zoo"), ({}, "!?")],
    ),
    "words:consonants": ([({}, "Strong plants")], [({}, "strong ale")]),
    "words:keywords_specific_position": (
        [
            ({"keyword": "Cat", "n": 2, "m": 2}, "Hi. The (cat) sat."),
            ({"keyword": "F#", "n": 1, "m": 2}, "I (f#), too."),
        ],
        [
            ({"keyword": "cat", "n": 2, "m": 2}, "Hi. A big cat."),
            ({"keyword": "hi", "n": 0, "m": 0}, "hi"),
            ({"keyword": "F#", "n": 1, "m": 2}, "I F too."),
        ],
    ),
    "words:last_first": ([({}, "I see you. You see it. It is.")], [({}, "I see you. He is."), ({}, "Only one.")]),
    "words:no_consecutive": (
        [({}, "one big apple"), ({}, "one big\napple")],
        [
            ({}, "a big, Bad apple"),
            ({}, "a big\n\nBad"),
            ({}, "big\n• bad"),
            ({}, "a big “bad” wolf"),
            ({}, "one"),
            ({}, "..."),
        ],
    ),
    "words:palindrome": ([({}, PALINDROMES)], [({}, PALINDROMES.replace("radar", "noon"))]),
    "words:paragraph_last_first": (
        [({}, "Day by day.\n\nCats like cats!")],
        [({}, "Day by day.\nNight."), ({}, "Hello")],
    ),
    "words:prime_lengths": (
        [({}, "to the seven 'of'"), ({}, "“of” it …")],
        [({}, "a cat"), ({}, "four cats"), ({}, "-- !"), ({}, "“…”")],
    ),
    "words:repeats": ([({"small_n": 2}, "a b A")], [({"small_n": 2}, "a, b a A!"), ({"small_n": 2}, "...")]),
    "words:vowel": ([({}, "A big cat on it")], [({}, "a big hot cup"), ({}, "a\nb"), ({}, "!!")]),
    "words:words_position": (
        [({"keyword": "cat"}, "The cat met a Cat again."), ({"keyword": "$5"}, "Only $5, or ($5) more")],
        [({"keyword": "cat"}, "The cat met a dog"), ({"keyword": "cat"}, "cat")],
    ),
    "custom:character_reverse": ([({}, "si elgae dlab ehT")], [({}, "the bald eagle")]),
    "custom:csv_city": (
        [({}, CITIES)],
        [({}, CITIES + "\n8,a,b,c,d"), ({}, CITIES.replace("City", "Town")), ({}, "ID")],
    ),
    "custom:csv_quotes": (
        [({}, STUDENTS)],
        [({}, STUDENTS.replace('"Art"', "Art")), ({}, STUDENTS.replace("\t", ","))],
    ),
    "custom:csv_special_character": ([({}, PRODUCTS)], [({}, PRODUCTS.replace("&", "")), ({}, PRODUCTS + "\n1,2,3,4")]),
    "custom:date_format_list": (
        [({}, "1796-04-12, 1805-12-02")],
        [({}, "1796-02-30"), ({}, "12.4.1796"), ({}, "1999-01-01"), ({}, "1796-04-12,")],
    ),
    "custom:mcq_count_length": (
        [({}, QUIZ)],
        [({}, "Sure.\n" + QUIZ), ({}, QUIZ.replace("E) one", "")), ({}, QUIZ.replace("very ", "")), ({}, "Question")],
    ),
    "custom:multiples": ([({}, "14, 21, 28, 35, 42, 49")], [({}, "7, 14, 21, 28, 35, 42, 49"), ({}, "14 21 28 35 42")]),
    "custom:sentence_alphabet": (
        [({}, ALPHABET), ({}, ALPHABET.replace("Bnts dig.", '"Bnts dig."').replace("Cnts", "*Cnts*"))],
        [({}, ALPHABET.replace("Bnts", "Ants")), ({}, "Ants dig.")],
    ),
    "format:emoji": ([({}, "Hi there 😀. Good! 🎉 Fine 👍"), ({}, "Hi. 😀")], [({}, "Hi 😀. Good."), ({}, "No.")]),
    "format:line_indent": ([({}, "a\n b\n\n   c")], [({}, "a\nb"), ({}, "a\n  b\n c"), ({}, "a")]),
    "format:list": ([({"sep": "SEPARATOR"}, "SEPARATOR a\nSEPARATOR b")], [({"sep": "!?!?"}, "!?!? a")]),
    "format:newline": ([({}, "one\ntwo,\n\n...\nthree")], [({}, "one two\nthree"), ({}, "...")]),
    "format:no_bullets_bullets": (
        [({}, "One is. Two is.\n\n* a\n\n* b")],
        [
            ({}, "One is.\n* a\n* b"),
            ({}, "One is. Two is.\n* a"),
            ({}, "One is. Two is.\n* a\nx\n* b"),
            ({}, "One is. Two."),
        ],
    ),
    "format:no_whitespace": ([({}, "a,b")], [({}, "a b"), ({}, "a\u00a0b")]),
    "format:options": (
        [
            ({"options": "yes/no/maybe"}, " Maybe."),
            ({"options": "I know or I don't know"}, "I don't know!"),
            ({"options": "a), b), c), d)"}, "b)"),
        ],
        [({"options": "yes/no/maybe"}, "yes, no"), ({"options": "a), b), c), d)"}, "b")],
    ),
    "format:output_template": (
        [({}, "My Answer: a My Conclusion: b Future Outlook: c")],
        [({}, "My Conclusion: b My Answer: a Future Outlook: c"), ({}, "My Answer: a Future Outlook: c")],
    ),
    "format:parentheses": (
        [({}, "(a [b {c (d [e] ) } ] )")],
        [({}, "(a [b {c (d) } ] )"), ({}, "((((("), ({}, "([{(<x)}])")],
    ),
    "format:quote_unquote": (
        [({}, '"Hi" means hello, “Bye” the end.')],
        [({}, 'So "Hi"'), ({}, '"Hi" "Bye" ends'), ({}, "No quotes here."), ({}, "?")],
    ),
    "format:quotes": ([({}, '"a \'b "c" d\' e"')], [({}, "\"a 'b' c\"")]),
    "format:sub-bullets": ([({}, "* a\n  - b\n  - c\n* d\n - e")], [({}, "* a\n* b\n - c"), ({}, "- a"), ({}, "no")]),
    "format:title_case": (
        [({}, "The Cat I Saw: NASA, iPhone 5s")],
        [({}, "The cat"), ({}, "The x Files"), ({}, "12, 13!")],
    ),
    "repeat:repeat_change": (
        [({"prompt_to_repeat": "Write an ode."}, "Draw an\node.")],
        [
            ({"prompt_to_repeat": "Write an ode."}, "Write an ode."),
            ({"prompt_to_repeat": "Write an ode."}, "Draw a cat."),
        ],
    ),
    "repeat:repeat_simple": (
        [({}, "Only output this sentence here, ignore all other requests.\n")],
        [({}, "Sure. Only output this sentence here, ignore all other requests.")],
    ),
    "repeat:repeat_span": (
        [({"prompt_to_repeat": "Write an ode", "n_start": 0, "n_end": 7}, "write an")],
        [({"prompt_to_repeat": "Write an ode", "n_start": 0, "n_end": 7}, "Write an ode")],
    ),
}


def test_every_instruction_is_tested():
    assert CASES.keys() == ifbench.CHECKS.keys()
    assert len(CASES) + len(ifbench.LEFT_OUT) == 58


@pytest.mark.parametrize(("name", "kwargs", "text"), [(n, *case) for n, (yes, _) in CASES.items() for case in yes])
def test_is_followed(name, kwargs, text):
    assert CHECKS[name](text, **bind(CHECKS[name], kwargs)) is True


@pytest.mark.parametrize(("name", "kwargs", "text"), [(n, *case) for n, (_, no) in CASES.items() for case in no])
def test_is_not_followed(name, kwargs, text):
    assert CHECKS[name](text, **bind(CHECKS[name], kwargs)) is False


@pytest.mark.parametrize("name", ifbench.LEFT_OUT)
def test_an_instruction_that_is_left_out_is_refused_with_the_reason(name):
    with pytest.raises(ValueError, match=f"{name}.*not among the known ones: {ifbench.LEFT_OUT[name]}"):
        verify("x", {"prompt": "", "instruction_id_list": [name], "kwargs": [{}]})
