"""Copy one model from Hugging Face into a Cloud Storage bucket, through memory: no disk, no package, any Python.

    python mirror_model.py --model Qwen/Qwen3.5-4B --revision main --bucket my-models --folder Qwen/Qwen3.5-4B/main

Each file is compared with the digest that Hugging Face states before the bucket shows it. A file that the bucket has whole is
not copied again, so a run that was cut goes on with the next file. A record of the finished copy comes last; with it a further
run finds nothing to do and asks Hugging Face for nothing.

Exit status: 0 the copy is whole, 1 it may go better next time, 2 somebody has to change something first.
Environment: HF_TOKEN or HF_TOKEN_PATH for gated models; HF_ENDPOINT, STORAGE_EMULATOR_HOST and GCE_METADATA_HOST mean what
they mean to huggingface_hub and to Google's libraries.
"""

import argparse
import base64
import dataclasses
import fnmatch
import hashlib
import http.client
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

# A multiple of 256 KiB, which is what resumable uploads go by; each file in flight holds about two of them.
CHUNK_BYTES = 32 * 2**20
FILES_AT_ONCE = 4
ATTEMPTS = 6
SECONDS_BETWEEN_ATTEMPTS = 2.0
# Rights on a bucket take minutes to reach every server of Google's after they were granted.
SECONDS_FOR_RIGHTS = 600.0
NETWORK_TROUBLE = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
PASSING = (408, 429, 500, 502, 503, 504)
# Files that no server of safetensors reads: other formats of the same weights, and Git's own.
OTHER_FORMATS = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "*.ot", "*.tflite", "original/*")
NOT_FILES_OF_THE_MODEL = (".gitattributes", ".gitignore")


class Refused(Exception):
    """No further attempt helps until somebody changes something; the message says what."""


class Failed(Exception):
    """It did not work this time."""


@dataclasses.dataclass(frozen=True)
class File:
    """One file of the model. `digest` is sha256:HEX of a large file and git:HEX of a small one, as Hugging Face states it."""

    path: str
    size: int
    digest: str


def say(text: str) -> None:
    print(text, flush=True)


# --- HTTP


