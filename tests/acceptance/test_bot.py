"""The bot lives through a migration in one process: Telegram, OpenAI and Open-Meteo are local fakes."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from farming_guide.knowledge_base import build, different_queries
from farming_guide.local_embedder import LocalEmbedder
from farming_guide.openai_embedder import OpenAIEmbedder
from tests.acceptance.operator import ROOT, Operator
from tests.fakes.handbook import write_handbook
from tests.fakes.open_meteo import FakeOpenMeteo
from tests.fakes.openai_server import FakeOpenAI
from tests.fakes.telegram_server import TOKEN, FakeTelegram

KEY = "sk-test-0123456789abcdefghijklmnop"
LOCAL = LocalEmbedder()
# Questions of the conversation, and what must be in the right answer.
SAID = {
    "/start": "Muli bwanji",
    "/help": "/varieties CROP",
    "/about": "farming guides",
    "/ask How far apart is maize planted?": "one seed every 25 cm",
    "How do I prevent aflatoxin in groundnuts?": "Dry groundnuts fast",
    "/ask how do I plant crop:groundnuts season:rainy": "10 to 15 cm apart",
    "/crops Lilongwe rainy": "maize (needs 500-800 mm)",
    "/varieties maize": "SC 403",
    "/weather Lilongwe": "rain 12 mm",
    "/rain 13.9833S, 33.7833E": "24 mm",
    "What is the capital of France?": "I do not know",
}
QUESTION, ANSWER = "How far apart is maize planted?", "one seed every 25 cm"


def wide(texts: list[str]) -> np.ndarray:
    """The offline model's vectors in 1,536 dimensions, as OpenAI's would come."""
    vectors = LOCAL.embed(texts)
    return np.pad(vectors, ((0, 0), (0, 1536 - vectors.shape[1])))


def quoting(messages: list[dict[str, str]]) -> str:
    """A chat model that repeats the first passage, with its mark."""
    first = messages[1]["content"].split("[1] ", 1)[1].split("\n\n")[0]
    return f"{first.partition(chr(10))[2]} [1]"


class World:
    """The three fakes, the operator and the one bot process."""

    def __init__(
        self, operator: Operator, telegram: FakeTelegram, environment: dict[str, str]
    ) -> None:
        self.operator = operator
        self.telegram = telegram
        self.environment = environment

    @contextmanager
    def bot(self) -> Iterator[subprocess.Popen[str]]:
        """The bot, running; asked to stop at the end, which must go well."""
        with (self.operator.folder / "bot.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "farming_guide.cli", "telegram"],
                cwd=ROOT,
                env={**self.operator.environment, **self.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
            try:
                self._wait_until_up(process)
                yield process
                assert process.poll() is None, "the bot ended by itself"
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        text = (self.operator.folder / "bot.log").read_text()
        assert KEY not in text
        assert TOKEN not in text
        assert "Traceback" not in text

    def _wait_until_up(self, process: subprocess.Popen[str]) -> None:
        self.telegram.say(1, "/start")
        deadline = time.monotonic() + 60
        while not self.telegram.sent[1]:
            ended = process.poll() is not None
            log = (self.operator.folder / "bot.log").read_text()
            assert not ended, f"the bot ended at its start: {log}"
            assert time.monotonic() < deadline, f"the bot does not answer: {log}"
            time.sleep(0.05)

    def converse(self, user: int) -> None:
        """One user says everything once and gets the right answers."""
        before = len(self.telegram.sent[user])
        for text, expected in SAID.items():
            assert expected in self.telegram.ask(user, text)
        assert len(self.telegram.sent[user]) == before + len(SAID)

    def answering(self) -> str:
        """The store that `/status` names."""
        return self.telegram.ask(2, "/status").splitlines()[0].removeprefix("Answers come from: ")

    def until_answered_by(self, store: str) -> None:
        """Wait until that store answers."""
        deadline = time.monotonic() + 30
        while self.answering() != store:
            assert time.monotonic() < deadline, f"{store} does not answer"


@pytest.fixture
def world(tmp_path: Path, postgresql_dsn: str, fresh_table: str) -> Iterator[World]:
    with (
        FakeTelegram() as telegram,
        FakeOpenMeteo() as weather,
        FakeOpenAI(embed=wide, chat=quoting) as openai,
    ):
        write_handbook(tmp_path / "handbook")
        embedder = OpenAIEmbedder(api_key=KEY, base_url=openai.base_url)
        build(tmp_path / "handbook", tmp_path / "index", embedder)
        operator = Operator(
            tmp_path,
            {
                "SHADOW_FAISS__PATH": str(tmp_path / "index"),
                "DATABASE_URL": postgresql_dsn,
                "SHADOW_POSTGRESQL__TABLE": fresh_table,
                "SHADOW_GATE__RECALL_MIN": "0.9",
            },
        )
        yield World(
            operator,
            telegram,
            {
                "VECTOR_DB_TYPE": "shadow",
                "OPENAI_API_KEY": KEY,
                "OPENAI_BASE_URL": openai.base_url,
                "TELEGRAM_BOT_TOKEN": TOKEN,
                "FARMING_GUIDE_TELEGRAM_BASE_URL": telegram.base_url,
                "FARMING_GUIDE_OPEN_METEO_URL": weather.url,
                "FARMING_GUIDE_HANDBOOK": str(tmp_path / "handbook"),
                "FARMING_GUIDE_MESSAGES_PER_MINUTE_MAX": "10000",
                "FARMING_GUIDE_THRESHOLD": "0.4",
            },
        )


class Crowd:
    """Users who ask without pause, each waiting for the answer before the next question."""

    def __init__(self, telegram: FakeTelegram, users: int) -> None:
        self._telegram = telegram
        self._stopping = threading.Event()
        self.phase = "faiss"
        self.latencies_s: dict[str, list[float]] = defaultdict(list)
        self.wrong: list[str] = []
        self.asked = itertools.count()
        self._threads = [
            threading.Thread(target=self._ask_on, args=(1_000 + number,)) for number in range(users)
        ]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)

    def _ask_on(self, user: int) -> None:
        queries = itertools.cycle(different_queries())
        for number in itertools.count():
            if self._stopping.is_set():
                break
            # Most questions differ, for the gate; every second one has an answer that can be checked.
            checked = number % 2 == 0
            text = QUESTION if checked else f"{next(queries)} (farm {user})"
            phase, started = self.phase, time.perf_counter()
            try:
                reply = self._telegram.ask(user, text, timeout_s=30)
            except AssertionError as error:
                self.wrong.append(str(error))
                break
            self.latencies_s[phase].append(time.perf_counter() - started)
            next(self.asked)
            if checked and ANSWER not in reply:
                self.wrong.append(reply)
            if "just now" in reply or "my side" in reply:
                self.wrong.append(reply)

    def check(self) -> None:
        """Everything that was asked was answered, once, and rightly."""
        assert self.wrong == []
        answered = sum(len(self._telegram.sent[1_000 + n]) for n in range(len(self._threads)))
        assert answered == next(self.asked)


def live_through(world: World, users: int, pause_s: float = 0.0) -> dict[str, list[float]]:
    """A conversation before, during and after a cutover and a rollback, beside a crowd of users."""
    operator = world.operator
    with world.bot() as process:
        world.converse(10)
        with Crowd(world.telegram, users) as crowd:
            operator.done("backfill")
            assert "clean" in operator.done("verify")
            operator.until("Pass", lambda found: found["verdict"] == "pass")
            assert world.answering() == "faiss"
            for phase, command, store in (
                ("postgresql", ("cutover",), "postgresql"),
                ("after rollback", ("rollback",), "faiss"),
            ):
                time.sleep(pause_s)
                crowd.phase = phase
                flip = threading.Thread(target=operator.done, args=command)
                flip.start()
                world.converse(11)
                flip.join()
                world.until_answered_by(store)
                world.converse(12)
            time.sleep(pause_s)
        crowd.check()
        assert process.poll() is None
    return crowd.latencies_s


def test_a_conversation_before_during_and_after_cutover_and_rollback(world: World) -> None:
    """All answers are right, none is lost or doubled, and the bot is one process throughout."""
    live_through(world, users=5)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_fifty_users_for_a_minute_while_the_primary_flips(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """No failed answer; the latencies of each phase are printed."""
    latencies = live_through(world, users=50, pause_s=20.0)
    with capsys.disabled():
        for phase, seconds in latencies.items():
            p50, p95 = np.percentile(seconds, [50, 95])
            print(
                f"\n{phase}: {len(seconds)} answers, p50 {p50 * 1e3:.0f} ms, p95 {p95 * 1e3:.0f} ms"
            )
