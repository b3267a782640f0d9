"""Any server of the Open Inference Protocol v2: KServe, MLServer, OpenVINO Model Server, Seldon, Triton."""

from serving.engines.open_inference.engine import OpenInference

ENGINE = OpenInference()
