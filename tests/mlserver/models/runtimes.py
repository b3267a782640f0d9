"""Models for MLServer, which is real: they run in its process and know nothing of Tandem."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Brightness(MLModel):
    """How bright and how dark each image is, as float32 that add up to 1."""

    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = NumpyCodec.decode_input(payload.inputs[0])
        bright = images.reshape(len(images), -1).mean(axis=1) / 255
        answer = np.stack([bright, 1 - bright], axis=1).astype(np.float32)
        output = NumpyCodec.encode_output("probabilities", answer)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])


class Echo(MLModel):
    """Each input as an output, as it came."""

    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = [
            ResponseOutput(name=one.name, shape=one.shape, datatype=one.datatype, data=one.data)
            for one in payload.inputs
        ]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)


class Weighted(MLModel):
    """Of two inputs: each point times its weight, and the sum of its values."""

    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        scaled = (given["points"] * given["weight"].reshape(-1, 1)).astype(np.float32)
        outputs = [NumpyCodec.encode_output("scaled", scaled), NumpyCodec.encode_output("total", scaled.sum(axis=1))]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
