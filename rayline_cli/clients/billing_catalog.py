"""Client of Google's Cloud Billing Catalog: the list prices of Compute Engine's SKUs (cloudbilling v1, services.skus.list)."""

import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from rayline.facts.prices import HOURS_PER_MONTH
from rayline_cli.google_api import TOKEN_VARIABLE, access_token, error_of

ADDRESS = "https://cloudbilling.googleapis.com"
COMPUTE_ENGINE = "services/6F81-5844-456A"
KEY_VARIABLE = "RAYLINE_BILLING_API_KEY"
# For about seven pages of 5,000 SKUs in 2026.
_SECONDS = 180
_HOURS = {"h": 1, "GiBy.h": 1, "GiBy.mo": HOURS_PER_MONTH}
_SPOT = re.compile(r"^Spot Preemptible | attached to Spot Preemptible VMs")
_PLACE = re.compile(r" (running )?in .+$")


class NoCatalog(Exception):
    """The catalog cannot be read; the message is why, and what to do."""


class Rates:
    """USD per hour of the parts of machines: a core, a GiB, a GPU, by the SKU's description without its place."""

    def __init__(self) -> None:
        self._prices: dict[tuple[str, bool, str], set[float]] = {}

    def add(self, sku: Mapping[str, Any]) -> None:
        """Take up one SKU. The description decides about spot: the catalog's usage type of some says OnDemand."""
        name = _PLACE.sub("", str(sku.get("description", "")))
        spot, name = bool(_SPOT.search(name)), _SPOT.sub("", name)
        price = _hourly(sku)
        if price is not None:
            for region in sku.get("serviceRegions", ()):
                self._prices.setdefault((name, spot, region), set()).add(price)

    def price(self, part: str, region: str, *, spot: bool) -> float | None:
        """Return the price of a part in a region; None where it has none, or several that differ."""
        prices = self._prices.get((part, spot, region), set())
        return next(iter(prices)) if len(prices) == 1 else None


def _hourly(sku: Mapping[str, Any]) -> float | None:
    """Return a SKU's price per hour in USD: of its newest entry the first tier that is not free."""
    entries = sku.get("pricingInfo") or [{}]
    expression = entries[-1].get("pricingExpression") or {}
    hours = _HOURS.get(expression.get("usageUnit", ""))
    for tier in expression.get("tieredRates") or ():
        money = tier.get("unitPrice") or {}
        price = int(money.get("units") or 0) + int(money.get("nanos") or 0) / 1e9
        if hours and price > 0 and money.get("currencyCode", "USD") == "USD":
            return price / hours
    return None


def read_rates(environment: Mapping[str, str] = os.environ) -> Rates:
    """Return all rates of Compute Engine. Raises NoCatalog."""
    rates = Rates()
    with httpx.Client(base_url=ADDRESS, headers=_credentials(environment), timeout=60) as client:
        for page in _pages(client):
            for sku in page.get("skus") or ():
                rates.add(sku)
    return rates


def _pages(client: httpx.Client) -> Iterator[dict[str, Any]]:
    token, ends = "", time.monotonic() + _SECONDS
    while time.monotonic() < ends:
        query = {"pageSize": 5000, "currencyCode": "USD"} | ({"pageToken": token} if token else {})
        try:
            answer = client.get(f"/v1/{COMPUTE_ENGINE}/skus", params=query)
            page = dict(answer.json()) if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError, TypeError) as error:
            # the error itself may quote the request
            says = f"{ADDRESS} does not answer with the catalog: {type(error).__name__}"
            raise NoCatalog(f"{says}. Fix: check the network and HTTPS_PROXY, or leave --live-prices out") from None
        if page is None:
            raise NoCatalog(_reason(answer))
        yield page
        token = page.get("nextPageToken") or ""
        if not token:
            return
    raise NoCatalog(f"the catalog has more pages than {_SECONDS} s are enough for. Fix: try again later")


def _reason(answer: httpx.Response) -> str:
    """Return why Google refuses, and what to do."""
    error = error_of(answer)
    says, details = str(error.get("message", "")), error.get("details", [])
    reasons = {detail.get("reason") for detail in details if isinstance(detail, dict)}
    if "SERVICE_DISABLED" in reasons:
        return "the Cloud Billing API is not enabled in the project. Fix: gcloud services enable cloudbilling.googleapis.com"
    if answer.status_code == 401 or "API_KEY_INVALID" in reasons:
        return f"Google does not accept the credentials. Fix: gcloud auth login, or another {KEY_VARIABLE} or {TOKEN_VARIABLE}"
    fix = f"an account or API key that may read the Cloud Billing API, such as {KEY_VARIABLE}"
    return f"the Cloud Billing Catalog answers HTTP {answer.status_code}{': ' if says else ''}{says[:200]}. Fix: {fix}"


def _credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the header with an API key or a token. No process gets either as an argument."""
    key = environment.get(KEY_VARIABLE, "")
    if not key.isascii():
        raise NoCatalog(f"{KEY_VARIABLE} has a character that no API key has. Fix: copy it again, without quotes around it")
    if key:
        return {"X-Goog-Api-Key": key}
    if token := access_token(environment):
        return {"Authorization": f"Bearer {token}"}
    gcloud = shutil.which("gcloud", path=environment.get("PATH"))
    why = "gcloud gives no access token" if gcloud else "gcloud is not on PATH"
    raise NoCatalog(
        f"there are no Google credentials: {why}. Fix: gcloud auth login, or set {KEY_VARIABLE} or {TOKEN_VARIABLE}"
    )
