"""Intake of foreign FAISS files: recognised by content, copied first, read without running them.

Four layouts: ``bot`` (an index and a pickled dict of chunks), ``langchain`` (an index and a pickled
docstore), ``llamaindex`` (an index beside ``docstore.json``), ``bare`` (an index beside
``records.jsonl`` or ``ids.npy``). What cannot be taken in without loss raises IntakeRefused.
"""

from __future__ import annotations

from vectorstore.faiss.intake.admission import Intake, take_in
from vectorstore.faiss.intake.layouts import Layout, recognise

__all__ = ["Intake", "Layout", "recognise", "take_in"]
