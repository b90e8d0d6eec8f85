"""What a user can say, and what the bot does about it: one table for the terminal and for Telegram."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date

import structlog

from farming_guide.answers import Advisor
from farming_guide.catalogue import ANY, Wish
from farming_guide.climate import Climate
from farming_guide.crops import CropFit, fitting_crops
from farming_guide.errors import ProviderError, ProviderRefused
from farming_guide.places import Place, find_place
from farming_guide.weather import Forecast, OpenMeteo
from vectorstore.errors import InvalidInput, StoreUnavailable, VectorStoreError
from vectorstore.filters import Filter

__all__ = ["COMMANDS", "Bot", "Command", "parse_wish"]

log = structlog.get_logger("farming_guide")

QUESTION_CHARACTERS_MAX = 1_000
VARIETY_PASSAGES = 4
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_OPTION = re.compile(r"\b(document|crop|season|type):(\"[^\"]+\"|\S+)", re.IGNORECASE)
_COMMAND = re.compile(r"/([a-z]+)(?:@\w+)?(?:\s+(.*))?", re.IGNORECASE | re.DOTALL)
_FIT_WORDS = {
    "enough": "the usual rain is enough",
    "watch": "enough in most years; choose early varieties and save water in the soil",
    "short": "the usual rain is too little: only with watering",
    "unknown": "no figure for its need of rain; read its guide",
}


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its name without slash, what follows it, what it does, and how."""

    name: str
    usage: str
    summary: str
    run: Callable[[Bot, str], str]


class Bot:
    """Answers one message at a time; safe to share between threads. Holds no conversation state."""

    def __init__(
        self,
        advisor: Advisor,
        *,
        weather: OpenMeteo,
        climate: Climate,
        today: Callable[[], date] = date.today,
    ) -> None:
        self.advisor = advisor
        self.weather = weather
        self.climate = climate
        self.today = today

    def reply(self, message: str) -> str:
        """The answer to a message, always in words that a farmer can use: failures end here."""
        try:
            return self._dispatch(message.strip())
        except InvalidInput as error:
            return f"{str(error)[0].upper()}{str(error)[1:]}"
        except ProviderRefused as error:
            log.error("provider_refused", reason=str(error))
            return "I cannot look things up at the moment. The people who run me have been told."
        except ProviderError as error:
            log.warning("provider_unavailable", reason=str(error))
            return (
                "A service that I need does not answer just now. Please ask again in a few minutes."
            )
        except StoreUnavailable as error:
            log.error("store_unavailable", reason=str(error))
            return "My library does not answer just now. Please ask again in a minute."
        except VectorStoreError as error:
            log.error("message_failed", error=type(error).__name__, reason=str(error))
            return "Something is wrong on my side. The people who run me have been told."

    def _dispatch(self, message: str) -> str:
        if not message:
            return "Please ask me something, or send /help."
        match = _COMMAND.fullmatch(message)
        if match is None:
            return _ask(self, message)
        name, rest = match[1].lower(), (match[2] or "").strip()
        for command in COMMANDS:
            if command.name == name:
                return command.run(self, rest)
        return f"I do not know the command /{name[:30]}. Send /help for what I can do."


def parse_wish(text: str) -> tuple[str, Wish]:
    """A question and what it is narrowed to by ``crop:maize season:rainy document:x type:y``."""
    wish = ANY
    for match in _OPTION.finditer(text):
        value = match[2].strip('"')
        name = match[1].lower()
        wish = replace(wish, **{"document_type" if name == "type" else name: value})
    if wish.season:
        wish = replace(wish, season=wish.season.lower())
    return " ".join(_OPTION.sub(" ", text).split()), wish


def _start(_bot: Bot, _rest: str) -> str:
    return (
        "Muli bwanji! I am the Agricultural Advisor. Ask me about crops, soils, pests, storage or animals "
        "on a small farm in Malawi, in your own words. Send /help for more."
    )


def _help(bot: Bot, _rest: str) -> str:
    lines = [f"/{c.name}{' ' + c.usage if c.usage else ''} - {c.summary}" for c in COMMANDS]
    return (
        "Ask a question in your own words, or use a command:\n"
        + "\n".join(lines)
        + "\n\nNarrow a question with crop:, season:, type: or document:, for example\n"
        "/ask how do I plant crop:groundnuts season:rainy\n"
        "The search then looks at those guides only and still finds the best passages among them: "
        "PostgreSQL filters while it searches, by document and by type.\n"
        f"Guides for: {', '.join(bot.advisor.catalogue.crops())}."
    )


def _about(bot: Bot, _rest: str) -> str:
    return (
        f"I answer from {len(bot.advisor.catalogue.entries)} farming guides and name guide and page. If "
        "they do not hold the answer, I say so. Weather: Open-Meteo.com (CC BY 4.0), or monthly normals. "
        "I do not keep what you ask. For a decision that your harvest depends on, ask your extension "
        "worker as well."
    )


def _ask(bot: Bot, rest: str) -> str:
    question, wish = parse_wish(rest)
    if not question:
        return "What would you like to know? For example: /ask When do I plant maize?"
    if len(question) > QUESTION_CHARACTERS_MAX:
        raise InvalidInput(
            f"your question has {len(question):,} characters; please use at most "
            f"{QUESTION_CHARACTERS_MAX:,}"
        )
    return bot.advisor.cited(bot.advisor.answer(question, wish=wish))


