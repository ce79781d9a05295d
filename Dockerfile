# The agent and the Python it runs on, nothing else: `docker build --tag metering-agent:VERSION .`
# Where images are mirrored by digest, name one here: --build-arg PYTHON=python@sha256:...
ARG PYTHON=python:3.13.9-slim-bookworm

# One environment builds the wheel; the other is shipped, and has no pip.
FROM ${PYTHON} AS build
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
RUN python -m venv /build \
    && python -m venv --without-pip /opt/metering-agent \
    && /build/bin/pip install --no-cache-dir --require-hashes --no-deps --only-binary=:all: \
        --requirement requirements-build.lock \
    && /build/bin/pip --python /opt/metering-agent/bin/python install --no-cache-dir --require-hashes --no-deps \
        --only-binary=:all: --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY agent agent
RUN /build/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheel . \
    && /build/bin/pip --python /opt/metering-agent/bin/python install --no-deps --no-index --find-links /wheel \
        metering-agent

FROM ${PYTHON}
COPY --from=build /opt/metering-agent /opt/metering-agent
ENV PATH=/opt/metering-agent/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# root, for the directories on the node are root's. The chart takes every capability away.
# hadolint ignore=DL3002
USER 0
EXPOSE 9108
ENTRYPOINT ["/opt/metering-agent/bin/metering-agent"]
CMD ["run"]
