# One image for both services; the command says which (`tokenext serve`, `epp-adapter serve`).
#
#   docker build -t tokenext-chain:0.1.0 .
#   docker build -t tokenext-chain:0.1.0-vllm --build-arg EXTRAS=dynamo,kubernetes,tracing,bundle .   # bundles for vLLM
#   docker build -t tokenext-chain-trial:0.1.0 --target trial .                               # mocker workers
#
# tests/chart/test_dockerfile.py holds versions, extras and entry points equal to pyproject.toml.

ARG PYTHON=3.12
FROM python:${PYTHON}-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/chain
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY tokenext tokenext
COPY epp_adapter epp_adapter
COPY proto proto
ARG EXTRAS=dynamo,kubernetes,tracing
# xds-protos brings older files of opentelemetry-proto's: the newer ones have to come last.
RUN /opt/chain/bin/pip install -c constraints.txt ".[${EXTRAS}]" \
 && /opt/chain/bin/pip install -c constraints.txt --no-deps --force-reinstall opentelemetry-proto

# NVIDIA Dynamo's mocker and front end, which the chart's trial workers are (docs/adr/0003: without dependencies).
FROM build AS build-trial
RUN /opt/chain/bin/pip install -c constraints.txt --no-deps ai-dynamo \
 && /opt/chain/bin/pip install -c constraints.txt certifi "kubernetes<33" packaging "pydantic<=2.13.5" redis tqdm zstandard

FROM python:${PYTHON}-slim-bookworm AS base
# The chart's picker makes itself a certificate where a gateway wants one.
RUN openssl version \
 && groupadd --gid 10001 chain \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /cache chain
ENV PATH=/opt/chain/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HOME=/cache/huggingface
USER 10001:10001

FROM base AS trial
COPY --from=build-trial /opt/chain /opt/chain
CMD ["python", "-m", "dynamo.mocker", "--help"]

FROM base
COPY --from=build /opt/chain /opt/chain
EXPOSE 9000 9002 9090 9091
CMD ["tokenext", "--help"]
