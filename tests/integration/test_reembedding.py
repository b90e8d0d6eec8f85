"""Texts embedded anew: through the real OpenAI client, with faults, kills and two models compared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from farming_guide.errors import ProviderRefused, ProviderUnavailable
from farming_guide.openai_embedder import OpenAIEmbedder
from shadow.cli import app
from shadow.reembedded import ReembeddedTexts
from shadow.reembedding import Pace, estimate, reembed
from tests.fakes.openai_server import FakeOpenAI, vector_of
from tests.foreign.layouts import nested_chunk, write_bare_layout, write_bot_layout
from tests.plugins.migrations import until
from vectorstore.errors import ConfigurationError, IntakeRefused
from vectorstore.faiss.intake import take_in
from vectorstore.faiss.intake.sides import SideRow
from vectorstore.faiss.intake.texts import open_reference, read_texts
from vectorstore.types import Metric

OLD_DIMENSION, NEW_DIMENSION = 64, 1536
ROWS = 150
NEW_MODEL = "text-embedding-3-small"


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


def openai(server: FakeOpenAI, **options: Any) -> OpenAIEmbedder:
    return OpenAIEmbedder(
        api_key="sk-test",
        base_url=server.base_url,
        **{"retries_max": 0, "timeout_s": 5.0, **options},
    )


def texts_asked(server: FakeOpenAI) -> list[str]:
    return [text for request in server.requests for text in request.body["input"]]


def environment(server: FakeOpenAI, model: str = NEW_MODEL) -> dict[str, str]:
    return {
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": server.base_url,
        "OPENAI_EMBEDDING_MODEL": model,
        "OPENAI_EMBEDDING_DIMENSION": str(OLD_DIMENSION),
        "EMBEDDING_CACHE": "",
    }


def records(count: int = ROWS) -> list[SideRow]:
    return [SideRow(f"r{n}", f"passage {n}", {"n": n, "ok": n % 2 == 0}) for n in range(count)]


def quantised_bot(directory: Path) -> Path:
    """The bot's folder with an index that forgot the vectors (PQ)."""
    chunks = [nested_chunk(n) for n in range(ROWS)]
    vectors = np.stack([vector_of(chunk["text"], OLD_DIMENSION) for chunk in chunks])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = faiss.IndexPQ(OLD_DIMENSION, 16, 4)
    index.pq.cp.niter = 4
    index.train(vectors)
    index.add(vectors)
    path = write_bot_layout(directory, "flat", vectors, chunks)
    faiss.write_index(index, str(path))
    return path


def run(*words: object, server: FakeOpenAI, **options: Any) -> Result:
    return CliRunner().invoke(app, [str(one) for one in words], env=environment(server), **options)


