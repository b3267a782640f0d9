"""Endpoints in an experiment's file: what is understood, what comes back when it is saved, and what is refused how."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.experiment import file as experiments
from loadtest.experiment import proxies, target_specs
from loadtest.experiment.endpoint_specs import EndpointSpec
from loadtest.experiment.records import ProxyNotUsed, ProxyUsed
from loadtest.experiment.target_specs import TargetSpec
from models.problem import Problem
from serving.engines import registry
from serving.target import Caveat, Proxy, SecretHeader, Target, Tls

FULL = """
protocols = ["grpc", "rest"]

[[target]]
name = "mine"
engine = "tensorflow-serving"
url = "https://models.example.org/serving/"
grpc = "grpcs://models.example.org:9443"
metrics = "https://metrics.example.org/monitoring/prometheus/metrics"
model = "resnet"
version = 3
tls = { ca = "ca.pem", certificate = "me.pem", key = "me.key", server_name = "inner.example.org" }
headers = { X-Team = "vision" }
http2 = true
token = { env = "MODELS_TOKEN" }
secret_headers = { X-Key = { file = "/run/secrets/key" } }
proxy = "http://proxy.example.org:3128/"
proxy_login = { env = "PROXY_LOGIN" }
input_shape = [224, 224, 3]
input_shapes = { ids = [128], "input:0" = [] }
output = "scores"
"""


def parse(text: str) -> experiments.Experiment:
    return experiments.parse(text, "endpoints.toml")


def target(experiment: experiments.Experiment) -> Target:
    spec = experiment.targets[0]
    assert spec.endpoint
    return spec.endpoint.target(spec.name, registry.engine(spec.engine), experiment.model)


def here(name: str) -> str:
    return str(Path(name).absolute())  # the generator runs in another folder


def test_everything_that_a_target_says_reaches_its_clients():
    found = target(parse(FULL))
    assert (found.rest, found.base_path, found.grpc) == (
        "models.example.org:443",
        "/serving",
        "models.example.org:9443",
    )
    assert found.rest_tls == found.grpc_tls == Tls(here("ca.pem"), here("me.pem"), here("me.key"), "inner.example.org")
    assert (found.model, found.pinned_version, found.version) == ("resnet", "3", 3)
    assert found.metrics == "https://metrics.example.org:443/monitoring/prometheus/metrics"
    assert found.headers == (("X-Team", "vision"),)
    assert found.secret_headers == (
        SecretHeader("Authorization", env="MODELS_TOKEN", prefix="Bearer "),
        SecretHeader("X-Key", file="/run/secrets/key"),
    )
    assert (found.input_shape, found.runtime, found.is_endpoint) == ((224, 224, 3), "remote", True)
    assert found.http2
    assert found.metrics_tls == found.rest_tls
    assert found.proxy == Proxy("http://proxy.example.org:3128", SecretHeader("Proxy-Authorization", env="PROXY_LOGIN"))
    assert found.caveats == (Caveat.KEPT_UP, Caveat.PROXY)
    assert (found.input_shapes, found.output) == ({"ids": (128,), "input:0": ()}, "scores")
    assert Target.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_the_saved_experiment_is_the_same_experiment_and_says_where_secrets_are():
    experiment = parse(FULL)
    saved = experiment.to_toml()
    assert parse(saved) == experiment
    assert "MODELS_TOKEN" in saved
    assert "PROXY_LOGIN" in saved


@pytest.mark.parametrize(
    ("address", "rest", "encrypted"),
    [
        ("http://localhost:8501", "localhost:8501", False),
        ("http://models", "models:80", False),
        ("https://10.0.0.7", "10.0.0.7:443", True),
        ("http://[::1]:8080/base/", "[::1]:8080", False),
    ],
)
def test_addresses(address, rest, encrypted):
    text = f'protocols = ["rest"]\n[[target]]\nname = "a"\nengine = "torchserve"\nurl = "{address}"'
    found = target(parse(text))
    assert (found.rest, found.rest_tls == Tls()) == (rest, encrypted)


REFUSED = [
    ('url = "localhost:8501"', "a.url = 'localhost:8501': use http:// or https://HOST:PORT"),
    ('url = "ftp://h:1"', "a.url = 'ftp://h:1': use http:// or https://HOST:PORT"),
    ('url = "http://h:99999"', "a.url = 'http://h:99999': use a port from 1 to 65535"),
    ('url = "http://h:1/?x=1"', "a.url = 'http://h:1/?x=1': give the address alone"),
    ('url = "http://ho st:1"', "a.url = 'http://ho st:1': use http:// or https://HOST:PORT"),
    ('grpc = "localhost"', "a.grpc = 'localhost': name its port, too"),
    ('url = "http://h:1"\nmetrics = "h:8082"', "a.metrics = 'h:8082': use http:// or https://HOST:PORT"),
    (
        'url = "http://h:1"\nmetrics = "http://h:8082/m?x=1"',
        "a.metrics = 'http://h:8082/m?x=1': give the address alone",
    ),
    ('url = "http://h:1"\nurll = "x"', "a.urll: unknown key; did you mean url?"),
    ('url = "http://h:1"\ntoken = "abc"', "a.token: a secret does not stand in this file"),
    (
        'url = "http://h:1"\nsecret_headers = { X-Key = "abc" }',
        "a.secret_headers: a secret does not stand in this file",
    ),
    ('url = "http://h:1"\ntoken = { env = "A", file = "b" }', "a.token: use either"),
    ('url = "http://h:1"\ntoken = { environment = "A" }', "a.token.environment: unknown key"),
    ('url = "http://h:1"\nheaders = { Authorization = "Bearer x" }', "a.headers.Authorization: use token or secret_h"),
    ('url = "http://h:1"\nheaders = { Content-Length = "3" }', "a.headers.Content-Length: Tandem sets it itself"),
    ('url = "http://h:1"\nheaders = { "X Y" = "3" }', "a.headers.X Y: not a header's name"),
    ('url = "http://h:1"\nheaders = { X = "a\\r\\nEvil: 1" }', "a.headers.X: use ASCII on one line"),
    (
        'url = "http://h:1"\ntls = { ca = "x" }',
        "a.tls: neither its url (https://…) nor its grpc",
    ),
    ('url = "https://h:1"\ntls = { key = "x" }', "a.tls.key: name the certificate"),
    ('url = "https://h:1"\ntls = { cacert = "x" }', "a.tls.cacert: unknown key"),
    ('url = "http://h:1"\ninput_shape = [0]', "a.input_shape = [0]: use sizes of one sample"),
    ('url = "http://h:1"\ninput_shapes = { x = [0] }', "a.input_shapes.x = [0]: use sizes of one sample"),
    ('url = "http://h:1"\ninput_shapes = { x = 3 }', "a.input_shapes.x = 3: use a list"),
    ('url = "http://h:1"\nproxy = "proxy:3128"', "a.proxy = 'proxy:3128': use http://HOST:PORT"),
    ('url = "http://h:1"\nproxy = "socks5://proxy:1080"', "a.proxy = 'socks5://proxy:1080': use http://HOST:PORT"),
    ('url = "http://h:1"\nproxy = "http://proxy"', "a.proxy = 'http://proxy': use http://HOST:PORT"),
    ('url = "http://h:1"\nproxy_login = { env = "A" }', "a.proxy_login: for a proxy that is named here"),
    (
        'url = "http://h:1"\nproxy = "environment"\nproxy_login = { env = "A" }',
        "a.proxy_login: for a proxy that is named here",
    ),
    (
        'url = "http://h:1"\nproxy = "http://p:1"\nproxy_login = "me:s3cret"',
        "a.proxy_login: a secret does not stand in this file",
    ),
    (
        'url = "http://h:1"\nproxy = "http://p:1"\nproxy_login = { env = "A", file = "b" }',
        "a.proxy_login: use either",
    ),
    ('url = "http://h:1"\nprofile = { threads = 2 }', "a.profile: whoever keeps the server up tunes it"),
    ('model = "x"', "a: give it a url, a grpc address, or both"),
    ('grpc = "h:1"', "a: protocols has rest: give its url, or leave rest out of protocols"),
]


@pytest.mark.parametrize(("lines", "says"), REFUSED, ids=[lines for lines, _ in REFUSED])
def test_what_cannot_be_is_refused_in_one_line_that_names_the_key(lines, says):
    text = f'protocols = ["rest"]\n\n[[target]]\nname = "a"\nengine = "torchserve"\n{lines}\n'
    with pytest.raises(Problem) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("endpoints.toml:")
    assert f"target.{says}" in str(caught.value)


def test_metrics_of_an_engine_that_is_not_known_are_refused():
    text = 'protocols = ["rest"]\n[[target]]\nname = "a"\nengine = "open-inference"\nurl = "http://h:1"\nmetrics = "http://h:2/m"'
    with pytest.raises(
        Problem, match=r"target\.a\.metrics: what a server of engine open-inference .* torchserve, .*triton"
    ):
        parse(text)
    assert target(parse(text.replace("open-inference", "triton"))).metrics == "http://h:2/m"


@pytest.mark.parametrize(
    ("lines", "instead"),
    [
        ('url = "https://me:s3cret@h:1"', "token or secret_headers"),
        ('url = "https://h:1"\nproxy = "http://me:s3cret@proxy:3128"', "use proxy_login"),
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(lines, instead):
    with pytest.raises(Problem) as caught:
        parse(f'[[target]]\nname = "a"\nengine = "torchserve"\n{lines}')
    assert instead in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("runtime", ["container", "kubernetes"])
def test_only_runs_on_this_machine_mix_in_endpoints(runtime):
    text = f'runtime = "{runtime}"\nprotocols = ["rest"]\n[[target]]\nname = "a"\nengine = "torchserve"\nurl = "http://h:1"'
    with pytest.raises(Problem, match=f"target.a: an endpoint, which runtime = '{runtime}' has none of"):
        parse(text)


DOCS = Path(__file__).parents[3] / "docs"
DOCUMENTED = [
    text
    for page in ("endpoints.md", "open-inference.md")
    for text in re.findall(r"^```toml\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize("text", DOCUMENTED)
def test_what_the_documentation_shows_is_understood(text):
    found = experiments.parse('protocols = ["grpc", "rest"]', "base.toml", {}, ("endpoints.toml", text))
    assert found.endpoints
    assert len(DOCUMENTED) == 7


BASE = 'protocols = ["grpc", "rest"]\nseed = 7\n[ladder]\nduration_s = 3.0\nfractions = [0.5]\n'
ONE = '[[target]]\nname = "a"\nengine = "torchserve"\nurl = "http://h:1"\n'


def test_a_file_of_targets_wins_over_the_experiment_and_brings_the_protocols_that_it_has():
    found = experiments.parse(BASE, "base.toml", {"seed": 9}, ("e.toml", f"{ONE}[ladder]\nduration_s = 5.0\n"))
    assert [one.name for one in found.targets] == ["a"]
    assert (found.protocols, found.seed, found.ladder.duration_s, found.ladder.fractions) == (("rest",), 9, 5.0, (0.5,))


def test_protocols_that_are_asked_for_are_not_left_out_in_silence():
    with pytest.raises(Problem, match=r"^command line: target.a: protocols has grpc|target.a: protocols has grpc"):
        experiments.parse(BASE, "base.toml", {"protocols": ["grpc"]}, ("e.toml", ONE))


def test_an_error_names_the_file_that_it_is_in():
    with pytest.raises(Problem, match=r"^e.toml:4: target.a.url"):
        experiments.parse(BASE, "base.toml", {}, ("e.toml", ONE.replace("http:", "ftp:")))
    with pytest.raises(Problem, match=r"^base.toml:5: ladder.fractions"):
        experiments.parse(BASE.replace("[0.5]", "[5.0]"), "base.toml", {}, ("e.toml", ONE))


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,10}", fullmatch=True)
WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


@given(
    host=st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9](\.[a-z]{2,5})?", fullmatch=True),
    port=st.integers(1, 65535),
    encrypted=st.booleans(),
    headers=st.dictionaries(NAMES.map(lambda name: f"X-{name}"), WORDS, max_size=3),
    shape=st.lists(st.integers(1, 512), max_size=4),
    token=st.sampled_from([{}, {"env": "A"}, {"file": "/x"}]),
    version=st.sampled_from(["", "3", "stable"]),
)
def test_whatever_is_accepted_survives_being_saved(host, port, encrypted, headers, shape, token, version):
    table = {"url": f"http{'s' if encrypted else ''}://{host}:{port}", "headers": headers, "input_shape": shape}
    table |= {"version": version, **({"token": token} if token else {})}
    table = {"name": "a", "engine": "torchserve", **{key: value for key, value in table.items() if value}}
    found = target_specs.parse(None, [table])
    again = target_specs.values(found)["target"]
    assert target_specs.parse(None, again) == found
    endpoint = found[0].endpoint
    assert isinstance(endpoint, EndpointSpec)
    assert endpoint.target("a", registry.engine("torchserve"), "m").rest == f"{host}:{port}"


def test_proxies_that_the_load_goes_past_are_listed_by_variable(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    ours = TargetSpec("ours", "torchserve")
    blue, green = (
        TargetSpec(
            name, "open-inference", endpoint=EndpointSpec(url=f"https://{name}.example.com", grpc="10.0.0.7:8001")
        )
        for name in ("blue", "green")
    )
    assert proxies.notes([ours, blue, green]) == []
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "green.example.com")
    assert proxies.notes([ours, blue, green]) == [
        ProxyNotUsed(variable="HTTPS_PROXY", targets=["blue"]),
        ProxyNotUsed(variable="HTTP_PROXY", targets=["blue", "green"]),
    ]
    assert blue.endpoint
    assert green.endpoint
    blue = replace(blue, endpoint=replace(blue.endpoint, proxy="environment"))
    green = replace(green, endpoint=replace(green.endpoint, proxy="http://other:3128"))
    assert proxies.notes([ours, blue, green]) == [
        ProxyUsed(proxy="HTTPS_PROXY", targets=["blue"]),
        ProxyUsed(proxy="HTTP_PROXY", targets=["blue"]),
        ProxyUsed(proxy="http://other:3128", targets=["green"]),
    ]
