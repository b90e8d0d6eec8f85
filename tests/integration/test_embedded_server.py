"""The embedded server: private, shared by its owners, and back after every kind of death."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from vectorstore.errors import ConfigurationError, StoreCorrupt
from vectorstore.postgres.account import reachable_binaries, server_account
from vectorstore.postgres.binaries import find_binaries
from vectorstore.postgres.embedded import EmbeddedServer

OWNER = Path(__file__).with_name("embedded_owner.py")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that the server's account can reach; its cluster is destroyed afterwards."""
    parent = Path(tempfile.mkdtemp(prefix="shadow-embedded-"))
    parent.chmod(0o755)
    yield parent / "server"
    EmbeddedServer(parent / "server").destroy()
    shutil.rmtree(parent, ignore_errors=True)


@pytest.fixture
def make(directory: Path) -> Callable[[], EmbeddedServer]:
    def make_server() -> EmbeddedServer:
        return EmbeddedServer(directory, settings={"fsync": "off"})

    return make_server


@pytest.fixture
def owner(directory: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str, int]]]:
    """Starts owners in processes of their own, each in its own process group as in a terminal."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> tuple[subprocess.Popen[str], str, int]:
        process = subprocess.Popen(
            [sys.executable, OWNER, directory, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        assert process.stdout
        dsn, pid = process.stdout.readline().split()
        return process, dsn, int(pid)

    yield start
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


def test_it_keeps_its_data_and_its_address(make: Callable[[], EmbeddedServer]) -> None:
    """A second start finds the rows of the first, under the same DSN; nothing runs in between."""
    with make() as dsn:
        put(dsn, "kept")
    assert not answers(dsn)
    with make() as again:
        assert again == dsn
        assert rows(again) == ["kept"]


def test_it_offers_pgvector(make: Callable[[], EmbeddedServer]) -> None:
    """The extension is there to be created."""
    with make() as dsn, psycopg.connect(dsn) as connection:
        connection.execute("CREATE EXTENSION vector")


def test_an_orphan_is_adopted(
    make: Callable[[], EmbeddedServer],
    owner: Callable[..., tuple[subprocess.Popen[str], str, int]],
) -> None:
    """When its owner is killed the server runs on; the next owner takes it over and ends it."""
    process, dsn, pid = owner()
    put(dsn, "kept")
    process.kill()
    process.wait()
    assert answers(dsn)
    server = make()
    assert server.start() == dsn
    assert server.pid == pid
    assert rows(dsn) == ["kept"]
    server.stop()
    assert not answers(dsn)


def test_a_killed_server_comes_back(make: Callable[[], EmbeddedServer]) -> None:
    """After SIGKILL of the server itself, the next start recovers what was committed."""
    server = make()
    dsn = server.start()
    put(dsn, "kept")
    pid = server.pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not answers(dsn))
    other = make()
    again = other.start()
    assert rows(again) == ["kept"]
    assert other.pid != pid
    server.stop()
    assert answers(again)
    other.stop()
    assert not answers(again)


def test_the_server_lives_as_long_as_one_owner(
    make: Callable[[], EmbeddedServer],
    owner: Callable[..., tuple[subprocess.Popen[str], str, int]],
) -> None:
    """Owners that end normally or are killed leave it to the others; the last one takes it down."""
    first, dsn, _ = owner()
    second, same, _ = owner()
    third = make()
    assert same == dsn == third.start()
    first.communicate("end\n", timeout=30)
    assert answers(dsn)
    third.stop()
    assert answers(dsn)
    second.communicate("end\n", timeout=30)
    assert not answers(dsn)


def test_a_killed_owner_does_not_count(
    owner: Callable[..., tuple[subprocess.Popen[str], str, int]],
) -> None:
    """The last living owner ends the server though another one never said goodbye."""
    killed, dsn, _ = owner()
    last, _, _ = owner()
    killed.kill()
    killed.wait()
    last.communicate("end\n", timeout=30)
    assert not answers(dsn)


def test_ctrl_c_ends_the_owner_then_the_server(
    owner: Callable[..., tuple[subprocess.Popen[str], str, int]],
) -> None:
    """SIGINT to the terminal's process group reaches the owner alone, whose exit stops the server."""
    process, dsn, _ = owner("spin")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 0
    assert not answers(dsn)


