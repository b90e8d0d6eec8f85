"""Large maps of ids: read pair by pair, and refused in words where memory will not do."""

from __future__ import annotations

import ast
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vectorstore.errors import IntakeRefused
from vectorstore.faiss.intake.layouts import LLAMAINDEX, Layout
from vectorstore.faiss.intake.literals import dictionary_in
from vectorstore.faiss.intake.sides import read_side

NAME = "faiss_id_to_node_id_map"
IDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LABELS = st.integers(min_value=-(2**63), max_value=2**63)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(LABELS, IDS, max_size=6), st.dictionaries(IDS, LABELS, max_size=3))
def test_any_ids_are_read_as_python_reads_them(
    tmp_path: Path, by_label: dict[int, str], by_id: dict[str, int]
) -> None:
    """Quotes, backslashes, line ends and any script in an id; empty dictionaries; either order."""
    path = tmp_path / "id_map.json"
    for saved in ({"other": by_id, NAME: by_label}, {NAME: by_label, "other": by_id}):
        path.write_text(str(saved), encoding="utf-8")
        assert dictionary_in(path, NAME) == ast.literal_eval(str(saved))[NAME]
        assert dictionary_in(path, "absent") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{'a': {0: 'x'}",
        "{'a': {0: 'x'}} + 1",
        "{'a': {0: 'x' 1: 'y'}}",
        "{'a': {0: __import__('os')}}",
        "{'a': {0: ['x']}}",
        "{'a': {0: 'x}}",
        r"{'a': {0: '\x'}}",
        "['a']",
    ],
)
def test_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    """Cut off, with code in it, or of another shape."""
    path = tmp_path / "id_map.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"byte|empty|no text"):
        dictionary_in(path, "a")


def test_a_map_takes_little_more_memory_than_what_is_kept_of_it(tmp_path: Path) -> None:
    """Python's own parser takes fifty times the size of the file: 50 GB for ten million nodes."""
    ids = [f"00000000-0000-0000-0000-{n:012d}" for n in range(20_000)]
    saved = {"node_id_to_faiss_id_map": {one: n for n, one in enumerate(ids)}}
    path = tmp_path / "id_map.json"
    path.write_text(str({**saved, NAME: dict(enumerate(ids))}))
    tracemalloc.start()
    try:
        found = dictionary_in(path, NAME)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == dict(enumerate(ids))
    assert peak < 4 * path.stat().st_size


@pytest.mark.parametrize("large", ["docstore.json", "id_map.json"])
def test_a_file_that_does_not_fit_into_memory_is_refused_before_it_is_read(
    tmp_path: Path, large: str
) -> None:
    """The message says how much it would take, how much there is, and the way round it."""
    (tmp_path / "docstore.json").write_text('{"docstore/data": {}}')
    (tmp_path / "id_map.json").write_text(json.dumps({NAME: {}}))
    with (tmp_path / large).open("r+b") as file:
        # A hole: it takes no room on the disk.
        file.truncate(1 << 43)
    layout = Layout(
        LLAMAINDEX, tmp_path / "none", (tmp_path / "docstore.json", tmp_path / "id_map.json")
    )
    with pytest.raises(IntakeRefused, match=rf"{large} is .* GiB of memory, .*records\.jsonl"):
        read_side(layout)
