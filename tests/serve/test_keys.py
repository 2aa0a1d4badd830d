"""Keys change while the service runs: no process starts anew, and streams that run do not notice."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from rayline import local_secrets, render
from rayline.local import runtime
from rayline.local.translate import SECRETS_FOLDER
from rayline.verify import Outcome
from tests.serve.serving import API_KEY, PATIENCE, TOKEN, Recorder, Served, program_of, ray_service, wait_until

SECRET = "tiny-api-key"
TOKENS = 900
STREAMED = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": TOKENS,
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
}


@dataclass
class Rotating:
    """The shared session under a stack file whose api_key_generation is raised."""

    served: Served
    state_dir: Path
    key: str = API_KEY

    def raise_to(self, generation: int) -> float:
        """`rayline up` after the stack file changed. Returns when the key's file changed, seconds since the epoch."""
        program = program_of(api_key_generation=generation)
        values = local_secrets.secret_values(render.secrets(program), self.state_dir, {SECRET: generation})
        self.served.running = runtime.up(
            render.ray_services(program)[0], state_dir=self.served.state_dir, secrets=values, report=Recorder()
        )
        self.key = values[SECRET, "api_key"]
        return (self.served.session.folder / SECRETS_FOLDER / SECRET / "api_key").stat().st_mtime

    def status(self, key: str) -> int:
        return httpx.post(
            f"{self.served.running.url}/tokenize",
            json={"model": "tiny", "prompt": "a"},
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
            timeout=PATIENCE,
        ).status_code


@dataclass
class Stream:
    started: float
    ended: float
    tokens: int


@dataclass
class Readers:
    """Clients that stream one answer after the other, each with the key of the moment."""

    rotating: Rotating
    streams: list[Stream] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        while not self._stop.is_set():
            started, tokens, done = time.time(), 0, False
            headers = {"Authorization": f"Bearer {self.rotating.key}"}
            url = f"{self.rotating.served.running.url}/v1/chat/completions"
            with httpx.stream("POST", url, json=STREAMED, headers=headers, trust_env=False, timeout=PATIENCE) as answer:
                for line in answer.iter_lines():
                    done = done or line == "data: [DONE]"
                    if line.startswith("data: {"):
                        tokens = ((json.loads(line[6:]).get("usage")) or {}).get("completion_tokens", tokens)
            if answer.status_code != 200 or not done:
                self.failures.append(f"HTTP {answer.status_code}, {tokens} tokens, ended: {done}")
            self.streams.append(Stream(started, time.time(), tokens))

    def stop(self) -> None:
        self._stop.set()


@pytest.fixture
def rotating(served: Served, tmp_path: Path) -> Iterator[Rotating]:
    """Begins with the session's first key; the session is given back as it was."""
    first = {SECRET: {"api_key": API_KEY}, "tiny-ray-auth": {"auth_token": TOKEN}}
    (tmp_path / local_secrets.FILE).write_text(json.dumps(first))
    yield Rotating(served, tmp_path)
    served.up(ray_service())


def test_keys_rotate_under_running_streams(rotating: Rotating):
    served = rotating.served
    before = {process.pid for process in served.session.processes() if "Serve" in " ".join(process.cmdline())}
    readers = Readers(rotating)
    threads = [threading.Thread(target=readers.read) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        assert wait_until(lambda: len(readers.streams) >= 8, 120)
        moments, keys = [], [rotating.key]
        for generation in (2, 3):
            moments.append(rotating.raise_to(generation))
            keys.append(rotating.key)
            # `up` has asked with the new key already; the key before it is valid as well
            assert [rotating.status(key) for key in keys[-2:]] == [200, 200]
        assert wait_until(lambda: rotating.status(keys[0]) == 401, 5), "the oldest key ends with the second raise"
        after_the_last = len(readers.streams) + 8
        assert wait_until(lambda: len(readers.streams) >= after_the_last, 120)
    finally:
        readers.stop()
        for thread in threads:
            thread.join()
    assert readers.failures == []
    assert {check.outcome for check in served.running.checks} <= {Outcome.PASS, Outcome.NOT_APPLICABLE}
    assert {stream.tokens for stream in readers.streams} == {TOKENS}
    for moment in moments:
        assert any(stream.started < moment < stream.ended for stream in readers.streams), "no stream ran at the change"
    after = {process.pid for process in served.session.processes() if "Serve" in " ".join(process.cmdline())}
    assert before <= after, "a process of Serve was started anew"
