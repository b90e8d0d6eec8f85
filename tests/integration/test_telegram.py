"""The Telegram side: the real library against a fake server over HTTP."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from farming_guide.commands import COMMANDS, Bot
from farming_guide.local_embedder import LocalEmbedder
from farming_guide.settings import BotSettings
from farming_guide.telegram import MESSAGE_CHARACTERS_MAX, RateLimit, build_application, parts
from tests.fakes.handbook import bot_over, filled
from tests.fakes.open_meteo import FakeOpenMeteo
from tests.fakes.telegram_server import TOKEN, FakeTelegram
from vectorstore.errors import ConfigurationError
from vectorstore.memory import MemoryStore


class SlowStore(MemoryStore):
    """A store that waits for permission before it answers."""

    def __init__(self, *, dimension: int) -> None:
        super().__init__(dimension=dimension)
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.waiting = threading.Semaphore(0)

    def search(self, query: Any) -> Any:
        self.waiting.release()
        assert self.may_answer.wait(30)
        return super().search(query)


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    embedder = LocalEmbedder()
    store = SlowStore(dimension=embedder.dimension)
    folder = tmp_path_factory.mktemp("guides") / "handbook"
    filled(store, embedder, folder)
    with FakeOpenMeteo() as weather:
        yield bot_over(store, embedder, folder, weather.url)


@contextmanager
def running(bot: Bot, server: FakeTelegram, **options: Any) -> Iterator[Callable[[], None]]:
    """The application polling in a thread of its own; yields what stops it and waits."""
    settings = BotSettings(
        telegram_token=SecretStr(TOKEN), telegram_base_url=server.base_url, **options
    )
    loop = asyncio.new_event_loop()
    started, stop = threading.Event(), asyncio.Event()

    async def live() -> None:
        application = build_application(bot, settings)
        async with application:
            assert application.post_init is not None
            await application.post_init(application)
            await application.start()
            assert application.updater is not None
            await application.updater.start_polling()
            started.set()
            await stop.wait()
            await application.updater.stop()
            await application.stop()
        assert application.post_shutdown is not None
        await application.post_shutdown(application)

    thread = threading.Thread(target=loop.run_until_complete, args=(live(),))
    thread.start()

    def end() -> None:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive()

    try:
        assert started.wait(20)
        yield end
    finally:
        if thread.is_alive():
            end()
        loop.close()


def test_every_command_is_answered_once(bot: Bot) -> None:
    """A conversation with each command: one answer each, in order, and the menu was announced."""
    with FakeTelegram() as server, running(bot, server):
        said = {
            "/start": "Muli bwanji",
            "/help": "/varieties CROP",
            "/about": "farming guides",
            "/ask How far apart is maize planted?": "one seed every 25 cm",
            "How do I prevent aflatoxin?": "Dry groundnuts fast",
            "/crops Lilongwe rainy": "maize (needs 500-800 mm)",
            "/varieties maize": "SC 403",
            "/weather Lilongwe": "rain 12 mm",
            "/rain -13.9833, 33.7833": "24 mm",
            "/status": "Answers come from: memory",
        }
        for text, expected in said.items():
            assert expected in server.ask(7, text)
        assert len(server.sent[7]) == len(said)
        menu = [r for r in server.requests if r.path.endswith("/setMyCommands")]
        assert all(command.name in str(menu[0].body) for command in COMMANDS)


def test_a_slow_store_blocks_nobody(bot: Bot) -> None:
    """While one user's question waits for the store, others are served; then it is answered too."""
    store = bot.advisor.store
    assert isinstance(store, SlowStore)
    with FakeTelegram() as server, running(bot, server):
        while store.waiting.acquire(blocking=False):
            pass
        store.may_answer.clear()
        server.say(1, "How far apart is maize planted?")
        assert store.waiting.acquire(timeout=10)
        assert "Muli bwanji" in server.ask(2, "/start")
        assert server.sent[1] == []
        store.may_answer.set()
        assert "25 cm" in server.wait_for(1, 1)[0]


def test_what_is_under_way_is_answered_before_the_bot_stops(bot: Bot) -> None:
    """A stop waits for the answers that were begun, sends them, and answers nothing twice."""
    store = bot.advisor.store
    assert isinstance(store, SlowStore)
    with FakeTelegram() as server, running(bot, server) as stop:
        while store.waiting.acquire(blocking=False):
            pass
        store.may_answer.clear()
        for user in range(5):
            server.say(user, "How far apart is maize planted?")
        for _ in range(5):
            assert store.waiting.acquire(timeout=10)
        stopping = threading.Thread(target=stop)
        stopping.start()
        assert all(server.sent[user] == [] for user in range(5))
        store.may_answer.set()
        stopping.join(30)
        assert not stopping.is_alive()
        assert [len(server.sent[user]) for user in range(5)] == [1] * 5


def test_fifty_users_at_once(bot: Bot) -> None:
    """Fifty questions together: each user gets one right answer."""
    with FakeTelegram() as server, running(bot, server):
        for user in range(50):
            server.say(100 + user, "How far apart is maize planted?")
        for user in range(50):
            assert "25 cm" in server.wait_for(100 + user, 1)[0]
        assert sum(len(messages) for messages in server.sent.values()) == 50


def test_too_many_messages_are_slowed_down(bot: Bot) -> None:
    """The limit is a user's own: another user is not touched by it."""
    with FakeTelegram() as server, running(bot, server, messages_per_minute_max=2):
        for _ in range(3):
            server.ask(1, "/start")
        assert "wait a minute" in server.sent[1][2]
        assert "Muli bwanji" in server.ask(2, "/start")


def test_a_message_that_cannot_be_sent_is_logged_without_the_token(bot: Bot) -> None:
    """Telegram's refusal is an event in the log; the bot lives on; the token stays secret."""
    with FakeTelegram() as server, running(bot, server):
        sending = server.respond

        def refuse_one(request: Any) -> tuple[int, Any]:
            if request.path.endswith("/sendMessage") and request.body["chat_id"] == "13":
                return 400, {"ok": False, "error_code": 400, "description": "Bad Request: no chat"}
            return sending(request)

        server.respond = refuse_one  # type: ignore[method-assign]
        with structlog.testing.capture_logs() as logs:
            server.say(13, "/start")
            deadline = time.monotonic() + 10
            while not any(e["event"] == "update_failed" for e in logs):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert "Muli bwanji" in server.ask(14, "/start")
    assert TOKEN not in repr(logs)


def test_without_a_token_nothing_starts(bot: Bot) -> None:
    """The message says where a token comes from."""
    with pytest.raises(ConfigurationError, match="BotFather"):
        build_application(bot, BotSettings())


def test_long_answers_are_cut_at_line_ends() -> None:
    """No message is longer than Telegram allows, and no word is lost."""
    text = "\n".join(f"line {i} of a long answer" for i in range(400))
    pieces = parts(text)
    assert max(map(len, pieces)) <= MESSAGE_CHARACTERS_MAX
    assert "\n".join(pieces) == text
    assert "".join(parts("x" * 9000)) == "x" * 9000


def test_the_rate_limit_forgets_after_a_minute() -> None:
    """A user who waits is heard again."""
    now = [0.0]
    limit = RateLimit(2, clock=lambda: now[0])
    assert [limit.allows(1), limit.allows(1), limit.allows(1), limit.allows(2)] == [
        True, True, False, True,
    ]  # fmt: skip
    now[0] = 60.5
    assert limit.allows(1)
