"""Where the weights of a service come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rayline.facts.choices import WeightsSource


@dataclass(frozen=True)
class ServiceWeights:
    """Where the replicas of one service read the model from.

    `uri` is what Ray Serve LLM gets as model_source. `folder` is the model's in the bucket, MODEL/REVISION, and both it and
    `bucket` are empty where no bucket is read. `revision` is the one to ask Hugging Face for, None where that is not asked.
    """

    source: WeightsSource
    uri: str
    revision: str | None = None
    bucket: str = ""
    folder: str = ""


@dataclass(frozen=True)
class BucketPlan:
    """The bucket with weights. `keep`: a destroyed stack leaves it, because the cluster is protected from deletion too."""

    name: str
    create: bool
    mirror: bool
    keep: bool


@dataclass(frozen=True)
class Mirror:
    """One copy of a model from Hugging Face into the bucket. `image` is one that the CPU nodes have anyway: a Ray head's."""

    model_id: str
    revision: str
    folder: str
    image: str
    weights_gib: float
    env: Mapping[str, str] = field(default_factory=dict)
    """Of the first service that reads it: how it reaches Hugging Face."""
