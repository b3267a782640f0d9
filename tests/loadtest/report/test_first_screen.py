"""The first screen: golden sentences and rows, what they may never say, and that every place shows the same."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import report
from loadtest.analysis import summary as summary_file
from loadtest.analysis.records import Fault, MeasuredOnce, Needed, Outcome, SentLate, Summary
from loadtest.experiment.questions import Metric
from loadtest.experiment.records import NotPinned, WakesLate
from loadtest.report import conditions, first_screen, host_words, terminal, wording
from loadtest.report.first_screen import FirstScreen
from loadtest.report.names import of as names_of
from loadtest.report.rows import Topic
from models.bundle import Weights
from tests.loadtest.analysis.figures import measurement
from tests.loadtest.report.summaries import (
    BOTH,
    STAND_IN,
    TF_SERVING,
    TORCHSERVE,
    UNBATCHED,
    WITHOUT_RATIO,
    capacity,
    latency,
    summary,
)
from tests.loadtest.runs.build import EMBEDDED, write_run
from tests.loadtest.runs.build import TORCHSERVE as SIMULATED

PYTORCH, TENSORFLOW = BOTH
GRPC_WON = capacity(2014, 4055, TENSORFLOW)
REST_OPEN = capacity(600, 640, protocol="rest")
REST_TURNED = capacity(900, 600, PYTORCH, "rest")
FEW_ERRORS: dict[str, Any] = {"because_of": (PYTORCH,), "error_ratios": {PYTORCH: 0.023}}
TWICE = (
    "TensorFlow Serving handled 2.0 times as many requests per second as TorchServe within 50 ms over gRPC (1.8–2.2)"
)
WOULD = "about 4 more starts of each, 3 minutes, would decide a ratio of 1.2"

SENTENCES = {
    "one protocol": (summary(GRPC_WON), f"{TWICE}."),
    "agree": (
        summary(GRPC_WON, capacity(600, 900, TENSORFLOW, "rest")),
        f"{TWICE} and 1.5 times as many over REST (1.4–1.7).",
    ),
    "one protocol open": (summary(GRPC_WON, REST_OPEN), f"{TWICE}; over REST no difference was shown."),
    "disagree": (
        summary(GRPC_WON, REST_TURNED),
        f"It depends on the protocol: {TWICE}; TorchServe handled 1.5 times as many as TensorFlow Serving over REST "
        "(1.4–1.7).",
    ),
    "stand-in": (
        summary(GRPC_WON, targets=(TORCHSERVE, STAND_IN)),
        "The embedded stand-in for TensorFlow Serving handled 2.0 times as many requests per second as TorchServe "
        "within 50 ms over gRPC (1.8–2.2).",
    ),
    "stand-in behind": (
        summary(capacity(4055, 2014, PYTORCH), targets=(TORCHSERVE, STAND_IN)),
        "TorchServe handled 2.0 times as many requests per second as the embedded stand-in for TensorFlow Serving "
        "within 50 ms over gRPC (1.8–2.2).",
    ),
    "own rate, without a capacity": (
        summary(latency(11, 3.9, TENSORFLOW), own_rate=600),
        "Over gRPC at your 600/s TensorFlow Serving answered 99 % of requests within 3.9 ms, TorchServe within 11 ms "
        "(2.8 times as long, 2.6–3.1).",
    ),
    "only the latency decided": (
        summary(capacity(2014, 2100), latency(148, 18, TENSORFLOW)),
        "Over gRPC at 600/s TensorFlow Serving answered 99 % of requests within 18 ms, TorchServe within 148 ms "
        "(8.2 times as long, 7.5–9.0).",
    ),
    "nothing decided": (
        summary(capacity(2014, 2100), capacity(600, 640, protocol="rest", detectable=1.52), latency(9, 10)),
        "No difference shown in requests per second within 50 ms: this run could have found a ratio of 1.3 over gRPC "
        "and 1.52 over REST.",
    ),
    "errors": (
        summary(
            latency(11, 3.9, TENSORFLOW),
            latency(11, 3.9, None, "rest", outcome=Outcome.TOO_MANY_ERRORS, **FEW_ERRORS),
        ),
        "Over gRPC at 600/s TensorFlow Serving answered 99 % of requests within 3.9 ms, TorchServe within 11 ms "
        "(2.8 times as long, 2.6–3.1); over REST no winner is named, because TorchServe failed 2.3 % of requests, more "
        "than the 0.1 % allowed.",
    ),
    "parity not proven": (
        summary(capacity(2014, 4055, outcome=Outcome.PARITY_NOT_PROVEN)),
        "No winner is named: the servers are not proven to serve the same model.",
    ),
    "one start only": (
        summary(capacity(2014, 4055, outcome=Outcome.ONE_START_ONLY, starts=1, ci95=None)),
        "No winner is named: with one start only nothing tells how far starts lie apart.",
    ),
    "no rate within the SLO": (
        summary(GRPC_WON, capacity(1, 2, None, "rest", outcome=Outcome.NO_RATE_MET_SLO, because_of=(PYTORCH,))),
        f"{TWICE}; over REST there is no verdict, because TorchServe met the SLO at no rate that was tried.",
    ),
    "one target": (summary(targets=(TORCHSERVE,)), "TorchServe alone was measured."),
    "nothing": (summary(targets=()), "Nothing was measured."),
}


@pytest.mark.parametrize("situation", SENTENCES)
def test_the_sentence(situation):
    figures, sentence = SENTENCES[situation]
    assert first_screen.build(figures).sentence == sentence


def lines(figures: Summary) -> list[str]:
    return [f"{row.title}: {line.text}" for row in first_screen.build(figures).rows for line in row.lines]


def test_one_winner_of_a_question_over_all_protocols_has_one_line_with_both_ratios():
    figures = summary(
        GRPC_WON,
        latency(11, 3.9, TENSORFLOW),
        capacity(600, 900, TENSORFLOW, "rest"),
        latency(148, 18, TENSORFLOW, "rest", 360),
    )
    assert lines(figures) == [
        "Capacity: TensorFlow Serving: over gRPC 4,055/s within 50 ms against 2,014/s, 2.0 times as many (1.8–2.2); "
        "over REST 900/s within 50 ms against 600/s, 1.5 times as many (1.4–1.7)",
        "Latency: TensorFlow Serving: over gRPC at 600/s 99 % of requests within 3.9 ms, TorchServe within 11 ms "
        "(2.8 times as long, 2.6–3.1); over REST at 360/s 99 % of requests within 18 ms, TorchServe within 148 ms "
        "(8.2 times as long, 7.5–9.0)",
    ]


def test_protocols_that_differ_have_a_line_each_and_an_open_one_says_what_would_decide():
    assert lines(summary(GRPC_WON, REST_OPEN, latency(9, 10), own_rate=600)) == [
        "Capacity: over gRPC TensorFlow Serving: 4,055/s within 50 ms against 2,014/s, 2.0 times as many (1.8–2.2)",
        f"Capacity: over REST no difference shown: this run could have found 1.3 (ratio 0.85–1.03; {WOULD})",
        "Latency: over gRPC at your 600/s no difference shown: this run could have found 1.3 (ratio 0.82–0.99; "
        f"{WOULD})",
    ]


def test_what_says_nothing_is_not_spelled_out():
    nothing = latency(
        9, 10, ci95=(0.0007, 82_000.0), detectable=1e9, needed=Needed(effect=900.0, starts=2, seconds=9.0)
    )
    assert lines(summary(nothing)) == [
        "Latency: over gRPC at 600/s no difference shown: ratio not known within 100-fold"
    ]
    assert first_screen.build(summary(nothing)).sentence == "No difference shown in p99 latency."
    hardly = latency(9, 10, needed=Needed(effect=1.02, starts=12_345, seconds=9e5), detectable=None)
    assert lines(summary(hardly)) == [
        "Latency: over gRPC at 600/s no difference shown: ratio 0.82–0.99; about 12,000 more starts of each, 250 "
        "hours, would decide a ratio of 1.02"
    ]


def test_what_may_still_be_chance_is_no_difference_though_the_interval_excludes_1():
    (line,) = lines(summary(capacity(2014, 2500, outcome=Outcome.NOT_AFTER_CORRECTION)))
    assert line == (
        "Capacity: over gRPC no difference shown: a ratio of 0.73–0.89 may still be chance, as often as this run asked "
        f"and looked; {WOULD}"
    )


def test_without_a_winner_the_reason_stands_with_the_figures():
    failing = latency(11, 3.9, outcome=Outcome.TOO_MANY_ERRORS, **FEW_ERRORS)
    unproven = capacity(2014, 4055, outcome=Outcome.PARITY_NOT_PROVEN)
    assert lines(summary(unproven, failing)) == [
        "Capacity: over gRPC no winner named: the servers are not proven to serve the same model (TorchServe 2,014/s, "
        "TensorFlow Serving 4,055/s)",
        "Latency: over gRPC at 600/s no winner named: TorchServe failed 2.3 % of requests, more than the 0.1 % allowed "
        "(99 % within: TorchServe 11 ms, TensorFlow Serving 3.9 ms)",
    ]


def test_a_known_price_gives_costs_that_follow_the_capacities():
    # 2,000 requests of one image are 7.2 million an hour.
    won = summary(capacity(1000, 2000, TENSORFLOW), price=0.72)
    assert lines(won)[-1] == (
        "Cost: over gRPC TensorFlow Serving: 0.100 USD for a million predictions, TorchServe 0.200 USD "
        "(2.0 times as much, 1.8–2.2)"
    )
    assert lines(summary(capacity(2000, 1990), price=0.72))[-1] == (
        "Cost: over gRPC no difference shown: 0.100 USD with TorchServe, 0.101 USD with TensorFlow Serving for a "
        "million predictions"
    )


def test_a_known_rate_gives_servers_and_neither_gives_no_row():
    won = capacity(1000, 2000, TENSORFLOW)
    assert lines(summary(won, expected=3500))[-1] == (
        "Servers: over gRPC TensorFlow Serving: 3 servers for 3,500 images/s (one to spare), TorchServe 5 servers"
    )
    assert lines(summary(won, expected=900))[-1] == (
        "Servers: over gRPC no difference: 2 servers each for 900 images/s (one to spare)"
    )
    assert [row.topic for row in first_screen.build(summary(won)).rows] == [Topic.CAPACITY]


THREE = (TORCHSERVE, UNBATCHED, TF_SERVING)
PAIRS = [(PYTORCH, "unbatched"), (PYTORCH, TENSORFLOW), ("unbatched", TENSORFLOW)]


def test_of_three_targets_the_rows_are_places_and_the_sentence_names_the_nearest():
    figures = summary(
        capacity(900, 1000, compared=PAIRS[0]),
        capacity(900, 1400, TENSORFLOW, compared=PAIRS[1]),
        capacity(1000, 1400, TENSORFLOW, compared=PAIRS[2]),
        latency(9, 9, compared=PAIRS[0]),
        latency(9, 9, compared=PAIRS[1]),
        latency(9, 9, compared=PAIRS[2]),
        targets=THREE,
        price=3.6,
    )
    screen = first_screen.build(figures)
    assert screen.sentence == (
        "TensorFlow Serving handled the most requests per second within 50 ms over gRPC, 1.4 times as many (1.3–1.5) "
        "as the next, unbatched (TorchServe)."
    )
    assert lines(figures) == [
        "Capacity: over gRPC 1. TensorFlow Serving; 2. PyTorch (TorchServe) and unbatched (TorchServe)",
        "Latency: over gRPC at 600/s 1. PyTorch (TorchServe), unbatched (TorchServe) and TensorFlow Serving",
        "Cost: over gRPC 1. TensorFlow Serving 0.714 USD; 2. PyTorch (TorchServe) 1.11 USD and unbatched (TorchServe) "
        "1.00 USD for a million predictions",
    ]
    assert [row.lines[0].winner for row in screen.rows] == [TENSORFLOW, None, TENSORFLOW]


@pytest.mark.parametrize(
    ("winners", "sentence"),
    [
        (
            (None, PYTORCH, "unbatched"),
            "PyTorch (TorchServe) and unbatched (TorchServe) share the first place in requests per second within 50 ms "
            "over gRPC.",
        ),
        (
            (PYTORCH, None, "unbatched"),
            "PyTorch (TorchServe) leads in requests per second within 50 ms over gRPC, not told apart from TensorFlow "
            "Serving.",
        ),
        (
            (None, None, None),
            "No difference shown between PyTorch (TorchServe), unbatched (TorchServe) and TensorFlow Serving.",
        ),
    ],
)
def test_of_three_targets_who_is_not_told_apart_is_not_ahead(winners, sentence):
    verdicts = [capacity(1300, 1000, winner, compared=pair) for pair, winner in zip(PAIRS, winners, strict=True)]
    assert first_screen.build(summary(*verdicts, targets=THREE)).sentence == sentence


def test_one_engine_twice_is_told_apart_by_its_targets():
    assert names_of(THREE) == {
        "pytorch": "PyTorch (TorchServe)",
        "unbatched": "unbatched (TorchServe)",
        "tensorflow": "TensorFlow Serving",
    }
    assert names_of((TORCHSERVE, STAND_IN))["tensorflow"] == "the embedded stand-in for TensorFlow Serving"


def test_the_host_is_one_line():
    quiet = host_words.host(summary(GRPC_WON))
    assert quiet.says == (
        "The machine: its host gave less than 1 % of its CPU time to others; no trial had to be repeated."
    )
    late = SentLate(slip_p99_ms=9.0, allowed_ms=1.0, cpu_stolen=0.2)
    measured = (
        measurement(PYTORCH, cpu_stolen=0.12, spoiled=("a-1", "a-2")),
        measurement(TENSORFLOW, cpu_stolen=None, spoiled=("b-1",), valid=False, why_not_valid=(Fault((1,), late),)),
    )
    busy = host_words.host(
        summary(
            GRPC_WON,
            measurements=measured,
            warnings=(WakesLate(p99_ms=3.1, allowed_ms=1.0), NotPinned(), MeasuredOnce()),
        )
    )
    assert busy.says == (
        "The machine: its host gave up to 12 % of its CPU time to others during a trial; 3 trials spoiled and "
        "repeated; 1 of 2 measurements not valid, sent late all the same; before any load it woke a process 3.10 ms "
        "late (p99); server and load generator shared its CPUs."
    )
    assert (busy.stolen, busy.spoiled, busy.not_valid, busy.measured) == (0.12, 3, 1, 2)


# --- what may never be said ---

POSITIVE = st.floats(0.5, 1e5)


@st.composite
def verdicts(draw, metric: Metric, protocol: str):
    """Any verdict that may come of two figures."""
    first, second = draw(POSITIVE), draw(POSITIVE)
    low, high = sorted((draw(st.floats(0.3, 0.999)), draw(st.floats(1.001, 3.0))))
    outcome = draw(st.sampled_from(Outcome))
    values: dict[str, Any] = {"outcome": outcome, "ci95": (first / second * low, first / second * high)}
    winner = None
    if outcome is Outcome.WINNER:
        winner = BOTH[(first > second) == (metric is Metric.P99)]
    else:
        if outcome in (Outcome.TOO_MANY_ERRORS, Outcome.NO_RATE_MET_SLO):
            values |= FEW_ERRORS
        values["detectable"] = draw(st.none() | st.floats(1.0001, 50))
        values["needed"] = draw(
            st.none()
            | st.builds(
                Needed,
                effect=st.floats(1.001, 20),
                starts=st.integers(1, 10**6),
                seconds=st.none() | st.floats(0.1, 1e7),
            )
        )
    make = capacity if metric is Metric.CAPACITY else latency
    return make(first, second, winner, protocol, **values)


RUNS = st.tuples(
    verdicts(Metric.CAPACITY, "grpc"),
    verdicts(Metric.CAPACITY, "rest"),
    verdicts(Metric.P99, "grpc"),
    verdicts(Metric.P99, "rest"),
)
TIMES = re.compile(r"([\d.,]+) times as (?:many|long|much)")


def test_untrained_weights_are_said_in_every_place_and_trained_ones_in_none(tmp_path):
    sentence = "Untrained weights: speed and parity are real, accuracy is not."
    run = write_run(tmp_path / "run", {"pytorch": SIMULATED, "tensorflow": EMBEDDED})
    report.write(run)
    assert "Untrained" not in (run / "report.md").read_text()
    manifest = json.loads((run / "bundle-manifest.json").read_text())
    (run / "bundle-manifest.json").write_text(json.dumps({**manifest, "weights": "seeded"}))
    figures = summary_file.write(run)
    report.write(run)
    assert sentence in (run / "report.md").read_text()
    assert sentence in html.unescape((run / "report.html").read_text())
    assert first_screen.build(figures).weights == sentence


def test_whether_a_factory_s_weights_are_trained_is_not_claimed():
    figures = msgspec.structs.replace(summary(GRPC_WON), weights={"nets:build": Weights.FACTORY})
    said = first_screen.build(figures).weights
    assert said == "Weights as the model's factory made them, trained or not: speed and parity are real either way."
    assert "with weights as its factory made them" in dict(conditions.conditions(figures))["Model"]


def test_of_several_models_the_untrained_ones_are_named():
    weights = {"resnet18": Weights.SEEDED, "lenet": Weights.TRAINED, "vgg11": Weights.SEEDED}
    figures = msgspec.structs.replace(summary(GRPC_WON), weights=weights)
    said = first_screen.build(figures).weights
    assert said == "Untrained weights of resnet18 and vgg11: speed and parity are real, accuracy is not."


def said(screen: FirstScreen) -> list[str]:
    return [screen.sentence, *(line.text for row in screen.rows for line in row.lines)]


@given(RUNS, st.sampled_from([0.0, 3.0]), st.sampled_from([0.0, 900.0]))
def test_no_line_names_a_winner_or_a_ratio_that_is_not_its_verdicts(found, price, expected):
    screen = first_screen.build(summary(*found, price=price, expected=expected))
    assert len(screen.rows) <= 3
    for row in screen.rows:
        metrics = {verdict.metric for line in row.lines for verdict in line.verdicts}
        assert metrics == {Metric.P99 if row.topic is Topic.LATENCY else Metric.CAPACITY}  # no row mixes questions
        for line in row.lines:
            assert len(line.verdicts) == len(line.protocols)
            assert all(verdict.winner == line.winner for verdict in line.verdicts) or line.answer == "no difference"
            assert [verdict.protocol for verdict in line.verdicts] == list(line.protocols)
            shown = TIMES.findall(line.text)
            assert bool(shown) <= (line.winner is not None)
            for text, verdict in zip(shown, line.verdicts, strict=False):
                assert as_shown(text, verdict.ratio or 0.0)
    if not any(verdict.winner for verdict in found):
        assert not TIMES.search(screen.sentence)
        assert "handled" not in screen.sentence
        assert "answered" not in screen.sentence
    assert all("p-value" not in text and " p " not in text for text in said(screen))


def as_shown(text: str, ratio: float) -> bool:
    """Whether a ratio above 1 was written from this one, to its digits."""
    return float(text.replace(",", "")) == pytest.approx(max(ratio, 1 / ratio), rel=0.06)


@given(RUNS)
def test_the_sentence_is_about_one_question_and_only_about_who_won_it(found):
    screen = first_screen.build(summary(*found))
    sentence = screen.sentence
    about = [metric for metric, word in ((Metric.CAPACITY, "handled"), (Metric.P99, "answered")) if word in sentence]
    assert len(about) <= 1
    shown = [float(text.replace(",", "")) for text in TIMES.findall(sentence)]
    for metric in about:
        won = [one for one in found if one.metric is metric and one.winner]
        assert len(shown) == len(won)
        ratios = sorted(max(one.ratio or 0.0, 1 / (one.ratio or 1.0)) for one in won)
        assert sorted(shown) == pytest.approx(ratios, rel=0.06)
        assert sentence.startswith("It depends on the protocol") == (len({one.winner for one in won}) > 1)


@given(st.floats(1.0001, 1e6))
def test_an_effect_is_never_rounded_down_to_one_that_could_not_be_found(ratio):
    assert float(wording.effect(ratio).replace(",", "")) >= ratio * (1 - 1e-6)


@given(st.floats(0.02, 50), st.floats(0.02, 50))
def test_an_interval_that_excludes_1_never_looks_as_if_it_held_it(one, other):
    low, high = sorted((one, other))
    shown = [float(text) for text in wording.times(low, high)]
    if low > 1.001 or high < 0.999:
        assert shown[0] > 1 or shown[1] < 1


# --- terminal, Markdown, page and JSON ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    servers = {"pytorch": SIMULATED, "tensorflow": EMBEDDED}
    return write_run(tmp_path_factory.mktemp("runs") / "run", servers, rates={"grpc": [250.0]}, duration_s=1)


PLACES = {
    "clear": summary(GRPC_WON, REST_TURNED, latency(11, 3.9, TENSORFLOW), own_rate=600, price=0.4),
    "open": summary(capacity(2014, 2100), REST_OPEN, expected=3000, targets=(TORCHSERVE, STAND_IN)),
    "three": summary(
        *(capacity(1000, 1400, pair[1] if pair[1] == TENSORFLOW else None, compared=pair) for pair in PAIRS),
        targets=THREE,
    ),
}


@pytest.mark.parametrize("kind", PLACES)
def test_every_place_says_the_same_in_the_same_order(folder, kind, capsys):
    figures = PLACES[kind]
    (folder / "summary.json").write_bytes(msgspec.json.encode(figures))
    page = report.write(folder)
    terminal.show(figures, page)
    places = {
        "terminal": capsys.readouterr().out,
        "report.md": html.unescape(re.sub(r"\\(?=\W)", "", (folder / "report.md").read_text())),
        "page": html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8").partition("<main")[2])),
    }
    screen = first_screen.build(figures)
    expected = [*said(screen), screen.host.says]
    assert len(set(expected)) == len(expected) >= 3
    for place, text in places.items():
        found = [" ".join(text.split()).find(" ".join(words.split())) for words in expected]
        assert -1 not in found, (place, expected[found.index(-1)])
        assert found == sorted(found), place
    rows = json.loads((folder / "report.json").read_text())["verdict"]
    told = [rows["sentence"], *(line["text"] for row in rows["rows"] for line in row["lines"]), rows["host"]["says"]]
    assert told == expected
    assert [row["topic"] for row in rows["rows"]] == [row.topic.value for row in screen.rows]
    first = rows["rows"][0]["lines"][0]
    assert first["verdicts"][0]["ratio"] == figures.verdicts[0].ratio
    assert first["winner"] == screen.rows[0].lines[0].winner


def test_the_page_and_the_markdown_begin_with_it(folder):
    (folder / "summary.json").write_bytes(msgspec.json.encode(PLACES["clear"]))
    text = html.unescape(re.sub(r"<[^>]+>", "", report.write(folder).read_text(encoding="utf-8")))
    sentence = first_screen.build(PLACES["clear"]).sentence
    assert (folder / "report.md").read_text().startswith("# It depends on the protocol: TensorFlow Serving handled")
    order = [sentence, "Capacity", "The machine:", "Same model, proven", "Question by question"]
    main = text.replace("\N{NO-BREAK SPACE}", " ").partition("in production?")[2]
    found = [main.find(words) for words in order]
    assert -1 not in found
    assert found == sorted(found)


def test_the_terminal_ends_with_it_and_where_the_report_is(capsys):
    figures = PLACES["clear"]
    terminal.show(figures, Path("results/latest/report.html"))
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.strip()]
    assert lines[-1] == "Report: results/latest/report.html"
    assert lines[-2].startswith("Same model on both sides")
    text = " ".join(out.split())
    assert text.index("p99 ms (95 %)") < text.index("It depends on the protocol") < text.index("The machine:")
    assert max(map(len, lines)) <= 100


def test_open_outcomes_all_have_a_line(folder):
    for outcome in (one for one in Outcome if one is not Outcome.WINNER):
        (line,) = first_screen.build(summary(capacity(1, 2, outcome=outcome, **FEW_ERRORS))).rows[0].lines
        assert line.winner is None
        assert (line.answer == "no verdict") == (outcome in WITHOUT_RATIO)
        assert line.says


def test_a_long_version_cuts_nothing(folder, capsys):
    """That of the real server, as its own program says it."""
    torch = msgspec.structs.replace(TORCHSERVE, engine_version="0.12.0 (torch 2.13.0+cpu, Java 17)")
    built = msgspec.structs.replace(TF_SERVING, engine_version="2.20.0+dev.sha.bc7e9d2 (tensorflow 2.20.0)")
    figures = summary(GRPC_WON, REST_OPEN, targets=(torch, built))
    (folder / "summary.json").write_bytes(msgspec.json.encode(figures))
    page = report.write(folder)
    terminal.show(figures, page)
    assert first_screen.build(figures).sentence == first_screen.build(summary(GRPC_WON, REST_OPEN)).sentence
    verdict = page.read_text(encoding="utf-8").partition("<main")[2].partition("</section>")[0]
    shown = " ".join(html.unescape(re.sub(r"<[^>]+>", "", verdict)).split())
    assert "TorchServe 0.12.0 and TensorFlow Serving 2.20.0" in shown  # the badge
    in_full = [f"TorchServe {torch.engine_version}", f"TensorFlow Serving {built.engine_version}"]
    assert ", ".join(in_full) in shown  # the conditions
    for text in (shown, capsys.readouterr().out, (folder / "report.md").read_text()):
        assert "TensorFlow Serving 2.20.0" in text.replace("\\", "")
        assert "…" not in text
