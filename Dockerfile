# One image for everything of ours: Ray's head and workers, the MLflow server, and `sweep` itself.
FROM python:3.11.13-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY search_spaces search_spaces
COPY sweep sweep
COPY dashboards dashboards
# For an image without CUDA, a quarter of the size: --build-arg PIP_EXTRA_INDEX_URL=<PyTorch's index of CPU wheels>
ARG PIP_EXTRA_INDEX_URL=
RUN /opt/venv/bin/pip install ".[cluster]"

FROM python:3.11.13-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends dataset-fashion-mnist wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 sweep \
    && mkdir -p /work /artifacts /tmp/ray \
    && chown sweep: /work /artifacts /tmp/ray
COPY --from=build /opt/venv /opt/venv
# KubeRay may start its commands in a login shell, which forgets PATH, and probes a node's health with wget
RUN ln -s /opt/venv/bin/ray /opt/venv/bin/sweep /opt/venv/bin/mlflow /usr/local/bin/
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 MPLBACKEND=Agg MPLCONFIGDIR=/tmp/matplotlib \
    RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
USER sweep
WORKDIR /work
HEALTHCHECK --interval=1m --timeout=20s CMD ["sweep", "--version"]
ENTRYPOINT ["sweep"]
CMD ["--help"]
