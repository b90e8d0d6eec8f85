"""The ids of the FAISS store in byte order: whatever is written, before, during and after they are sorted."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from vectorstore import Change, Metric, Record
from vectorstore.faiss.gate import Gate
from vectorstore.faiss.id_order import BUCKET_IDS, IdOrder
from vectorstore.faiss.rows import ORDER_BLOCK
from vectorstore.faiss.store import FaissStore


def record(name: str) -> Record:
    return Record(name, np.ones(2, dtype=np.float32), "", {})


def names_of(count: int) -> list[str]:
    names = [f"{at:05d}" for at in range(count)]
    random.Random(5).shuffle(names)
    return names


def filled(names: list[str], kind: str = "flat") -> FaissStore:
    store = FaissStore.empty(dimension=2, metric=Metric.L2, kind=kind)
    store.apply([Change(at, name, record(name)) for at, name in enumerate(names, 1)])
    return store


def paged(store: FaissStore, limit: int = 700) -> list[str]:
    found: list[str] = []
    while block := store.ids(after=found[-1] if found else "", limit=limit):
        assert len(block) <= limit
        found += block
    return found


def test_pages_hold_what_there_is_at_any_time() -> None:
    """Ids that come and go again, in any order, are each told of once and in byte order."""
    chance = random.Random(3)
    present: set[str] = set()
    order = IdOrder(present)
    for step in range(12):
        for name in chance.sample(range(12_000), 3 * BUCKET_IDS):
            one = f"{name:05d}é" if name % 7 else f"{name:05d}"
            if one in present and chance.random() < 0.7:
                present.discard(one)
                order.gone(one)
            else:
                present.add(one)
                order.add([one])
        expected = sorted(present, key=str.encode)
        assert order.following("", len(present) + 1) == expected
        after = expected[step * 50]
        assert order.following(after, 2_500) == expected[step * 50 + 1 :][:2_500]
    for one in sorted(present):
        present.discard(one)
        order.gone(one)
    assert order.following("", 10) == []


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_writes_while_the_ids_are_brought_in_order_are_in_the_pages(kind: str) -> None:
    """New ids, ids that a delete moves to where the ordering has been, and ids that go and come back."""
    names = names_of(4 * ORDER_BLOCK)
    store = filled(names, kind)
    with store.frozen() as (collection, _):
        assert collection.rows.order_more()
        assert collection.rows.order_more()
    store.delete([names[3], names[1_500], names[-1], names[-2]])
    store.upsert([record("new"), record(names[-2]), record(names[7])])
    expected = sorted({*names, "new"} - {names[3], names[1_500], names[-1]})
    assert paged(store) == expected
    store.upsert([record("later"), record(names[3])])
    expected = sorted({*expected, "later", names[3]})
    assert paged(store) == expected
    store.delete(["new", names[2_500]])
    expected = sorted({*expected} - {"new", names[2_500]})
    assert paged(store) == expected
    assert [one.id for one in store.scan(after=names[100], limit=5)] == [
        one for one in expected if one > names[100]
    ][:5]


def test_the_first_page_holds_writes_off_for_one_block_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To bring ten million ids in order takes seconds, which a writer and its readers do not wait."""
    store = filled(names_of(5 * ORDER_BLOCK))
    added: list[int] = []
    read, add = Gate.read, IdOrder.add

    def counted_read(gate: Gate, work: Any) -> Any:
        added.append(0)
        return read(gate, work)

    def counted_add(order: IdOrder, ids: Any) -> None:
        added[-1] += len(ids)
        add(order, ids)

    monkeypatch.setattr(Gate, "read", counted_read)
    monkeypatch.setattr(IdOrder, "add", counted_add)
    assert store.ids(limit=2) == ["00000", "00001"]
    assert sum(added) == 5 * ORDER_BLOCK
    assert max(added) == ORDER_BLOCK


@pytest.mark.parametrize("blocks_before", [1, 2, 3])
def test_what_takes_the_place_of_a_deleted_row_meanwhile_is_on_its_page(
    monkeypatch: pytest.MonkeyPatch, blocks_before: int
) -> None:
    """Rows get fewer and more again between two blocks, the last of which may have been all there was."""
    names = names_of(2 * ORDER_BLOCK)
    store = filled(names)
    reads = 0
    read = Gate.read

    def read_then_written(gate: Gate, work: Any) -> Any:
        nonlocal reads
        reads += 1
        # The first one finds that there is no order yet.
        if reads == blocks_before + 1:
            result = read(gate, work)
            store.delete([names[3], names[-1]])
            store.upsert([record("new"), record("newer")])
            return result
        return read(gate, work)

    with monkeypatch.context() as patched:
        patched.setattr(Gate, "read", read_then_written)
        store.ids(limit=1)
    assert paged(store) == sorted({*names, "new", "newer"} - {names[3], names[-1]})


def test_pages_go_on_after_a_rebuild() -> None:
    """A compaction puts other rows in place, whose ids are not in order yet."""
    names = names_of(1_500)
    store = filled(names, "hnsw")
    first = store.ids(limit=10)
    store.delete(names[:100])
    assert store.compact() == 100
    left = sorted(names[100:])
    assert store.ids(after=first[-1], limit=2_000) == [one for one in left if one > first[-1]]


def test_an_ordering_that_is_broken_off_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the midst of a step leaves nothing half done for whoever asks next."""
    names = names_of(4 * ORDER_BLOCK)
    store = filled(names)

    def broken_off(order: IdOrder, at: int) -> None:
        order._buckets.insert(at, [])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(IdOrder, "_divide", broken_off)
        with pytest.raises(KeyboardInterrupt):
            store.ids(limit=10)
    store.upsert([record("new")])
    store.delete([names[0]])
    assert paged(store) == sorted({*names, "new"} - {names[0]})
