"""Find the real reason in what Serve, vLLM and Ray say when something does not start: text in, text out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from rayline_cli.errors import FailedError


class LocalRuntimeError(FailedError):
    """`up` did not succeed. The message is the real reason, for a person."""


class TranslationError(LocalRuntimeError):
    """The RayService cannot run on this machine; one line per reason."""


class RayGaveUp(LocalRuntimeError):
    """Ray ended because of a time-out of its own."""


# "(EngineCore pid=12) ERROR 11-21 10:49:27 [core.py:1111] ValueError: ..." and the bare "ValueError: ..." of a traceback.
_EXCEPTION = re.compile(
    r"^(?:\(\w+ pid=\d+\) )?(?:(?:ERROR|CRITICAL)\b[^\]]*\] )?\s*(?P<type>(?:[A-Za-z_]\w*\.)*\w*(?:Error|Exception|Interrupt))"
    r": (?P<text>\S.*)$"
)
_PREFIX = re.compile(r"^(?:\(\w+ pid=\d+\) )?(?:(?:ERROR|CRITICAL)\b[^\]]*\] ?)?")
_PYDANTIC_TAIL = re.compile(r" \[type=\w+, input_value=.*?input_type=\w+\]")
# These say that something else failed.
_WRAPPERS = (
    "RayTaskError",
    "ActorDiedError",
    "RayActorError",
    "Engine core initialization failed",
    "Engine process failed to start",
    "WorkerProc initialization failed",
    "EngineDeadError",
    "cancelled",
    ": Traceback (most recent call last)",  # Serve wraps the text of one traceback into the next
)
_TIMED_OUT = re.compile(
    r"(?i)\btimed[ -]?out\b|\btimeout after\b|timeout\w*error|deadline[ _]exceeded|\b(after|within) [\d.]+ ?(s|seconds|minutes)\b"
)
_KILLED_FOR_MEMORY = re.compile(
    r"(OutOfMemoryError|running low on memory|OOM|MemoryError|Cannot allocate memory|\bexit code -9\b|: -9\b)"
)


def root_cause(*texts: str) -> str | None:
    """The innermost exception in `texts`, as "Type: message"; None if there is none that says anything.

    Texts are tried in order. Within one text the first exception that is no wrapper wins: Python prints causes before
    consequences ("The above exception was the direct cause ...").
    """
    for text in texts:
        lines = text.splitlines()
        for number, line in enumerate(lines):
            match = _EXCEPTION.match(line)
            if match and not any(wrapper in line for wrapper in _WRAPPERS):
                name = match["type"].rsplit(".", 1)[-1]
                reason = " ".join([f"{name}: {match['text'].strip()}", *_continued(lines[number + 1 :])])
                return _PYDANTIC_TAIL.sub("", reason)
    return None


def _continued(lines: Iterable[str]) -> list[str]:
    """The following lines of a message of several lines: pydantic's, mostly. They are indented or bullets."""
    taken = []
    for line in lines:
        text = _PREFIX.sub("", line).rstrip()
        if not text or not text.startswith((" ", "-", "*")) or text.lstrip().startswith(("File ", "For further")):
            break
        if len(taken) == 6:
            break
        taken.append(text.strip())
    return taken


def memory_ran_out(text: str) -> bool:
    """Whether `text` says that a process was ended for want of memory."""
    return bool(_KILLED_FOR_MEMORY.search(text))


def timed_out(text: str) -> bool:
    """Whether `text` says that a time-out ended something: on a busy machine it may succeed when it is tried again."""
    return bool(_TIMED_OUT.search(text))


def replica_logs(log_folder: Path, worker_ids: Iterable[str] = ()) -> Mapping[str, str]:
    """The end of what replicas wrote, newest first, by file name.

    With RAY_SERVE_THROUGHPUT_OPTIMIZED the replica's own log is buffered and mostly empty: vLLM's words are in the
    worker's stdout and stderr. Without `worker_ids` every worker that served a replica is read.
    """
    ids = tuple(worker_ids)
    files = [
        *(path for worker in ids for path in log_folder.glob(f"worker-{worker}-*")),
        *([] if ids else log_folder.glob("worker-*")),
        *log_folder.glob("serve/replica_*.log"),
    ]
    found = {}
    for path in sorted(files, key=_modified, reverse=True):
        if path.parent.name == "serve" or ids or is_replica_log(path):
            found[path.name] = tail(path, 64_000)
    return found


def is_replica_log(path: Path) -> bool:
    """Whether a worker's output is a replica's: its second line names the actor."""
    try:
        with open(path, "rb") as file:
            return b"ServeReplica" in file.read(300)
    except OSError:
        return False


# Printed by every process that imports vLLM without a GPU; as the last line it hides what is really going on.
_NOISE = ("Triton",)


def last_line(text: str) -> str:
    """The last line that says something, without vLLM's time stamp."""
    for line in reversed(text.splitlines()):
        if line.strip() and not line.startswith(":") and not any(word in line for word in _NOISE):
            return re.sub(r"^(\(\w+ pid=\d+\) )?[A-Z]+ [\d-]+ [\d:]+ (\[\S+\] )?", r"\1", line).strip()
    return ""


def tail(path: Path, size: int) -> str:
    """The last `size` bytes of a file as text; "" if it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
