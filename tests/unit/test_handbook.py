"""The handbook: every guide is complete and original, and every question has its answer in it."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from farming_guide.catalogue import SEASONS
from farming_guide.chunks import sentences
from farming_guide.knowledge_base import HANDBOOK
from farming_guide.markdown import FrontMatter, parse, row_sentences

QUESTION_FILES = sorted((Path(__file__).parents[1] / "data").glob("handbook_questions_*.jsonl"))
GUIDES = {path.name: path for path in sorted(HANDBOOK.glob("*.md")) if path.name != "README.md"}
SIZE_CHARACTERS_MIN = 115_000
# Shorter lines, such as a heading that says "Harvest", may well return in several guides.
REPEATABLE_WORDS_MAX = 4


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    document: str
    passage: str


def read_questions(path: Path) -> list[Question]:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    return [Question(row["question"], row["document"], row["passage"]) for row in rows]


def normalised(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def front_matter(path: Path) -> FrontMatter:
    properties, _ = parse(path.read_text("utf-8"))
    return properties


QUESTIONS = [question for path in QUESTION_FILES for question in read_questions(path)]
each_guide = pytest.mark.parametrize("name", list(GUIDES))


def test_there_are_guides_and_questions() -> None:
    """The other tests look at something: an empty folder would satisfy them all."""
    assert GUIDES
    assert len(QUESTIONS) >= 42


@each_guide
def test_a_guide_describes_itself(name: str) -> None:
    """Title, crops, season and type stand in the front matter, in the catalogue's words."""
    properties = front_matter(GUIDES[name])
    assert set(properties) == {"title", "crops", "season", "document_type"}
    assert properties["title"]
    assert properties["crops"]
    assert properties["season"] in SEASONS
    assert properties["document_type"] == "guide"


@each_guide
def test_a_guide_names_its_sources(name: str) -> None:
    """The last section is a list of at least two sources and carries no address that could be wrong."""
    _, blocks = parse(GUIDES[name].read_text("utf-8"))
    headings = [index for index, block in enumerate(blocks) if block.kind == "heading"]
    assert blocks[headings[-1]].text == "Sources"
    assert blocks[headings[-1]].level == 2
    sources = blocks[headings[-1] + 1 :]
    assert {block.kind for block in sources} == {"item"}
    assert len(sources) >= 2
    assert not [block.text for block in sources if "http" in block.text or "www." in block.text]


@each_guide
def test_a_guide_can_be_printed(name: str) -> None:
    """The PDF's standard fonts hold latin-1 characters only."""
    GUIDES[name].read_text("utf-8").encode("latin-1")


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.text)
def test_a_question_is_answered_by_its_passage(question: Question) -> None:
    """The expected passage is in the named guide, within one sentence, so that one chunk holds it."""
    assert question.document in GUIDES, f"no guide {question.document}"
    assert 40 <= len(question.passage) <= 120
    source = GUIDES[question.document].read_text("utf-8")
    assert normalised(question.passage) in normalised(source)
    _, blocks = parse(source)
    spoken = [
        sentence
        for block in blocks
        for sentence in (row_sentences(block) if block.rows else sentences(block.text))
    ]
    assert any(normalised(question.passage) in sentence for sentence in spoken)


def test_no_question_is_asked_twice() -> None:
    """Each question measures something else."""
    asked = Counter(question.text.casefold() for question in QUESTIONS)
    assert [text for text, count in asked.items() if count > 1] == []


def test_no_line_is_repeated() -> None:
    """The handbook is not padded: no line of more than four words stands in it twice."""
    lines = Counter(
        normalised(line).casefold()
        for path in GUIDES.values()
        for line in path.read_text("utf-8").splitlines()
        if len(re.findall(r"\w+", line)) > REPEATABLE_WORDS_MAX
    )
    assert [line for line, count in lines.items() if count > 1] == []


def test_the_handbook_is_large_enough_to_search() -> None:
    """A small handbook would make every search easy."""
    size = sum(len(path.read_text("utf-8")) for path in GUIDES.values())
    assert size >= SIZE_CHARACTERS_MIN
