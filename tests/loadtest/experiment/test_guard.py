"""Servers of other people: nothing is sent that asks for more than a few requests a second, and nothing later does."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from loadtest.experiment import file as experiments
from loadtest.experiment import guard, load_running, phase_plan, plan
from loadtest.experiment.file import Experiment
from loadtest.experiment.phases import ClosedLoopPhase, OpenLoopPhase, SearchPhase
from loadtest.experiment.runtimes import endpoint
from loadtest.generator.closed_loop import ClosedLoop
from loadtest.generator.failures import Failures
from loadtest.generator.live import Slice
from models.problem import Problem
from serving.target import Proxy, Target

FAR = "203.0.113.7"  # of documentation (RFC 5737): nobody's


def most_rate(asked: Experiment) -> float:
    return guard.most_rate(asked, endpoint.named(asked))


def experiment(more: str = "", host: str = FAR) -> Experiment:
    return experiments.parse(
        f'protocols = ["rest"]\n{more}\n[[target]]\nname = "a"\nengine = "torchserve"\nurl = "http://{host}:80"'
    )


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("172.31.255.255", True),
        ("172.32.0.1", False),
        ("192.168.1.1", True),
        ("169.254.1.1", True),
        ("8.8.8.8", False),
        (FAR, False),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("fd12::1", True),
        ("2001:db8::1", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:8.8.8.8", False),
    ],
)
def test_private_networks(address, near):
    assert guard.is_near(address) is near


def test_names_are_as_far_as_the_farthest_address_behind_them(monkeypatch):
    def answers(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("10.0.0.1", FAR)]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    assert guard.far("models.example.org:80") == FAR


def test_a_near_server_may_have_what_the_experiment_asks_for():
    assert most_rate(experiment("ladder.rates.rest = [5000.0]", "127.0.0.1")) == 0
    assert most_rate(experiment("generator.most_rate = 30.0", "127.0.0.1")) == 30


def test_a_far_one_gets_a_hundred_requests_a_second_at_most():
    assert most_rate(experiment()) == guard.MOST_RATE == 100
    assert most_rate(experiment("generator.most_rate = 30.0")) == 30


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("ladder.rates.rest = [50.0, 150.0]", "ladder.rates.rest asks for 150"),
        ("ladder.rate = 200.0", "ladder.rate asks for 200"),
        ("ladder.rates.rest = [50.0]\nladder.overload_rates.rest = 120.0", "ladder.overload_rates.rest asks for 120"),
        (
            'arrivals.spike_factor = 3.0\nladder.arrival = "spike"\nladder.rates.rest = [9.0]\n'
            "ladder.overload_rates.rest = 50.0",
            "ladder.overload_rates.rest asks for 150",
        ),
        ('scenarios = ["spike"]\nspike.rates.rest = [60.0]', "spike.rates.rest asks for 180"),
        ('scenarios = ["soak"]\nsoak.rates.rest = [101.0]', "soak.rates.rest asks for 101"),
        ("generator.most_rate = 500.0", "generator.most_rate asks for 500"),
    ],
)
def test_a_plan_that_asks_for_more_of_a_far_server_is_refused_before_anything_is_sent(more, key, tmp_path, monkeypatch):
    path = tmp_path / "e.toml"
    path.write_text(
        f'protocols = ["rest"]\n{more}\n[[target]]\nname = "a"\nengine = "torchserve"\nurl = "http://{FAR}:80"'
    )
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("something was sent"))
    with pytest.raises(Problem, match=rf"target.a: http://{FAR}:80 .* {key} requests/s: .*--i-may-load-this"):
        load_running.load_running(
            "default", {}, targets_file=path, bundle_folder=None, artifacts=tmp_path, results=tmp_path / "results"
        )
    assert not (tmp_path / "results").exists()


def test_what_a_probe_decides_stays_within_the_limit():
    found = experiment(
        'scenarios = ["ladder", "capacity", "server", "spike", "offline"]\ngenerator.most_rate = 100.0\n'
        "ladder.overload = 1.2\nladder.fractions = [0.5, 1.5]"
    )
    resolved = plan.resolve(found, {"a": {"rest": 100.0}})
    assert resolved.ladder.rates == {"rest": (50.0, 100.0)}
    assert resolved.ladder.overload_rates == {}
    assert resolved.capacity.rates == {"rest": (100.0,)}
    assert resolved.spike.rates["rest"][0] * resolved.spike.factor <= 100
    for trial in [one for start in plan.block(resolved, 1, plan.questions(resolved)) for one in start.trials]:
        phase = phase_plan.trial(resolved, trial, Path(), Path(), "")
        if isinstance(phase, SearchPhase | ClosedLoopPhase):
            assert phase.most_rate == 100
        else:
            assert isinstance(phase, OpenLoopPhase)
            assert phase.rate * resolved.peak(trial.scenario) <= 100
    assert phase_plan.warm_up(resolved, Path("x"), "rest").most_rate == 100


def test_a_search_for_the_capacity_under_spikes_keeps_the_spikes_within_the_limit():
    found = experiment(
        'scenarios = ["capacity"]\ncapacity.arrival = "spike"\narrivals.spike_factor = 4.0\ngenerator.most_rate = 100.0'
    )
    resolved = plan.resolve(found, {"a": {"rest": 100.0}})
    (start,) = plan.block(resolved, 1, plan.questions(resolved))
    (trial,) = start.trials
    phase = phase_plan.trial(resolved, trial, Path(), Path(), "")
    assert isinstance(phase, SearchPhase)
    assert phase.most_rate == 25


def test_servers_that_a_targets_json_names_are_guarded_too():
    near = Target("a", "torchserve", "0.12.0", "process", "m", 1, (1, 1, 1), 2, "127.0.0.1:1", "127.0.0.1:2")
    asked = experiments.parse('protocols = ["rest"]\nladder.rates.rest = [150.0]')
    assert guard.most_rate(asked, [near]) == 0
    with pytest.raises(Problem, match=rf"target.a: http://{FAR}:2 .* ladder.rates.rest asks for 150"):
        guard.most_rate(asked, [near, replace(near, rest=f"{FAR}:2")])


@pytest.mark.alone
def test_a_closed_loop_sends_no_more_than_its_rate_however_fast_the_answers_come():
    loop = ClosedLoop([b"x"], 8, most_rate=200.0)
    started = time.monotonic()

    def send(request: int, payload: bytes, keep: bool) -> None:
        loop.finish(request, None, time.monotonic(), None)

    client = SimpleNamespace(send=send, abandon=lambda _: None)
    loop.run(client, 10.0, 0.5, lambda now: False)
    took = time.monotonic() - started
    assert 0.7 * 200 * took <= loop.recording.offered <= 1 + 200 * took


def piece(good: int, bad: int, said: str = "") -> Slice:
    times, kinds = np.zeros, {"http_503": bad} if bad else {}
    return Slice(good + bad, good + bad, 0, times(good), times(bad), kinds, times(0), 0, said)


def test_too_many_failures_are_a_share_of_the_latest_requests():
    watch = Failures(0.5)
    assert not watch.too_many(piece(0, 19), 1.0)  # too few to say
    assert watch.too_many(piece(0, 1), 1.1)
    assert (watch.failed, watch.ended, watch.kinds) == (20, 20, {"http_503": 20})
    watch = Failures(0.5)
    assert not watch.too_many(piece(30, 30), 1.0)
    assert watch.too_many(piece(0, 1), 2.0)
    watch = Failures(0.5)
    assert not watch.too_many(piece(1000, 0), 1.0)
    assert watch.too_many(piece(0, 100), 6.5)  # the good ones are no more among the latest
    assert not Failures(1.0).too_many(piece(0, 1000), 1.0)


def test_what_the_first_error_said_is_kept_however_long_ago_it_was():
    watch = Failures(0.5)
    assert not watch.too_many(piece(99, 1, "slow down"), 1.0)
    assert watch.too_many(piece(0, 60, "slow down"), 60.0)
    assert watch.said == "slow down"


def test_a_name_that_only_a_proxy_knows_is_far():
    asked = experiment("[ladder]\nrates = { rest = [500.0] }\nfractions = [0.5]\n", host="nobody.invalid")
    assert most_rate(asked) == 0.0  # whoever connects says that the name is nobody's
    (target,) = endpoint.named(asked)
    with pytest.raises(Problem, match=r"\(a name that is not known here\) is neither this machine nor in a private"):
        guard.most_rate(asked, [replace(target, proxy=Proxy("http://proxy:3128"))])
