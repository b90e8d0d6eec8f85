"""The account that runs the embedded server, and a place that it can reach.

PostgreSQL refuses to run as root. When we are root, its programs run as ``postgres`` or ``nobody``.
Such an account cannot enter every folder (``/root`` has mode 0700), and opening those folders would
change permissions that are not ours. So when the wanted folder cannot be reached, the cluster lives in
a private folder with a random name under ``/var/lib/shadow-cutover`` (or the temporary folder, if
that cannot be written), and a pointer file named ``location`` in the wanted folder remembers it.
The same is done for server programs that the account cannot run: they are copied beside the cluster.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vectorstore.errors import ConfigurationError, StoreCorrupt
from vectorstore.postgres.binaries import Binaries

__all__ = ["Account", "place_cluster", "reachable_binaries", "server_account"]

_POINTER = "location"
_ACCOUNTS = ("postgres", "_postgres", "pgsql", "nobody")
_STATE_FOLDER = Path("/var/lib/shadow-cutover")


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs the server. ``uid`` is None when that is simply us."""

    uid: int | None = None
    gid: int | None = None

    def run(
        self, command: list[str], *, cwd: Path, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this account, in its own session: Ctrl-C in our terminal never reaches it."""
        # Output goes to a file: a pipe would be held open by the server that pg_ctl leaves behind.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(  # noqa: S603 - programs that find_binaries chose
                command,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(),
                user=self.uid,
                group=self.gid,
                extra_groups=None if self.uid is None else [],
                start_new_session=True,
                timeout=timeout_s,
                check=False,
            )
            output.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, output.read(), "")

    def own(self, path: Path) -> None:
        """Give a file or folder of ours to this account."""
        if self.uid is not None:
            os.chown(path, self.uid, self.gid if self.gid is not None else -1)

    def reaches(self, folder: Path) -> bool:
        """Whether this account may enter the folder: it is tried, so ACLs count too."""
        if self.uid is None:
            return os.access(folder, os.X_OK)
        tried = self.run(
            ["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)], cwd=Path("/"), timeout_s=10
        )
        return tried.returncode == 0


def server_account() -> Account:
    """Ourselves, or an unprivileged account when we are root."""
    if os.geteuid() != 0:
        return Account()
    for name in _ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid)
    raise ConfigurationError(
        "PostgreSQL does not run as root, and this machine has none of the accounts "
        f"{', '.join(_ACCOUNTS)}: create one (`useradd --system postgres`) or run as another user"
    )


def place_cluster(directory: Path, account: Account) -> Path:
    """The folder that holds the cluster for ``directory``: itself, or the one its pointer names.

    The folder returned exists, belongs to us, and can be entered by the account.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    pointer = directory / _POINTER
    if pointer.exists():
        target = Path(pointer.read_text(encoding="utf-8").strip())
        if not target.is_dir():
            raise StoreCorrupt(
                f"{pointer} says that the embedded server's data is in {target}, which is gone: "
                f"restore that folder, or delete {pointer} to start with an empty server"
            )
        return target
    if account.uid is not None:
        # Search permission alone: the files inside keep their own modes.
        directory.chmod(0o711)
    if account.reaches(directory):
        return directory
    target = _private_folder()
    aside = pointer.with_suffix(".new")
    aside.write_text(f"{target}\n", encoding="utf-8")
    aside.replace(pointer)
    return target


def reachable_binaries(binaries: Binaries, account: Account, cluster: Path) -> Binaries:
    """The binaries, copied beside the cluster if the account cannot enter their folder."""
    if account.reaches(binaries.bin):
        return binaries
    package = binaries.root.parent
    copies = cluster / f"programs-{binaries.major}"
    root = copies / package.name / binaries.root.name
    if not root.exists():
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, copies / libraries.name, symlinks=True, dirs_exist_ok=True)
        aside = root.with_name(f"{root.name}.new")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(binaries.root, aside, symlinks=True)
        aside.rename(root)
        for folder in (copies, copies / package.name):
            folder.chmod(0o755)
    return Binaries(root / "bin", binaries.major, root)


def _private_folder() -> Path:
    try:
        _STATE_FOLDER.mkdir(mode=0o711, exist_ok=True)
        state = _STATE_FOLDER.stat()
        # Somebody else's folder of that name is not a place for our data.
        parent = _STATE_FOLDER if state.st_uid == os.geteuid() else Path(tempfile.gettempdir())
    except OSError:
        parent = Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="shadow-postgresql-", dir=parent))
    folder.chmod(0o711)
    return folder


def _environment() -> dict[str, str]:
    # PGDATA, PGPORT and the like would steer the server to somebody else's cluster.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}
