"""A fake of Telegram's Bot API: long polling in, messages out."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from typing import Any

from tests.fakes.http_server import FakeServer, Request

__all__ = ["FakeTelegram"]

TOKEN = "123456:fake-token-of-a-bot"
POLL_S_MAX = 1.0


class FakeTelegram(FakeServer):
    """Users speak by :meth:`say`; what the bot sent them is in ``sent``, by chat."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[int, list[str]] = defaultdict(list)
        self._updates: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._next_update = 1

    @property
    def base_url(self) -> str:
        return f"{self.url}/bot"

    def say(self, user: int, text: str) -> None:
        """A user writes to the bot."""
        with self._changed:
            number = self._next_update
            self._next_update += 1
            message: dict[str, Any] = {
                "message_id": number,
                "date": 1_700_000_000,
                "chat": {"id": user, "type": "private"},
                "from": {"id": user, "is_bot": False, "first_name": "Farmer"},
                "text": text,
            }
            if text.startswith("/"):
                length = len(text.split()[0])
                message["entities"] = [{"type": "bot_command", "offset": 0, "length": length}]
            self._updates.append({"update_id": number, "message": message})
            self._changed.notify_all()

    def wait_for(self, user: int, count: int, timeout_s: float = 20.0) -> list[str]:
        """The messages to a user once there are ``count``; fails after the deadline."""
        with self._changed:
            done = self._changed.wait_for(lambda: len(self.sent[user]) >= count, timeout_s)
            assert done, (
                f"user {user} got {len(self.sent[user])} of {count} messages in {timeout_s} s"
            )
            return list(self.sent[user])

    def ask(self, user: int, text: str, timeout_s: float = 20.0) -> str:
        """Say something and return the next message that the bot sends to this user."""
        before = len(self.sent[user])
        self.say(user, text)
        return self.wait_for(user, before + 1, timeout_s)[before]

    def respond(self, request: Request) -> tuple[int, Any]:
        prefix = f"/bot{TOKEN}/"
        if not request.path.startswith(prefix):
            return 401, {"ok": False, "error_code": 401, "description": "Unauthorized"}
        method = request.path.removeprefix(prefix)
        body = request.body if isinstance(request.body, dict) else {}
        answers = {"getMe": self._me, "getUpdates": self._poll, "sendMessage": self._send}
        result = answers[method](body) if method in answers else True
        return 200, {"ok": True, "result": result}

    def _me(self, _body: dict[str, Any]) -> dict[str, Any]:
        return {"id": 1, "is_bot": True, "first_name": "Advisor", "username": "advisor_bot"}

    def _poll(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        offset, limit = int(body.get("offset", 0)), int(body.get("limit", 100))
        wait_s = min(float(body.get("timeout", 0)), POLL_S_MAX)
        deadline = time.monotonic() + wait_s
        with self._changed:
            # An update below the offset is confirmed: it is not delivered again.
            self._updates = [u for u in self._updates if u["update_id"] >= offset]
            while not self._updates and time.monotonic() < deadline:
                self._changed.wait(deadline - time.monotonic())
            return self._updates[:limit]

    def _send(self, body: dict[str, Any]) -> dict[str, Any]:
        chat = int(body["chat_id"])
        with self._changed:
            self.sent[chat].append(body["text"])
            self._changed.notify_all()
        return {
            "message_id": 1,
            "date": 1_700_000_000,
            "chat": {"id": chat, "type": "private"},
            "text": body["text"],
        }
