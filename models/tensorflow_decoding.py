"""Encoded images as the TensorFlow side takes them, inside its graph: decoded by TensorFlow, everything else exactly as
in `models.image_decoding`, which says what that is."""

from __future__ import annotations

from collections.abc import Sequence

from models.encoding import INPUT
from models.image_decoding import EXIF_WITHIN, MOST_PIXELS, PNG_BIT_DEPTH, UNIT
from models.tensorflow_quietly import tf

JPEG_MAGIC, PNG_MAGIC = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
PNG_SIZE = 16  # the byte of a PNG file at which its width stands, then its height, each of 4 bytes
# As `image_decoding.TURNED`, in RE2's words: \C is any byte, also of what is no UTF-8.
TURNED = (
    r"\C*Exif\x00\x00(?:II\x2a\x00\C*\x12\x01\x03\x00\x01\x00\x00\x00[\x02-\x08]\x00"
    r"|MM\x00\x2a\C*\x01\x12\x00\x03\x00\x00\x00\x01\x00[\x02-\x08])\C*"
)


def decoded(contents: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """JPEG and PNG files, strings [N], as uint8 [N, H, W, C]; ``shape`` is (H, W, C). What is refused is
    InvalidArgument for the whole batch, as it is one run of the graph."""
    height, width, channels = shape

    def one(content: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(fitted(_pixels(content, channels), height, width, channels), shape)

    with tf.device("/device:CPU:0"):  # the decoders are there; and a GPU's factors may be rounded
        return tf.map_fn(one, contents, fn_output_signature=tf.TensorSpec(shape, tf.uint8))


def _pixels(content: tf.Tensor, channels: int) -> tf.Tensor:
    is_png = tf.equal(tf.strings.substr(content, 0, len(PNG_MAGIC)), PNG_MAGIC)
    is_png &= tf.strings.length(content) > PNG_BIT_DEPTH  # else its header is cut off
    is_jpeg = tf.equal(tf.strings.substr(content, 0, len(JPEG_MAGIC)), JPEG_MAGIC)
    content = _checked(content, is_png | is_jpeg, "no JPEG or PNG image")
    pixels, plain, turned = tf.cond(is_png, lambda: _of_png(content), lambda: _of_jpeg(content))
    content = _checked(content, pixels <= MOST_PIXELS, f"send an image of at most {MOST_PIXELS:,} pixels")
    content = _checked(content, plain, "send an image in RGB or gray with 8 bits a channel")
    content = _checked(
        content, tf.logical_not(turned), "its EXIF orientation turns it, which no decoder heeds: send it upright"
    )
    # It decodes PNG as well. The accurate transform is what libjpeg does, and so Pillow, unless told otherwise.
    image = tf.io.decode_jpeg(content, channels=3, fancy_upscaling=True, dct_method="INTEGER_ACCURATE")
    if channels == 3:
        return image
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=2)
    gray = tf.bitwise.right_shift(red * 19595 + green * 38470 + blue * 7471 + 2**15, 16)
    return tf.cast(gray, tf.uint8)[:, :, tf.newaxis]


def _of_png(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """(Pixels, whether it has 8 bits a channel or fewer, False)."""
    sides = tf.io.decode_raw(tf.strings.substr(content, PNG_SIZE, 8), tf.int32, little_endian=False)
    depth = tf.io.decode_raw(tf.strings.substr(content, PNG_BIT_DEPTH, 1), tf.uint8)
    return tf.reduce_prod(tf.cast(sides, tf.int64)), tf.reduce_all(depth <= 8), tf.constant(value=False)


def _of_jpeg(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """(Pixels, whether it is gray or of three colours, whether EXIF turns it)."""
    size = tf.image.extract_jpeg_shape(content, output_type=tf.int64)
    turned = tf.strings.regex_full_match(tf.strings.substr(content, 0, EXIF_WITHIN), TURNED)
    return size[0] * size[1], tf.equal(size[2], 1) | tf.equal(size[2], 3), turned


def _checked(content: tf.Tensor, right: tf.Tensor, message: str) -> tf.Tensor:
    with tf.control_dependencies([tf.debugging.Assert(right, [f"{INPUT}: {message}"])]):
        return tf.identity(content)


def fitted(pixels: tf.Tensor, height: int, width: int, channels: int) -> tf.Tensor:
    """The centre of uint8 pixels [h, w, C] as uint8 [height, width, C]."""
    rows, columns = tf.unstack(tf.shape(pixels, out_type=tf.int64)[:2])
    is_high = rows * width > columns * height
    down = tf.where(is_high, tf.maximum(columns * height // width, 1), rows)
    across = tf.where(is_high, columns, tf.maximum(rows * width // height, 1))
    top, left = (rows - down) // 2, (columns - across) // 2
    centre = tf.slice(pixels, [top, left, 0], [down, across, channels])

    def resized() -> tf.Tensor:
        values = tf.reshape(tf.cast(centre, tf.float64), [down, -1])
        values = tf.sparse.sparse_dense_matmul(_weights(down, height), values)
        values = tf.reshape(tf.transpose(tf.reshape(values, [height, across, channels]), [1, 0, 2]), [across, -1])
        values = tf.sparse.sparse_dense_matmul(_weights(across, width), values)
        values = tf.transpose(tf.reshape(values, [width, height, channels]), [1, 0, 2])
        return tf.cast(tf.floor(values / UNIT**2 + 0.5), tf.uint8)

    return tf.cond(tf.equal(down, height) & tf.equal(across, width), lambda: centre, resized)


def _weights(size: tf.Tensor, length: int) -> tf.SparseTensor:
    scale = tf.cast(size, tf.float64) / length
    support = tf.maximum(scale, 1.0)
    taps = 2 * tf.cast(tf.math.ceil(support), tf.int64) + 1
    centre = (tf.range(length, dtype=tf.float64) + 0.5) * scale
    place = tf.floor(centre - support)[:, tf.newaxis] + tf.cast(tf.range(taps), tf.float64)
    weight = tf.maximum(1.0 - tf.abs(place + 0.5 - centre[:, tf.newaxis]) / support, 0.0)
    weight = tf.where((place >= 0) & (place < tf.cast(size, tf.float64)), weight, tf.zeros_like(weight))
    weight = tf.round(weight * UNIT)
    weight = tf.round(weight * UNIT / tf.reduce_sum(weight, axis=1, keepdims=True))
    rows = tf.repeat(tf.range(length, dtype=tf.int64), taps)
    columns = tf.clip_by_value(tf.cast(tf.reshape(place, [-1]), tf.int64), 0, size - 1)
    return tf.SparseTensor(tf.stack([rows, columns], axis=1), tf.reshape(weight, [-1]), tf.stack([length, size]))
