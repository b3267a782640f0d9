"""Networks of the house written by hand in Keras, as someone would who serves with TensorFlow alone.

Random weights: they are for speed, which does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

SHAPE = (224, 224, 3)


def resnet50(classes: int) -> keras.Model:
    """ResNet-50 with the stride in the 3x3 convolution, as `models.architectures.resnet` has it: images to logits."""
    images = keras.Input(SHAPE)
    x = layers.ReLU()(_conv_norm(images, 7, 64, 2))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            y = layers.ReLU()(_conv_norm(x, 1, width))
            y = layers.ReLU()(_conv_norm(y, 3, width, stride))
            y = _conv_norm(y, 1, 4 * width)
            shortcut = x if block else _conv_norm(x, 1, 4 * width, stride)
            x = layers.ReLU()(layers.Add()([y, shortcut]))
    return keras.Model(images, layers.Dense(classes)(layers.GlobalAveragePooling2D()(x)))


def mobilenet_v2(classes: int) -> keras.Model:
    """Keras' own MobileNetV2: `models.architectures.mobilenet` but for the side on which odd pads go."""
    return keras.applications.MobileNetV2(weights=None, classes=classes, classifier_activation=None)


def _conv_norm(x: Any, size: int, filters: int, stride: int = 1) -> Any:
    x = layers.ZeroPadding2D(size // 2)(x) if size > 1 else x
    x = layers.Conv2D(filters, size, stride, use_bias=False)(x)
    return layers.BatchNormalization(epsilon=1e-5)(x)


TWINS: dict[str, Callable[[int], keras.Model]] = {"mobilenet_v2": mobilenet_v2, "resnet50": resnet50}
