"""The script that copies a model into a bucket, against servers that speak as Hugging Face and Cloud Storage do."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from rayline.models.in_pods import mirror_model
from tests.http_answers import Answering

COMMIT = "851bf6e8" * 5
FOLDER = "org/model/main"
RECORD = ".rayline/mirrors/org/model/main.json"
LARGE = bytes(range(256)) * 40
FILES = {
    "config.json": b'{"architectures": []}',
    "model-00001-of-00002.safetensors": LARGE,
    "model-00002-of-00002.safetensors": LARGE[::-1] + b"end",
    "tokenizer.json": b"{}",
    "empty.txt": b"",
}
ELSEWHERE = {"pytorch_model.bin": b"old", ".gitattributes": b"x", "original/consolidated.00.pth": b"y"}


class World:
    """What the servers hold, and the troubles that they make."""

    def __init__(self) -> None:
        self.files = FILES | ELSEWHERE
        self.gated = False
        self.objects: dict[str, dict[str, Any]] = {}
        self.uploads: dict[str, dict[str, Any]] = {}
        self.bucket_refusals = 0
        self.bucket_missing = False
        self.cut_downloads = 0
        self.failing_puts = 0
        self.lost_answers = 0
        self.half_puts = 0
        self.spoilt: set[str] = set()
        self.asked: list[str] = []
        self.tokens_on_the_other_host: list[str | None] = []
        self.tokens_on_the_hub: set[str | None] = set()

    def copied(self) -> dict[str, bytes]:
        return {name.removeprefix(f"{FOLDER}/"): one["data"] for name, one in self.objects.items() if "org/model/main/" in name}


def digest_of(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


class Handler(Answering):
    protocol_version = "HTTP/1.1"
    world: World
    content_server: str

    def json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

    def do_GET(self) -> None:
        path, world = urlsplit(self.path).path, self.world
        world.asked.append(f"GET {path}")
        if path.startswith("/computeMetadata"):
            assert self.headers["Metadata-Flavor"] == "Google"
            return self.json({"access_token": "google-token", "expires_in": 3600})
        if path.startswith("/api/models/org/model/revision/"):
            return self.listing(unquote(path.rpartition("/")[2]))
        if "/resolve/" in path:
            return self.resolve(unquote(path.partition(f"/resolve/{COMMIT}/")[2]))
        if path.startswith("/content/"):
            world.tokens_on_the_other_host.append(self.headers["Authorization"])
            return self.content(unquote(path.removeprefix("/content/")))
        return self.storage(path)

    def listing(self, revision: str) -> None:
        if self.world.gated and self.headers["Authorization"] != "Bearer hf_good":
            return self.answer(401)
        if revision not in ("main", COMMIT):
            return self.answer(404)
        siblings = []
        for name, data in self.world.files.items():
            one: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": digest_of(data)}
            if len(data) > 1000:
                one["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            siblings.append(one)
        self.json({"sha": COMMIT, "siblings": siblings})

    def resolve(self, name: str) -> None:
        """Large files lie on another host, small ones behind an address of the same."""
        self.world.tokens_on_the_hub.add(self.headers["Authorization"])
        if len(self.world.files[name]) > 1000:
            return self.answer(302, Location=f"{self.content_server}/content/{name}")
        if "cached" not in self.path:
            return self.answer(307, Location=f"{urlsplit(self.path).path}?cached")
        self.content(name)

    def content(self, name: str) -> None:
        data = self.world.files[name]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])
        assert asked
        first = int(asked[1])
        if name in self.world.spoilt:
            data = b"?" * len(data)
        if self.world.cut_downloads and len(data) - first > 1000:
            self.world.cut_downloads -= 1
            self.send_response(206)
            self.send_header("Content-Length", str(len(data) - first))
            self.end_headers()
            self.wfile.write(data[first : first + 900])
            self.close_connection = True
            return
        self.answer(206, data[first:])

    def storage(self, path: str) -> None:
        world = self.world
        if self.headers["Authorization"] != "Bearer google-token":
            return self.answer(401)
        if world.bucket_missing:
            return self.answer(404)
        if world.bucket_refusals:
            world.bucket_refusals -= 1
            return self.answer(403)
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        if path == "/storage/v1/b/models/o":
            names = sorted(name for name in world.objects if name.startswith(query.get("prefix", "")))
            # pages of two, as a server may make them
            start = int(query.get("pageToken", 0))
            items = [
                {"name": n, "size": str(len(world.objects[n]["data"])), "metadata": world.objects[n]["metadata"]}
                for n in names[start : start + 2]
            ]
            return self.json({"items": items} | ({"nextPageToken": str(start + 2)} if names[start + 2 :] else {}))
        found = world.objects.get(unquote(path.rpartition("/o/")[2]))
        return self.answer(200, found["data"]) if found else self.answer(404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = str(len(self.world.uploads))
        self.world.uploads[key] = {"name": body["name"], "metadata": body["metadata"], "data": b""}
        self.answer(200, Location=f"http://{self.headers['Host']}/session/{key}")

    def do_PUT(self) -> None:
        world = self.world
        body = self.rfile.read(int(self.headers["Content-Length"]))
        upload = world.uploads[urlsplit(self.path).path.rpartition("/")[2]]
        span = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)", self.headers["Content-Range"])
        assert span
        if body and world.failing_puts:
            world.failing_puts -= 1
            return self.answer(503)
        if body:
            assert int(span[1]) == len(upload["data"]), "a piece that does not begin where the upload is"
            if world.half_puts:
                world.half_puts -= 1
                body = body[: len(body) // 2]
            upload["data"] += body
        if len(upload["data"]) < int(span[3]):
            reached = {"Range": f"bytes=0-{len(upload['data']) - 1}"} if upload["data"] else {}
            return self.answer(308, b"", **reached)
        data = upload["data"]
        world.objects[upload["name"]] = {"data": data, "metadata": upload["metadata"]}
        if body and world.lost_answers:
            world.lost_answers -= 1
            self.close_connection = True
            return None
        return self.json({"md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(), "size": str(len(data))})

    def do_DELETE(self) -> None:
        del self.world.objects[unquote(urlsplit(self.path).path.rpartition("/o/")[2])]
        self.answer(204)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    held = World()
    handler = type("Served", (Handler,), {"world": held})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    here, other = (f"127.0.0.1:{server.server_address[1]}" for server in servers)
    handler.content_server = f"http://{other}"
    monkeypatch.setenv("HF_ENDPOINT", f"http://{here}")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{here}")
    monkeypatch.setenv("GCE_METADATA_HOST", here)
    for name in ("HF_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(mirror_model, "SECONDS_BETWEEN_ATTEMPTS", 0)
    monkeypatch.setattr(mirror_model, "CHUNK_BYTES", 1024)
    yield held
    for server in servers:
        server.shutdown()
        server.server_close()


def run(revision: str = "main") -> int:
    return mirror_model.main(["--model", "org/model", "--revision", revision, "--bucket", "models", "--folder", FOLDER])


def test_a_model_is_copied_byte_for_byte_without_other_formats_of_its_weights(world, capsys):
    assert run() == 0
    assert world.copied() == FILES
    said = capsys.readouterr().out
    assert "5/5" in said
    assert f"gs://models/{FOLDER} is whole: 5 files of {COMMIT}" in said


def test_a_record_says_what_a_finished_copy_is_of(world):
    assert run() == 0
    record = json.loads(world.objects[RECORD]["data"])
    assert (record["model"], record["revision"], record["commit"]) == ("org/model", "main", COMMIT)
    assert {one["path"]: one["size"] for one in record["files"]} == {name: len(data) for name, data in FILES.items()}


def test_a_finished_copy_is_left_alone_and_hugging_face_is_not_asked(world, capsys):
    assert run() == 0
    world.asked.clear()
    uploads = len(world.uploads)
    assert run() == 0
    assert len(world.uploads) == uploads
    assert not [one for one in world.asked if "/api/models" in one or "/resolve/" in one]
    assert "nothing to do" in capsys.readouterr().out


def test_a_copy_that_somebody_damaged_is_mended_with_the_missing_files_alone(world):
    assert run() == 0
    del world.objects[f"{FOLDER}/config.json"]
    uploads = len(world.uploads)
    assert run() == 0
    assert world.copied() == FILES
    # the file and the record
    assert len(world.uploads) == uploads + 2


def test_a_run_that_was_cut_goes_on_with_the_files_that_are_missing(world):
    world.spoilt = {"model-00002-of-00002.safetensors"}
    assert run() == 1
    there = set(world.copied())
    assert RECORD not in world.objects
    world.spoilt, before = set(), len(world.uploads)
    assert run() == 0
    assert world.copied() == FILES
    assert len(world.uploads) - before == len(FILES) - len(there) + 1


def test_a_file_of_the_same_size_and_another_content_is_replaced(world):
    world.objects[f"{FOLDER}/config.json"] = {"data": b"?" * len(FILES["config.json"]), "metadata": {}}
    assert run() == 0
    assert world.copied() == FILES


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "config.json"])
def test_a_download_that_is_not_what_is_listed_never_shows_in_the_bucket(world, name, capsys):
    world.spoilt = {name}
    assert run() == 1
    assert f"{FOLDER}/{name}" not in world.objects
    assert RECORD not in world.objects
    assert "is not what Hugging Face lists" in capsys.readouterr().err


@pytest.mark.parametrize("trouble", [{"cut_downloads": 7}, {"failing_puts": 3}, {"half_puts": 3}, {"lost_answers": 2}], ids=str)
def test_troubles_on_the_way_are_taken_up_where_they_came(world, trouble):
    vars(world).update(trouble)
    assert run() == 0
    assert world.copied() == FILES
    assert not any(getattr(world, name) for name in trouble), "the trouble did not come"


def test_a_download_that_never_goes_on_ends_with_a_message(world, monkeypatch, capsys):
    monkeypatch.setattr(Handler, "content", lambda self, _: self.answer(503))
    assert run() == 1
    assert "503" in capsys.readouterr().err


def test_files_of_an_earlier_commit_go_and_those_of_other_people_stay(world):
    world.objects[f"{FOLDER}/model-of-before.safetensors"] = {"data": b"old", "metadata": {"digest": "git:1"}}
    world.objects[f"{FOLDER}/notes.txt"] = {"data": b"mine", "metadata": {}}
    assert run() == 0
    assert set(world.copied()) == {*FILES, "notes.txt"}


def test_a_gated_model_is_copied_with_the_token_which_no_other_host_sees(world, monkeypatch, tmp_path, capsys):
    world.gated = True
    (tmp_path / "token").write_text("hf_good\n")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    assert run() == 0
    assert world.tokens_on_the_hub == {"Bearer hf_good"}
    assert set(world.tokens_on_the_other_host) == {None}
    out = capsys.readouterr()
    assert "hf_good" not in out.out + out.err


def test_a_gated_model_without_a_token_is_refused_for_good(world, capsys):
    world.gated = True
    assert run() == 2
    message = capsys.readouterr().err
    assert "gated" in message
    assert "hugging_face.source" in message


def test_a_revision_that_is_not_there_is_refused_for_good(world, capsys):
    assert run("v9") == 2
    assert "Hugging Face has no org/model at v9" in capsys.readouterr().err


def test_a_model_without_safetensors_is_refused_for_good(world, capsys):
    world.files = {"pytorch_model.bin": b"old"}
    assert run() == 2
    assert "no .safetensors files" in capsys.readouterr().err


def test_the_mirror_skips_consolidated_weights_unless_they_are_the_only_copy(world):
    def paths(*names: str) -> list[str]:
        return [one.path for one in mirror_model.wanted([mirror_model.File(name, 1, "git:0") for name in names])]

    assert paths("model.safetensors", "consolidated.safetensors") == ["model.safetensors"]
    assert paths("consolidated.safetensors", "params.json") == ["consolidated.safetensors", "params.json"]


def test_new_rights_are_waited_for(world, capsys):
    world.bucket_refusals = 3
    assert run() == 0
    assert capsys.readouterr().out.count("new rights take minutes") == 3


def test_a_bucket_that_goes_on_refusing_says_which_role_is_missing(world, monkeypatch, capsys):
    monkeypatch.setattr(mirror_model, "SECONDS_FOR_RIGHTS", 0)
    world.bucket_refusals = 99
    assert run() == 2
    assert "roles/storage.objectUser" in capsys.readouterr().err


def test_a_bucket_that_is_not_there_is_refused_for_good(world, capsys):
    world.bucket_missing = True
    assert run() == 2
    assert "there is no bucket models" in capsys.readouterr().err
