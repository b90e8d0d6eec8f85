"""A small handbook and what a bot over it needs, for tests that are not about the real one."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from farming_guide.answers import Advisor
from farming_guide.catalogue import read_catalogue
from farming_guide.climate import Climate, MonthlyNormal
from farming_guide.commands import Bot
from farming_guide.embeddings import Embedder
from farming_guide.ingestion import ingest
from farming_guide.places import Place
from farming_guide.typesetting import render_pdf
from farming_guide.weather import OpenMeteo
from vectorstore.port import VectorStore

__all__ = ["CLIMATE", "bot_over", "filled", "write_handbook"]

GUIDES = {
    "maize": (
        "crops: [maize]\nseason: rainy",
        "## Planting\nPlant maize with the first good rains, one seed every 25 cm on ridges 75 cm apart.\n"
        "## Varieties\nThe maize variety SC 403 is early and suits short rains. DKC 8033 is a medium "
        "variety.\n## Storing\nDry maize below 13 percent moisture and keep it in hermetic bags.\n",
    ),
    "groundnuts": (
        "crops: [groundnuts]\nseason: rainy",
        "## Planting\nPlant groundnuts 10 to 15 cm apart on ridges.\n## Aflatoxin\nDry groundnuts fast "
        "after lifting, because aflatoxin comes from mould on damp pods.\n",
    ),
    "tomatoes": (
        "crops: [tomatoes]\nseason: dry",
        "## Growing\nTransplant tomatoes in the cool dry season, stake them, and water them at the root "
        "every second day.\n",
    ),
    "chickens": (
        "crops: []\nseason: all\ndocument_type: livestock guide",
        "## Health\nVaccinate village chickens against Newcastle disease three times a year.\n",
    ),
}
CLIMATE = Climate(
    (
        (
            Place("Lilongwe", -13.9833, 33.7833),
            tuple(
                MonthlyNormal(month, 180.0 if month in (12, 1, 2) else 20.0, 27.0, 15.0)
                for month in range(1, 13)
            ),
        ),
    )
)


def write_handbook(folder: Path) -> list[Path]:
    """The guides as Markdown in ``folder`` and as PDFs beside it; returns the PDFs."""
    folder.mkdir(parents=True)
    pdfs: list[Path] = []
    for name, (properties, text) in GUIDES.items():
        path = folder / f"{name}.md"
        path.write_text(f"---\ntitle: Guide to {name}\n{properties}\n---\n{text}", encoding="utf-8")
        pdfs.append(folder.parent / "pdf" / f"{name}.pdf")
        render_pdf(path, pdfs[-1])
    return pdfs


def filled(store: VectorStore, embedder: Embedder, folder: Path) -> VectorStore:
    """The store with the handbook in it."""
    ingest(write_handbook(folder), store, embedder)
    return store


def bot_over(
    store: VectorStore, embedder: Embedder, folder: Path, weather_url: str, **options: Any
) -> Bot:
    """A bot over a store that was filled from ``folder``."""
    return Bot(
        Advisor(store, embedder, read_catalogue(folder), **options),
        weather=OpenMeteo(weather_url, timeout_s=1.0),
        climate=CLIMATE,
        today=lambda: date(2026, 1, 5),
    )
