"""Prices of Google's Cloud Billing Catalog beside a plan's, against a server that answers in the catalog's schema.

The SKUs of A2, E2 and L4 have the names, units and prices of recorded answers; the others are made in the same shape.
"""

from __future__ import annotations

import json
import pathlib
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from rayline.facts import prices
from rayline.facts.accelerators import ACCELERATORS, SYSTEM_MACHINES
from rayline_cli import cli, live_prices
from rayline_cli.clients import billing_catalog
from rayline_cli.clients.billing_catalog import COMPUTE_ENGINE, NoCatalog, Rates, read_rates
from tests.conftest import recorded
from tests.http_answers import Answering

AMERICAS = ("us-central1", "us-east1", "us-west1")
MACHINES = {machine.name: machine for spec in ACCELERATORS.values() for machine in spec.machines} | SYSTEM_MACHINES
SECRET = "ya29.a-token-that-nobody-may-see"


def sku(description: str, price: float, unit: str = "h", regions: tuple[str, ...] = AMERICAS, usage: str = "OnDemand"):
    """One SKU as the catalog has it: units are text, nanos a number, and a tier without a price may come first."""
    nanos = round(price * 1e9)

    def tier(start: int, nanos: int) -> dict[str, Any]:
        money = {"currencyCode": "USD", "units": str(nanos // 10**9), "nanos": nanos % 10**9}
        return {"startUsageAmount": start, "unitPrice": money}

    return {
        "name": f"{COMPUTE_ENGINE}/skus/039F-D0DA-4055",
        "skuId": "039F-D0DA-4055",
        "description": description,
        "category": {
            "serviceDisplayName": "Compute Engine",
            "resourceFamily": "Compute",
            "resourceGroup": "GPU",
            "usageType": usage,
        },
        "serviceRegions": list(regions),
        "pricingInfo": [
            {
                "summary": "",
                "pricingExpression": {
                    "usageUnit": unit,
                    "displayQuantity": 1,
                    "tieredRates": [*([tier(0, 0)] if unit == "GiBy.mo" else []), tier(0, nanos)],
                },
                "currencyConversionRate": 1,
                "effectiveTime": "2026-08-02T10:52:50.681Z",
            }
        ],
        "serviceProviderName": "Google",
        "geoTaxonomy": {"type": "MULTI_REGIONAL", "regions": list(regions)},
    }


SKUS = [
    sku("A2 Instance Core running in Americas", 0.031611),
    sku("A2 Instance Ram running in Americas", 0.004237, "GiBy.h"),
    sku("Nvidia Tesla A100 GPU running in Americas", 2.933908),
    sku("Nvidia Tesla A100 80GB GPU running in Americas", 3.92808),
    sku("SSD backed Local Storage", 0.08, "GiBy.mo"),
    sku("Spot Preemptible A2 Instance Core running in Americas", 0.01659, usage="Preemptible"),
    sku("Spot Preemptible A2 Instance Ram running in Americas", 0.00222, "GiBy.h", usage="Preemptible"),
    sku("Nvidia Tesla A100 GPU attached to Spot Preemptible VMs running in Americas", 1.54024, usage="Preemptible"),
    sku("A4 Nvidia B200 (1 gpu slice) running in Americas", 16.11),
    # the catalog calls this one OnDemand, too
    sku("Spot Preemptible A4 Nvidia B200 (1 gpu slice) running in Americas", 4.9542),
    sku("G2 Instance Core running in Americas", 0.024988),
    sku("G2 Instance Ram running in Americas", 0.002927, "GiBy.h"),
    sku("Nvidia L4 GPU running in Americas", 0.56004),
    sku("G2 Instance Core running in Netherlands", 0.026263, regions=("europe-west4",)),
    sku("E2 Instance Core running in Americas", 0.02181159),
    sku("E2 Instance Ram running in Americas", 0.00292353, "GiBy.h"),
    # none of these is the price of a machine on demand or spot
    sku("Reserved Nvidia Tesla A100 80GB GPU in Virginia", 0),
    sku("Commitment v1: Nvidia L4 GPU running in Americas for 1 Year", 0.35, usage="Commit1Yr"),
    sku("Nvidia Tesla A100 GPU attached to DWS Defined Duration VMs running in Americas", 1.61365),
    sku("DWS Defined Duration A2 Core running in Americas", 0.01739),
    sku("G2 Custom Instance Core running in Americas", 0.03),
]


class Catalog(ThreadingHTTPServer):
    """Answers with the SKUs in pages of seven, or with one error."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.error: tuple[int, Any] | None = None
        self.skus = SKUS
        self.queries: list[dict[str, list[str]]] = []
        self.headers: dict[str, str] = {}


class Handler(Answering):
    server: Catalog

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        self.server.queries.append(query)
        self.server.headers = {name.lower(): value for name, value in self.headers.items()}
        assert address.path == "/v1/services/6F81-5844-456A/skus"
        start = int(query.get("pageToken", ["0"])[0])
        end = start + 7
        body: Any = {"skus": self.server.skus[start:end], "nextPageToken": str(end) if end < len(self.server.skus) else ""}
        status, body = self.server.error or (200, body)
        self.answer(status, body if isinstance(body, str) else json.dumps(body))


@pytest.fixture
def catalog(monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    server = Catalog()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(billing_catalog, "ADDRESS", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("GOOGLE_OAUTH_ACCESS_TOKEN", SECRET)
    monkeypatch.delenv("RAYLINE_BILLING_API_KEY", raising=False)
    yield server
    server.shutdown()
    server.server_close()


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, list(arguments))
    return done.exit_code, done.output


def price(rates: Rates, machine: str, region: str = "us-central1", *, spot: bool = False) -> float | None:
    return live_prices.machine_price(rates, MACHINES[machine], region, spot=spot)


# --- the sums


def test_every_page_is_read_and_a_whole_machine_is_the_sum_of_its_parts(catalog):
    rates = read_rates()
    assert [query.get("pageToken", [""])[0] for query in catalog.queries] == ["", "7", "14"]
    assert all(query["currencyCode"] == ["USD"] for query in catalog.queries)
    for machine, spot in (
        ("a2-highgpu-1g", False), ("a2-highgpu-8g", False), ("a2-highgpu-1g", True), ("g2-standard-8", False),
        ("g2-standard-96", False), ("e2-standard-16", False), ("a4-highgpu-8g", True),
    ):  # fmt: skip
        assert price(rates, machine, spot=spot) == pytest.approx(prices.PRICES[machine]["us-central1"][spot], rel=0.001)


def test_local_ssd_is_priced_by_the_month_and_only_where_it_comes_with_the_machine(catalog):
    rates = read_rates()
    # 375 GiB at $0.08 a month for each GPU
    assert price(rates, "a2-ultragpu-1g") == pytest.approx(prices.PRICES["a2-ultragpu-1g"]["us-central1"][0], abs=0.001)
    assert price(rates, "a2-ultragpu-8g") == pytest.approx(prices.PRICES["a2-ultragpu-8g"]["us-central1"][0], abs=0.001)


def test_a_machine_without_one_of_its_parts_has_no_price_rather_than_a_part_of_it(catalog):
    rates = read_rates()
    assert price(rates, "g2-standard-8", "europe-west4") is None
    assert price(rates, "g2-standard-8", spot=True) is None
    assert price(rates, "a3-ultragpu-8g") is None


def test_two_prices_for_one_part_are_no_price(catalog):
    catalog.skus = [*SKUS, sku("E2 Instance Core running in Iowa", 0.03, regions=("us-central1",))]
    rates = read_rates()
    assert price(rates, "e2-standard-4") is None
    assert price(rates, "e2-standard-4", "us-east1")


@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine_of_the_kit_has_a_family(machine):
    assert price(Rates(), machine) is None


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"description": "E2 Instance Core running in Americas", "serviceRegions": ["us-central1"]},
        {"description": "E2 Instance Core running in Americas", "serviceRegions": ["us-central1"], "pricingInfo": []},
        sku("E2 Instance Core running in Americas", 1, "mo"),
    ],
    ids=["empty", "no price", "no entry", "another unit"],
)
def test_a_sku_of_another_shape_is_left_out(broken):
    rates = Rates()
    rates.add(broken)
    assert rates.price("E2 Instance Core", "us-central1", spot=False) is None


# --- in a plan


def test_a_plan_shows_the_prices_of_today_beside_the_dated_ones(catalog):
    code, text = run("plan", "--stack", "dev-l4", "--live-prices", "--no-tree")
    assert code == 0, text
    assert "at today's prices $" in text
    assert f"g2-standard-8 in us-central1: on demand $0.8536/h ($0.8536 on {prices.PRICED_ON}, " in text
    assert "spot not in the catalog ($0.4799 on" in text
    assert SECRET not in text


def test_a_machine_that_the_catalog_lacks_keeps_its_dated_price_in_the_sum(catalog):
    catalog.skus = [row for row in SKUS if row["description"].startswith("E2 ")]
    plan = recorded("dev-l4").plan
    compared = live_prices.compare_all([recorded("dev-l4")])["dev-l4"]
    assert compared.hourly_usd == pytest.approx(plan.hourly_usd, abs=0.001)


def test_the_prices_of_today_are_in_the_comment_and_in_the_data(catalog):
    code, text = run("plan", "--stack", "dev-l4", "--live-prices", "--markdown")
    assert code == 0, text
    assert "**Prices**" in text
    code, text = run("plan", "--stack", "dev-l4", "--live-prices", "--json")
    (plan,) = json.loads(text)
    row = next(row for row in plan["live_prices"]["machines"] if row["machine"] == "g2-standard-8")
    assert row["on_demand"] == pytest.approx(0.8536, abs=0.0001)
    assert row["table_spot"] == 0.4799
    assert plan["live_prices"]["reason"] is None


def test_a_stack_that_buys_no_machines_reads_no_catalog(catalog):
    (comparison,) = live_prices.compare_all([recorded("local")]).values()
    assert comparison.lines() == ["prices of today are not known: the stack buys no machines"]
    assert catalog.queries == []


# --- why not


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (
            403,
            {"error": {"code": 403, "message": "Cloud Billing API has not been used in project 1", "status": "PERMISSION_DENIED",
                       "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SERVICE_DISABLED"}]}},
            "the Cloud Billing API is not enabled in the project. Fix: gcloud services enable cloudbilling.googleapis.com",
        ),
        (
            400,
            {"error": {"code": 400, "message": "API key not valid.", "details": [{"reason": "API_KEY_INVALID"}]}},
            "Google does not accept the credentials. Fix: gcloud auth login",
        ),
        (401, {"error": {"code": 401, "message": "Request had invalid authentication credentials."}}, "Google does not accept"),
        (403, {"error": {"message": "The caller does not have permission"}}, "HTTP 403: The caller does not have permission. Fix: "),
        (503, "<html>busy</html>", "the Cloud Billing Catalog answers HTTP 503. Fix: "),
        (200, "<html>a portal</html>", "does not answer with the catalog: JSONDecodeError. Fix: check the network"),
    ],
    ids=["not enabled", "wrong key", "old token", "no right", "busy", "no JSON"],
)  # fmt: skip
def test_a_refusal_of_google_is_said_with_its_fix(catalog, status, body, message):
    catalog.error = (status, body)
    compared = live_prices.compare_all([recorded("dev-l4")])["dev-l4"]
    assert message in (compared.reason or "")
    assert compared.lines() == [f"prices of today are not known: {compared.reason}"]
    assert SECRET not in str(compared)


def test_a_refusal_does_not_stop_the_plan(catalog):
    catalog.error = (403, {"error": {"message": "The caller does not have permission"}})
    code, text = run("plan", "--stack", "dev-l4", "--live-prices", "--no-tree")
    assert code == 0
    assert "g2-standard-8" in text
    assert "prices of today are not known: the Cloud Billing Catalog answers HTTP 403" in text


def test_a_network_that_is_away_is_said(catalog):
    catalog.shutdown()
    catalog.server_close()
    compared = live_prices.compare_all([recorded("dev-l4")])["dev-l4"]
    assert "does not answer with the catalog: ConnectError. Fix: check the network" in (compared.reason or "")


# --- credentials


def gcloud(folder: pathlib.Path, script: str) -> dict[str, str]:
    """An environment whose gcloud is this script."""
    program = folder / "gcloud"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": str(folder)}


def test_an_api_key_comes_before_a_token_and_goes_into_a_header(catalog):
    read_rates({"RAYLINE_BILLING_API_KEY": "AIza-key", "GOOGLE_OAUTH_ACCESS_TOKEN": SECRET})
    assert catalog.headers["x-goog-api-key"] == "AIza-key"
    assert "authorization" not in catalog.headers
    assert not any("key" in query for query in catalog.queries)


def test_the_login_of_gcloud_comes_before_application_default_credentials(catalog, tmp_path):
    read_rates(gcloud(tmp_path, f'echo "$*" | grep -q application-default || echo {SECRET}'))
    assert catalog.headers["authorization"] == f"Bearer {SECRET}"


def test_application_default_credentials_are_enough(catalog, tmp_path):
    read_rates(gcloud(tmp_path, f'[ "$2" = application-default ] && echo {SECRET}'))
    assert catalog.headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("script", "reason"),
    [("exit 1", "gcloud gives no access token"), (None, "gcloud is not on PATH")],
    ids=["no login", "no gcloud"],
)
def test_without_credentials_the_ways_to_get_them_are_said(catalog, tmp_path, script, reason):
    environment = gcloud(tmp_path, script) if script else {"PATH": str(tmp_path)}
    with pytest.raises(NoCatalog) as error:
        read_rates(environment)
    assert str(error.value) == (
        f"there are no Google credentials: {reason}. Fix: gcloud auth login, or set RAYLINE_BILLING_API_KEY or "
        "GOOGLE_OAUTH_ACCESS_TOKEN"
    )
    assert catalog.queries == []
