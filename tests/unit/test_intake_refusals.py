"""What cannot be taken in without loss or risk is refused, with the reason and the way out."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from tests.foreign.layouts import (
    flat_chunk,
    write_bare_layout,
    write_bot_layout,
    write_langchain_layout,
    write_llamaindex_layout,
)
from vectorstore import IntakeRefused, Metric
from vectorstore.faiss.intake import take_in
from vectorstore.faiss.intake.pickles import check_opcodes, read_pickle
from vectorstore.faiss.intake.vectors import _check_graph

ROWS, DIMENSION = 60, 8


def vectors() -> Any:
    return np.random.default_rng(5).normal(size=(ROWS, DIMENSION)).astype(np.float32)


def chunks() -> list[dict[str, Any]]:
    return [flat_chunk(at) for at in range(ROWS)]


def refusal(path: Path, copy: Path, **options: Any) -> str:
    with pytest.raises(IntakeRefused) as caught:
        take_in(path, copy_to=copy, **options)
    return str(caught.value)


class Runs:
    """Makes a directory when it is unpickled by what runs pickles."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("wrap", [lambda bad: {"metadata": [bad]}, lambda bad: (bad, {}), list])
def test_a_malicious_pickle_never_runs(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    """Code in a pickle is refused by the name it asks for, wherever it sits, and is not called."""
    path = write_bot_layout(tmp_path / "bot", "flat", vectors(), chunks())
    bad = Runs(tmp_path / "ran")
    saved = [bad] if wrap is list else wrap(bad)
    path.with_suffix(".metadata").write_bytes(pickle.dumps(saved, protocol=4))
    message = refusal(path, tmp_path / "copy")
    assert "posix.mkdir" in message
    assert not (tmp_path / "ran").exists()


def pickled(tmp_path: Path, code: bytes) -> Path:
    (tmp_path / "side.pkl").write_bytes(code)
    return tmp_path / "side.pkl"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("os", "system"),
        ("langchain_core.documents.base", "os.system"),
        ("langchain_community.docstore.in_memory", "requests"),
        ("vectorstore.faiss.intake.pickles", "StandIn"),
        ("copyreg", "_reconstructor"),
    ],
)
def test_no_name_but_the_few_allowed_is_looked_up(tmp_path: Path, module: str, name: str) -> None:
    """Every other global is refused by name, dotted paths through allowed modules too."""
    code = b"\x80\x04" + b"".join(
        b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name)
    )
    with pytest.raises(IntakeRefused, match=f"{module}.{name}"):
        read_pickle(pickled(tmp_path, code + b"\x93."))


def test_what_a_pickle_does_to_a_stand_in_ends_with_the_file(tmp_path: Path) -> None:
    """State set on a stand-in class by one file is not there for the next."""
    module, name = b"langchain_core.documents.base", b"Document"
    get = b"\x8c" + bytes([len(module)]) + module + b"\x8c" + bytes([len(name)]) + name + b"\x93"
    harm = b"\x80\x04" + get + b"}\x8c\x04kind\x8c\x06stolensb."
    with pytest.raises(IntakeRefused):
        read_pickle(pickled(tmp_path, harm))
    clean = read_pickle(pickled(tmp_path, b"\x80\x04" + get + b")\x81."))
    assert clean.kind == "document"
    assert clean.fields() == {}


def test_opcodes_made_to_exhaust_memory_are_refused(tmp_path: Path) -> None:
    """A memo number far beyond the opcodes read, persistent ids and extensions stop before running."""
    with pytest.raises(IntakeRefused, match="memo places"):
        check_opcodes(pickled(tmp_path, b"\x80\x04Nr" + struct.pack("<I", 2**31) + b"."))
    for code in (b"\x80\x04Pname\n.", b"\x80\x04\x82\x01."):
        with pytest.raises(IntakeRefused, match="opcode"):
            check_opcodes(pickled(tmp_path, code))


def test_a_pickle_that_crashes_its_reader_is_met_in_a_child(tmp_path: Path) -> None:
    """Tuples nested a million deep overflow the C stack when hashed; this process lives on."""
    path = write_bot_layout(tmp_path / "bot", "flat", vectors(), chunks())
    deep = b"\x80\x04})" + b"\x85" * 1_000_000 + b"Ns."
    path.with_suffix(".metadata").write_bytes(deep)
    assert "damaged" in refusal(path, tmp_path / "copy")


