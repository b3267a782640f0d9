"""Whether all targets serve the same model."""

from __future__ import annotations

from loadtest.analysis.records.record import Record, Told
from loadtest.experiment.records import RightAnswers
from models.bundle import WhyLeftOut
from models.encoding import Encoding


class Doubt(Told, frozen=True, kw_only=True):
    """Why parity is not proven. ``model``: of which of several models, else empty; ``run``: in which of two runs."""

    model: str = ""
    run: str = ""


class NoExportParity(Doubt, frozen=True, kw_only=True):
    """The bundle's manifest holds no parity figures."""


class NotCompared(Doubt, frozen=True, kw_only=True):
    """A target's answers over a protocol were not compared with the reference."""

    target: str
    protocol: str


class ExportDiffers(Doubt, frozen=True, kw_only=True):
    """An export differs from the reference by more than is allowed; ``difference``: None where it is not a number."""

    export: str
    difference: float | None
    allowed: float


class AnswersDiffer(Doubt, frozen=True, kw_only=True):
    """A target's answers over a protocol differ from the reference by more than is allowed."""

    target: str
    protocol: str
    difference: float | None
    allowed: float


class AnswersUnchecked(Doubt, frozen=True, kw_only=True):
    """Any answer that was no error counted as right: nothing was compared."""


WhyNotProven = AnswersUnchecked | NoExportParity | NotCompared | ExportDiffers | AnswersDiffer


class ExportParity(Record, frozen=True, kw_only=True):
    """A form of the model against eager PyTorch, on the whole test split. The reference itself has an accuracy only."""

    accuracy: float | None = None
    max_abs_diff: float | None = None
    top1_agreement: float | None = None
    is_reference: bool = False


class FromFp32(Record, frozen=True, kw_only=True):
    """Eager PyTorch at a run's precision against itself in float32, on the whole test split."""

    max_abs_diff: float
    top1_agreement: float


class WireParity(Record, frozen=True, kw_only=True):
    """A running server's answers over one protocol against the reference.

    disagreements  (expected class, answered class, times), where best classes differed
    examples       index of a kept sample → (best class, its probability)
    bytes_an_image of a request, for each image in it: what HTTP sends, or the message of gRPC
    """

    max_abs_diff: float | None = None
    top1_agreement: float | None = None
    samples: int | None = None
    disagreements: tuple[tuple[int, int, int], ...] = ()
    examples: dict[str, tuple[int, float]] = {}
    bytes_an_image: float | None = None


class FileSizes(Record, frozen=True, kw_only=True):
    """Bytes of the files that clients send."""

    mean: int
    least: int
    most: int


class EncodedImages(Record, frozen=True, kw_only=True):
    """What clients send of an image, where that is no tensor. ``quality`` and ``subsampling``: how Tandem wrote the
    files of a data set's images; None: the user's own, or losslessly."""

    format: Encoding
    bytes: FileSizes
    quality: int | None = None
    subsampling: str | None = None


class Parity(Record, frozen=True, kw_only=True):
    """The evidence that all targets serve the same model, and whether it is complete.

    right         which answers counted as right; a difference from others than the reference is, of a value above 1, a
                  share of it
    tolerance     the largest difference of a probability that is allowed
    samples       of the test split, through every export; `wire_samples`: through every server
    exports       form → its figures; `wire`: target → protocol → its figures. Empty where there are several models
    left_out      form → why it could not be asked; `from_fp32`: how far the reference lies from itself in float32, None
                  where that is what it is, or is not known. Empty where there are several models
    max_abs_diff  the largest over all exports, targets and protocols; None where nothing was compared
    by_model      the evidence of each of several models; empty where there is one
    """

    tolerance: float
    samples: int | None
    wire_samples: int | None
    exports: dict[str, ExportParity]
    wire: dict[str, dict[str, WireParity]]
    max_abs_diff: float | None
    proven: bool
    why_not_proven: tuple[WhyNotProven, ...]
    right: RightAnswers = RightAnswers.REFERENCE
    left_out: dict[str, WhyLeftOut] = {}
    from_fp32: FromFp32 | None = None
    by_model: dict[str, Parity] = {}
