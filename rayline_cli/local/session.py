"""The processes and files of one session: started, found again, ended."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import math
import os
import secrets as random_secrets
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
from rayline_cli.local.ports import PORTS

SESSION_VARIABLE = "RAYLINE_SESSION"
"""Set in every process of a session; its value is the session's id."""
_RECORD = "session.json"
_STOP_TIMEOUT_SECONDS = 20.0
# Seen in 150 s of an idle session that is asked for its applications twice a second: each of these requests is a line in
# the first two, GCS and raylet write their state every minute, and Serve's controller repeats what it waits for.
_LOGS_THAT_ALWAYS_GROW = ("dashboard.log", "python-core-*", "gcs_server.out", "raylet.out", "debug_state*", "controller_*")


class SessionError(Exception):
    """The session's files or processes are not as they must be; the message says how."""


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
    """The process's start time: a pid alone may have been given to another process since."""
    started_at: float
    """Seconds since the epoch."""
    num_cpus: int
    """Ray CPUs that the node has."""
    sent: Mapping[str, Any] = field(default_factory=dict)
    """The configuration that was PUT last, in its local form."""
    ready: bool = False
    """Whether `up` came to its end with it."""

    @property
    def log_folder(self) -> Path:
        return self.folder / "session_latest" / "logs"

    @property
    def output(self) -> Path:
        """What `ray start` and the supervisor print."""
        return self.state_dir / "ray-start.log"

    def supervisor(self) -> psutil.Process | None:
        """The living supervisor, or None."""
        try:
            process = psutil.Process(self.supervisor_pid)
            same = abs(process.create_time() - self.supervisor_started) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def processes(self) -> list[psutil.Process]:
        """Every living process of this session, the supervisor included."""
        found = {process.pid: process for process in marked_processes(self.id)}
        root = self.supervisor()
        if root is not None:
            found[root.pid] = root
            found.update({child.pid: child for child in root.children(recursive=True)})
        return [process for process in found.values() if is_alive(process)]

    def named(self, name: str) -> list[psutil.Process]:
        """The living processes of this session whose program is `name`."""
        found = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                if process.name() == name:
                    found.append(process)
        return found

    def logs(self) -> Iterator[Path]:
        """Every log file that grows when something happens, and not by itself or because somebody asks."""
        yield self.output
        for path in self.log_folder.rglob("*"):
            if not any(fnmatch(path.name, pattern) for pattern in _LOGS_THAT_ALWAYS_GROW) and not _is_controllers(path):
                yield path

    def variable(self, name: str) -> str | None:
        """A variable of the session's environment, for instance its token. Never written to a file: read from /proc."""
        root = self.supervisor()
        return environ(root.pid).get(name) if root is not None else None

    def changed(self, **changes: Any) -> Session:
        """A copy with `changes`, written to the state folder."""
        session = dataclasses.replace(self, **changes)
        session.save()
        return session

    def save(self) -> None:
        record = dataclasses.asdict(self)
        del record["state_dir"]
        scratch = self.state_dir / f"{_RECORD}.new"
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(record, file, indent=2, default=str)
        scratch.replace(self.state_dir / _RECORD)