def test_metadata_that_would_take_for_ever_to_walk_is_refused(tmp_path: Path) -> None:
    """A list of lists of lists that share their members is cut off by count."""
    laugh: list[Any] = ["ha"]
    for _ in range(40):
        laugh = [laugh, laugh]
    path = write_bot_layout(
        tmp_path / "bot", "flat", vectors(), [*chunks()[:-1], {"text": "t", "l": laugh}]
    )
    assert "more than 20,000 values" in refusal(path, tmp_path / "copy")


def test_metadata_that_is_nested_deeper_than_a_stack_is_refused(tmp_path: Path) -> None:
    """A pickle builds step by step what no recursion can walk through."""
    marked = [*chunks()[:-1], {"text": "t", "odd": "nested"}]
    path = write_bot_layout(tmp_path / "bot", "flat", vectors(), marked)
    saved = {"metadata": marked, "id_to_chunk": None, "dimension": None, "index_type": None}
    text = pickle.BINUNICODE + struct.pack("<I", 6) + b"nested"
    lists = pickle.EMPTY_LIST * 5_000 + pickle.APPEND * 4_999
    deep = pickle.dumps(saved, protocol=2).replace(text, lists)
    path.with_suffix(".metadata").write_bytes(deep)
    assert "nested more than 64 levels" in refusal(path, tmp_path / "copy")


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
@pytest.mark.parametrize("share", [0.0, 0.999])
def test_a_truncated_index_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    """Wherever it was cut, and nothing is loaded."""
    path = write_bot_layout(tmp_path / "bot", kind, vectors(), chunks())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    message = refusal(path, tmp_path / "copy")
    assert "cut off" in message or "does not begin" in message