class _SameHostKeepsToken(urllib.request.HTTPRedirectHandler):
    """Hugging Face sends large files to another host, whose address is the permission: our token is not for it."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if new is not None and token and urlsplit(newurl).netloc == urlsplit(req.full_url).netloc:
            new.add_unredirected_header("Authorization", token)
        return new


_opener = urllib.request.build_opener(_SameHostKeepsToken)


def _open(
    method: str, url: str, headers: Mapping[str, str] | None = None, data: bytes | None = None, token: str | None = None
) -> Any:
    request = urllib.request.Request(url, data=data, headers=dict(headers or {}), method=method)
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return _opener.open(request, timeout=60)


def _patiently(what: str, attempt: Any) -> Any:
    """What `attempt()` returns; tried again after trouble of the network and answers that pass."""
    for left in reversed(range(ATTEMPTS)):
        try:
            return attempt()
        except urllib.error.HTTPError as error:
            if error.code not in PASSING or not left:
                raise
            trouble: Exception = error
        except NETWORK_TROUBLE as error:
            if not left:
                raise Failed(f"{what}: {error}") from None
            trouble = error
        say(f"{what}: {trouble}; again in a moment")
        time.sleep(SECONDS_BETWEEN_ATTEMPTS * 2 ** (ATTEMPTS - 1 - left))
    raise AssertionError("unreachable")


# --- Hugging Face


class Hub:
    """One model at one commit."""

    def __init__(self, model: str, revision: str):
        self.model = model
        self._endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        self._token = _hub_token()
        url = f"{self._endpoint}/api/models/{quote(model)}/revision/{quote(revision, safe='')}?blobs=true"
        try:
            answer = _patiently("Hugging Face", lambda: json.load(_open("GET", url, token=self._token)))
        except urllib.error.HTTPError as error:
            raise self._refusal(error, revision) from None
        self.commit: str = answer["sha"]
        self.files = wanted([_file(one) for one in answer["siblings"]])

    def _refusal(self, error: urllib.error.HTTPError, revision: str) -> Exception:
        if error.code in (401, 403):
            return Refused(
                f"Hugging Face refuses {self.model} ({error.code}): it is gated, private or not there. Accept its licence "
                "with the account of the token, and hand the token over with hugging_face.source"
            )
        if error.code == 404:
            return Refused(f"Hugging Face has no {self.model} at {revision}")
        return Failed(f"Hugging Face: {error}")

    def read(self, file: File) -> Iterator[bytes]:
        """A file in pieces of CHUNK_BYTES, the last one shorter; a connection that breaks is taken up where it broke."""
        url = f"{self._endpoint}/{quote(self.model)}/resolve/{self.commit}/{quote(file.path)}"
        got, piece, failures = 0, bytearray(), 0
        while got < file.size:
            before = got
            try:
                with _open("GET", url, {"Range": f"bytes={got}-"}, token=self._token) as answer:
                    if got and answer.status != 206:
                        raise Failed(f"{file.path}: Hugging Face does not resume at byte {got}")
                    while data := answer.read(min(2**20, file.size - got)):
                        piece += data
                        got += len(data)
                        while len(piece) >= CHUNK_BYTES:
                            yield bytes(piece[:CHUNK_BYTES])
                            del piece[:CHUNK_BYTES]
                    trouble = "the connection ended early"
            except urllib.error.HTTPError as error:
                if error.code not in PASSING:
                    raise self._refusal(error, self.commit) from None
                trouble = str(error)
            except NETWORK_TROUBLE as error:
                trouble = str(error) or type(error).__name__
            if got < file.size:
                failures = 1 if got > before else failures + 1
                if failures >= ATTEMPTS:
                    raise Failed(f"{file.path}: {trouble}")
                say(f"{file.path}: {trouble} at {_size(got)}; again in a moment")
                time.sleep(SECONDS_BETWEEN_ATTEMPTS * 2 ** (failures - 1))
        if piece:
            yield bytes(piece)


def _hub_token() -> str | None:
    path = os.environ.get("HF_TOKEN_PATH")
    if not os.environ.get("HF_TOKEN") and path and os.path.exists(path):
        with open(path) as file:
            return file.read().strip() or None
    return os.environ.get("HF_TOKEN") or None


def _file(listed: Mapping[str, Any]) -> File:
    large = listed.get("lfs")
    digest = f"sha256:{large['sha256']}" if large else f"git:{listed['blobId']}"
    return File(listed["rfilename"], large["size"] if large else listed["size"], digest)


def wanted(files: list[File]) -> list[File]:
    """Of a repository what serving its safetensors takes. Raises Refused where there are none."""
    weights = [file.path for file in files if file.path.endswith(".safetensors")]
    if not weights:
        raise Refused("the model has no .safetensors files, and other formats are neither streamed nor checked")
    unwanted = [*NOT_FILES_OF_THE_MODEL, *OTHER_FORMATS]
    # the same weights in the publisher's own names; a streamer that lists the folder would load both
    if any(not path.startswith("consolidated") for path in weights):
        unwanted.append("consolidated*.safetensors")
    return [file for file in files if not any(fnmatch.fnmatchcase(file.path, pattern) for pattern in unwanted)]


# --- Cloud Storage


class Bucket:
    """A bucket by its JSON API, as the account that the pod runs as."""

    def __init__(self, name: str):
        self.name = name
        host = os.environ.get("STORAGE_EMULATOR_HOST", "https://storage.googleapis.com").rstrip("/")
        self._objects = f"{host}/storage/v1/b/{quote(name)}/o"
        self._uploads = f"{host}/upload/storage/v1/b/{quote(name)}/o"
        self._token, self._until, self._lock = "", 0.0, threading.Lock()

    def _bearer(self) -> str:
        with self._lock:
            if time.monotonic() > self._until:
                host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
                url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"
                # a pod may start before GKE's metadata server knows it
                answer = _patiently(
                    "the metadata server", lambda: json.load(_open("GET", url, {"Metadata-Flavor": "Google"}))
                )
                self._token, self._until = answer["access_token"], time.monotonic() + answer["expires_in"] - 300
            return self._token

    def _call(self, method: str, url: str, headers: Mapping[str, str] | None = None, data: bytes | None = None) -> Any:
        return _patiently("Cloud Storage", lambda: _open(method, url, headers, data, token=self._bearer()))

    def wait_for_rights(self) -> None:
        """Until the bucket answers. Raises Refused where it does not, in the time that new rights take."""
        until = time.monotonic() + SECONDS_FOR_RIGHTS
        while True:
            try:
                return self._call("GET", f"{self._objects}?maxResults=1").close()
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    raise Refused(
                        f"there is no bucket {self.name}: set weights.create, or another weights.bucket"
                    ) from None
                if error.code not in (401, 403):
                    raise
                if time.monotonic() > until:
                    raise Refused(
                        f"the bucket {self.name} refuses ({error.code}): this pod's account needs roles/storage.objectUser on it"
                    ) from None
            say(f"the bucket {self.name} refuses still; new rights take minutes to spread")
            time.sleep(min(15, SECONDS_BETWEEN_ATTEMPTS * 5))

    def listed(self, folder: str) -> dict[str, dict[str, Any]]:
        """Path under the folder -> size, and the metadata that a copy of ours has."""
        found: dict[str, dict[str, Any]] = {}
        page: str | None = ""
        while page is not None:
            query = {"prefix": f"{folder}/", "fields": "items(name,size,metadata),nextPageToken"}
            with self._call(
                "GET", f"{self._objects}?{urlencode(query | ({'pageToken': page} if page else {}))}"
            ) as answer:
                body = json.load(answer)
            for one in body.get("items", ()):
                path = one["name"].removeprefix(f"{folder}/")
                found[path] = {"size": int(one["size"]), "digest": one.get("metadata", {}).get("digest")}
            page = body.get("nextPageToken")
        return found

    def read(self, name: str) -> bytes | None:
        """An object's content; None where there is none."""
        try:
            with self._call("GET", f"{self._objects}/{quote(name, safe='')}?alt=media") as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def delete(self, name: str) -> None:
        self._call("DELETE", f"{self._objects}/{quote(name, safe='')}").close()

    def write(self, name: str, size: int, digest: str, pieces: Iterator[bytes]) -> None:
        """An object from its pieces. It is not seen before the last one came and the whole has the digest."""
        begin = json.dumps({"name": name, "metadata": {"digest": digest}}).encode()
        headers = {"Content-Type": "application/json; charset=utf-8", "X-Upload-Content-Length": str(size)}
        query = urlencode({"uploadType": "resumable", "name": name})
        with self._call("POST", f"{self._uploads}?{query}", headers, begin) as answer:
            session = answer.headers["Location"]
        check = _Digest(digest, size)
        sent, md5 = 0, hashlib.md5(usedforsecurity=False)
        stored: dict[str, Any] = {}
        for piece in pieces:
            check.add(piece)
            md5.update(piece)
            if sent + len(piece) == size:
                check.compare(name)
            stored = self._send(session, piece, sent, size)
            sent += len(piece)
        if not size:
            stored = self._send(session, b"", 0, 0)
        if stored.get("md5Hash") != base64.b64encode(md5.digest()).decode():
            self.delete(name)
            raise Failed(f"{name}: what the bucket holds is not what was sent")

    def _send(self, session: str, piece: bytes, start: int, total: int) -> dict[str, Any]:
        """One piece of an upload; after trouble from where the bucket says that it is. The object, with the last piece."""
        end, sent, asking = start + len(piece), start, False
        for attempt in range(2 * ATTEMPTS):
            body = b"" if asking else piece[sent - start :]
            span = f"bytes {sent}-{end - 1}/{total}" if body else f"bytes */{total}"
            try:
                with _open("PUT", session, {"Content-Range": span}, body) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code == 308:
                    # "bytes=0-N"; left out while there is nothing
                    reached = error.headers.get("Range")
                    sent, asking = int(reached.rpartition("-")[2]) + 1 if reached else 0, False
                    if sent == end:
                        return {}
                    if not start <= sent < end:
                        raise Failed(f"the bucket is at byte {sent} of an upload, not in {start} to {end}") from None
                    continue
                if error.code not in PASSING:
                    raise Failed(f"Cloud Storage: {error}") from None
                trouble: Exception = error
            except NETWORK_TROUBLE as error:
                trouble = error
            say(f"Cloud Storage: {trouble}; again in a moment")
            time.sleep(SECONDS_BETWEEN_ATTEMPTS * 2 ** min(attempt, ATTEMPTS))
            asking = True
        raise Failed("Cloud Storage takes no more of an upload")


