"""The parts of a plan about weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rayline.facts.choices import WeightsSource


@dataclass(frozen=True)
class ServiceWeights:
    """Source of a service's weights.

    `uri` is Ray Serve LLM's model_source. `folder` is the model's folder in the platform's bucket, MODEL/REVISION. `folder` and
    `bucket` are empty with source hub. `revision` is the one at Hugging Face, None for its default.
    """

    source: WeightsSource
    uri: str
    revision: str | None = None
    bucket: str = ""
    folder: str = ""
    read_bucket: str = ""
    """Cloud Storage bucket on which the workers need rights: the platform's, or that of a gs:// address."""
    adapters_bucket: str = ""
    """Cloud Storage bucket of the LoRA adapters, where the workers need rights on it."""

    @property
    def buckets(self) -> tuple[str, ...]:
        """Return the buckets on which the workers need rights."""
        return tuple(bucket for bucket in (self.read_bucket, self.adapters_bucket) if bucket)


@dataclass(frozen=True)
class BucketPlan:
    """The bucket with weights. `keep`: it stays when the stack is destroyed, as its cluster is protected from deletion."""

    name: str
    create: bool
    mirror: bool
    keep: bool


@dataclass(frozen=True)
class Mirror:
    """One copy of a model from Hugging Face into the bucket. `image` is that of a Ray head, which the CPU nodes have already."""

    model_id: str
    revision: str
    folder: str
    image: str
    weights_gib: float
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables of the first service that reads the copy, such as proxies."""
