"""Problems made from a corpus of papers: passages, gold answers, splits, leaks; and the verifier of ids."""

import re

import pytest

from rlvr_jax.tasks import make_task, place_of
from rlvr_jax.tasks.corpus import Document, load, prepare, read_documents
from rlvr_jax.tasks.corpus.bm25 import best, scores, words
from rlvr_jax.tasks.corpus.passages import passages, sentences, without
from rlvr_jax.tools.search import open_document, search
from rlvr_jax.verifiers import verify

KINDS = [("description", 1), ("description", 3), ("citation", 1), ("author", 1)]


@pytest.fixture(scope="module")
def corpus(data_sets):
    path = data_sets / "corpus" / "acl_anthology_2016_2020.jsonl"
    return str(path if path.exists() else path.with_name(f"{path.name}.gz"))


@pytest.fixture(scope="module")
def documents(corpus):
    return {document.id: document for document in read_documents(corpus, "abstract")}


@pytest.fixture(scope="module")
def index_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("corpora"))


@pytest.fixture(scope="module")
def made(corpus, index_dir):
    """The task of each kind."""
    options = {"corpus": corpus, "index_dir": index_dir}
    return {key: make_task("papers", {**options, "kind": key[0], "count": key[1]}) for key in KINDS}


@pytest.fixture(scope="module")
def searched(corpus, index_dir):
    return prepare(corpus, "abstract", withhold=True, folder=index_dir)


def every(task, most=10_000):
    return [
        task.example(split, i) for split in ("train", "heldout") for i in range(min(task.num_examples(split), most))
    ]


def test_sentences_end_where_a_reader_says_so():
    text = 'We follow Lee et al. (2019), e.g. Fig. 2. Does it work? "Yes," says J. Doe. See vs. that.  It is 3.5.'
    assert [text[a:b] for a, b in sentences(text)] == [
        "We follow Lee et al. (2019), e.g. Fig. 2.",
        "Does it work?",
        '"Yes," says J. Doe.',
        "See vs. that.",
        "It is 3.5.",
    ]
    assert sentences("") == []


def test_a_citation_is_of_the_one_paper_with_these_authors_and_year_on_the_same_matter():
    citing = "We parse text fast. The grammar {} is the best for such parsing by far. It is a long known fact."
    others = [
        Document("p1", "Parsing with cats", "x", 2016, ("Ann Lee", "Bo Wu")),
        Document("p2", "Parsing grammar", "x", 2017, ("Ann Lee", "Bo Wu", "Cy Ng")),
        Document("p3", "Speech", "x", 2018, ("Ann Lee", "Bo Wu", "Cy Ng")),
        *(Document(f"p{i}", "Parsing text", "x", 2019, ("Di Li", "Bo Wu", "Cy Ng")) for i in (4, 5)),
    ]
    cases = {
        "of Lee and Wu (2016)": ("of [1]", ("p1",)),
        "(Lee et al., 2017; Lee and Wu, 2016)": ("[1]; [2]", ("p2", "p1")),
        "of Lee et al. (2017), as Lee et al. (2017),": ("of [1], as [1],", ("p2",)),
        "of Lee et al. (2018)": None,  # another matter
        "of Li et al. (2019)": None,  # two papers
        "of Lee and Wu (2017)": None,
        "of Lee et al. (2017) and Roe et al. (2017)": None,  # not all known
    }
    for text, expected in cases.items():
        document = Document("c", "Fast", citing.format(text), 2020)
        (passage,) = passages([document, *others])[:1]
        if expected is None:
            assert passage is None or passage.cited == ()
        else:
            assert (passage.text, passage.cited) == (
                f"The grammar {expected[0]} is the best for such parsing by far.",
                expected[1],
            )
            assert without(document, passage).text == "We parse text fast. It is a long known fact."


def test_rare_words_of_a_large_corpus_are_hidden():
    known = [Document(str(i), "", "Parsing with neural grammar models is good for long texts.") for i in range(2600)]
    text = "We parse. Our parsing model ZORP gets neural grammar for long texts with Zorp-like tricks. It is good."
    passage = passages([*known, Document("own", "", text)])[-1]
    assert passage is None or passage.text.count("ZORP") == 0