@pytest.mark.parametrize("layout", ["bot", "langchain", "llamaindex"])
def test_a_truncated_side_file_is_refused(tmp_path: Path, layout: str) -> None:
    """Half a pickle or half a JSON file is damage, said in words."""
    ids = [f"d{at}" for at in range(ROWS)]
    write = {"langchain": write_langchain_layout, "llamaindex": write_llamaindex_layout}
    if layout == "bot":
        path = write_bot_layout(tmp_path / "x", "flat", vectors(), chunks())
        side = path.with_suffix(".metadata")
    else:
        path = write[layout](tmp_path / "x", vectors(), ids, ids, [{}] * ROWS)
        side = path.with_name("index.pkl" if layout == "langchain" else "docstore.json")
    side.write_bytes(side.read_bytes()[: side.stat().st_size // 2])
    assert str(side) in refusal(path, tmp_path / "copy")


def test_a_graph_that_points_outside_itself_is_refused(tmp_path: Path) -> None:
    """An HNSW file of the right length with a neighbour out of range never reaches a search.

    FAISS has looked for itself since 1.15 or so; older ones leave it to the check made here.
    """
    index = faiss.IndexHNSWFlat(DIMENSION, 8)
    index.add(vectors())
    neighbours = faiss.rev_swig_ptr(index.hnsw.neighbors.data(), index.hnsw.neighbors.size())
    neighbours[0] = 10_000_000
    path = write_bare_layout(tmp_path / "x", index, range(ROWS), [""] * ROWS)
    assert "is damaged" in refusal(path, tmp_path / "copy")
    with pytest.raises(IntakeRefused, match="points outside itself"):
        _check_graph(path, index)


def test_rubbish_behind_a_good_head_is_refused(tmp_path: Path) -> None:
    """A file that lies about everything after its head ends in words, not in a crash."""
    path = write_bot_layout(tmp_path / "bot", "ivf", vectors(), chunks())
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + np.random.default_rng(0).bytes(len(whole) - 60))
    assert "fetch it again" in refusal(path, tmp_path / "copy")


@pytest.mark.parametrize("factory", ["PQ4x4", "IVF2,PQ4x4", "SQ8", "IVF2,SQ8", "HNSW8,SQ8", "LSH"])
def test_indexes_that_do_not_keep_vectors_are_refused(tmp_path: Path, factory: str) -> None:
    """Quantised indexes name re-embedding as the way out."""
    index = faiss.index_factory(DIMENSION, factory)
    many = np.random.default_rng(1).normal(size=(400, DIMENSION)).astype(np.float32)
    index.train(many)
    index.add(many)
    path = write_bare_layout(tmp_path / "x", index, range(400))
    message = refusal(path, tmp_path / "copy")
    assert "embed the texts again" in message or "flat index" in message


def test_a_side_file_of_another_length_is_refused(tmp_path: Path) -> None:
    """Both counts are named, and a vector without a record can be left out by its position."""
    path = write_bot_layout(tmp_path / "bot", "flat", vectors(), chunks()[:-1])
    message = refusal(path, tmp_path / "copy")
    assert f"{ROWS} vectors, {ROWS - 1} records" in message
    assert f"position:{ROWS - 1}" in message
    left_out = frozenset({f"position:{ROWS - 1}"})
    assert take_in(path, copy_to=tmp_path / "copy", quarantine=left_out).rows == ROWS - 1
    write_bot_layout(tmp_path / "longer", "flat", vectors(), [*chunks(), flat_chunk(ROWS)])
    assert "1 records without a vector" in refusal(tmp_path / "longer", tmp_path / "copy 2")


def test_a_side_file_of_another_dimension_is_refused(tmp_path: Path) -> None:
    """Two files that were never a pair are told apart by what the side file says."""
    path = write_bot_layout(tmp_path / "bot", "flat", vectors(), chunks())
    saved = {"metadata": chunks(), "id_to_chunk": None, "dimension": 99, "index_type": "flat"}
    path.with_suffix(".metadata").write_bytes(pickle.dumps(saved, protocol=4))
    assert "99 dimensions" in refusal(path, tmp_path / "copy")


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_rows_that_no_store_may_hold_are_listed_and_can_be_left_out(
    tmp_path: Path, kind: str
) -> None:
    """NaN and NUL rows are named together; quarantined by id, the rest comes in bit for bit."""
    raw = vectors()
    marked = chunks()
    marked[7] = {**marked[7], "text": "a\0b"}
    path = write_bot_layout(tmp_path / "bot", kind, raw, marked)
    index = faiss.read_index(str(path))
    if kind != "ivf":
        storage = index if kind == "flat" else faiss.downcast_index(index.storage)
        faiss.rev_swig_ptr(storage.get_xb(), ROWS * DIMENSION)[3 * DIMENSION] = np.nan
        faiss.write_index(index, str(path))
    message = refusal(path, tmp_path / "copy")
    assert "position:7" in message
    assert "NUL" in message
    bad = {"7"} if kind == "ivf" else {"3", "7"}
    if kind != "ivf":
        assert "position:3" in message
        assert "NaN" in message
    taken = take_in(path, copy_to=tmp_path / "copy", quarantine=frozenset(bad))
    kept = [at for at in range(ROWS) if str(at) not in bad]
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True) if kind == "flat" else raw
    np.testing.assert_array_equal(taken.store.vectors(0, ROWS), expected[kept])
    assert [one.id for one in taken.store.records(0, ROWS)] == [str(at) for at in kept]
    assert any("left out by name" in note for note in taken.notes)


def test_a_zero_vector_is_refused_under_cosine_alone(tmp_path: Path) -> None:
    """Cosine cannot rank it; by default an index that holds one is inner product."""
    raw = vectors() / np.linalg.norm(vectors(), axis=1, keepdims=True)
    raw[5] = 0
    index = faiss.IndexFlatIP(DIMENSION)
    index.add(raw)
    path = write_bare_layout(tmp_path / "x", index, range(ROWS), [""] * ROWS)
    (tmp_path / "x" / "records.jsonl").write_text(
        "".join(json.dumps({"id": f"d{at}", "text": ""}) + "\n" for at in range(ROWS))
    )
    message = refusal(path, tmp_path / "copy", metric=Metric.COSINE)
    assert "'d5'" in message
    assert "zero vector" in message
    assert take_in(path, copy_to=tmp_path / "copy").metric is Metric.INNER_PRODUCT


def test_an_id_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    """Both places are named, and one can be left out by its position."""
    index = faiss.IndexFlatL2(DIMENSION)
    index.add(vectors())
    ids = [f"d{at}" for at in range(ROWS)]
    ids[9] = "d2"
    path = write_bare_layout(tmp_path / "x", index, ids, [""] * ROWS)
    message = refusal(path, tmp_path / "copy")
    assert "position:9" in message
    assert "position:2" in message
    quarantine = frozenset({"position:9"})
    assert take_in(path, copy_to=tmp_path / "copy", quarantine=quarantine).rows == ROWS - 1
