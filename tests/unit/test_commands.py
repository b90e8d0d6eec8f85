"""What the bot answers to each command, and what it says when something fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog

from farming_guide.answers import DO_NOT_KNOW, Advisor
from farming_guide.catalogue import read_catalogue
from farming_guide.chat_model import ChatModel
from farming_guide.commands import COMMANDS, Bot, parse_wish
from farming_guide.local_embedder import LocalEmbedder
from farming_guide.openai_embedder import OpenAIEmbedder
from farming_guide.places import find_place
from tests.fakes.handbook import bot_over, filled
from tests.fakes.open_meteo import FakeOpenMeteo
from tests.fakes.openai_server import FakeOpenAI
from vectorstore.errors import ConfigurationError, InvalidInput
from vectorstore.memory import MemoryStore

KEY = "sk-test-0123456789abcdefghijklmnop"
EMBEDDER = LocalEmbedder()


@pytest.fixture(scope="module")
def weather() -> Iterator[FakeOpenMeteo]:
    with FakeOpenMeteo() as fake:
        yield fake


@pytest.fixture(scope="module")
def handbook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guides") / "handbook"


@pytest.fixture(scope="module")
def store(handbook: Path) -> MemoryStore:
    store = MemoryStore(dimension=384)
    filled(store, EMBEDDER, handbook)
    return store


@pytest.fixture
def bot(store: MemoryStore, handbook: Path, weather: FakeOpenMeteo) -> Bot:
    return bot_over(store, EMBEDDER, handbook, weather.url)


def test_a_question_is_answered_with_its_sources(bot: Bot) -> None:
    """The words come from the guide, the mark leads to guide and page, and plain text is a question."""
    for message in ("/ask How far apart is maize planted?", "How far apart is maize planted?"):
        reply = bot.reply(message)
        assert "one seed every 25 cm on ridges 75 cm apart. [1]" in reply
        assert re.search(r"\[1\] Guide to maize, page 1 \(relevance (high|medium)\)", reply)


def test_every_mark_has_its_source_and_every_source_its_mark(bot: Bot) -> None:
    """An answer of several passages cites just those that it quotes."""
    reply = bot.reply("When and how do I plant maize and groundnuts on ridges?")
    text, _, sources = reply.partition("Sources:")
    assert set(re.findall(r"\[\d\]", text)) == set(re.findall(r"\[\d\]", sources))


def test_what_the_guides_do_not_say_the_bot_does_not_know(bot: Bot) -> None:
    """Below the threshold nothing is guessed."""
    assert bot.reply("What is the capital of France?") == DO_NOT_KNOW
    assert bot.advisor.answer("Who won the football cup?").known is False


@pytest.mark.parametrize(
    ("wish", "source"),
    [
        ("crop:groundnuts", "Guide to groundnuts"),
        ("crop:mtedza", "Guide to groundnuts"),
        ("season:dry", "Guide to tomatoes"),
        ("document:tomatoes", "Guide to tomatoes"),
        ("document:groundnuts.pdf", "Guide to groundnuts"),
    ],
)
def test_a_question_can_be_narrowed(bot: Bot, wish: str, source: str) -> None:
    """By crop (in Chichewa too), season or document, the answer comes from those guides alone."""
    reply = bot.advisor.passages("how do I plant", wish=parse_wish(wish)[1])[0]
    assert reply
    assert {bot.advisor.catalogue.title(p.source_document) for p in reply} <= {
        source,
        "Guide to chickens",  # a guide for all seasons
    }
    assert bot.advisor.catalogue.title(reply[0].source_document) == source


def test_a_wish_that_no_guide_fits_is_explained(bot: Bot) -> None:
    """The answer names what was asked and what there is."""
    reply = bot.reply("/ask how do I plant crop:vanilla")
    assert "vanilla" in reply
    assert "groundnuts, maize, tomatoes" in reply
    assert "rainy, dry or all" in bot.reply("/ask what now season:windy")
    assert "Newcastle" in bot.reply('/ask newcastle disease type:"livestock guide"')


def test_crops_weigh_the_guides_against_the_usual_rain(bot: Bot, weather: FakeOpenMeteo) -> None:
    """With 600 mm from November to April, maize is to be watched and groundnuts too; the week is told."""
    reply = bot.reply("/crops Lilongwe rainy")
    assert "usually about 600 mm" in reply
    assert "next 7 days bring 24 mm" in reply
    assert "- maize (needs 500-800 mm): enough in most years" in reply
    assert "tomatoes" not in reply
    assert "only with watering" in bot.reply("/crops Lilongwe dry")
    assert "- tomatoes" in bot.reply("/crops -13.98, 33.78")


def test_varieties_come_from_the_crops_own_guide(bot: Bot) -> None:
    """Names and page, or an honest nothing."""
    reply = bot.reply("/varieties maize")
    assert "SC 403" in reply
    assert "(Guide to maize, page 1)" in reply
    assert "name no varieties" in bot.reply("/varieties tomatoes")
    assert "Which crop?" in bot.reply("/varieties")


def test_weather_and_rain_of_a_place(bot: Bot, weather: FakeOpenMeteo) -> None:
    """Seven days, the wet ones named, the month's usual beside them; coordinates reach the service."""
    reply = bot.reply("/weather 13.9833S, 33.7833E")
    assert "(near Lilongwe)" in reply
    assert "Mon 05 Jan: 18 to 28 °C, rain 12 mm, chance 80 %" in reply
    assert weather.requests[-1].query["latitude"] == "-13.9833"
    reply = bot.reply("/rain Lilongwe")
    assert "24 mm: Mon 05 (12 mm), Wed 07 (12 mm)" in reply
    assert "Usual for January at Lilongwe: about 180 mm" in reply


