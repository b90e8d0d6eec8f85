"""What the guides are about: crops, seasons and types, for filters that a farmer can use.

Stored chunks name only their document, and a guide may serve several crops; so a filter by crop, season
or type becomes a filter on documents, which every store answers alike, on old records and new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from farming_guide.documents import read_markdown
from vectorstore.errors import InvalidInput
from vectorstore.filters import Filter

__all__ = [
    "ANY",
    "HANDBOOK",
    "Catalogue",
    "Entry",
    "Wish",
    "guide_paths",
    "read_catalogue",
    "singular",
]

HANDBOOK = Path(str(resources.files("farming_guide"))) / "handbook"
SEASONS = ("rainy", "dry", "all")
# What a guide's front matter says if it concerns all crops.
EVERY_CROP = "all"
# Other names of one crop: English ones, and Chichewa as farmers say it.
OTHER_NAMES = {
    "chimanga": "maize",
    "chinangwa": "cassava",
    "corn": "maize",
    "mbatata": "sweet potato",
    "mpunga": "rice",
    "mtedza": "groundnut",
    "nyemba": "bean",
    "peanut": "groundnut",
    "soya": "soybean",
    "soya bean": "soybean",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One guide as its front matter describes it. ``source`` is the stored document's name."""

    source: str
    title: str
    crops: tuple[str, ...]
    season: str
    document_type: str


@dataclass(frozen=True, slots=True)
class Wish:
    """What a user narrows a question to; empty text means no wish."""

    document: str = ""
    crop: str = ""
    season: str = ""
    document_type: str = ""


ANY = Wish()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All guides that are known by their front matter."""

    entries: tuple[Entry, ...]

    def title(self, source: str) -> str:
        """The guide's title, or the document's name if it is not in the catalogue."""
        return next((entry.title for entry in self.entries if entry.source == source), source)

    def crops(self, season: str = "all") -> list[str]:
        """Crops that have a guide for the season, in alphabetical order."""
        entries = [entry for entry in self.entries if _in_season(entry, season)]
        return sorted({crop for entry in entries for crop in entry.crops} - {EVERY_CROP})

    def filter(self, wish: Wish) -> Filter | None:
        """The wish as a filter on documents; raises InvalidInput in words if no guide fits."""
        if wish == ANY:
            return None
        if wish.season and wish.season not in SEASONS:
            raise InvalidInput(f"season {wish.season!r} is not known: say rainy, dry or all")
        known = not wish.crop or any(_same_crop(wish.crop, e.crops) for e in self.entries)
        fitting = [entry.source for entry in self.entries if known and _fits(entry, wish)]
        if not fitting and wish == Wish(document=wish.document):
            # A document that was added without a guide's front matter is known to the store alone.
            fitting = [wish.document]
        if not fitting:
            asked = ", ".join(
                f"{name} {value!r}"
                for name, value in (
                    ("document", wish.document),
                    ("crop", wish.crop),
                    ("season", wish.season),
                    ("type", wish.document_type),
                )
                if value
            )
            raise InvalidInput(
                f"no guide is for {asked}. There are guides for: {', '.join(self.crops())}"
            )
        return Filter.of({"source_document": fitting})


def guide_paths(handbook: Path) -> list[Path]:
    """The guides of a folder in the order of their names; a README is about the folder, not farming."""
    return sorted(path for path in handbook.glob("*.md") if path.stem.lower() != "readme")


def read_catalogue(handbook: Path) -> Catalogue:
    """The catalogue of a folder of Markdown guides; their stored documents are the PDFs made of them."""
    entries: list[Entry] = []
    for path in guide_paths(handbook):
        guide = read_markdown(path)
        entries.append(
            Entry(f"{path.stem}.pdf", guide.title, guide.crops, guide.season, guide.document_type)
        )
    return Catalogue(tuple(entries))


def singular(crop: str) -> str:
    """A crop's name without case, hyphens and plural: so that two ways to say it are equal."""
    name = crop.strip().lower().replace("-", " ")
    if name.endswith("oes"):
        name = name[:-2]
    elif name.endswith("s") and not name.endswith("ss"):
        name = name[:-1]
    return OTHER_NAMES.get(name, name)


def _fits(entry: Entry, wish: Wish) -> bool:
    return (
        (not wish.document or _named(entry, wish.document))
        and (not wish.crop or EVERY_CROP in entry.crops or _same_crop(wish.crop, entry.crops))
        and (not wish.season or _in_season(entry, wish.season))
        and (not wish.document_type or entry.document_type.lower() == wish.document_type.lower())
    )


def _named(entry: Entry, name: str) -> bool:
    wanted = name.lower()
    return wanted in (entry.source.lower(), entry.source.lower().removesuffix(".pdf"))


def _in_season(entry: Entry, season: str) -> bool:
    return season in ("", "all") or entry.season in (season, "all")


def _same_crop(wanted: str, crops: Sequence[str]) -> bool:
    name = singular(wanted)
    return any(name == singular(crop) or name in singular(crop).split() for crop in crops)
