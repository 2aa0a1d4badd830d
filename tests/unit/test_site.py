"""The documentation site has every page and reads in a browser as the pages read in the repository."""

import contextlib
import functools
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from tests.conftest import ROOT

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Nothing but the page: no first start, no updates, no accounts, and no name but loopback's is resolved.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
STRUCTURE = {"h1", "h2", "h3", "h4", "ul", "ol", "li", "pre", "table", "tr", "code", "blockquote"}
PAGE = "docs/high-throughput"


def build(config: pathlib.Path, folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a mkdocs.yml, with warnings as errors: links, anchors, pages that are in no menu."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT / "mkdocs.yml", folder)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture
def address(site: pathlib.Path) -> Iterator[str]:
    """The site's address on loopback while a test runs."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(timeout=10)


class Elements(HTMLParser):
    """The elements of a page: how many of each, and their texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] += 1
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        # elements without an end, such as <meta>, close with what is around them
        while tag in self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data


def sources() -> dict[str, pathlib.Path]:
    """Return the Markdown of each page, by the page's path in the site."""
    pages = [path for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md") for path in ROOT.glob(pattern)]
    return {
        (path.parent / ("index" if path.stem == "README" else path.stem)).relative_to(ROOT).as_posix(): path for path in pages
    }


def article(html: str) -> str:
    """Return a page without the menus around it."""
    return html[html.index("<article") : html.index("</article>")]


def test_every_page_reads_as_it_does_in_the_repository(site: pathlib.Path) -> None:
    commonmark = MarkdownIt("commonmark").enable("table")
    for page, source in sources().items():
        there = Elements(commonmark.render(source.read_text())).count
        here = Elements(article((site / f"{page}.html").read_text())).count
        assert {tag: here[tag] for tag in STRUCTURE} == {tag: there[tag] for tag in STRUCTURE}, (
            f"{page}: another structure. Fix: four spaces before what stands in a list item"
        )


def test_no_page_loads_anything_from_another_host(site: pathlib.Path) -> None:
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        loaded = re.findall(
            r'<(?:script|img|iframe|link)\b[^>]*?(?:src|href)="((?:https?:)?//[^"]*)|(?:url\(|@import )["\']?((?:https?:)?//[^"\')]*)',
            path.read_text(),
        )
        assert loaded == [], path


def test_a_link_that_leads_nowhere_stops_the_build(tmp_path: pathlib.Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "mkdocs.yml").write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\nhooks: [{ROOT / 'tools/rayline_docs/site.py'}]\nextra_css: []\nnav: [README.md]\n"
    )
    (tmp_path / "README.md").write_text("# Start\n\n[a page](docs/gone.md), [a part](docs/there.md#gone)\n")
    (tmp_path / "docs" / "there.md").write_text("# There\n")
    built = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert built.returncode == 1
    assert "contains a link 'docs/gone.md', but the target is not found" in built.stderr
    assert "does not contain an anchor '#gone'" in built.stderr


@pytest.mark.skipif(not BROWSER, reason="needs chromium or google-chrome on PATH")
def test_a_page_reads_well_in_a_browser(address: str, tmp_path: pathlib.Path) -> None:
    page = f"{address}/{PAGE}.html"
    shown = in_browser(page, tmp_path)
    elements = Elements(shown)
    assert elements.texts["title"] == ["How it works - rayline"]
    # scripts ran
    assert re.match(r'<!DOCTYPE html>\s*<html [^>]*class="[^"]*\bjs\b', shown)
    menu = " ".join(" ".join(elements.texts["nav"]).split())
    assert all(
        entry in menu for entry in ("Start", "Operations", "Configuration", "Faults", "Contributing", "The four switches")
    )
    inside = Elements(article(shown))
    assert inside.count["table"] >= 5
    assert "Key under switches" in " ".join(inside.texts["th"])
    assert "ha_proxy" in " ".join(inside.texts["td"])
    assert any("rayline verify --stack local" in block for block in inside.texts["pre"])
    requests = list(requests_of(address, tmp_path))
    assert any(url.endswith(".css") for url in requests)
    assert [url for url in requests if not url.startswith(address)] == []


def in_browser(page: str, folder: pathlib.Path) -> str:
    """Return what a browser makes of a page, after its scripts."""
    assert BROWSER
    command = [
        *(BROWSER, *FLAGS, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
        *(f"--user-data-dir={folder / 'profile'}", f"--log-net-log={folder / 'requests.json'}", "--dump-dom", page),
    ]
    with (
        contextlib.suppress(ProcessLookupError),
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as browser,
    ):
        try:
            shown, said = browser.communicate(timeout=60)
        finally:
            os.killpg(browser.pid, 9)
    assert browser.returncode == 0, said
    return shown


def requests_of(origin: str, folder: pathlib.Path) -> Iterator[str]:
    """Yield the addresses that pages of an origin loaded, from the browser's own log."""
    log = json.loads((folder / "requests.json").read_text())
    start = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    for event in log["events"]:
        if event["type"] == start and event.get("params", {}).get("initiator") == origin:
            yield event["params"]["url"]