class _Digest:
    """Hugging Face's digest of a file, computed on the way: SHA-256 of a large file, Git's SHA-1 of a small one."""

    def __init__(self, expected: str, size: int):
        self._kind, _, self._expected = expected.partition(":")
        self._hash: Any = hashlib.sha256() if self._kind == "sha256" else hashlib.sha1(usedforsecurity=False)
        if self._kind == "git":
            self._hash.update(f"blob {size}\0".encode())

    def add(self, piece: bytes) -> None:
        self._hash.update(piece)

    def compare(self, name: str) -> None:
        if self._hash.hexdigest() != self._expected:
            raise Failed(f"{name}: what came is not what Hugging Face lists ({self._kind} differs)")


# --- the copy


def record_name(folder: str) -> str:
    """Where the record of a finished copy lies: beside the models, so that a model's folder holds its files alone."""
    return f".rayline/mirrors/{folder}.json"


def mirror(model: str, revision: str, bucket: Bucket, folder: str) -> None:
    """Make the bucket's folder a copy of the model. Raises Refused or Failed."""
    bucket.wait_for_rights()
    present = bucket.listed(folder)
    record = bucket.read(record_name(folder))
    if record is not None:
        whole = {one["path"]: one["size"] for one in json.loads(record)["files"]}
        if all(present.get(path, {}).get("size") == size for path, size in whole.items()):
            return say(f"gs://{bucket.name}/{folder} is whole: {len(whole)} files, nothing to do")
        say(f"gs://{bucket.name}/{folder} was whole and is not any more: copying what is missing")

    hub = Hub(model, revision)
    todo = [file for file in hub.files if present.get(file.path) != {"size": file.size, "digest": file.digest}]
    total = sum(file.size for file in todo)
    say(
        f"{model} at {hub.commit}: {len(todo)} of {len(hub.files)} files to copy, {_size(total)}, to gs://{bucket.name}/{folder}"
    )
    _copy_all(hub, bucket, folder, todo)

    # left from a commit that the revision meant before; a streamer that lists the folder would load them too
    for path in present.keys() - {file.path for file in hub.files}:
        if present[path]["digest"]:
            say(f"removing {path}, which {hub.commit} does not have")
            bucket.delete(f"{folder}/{path}")
    finished = {
        "model": model,
        "revision": revision,
        "commit": hub.commit,
        "files": [{"path": file.path, "size": file.size} for file in hub.files],
    }
    text = json.dumps(finished, indent=1).encode()
    git = hashlib.sha1(f"blob {len(text)}\0".encode() + text, usedforsecurity=False).hexdigest()
    bucket.write(record_name(folder), len(text), f"git:{git}", iter([text]))
    say(f"gs://{bucket.name}/{folder} is whole: {len(hub.files)} files of {hub.commit}")


def _copy_all(hub: Hub, bucket: Bucket, folder: str, files: list[File]) -> None:
    done = 0
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:

        def copy(file: File) -> tuple[File, float]:
            started = time.monotonic()
            bucket.write(f"{folder}/{file.path}", file.size, file.digest, hub.read(file))
            return file, time.monotonic() - started

        # the large ones first, so that the last to end is not one that began late
        running = [pool.submit(copy, file) for file in sorted(files, key=lambda file: -file.size)]
        try:
            for one in running:
                file, seconds = one.result()
                done += 1
                say(f"{done}/{len(files)} {file.path} {_size(file.size)} in {seconds:.0f} s")
        except BaseException:
            for one in running:
                one.cancel()
            raise


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Copy one model from Hugging Face into a Cloud Storage bucket.")
    for name in ("model", "revision", "bucket", "folder"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args(arguments)
    try:
        mirror(given.model, given.revision, Bucket(given.bucket), given.folder)
    except Refused as problem:
        print(f"error: {problem}", file=sys.stderr, flush=True)
        return 2
    except (Failed, urllib.error.HTTPError) as problem:
        print(
            f"error: {problem}; what is copied stays, and a further run goes on from there", file=sys.stderr, flush=True
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
