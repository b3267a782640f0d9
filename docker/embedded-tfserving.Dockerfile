# The embedded TensorFlow server (it is not TensorFlow Serving) with one model baked in, for hosts that cannot pull
# tensorflow/serving. `make images` builds it and passes every argument; PYTHON comes from docker/base-images.env.
ARG PYTHON

FROM ${PYTHON} AS packages
# Set to 1 where docker/wheels holds every package, so that the build needs no network.
ARG PIP_NO_INDEX
COPY docker/requirements/embedded-tfserving.lock /requirements.lock
COPY docker/wheels/embedded-tfserving/ /wheels/
# 490 MB that only compilers read go again.
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/venv \
    && /pip/bin/pip --python /opt/venv/bin/python3 install --no-cache-dir --disable-pip-version-check --find-links /wheels \
       -r /requirements.lock \
    && rm -rf /opt/venv/lib/python3.11/site-packages/tensorflow/include /opt/venv/lib/python3.11/site-packages/clang

FROM ${PYTHON}
COPY --from=packages /opt/venv /opt/venv
COPY models/ /app/models/
COPY serving/ /app/serving/
ARG CONFIG
ARG BUNDLE
ARG MODEL
COPY ${CONFIG}/embedded-tfserving/ /config/
COPY ${BUNDLE}/manifest.json /bundle/manifest.json
COPY ${BUNDLE}/savedmodel/ /models/${MODEL}/
ARG SOURCE
ARG REVISION
ARG VERSION
ARG DIGEST
LABEL org.opencontainers.image.title="tandem/embedded-tfserving" \
      org.opencontainers.image.description="Tandem's embedded TensorFlow server (not TensorFlow Serving) with one exported model" \
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
EXPOSE 8500 8501
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=90s --retries=3 \
    CMD ["python3", "-S", "-m", "serving.runtimes.containers.health", "embedded-tfserving"]
ENTRYPOINT ["python3", "-m", "serving.runtimes.containers.entrypoint", "embedded-tfserving"]
