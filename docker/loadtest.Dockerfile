# The load generator: Locust and our client, nothing of torch or TensorFlow. `make images` builds it and passes every
# argument; PYTHON comes from docker/base-images.env.
ARG PYTHON

FROM ${PYTHON} AS packages
# Set to 1 where docker/wheels holds every package, so that the build needs no network.
ARG PIP_NO_INDEX
COPY docker/requirements/loadtest.lock /requirements.lock
COPY docker/wheels/loadtest/ /wheels/
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/venv \
    && /pip/bin/pip --python /opt/venv/bin/python3 install --no-cache-dir --disable-pip-version-check --find-links /wheels \
       -r /requirements.lock

FROM ${PYTHON}
COPY --from=packages /opt/venv /opt/venv
COPY models/ /app/models/
COPY serving/ /app/serving/
COPY loadtest/ /app/loadtest/
COPY experiments/ /app/experiments/
ARG BUNDLE
COPY ${BUNDLE}/manifest.json ${BUNDLE}/reference.npz /bundle/
ARG SOURCE
ARG REVISION
ARG MODEL
ARG VERSION
ARG DIGEST
LABEL org.opencontainers.image.title="tandem/loadtest" \
      org.opencontainers.image.description="Tandem's open-loop load generator on Locust" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.version="${VERSION}" \
      dev.tandem.model="${MODEL}" \
      dev.tandem.model.version="${VERSION}" \
      dev.tandem.bundle.digest="sha256:${DIGEST}"
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    TANDEM_EXPORTER_HOST=0.0.0.0
USER 10001:10001
WORKDIR /tmp
EXPOSE 8089 9646
# Locust's web page answers while it waits for somebody to start the load, and under load.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8089/', timeout=4)"]
ENTRYPOINT ["python3", "-m", "locust", "-f", "/app/loadtest/generator/locustfile.py"]
CMD ["--help"]
