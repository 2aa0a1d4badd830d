"""Two Ray Serve applications without a language model, as https://github.com/anyscale/serve-performance-blog measured them.

Each is an ingress that calls a second deployment through a handle, so what lies between deployments counts too. Serve's
processes import this file by the `import_path` of a RayService: nothing but the applications is in it.
"""

from typing import Any

import numpy as np
import torch
from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve
from ray.serve.handle import DeploymentHandle
from torch import nn

MAX_ONGOING_REQUESTS = 100_000
"""As published: no replica refuses a request, so what is measured is the path and not a queue's limit."""


# --- echo (unary_app/fastapi_dep.py at 15a1d50) ------------------------------------------------------------------------


class Message(BaseModel):
    """The body of a request to /echo."""

    message: str


@serve.deployment(max_ongoing_requests=MAX_ONGOING_REQUESTS)
class Echo:
    """The second deployment, which returns each message."""

    def echo(self, message: str) -> str:
        """Return the message with a prefix."""
        return f"Echo: {message}"


echo_routes = FastAPI()


@serve.deployment(max_ongoing_requests=MAX_ONGOING_REQUESTS)
@serve.ingress(echo_routes)
class EchoIngress:
    """The ingress, which passes each message to the second deployment."""

    def __init__(self, echo: DeploymentHandle) -> None:
        self._echo = echo

    @echo_routes.get("/echo")
    async def echo_query(self, message: str) -> dict[str, str]:
        """Answer a message in the query, as published. The bench sends it in a body, where 10 KB belong."""
        return {"response": await self._echo.echo.remote(message)}

    @echo_routes.post("/echo")
    async def echo_body(self, body: Message) -> dict[str, str]:
        """Answer a message in the body."""
        return {"response": await self._echo.echo.remote(body.message)}


def echo(_: dict[str, Any]) -> serve.Application:
    """Build the echo application."""
    return EchoIngress.bind(Echo.bind())


# --- recommendation (recsys/ at 15a1d50) -------------------------------------------------------------------------------

DENSE, SPARSE, BATCH = 13, 26, 32
"""Features of one candidate, numbers and ids, and candidates in one request: as published (Criteo's shape)."""


class Dlrm(nn.Module):
    """A small deep-learning recommendation model (arXiv:1906.00091): embeddings, a bottom and a top MLP, dot products.

    Widths as published. Weights are random, which costs as much time as trained ones.
    """

    def __init__(self, cardinality: int, width: int = 64) -> None:
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(cardinality, width) for _ in range(SPARSE)])
        self.bottom = _mlp(DENSE, 256, width)
        # of every vector with every other one, once
        self.one, self.other = torch.triu_indices(1 + SPARSE, 1 + SPARSE, offset=1)
        self.top = nn.Sequential(_mlp(width + len(self.one), 256, 128, 64), nn.Linear(64, 1), nn.Sigmoid())

    def forward(self, dense: torch.Tensor, sparse: torch.Tensor) -> torch.Tensor:
        """Return [batch] scores between 0 and 1 for [batch, DENSE] numbers and [batch, SPARSE] ids."""
        base = self.bottom(dense)
        vectors = torch.stack([base, *(table(sparse[:, at]) for at, table in enumerate(self.tables))], dim=1)
        products = torch.bmm(vectors, vectors.transpose(1, 2))
        return self.top(torch.cat([base, products[:, self.one, self.other]], dim=1)).squeeze(-1)


def _mlp(first: int, *widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip((first, *widths), widths, strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers)


@serve.deployment(max_ongoing_requests=MAX_ONGOING_REQUESTS)
class Ranker:
    """The second deployment, which scores candidates in batches of requests."""

    def __init__(self, cardinality: int) -> None:
        torch.set_num_threads(1)  # a process per replica already; threads would only fight over the cores
        torch.manual_seed(0)
        self._model = Dlrm(cardinality).eval()

    # published: 50 ms of waiting for a GPU's batch, which here would be all that is measured at few requests
    @serve.batch(max_batch_size=100, batch_wait_timeout_s=0.0)
    async def rank(self, requests: list[tuple[list[list[float]], list[list[int]]]]) -> list[list[float]]:
        """Return the scores of each request's candidates."""
        dense = torch.tensor([row for one, _ in requests for row in one], dtype=torch.float32)
        sparse = torch.tensor([row for _, one in requests for row in one], dtype=torch.int64)
        with torch.inference_mode():
            scores = self._model(dense, sparse)
        return [part.tolist() for part in scores.split([len(one) for one, _ in requests])]


recommender_routes = FastAPI()


@serve.deployment(max_ongoing_requests=MAX_ONGOING_REQUESTS)
@serve.ingress(recommender_routes)
class RecommenderIngress:
    """Looks up a user's candidates, here by making some up, and lets the ranker score them."""

    def __init__(self, ranker: DeploymentHandle, cardinality: int) -> None:
        self._ranker, self._cardinality = ranker, cardinality

    @recommender_routes.get("/recommend")
    async def recommend(self, user_id: int) -> dict[str, list[float]]:
        """Return the scores of a user's candidates."""
        chance = np.random.default_rng(user_id)
        dense = chance.random((BATCH, DENSE)).tolist()
        sparse = chance.integers(0, self._cardinality, (BATCH, SPARSE)).tolist()
        return {"scores": await self._ranker.rank.remote((dense, sparse))}


def recommender(args: dict[str, Any]) -> serve.Application:
    """Build the recommender application. `args`: cardinality (rows of each embedding table)."""
    cardinality = args["cardinality"]
    return RecommenderIngress.bind(Ranker.bind(cardinality), cardinality)
