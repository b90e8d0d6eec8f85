"""Embeddings: the real OpenAI client against a local server, and the offline model."""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farming_guide.embeddings import embedder_from_environment
from farming_guide.errors import ProviderError, ProviderRefused, ProviderUnavailable
from farming_guide.local_embedder import LocalEmbedder
from farming_guide.openai_embedder import OpenAIEmbedder
from tests.fakes.openai_server import FakeOpenAI, vector_of
from vectorstore.errors import ConfigurationError, InvalidInput

KEY = "sk-test-0123456789abcdefghijklmnop"


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


def embedder(server: FakeOpenAI, **options: Any) -> OpenAIEmbedder:
    settings: dict[str, Any] = {"timeout_s": 5.0, "retries_max": 2, **options}
    return OpenAIEmbedder(api_key=KEY, base_url=server.base_url, **settings)


@pytest.mark.parametrize(
    ("model", "dimension"),
    [("text-embedding-3-small", 1536), ("text-embedding-3-large", 3072), ("ada-002", 1536)],
)
def test_vectors_come_back_in_order_and_of_unit_length(
    server: FakeOpenAI, model: str, dimension: int
) -> None:
    """Each text gets its own vector, although the server answers the rows in another order."""
    texts = [f"question {i}" for i in range(5)]
    vectors = embedder(server, model=model).embed(texts)
    assert vectors.shape == (5, dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    expected = vector_of("question 3", dimension)
    np.testing.assert_allclose(vectors[3], expected / np.linalg.norm(expected), atol=1e-6)


def test_many_texts_are_sent_in_batches_and_equal_ones_once(server: FakeOpenAI) -> None:
    """300 texts of which 200 differ are two calls."""
    texts = [f"text {i % 200}" for i in range(300)]
    vectors = embedder(server).embed(texts)
    assert vectors.shape == (300, 1536)
    assert [len(request.body["input"]) for request in server.requests] == [128, 72]
    np.testing.assert_array_equal(vectors[0], vectors[200])


def test_the_cache_keeps_what_was_paid_for(server: FakeOpenAI, tmp_path: Path) -> None:
    """A second process asks only for what is new; another model shares nothing; texts are not kept."""
    path = tmp_path / "cache.sqlite"
    first = embedder(server, cache_path=path).embed(["maize", "beans"])
    again = embedder(server, cache_path=path).embed(["beans", "soya", "maize"])
    np.testing.assert_array_equal(again[[2, 0]], first)
    assert [request.body["input"] for request in server.requests] == [["maize", "beans"], ["soya"]]
    embedder(server, cache_path=path, model="ada-002").embed(["maize"])
    assert len(server.requests) == 3
    assert b"maize" not in path.read_bytes()


def test_a_failure_after_the_first_batch_loses_nothing(server: FakeOpenAI, tmp_path: Path) -> None:
    """What arrived before the failure is not asked for again."""
    texts = [f"text {i}" for i in range(200)]
    one = embedder(server, cache_path=tmp_path / "c.sqlite", retries_max=0)
    server.faults.extend(["none", 500])
    with pytest.raises(ProviderUnavailable):
        one.embed(texts)
    one.embed(texts)
    assert [len(request.body["input"]) for request in server.requests] == [128, 72, 72]


@pytest.mark.parametrize("fault", [429, 500, 503, "cut"])
def test_passing_trouble_is_retried(server: FakeOpenAI, fault: int | str) -> None:
    """One failure is not the user's business."""
    server.faults.append(fault)
    assert embedder(server).embed(["maize"]).shape == (1, 1536)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (429, ProviderUnavailable, "429"),
        (500, ProviderUnavailable, "500"),
        ("cut", ProviderUnavailable, "reached"),
        ("hang", ProviderUnavailable, "in time"),
        (401, ProviderRefused, "OPENAI_API_KEY"),
        (403, ProviderRefused, "OPENAI_API_KEY"),
        (400, ProviderRefused, "model and base URL"),
        (404, ProviderRefused, "model and base URL"),
        ("rubbish", ProviderRefused, "interface"),
    ],
)
def test_lasting_trouble_is_one_clear_error_without_the_key(
    server: FakeOpenAI, fault: int | str, kind: type[ProviderError], says: str
) -> None:
    """The error says what to do; neither it nor its traceback shows the key that the server quoted."""
    server.permanent_fault = fault
    server.error_text = f"Incorrect API key provided: {KEY}"
    with pytest.raises(kind, match=says) as caught:
        embedder(server, retries_max=1, timeout_s=0.4).embed(["maize"])
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_no_network_is_an_error_in_words() -> None:
    """A server that is not there is told from one that refuses."""
    one = OpenAIEmbedder(api_key=KEY, base_url="http://127.0.0.1:9/v1", retries_max=0, timeout_s=1)
    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        one.embed(["maize"])


def test_a_model_of_another_size_is_refused(server: FakeOpenAI) -> None:
    """A vector that would not fit the store never reaches it."""
    one = embedder(server, model="own-model", dimension=100)
    with pytest.raises(ProviderRefused, match="100 dimensions"):
        one.embed(["maize"])
    with pytest.raises(ConfigurationError, match="own-model"):
        embedder(server, model="own-model")


def test_an_empty_text_is_refused_before_it_costs_anything(server: FakeOpenAI) -> None:
    """There is nothing to embed in a blank."""
    with pytest.raises(InvalidInput, match="empty"):
        embedder(server).embed(["maize", "  "])
    assert not server.requests


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    """The message says which file to delete."""
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"not a database, but long enough to look at" * 50)
    with pytest.raises(ConfigurationError, match=r"cache\.sqlite"):
        OpenAIEmbedder(api_key=KEY, cache_path=path)
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(path).execute("SELECT * FROM embedding")


def test_the_offline_model_knows_what_belongs_together() -> None:
    """A question is nearer to its answer than to another topic; vectors are unit and repeatable."""
    local = LocalEmbedder()
    texts = [
        "When should maize be planted?",
        "Plant maize with the first good rains in November.",
        "Vaccinate village chickens against Newcastle disease.",
    ]
    vectors = local.embed(texts)
    assert vectors.shape == (3, local.dimension) == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3
    np.testing.assert_array_equal(local.embed(texts[2:])[0], vectors[2])
    assert local.embed([]).shape == (0, 384)


def test_the_environment_chooses(server: FakeOpenAI) -> None:
    """A key means OpenAI, no key means the offline model; a wrong size setting is named."""
    assert isinstance(embedder_from_environment({}), LocalEmbedder)
    chosen = embedder_from_environment(
        {
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_EMBEDDING_MODEL": "text-embedding-3-large",
        }
    )
    assert chosen.dimension == 3072
    assert chosen.embed(["maize"]).shape == (1, 3072)
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    with pytest.raises(ConfigurationError, match="OPENAI_EMBEDDING_DIMENSION"):
        embedder_from_environment({"OPENAI_API_KEY": KEY, "OPENAI_EMBEDDING_DIMENSION": "many"})
