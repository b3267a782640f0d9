"""Figures as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.analysis.records import StandIn, TargetInfo
from loadtest.experiment.records import StoodIn
from loadtest.report import warning_words, wording
from serving.target import WhyStandIn


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04123, "0.0412"),
        (4.126, "4.13"),
        (41.26, "41.3"),
        (412.6, "413"),
        (1234.0, "1,230"),
        (999.6, "1,000"),
        (0.99996, "1.00"),
        (0, "0"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_three_significant_digits(value, text):
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((2.013, 1.84, 2.19), ["2.0", "1.8", "2.2"]),
        ((1.02, 0.96, 1.09), ["1.02", "0.96", "1.09"]),
        ((12.4, 9.96, 15.3), ["12", "10", "15"]),
        ((0.451, 0.043, 1.2), ["0.45", "0.043", "1.2"]),
        ((1.0,), ["1.0"]),
        ((1.004, 1.001), ["1.004", "1.001"]),
    ],
)
def test_ratios_have_the_decimals_that_tell_them_from_1(values, shown):
    assert wording.times(*values) == shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 second"), (40, "40 seconds"), (100, "2 minutes"), (3000, "50 minutes"), (9000, "2 hours")],
)
def test_a_duration_that_is_estimated_is_told_roughly(seconds, text):
    assert wording.roughly(seconds) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(1.3, "1.3"), (1.3001, "1.31"), (1.041, "1.05"), (2.0, "2"), (5.41, "5.5"), (37.2, "38")]
)
def test_an_effect_is_rounded_up(ratio, text):
    assert wording.effect(ratio) == text


@given(st.floats(1e-6, 1e9))
def test_a_number_keeps_its_value_to_half_a_percent(value):
    assert float(wording.number(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("bounds", "text"), [([3.981, 4.302], "3.98–4.30"), ([None, 800.0], "at most 800"), ([800.0, None], "at least 800")]
)
def test_intervals_have_one_style(bounds, text):
    assert wording.interval(bounds) == text
    assert wording.interval(None) == wording.interval([None, None]) == "–"


def test_settings_are_exact_and_rates_whole():
    assert wording.setting(50.0, "ms") == "50 ms"
    assert wording.rate(1234.4) == "1,234/s"
    assert wording.rate(12.345) == "12.3/s"
    assert wording.share(0.0123) == "1.2 %"
    assert wording.scientific(4.8e-7) == "4.8 × 10⁻⁷"
    assert wording.seconds(412) == "6 min 52 s"


@given(st.text(), st.integers(2, 30))
def test_no_name_turns_what_follows_it(name, limit):
    """The classic attack: an override in a name mirrors the figures behind it."""
    for text in (wording.target_name(name), wording.shorten(wording.target_name(name), limit)):
        assert not any(character in text for character in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067")
        assert text.count("\u2068") == text.count("\u2069")
    if name.isascii():
        assert wording.target_name(name) in (name, "PyTorch", "TensorFlow")


def test_a_name_from_right_to_left_stays_whole_and_apart():
    assert wording.target_name("مرحبا") == "\u2068مرحبا\u2069"
    assert wording.target_name("a\u202eb") == "\u2068ab\u2069"


def test_an_embedded_engine_is_never_called_tensorflow_serving():
    embedded = TargetInfo(name="tensorflow", engine="embedded-tfserving", engine_version="2.21")
    assert wording.target(embedded) == "TensorFlow (embedded-tfserving 2.21)"
    real = TargetInfo(name="tensorflow", engine="tensorflow-serving", engine_version="2.21")
    assert wording.target(real) == "TensorFlow (TensorFlow Serving 2.21)"


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("2.20.0+dev.sha.bc7e9d2 (tensorflow 2.20.0)", "2.20.0"),
        ("2.20.0-rc1+dev.sha.bc7e9d2", "2.20.0-rc1"),
        ("0.12.0 (torch 2.13.0+cpu, Java 17)", "0.12.0"),
        ("tensorflow 2.21.0", "tensorflow 2.21.0"),
        ("", ""),
    ],
)
def test_a_release_is_a_version_without_its_build_and_what_it_runs_on(version, release):
    assert wording.release(version) == release
    one = TargetInfo(name="tensorflow", engine="tensorflow-serving", engine_version=version)
    assert wording.engine(one) == f"TensorFlow Serving {release}".strip()
    assert wording.engine_in_full(one) == f"TensorFlow Serving {version}".strip()


def test_an_engine_that_nobody_knows_is_called_by_its_id():
    assert wording.target(TargetInfo(name="batched", engine="new", engine_version="1")) == "batched (new 1)"
    assert wording.target(TargetInfo(name="batched")) == "batched (engine unknown)"


def test_names_stand_in_a_row():
    assert wording.listed(["a"]) == "a"
    assert wording.listed(["a", "b"]) == "a and b"
    assert wording.listed(["a", "b", "c"], "or") == "a, b or c"


def test_why_a_stand_in_ran_stands_in_its_warning_and_in_the_line_before_the_run():
    refused = "registry-1.docker.io: Connection refused"
    ran = StandIn("tensorflow", "embedded-tfserving", "2.21", "tensorflow-serving", WhyStandIn.NO_ANSWER, refused)
    assert warning_words.warning(ran) == (
        "TensorFlow (embedded-tfserving 2.21) is a stand-in inside this project, not TensorFlow Serving (the registry "
        f"does not answer: {refused}): its speed says little about the production server"
    )
    runs = StoodIn(
        engine="tensorflow-serving", stand_in="embedded-tfserving", reason=WhyStandIn.NO_ANSWER, detail=refused
    )
    assert warning_words.warning(runs) == (
        f"embedded-tfserving stands in for TensorFlow Serving, since the registry does not answer: {refused}; make "
        "tensorflow-serving fetches the real one (by REGISTRY_MIRROR=HOST or HTTPS_PROXY, where those are needed), "
        "TFSERVING=PATH names one"
    )
