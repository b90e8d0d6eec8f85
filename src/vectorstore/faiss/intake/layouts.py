"""Which of the known layouts a folder or an index file has, told by content and not by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vectorstore.errors import ConfigurationError, IntakeRefused
from vectorstore.faiss.intake.headers import is_index_file
from vectorstore.faiss.intake.pickles import begins_with_dict

__all__ = ["BARE", "BOT", "LANGCHAIN", "LLAMAINDEX", "Layout", "recognise"]

BOT = "bot"
LANGCHAIN = "langchain"
LLAMAINDEX = "llamaindex"
BARE = "bare"

_DOCSTORE = "docstore.json"
_LLAMAINDEX_MAPS = ("id_map.json", "index_store.json")
_BARE_SIDES = ("records.jsonl", "ids.npy")


@dataclass(frozen=True, slots=True)
class Layout:
    """A recognised layout: its name, the index, and the files beside it that hold the records."""

    name: str
    index: Path
    sides: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the layout, the index first."""
        return (self.index, *self.sides)


def recognise(path: Path) -> Layout:
    """Recognise a folder, or the index file in it that is meant.

    Only heads of files are read. Raises IntakeRefused if there is no index, more than one to choose
    from, or nothing beside it that could hold the records; ConfigurationError if ``path`` is not there.
    """
    try:
        return _recognised(path)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} does not exist") from error
    except PermissionError as error:
        raise ConfigurationError(f"{error.filename or path} may not be read") from error


def _recognised(path: Path) -> Layout:
    index = path if path.is_file() else _only_index(path)
    if not is_index_file(index):
        raise IntakeRefused(f"{index} does not begin as a FAISS index does; name the index file")
    beside = sorted(one for one in index.parent.iterdir() if one.is_file() and one != index)
    names = {one.name: one for one in beside}
    if _DOCSTORE in names:
        maps = tuple(names[name] for name in _LLAMAINDEX_MAPS if name in names)
        if maps:
            return Layout(LLAMAINDEX, index, (names[_DOCSTORE], *maps))
    pickled = [(one, begins_with_dict(one)) for one in beside]
    pickles = [(one, is_dict) for one, is_dict in pickled if is_dict is not None]
    same_stem = [pair for pair in pickles if pair[0].stem == index.stem]
    chosen = same_stem or pickles
    if len(chosen) > 1:
        found = ", ".join(one.name for one, _ in chosen)
        raise IntakeRefused(
            f"{index} has several pickles beside it ({found}); move the one that belongs to it "
            "into a folder with it"
        )
    if chosen:
        side, is_dict = chosen[0]
        return Layout(BOT if is_dict else LANGCHAIN, index, (side,))
    for name in _BARE_SIDES:
        if name in names:
            return Layout(BARE, index, (names[name],))
    raise IntakeRefused(
        f"{index} has nothing beside it that names its records; put a records.jsonl (id, text, "
        "metadata, one line a vector in order) or an ids.npy there"
    )


def _only_index(folder: Path) -> Path:
    found = [one for one in sorted(folder.iterdir()) if one.is_file() and is_index_file(one)]
    if not found:
        raise IntakeRefused(f"{folder} holds no FAISS index")
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise IntakeRefused(f"{folder} holds several indexes ({names}); name the one to take in")
    return found[0]
