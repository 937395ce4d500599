"""Corpora: their files, BM25 and dense rankings, and the prepared folder."""

import gzip
import json
import math

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_jax.tasks.corpus import Document, bm25, dense, load, prepare, read_documents
from tests.close import assert_close

FILE = "corpus/acl_anthology_2016_2020.jsonl"
SMALL = [
    {"id": "a", "title": "Cats", "text": "Cats and dogs. " * 20, "year": 2019, "authors": ["Ann Lee", "Bo Wu"]},
    {"id": "b", "text": "A dog barks at the moon"},
    {"id": "c", "title": "The moon?", "text": "Cheese, or so they say:\nmoons are cheeses", "year": 2020},
]


@pytest.fixture(scope="module")
def corpus(data_sets):
    """The file of the data sets, or its copy with gzip."""
    path = data_sets / FILE
    return path if path.exists() else path.with_name(f"{path.name}.gz")


def test_documents_are_the_same_in_every_form_of_file(tmp_path):
    lines = "\n".join(map(json.dumps, SMALL)).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "a.json").write_text(json.dumps(SMALL))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(SMALL), tmp_path / "a.parquet")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "1.jsonl").write_bytes(lines.splitlines()[0])
    (tmp_path / "folder" / "2.jsonl").write_bytes(b"\n".join(lines.splitlines()[1:]))
    found = read_documents(tmp_path / "a.jsonl")
    assert found[0] == Document("a", "Cats", "Cats and dogs. " * 20, 2019, ("Ann Lee", "Bo Wu"))
    assert found[1] == Document("b", "", "A dog barks at the moon")
    for name in ("a.jsonl.gz", "a.json", "a.parquet", "folder"):
        assert read_documents(tmp_path / name) == found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "d", "text": "cut', "line 4: not JSON"),
        ('["d"]', "line 4: not an object"),
        ('{"text": "no id"}', "line 4: the field 'id' is missing"),
        ('{"id": 4, "text": "x"}', "line 4: the field 'id' holds 4"),
        ('{"id": "d", "text": " "}', "line 4: the field 'text' holds"),
        ('{"id": "d", "abstract": "x"}', "line 4: the field 'text' is missing"),
        ('{"id": "d", "text": "x", "title": 1}', "line 4: the field 'title' holds 1"),
        ('{"id": "d", "text": "x", "year": "2019"}', "line 4: the field 'year' holds '2019'"),
        ('{"id": "d", "text": "x", "authors": "Ann"}', "line 4: the field 'authors' holds 'Ann'"),
        ('{"id": "d", "text": "\\ud800"}', "line 4: the field 'text' has half of a surrogate"),
        ('{"id": "b", "text": "x"}', "line 4: the id 'b' .*line 2"),
    ],
)
def test_a_malformed_document_is_named_with_file_and_line(tmp_path, line, message):
    file = tmp_path / "bad.jsonl"
    file.write_text("\n".join([*map(json.dumps, SMALL), line]))
    with pytest.raises(ValueError, match=rf"bad\.jsonl, {message}"):
        prepare(file, folder=tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()


def test_a_file_that_is_cut_empty_or_absent_is_named(tmp_path, corpus):
    lines = [json.dumps({**row, "text": row["text"] + str(i)}) for i in range(400) for row in SMALL[1:2]]
    content = gzip.compress("\n".join(lines).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"cut\.jsonl\.gz can't be read after line \d+"):
        read_documents(tmp_path / "cut.jsonl.gz")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"empty\.jsonl holds no document"):
        read_documents(tmp_path / "empty.jsonl")
    with pytest.raises(OSError, match=r"absent\.jsonl"):
        prepare(tmp_path / "absent.jsonl", folder=tmp_path)
    with pytest.raises(ValueError, match=r"line 1: the field 'text' is missing"):
        read_documents(corpus)


def test_words_are_folded_and_singular():
    text = "The Queries of STRAßE ﬁt: cities\u2019 classes, glass, corpus bees 2-hop x_y"
    assert bm25.words(text) == [
        *("query", "strasse", "fit", "city", "classe", "glass", "corpus", "bees", "2", "hop", "x", "y")
    ]


@given(
    st.lists(st.lists(st.sampled_from("uvwxyz"), max_size=9), min_size=1, max_size=12), st.text("uvwxyzq ", max_size=9)
)
def test_scores_are_those_of_the_formula(documents, query):
    index = bm25.make_index([" ".join(words) for words in documents])
    mean = max(np.mean([len(words) for words in documents]), 1.0)
    expected = []
    for words in documents:
        total = 0.0
        for term in query.split():
            having = sum(term in other for other in documents)
            frequency = words.count(term)
            idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            total += idf * frequency * 2.2 / (frequency + 1.2 * (0.25 + 0.75 * len(words) / mean))
        expected.append(total)
    assert_close(bm25.scores(index, query), np.array(expected))


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=30), st.integers(0, 40))
def test_the_best_are_sorted_and_of_equal_ones_the_first(values, k):
    order = [i for i in sorted(range(len(values)), key=lambda i: (-values[i], i)) if values[i] > 0]
    assert bm25.best(np.array(values, np.float32), k) == order[:k]


def test_a_corpus_is_prepared_once_and_damage_is_found(tmp_path, corpus):
    folder = prepare(corpus, "abstract", folder=tmp_path)
    made = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert prepare(corpus, "abstract", folder=tmp_path) == folder
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == made
    assert prepare(corpus, "abstract", withhold=True, folder=tmp_path) != folder
    documents, found = read_documents(corpus, "abstract"), load(folder)
    assert list(found.ids) == [document.id for document in documents]
    assert [found.document(number) for number in (0, len(documents) - 1)] == [documents[0], documents[-1]]
    for number in range(0, len(documents), 1 + len(documents) // 40):
        assert bm25.best(bm25.scores(found.index, documents[number].indexed), 1) == [number]
    load.cache_clear()
    for name in ("weights.npy", "documents.jsonl", "names.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1])
        with pytest.raises(ValueError, match=rf"{name} has changed.*Delete"):
            load(folder)
        (folder / name).write_bytes(content)
    (folder / "starts.npy").unlink()
    with pytest.raises(ValueError, match=r"starts\.npy"):
        load(folder)


def test_dense_rankings_are_by_cosine_and_fused_by_rank(tmp_path):
    vectors = np.array([[3, 1], [0, -2], [5, 5]])
    np.save(tmp_path / "v.npy", vectors)
    cosine = (vectors @ [1, 2]) / (np.linalg.norm(vectors, axis=1) * 5**0.5)
    assert_close(dense.similarities(dense.load_embeddings(tmp_path / "v.npy", 3), np.array([1, 2])), 1 + cosine)
    assert_close(dense.fused([[2, 1], [2, 0, 1]], 3), np.array([1 / 62, 1 / 62 + 1 / 63, 2 / 61]))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 2)), r"shape \(2, 2\); the corpus needs \(3, dimensions\)"),
        (np.ones(3), r"shape \(3,\)"),
        (np.array([[1.0], [np.nan], [1.0]]), "document 1 is not finite"),
        (np.array(["a", "b", "c"])[:, None], "needs"),
        (b"no array", "can't be read"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(tmp_path, array, message):
    file = tmp_path / "v.npy"
    file.write_bytes(array) if isinstance(array, bytes) else np.save(file, array)
    with pytest.raises(ValueError, match=rf"v\.npy.*{message}"):
        dense.load_embeddings(file, 3)
    with pytest.raises(ValueError, match="must be 2 finite numbers"):
        dense.similarities(np.ones((3, 2), np.float32), np.ones(3))