@pytest.mark.parametrize("fault", [500, 429, "cut", "rubbish", "hang", 400])
def test_without_the_weather_service_the_month_is_told(
    bot: Bot, weather: FakeOpenMeteo, fault: int | str
) -> None:
    """Whatever is wrong with the service, the farmer hears what is normal, and the log what failed."""
    with structlog.testing.capture_logs() as logs:
        weather.faults.append(fault)
        reply = bot.reply("/weather Lilongwe")
    assert "normal for January at Lilongwe: about 180 mm of rain, 15 to 27 °C" in reply
    assert [entry["event"] for entry in logs] == ["weather_failed"]


def test_status_says_who_answers_and_what_is_held(bot: Bot, store: MemoryStore) -> None:
    """Store, vectors, model and guides."""
    reply = bot.reply("/status")
    assert "Answers come from: memory" in reply
    assert f"Vectors: {store.count()} of 384 dimensions" in reply
    assert "Guides: 4 of 4" in reply


def test_help_lists_every_command_and_what_filters_bring(bot: Bot) -> None:
    """The list comes from the same table that the bot runs by."""
    reply = bot.reply("/help")
    assert all(f"/{command.name}" in reply for command in COMMANDS)
    assert "PostgreSQL filters while it searches" in reply
    assert "/help" in bot.reply("/start")
    assert "Open-Meteo" in bot.reply("/about@advisor_bot")


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("", "/help"),
        ("/ask", "What would you like"),
        ("/dance", "I do not know the command /dance"),
        ("/weather", "Which place?"),
        ("/weather Lilongwi", "Did you mean Lilongwe"),
        ("/weather 48.1, 11.6", "is not in Malawi"),
        ("/rain -13.9S, 33.7E", "not both"),
        ("/ask " + "maize " * 500, "at most 1,000"),
    ],
)
def test_a_slip_is_answered_in_words(bot: Bot, message: str, says: str) -> None:
    """A wrong message is told what would be right."""
    assert says in bot.reply(message)


def test_places_by_name_and_coordinates() -> None:
    """The three ways of the help text mean one point."""
    one = find_place("Lilongwe")
    for text in ("-13.9833, 33.7833", "13.9833S, 33.7833E", "13.9833 S 33.7833 E"):
        place = find_place(text)
        assert np.allclose((place.latitude, place.longitude), (-13.9833, 33.7833))
        assert "near Lilongwe" in place.name
    assert np.allclose((one.latitude, one.longitude), (-13.9833, 33.7833), atol=0.01)
    assert find_place("nkhata  bay District").name == "Nkhata Bay"
    with pytest.raises(InvalidInput):
        find_place("Atlantis")


