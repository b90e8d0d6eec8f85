"""IVF indexes whose rows lie in another file are refused in words, and the way out that is named works."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from tests.foreign.layouts import write_bare_layout
from vectorstore import IntakeRefused, Metric
from vectorstore.faiss.intake import take_in
from vectorstore.faiss.intake.vectors import open_index, read_any

ROWS, DIMENSION = 60, 8
NAMES = [f"r{at}" for at in range(ROWS)]


def outside(folder: Path, lists: int, *, mapped: bool = False) -> Path:
    vectors = np.random.default_rng(5).normal(size=(ROWS, DIMENSION)).astype(np.float32)
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(DIMENSION), DIMENSION, lists)
    index.train(vectors)
    whole = faiss.IndexIDMap(index) if mapped else index
    if mapped:
        whole.add_with_ids(vectors, np.arange(ROWS))
    else:
        index.add(vectors)
    moved = faiss.OnDiskInvertedLists(lists, index.code_size, str(folder / "lists.data"))
    moved.merge_from(index.invlists, 0)
    index.replace_invlists(moved)
    return write_bare_layout(folder / "x", whole, NAMES, [""] * ROWS)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("lists", [4, 60])
def test_rows_in_another_file_are_no_damage(
    tmp_path: Path, lists: int, mapped: bool, there: bool
) -> None:
    """Whether that file is there or not, however large the head is, and that file stays as it was."""
    path = outside(tmp_path, lists, mapped=mapped)
    rows = (tmp_path / "lists.data").read_bytes()
    if not there:
        (tmp_path / "lists.data").unlink()
    for attempt in (
        lambda: take_in(path, copy_to=tmp_path / "copy", metric=Metric.L2),
        lambda: open_index(path),
    ):
        with pytest.raises(IntakeRefused, match="in another file") as caught:
            attempt()
        assert "damaged" not in str(caught.value)
    if there:
        assert (tmp_path / "lists.data").read_bytes() == rows
    else:
        with pytest.raises(IntakeRefused, match="in another file"):
            read_any(path)


def test_the_way_out_that_is_named_works(tmp_path: Path) -> None:
    """With the lists brought into the index it is taken in."""
    index = faiss.read_index(str(outside(tmp_path, 4)))
    lists = faiss.ArrayInvertedLists(index.nlist, index.code_size)
    lists.merge_from(faiss.downcast_InvertedLists(index.invlists), 0)
    index.replace_invlists(lists)
    path = write_bare_layout(tmp_path / "one", index, NAMES, [""] * ROWS)
    taken = take_in(path, copy_to=tmp_path / "copy", metric=Metric.L2)
    assert taken.store.count() == ROWS