@pytest.mark.parametrize("key", KINDS)
def test_problems_are_split_by_year_and_name_papers_of_the_corpus(made, documents, key):
    task = made[key]
    assert task.num_examples("train") > 0
    assert task.num_examples("heldout") > 0
    passage_of = {p.text: d for d, p in zip(documents.values(), passages(list(documents.values())), strict=True) if p}
    for example in every(task, 200):
        ids = example.reference["papers"]
        assert 1 <= len(set(ids)) == len(ids) <= 4
        assert set(ids) <= documents.keys()
        passage = example.prompt.split("\n\n")[1]
        shown = re.findall(r"^\[\d\] (.*)$", passage, re.M) if key[0] == "description" else [passage]
        of = [passage_of[text] for text in shown]
        assert {document.year >= 2020 for document in of} == {place_of(example)[0] == "heldout"}
        if key[0] == "description":
            assert [document.id for document in of] == ids
            assert len(ids) == key[1]
        if key[0] == "author":
            assert {documents[id].authors[0] for id in ids} == {of[0].authors[0]}
            assert of[0].id not in ids


@pytest.mark.parametrize("key", KINDS)
def test_no_passage_stands_in_what_is_searched_and_no_first_search_tells_an_author(made, searched, key):
    found = load(searched)
    texts = [found.document(number).text for number in range(len(found.ids))]
    known = {tuple(words(text[a:b])) for text in texts for a, b in sentences(text)}
    for example in every(made[key]):
        passage = example.prompt.split("\n\n")[1]
        for text in passage.split("\n"):
            assert tuple(words(re.sub(r"^\[\d\] ", "", text))) not in known
        if key[0] == "author":
            first = {found.ids[number] for number in best(scores(found.index, passage), 10)}
            assert not first & set(example.reference["papers"])


def test_known_citations_are_found(made, documents):
    cited = {tuple(example.reference["papers"]) for example in every(made["citation", 1])}
    assert {("C16-1130",), ("D17-1064",), ("N19-1357",), ("P19-1330",), ("D17-1247",)} <= cited
    assert {documents[id].year for ids in cited for id in ids} <= set(range(2016, 2021))


@pytest.mark.whole
def test_the_whole_corpus_has_so_many_problems(made):
    assert {key: (task.num_examples("train"), task.num_examples("heldout")) for key, task in made.items()} == {
        ("description", 1): (5469, 2971),
        ("description", 3): (5218, 2860),
        ("citation", 1): (24, 22),
        ("author", 1): (2432, 1137),
    }


def test_two_searches_and_an_opened_paper_answer_a_question_of_the_kind_author(made, searched, documents):
    answered = 0
    for example in every(made["author", 1], 50):
        first = search(example.prompt.split("\n\n")[1], 1, corpus=str(searched)).split()[0]
        head = open_document(first, corpus=str(searched)).split("\n")[0]
        assert documents[first].authors[0] in head
        second = search(documents[first].authors[0], corpus=str(searched))
        answered += all(id in second for id in example.reference["papers"])
    assert answered > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "quiz"}, "description, citation, author"),
        ({"count": 5}, "1 to 4"),
        ({"kind": "author", "count": 2}, "1 for other kinds"),
        ({"corpus": "absent.jsonl"}, "absent"),
        ({"text": "body"}, "'body' is missing"),
    ],
)
def test_wrong_options_are_refused(corpus, index_dir, options, message):
    with pytest.raises((ValueError, OSError), match=message):
        make_task("papers", {"corpus": corpus, "index_dir": index_dir, **options})


@pytest.mark.parametrize(
    ("completion", "precision", "recall"),
    [
        ("<answer>a, b</answer>", 1, 1),
        ("I found <answer>\nb;\na\n</answer> so", 1, 1),
        ("<answer>a</answer>", 1, 1 / 2),
        ("<answer>a a a b</answer>", 1, 1),
        ("<answer>a,b,c,d</answer>", 1 / 2, 1),
        ("<answer>c</answer>", 0, 0),
        ("<answer></answer>", 0, 0),
        ("<answer>c</answer><answer>a,b</answer>", 1, 1),
        ("<answer>A, B</answer>", 0, 0),
    ],
)
def test_answers_are_scored_by_precision_and_recall(completion, precision, recall):
    verdict = verify("papers", completion, {"papers": ["a", "b"]})
    assert verdict.parts == {"precision": precision, "recall": recall, "answered": 1.0}
    assert verdict.score == pytest.approx(2 * precision * recall / max(precision + recall, 1e-9))


def test_an_absent_answer_and_a_wrong_reference_are_told_apart():
    assert verify("papers", "a, b", {"papers": ["a"]}).parts == {"precision": 0.0, "recall": 0.0, "answered": 0.0}
    for reference in (None, {}, {"papers": []}, {"papers": "a"}, {"papers": [1]}):
        assert "papers" in verify("papers", "<answer>a</answer>", reference).error
