"""The serving profile's precision, and that of a bundle's graphs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.precision import Precision
from models.problem import Problem
from serving.profile import ServingProfile


def test_a_profile_comes_back_from_plain_values():
    profile = ServingProfile(precision=Precision.BF16, onednn=False)
    assert profile.to_dict()["precision"] == "bf16"
    assert ServingProfile.from_dict(profile.to_dict()) == profile


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"precision": "fp8"}, "profile.precision = 'fp8': use one of fp32, tf32, bf16, fp16"),
        ({"precision": "tf32"}, "profile.precision = 'tf32': a way in which GPUs multiply"),
    ],
)
def test_a_precision_that_cannot_be_is_one_line(values, said):
    with pytest.raises(Problem) as problem:
        ServingProfile.from_dict(values)
    assert str(problem.value).startswith(said)


def test_the_profile_s_precision_is_that_of_the_bundle_s_graphs(bundle):
    short = replace(bundle, manifest={**bundle.manifest, "precision": "bf16"})
    old = replace(bundle, manifest={key: value for key, value in bundle.manifest.items() if key != "precision"})
    ServingProfile().require(old)
    ServingProfile(device="gpu", precision=Precision.TF32).require(bundle)
    ServingProfile(precision=Precision.BF16).require(short)
    with pytest.raises(Problem, match=r"profile.precision = 'fp32', and the graphs in .* compute in bf16: make export"):
        ServingProfile().require(short)
