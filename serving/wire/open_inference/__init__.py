"""The Open Inference Protocol v2, which Triton, KServe, MLServer, Seldon and OpenVINO Model Server speak: its tensors,
its REST API with and without the binary-data extension, and its gRPC service.

https://github.com/kserve/open-inference-protocol; the extension:
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""
