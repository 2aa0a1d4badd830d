"""Folders with the files of a model: on this machine, or in a bucket of Cloud Storage."""

import functools
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote

import httpx

from rayline_cli.errors import FailedError, UsageError
from rayline_cli.google_api import TOKEN_VARIABLE, access_token, error_of

GOOGLE = "https://storage.googleapis.com"
LOGIN = f"gcloud auth application-default login, or {TOKEN_VARIABLE}"
_ADDRESS = re.compile(r"gs://(?P<anonymous>anonymous@)?(?P<bucket>[^/@\s]+)(/(?P<folder>[^\s]*))?")


class ModelFolder(Protocol):
    """A folder of which single files, and the beginnings of large ones, are read."""

    place: str
    """Its place, for people."""

    def sizes(self) -> Mapping[str, int]:
        """Return the bytes of each file in the folder itself, by name."""
        ...

    def read(self, name: str, size: int) -> bytes:
        """Return the first `size` bytes of a file, or all of a shorter one."""
        ...


class LocalFolder:
    """A folder on this machine."""

    def __init__(self, folder: pathlib.Path, place: str | None = None):
        self._folder, self.place = folder, place or f"the folder {folder}"

    def sizes(self) -> Mapping[str, int]:
        """Return the bytes of each file, by its path in the folder."""
        files = [file for file in self._folder.rglob("*") if file.is_file()]
        return {file.relative_to(self._folder).as_posix(): file.stat().st_size for file in files}

    def read(self, name: str, size: int) -> bytes:
        """Return the first `size` bytes of a file, or all of a shorter one."""
        with (self._folder / name).open("rb") as stream:
            return stream.read(size)


class BucketFolder:
    """A folder of a bucket, by the JSON API of Cloud Storage (docs.cloud.google.com/storage/docs/json_api/v1/objects).

    The account is that of Google's application default credentials. STORAGE_EMULATOR_HOST, or CLOUD_STORAGE_EMULATOR_ENDPOINT as
    Google's C++ client has it, is the address of an emulator.
    """

    def __init__(self, address: str):
        parts = _ADDRESS.fullmatch(address)
        if parts is None:
            raise UsageError(f"{address}: no address of a folder in Cloud Storage. Fix: gs://BUCKET/FOLDER")
        self.place, self._bucket = address, parts["bucket"]
        folder = (parts["folder"] or "").strip("/")
        self._prefix = f"{folder}/" if folder else ""
        emulator = os.environ.get("STORAGE_EMULATOR_HOST") or os.environ.get("CLOUD_STORAGE_EMULATOR_ENDPOINT")
        host = emulator or GOOGLE
        self._host = (host if "://" in host else f"http://{host}").rstrip("/")
        self._public = bool(parts["anonymous"] or emulator)

    def sizes(self) -> Mapping[str, int]:
        """Return the bytes of each file in the folder itself, by name."""
        query = {"prefix": self._prefix, "delimiter": "/", "fields": "items(name,size),nextPageToken"}
        sizes: dict[str, int] = {}
        page: str | None = ""
        while page is not None:
            answer = self._json(query | ({"pageToken": page} if page else {}))
            sizes |= {item["name"].removeprefix(self._prefix): int(item["size"]) for item in answer.get("items", ())}
            page = answer.get("nextPageToken")
        # some tools write an empty object for the folder itself
        sizes.pop("", None)
        if not sizes:
            raise UsageError(f"{self.place}: the bucket has no files in this folder. Fix: check the path, or upload the model")
        return sizes

    def read(self, name: str, size: int) -> bytes:
        """Return the first `size` bytes of a file, or all of a shorter one."""
        return self._get("/" + quote(self._prefix + name, safe=""), {"alt": "media"}, size)

    @functools.cached_property
    def _token(self) -> str:
        return "" if self._public else access_token()

    def _json(self, query: Mapping[str, str]) -> dict[str, Any]:
        try:
            return dict(json.loads(self._get("", query)))
        except (ValueError, TypeError):
            raise FailedError(
                f"{self.place}: what answers at {self._host} is not Cloud Storage. Fix: check the network"
            ) from None

    def _get(self, path: str, query: Mapping[str, str], most: int | None = None) -> bytes:
        """Return the answer's body, or `most` bytes of it, even of a server that sends more."""
        url = f"{self._host}/storage/v1/b/{quote(self._bucket, safe='')}/o{path}"
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        headers |= {"Range": f"bytes=0-{most - 1}"} if most else {}
        body = bytearray()
        try:
            with httpx.stream("GET", url, params=dict(query), headers=headers, timeout=60) as answer:
                if not answer.is_success:
                    answer.read()
                    raise self._refusal(answer)
                for part in answer.iter_bytes():
                    body += part
                    if most and len(body) >= most:
                        break
        except httpx.HTTPError as error:
            raise FailedError(
                f"{self.place}: Cloud Storage cannot be reached ({type(error).__name__}). Fix: check the network, and try again"
            ) from None
        return bytes(body[:most])

    def _refusal(self, answer: httpx.Response) -> UsageError | FailedError:
        if answer.status_code == 404:
            return UsageError(f"{self.place}: there is no bucket {self._bucket}. Fix: check the name, or create it")
        if answer.status_code in (401, 403) and not self._token:
            return UsageError(
                f"{self.place}: the bucket is not public, and no Google credentials are used. "
                f"Fix: {'no anonymous@ in the address, and ' if self._public else ''}{LOGIN}"
            )
        if answer.status_code == 401:
            return UsageError(f"{self.place}: Google refuses the credentials. Fix: {LOGIN}")
        if answer.status_code == 403:
            grant = f"gcloud storage buckets add-iam-policy-binding gs://{self._bucket} --role=roles/storage.objectViewer --member=user:EMAIL"
            return UsageError(
                f"{self.place}: your account may not read this bucket{_reason(answer)}. Fix: let its owner run `{grant}`"
            )
        return FailedError(f"{self.place}: Cloud Storage answers HTTP {answer.status_code}{_reason(answer)}. Fix: try again")


def _reason(answer: httpx.Response) -> str:
    """Return Google's own sentence in brackets; nothing where its answer has none."""
    message = " ".join(str(error_of(answer).get("message", "")).split()).rstrip(".")
    return f" ({message})" if message else ""
