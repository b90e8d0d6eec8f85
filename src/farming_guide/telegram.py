"""The bot on Telegram: asynchronous at the edge, stores and models called in threads."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from farming_guide.commands import COMMANDS, Bot
from farming_guide.settings import BotSettings
from vectorstore.errors import ConfigurationError

try:
    from telegram import BotCommand, Update
    from telegram.error import TelegramError
    from telegram.ext import Application, ApplicationBuilder, ContextTypes, MessageHandler, filters
except ImportError as error:
    raise ConfigurationError(
        "Telegram needs python-telegram-bot: pip install 'shadow-cutover[telegram]'"
    ) from error

__all__ = ["MESSAGE_CHARACTERS_MAX", "RateLimit", "build_application", "parts", "run"]

log = structlog.get_logger("farming_guide")

# Telegram Bot API, sendMessage: "1-4096 characters after entities parsing".
MESSAGE_CHARACTERS_MAX = 4096
USERS_REMEMBERED_MAX = 10_000
WINDOW_S = 60.0
SLOW_DOWN = "That is a lot of questions at once. Please wait a minute and ask again."


class RateLimit:
    """At most so many messages of one user in a minute; remembers the latest users only."""

    def __init__(
        self, messages_per_minute_max: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = messages_per_minute_max
        self._clock = clock
        self._users: OrderedDict[int, deque[float]] = OrderedDict()

    def allows(self, user: int) -> bool:
        """Count a message of the user; False if it is one too many (it is then not counted)."""
        now = self._clock()
        times = self._users.setdefault(user, deque())
        self._users.move_to_end(user)
        while len(self._users) > USERS_REMEMBERED_MAX:
            self._users.popitem(last=False)
        while times and times[0] <= now - WINDOW_S:
            times.popleft()
        if len(times) >= self._most:
            return False
        times.append(now)
        return True


def parts(text: str) -> list[str]:
    """The text in messages that Telegram takes, cut at line ends where there are any."""
    found: list[str] = []
    while len(text) > MESSAGE_CHARACTERS_MAX:
        cut = text.rfind("\n", 1, MESSAGE_CHARACTERS_MAX)
        cut = cut if cut > 0 else MESSAGE_CHARACTERS_MAX
        found.append(text[:cut])
        text = text[cut:].lstrip("\n")
    return [*found, text] if text else found


def build_application(bot: Bot, settings: BotSettings) -> Application[Any, Any, Any, Any, Any, Any]:
    """An application that answers text messages; its threads end when it stops.

    Raises ConfigurationError if there is no token.
    """
    if settings.telegram_token is None:
        raise ConfigurationError("TELEGRAM_BOT_TOKEN is not set: get a token from @BotFather")
    workers = ThreadPoolExecutor(settings.workers, thread_name_prefix="answers")
    limit = RateLimit(settings.messages_per_minute_max)

    async def answer(update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
        message, user = update.effective_message, update.effective_user
        if message is None or message.text is None or user is None:
            return
        started = time.perf_counter()
        allowed = limit.allows(user.id)
        loop = asyncio.get_running_loop()
        reply = (
            await loop.run_in_executor(workers, bot.reply, message.text) if allowed else SLOW_DOWN
        )
        for part in parts(reply):
            await message.reply_text(part)
        # No text and no user: what people ask is theirs.
        log.info("answered", allowed=allowed, latency_ms=1e3 * (time.perf_counter() - started))

    async def announce(application: Application[Any, Any, Any, Any, Any, Any]) -> None:
        menu = [BotCommand(c.name, f"{c.usage} - {c.summary}".strip(" -")) for c in COMMANDS]
        await application.bot.set_my_commands(menu)

    async def finish(_application: Application[Any, Any, Any, Any, Any, Any]) -> None:
        workers.shutdown(wait=True)

    application = (
        ApplicationBuilder()
        .token(settings.telegram_token.get_secret_value())
        .base_url(settings.telegram_base_url)
        .concurrent_updates(4 * settings.workers)
        .connection_pool_size(2 * settings.workers)
        .post_init(announce)
        .post_shutdown(finish)
        .build()
    )
    application.add_handler(MessageHandler(filters.TEXT, answer))
    application.add_error_handler(_failed)
    return application


def run(bot: Bot, settings: BotSettings) -> None:
    """Poll and answer until SIGINT or SIGTERM; answers that are under way are finished and sent."""
    try:
        build_application(bot, settings).run_polling(bootstrap_retries=-1)
    finally:
        bot.advisor.store.close()


async def _failed(_update: object, context: ContextTypes.DEFAULT_TYPE) -> None:
    error = context.error
    # The library's messages may hold the address, and the address holds the token: only the kind is kept.
    kind = "telegram" if isinstance(error, TelegramError) else "unexpected"
    log.error("update_failed", kind=kind, error=type(error).__name__)
