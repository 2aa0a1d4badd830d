"""The keys of `weights` of a platform and of a service."""

from typing import Annotated

from rayline.facts.choices import WeightsSource
from rayline.schema.base import Arguments, FromText, form


class BucketArgs(Arguments):
    """A Cloud Storage bucket with weights, for the services with weights.source gcs-stream or gcs-fuse. Only with a GKE cluster."""

    # https://cloud.google.com/storage/docs/buckets#naming, without names that hold a dot: those are domains to be verified
    bucket: Annotated[
        str,
        form(
            r"(?!goog)[a-z0-9][-_a-z0-9]{1,61}[a-z0-9]",
            "the name alone, without gs:// or a folder: 3 to 63 lower-case letters, digits, dashes and underscores, not beginning with goog",
            63,
        ),
    ]
    """Name of the bucket. A model lies in it under MODEL/REVISION/, for example Qwen/Qwen3.5-4B/main/."""
    create: bool = True
    """Create the bucket in the cluster's region; false: it exists already."""
    mirror: bool = True
    """Copy the services' models from Hugging Face into it before the services start; false: they are there already."""


class WeightsArgs(Arguments):
    """Source of the weights."""

    source: Annotated[WeightsSource, FromText] = WeightsSource.HUB
    """hub (each worker downloads), gcs-stream (vLLM streams from the bucket of the platform's `weights`) or gcs-fuse (it is mounted)."""
    location: (
        Annotated[
            str,
            form(
                r"/[^\s\x00]+|(gs|s3|abfss|azure)://[^\s\x00]+|[A-Za-z0-9][-\w.]*/[A-Za-z0-9][-\w.]*",
                "a folder of the container that begins with /, an address such as gs://bucket/folder, or OWNER/NAME at Hugging Face",
                1024,
            ),
        ]
        | None
    ) = None
    """Source other than the model's repository at Hugging Face: a folder in the container, or gs://BUCKET/FOLDER, which the stack lets the workers read with a GKE cluster."""
    # a commit, a tag or a branch; it becomes one folder of the bucket and part of a name in Kubernetes
    revision: (
        Annotated[
            str,
            form(
                r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
                "a commit, tag or branch: letters, digits, dots, dashes, underscores; at most 63",
                63,
            ),
        ]
        | None
    ) = None
    """Commit, tag or branch of the model on Hugging Face. Default main; with a commit all replicas, now and later, are the same."""
