"""Targets that tests encode for, without a server behind them."""

from __future__ import annotations

from serving.target import Target

ENGINES = {"pytorch": "torchserve", "tensorflow": "tensorflow-serving"}


def target(stack: str, shape: tuple[int, int, int] = (32, 32, 3), classes: int = 10) -> Target:
    return Target(
        name=stack,
        engine=ENGINES[stack],
        engine_version="test",
        runtime="remote",
        model="convnet",
        version=1,
        input_shape=shape,
        classes=classes,
        grpc="127.0.0.1:1",
        rest="127.0.0.1:2",
    )
