# NVIDIA Triton with one ONNX model baked in, for its own onnxruntime backend. `make images` builds it where an experiment
# names it, and passes every argument; TRITON comes from docker/base-images.env.
ARG TRITON

FROM ${TRITON}
# NVIDIA's image has a Python, which runs the entry point (hashes, draining) and the health check.
COPY models/ /app/models/
COPY serving/ /app/serving/
ARG CONFIG
ARG BUNDLE
ARG MODEL
COPY ${CONFIG}/triton/ /config/
COPY ${BUNDLE}/manifest.json /bundle/manifest.json
COPY ${BUNDLE}/onnx/ /models/${MODEL}/
ARG SOURCE
ARG REVISION
ARG VERSION
ARG DIGEST
LABEL org.opencontainers.image.title="tandem/triton" \
      org.opencontainers.image.description="NVIDIA Triton with one exported model, for its onnxruntime backend" \
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
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=90s --retries=3 \
    CMD ["python3", "-S", "-m", "serving.runtimes.containers.health", "triton"]
ENTRYPOINT ["python3", "-S", "-m", "serving.runtimes.containers.entrypoint", "triton"]
