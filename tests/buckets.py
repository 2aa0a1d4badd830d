"""A real emulator of Cloud Storage on this machine, for tests that read a model from a bucket."""

import pathlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer

import httpx
from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

BUCKET = "acme-models"


@contextmanager
def emulator() -> Iterator[str]:
    """Run an emulator that has the bucket BUCKET, in memory. Yield its address."""
    storage = Storage(use_memory_fs=True)
    create_bucket(BUCKET, storage)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(RequestHandler, storage))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def upload(address: str, folder: pathlib.Path, to: str) -> None:
    """Upload the files of a folder under `to` in BUCKET."""
    for file in folder.iterdir():
        answer = httpx.post(
            f"{address}/upload/storage/v1/b/{BUCKET}/o",
            params={"uploadType": "media", "name": f"{to}/{file.name}"},
            content=file.read_bytes(),
            headers={"Content-Type": "application/octet-stream"},
            trust_env=False,
        )
        answer.raise_for_status()
