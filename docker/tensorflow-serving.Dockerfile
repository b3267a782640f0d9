# TensorFlow Serving with one model baked in. `make images` builds it and passes every argument; PYTHON and
# TENSORFLOW_SERVING (CPU or -gpu) come from docker/base-images.env.
ARG PYTHON
ARG TENSORFLOW_SERVING

FROM ${PYTHON} AS python

FROM ${TENSORFLOW_SERVING}
# TensorFlow Serving's image has no Python, and an older C library than Python's image. So that one comes whole, with
# its loader, to run the entry point (hashes, draining) and the health check. The server itself uses nothing of it.
COPY --from=python /lib64/ /opt/python/lib64/
COPY --from=python /lib/ /opt/python/lib/
COPY --from=python /usr/local/ /opt/python/usr/local/
COPY --from=python /usr/bin/ /opt/python/usr/bin/
COPY --from=python /usr/lib/ /opt/python/usr/lib/
COPY models/ /app/models/
COPY serving/ /app/serving/
ARG CONFIG
ARG BUNDLE
ARG MODEL
COPY ${CONFIG}/tensorflow-serving/ /config/
COPY ${BUNDLE}/manifest.json /bundle/manifest.json
COPY ${BUNDLE}/savedmodel/ /models/${MODEL}/
ARG SOURCE
ARG REVISION
ARG VERSION
ARG DIGEST
LABEL org.opencontainers.image.title="tandem/tensorflow-serving" \
      org.opencontainers.image.description="TensorFlow Serving with one exported model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.version="${VERSION}" \
      dev.tandem.model="${MODEL}" \
      dev.tandem.model.version="${VERSION}" \
      dev.tandem.bundle.digest="sha256:${DIGEST}"
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 10001:10001
WORKDIR /tmp
EXPOSE 8500 8501
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=90s --retries=3 \
    CMD ["/opt/python/lib64/ld-linux-x86-64.so.2", "--library-path", "/opt/python/usr/local/lib:/opt/python/lib/x86_64-linux-gnu:/opt/python/usr/lib/x86_64-linux-gnu", "/opt/python/usr/local/bin/python3", "-S", "-m", "serving.runtimes.containers.health", "tensorflow-serving"]
ENTRYPOINT ["/opt/python/lib64/ld-linux-x86-64.so.2", "--library-path", "/opt/python/usr/local/lib:/opt/python/lib/x86_64-linux-gnu:/opt/python/usr/lib/x86_64-linux-gnu", "/opt/python/usr/local/bin/python3", "-S", "-m", "serving.runtimes.containers.entrypoint", "tensorflow-serving"]
