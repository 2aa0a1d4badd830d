"""The processes and files of one session: start them, find them again, end them."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import psutil

from rayline_cli.local import supervisor
from rayline_cli.local.bundled_models import default_cache_dir
from rayline_cli.local.failures import LocalRuntimeError, is_log_of
from rayline_cli.local.ports import PORTS

SESSION_VARIABLE = "RAYLINE_SESSION"
"""Variable with the session's id in every process of a session."""
SECRETS_FOLDER = "secrets"
"""Folder of mounted Secrets under the session's."""
_RECORD = "session.json"
_STOP_TIMEOUT_SECONDS = 20.0
# Seen in 150 s of an idle session whose applications are read twice a second: each of these requests is a line in the
# first two, GCS and raylet write their state every minute, and Serve's controller repeats its reason to wait.
_LOGS_THAT_ALWAYS_GROW = ("dashboard.log", "python-core-*", "gcs_server.out", "raylet.out", "debug_state*", "controller_*")


class SessionError(LocalRuntimeError):
    """The session's files or processes are not as they must be."""


def output_of(state_dir: Path) -> Path:
    """Return the file with the output of `ray start` and the supervisor."""
    return state_dir / "ray-start.log"


@dataclass(frozen=True)
class Session:
    """One Ray head with everything below it."""

    id: str
    state_dir: Path
    folder: Path
    """Short folder with Ray's session folder, sockets and HAProxy's files."""
    ports: Mapping[str, int]
    restart_key: str
    salt: str
    supervisor_pid: int
    supervisor_started: float
    """Start time of the process: its id alone may have been given to another process since."""
    started_at: float
    """Seconds since the epoch."""
    num_cpus: int
    """Ray CPUs of the node."""
    sent: Mapping[str, Any] = field(default_factory=dict)
    """The configuration that was PUT last, in its local form."""
    ready: bool = False
    """Whether an `up` completed with this session."""

    @property
    def log_folder(self) -> Path:
        """Return the folder of Ray's log files."""
        return self.folder / "session_latest" / "logs"

    @property
    def output(self) -> Path:
        """Return the file with the output of `ray start` and the supervisor."""
        return output_of(self.state_dir)

    def supervisor(self) -> psutil.Process | None:
        """Return the living supervisor, or None."""
        try:
            process = psutil.Process(self.supervisor_pid)
            same = abs(process.create_time() - self.supervisor_started) < 1.0
            return process if same and is_alive(process) else None
        except psutil.NoSuchProcess:
            return None

    def processes(self) -> list[psutil.Process]:
        """Return every living process of this session, the supervisor included."""
        processes = {process.pid: process for process in marked_processes(self.id)}
        if root := self.supervisor():
            processes |= {process.pid: process for process in (root, *root.children(recursive=True))}
        return [process for process in processes.values() if is_alive(process)]

    def named(self, name: str) -> list[psutil.Process]:
        """Return the living processes of this session whose program is `name`."""
        processes = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                if process.name() == name:
                    processes.append(process)
        return processes

    def logs(self) -> Iterator[Path]:
        """Yield every log file that grows only when the session moves, and not by itself or at a request."""
        yield self.output
        for path in self.log_folder.rglob("*"):
            ignored = any(fnmatch(path.name, pattern) for pattern in _LOGS_THAT_ALWAYS_GROW)
            if not ignored and not (path.name.startswith("worker-") and is_log_of("ServeController", path)):
                yield path

    def variable(self, name: str) -> str | None:
        """Return a variable of the session's environment, such as its token, which is written to no file."""
        root = self.supervisor()
        return environ(root.pid).get(name) if root else None

    def changed(self, **changes: Any) -> Session:
        """Return a copy with `changes`, written to the state folder."""
        session = dataclasses.replace(self, **changes)
        session.save()
        return session

    def save(self) -> None:
        """Write the record to the state folder."""
        record = dataclasses.asdict(self)
        del record["state_dir"]
        _write_private(self.state_dir / _RECORD, json.dumps(record, indent=2, default=str))


