# The runtime's own image with what `weights.source: gcs-stream` needs: ray-llm's locked requirements hold neither
# runai-model-streamer nor its Cloud Storage part (ray-project/ray, python/deplocks/llm/rayllm_py312_cu130.lock).
#
#   docker build -f images/streamer.Dockerfile -t REGION-docker.pkg.dev/PROJECT/REPOSITORY/ray-llm-streamer:2.60.0 .
#
# and name it in the service: `pods: {image: REGION-docker.pkg.dev/…}`.
ARG BASE=rayproject/ray-llm:2.60.0-py312-cu130
FROM ${BASE}
# The bound is vLLM 0.29's own (extra `runai`). What is there already stays as the runtime has it: pip fails where that cannot be.
RUN pip freeze --exclude-editable | grep -E '^(vllm|torch|ray|transformers|numpy|protobuf)==' > /tmp/kept.txt \
 && pip install --no-cache-dir -c /tmp/kept.txt 'runai-model-streamer[gcs]>=0.15.7' \
 && python -c "import runai_model_streamer, runai_model_streamer_gcs"
