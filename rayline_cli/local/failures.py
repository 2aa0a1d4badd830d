"""Find the real reason in the output of Serve, vLLM and Ray when something does not start: text in, text out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from rayline_cli.errors import FailedError


class LocalRuntimeError(FailedError):
    """`up` did not succeed. The message is the real reason, for a person."""


class TranslationError(LocalRuntimeError):
    """The RayService cannot run on this machine; one line per reason."""


class RayGaveUp(LocalRuntimeError):
    """Ray ended because of a time-out of its own."""


# The beginning of a line, as in "(EngineCore pid=12) ERROR 11-21 10:49:27 [core.py:1111] ValueError: ...".
_START = r"^(?:\(\w+ pid=\d+\) )?(?:(?:ERROR|CRITICAL)\b[^\]]*\] ?)?"
_PREFIX = re.compile(_START)
_EXCEPTION = re.compile(_START + r"\s*(?:[A-Za-z_]\w*\.)*(?P<type>\w*(?:Error|Exception|Interrupt)): (?P<text>\S.*)$")
_PYDANTIC_TAIL = re.compile(r" \[type=\w+, input_value=.*?input_type=\w+\]")
# Signs of a line that only reports the failure of something else.
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
    """Return the innermost exception in `texts`, as "Type: message"; None where no exception has a message.

    Texts are tried in order. Within one text the first exception that is no wrapper wins: Python prints causes before
    consequences ("The above exception was the direct cause ...").
    """
    for text in texts:
        lines = text.splitlines()
        for number, line in enumerate(lines):
            match = _EXCEPTION.match(line)
            if match and not any(wrapper in line for wrapper in _WRAPPERS):
                reason = " ".join([f"{match['type']}: {match['text'].strip()}", *_continued(lines[number + 1 :])])
                return _PYDANTIC_TAIL.sub("", reason)
    return None


def _continued(lines: Iterable[str]) -> list[str]:
    """Return the further lines of a message, mostly of pydantic: they are indented or bullets. At most six."""
    taken: list[str] = []
    for line in lines:
        text = _PREFIX.sub("", line).rstrip()
        if len(taken) == 6 or not text.startswith((" ", "-", "*")) or text.lstrip().startswith(("File ", "For further")):
            break
        taken.append(text.strip())
    return taken


def memory_ran_out(text: str) -> bool:
    """Return whether `text` reports that a process was ended for want of memory."""
    return bool(_KILLED_FOR_MEMORY.search(text))


def timed_out(text: str) -> bool:
    """Return whether `text` reports a time-out: on a busy machine a second attempt may succeed."""
    return bool(_TIMED_OUT.search(text))


def replica_logs(log_folder: Path, worker_ids: Iterable[str] = ()) -> Mapping[str, str]:
    """Return the end of each replica's logs by file name, newest first; without `worker_ids` of all replicas.

    With RAY_SERVE_THROUGHPUT_OPTIMIZED the replica's own log is buffered and mostly empty: vLLM's lines are in the
    worker's stdout and stderr.
    """
    if ids := list(worker_ids):
        workers = [path for worker in ids for path in log_folder.glob(f"worker-{worker}-*")]
    else:
        workers = [path for path in log_folder.glob("worker-*") if is_log_of("ServeReplica", path)]
    files = [*workers, *log_folder.glob("serve/replica_*.log")]
    return {path.name: tail(path, 64_000) for path in sorted(files, key=_modified, reverse=True)}


def is_log_of(actor: str, path: Path) -> bool:
    """Return whether a worker's output is that of an actor of Serve: the second line names the actor."""
    with suppress(OSError), open(path, "rb") as file:
        return actor.encode() in file.read(300)
    return False


def last_line(text: str) -> str:
    """Return the last line with content, without vLLM's time stamp."""
    for line in reversed(text.splitlines()):
        # every process that imports vLLM without a GPU prints a line about Triton, which hides the line before
        if line.strip() and not line.startswith(":") and "Triton" not in line:
            return re.sub(r"^(\(\w+ pid=\d+\) )?[A-Z]+ [\d-]+ [\d:]+ (\[\S+\] )?", r"\1", line).strip()
    return ""


def tail(path: Path, size: int) -> str:
    """Return the last `size` bytes of a file as text; "" if it cannot be read."""
    with suppress(OSError), open(path, "rb") as file:
        file.seek(max(0, file.seek(0, 2) - size))
        return file.read().decode(errors="replace")
    return ""


def _modified(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0
