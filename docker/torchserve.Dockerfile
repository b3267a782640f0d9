# TorchServe with one model baked in. `make images` builds it and passes every argument; PYTHON comes from
# docker/base-images.env. Another torch: TORCH=cu130 (see https://download.pytorch.org/whl).
ARG PYTHON

FROM ${PYTHON} AS packages
ARG TORCH=cpu
# Set to 1 where docker/wheels holds every package, so that the build needs no network.
ARG PIP_NO_INDEX
COPY docker/requirements/torchserve.lock /requirements.lock
COPY docker/wheels/torchserve/ /wheels/
# The environment gets no pip of its own: nothing is installed at run time. What only compilers and tests need goes.
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/venv \
    && /pip/bin/pip --python /opt/venv/bin/python3 install --no-cache-dir --disable-pip-version-check --find-links /wheels \
       --extra-index-url "https://download.pytorch.org/whl/${TORCH}" -r /requirements.lock \
    && rm -rf /opt/venv/lib/python3.11/site-packages/torch/include /opt/venv/lib/python3.11/site-packages/torch/test \
       /opt/venv/lib/python3.11/site-packages/torch/bin/protoc*

FROM ${PYTHON}
COPY --from=packages /opt/venv /opt/venv
COPY models/ /app/models/
COPY serving/ /app/serving/
ARG CONFIG
ARG BUNDLE
COPY ${CONFIG}/torchserve/ /config/
COPY ${BUNDLE}/manifest.json /bundle/manifest.json
COPY ${BUNDLE}/torchserve/ /models/
ARG SOURCE
ARG REVISION
ARG MODEL
ARG VERSION
ARG DIGEST
LABEL org.opencontainers.image.title="tandem/torchserve" \
      org.opencontainers.image.description="TorchServe 0.12 with one exported model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.version="${VERSION}" \
      dev.tandem.model="${MODEL}" \
      dev.tandem.model.version="${VERSION}" \
      dev.tandem.bundle.digest="sha256:${DIGEST}"
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 10001:10001
WORKDIR /tmp
EXPOSE 7070 8080 8082
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=90s --retries=3 \
    CMD ["python3", "-S", "-m", "serving.runtimes.containers.health", "torchserve"]
ENTRYPOINT ["python3", "-m", "serving.runtimes.containers.entrypoint", "torchserve"]
