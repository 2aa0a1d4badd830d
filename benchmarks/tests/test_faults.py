"""The count of a fault's requests, and the table made of a receipt."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("psutil", reason="faults are found among this machine's processes: needs the `local` extra")

from rayline_bench.errors import BenchUsageError
from rayline_bench.faults import command, table
from rayline_bench.faults.clients import ANSWERED, Request
from rayline_bench.faults.rows import FAULTS, SERVICES
from rayline_bench.faults.scenes import Blow, FaultOutcome, count
from rayline_cli import cli

CUT = "stream cut"


def request(started: float, ended: float, outcome: str = ANSWERED, first_token: float = 0.0) -> Request:
    return Request(0, started, outcome, ended, first_token)


def counted(requests: list[Request], *, running: list[Request], on_it: list[Request]) -> FaultOutcome:
    blow = Blow(10.0, running, on_it)
    return count("a fault", "killed", blow, requests, begun=0.0, recovered=15.0, ended=20.0)


def test_every_failure_is_in_one_of_three_places():
    before = request(1, 5)
    on_it = request(8, 10.1, CUT, 8.5)
    elsewhere = request(8, 12, ANSWERED, 8.5)
    waiting = request(9.9, 10.2, "connection closed before an answer")
    later = request(11, 11.1, "HTTP 503 router_unreachable")
    good = request(12, 16)
    seen = counted([before, on_it, elsewhere, waiting, later, good], running=[on_it, elsewhere], on_it=[on_it])
    assert (seen.sent, seen.answered, sum(seen.failed.values())) == (6, 3, 3)
    assert (seen.running, seen.running_on_it, seen.failed_on_it, seen.failed_elsewhere) == (2, 1, 1, 0)
    assert seen.failed_new == 2
    assert sum(seen.failed.values()) == seen.failed_on_it + seen.failed_elsewhere + seen.failed_new
    assert seen.last_failure_seconds == 1.0
    assert seen.longest_gap_seconds == 4.0
    assert seen.recovery_seconds == 5.0


def test_a_stream_that_another_part_answered_counts_as_elsewhere():
    cut = request(8, 10.5, CUT, 8.5)
    seen = counted([cut], running=[cut], on_it=[])
    assert (seen.failed_elsewhere, seen.failed_on_it, seen.failed_new) == (1, 0, 0)


def an_outcome(**changes: object) -> FaultOutcome:
    cut = request(8, 10.5, CUT, 8.5)
    return dataclasses.replace(counted([cut, request(11, 12)], running=[cut], on_it=[cut]), **changes)


GIT = {"commit": "0" * 40, "changed": False}


def a_receipt(*keys: str, **changes: object) -> dict[str, object]:
    rows = {key: command.row(key, {}, an_outcome(**changes), GIT) for key in keys}
    return command.receipt(rows, command.machine())


def test_rows_that_are_not_counted_again_are_kept_in_the_order_of_the_faults(tmp_path: Path):
    path = tmp_path / "faults.json"
    path.write_text(json.dumps(a_receipt("router", "replica")))
    rows = command.earlier_rows(path, command.machine())
    rows["router"] = command.row("router", {}, an_outcome(sent=77), GIT)
    again = command.receipt(rows, command.machine())
    assert [(one["key"], one["sent"]) for one in again["faults"]] == [("replica", 2), ("router", 77)]
    assert command.earlier_rows(tmp_path / "none.json", command.machine()) == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("# a page", "is no receipt of this command"),
        ("[]", "is no receipt of this command"),
        (json.dumps(a_receipt("replica") | {"versions": {"ray": "0.0"}}), "was made with other versions"),
    ],
)
def test_a_file_that_cannot_be_added_to_is_refused_and_kept(tmp_path: Path, text: str, why: str):
    path = tmp_path / "faults.json"
    path.write_text(text)
    with pytest.raises(BenchUsageError, match=why):
        command.measure("replica", path, tmp_path)
    assert path.read_text() == text


def test_every_fault_has_a_description_and_its_inherent_costs():
    assert all(fault.what and fault.inherent for fault in FAULTS.values())
    assert {id(fault.service) for fault in FAULTS.values()} == set(map(id, SERVICES))


def test_the_table_separates_streams_on_the_killed_part_from_others_and_from_new_requests():
    made = a_receipt("replica")
    cells = dict(zip(table.HEADER, table.rows(made)[0], strict=True))
    assert cells["Streams open at that moment"] == "1 on it, 1 failed; 0 elsewhere, none failed"
    assert cells["New requests that failed"] == "none"
    assert "stream cut" in str(cells["How"])


def test_a_service_that_does_not_come_back_is_not_given_a_time():
    made = {"faults": [command.row("head", {}, an_outcome().going_on_for(61.04), GIT)]}
    cells = dict(zip(table.HEADER, table.rows(made)[0], strict=True))
    assert cells["Whole again after, s"] == "not by itself; it answered for 61 s more"


def test_a_fault_under_other_settings_follows_its_counterpart_and_names_the_settings():
    settings = {"replicas": 2, "pods": {"env": {"RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2"}}}
    quicker = command.row("haproxy-quicker", settings, an_outcome(), GIT)
    made = a_receipt() | {"faults": [quicker, command.row("haproxy", {"replicas": 2}, an_outcome(), GIT)]}
    first, second = (str(row[0]) for row in table.rows(made))
    assert "with" not in first
    assert " with `RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S: 2`: " in second


def test_an_unknown_fault_is_refused_by_name(tmp_path: Path):
    result = CliRunner().invoke(cli.app, ["faults", "--only", "replica,rooter", "--receipt", str(tmp_path / "r.json")])
    assert result.exit_code == 2
    assert "--only rooter: there is no such fault. Fix: name some of replica," in " ".join(result.output.split())


def test_the_faults_are_listed_without_starting_anything():
    result = CliRunner().invoke(cli.app, ["faults", "--list"])
    assert result.exit_code == 0
    assert all(key in result.output for key in FAULTS)
