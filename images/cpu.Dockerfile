# The Ray image for `accelerator: cpu` in a cluster: the locked environment of this repository, nothing else.
#   docker build -f images/cpu.Dockerfile -t rayline-cpu:2.60.0 .
FROM python:3.11-slim-bookworm
# KubeRay's probes and start commands need bash and wget; vLLM's CPU backend compiles a kernel with g++ at its first request
RUN apt-get update && apt-get install -y --no-install-recommends bash wget g++ procps && rm -rf /var/lib/apt/lists/*
COPY requirements/uv.txt requirements/all.txt /tmp/
RUN pip install --no-cache-dir --require-hashes -r /tmp/uv.txt \
 && uv pip install --system --no-cache --compile-bytecode --require-hashes -r /tmp/all.txt
# the uid and gid of the rayproject images
RUN useradd --create-home --uid 1000 --gid 100 ray
USER ray
WORKDIR /home/ray