def load(state_dir: Path) -> Session | None:
    """Return the session recorded in `state_dir`, alive or not; None where there is none."""
    try:
        record = json.loads((state_dir / _RECORD).read_text())
        return Session(**{**record, "state_dir": state_dir, "folder": Path(record["folder"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        # Without a file nothing runs. A file of another version, or half written to a full disk, cannot be trusted.
        return None


# --- files -----------------------------------------------------------------------------------------------------------


def _write_private(path: Path, text: str) -> None:
    """Replace a file at once. Only this user can read it."""
    # hidden: readers of a folder of keys take each of its other files for a key
    scratch = path.with_name(f".{path.name}.new")
    scratch.touch(mode=0o600)
    scratch.write_text(text)
    scratch.replace(path)


def write_secrets(folder: Path, files: Mapping[str, str]) -> bool:
    """Make the mounted Secrets under `folder` equal to `files`. Return whether one changed."""
    existing = {path for path in (folder / SECRETS_FOLDER).rglob("*") if path.is_file()}
    wanted = {folder / name: content for name, content in files.items()}
    changed = {path for path, content in wanted.items() if path not in existing or path.read_text() != content}
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_private(path, wanted[path])
    for path in existing - wanted.keys():
        path.unlink()
    return bool(changed or existing - wanted.keys())


def session_folder(state_dir: Path) -> Path:
    """Return a folder with a short path: Unix socket paths end at 107 characters, HAProxy's at 97, a node id takes 56."""
    key = f"{os.getuid()}:{state_dir.resolve()}"
    return Path("/tmp") / f"rayline-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def make_folder(folder: Path) -> None:
    """Make an empty folder that only this user can use. Raises SessionError where another user has the name."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise SessionError(f"{folder} cannot be emptied: it belongs to another user. Fix: remove it as that user") from None
    if folder.is_symlink() or stat.S_IMODE(folder.stat().st_mode) & 0o077:
        raise SessionError(f"{folder} is not a private folder. Fix: remove it")


@contextmanager
def lock(state_dir: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Allow one `up` or `down` at a time for a state folder. `on_wait` is called once where another one holds the lock."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(state_dir / "lock", "w") as file:
        if not _try_lock(file, fcntl.LOCK_EX):
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _try_lock(file: Any, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True)
class Reserved:
    """Ports that belong to one session."""

    ports: Mapping[str, int]
    """The first of each range."""
    hold: int
    """File descriptor: the ports are taken for as long as some process has it open."""


@contextmanager
def reserved_ports(folder: Path, choose: Callable[[Callable[[int], bool]], dict[str, int]]) -> Iterator[Reserved]:
    """Reserve ports that neither listen now nor belong to another session of this user.

    Between the choice and the moment Ray listens several seconds pass, and of the replicas' ports most listen never. So
    the choice is written to the session's folder, under a lock that all sessions of this user share: two `up` started
    together do not choose the same. The file stays locked while the session's supervisor lives. A folder that was left
    behind, because everything was killed, takes no ports.
    """
    shared_lock = default_cache_dir() / "ports.lock"
    shared_lock.parent.mkdir(parents=True, exist_ok=True)
    with open(folder / "ports.json", "w") as choice:
        fcntl.flock(choice, fcntl.LOCK_EX)
        with open(shared_lock, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            ports = choose(_taken(folder).__contains__)
            json.dump([[ports[port.name], port.width] for port in PORTS], choice)
            choice.flush()
        yield Reserved(ports, choice.fileno())


def _taken(folder: Path) -> set[int]:
    """Return ports that listen or are connected, and those of sessions in other folders."""
    taken = {
        connection.laddr.port
        for connection in psutil.net_connections("tcp")
        if connection.laddr and connection.status != psutil.CONN_TIME_WAIT
    }
    for other in Path("/tmp").glob("rayline-*/ports.json"):
        with suppress(OSError, ValueError, TypeError), open(other) as file:
            if other.parent != folder and not _try_lock(file, fcntl.LOCK_SH):
                taken.update(first + step for first, width in json.load(file) for step in range(width))
    return taken


# --- processes -------------------------------------------------------------------------------------------------------


class Starting:
    """A session that ends with its caller unless `keep` is called."""

    def __init__(self, session: Session, pipe: int) -> None:
        self.session = session
        self._pipe = pipe

    def keep(self) -> None:
        """Let the session outlive the caller."""
        if self._pipe >= 0:
            os.write(self._pipe, supervisor.KEEP)
            os.close(self._pipe)
            self._pipe = -1

    def __del__(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)


def new_id() -> str:
    """Return a fresh session id."""
    return secrets.token_hex(8)


def start(
    command: Sequence[str],
    *,
    session_id: str,
    state_dir: Path,
    folder: Path,
    env: Mapping[str, str],
    ports: Mapping[str, int],
    restart_key: str,
    salt: str,
    num_cpus: int,
    hold: Sequence[int] = (),
) -> Starting:
    """Start `command` under a supervisor in its own process session and record it.

    The supervisor keeps the file descriptors `hold` open for as long as it lives.
    """
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    with open(output_of(state_dir), "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", supervisor.__file__, str(read_end), str(folder), *command],
            env={**env, SESSION_VARIABLE: session_id},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[read_end, *hold],
            start_new_session=True,
            cwd=folder,
        )
    os.close(read_end)
    session = Session(
        id=session_id,
        state_dir=state_dir,
        folder=folder,
        ports=dict(ports),
        restart_key=restart_key,
        salt=salt,
        supervisor_pid=process.pid,
        supervisor_started=psutil.Process(process.pid).create_time(),
        started_at=time.time(),
        num_cpus=num_cpus,
    )
    session.save()
    return Starting(session, write_end)


def stop(session: Session) -> bool:
    """End every process of `session`, remove its folder and its record. Return whether a process was ended."""
    root = session.supervisor()
    ended = root is not None
    if root is not None:
        root.terminate()
        try:
            root.wait(_STOP_TIMEOUT_SECONDS)
        except psutil.TimeoutExpired:
            root.kill()
    # Processes are left where the supervisor itself was killed, or had no time on a busy machine.
    fewest, give_up = math.inf, 0.0
    while left := marked_processes(session.id):
        ended = True
        if len(left) < fewest:
            fewest, give_up = len(left), time.monotonic() + _STOP_TIMEOUT_SECONDS
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1.0)
        if time.monotonic() > give_up:
            names = ", ".join(f"{process.pid} {process.name()}" for process in left)
            raise SessionError(f"these processes do not end: {names}. Fix: end them, then run `down` again")
    shutil.rmtree(session.folder, ignore_errors=True)
    (session.state_dir / _RECORD).unlink(missing_ok=True)
    return ended


def marked_processes(session_id: str) -> list[psutil.Process]:
    """Return this user's living processes whose environment carries the session's id."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            mine = process.uids().real == os.getuid()
            if mine and environ(process.pid).get(SESSION_VARIABLE) == session_id and is_alive(process):
                processes.append(process)
    return processes


def environ(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; empty if it is gone or another user's.

    Not psutil's: Ray's processes set their own title, which may blank out the first variables of this block (the
    dashboard agent's: most of them), and psutil stops reading at the first blank.
    """
    try:
        block = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in block.split("\0") if "=" in entry)


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs and is no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
