# deepmrseg-bids: includes the weights, downloads nothing at run time, requires no root.
#   docker build -t deepmrseg-bids .
#   docker run --rm -u "$(id -u):$(id -g)" -v /study:/data:ro -v /results:/out \
#       deepmrseg-bids /data /out participant
# Needs BuildKit: Docker 23 or newer, or DOCKER_BUILDKIT=1 with Docker 20.10.
# docs/containers.md explains the build arguments and the secrets.

FROM debian:bookworm-slim AS python
# A release of Debian has one version of a package at a time; a pinned one would be gone from the
# mirrors with its next security fix.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*


# Everything except the project itself: rebuilt only when a dependency changes.
FROM python AS dependencies
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && python3 -m venv /opt/pip \
 && python3 -m venv --without-pip /opt/app
WORKDIR /build
# cpu, or a CUDA build by the name that the PyTorch site gives it, such as cu130
ARG TORCH_BUILD=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/${TORCH_BUILD}
# a folder beside this file: if it exists, torch is installed from the wheel in it
ARG TORCH_WHEELS=wheels
COPY constraints.txt tools/install.sh ${TORCH_WHEELS}* ./
# The secrets configure how pip reaches its index on this network, if needed.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/run/secrets/ca.pem \
    sh install.sh torch "$TORCH_INDEX"
COPY pyproject.toml ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/run/secrets/ca.pem \
    sh install.sh dependencies


FROM dependencies AS app
COPY README.md LICENSE ./
COPY deepmrseg_bids deepmrseg_bids
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/run/secrets/ca.pem \
    sh install.sh app /app
# a folder beside this file with the layout of TEMPLATEFLOW_HOME: templates to include in the image
ARG TEMPLATES=templateflow
COPY LICENSE ${TEMPLATES}* /templateflow/
RUN rm /templateflow/LICENSE


FROM python
COPY --from=dependencies /opt/app /opt/app
COPY --from=app /templateflow /templateflow
COPY --from=app /app /opt/app
# Any user may run it, also one without a name or a home: private files of a run are in /tmp.
ENV PATH=/opt/app/bin:$PATH \
    LANG=C.UTF-8 \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    TEMPLATEFLOW_HOME=/templateflow \
    DEEPMRSEG_CONTAINER=docker:deepmrseg-bids:0.2.0
# Singularity and Charliecloud require that mount points exist.
RUN mkdir /data /out /work
LABEL org.opencontainers.image.title="deepmrseg-bids" \
      org.opencontainers.image.description="A BIDS-App that segments raw brain MRI. For research only. The weights are subject to the terms of their training data: deepmrseg models" \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 1000:1000
ENTRYPOINT ["deepmrseg-bids"]