def load(state_dir: Path) -> Session | None:
    """The session recorded in `state_dir`, alive or not; None where there is none."""
    try:
        record = json.loads((state_dir / _RECORD).read_text())
        return Session(**{**record, "state_dir": state_dir, "folder": Path(record["folder"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        # Written by another version, or half written by a full disk. Nothing of it can be trusted.
        return None


def session_folder(state_dir: Path) -> Path:
    """A folder with a short path: Unix socket paths end at 107 characters, HAProxy's at 97, a node id takes 56 of them."""
    key = f"{os.getuid()}:{state_dir.resolve()}"
    return Path("/tmp") / f"rayline-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


@contextmanager
def lock(state_dir: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """One `up` or `down` at a time for a state folder. `on_wait` is called once if another one is at work."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(state_dir / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_folder(folder: Path) -> None:
    """An empty folder that only this user can use. Raises SessionError if the name belongs to somebody else."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise SessionError(f"{folder} cannot be emptied: it belongs to another user") from None
    if folder.is_symlink() or stat.S_IMODE(folder.stat().st_mode) & 0o077:
        raise SessionError(f"{folder} is not a private folder")


@dataclass(frozen=True)
class Reserved:
    """Ports that are one session's own."""

    ports: Mapping[str, int]
    """The first of each range."""
    hold: int
    """File descriptor: the ports are taken for as long as some process has it open."""


@contextmanager
def reserved_ports(folder: Path, choose: Callable[[Callable[[int], bool]], dict[str, int]]) -> Iterator[Reserved]:
    """Ports that neither listen now nor belong to another session of this user.

    Between the choice and the moment Ray listens several seconds pass, and of the replicas' ports most listen never. So
    the choice is written to the session's folder, under a lock that all sessions of this user share: two `up` started
    together do not choose the same. The file stays locked while the session's supervisor lives; a folder that was left
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
    """Ports that listen or are connected, and those of sessions in other folders."""
    taken = {
        connection.laddr.port
        for connection in psutil.net_connections("tcp")
        if connection.laddr and connection.status != psutil.CONN_TIME_WAIT
    }
    for other in Path("/tmp").glob("rayline-*/ports.json"):
        try:
            if other.parent != folder and _is_held(other):
                first_and_width = json.loads(other.read_text())
                taken.update(port + step for port, width in first_and_width for step in range(width))
        except (OSError, ValueError, TypeError):
            continue
    return taken


def _is_held(path: Path) -> bool:
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class Starting:
    """A session that ends with its caller unless `keep` is called."""

    def __init__(self, session: Session, pipe: int) -> None:
        self.session = session
        self._pipe = pipe

    def keep(self) -> None:
        """From now on the session outlives the caller."""
        if self._pipe >= 0:
            os.write(self._pipe, supervisor.KEEP)
            os.close(self._pipe)
            self._pipe = -1

    def __del__(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)


def new_id() -> str:
    """A fresh session id."""
    return random_secrets.token_hex(8)


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
    """Starts `command` under a supervisor in its own process session and records it.

    The supervisor keeps the file descriptors `hold` open for as long as it lives.
    """
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    with open(state_dir / "ray-start.log", "wb") as output:
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
    """Ends every process of `session`, removes its folder and its record. True if a process was ended."""
    root = session.supervisor()
    found_some = root is not None
    if root is not None:
        root.terminate()
        try:
            root.wait(_STOP_TIMEOUT_SECONDS)
        except psutil.TimeoutExpired:
            root.kill()
    # Normally nobody is left. Somebody is, when the supervisor itself was killed, or had no time on a busy machine.
    fewest, give_up = math.inf, 0.0
    while left := marked_processes(session.id):
        found_some = True
        if len(left) < fewest:
            fewest, give_up = len(left), time.monotonic() + _STOP_TIMEOUT_SECONDS
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1.0)
        if time.monotonic() > give_up:
            names = ", ".join(f"{process.pid} {process.name()}" for process in left)
            raise SessionError(f"these processes do not end: {names}")
    shutil.rmtree(session.folder, ignore_errors=True)
    (session.state_dir / _RECORD).unlink(missing_ok=True)
    return found_some


def _is_controllers(path: Path) -> bool:
    """Whether a worker's output is that of Serve's controller: its second line names the actor."""
    try:
        with open(path, "rb") as file:
            return path.name.startswith("worker-") and b"ServeController" in file.read(300)
    except OSError:
        return False


def marked_processes(session_id: str) -> list[psutil.Process]:
    """This user's living processes whose environment carries the session's id."""
    uid = os.getuid()
    found = []
    for process in psutil.process_iter():
        try:
            if process.uids().real == uid and environ(process.pid).get(SESSION_VARIABLE) == session_id and is_alive(process):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def environ(pid: int) -> dict[str, str]:
    """The environment a process was started with; empty if it is gone or another user's.

    Not psutil's: Ray's processes set their own title, which may blank out the first variables of this block (the
    dashboard agent's: most of them), and psutil stops reading at the first blank.
    """
    try:
        block = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in block.split("\0") if "=" in entry)


def is_alive(process: psutil.Process) -> bool:
    """Whether it is there and more than an entry that nobody has collected yet."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