def test_a_chat_model_words_the_answer_from_the_passages(
    store: MemoryStore, handbook: Path, weather: FakeOpenMeteo
) -> None:
    """It gets the numbered passages and the question; its text is the answer, with our sources."""
    with FakeOpenAI(chat=lambda _messages: "Plant one seed every 25 cm [1].") as server:
        writer = ChatModel(api_key=KEY, model="chat-model", base_url=server.base_url)
        bot = bot_over(store, EMBEDDER, handbook, weather.url, writer=writer)
        reply = bot.reply("How far apart is maize planted?")
        messages = server.requests[0].body["messages"]
    assert reply.startswith("Plant one seed every 25 cm [1].\n\nSources:\n[1] Guide to maize")
    assert "[1] Guide to maize" in messages[1]["content"]
    assert messages[1]["content"].endswith("Question: How far apart is maize planted?")


@pytest.mark.parametrize("fault", [429, 500, 401, "cut", "rubbish", "hang"])
def test_without_the_chat_model_the_guides_are_quoted(
    store: MemoryStore, handbook: Path, weather: FakeOpenMeteo, fault: int | str
) -> None:
    """A failing chat model costs the wording, not the answer; the log says so without the key."""
    with FakeOpenAI() as server, structlog.testing.capture_logs() as logs:
        server.permanent_fault = fault
        server.error_text = f"bad key {KEY}"
        writer = ChatModel(
            api_key=KEY, model="chat-model", base_url=server.base_url, timeout_s=0.3, retries_max=0
        )
        bot = bot_over(store, EMBEDDER, handbook, weather.url, writer=writer)
        reply = bot.reply("How far apart is maize planted?")
    assert "one seed every 25 cm" in reply
    assert [entry["event"] for entry in logs] == ["chat_failed"]
    assert KEY not in repr(logs) + reply


@pytest.mark.parametrize(
    ("fault", "event", "says"),
    [
        (429, "provider_unavailable", "ask again in a few minutes"),
        (500, "provider_unavailable", "ask again in a few minutes"),
        ("hang", "provider_unavailable", "ask again in a few minutes"),
        ("cut", "provider_unavailable", "ask again in a few minutes"),
        (401, "provider_refused", "The people who run me have been told"),
    ],
)
def test_without_embeddings_the_bot_says_so_politely(
    handbook: Path,
    store: MemoryStore,
    weather: FakeOpenMeteo,
    fault: int | str,
    event: str,
    says: str,
) -> None:
    """No answer is made up; the maintainer's log has the reason, nobody has the key."""
    with FakeOpenAI() as server, structlog.testing.capture_logs() as logs:
        server.permanent_fault = fault
        server.error_text = f"bad key {KEY}"
        embedder = OpenAIEmbedder(
            api_key=KEY, base_url=server.base_url, retries_max=0, timeout_s=0.3
        )
        empty = MemoryStore(dimension=1536)
        bot = bot_over(empty, embedder, handbook, weather.url)
        reply = bot.reply("How far apart is maize planted?")
    assert says in reply
    assert [entry["event"] for entry in logs] == [event]
    assert KEY not in repr(logs) + reply


def test_a_store_that_is_away_is_told_politely(handbook: Path, weather: FakeOpenMeteo) -> None:
    """A closed store is a reason to ask again, not a traceback."""
    store = MemoryStore(dimension=384)
    bot = bot_over(store, EMBEDDER, handbook, weather.url)
    store.close()
    assert "library does not answer" in bot.reply("How far apart is maize planted?")


def test_a_model_that_does_not_fit_the_store_is_refused_at_the_start(handbook: Path) -> None:
    """384 dimensions never meet 1,536: the bot does not start."""
    with pytest.raises(ConfigurationError, match="1536"):
        Advisor(MemoryStore(dimension=1536), EMBEDDER, read_catalogue(handbook))


def test_scores_keep_their_meaning(bot: Bot) -> None:
    """The passages' scores are cosines, nearest first."""
    passages, _ = bot.advisor.passages("How do I keep maize from weevils?")
    scores = [passage.score for passage in passages]
    assert scores == sorted(scores, reverse=True)
    vectors = EMBEDDER.embed(["How do I keep maize from weevils?", passages[0].text])
    assert np.isclose(vectors[0] @ vectors[1], scores[0], atol=1e-5)
