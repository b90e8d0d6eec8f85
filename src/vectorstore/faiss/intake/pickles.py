"""Reading side files that are pickles without running them.

A pickle is a program. Here it may build dictionaries, lists, tuples, sets, texts, bytes and numbers,
and inert stand-ins for the two LangChain classes that saved docstores hold; every other name that it
asks for is refused, by name, before anything is imported.
"""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import Any

from vectorstore.errors import IntakeRefused

__all__ = ["PICKLE_BYTES_MAX", "StandIn", "begins_with_dict", "check_opcodes", "read_pickle"]

PICKLE_BYTES_MAX = 4 * 1024**3
MEMO_SPARSE_MAX = 1_000
"""How far a memo number may run ahead of the opcodes read: C code allocates up to the number."""

HEAD_OPCODES_MAX = 16

_DOCSTORES = {
    ("langchain_community.docstore.in_memory", "InMemoryDocstore"),
    ("langchain_classic.docstore.in_memory", "InMemoryDocstore"),
    ("langchain.docstore.in_memory", "InMemoryDocstore"),
}
_DOCUMENTS = {
    ("langchain_core.documents.base", "Document"),
    ("langchain_core.documents", "Document"),
    ("langchain.docstore.document", "Document"),
    ("langchain.schema.document", "Document"),
    ("langchain.schema", "Document"),
}
_CONTAINERS = {
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("__builtin__", "set"): set,
    ("__builtin__", "frozenset"): frozenset,
    ("collections", "OrderedDict"): dict,
}
# Opcodes that reach names by another way than find_class's, or make objects in ways nobody needs.
_FORBIDDEN = {"PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEXT_BUFFER"}


class StandIn:
    """Takes the place of one LangChain object: it keeps the state and does nothing."""

    kind = ""

    def __init__(self) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def fields(self) -> dict[Any, Any]:
        """The object's attributes, whether plain or in the form that pydantic pickles."""
        # __new__ alone ran if the pickle never built the object.
        state = getattr(self, "state", None)
        if isinstance(state, dict) and isinstance(state.get("__dict__"), dict):
            state = state["__dict__"]
        return state if isinstance(state, dict) else {}


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file)
        self._path = path
        # New classes for each file, so that nothing a pickle does to them outlives it.
        self._docstore = type("DocstoreStandIn", (StandIn,), {"kind": "docstore"})
        self._document = type("DocumentStandIn", (StandIn,), {"kind": "document"})

    def find_class(self, module: str, name: str) -> Any:
        asked = (module, name)
        if asked in _CONTAINERS:
            return _CONTAINERS[asked]
        if asked in _DOCSTORES:
            return self._docstore
        if asked in _DOCUMENTS:
            return self._document
        raise IntakeRefused(
            f"{self._path} asks for {module}.{name}, which is code, not data; nothing was run. If "
            "you trust its origin, save it again with plain texts, numbers, lists and dictionaries"
        )


def read_pickle(path: Path) -> Any:
    """The plain value in a pickle; IntakeRefused if it is anything else, or damaged."""
    _check_size(path)
    with path.open("rb") as file:
        try:
            return _PlainUnpickler(file, path).load()
        except IntakeRefused:
            raise
        except MemoryError as error:
            raise IntakeRefused(f"{path} needs more memory than there is") from error
        # What damaged opcodes raise is not documented; none of it says more than "damaged".
        except Exception as error:
            raise IntakeRefused(
                f"{path} is not a whole pickle of plain values ({type(error).__name__}: {error}); "
                "it was cut off, damaged, or made to harm: fetch it again from its source"
            ) from error


def check_opcodes(path: Path) -> None:
    """Refuse opcodes and memo numbers that no honest side file holds, before any is carried out."""
    _check_size(path)
    count = 0
    with path.open("rb") as file:
        try:
            for opcode, argument, _ in pickletools.genops(file):
                count += 1
                if opcode.name in _FORBIDDEN:
                    raise IntakeRefused(f"{path} uses the pickle opcode {opcode.name}; refused")
                if opcode.name.endswith("PUT") and int(str(argument)) > count + MEMO_SPARSE_MAX:
                    raise IntakeRefused(
                        f"{path} reserves {argument:,} memo places after {count:,} opcodes: it was "
                        "made to use up memory; refused"
                    )
        except ValueError as error:
            raise IntakeRefused(
                f"{path} is not a whole pickle ({error}): it was cut off or damaged; fetch it again"
            ) from error


def begins_with_dict(path: Path) -> bool | None:
    """Whether the outermost value of a pickle is a dictionary; ``None`` if this is no pickle."""
    with path.open("rb") as file:
        if file.read(1) != b"\x80":
            return None
        file.seek(0)
        try:
            for count, (opcode, _, _) in enumerate(pickletools.genops(file)):
                if opcode.name == "EMPTY_DICT":
                    return True
                if opcode.name not in ("PROTO", "FRAME") or count > HEAD_OPCODES_MAX:
                    return False
        except ValueError:
            return None
    return None


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if size > PICKLE_BYTES_MAX:
        raise IntakeRefused(
            f"{path} is {size:,} bytes; side files up to {PICKLE_BYTES_MAX:,} are read: save the "
            "records as records.jsonl instead"
        )