def test_a_quantised_index_is_refused_by_name_of_the_command_that_helps_and_that_helps(
    tmp_path: Path, server: FakeOpenAI
) -> None:
    """Refused at intake; `shadow reembed` writes a folder that is taken in, with ids, texts and
    metadata as they were and the new model's vectors; 429, 500 and a cut connection are survived."""
    source = quantised_bot(tmp_path / "old")
    with pytest.raises(IntakeRefused, match="shadow reembed"):
        take_in(source, copy_to=tmp_path / "copy")
    server.faults.extend([429, "none", 500, "none", "cut"])
    target = tmp_path / "new"
    result = run(
        "reembed", target, "--source", source, "--embedder", "farming-guide", "--yes", "--json",
        server=server,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["embedded"] == ROWS
    assert f"{ROWS} records" in result.stderr
    assert "cost about US$ 0.00" in result.stderr
    taken = take_in(target, copy_to=tmp_path / "copy of the new")
    assert (taken.layout, taken.metric, taken.rows) == ("bare", Metric.COSINE, ROWS)
    (record,) = taken.store.get(["7"])
    expected = vector_of("passage 7", NEW_DIMENSION)
    np.testing.assert_allclose(record.embedding, expected / np.linalg.norm(expected), atol=1e-6)
    assert record.text == "passage 7"
    assert record.metadata["source_document"] == "beans.pdf"
    about = json.loads((target / "model.json").read_text())
    assert (about["model"], about["dimension"], about["records"]) == (
        NEW_MODEL,
        NEW_DIMENSION,
        ROWS,
    )
    assert {one.stat().st_mode & 0o077 for one in target.iterdir()} == {0}
    taken.store.close()


def test_nothing_is_sent_without_consent(tmp_path: Path, server: FakeOpenAI) -> None:
    """The estimate comes first; "no", or nobody to ask, ends it before any call."""
    source = quantised_bot(tmp_path / "old")
    words = ("reembed", tmp_path / "new", "--source", source, "--embedder", "farming-guide")
    for answer in ("n\n", ""):
        result = run(*words, server=server, input=answer)
        assert result.exit_code != 0
        assert "about" in result.stderr
    assert server.requests == []
    assert not (tmp_path / "new" / "index.faiss").exists()
    assert run(*words, "--price-per-million", 10, server=server, input="y\n").exit_code == 0
    assert sorted(texts_asked(server)) == sorted(f"passage {n}" for n in range(ROWS))


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, server: FakeOpenAI) -> None:
    """SIGKILL in the third batch: the next run asks for that batch and what follows, and nothing else."""
    source = write_records(tmp_path / "old")
    server.faults.extend(["none", "none", "hang"])
    words = [
        "reembed",
        tmp_path / "new",
        "--source",
        source,
        "--embedder",
        "farming-guide",
        "--yes",
    ]
    command = [sys.executable, "-m", "shadow", *map(str, words)]
    with subprocess.Popen(
        command, env=os.environ | environment(server), stderr=subprocess.DEVNULL
    ) as process:
        until("the third batch", lambda: len(server.requests) == 3)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "new" / "index.faiss").exists()
    server.requests.clear()
    result = run(*words, server=server)
    assert result.exit_code == 0, result.output
    assert "128 embedded already" in result.stderr
    assert texts_asked(server) == [f"passage {n}" for n in range(128, ROWS)]
    server.requests.clear()
    assert run(*words, server=server).exit_code == 0
    assert server.requests == []


def write_records(directory: Path) -> Path:
    """A bare folder over an SQ8 index, with records.jsonl."""
    index = faiss.index_factory(OLD_DIMENSION, "SQ8")
    rows = records()
    vectors = np.stack([vector_of(row.text, OLD_DIMENSION) for row in rows])
    index.train(vectors)
    index.add(vectors)
    return write_bare_layout(
        directory,
        index,
        [row.id for row in rows],
        texts=[row.text for row in rows],
        metadata=[row.metadata for row in rows],
    )


@pytest.mark.parametrize("fault", [429, 500, "cut"])
def test_passing_trouble_is_tried_again_and_lasting_trouble_keeps_what_was_paid_for(
    tmp_path: Path, server: FakeOpenAI, fault: int | str
) -> None:
    """Beyond the client's own retries: two more faults are waited out with growing pauses; a service
    that stays away ends the run with what it had done kept."""
    pauses: list[float] = []
    pace = Pace(clock=lambda: 0.0, sleep=pauses.append)
    model = openai(server)
    with ReembeddedTexts(tmp_path, model=model.model, dimension=model.dimension) as kept:

        def embed() -> None:
            reembed(
                records(), target=tmp_path, kept=kept, embedder=model, source="a test", pace=pace
            )

        server.faults.extend(["none", fault, fault, "none", *[fault] * 6])
        with pytest.raises(ProviderUnavailable):
            embed()
        assert pauses == [1.0, 2.0, 1.0, 2.0, 4.0, 8.0, 16.0]
        assert estimate(records(), kept, price_usd_per_million=0.02).known == 128
        embed()
    model.close()
    assert take_in(tmp_path, copy_to=tmp_path / "copy").rows == ROWS