def test_a_pid_of_another_program_is_not_mistaken(make: Callable[[], EmbeddedServer]) -> None:
    """After a reboot the old server's pid may belong to anything; that is neither adopted nor hurt."""
    server = make()
    dsn = server.start()
    put(dsn, "kept")
    pid_file = server.cluster / "data" / "postmaster.pid"
    old = pid_file.read_text().splitlines(keepends=True)
    server.stop()
    account = server_account()
    bystander = subprocess.Popen(["sleep", "600"], user=account.uid, cwd="/")
    try:
        pid_file.write_text("".join([f"{bystander.pid}\n", *old[1:]]))
        account.own(pid_file)
        with make() as again:
            assert rows(again) == ["kept"]
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_start_that_was_killed_halfway_is_made_again(
    directory: Path, make: Callable[[], EmbeddedServer]
) -> None:
    """What a killed first start left behind does not stop the next one."""
    (directory / "data.new" / "base").mkdir(parents=True)
    with make() as dsn:
        assert answers(dsn)


def test_the_password_is_private(make: Callable[[], EmbeddedServer]) -> None:
    """Only we can read it, and no login works without it."""
    server = make()
    with server as dsn:
        mode = stat.S_IMODE((server.cluster / "password").stat().st_mode)
        assert mode == 0o600
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(dsn.replace(":" + dsn.split(":")[2].split("@")[0], ":wrong"))
        assert not list(server.cluster.glob("password.*"))


def test_a_lost_password_is_named(make: Callable[[], EmbeddedServer]) -> None:
    """Without its password file the server cannot be used, and the error says so."""
    server = make()
    with server:
        pass
    (server.cluster / "password").unlink()
    with pytest.raises(ConfigurationError, match="password"):
        make().start()


@as_root
def test_closed_parents_stay_closed(tmp_path: Path) -> None:
    """Under a folder that the account cannot enter, the cluster lives elsewhere and is found again."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    before = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path, closed)]
    server = EmbeddedServer(closed / "server", settings={"fsync": "off"})
    with server as dsn:
        put(dsn, "kept")
        elsewhere = server.cluster
        assert not elsewhere.is_relative_to(tmp_path)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path, closed)] == before
    again = EmbeddedServer(closed / "server", settings={"fsync": "off"})
    with again as dsn:
        assert again.cluster == elsewhere
        assert rows(dsn) == ["kept"]
    again.destroy()
    assert not elsewhere.exists()
    assert not (closed / "server").exists()


@as_root
def test_a_pointer_to_nowhere_is_not_a_fresh_start(tmp_path: Path) -> None:
    """Lost data is reported, not replaced by an empty server."""
    directory = tmp_path / "server"
    directory.mkdir()
    (directory / "location").write_text("/nonexistent/cluster\n")
    with pytest.raises(StoreCorrupt, match="/nonexistent/cluster"):
        EmbeddedServer(directory).start()


@as_root
def test_programs_out_of_reach_are_copied(tmp_path: Path, directory: Path) -> None:
    """A virtual environment under a closed home still works: its server is copied beside the data."""
    found = find_binaries()
    closed = tmp_path / "package" / found.root.name
    shutil.copytree(found.root, closed, symlinks=True)
    directory.mkdir(mode=0o711)
    account = server_account()
    hidden = type(found)(closed / "bin", found.major, closed)
    copied = reachable_binaries(hidden, account, directory)
    assert copied.bin.is_relative_to(directory)
    shown = account.run([str(copied.bin / "postgres"), "--version"], cwd=directory, timeout_s=10)
    assert shown.returncode == 0
    assert reachable_binaries(hidden, account, directory) == copied


def put(dsn: str, value: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS things (value text)")
        connection.execute("INSERT INTO things VALUES (%s)", (value,))


def rows(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [value for (value,) in connection.execute("SELECT value FROM things")]


def answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)
