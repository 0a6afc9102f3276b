# deepmrseg-bids: weights inside, nothing is downloaded when it runs, no root needed.
#   docker build -t deepmrseg-bids .
#   docker run --rm -v /study:/data:ro -v /results:/out deepmrseg-bids /data /out participant
FROM python:3.11-slim-bookworm AS build
# an index or a folder of wheels that has the CPU build of torch
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY deepmrseg_bids deepmrseg_bids
RUN python -m venv /opt/app \
 && /opt/app/bin/pip install --no-cache-dir --constraint constraints.txt --index-url "$TORCH_INDEX" torch \
 && /opt/app/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/app /opt/app
ENV PATH=/opt/app/bin:$PATH PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp HOME=/tmp \
    DEEPMRSEG_CONTAINER=docker:deepmrseg-bids:0.1.0
RUN mkdir -p /data /out
USER 1000
ENTRYPOINT ["deepmrseg-bids"]