def test_a_refusal_is_not_tried_again(tmp_path: Path, server: FakeOpenAI) -> None:
    """A bad key costs one call."""
    server.permanent_fault = 401
    model = openai(server)
    with (
        ReembeddedTexts(tmp_path, model=model.model, dimension=model.dimension) as kept,
        pytest.raises(ProviderRefused),
    ):
        reembed(records(), target=tmp_path, kept=kept, embedder=model, source="a test")
    assert len(server.requests) == 1
    model.close()


class Clock:
    """Time that passes only in sleep."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Counting:
    """An embedder that notes when how much came."""

    model = "counting"
    dimension = 4

    def __init__(self, clock: Clock, answer: Any = None) -> None:
        self._clock = clock
        self._answer = answer
        self.sent: list[tuple[float, list[str]]] = []

    def embed(self, texts: Sequence[str]) -> Any:
        self.sent.append((self._clock.now, list(texts)))
        return np.ones((len(texts), 4)) if self._answer is None else self._answer


@pytest.mark.parametrize("limit", [{"texts_per_s": 10.0}, {"tokens_per_min": 600.0}])
def test_no_more_is_sent_than_the_limits_allow(tmp_path: Path, limit: dict[str, float]) -> None:
    """At any moment, what was sent before the latest batch fits the time that has passed."""
    clock = Clock()
    model = Counting(clock)
    pace = Pace(clock=clock, sleep=clock.sleep, **limit)
    with ReembeddedTexts(tmp_path, model="counting", dimension=4) as kept:
        reembed(records(), target=tmp_path, kept=kept, embedder=model, source="x", pace=pace)
    assert sum(len(texts) for _, texts in model.sent) == ROWS
    # Every text of these is three tokens by the estimate, and 600 tokens a minute are 10 a second.
    weight = 1 if "texts_per_s" in limit else 3
    sent = 0
    for at, texts in model.sent:
        assert weight * sent <= 10.0 * at + 1e-6
        sent += len(texts)
    assert len(model.sent) > 1
    assert clock.now == pytest.approx(weight * (ROWS - len(model.sent[-1][1])) / 10.0)


@pytest.mark.parametrize(
    "answer", [np.ones((3, 4)), np.ones((64, 5)), np.full((64, 4), np.nan), np.zeros((64, 4))]
)
def test_an_answer_that_is_no_vectors_is_refused(tmp_path: Path, answer: Any) -> None:
    """Neither kept nor written."""
    with (
        ReembeddedTexts(tmp_path, model="counting", dimension=4) as kept,
        pytest.raises(ConfigurationError, match="counting"),
    ):
        reembed(
            records(64), target=tmp_path, kept=kept, embedder=Counting(Clock(), answer), source="x"
        )
    assert not (tmp_path / "index.faiss").exists()


def test_one_folder_holds_one_model_and_one_run(tmp_path: Path) -> None:
    """Vectors of two models never meet, and a second run beside the first is refused."""
    with (
        ReembeddedTexts(tmp_path, model="a", dimension=4),
        pytest.raises(ConfigurationError, match="another run"),
    ):
        ReembeddedTexts(tmp_path, model="a", dimension=4)
    for model, dimension in (("b", 4), ("a", 5)):
        with pytest.raises(ConfigurationError, match="another folder"):
            ReembeddedTexts(tmp_path, model=model, dimension=dimension)


def test_texts_that_do_not_fit_the_index_or_cannot_be_embedded_are_refused(tmp_path: Path) -> None:
    """A record too many, an empty text, an id twice; what is left out by id is not asked about."""
    path = write_records(tmp_path)
    side = tmp_path / "records.jsonl"
    lines = side.read_text().splitlines()
    side.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(IntakeRefused, match=r"149 records and .* 150 vectors"):
        read_texts(path)
    lines[3] = json.dumps({"id": "r3", "text": " "})
    lines[4] = json.dumps({"id": "r5", "text": "twice"})
    side.write_text("\n".join(lines) + "\n")
    with pytest.raises(IntakeRefused, match=r"2 of 150 records.*no text.*another record"):
        read_texts(path)
    assert len(read_texts(path, leave_out=frozenset({"r3", "r5"}))) == ROWS - 3


def test_a_migration_changes_its_model_and_both_sides_answer_questions_in_words(
    tmp_path: Path,
    server: FakeOpenAI,
    postgresql_dsn: str,
    fresh_table: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A running migration's texts get vectors of another dimension; the new folder goes through
    backfill and verify, and compares with the old index by text, as agreement and not as recall."""
    old = tmp_path / "old"
    one = openai(server, model="small", dimension=OLD_DIMENSION)
    with ReembeddedTexts(old, model=one.model, dimension=one.dimension) as kept:
        reembed(records(), target=old, kept=kept, embedder=one, source="a test")
    one.close()
    config = tmp_path / "shadow.toml"

    def settings(folder: Path, state: str) -> None:
        config.write_text(
            f'state_directory = "{tmp_path / state}"\n[faiss]\npath = "{folder}"\n'
            f'[postgresql]\ndsn = "{postgresql_dsn}"\ntable = "{fresh_table}"\n'
        )

    settings(old, "state of the old")
    new = tmp_path / "new"
    made = run("reembed", new, "-c", config, "--embedder", "farming-guide", "--yes", server=server)
    assert made.exit_code == 0, made.output
    assert f'path = "{new}"' in made.stdout
    assert "as of write 0" in json.loads((new / "model.json").read_text())["source"]
    settings(new, "state of the new")
    for command in ("backfill", "verify"):
        result = run(command, "-c", config, server=server)
        assert result.exit_code == 0, result.output
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"text": f"passage {n}"}) + "\n" for n in range(20)))
    words = ["compare-models", questions, "-c", config, "--embedder", "farming-guide"]
    other = ["--reference", old, "--reference-embedder", "older"]
    with_older_model(tmp_path / "plugin", server)
    monkeypatch.syspath_prepend(tmp_path / "plugin")
    done = run(*words, *other, "--json", server=server)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    # Each question is a record's own text: both models find that record first, and the rest by chance.
    assert (found["queries"], found["same_nearest"]) == (20, 1.0)
    assert 0.1 <= found["shared"] < 0.5
    assert "differ by design" in found["note"]
    assert (found["model"], found["reference_model"]) == (NEW_MODEL, "small")
    wrong = run(*words, "--reference", old, "--reference-embedder", "farming-guide", server=server)
    assert wrong.exit_code == 2
    assert "64 dimensions" in wrong.output


def with_older_model(folder: Path, server: FakeOpenAI) -> None:
    """A package that offers the old model as an entry point, as an application would."""
    about = folder / "older-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: older\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[shadow.embedders]\nolder = older_model:make\n")
    (folder / "older_model.py").write_text(
        "from farming_guide.openai_embedder import OpenAIEmbedder\n"
        "def make():\n"
        f"    return OpenAIEmbedder(api_key='k', base_url={server.base_url!r}, model='small',"
        f" dimension={OLD_DIMENSION})\n"
    )


def test_a_quantised_index_can_still_be_asked_for_comparison(tmp_path: Path) -> None:
    """Of its own answers, by id, as the application searches it."""
    reference = open_reference(quantised_bot(tmp_path))
    questions = np.stack([vector_of(f"passage {n}", OLD_DIMENSION) for n in range(40)])
    questions /= np.linalg.norm(questions, axis=1, keepdims=True)
    nearest = reference.nearest(questions, 5)
    assert reference.dimension == OLD_DIMENSION
    assert [len(ids) for ids in nearest] == [5] * 40
    assert sum(str(n) in ids for n, ids in enumerate(nearest)) >= 36
