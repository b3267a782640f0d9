"""``python -m models``: train a CNN, export it to both worlds, verify a bundle."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from models import bundle as bundles
from models import child_environment, declaration, in_use, problem
from models.encoding import Encoding
from models.precision import Precision
from models.problem import Problem
from models.progress import Progress

DEFAULT_DATASET = "fashion-mnist"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models", description=__doc__.partition(": ")[2])
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="train|export|verify")
    for verb, text in (
        ("train", "train, and print the checkpoint's path; a checkpoint of the same settings is reused"),
        ("export", "train if needed, export, prove parity, and print the bundle's folder; a matching bundle is reused"),
    ):
        command = verbs.add_parser(verb, help=text, description=f"{text[0].upper()}{text[1:]}.")
        _add_place(command)
        command.add_argument(
            "--dataset", default=DEFAULT_DATASET, help="fashion-mnist, cifar10 or digits (%(default)s)"
        )
        command.add_argument("--data-folder", type=Path, help="read the data set from here instead of downloading it")
        command.add_argument("--seed", type=int, default=0, help="seed of weights and batches (%(default)s)")
        command.add_argument("--epochs", type=int, help="passes over the training split (default: the data set's)")
        if verb == "export":
            command.add_argument(
                "--checkpoint", type=Path, help="weights of the model (a PyTorch state dict) instead of training"
            )
            command.add_argument(
                "--images",
                type=Path,
                help="folder of JPEG and PNG files, in sub-folders named after their classes or none",
            )
            command.add_argument(
                "--classes", type=Path, help="text file with the classes' names, one a line, for --checkpoint"
            )
            command.add_argument(
                "--savedmodel", type=Path, help="folder of a SavedModel that is the TensorFlow side, in place of ours"
            )
            command.add_argument(
                "--torchscript", type=Path, help="TorchScript file of a model whose source is not here"
            )
            command.add_argument("--onnx", type=Path, help="ONNX file that the SavedModel is made of, in place of ours")
            images = command.add_argument_group("the images of a model; one of your own needs --input")
            images.add_argument("--input", help="size of the images, HEIGHTxWIDTHxCHANNELS, such as 224x224x3")
            images.add_argument(
                "--preprocessing",
                help="what becomes of pixels 0-255 (default: 0-1; networks of the house have their own): imagenet, "
                "0-1, -1-1, none, or keys of [preprocessing] as "
                '{preset = "imagenet", channel_order = "bgr"}',
            )
            images.add_argument("--output", help="what a model of your own gives: logits (default) or probabilities")
            command.add_argument(
                "--encoding",
                choices=list(Encoding),
                default=Encoding.NONE,
                help="what clients send of an image: its pixels (%(default)s), or a JPEG or PNG file",
            )
            also = "also compile the torch.export program for this CPU with AOTInductor (needs a C++ compiler)"
            command.add_argument("--aot", action="store_true", help=also)
            command.add_argument(
                "--precision",
                choices=list(Precision),
                default=Precision.FP32,
                help="what the graphs of both sides compute in (%(default)s; tf32: those of fp32)",
            )
    text = "check every hash of a bundle and run its parity gate again"
    command = verbs.add_parser("verify", help=text, description=f"{text[0].upper()}{text[1:]}.")
    _add_place(command)
    command.add_argument("bundle", type=Path, nargs="?", help="a bundle's folder (default: the newest of --model)")
    command.add_argument("--hashes-only", action="store_true", help="leave out the parity gate")
    return parser


def _add_place(command: argparse.ArgumentParser) -> None:
    text = "architecture, or your own package.module:factory (%(default)s)"
    command.add_argument("--model", default="convnet", help=text)
    command.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="where it is kept (%(default)s)")


def main() -> int:
    """Run one verb. Results go to stdout, progress to stderr."""
    options = _parser().parse_args()
    progress = Progress()
    if options.verb == "verify":
        folder = options.bundle or _newest(options.artifacts, declaration.servable(options.model))
        bundle = bundles.load(folder)
        progress.say("hashes", f"{len(bundle.manifest['files'])} files unchanged")
        if not options.hashes_only:
            from models import pipeline

            progress.say("parity", pipeline.describe(pipeline.verify(bundle, progress)))
        print(folder)
        return 0

    from models import architectures, datasets

    if options.dataset not in datasets.names():
        raise Problem(f"--dataset {options.dataset}: unknown; use one of {', '.join(datasets.names())}")
    file = getattr(options, "torchscript", None)  # which is a model of its own
    if not (file or declaration.is_factory(options.model) or options.model in architectures.ARCHITECTURES):
        raise Problem(f"--model {options.model}: unknown; use one of {', '.join(sorted(architectures.ARCHITECTURES))}")

    from models import pipeline, training, weights
    from models.recipe import Own

    epochs = training.EPOCHS[options.dataset] if options.epochs is None else options.epochs
    settings = training.Settings(seed=options.seed, epochs=epochs)
    arguments = (options.model, options.dataset, settings, options.artifacts, options.data_folder, progress)
    # Two at once would train the same model, and number their bundles alike.
    with in_use.waited_for(options.artifacts, partial(_waiting, progress)):
        if options.verb == "train":
            print(weights.train(*arguments))
        else:
            own = Own(
                options.checkpoint,
                options.images,
                options.classes,
                declaration.image_shape(options.input) if options.input else None,
                declaration.preprocessing(options.preprocessing) if options.preprocessing else None,
                declaration.output(options.output) if options.output else None,
                options.savedmodel,
                options.torchscript,
                options.onnx,
            )
            precision, encoding = Precision(options.precision), Encoding(options.encoding)
            bundle = pipeline.export(*arguments, own=own, compiled=options.aot, precision=precision, encoding=encoding)
            print(bundle.folder)
    return 0


def _waiting(progress: Progress, process: str) -> None:
    progress.say("wait", f"another export is going on there (process {process}); waiting for it")


def _newest(artifacts: Path, model: str) -> Path:
    versions = bundles.versions(artifacts, model)
    if not versions:
        raise Problem(f"{artifacts / model}: no bundle there; run python -m models export")
    return artifacts / model / str(versions[-1])


if __name__ == "__main__":
    child_environment.clean()
    # PyTorch's threads spin while they wait, which makes training up to three times slower beside other busy processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is first imported
    sys.exit(problem.run(main))
