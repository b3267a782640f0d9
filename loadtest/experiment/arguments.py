"""Arguments that the verbs which run an experiment share."""

from __future__ import annotations

import argparse
from pathlib import Path

from loadtest.experiment import file as experiments
from loadtest.experiment import guard
from models import declaration


def add(parser: argparse.ArgumentParser) -> None:
    """Which experiment, what of it is different, and where its results go."""
    parser.add_argument("--experiment", default="default", help="default, smoke, or a TOML file's path")
    parser.add_argument("--model", help="overrides the experiment's model; your own: package.module:factory")
    parser.add_argument("--dataset", help="overrides the experiment's data set")
    parser.add_argument("--checkpoint", help="weights of the model (a PyTorch state dict), instead of training it")
    parser.add_argument("--images", help="a folder of JPEG and PNG files, in sub-folders named after classes or none")
    parser.add_argument("--classes", help="a text file with the names of the checkpoint's classes, one a line")
    parser.add_argument(
        "--input", help="size of the images that clients send, such as 224x224x3: your own model needs it"
    )
    parser.add_argument(
        "--preprocessing",
        help="what becomes of pixels: imagenet, 0-1, -1-1, none, or an inline table of its keys",
    )
    parser.add_argument("--output", help="what your own model gives: logits or probabilities")
    parser.add_argument("--encoding", help="what clients send of an image: none (its pixels), jpeg or png (a file)")
    parser.add_argument("--savedmodel", help="the folder of a SavedModel that is the TensorFlow side, as it is")
    parser.add_argument("--torchscript", help="a TorchScript file: a model whose source is not here")
    parser.add_argument("--onnx", help="an ONNX file that the TensorFlow side is made of, beside the model in PyTorch")
    parser.add_argument("--seed", type=int, help="overrides the experiment's seed")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="overrides any key, such as ladder.duration_s=10",
    )
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="folder of the bundles")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the runs")
    parser.add_argument("--fresh", action="store_true", help="start a new run even where an unfinished one could go on")


def add_consent(parser: argparse.ArgumentParser) -> None:
    """For verbs that may put load on servers of other people."""
    parser.add_argument(
        guard.FLAG,
        dest="may_load",
        action="store_true",
        help=f"endpoints outside this machine and private networks may have more than {guard.MOST_RATE:g} requests/s",
    )


def overrides(options: argparse.Namespace) -> dict[str, object]:
    """What the command line gives, dotted key to value. Raises `Problem`."""
    keys = ("model", "dataset", *experiments.BROUGHT, "input", "output", "encoding", "seed")
    given = {key: value for key in keys if (value := getattr(options, key)) is not None}
    if options.preprocessing is not None:
        given["preprocessing"] = declaration.preprocessing(options.preprocessing).declared
    return {**given, **dict(experiments.override(argument) for argument in options.set)}
