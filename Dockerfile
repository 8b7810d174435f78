# Two images from one file: `--target api` (no torch) and `--target worker`. Both run as a user without rights.

FROM python:3.12-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/ecif/bin:$PATH


FROM base AS build
WORKDIR /src
COPY requirements/uv.txt requirements/
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/uv.txt \
    && python -m venv --without-pip /opt/ecif
ENV UV_PYTHON=/opt/ecif/bin/python UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1


# The dependencies come before our own code: a change of code leaves their layer alone.
FROM build AS build-api
COPY requirements/service.txt requirements/
RUN uv pip install --require-hashes -r requirements/service.txt
COPY requirements/dev.txt requirements/
COPY pyproject.toml README.md LICENSE ./
COPY doorbell doorbell
COPY migrations migrations
COPY service service
COPY store store
# The build back end too is held to the hashes of the lock file.
RUN uv build --wheel --require-hashes --build-constraints requirements/dev.txt --out-dir /wheel \
    && uv pip install --no-deps /wheel/*.whl


FROM build AS build-worker
COPY requirements/worker.txt requirements/
RUN uv pip install --require-hashes -r requirements/worker.txt
COPY requirements/dev.txt requirements/
COPY pyproject.toml README.md LICENSE ./
COPY doorbell doorbell
COPY ecif ecif
COPY encoders encoders
COPY readers readers
COPY store store
COPY worker worker
RUN uv build --wheel --require-hashes --build-constraints requirements/dev.txt --out-dir /wheel \
    && uv pip install --no-deps /wheel/*.whl


FROM base AS run
# A new volume takes over the owner of the folder that it is mounted on.
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin ecif \
    && install --directory --owner=ecif --group=ecif /data /data/blobs /data/models
ENV ECIF_HOME=/data
WORKDIR /data
USER 10001:10001


FROM run AS api
COPY --from=build-api /opt/ecif /opt/ecif
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["python", "-c", \
    "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["uvicorn", "service.app:create_app", "--factory", "--host", "0.0.0.0", "--port", "8000", \
     "--timeout-graceful-shutdown", "20"]


FROM run AS worker
# Where model weights are kept once they were fetched.
ENV HF_HOME=/data/models
COPY --from=build-worker /opt/ecif /opt/ecif
# A prefork worker answers while its children work. The URL is enough to ask it, in no argument: nothing of ours is
# imported.
HEALTHCHECK --interval=60s --timeout=30s --start-period=120s CMD ["sh", "-c", \
    "CELERY_BROKER_URL=\"$REDIS_URL\" celery inspect ping --destination \"celery@$HOSTNAME\" --timeout 10"]
CMD ["celery", "-A", "worker.app", "worker", "--pool", "prefork", "--concurrency", "1", "--loglevel", "INFO", \
     "--without-gossip", "--without-mingle", "--without-heartbeat"]