def _crops(bot: Bot, rest: str) -> str:
    words = rest.split()
    season = "all"
    if words and words[-1].lower() in ("rainy", "dry", "all"):
        season = words.pop().lower()
    place = find_place(" ".join(words))
    rain_mm, fits = fitting_crops(
        place, season, catalogue=bot.advisor.catalogue, climate=bot.climate
    )
    spell = {"rainy": "November to April", "dry": "May to October", "all": "the whole year"}[season]
    lines = [f"Crops for {place.name}, {spell}: usually about {rain_mm:.0f} mm of rain."]
    try:
        lines.append(f"The next 7 days bring {bot.weather.forecast(place).rain_mm:.0f} mm.")
    except ProviderError as error:
        log.warning("weather_failed", reason=str(error))
    lines += [_crop_line(fit) for fit in fits]
    lines.append(
        "Needs are approximate (FAO, Crop water needs, table 14). Ask me about any of these crops."
    )
    return "\n".join(lines)


def _crop_line(found: CropFit) -> str:
    need = (
        f" (needs {found.rain_mm_min:.0f}-{found.rain_mm_max:.0f} mm)" if found.rain_mm_max else ""
    )
    return f"- {found.crop}{need}: {_FIT_WORDS[found.fit]}"


def _varieties(bot: Bot, rest: str) -> str:
    crop = rest.strip().lower()
    if not crop:
        return "Which crop? For example: /varieties maize"
    passages, _ = bot.advisor.passages(
        f"recommended varieties of {crop}", wish=Wish(crop=crop), top_k=VARIETY_PASSAGES
    )
    near = [p for p in passages if "variet" in p.text.lower() and p.score >= bot.advisor.threshold]
    if not near:
        return f"The guides name no varieties of {crop}. Ask your agro-dealer or extension worker."
    lines = [f"Varieties of {crop}:"]
    for passage in near:
        page = f", page {passage.page}" if passage.page else ""
        title = bot.advisor.catalogue.title(passage.source_document)
        lines.append(f"{passage.body}\n({title}{page})")
    return "\n\n".join(lines)


def _weather(bot: Bot, rest: str) -> str:
    place = find_place(rest)
    forecast = _forecast(bot, place)
    if forecast is None:
        return _normal(bot, place)
    lines = [f"Weather for {place.name}, from Open-Meteo.com:"]
    for day in forecast.days:
        chance = f", chance {day.chance_percent:.0f} %" if day.chance_percent is not None else ""
        lines.append(
            f"{day.day:%a %d %b}: {day.coldest_c:.0f} to {day.warmest_c:.0f} °C, "
            f"rain {day.rain_mm:.0f} mm{chance}"
        )
    return "\n".join(lines)


def _rain(bot: Bot, rest: str) -> str:
    place = find_place(rest)
    forecast = _forecast(bot, place)
    if forecast is None:
        return _normal(bot, place)
    wet = [day for day in forecast.days if day.rain_mm >= 1.0]
    names = ", ".join(f"{day.day:%a %d} ({day.rain_mm:.0f} mm)" for day in wet)
    return (
        f"Rain for {place.name} in the next {len(forecast.days)} days: {forecast.rain_mm:.0f} mm"
        + (f": {names}." if wet else ", no wet day.")
        + f"\n{_usual(bot, place)}"
    )


def _forecast(bot: Bot, place: Place) -> Forecast | None:
    try:
        return bot.weather.forecast(place)
    except ProviderError as error:
        log.warning("weather_failed", reason=str(error))
        return None


def _normal(bot: Bot, place: Place) -> str:
    station, normals = bot.climate.nearest(place)
    month = normals[bot.today().month - 1]
    return (
        f"The weather service cannot be reached. What is normal for {MONTHS[month.month - 1]} at "
        f"{station.name}: about {month.rain_mm:.0f} mm of rain, {month.coldest_c:.0f} to "
        f"{month.warmest_c:.0f} °C. Single years differ widely."
    )


def _usual(bot: Bot, place: Place) -> str:
    station, normals = bot.climate.nearest(place)
    month = normals[bot.today().month - 1]
    return f"Usual for {MONTHS[month.month - 1]} at {station.name}: about {month.rain_mm:.0f} mm in the month."


def _status(bot: Bot, _rest: str) -> str:
    store = bot.advisor.store
    _, answering = bot.advisor.passages("maize", top_k=1)
    settings = store.describe()
    guides = sum(
        store.count(Filter.of({"source_document": entry.source})) > 0
        for entry in bot.advisor.catalogue.entries
    )
    lines = [
        f"Answers come from: {answering}",
        f"Vectors: {store.count():,} of {store.dimension} dimensions ({bot.advisor.embedder.model})",
        f"Guides: {guides} of {len(bot.advisor.catalogue.entries)}",
    ]
    lines += [
        f"{name.replace('_', ' ').capitalize()}: {settings[name]}"
        for name in ("phase", "primary")
        if name in settings
    ]
    if "lag_entries" in settings:
        lag = settings["lag_entries"]
        behind = "PostgreSQL does not follow yet" if lag is None else f"{lag:,} writes"
        lines.append(f"Lag: {behind}")
    return "\n".join(lines)


COMMANDS = (
    Command("start", "", "begin", _start),
    Command("help", "", "this list", _help),
    Command("about", "", "who I am and where my answers come from", _about),
    Command("ask", "QUESTION", "answer from the guides, with sources", _ask),
    Command("crops", "PLACE [rainy|dry|all]", "crops that fit the place and the season", _crops),
    Command("varieties", "CROP", "varieties that the guides name", _varieties),
    Command("weather", "PLACE or LAT, LON", "the next seven days", _weather),
    Command("rain", "PLACE or LAT, LON", "rain ahead, and what is usual", _rain),
    Command("status", "", "which store answers, and what it holds", _status),
)
