"""Prefill and decode replicas that are served for real: the KV cache moves, the answers stay, and a lost prefill replica is survived."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest

from rayline_bench.faults import parts
from rayline_cli.verify import Outcome, inside
from rayline_cli.verify.disaggregation import TRANSFERS
from tests.serve.serving import API_KEY, Served, failed, found, listeners, patient, post, ray_service, run, wait_until

pytestmark = pytest.mark.full

if importlib.util.find_spec("nixl") is None:
    pytest.skip("prefill and decode need the package nixl of the `local` extra: not installed", allow_module_level=True)

# its answers are sentences, so that a KV cache that came wrong is seen
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
KEY = {"Authorization": f"Bearer {API_KEY}"}
PREFILL, DECODE = "Prefill:tiny", "Decode:tiny"
QUESTIONS = (
    "What is the capital of France?",
    "Name three colours of the rainbow.",
    "Why is the sky blue? Answer in one sentence.",
    "Write a short greeting for a colleague.",
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A session with two prefill replicas and one for decode."""
    engine = {"max_model_len": 2048, "max_num_seqs": 8, "max_num_batched_tokens": 1024}
    manifest = ray_service(model=MODEL, disaggregation={"prefill": 2, "decode": 1}, engine=engine)
    with run(tmp_path_factory.mktemp("state"), manifest) as session:
        yield session


def chat(
    served: Served, question: str, headers: dict[str, str] = KEY, path: str = "chat/completions", **more: Any
) -> httpx.Response:
    body = {"model": "tiny", "messages": [{"role": "user", "content": question}], "max_tokens": 16, "temperature": 0}
    return post(f"{served.running.url}/v1/{path}", headers=headers, json=body | more)


def received(served: Served) -> float:
    """How many transfers the decode replica has counted."""
    place = {"metrics": f"http://127.0.0.1:{served.session.ports['metrics']}"}
    return inside.run({"do": "metric", "name": TRANSFERS}, place)


def replicas(served: Served, deployment: str) -> list[psutil.Process]:
    return parts.of_role(served.session, f"ray::ServeReplica:llm:{deployment}")


def test_both_sides_run_and_the_endpoint_answers(served: Served):
    assert served.running.answer
    assert (len(replicas(served, PREFILL)), len(replicas(served, DECODE))) == (2, 1)


def test_nothing_of_a_transfer_listens_beyond_this_machine(served: Served):
    exposed = [
        (title, address)
        for title, address, _ in listeners(served.session.processes())
        if title.startswith("VLLM") and not address.removeprefix("::ffff:").startswith(("127.", "::1"))
    ]
    assert exposed == []


@pytest.mark.parametrize("path", ["chat/completions", "completions", "messages", "responses"])
def test_no_route_answers_without_the_key(served: Served, path: str):
    assert chat(served, "hello", headers={}, path=path).status_code == 401


def test_answers_are_those_of_an_engine_that_computes_the_prompt_itself(served: Served):
    before = received(served)
    divided = [chat(served, question).json()["choices"][0]["message"]["content"] for question in QUESTIONS]
    assert wait_until(lambda: received(served) >= before + len(QUESTIONS), 60), "the answers came without transfers"
    # Ray leaves this route to the decode engine, which has none of these prompts in its prefix cache with other words before them
    whole = [chat(served, question, path="messages").json()["content"][0]["text"] for question in QUESTIONS]
    same = [ours == theirs for ours, theirs in zip(divided, whole, strict=True)]
    # the last token of a prompt is computed in another step, so a rare tie falls the other way
    assert sum(same) >= len(QUESTIONS) - 1, list(zip(divided, whole, strict=True))


def test_streams_come_in_events_to_their_end(served: Served):
    text = chat(served, "Count from one to ten.", stream=True).text
    assert text.rstrip().endswith("data: [DONE]")
    assert text.count('"choices"') > 4


@pytest.mark.parametrize("more", [{"echo": True, "logprobs": 0}, {"prompt_logprobs": 1}, {"kv_transfer_params": {"a": 1}}])
def test_what_would_stop_the_decode_engine_is_refused_and_the_next_request_answered(served: Served, more: dict[str, Any]):
    url, body = f"{served.running.url}/v1/completions", {"model": "tiny", "prompt": "hello", "max_tokens": 4}
    refused = post(url, headers=KEY, json=body | more)
    assert refused.status_code == 400
    assert "has no meaning where prefill and decode are divided" in refused.text
    assert post(url, headers=KEY, json=body | {"logprobs": 1}).status_code == 200


def test_verify_proves_it(served: Served):
    checks = found(served.target())
    assert failed(checks) == {}
    assert checks["prefill and decode"].outcome is Outcome.PASS
    assert f"1 of {DECODE}, 2 of {PREFILL}; {TRANSFERS} grew from" in checks["prefill and decode"].evidence


def test_requests_go_on_after_a_prefill_replica_is_killed(served: Served):
    victim = replicas(served, PREFILL)[0]
    lost = [victim, *victim.children(recursive=True)]
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(_timed, served, f"Question {number}: what is {number} plus one?") for number in range(24)]
        assert wait_until(lambda: sum(request.done() for request in waiting) >= 4, 60)
        for process in lost:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        answers = [answer.result() for answer in waiting]
    seconds = [round(spent, 1) for _, spent in answers]
    print(f"killed {len(lost)} processes; status {[status for status, _ in answers]}, seconds {seconds}")
    # those that the lost replica had begun may fail, and none may hang until the next one has loaded the model
    assert [status for status, _ in answers].count(200) >= len(answers) - 4
    assert max(seconds) < patient(60), seconds
    assert time.monotonic() - began < patient(120)
    assert wait_until(lambda: len({process.pid for process in replicas(served, PREFILL)} - {victim.pid}) == 2, 240)
    before = received(served)
    assert chat(served, "And after it?").status_code == 200
    assert wait_until(lambda: received(served) > before, 60)


def _timed(served: Served, question: str) -> tuple[int, float]:
    began = time.monotonic()
    return chat(served, question).status_code, time.monotonic() - began
