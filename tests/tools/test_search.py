"""The tools `search` and `open`: what they show, their limits, and where they run."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from rlvr_jax.envs import make_env
from rlvr_jax.tasks.corpus import prepare
from rlvr_jax.text.prompts import shortener
from rlvr_jax.text.tokenizers import character_tokenizer, encode
from rlvr_jax.tools import CallError, Result, job_of, make_tool, make_tools, result_of, shown
from rlvr_jax.tools.schema import wrong
from rlvr_jax.tools.search import NOTHING, open_document, search
from rlvr_jax.verifiers.pool import Pool
from tests.text.pretrained import tokenizer

DOCUMENTS = [
    {"id": "a", "title": "Cats", "text": "Cats and dogs. " * 20, "year": 2019, "authors": ["Ann Lee", "Bo Wu"]},
    {"id": "b", "text": "A dog barks at the moon"},
    {"id": "c", "title": "The moon?", "text": "Cheese, or so they say:\nmoons are cheeses", "year": 2020},
]


def embedding(text):
    """Of a query, for the dense ranking: the numbers of its letters a and o."""
    return [text.count("a"), text.count("o")]


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Of a tool for the corpus."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.jsonl").write_text("\n".join(map(json.dumps, DOCUMENTS)))
    return {"corpus": str(folder / "small.jsonl"), "index_dir": str(folder / "prepared")}


@pytest.fixture(scope="module")
def corpus(options):
    """The prepared corpus."""
    return str(prepare(options["corpus"], folder=options["index_dir"]))


def test_a_search_gives_a_line_for_each_document(corpus):
    assert search("moon", corpus=corpus) == (
        "c (2020) The moon? Cheese, or so they say: moons are cheeses\nb. A dog barks at the moon"
    )
    assert search("moon", 1, corpus=corpus).startswith("c (2020)")
    assert search("lee cats", corpus=corpus).startswith("a (2019) Cats. Cats and dogs. Cats and")
    assert search("zebra", corpus=corpus) == NOTHING
    with pytest.raises(CallError, match="query is empty"):
        search(" ", corpus=corpus)


def test_a_document_is_opened_by_its_id(corpus):
    assert open_document("c", corpus=corpus) == "c (2020) The moon?\nCheese, or so they say:\nmoons are cheeses"
    assert open_document("a", corpus=corpus).startswith("a (2019) Cats. Ann Lee, Bo Wu.\nCats and dogs. Cat")
    with pytest.raises(CallError, match="no document 'z'"):
        open_document("z", corpus=corpus)


@pytest.mark.parametrize("kind", ["bytes", "words"])
def test_the_documents_of_a_search_share_the_tokens_of_the_policy(options, corpus, kind):
    tokens = tokenizer("bytes") if kind == "bytes" else character_tokenizer("".join(map(chr, range(10, 127))))
    count, shorten = (lambda text: len(encode(tokens, text))), shortener(tokens)
    found = Result("ok", search("moon dogs", corpus=corpus), 0.5)
    for most in (9, 40, 100, 200):
        tool = make_tool("search", {**options, "tokens": most})
        result = shown(tool, found, shorten)
        assert (result.outcome, result.seconds) == ("cut", 0.5)
        assert count(result.text) <= most
        lines = result.text.split("\n")
        assert len(lines) == 3
        # As much of each line is there as fits, with "…" where the tokenizer has it.
        for line, whole in zip(lines, found.text.split("\n"), strict=True):
            assert count(line) <= most // 3 - 1
            if line != whole:
                assert whole.startswith(line.removesuffix("…"))
                assert count(line) >= most // 3 - 3
                assert line.endswith("…") == (kind == "bytes" and most > 12)
    assert shown(make_tool("search", options), replace(found, text="b. A dog"), shorten).outcome == "ok"


def test_the_tools_run_in_the_processes_of_the_pool_with_the_arguments_of_the_policy(options):
    tools = make_tools({"search": {**options, "k": 2}, "open": options})
    assert [tool.name for tool in tools] == ["search", "open"]
    parameters = tools[0].parameters
    assert not wrong(parameters, {"query": "moon", "k": 3})
    for arguments in (
        {"k": 3},
        {"query": 1},
        {"query": "moon", "k": 0},
        {"query": "moon", "k": 51},
        {"query": "x", "n": 1},
    ):
        assert wrong(parameters, arguments)
    asked = [({"query": "dogs moon"}, 2), ({"query": "dogs moon", "k": 1}, 1), ({"query": "dogs moon", "k": 3}, 3)]
    with Pool(1, timeout=60.0, memory_bytes=512 << 20) as pool:
        jobs = [job_of(tools[0], arguments) for arguments, _ in asked] + [job_of(tools[1], {"id": "z"})]
        *found, absent = (result_of(future.result(), None) for future in pool.submit(jobs))
    assert [len(result.text.splitlines()) for result in found] == [number for _, number in asked]
    assert {result.outcome for result in found} == {"ok"}
    assert (absent.outcome, absent.text) == ("raised", "there is no document 'z'")


def test_dense_rankings_use_the_embeddings_of_the_user(options, tmp_path):
    np.save(tmp_path / "v.npy", np.array([[3, 1], [0, -2], [5, 5]]))
    dense = {**options, "embeddings": str(tmp_path / "v.npy"), "embed": f"{__file__}:embedding"}
    ids = {}
    with Pool(0) as pool:
        for ranking in ("bm25", "dense", "both"):
            tool = make_tool("search", {**dense, "ranking": ranking})
            (future,) = pool.submit([job_of(tool, {"query": "a moon"})])
            ids[ranking] = re.findall(r"^\w", result_of(future.result(), None).text, re.MULTILINE)
    # By the letters, 1 a and 2 o, c is nearer than a.
    assert ids == {"bm25": ["c", "b"], "dense": ["c", "a", "b"], "both": ["c", "b", "a"]}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ranking": "best"}, "bm25, dense, both"),
        ({"k": 0}, "k must be from 1 to 50"),
        ({"k": True}, "k must be .*True"),
        ({"tokens": -1}, "tokens .*-1"),
        ({"tokens": True}, "tokens .*True"),
        ({"ranking": "dense"}, "embeddings and embed missing"),
        ({"ranking": "both", "embeddings": "v.npy"}, ": embed missing"),
        ({"corpus": "absent.jsonl"}, "absent"),
        ({"text": "body"}, r"line 1: the field 'body' is missing"),
        ({"ranking": "dense", "embeddings": "absent.npy", "embed": f"{__file__}:embedding"}, "absent"),
        ({"ranking": "dense", "embeddings": "{v}", "embed": f"{__file__}:absent"}, "absent"),
        ({"colour": 1}, "colour"),
    ],
)
def test_wrong_options_are_refused_before_a_run(options, tmp_path, changes, why):
    np.save(tmp_path / "v.npy", np.ones((3, 2)))
    changes = {key: str(tmp_path / "v.npy") if value == "{v}" else value for key, value in changes.items()}
    with pytest.raises(ValueError, match=why):
        make_env("tools", {"tools": {"search": {**options, **changes}}})
    if "tokens" in changes:
        with pytest.raises(ValueError, match=why):
            make_tool("open", {**options, **changes})


def test_a_corpus_without_a_word_is_refused(tmp_path):
    (tmp_path / "signs.jsonl").write_text(json.dumps({"id": "the", "text": "the: ?!"}))
    with pytest.raises(ValueError, match=r"signs\.jsonl has no word"):
        make_tool("search", {"corpus": str(tmp_path / "signs.jsonl"), "index_dir": str(tmp_path / "prepared")})
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize("name", ["search", "open"])
def test_a_damaged_corpus_is_refused_before_a_run(name, tmp_path):
    (tmp_path / "texts.jsonl").write_text(json.dumps({"id": "a", "text": "A cat."}))
    prepared = prepare(tmp_path / "texts.jsonl", folder=tmp_path / "prepared")
    (prepared / "documents.jsonl").write_text("{}")
    with pytest.raises(ValueError, match="damaged"):
        make_tool(name, {"corpus": str(tmp_path / "texts.jsonl"), "index_dir": str(tmp_path / "prepared")})


def test_the_tools_import_no_jax():
    program = "import sys, rlvr_jax.tools.search; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
