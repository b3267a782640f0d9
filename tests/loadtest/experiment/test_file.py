import re
import tomllib
from dataclasses import fields, replace
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from loadtest.experiment import file as experiment
from loadtest.experiment.file import Experiment
from loadtest.experiment.scenarios import Capacity, Ladder
from loadtest.experiment.settings import Decision, Generator, Slo, WarmUp
from loadtest.experiment.target_specs import TargetSpec, by_default
from models.precision import Precision
from models.problem import Problem
from serving.engines import registry
from serving.profile import ServingProfile
from serving.target import PROTOCOLS


def refused(text: str) -> str:
    with pytest.raises(Problem) as caught:
        experiment.parse(text, "mine.toml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_built_in_default_asks_for_capacities_first_and_then_for_latencies_until_it_is_decided():
    default = experiment.load("default")
    assert default.targets == (TargetSpec("pytorch", "torchserve"), TargetSpec("tensorflow", "tensorflow-serving"))
    assert default.protocols == ("grpc", "rest")
    assert default.scenarios == ("capacity", "ladder")
    assert (default.capacity.repetitions, default.ladder.repetitions) == (0, 0)
    assert (default.decision.budget_s, default.ladder.fractions) == (300.0, (0.3, 0.6, 0.85))
    assert set(default.unrated) == {"capacity", "ladder"}


def stated(values: dict[str, Any], place: str = "") -> set[str]:
    """The dotted keys of an experiment's values."""
    keys: set[str] = set()
    for key, value in values.items():
        keys |= stated(value, f"{place}{key}.") if isinstance(value, dict) else {f"{place}{key}"}
    return keys


def test_default_file_states_exactly_the_defaults_and_all_of_them():
    assert experiment.load("default") == Experiment()
    text = (experiment.BUILT_IN / "default.toml").read_text()
    missing = stated(tomllib.loads(Experiment().to_toml())) - stated(tomllib.loads(text))
    assert missing == set()


def test_thorough_is_the_default_with_six_times_the_budget():
    default = Experiment()
    thorough = experiment.load("thorough")
    assert thorough == replace(default, name="thorough", decision=Decision(budget_s=1800.0))
    assert thorough.decision.budget_s == 6 * default.decision.budget_s


def test_smoke_is_the_small_one_of_a_fixed_design():
    smoke = experiment.load("smoke")
    assert smoke.dataset == "digits"
    assert smoke.ladder.repetitions == 2
    assert smoke.scenarios == ("ladder",)
    assert [len(rates) for rates in smoke.ladder.rates.values()] == [1, 1]
    assert not smoke.unrated


def test_batching_compares_four_targets_over_one_protocol():
    batching = experiment.load("batching")
    assert [batching.profile_of(name).max_batch_size for name in batching.target_names] == [32, 1, 32, 1]
    assert batching.protocols == ("grpc",)
    assert (batching.scenarios, batching.capacity, batching.ladder) == (("capacity", "ladder"), Capacity(), Ladder())


OWN = "model = 'nets.small:small'\ninput = '33x47x1'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sede = 3\n", "mine.toml:1: sede: unknown key; did you mean seed?"),
        ("\n\n[ladder]\nduration = 5\n", "mine.toml:4: ladder.duration: unknown key; did you mean duration_s?"),
        (
            '[ladder]\nbatch = 1\nduration_s = "6s"\n',
            "mine.toml:3: ladder.duration_s = '6s': use a number without a unit (the key's suffix names it)",
        ),
        ("[slo]\np99_ms = 0\n", "mine.toml:2: slo.p99_ms = 0.0: use milliseconds from 0.1 to 60000"),
        (
            "[ladder]\nbatch = 64\n",
            "mine.toml:2: ladder.batch = 64: pytorch takes at most 32 images in one request: use no more, or raise "
            "profile.max_batch_size",
        ),
        ("[profile]\nmax_batch_size = 0\n", "mine.toml:2: profile.max_batch_size = 0: use a whole number of 1 or more"),
        ("[profile]\nthreads = 2\ndevice = 'tpu'\n", "mine.toml:3: profile.device = 'tpu': use one of cpu, gpu"),
        ("[profile]\nonednn = 'on'\n", "mine.toml:2: profile.onednn = 'on': use true or false or 'default'"),
        ("[profile]\nonednn = 1\n", "mine.toml:2: profile.onednn = 1: use true or false or 'default'"),
        (
            "[profile]\nprecision = 'fp8'\n",
            "mine.toml:2: profile.precision = 'fp8': use 'fp32' or 'tf32' or 'bf16' or 'fp16'",
        ),
        (
            "[profile]\nthreads = 2\nprecision = 'tf32'\n",
            "mine.toml:3: profile.precision = 'tf32': a way in which GPUs multiply, and profile.device = 'cpu'",
        ),
        (
            "[[target]]\nname = 'a'\nengine = 'torchserve'\nprofile = {precision = 'bf16'}\n",
            "mine.toml:4: target.a.profile.precision = 'bf16': the graphs of a run compute in fp32; compare two runs",
        ),
        ("targets = ['pytorch', 'mxnet']\n", "mine.toml:1: targets = 'mxnet': use pytorch, tensorflow"),
        ("targets = ['pytorch', 'pytorch']\n", "mine.toml:1: targets = ['pytorch', 'pytorch']: name each once"),
        ("targets = []\n", "mine.toml:1: targets = []: name each once"),
        ("targets = ['pytorhc']\n", "mine.toml:1: targets = 'pytorhc': did you mean pytorch?"),
        ("protocols = ['grpc', 'grpc']\n", "mine.toml:1: protocols = ['grpc', 'grpc']: name each once, of "),
        ("seed = 1\nprofile = 3\n", "mine.toml:2: profile: use a table, [profile]"),
        ("name = '../x'\n", "mine.toml:1: name = '../x': use 1 to 64 letters"),
        (
            "[ladder]\nrates = {grpc = [100]}\n",
            "mine.toml:2: ladder.rates: give rates for exactly the protocols grpc, rest",
        ),
        ("[ladder.rates]\ngrpc = [-1]\nrest = [5]\n", "mine.toml:2: ladder.rates.grpc = [-1.0]: use requests/s"),
        ("[ladder]\narrival = 'bursty'\n", "mine.toml:2: ladder.arrival = 'bursty': use "),
        ("[warm_up]\nmin_s = 9\nmax_s = 3\n", "mine.toml:3: warm_up.max_s = 3.0: use at least warm_up.min_s (9.0)"),
        ("[cost]\nprice_per_hour = -1\n", "mine.toml:2: cost.price_per_hour = -1.0: use money for an hour"),
        ("[cost]\ncurrency = 'US $'\n", "mine.toml:2: cost.currency = 'US $': use a short word, such as USD"),
        ("scenarios = ['stress']\n", "mine.toml:1: scenarios = 'stress': use ladder, capacity, single-stream, server"),
        (
            "[capacity]\nrates = {grpc = [1, 2, 3], rest = [1]}\n",
            "mine.toml:2: capacity.rates.grpc = [1.0, 2.0, 3.0]: use one rate",
        ),
        ("[capacity]\ngrowth = 1.4\n", "mine.toml:2: capacity.growth: unknown key"),
        ("[capacity]\nbudget_s = 26\n", "mine.toml:2: capacity.budget_s: unknown key"),
        ("[capacity]\ntrials = 0\n", "mine.toml:2: capacity.trials = 0: use trials from 1 to 100"),
        (
            "[capacity]\ntrials = 4\nprecision = 0\n",
            "mine.toml:3: capacity.precision = 0.0: use a standard deviation on a log scale from 0.001 to 1",
        ),
        ("[capacity]\nrepetitions = -1\n", "mine.toml:2: capacity.repetitions = -1: use repetitions from 0 to 1000"),
        ("[ladder]\nrepetitions = -1\n", "mine.toml:2: ladder.repetitions = -1: use repetitions from 0 to 1000"),
        ("[soak]\nrepetitions = 0\n", "mine.toml:2: soak.repetitions = 0: use repetitions from 1 to 1000"),
        ("[ladder]\nrate = -5\n", "mine.toml:2: ladder.rate = -5.0: use requests/s from 0 to 1e+06"),
        (
            "[ladder]\nrate = 300\nrates = {grpc = [300], rest = [80]}\n",
            "mine.toml:2: ladder.rate = 300: it is none of ladder.rates.rest; name it there, too",
        ),
        (
            "[ladder]\noverload = 11\n",
            "mine.toml:2: ladder.overload = 11.0: use a share of what a target can do from 0",
        ),
        (
            "[ladder]\noverload_rates = {soap = 5.0}\n",
            "mine.toml:2: ladder.overload_rates = 'soap': use grpc, rest, rest-binary",
        ),
        (
            "[ladder.overload_rates]\ngrpc = 0.0\n",
            "mine.toml:2: ladder.overload_rates.grpc = 0: use requests/s from 0.1 to 1000000",
        ),
        ("[ladder]\nfractions = [0.5, 3]\n", "mine.toml:2: ladder.fractions = [0.5, 3.0]: use shares of "),
        ("[decision]\nbudget_s = 0\n", "mine.toml:2: decision.budget_s = 0.0: use seconds from 1 to 1e+06"),
        ("[decision]\nbudget = 60\n", "mine.toml:2: decision.budget: unknown key; did you mean budget_s?"),
        ("[spike]\nfactor = 0.5\n", "mine.toml:2: spike.factor = 0.5: use a multiple of the rate from 1 to 100"),
        ("[soak]\nfractions = [0.1, 0.2]\n", "mine.toml:2: soak.fractions = [0.1, 0.2]: use one"),
        ("[single_stream]\nrate = 3\n", "mine.toml:2: single_stream.rate: unknown key"),
        ("[arrivals]\nburstiness = 0\n", "mine.toml:2: arrivals.burstiness = 0.0: use a gamma shape from 0.01 to 100"),
        ("[ladder]\narrival = 'trace'\n", "mine.toml:2: ladder.arrival = 'trace': name the file of timestamps as"),
        ("[generator]\nprocesses = 2\nremote_workers = 3\n", "mine.toml:3: generator.remote_workers = 3: workers are"),
        (
            "seed = 1\nmodel = 'lenet'\nmodels = {lenet = 0.5, convnet = 0.5}\n",
            "mine.toml:3: models: give either model or",
        ),
        (
            "models = {lenet = 1.0}\n",
            "mine.toml:1: models = {'lenet': 1.0}: use a table of two or more, such as {convnet",
        ),
        ("models = ['lenet', 'convnet']\n", "mine.toml:1: models = ['lenet', 'convnet']: use a table of two or more"),
        (
            "checkpoint = 'a.pth'\n[models]\nlenet = 0.5\nconvnet = 0.5\n",
            "mine.toml:1: checkpoint = 'a.pth': the weights of one model; use model, not models",
        ),
        (
            "model = 'nets:build'\n",
            "mine.toml:1: model = 'nets:build': say the size of its images: input = '224x224x3' (INPUT=224x224x3)",
        ),
        (
            "torchscript = 'net.pt'\n",
            "mine.toml:1: torchscript = 'net.pt': say the size of its images: input = '224x224x3'",
        ),
        (
            "savedmodel = 'port'\n[models]\nlenet = 0.5\nconvnet = 0.5\n",
            "mine.toml:1: savedmodel = 'port': one model; use model, not models",
        ),
        ("encoding = 'gif'\n", "mine.toml:1: encoding = 'gif': use 'none' or 'jpeg' or 'png'"),
        (
            "encoding = 'jpeg'\nruntime = 'container'\n",
            "mine.toml:1: encoding = 'jpeg': servers take files with runtime = 'process' only",
        ),
        (
            "encoding = 'png'\nsavedmodel = 'port'\n",
            "mine.toml:1: encoding = 'png': savedmodel is served as it comes, and takes no files",
        ),
        (
            "encoding = 'jpeg'\nprotocols = ['grpc', 'rest-binary']\n",
            "mine.toml:2: protocols has rest-binary, and encoding = 'jpeg': rest carries the files' own bytes",
        ),
        (
            "encoding = 'jpeg'\n[[target]]\nname = 'third'\nengine = 'triton'\n",
            "mine.toml:1: encoding = 'jpeg': target.third runs triton, which takes tensors alone; leave it out",
        ),
        (
            "encoding = 'jpeg'\n[ladder]\nbatch = 4\n",
            "mine.toml:3: ladder.batch = 4: with encoding = 'jpeg' a request carries one file; use batch = 1",
        ),
        ("model = 'nets:'\n", "mine.toml:1: model = 'nets:': use package.module:factory, such as nets.small:build"),
        ("model = 'n:f'\ninput = '0x3x3'\n", "mine.toml:2: input = '0x3x3': an image has a row and a column"),
        (
            "model = 'n:f'\ninput = '8x8x3'\noutput = 'scores'\n",
            "mine.toml:3: output = 'scores': use logits, probabilities",
        ),
        (
            "seed = 1\noutput = 'logits'\n",
            "mine.toml:2: output: for a model of your own (model = 'package.module:factory'), or torchscript; le",
        ),
        ("input = '8x8'\n", "mine.toml:1: input = '8x8': use HEIGHTxWIDTHxCHANNELS"),
        (
            "[preprocessing]\nmean = [1]\nstd = [1, 2]\n",
            "mine.toml:3: preprocessing.std = [1.0, 2.0]: use one number for each channel, or one for all",
        ),
        (
            "models = {convnet = 0.5, lenet = 0.5}\n[preprocessing]\npreset = '0-1'\n",
            "mine.toml:2: preprocessing: of one model, or of your own among several: use model, not models, or lea",
        ),
        (
            f"{OWN}[preprocessing]\npreset = 'imagenett'\n",
            "mine.toml:4: preprocessing.preset = 'imagenett': use imagenet, 0-1, -1-1, none",
        ),
        (
            f"{OWN}[preprocessing]\nscale = 1\nstd = [1, 2, 3]\n",
            "mine.toml:5: preprocessing.std = [1.0, 2.0, 3.0]: is for 3 channels, and input has 1; give one for each",
        ),
        (
            f"{OWN}[preprocessing]\ncentre_crop = [64]\n",
            "mine.toml:4: preprocessing.centre_crop = [64]: images are 33x47",
        ),
        (f"{OWN}[preprocessing]\ncrop = 3\n", "mine.toml:4: preprocessing.crop: unknown key; known keys: preset, "),
        (f"{OWN}[preprocessing]\nmean = 3\n", "mine.toml:4: preprocessing.mean = 3: use a list"),
        (f"{OWN}[preprocessing]\nscale = 'x'\n", "mine.toml:4: preprocessing.scale = 'x': use a number without a unit"),
        ("models = {'n:f' = 0.5, lenet = 0.5}\n", "mine.toml:1: models: n:f: say the size of its images: input = '22"),
        (
            "models = {'n:f' = 0.5, 'm:f' = 0.5}\ninput = '8x8x3'\n",
            "mine.toml:1: models: n:f and m:f are both called f on the servers; rename one of the factories",
        ),
        (
            "models = {'n:f' = 0.5, 'n:g' = 0.5}\ncheckpoint = 'w.pt'\ninput = '8x8x3'\n",
            "mine.toml:2: checkpoint = 'w.pt': the weights of one model; use model, not models",
        ),
        (
            "models = {'n:f' = 0.5, lenet = 0.5}\nonnx = 'n.onnx'\ninput = '8x8x3'\n",
            "mine.toml:2: onnx = 'n.onnx': one model; use model, not models",
        ),
        ("[models]\nlenet = 0.5\nconvnet = 0.4\n", "mine.toml:1: models: the shares add up to 0.9, not to 1"),
        ("[models]\nlenet = 1\nconvnet = 0\n", "mine.toml:2: models.lenet = 1: use a share of the requests between 0"),
        ("[models]\nlenet = 0.5\nconvnet = nan\n", "mine.toml:3: models.convnet = nan: use a share of the requests"),
        ("[models]\nlenet = 'half'\nconvnet = 0.5\n", "mine.toml:2: models.lenet = 'half': use a number"),
        (
            "models = {lenet = 0.5, convnet = 0.5}\nruntime = 'container'\n",
            "mine.toml:1: models: runtime = 'container' serves one model, which its images hold: name it as model, "
            "or use runtime = 'process' or make loadtest",
        ),
        (
            "models = {lenet = 0.5, convnet = 0.5}\nruntime = 'kubernetes'\n",
            "mine.toml:1: models: runtime = 'kubernetes' serves one model",
        ),
        ("a = = 1\n", "mine.toml: not valid TOML"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_file_line_key_and_fix(text, message):
    assert refused(text).startswith(message)


def test_unknown_experiment_names_the_known_ones(tmp_path):
    known = "batching, default, smoke, thorough"
    with pytest.raises(Problem, match=rf"experiment 'nightly': .*use a TOML file's path or one of {known}"):
        experiment.load("nightly")
    with pytest.raises(Problem, match="No such file"):
        experiment.load(str(tmp_path / "none.toml"))


def test_command_line_wins_over_the_file_and_is_named_in_errors():
    text = "[ladder]\nduration_s = 6\n"
    assert experiment.parse(text, "f", {"ladder.duration_s": 9}).ladder.duration_s == 9
    with pytest.raises(Problem, match=r"^command line: ladder.duration_s = 0.0: use seconds"):
        experiment.parse(text, "f", {"ladder.duration_s": 0})


def test_an_own_rate_is_one_key_on_the_command_line():
    own = experiment.load("default", {"ladder.rate": 300})
    assert own.ladder.rate == 300.0
    assert experiment.parse(own.to_toml()) == own
    fixed = experiment.parse("[ladder]\nrates = {grpc = [100, 300], rest = [300]}\nrate = 300\n")
    assert fixed.ladder.main_rates == {"grpc": 300.0, "rest": 300.0}


def test_without_an_own_rate_the_middle_one_is_the_main_one():
    assert Ladder(rates={"grpc": (9.0, 3.0, 6.0), "rest": (4.0, 2.0)}).main_rates == {"grpc": 6.0, "rest": 4.0}
    assert Ladder().main_rates == {}


def test_the_models_and_their_shares_of_the_requests():
    assert Experiment(model="lenet").mix == {"lenet": 1.0}
    several = experiment.parse("models = {convnet = 0.7, lenet = 0.3}\n")
    assert several.mix == {"convnet": 0.7, "lenet": 0.3}
    assert experiment.parse("models = {a = 0.333, b = 0.333, c = 0.333}\n").mix["c"] == 0.333


def test_what_is_said_of_one_model_of_several_is_said_of_the_user_s_own():
    text = "models = {convnet = 0.7, 'nets.small:small' = 0.3}\ninput = '33x47x1'\ncheckpoint = 'w.pt'\n"
    several = experiment.parse(f"{text}[preprocessing]\npreset = 'none'\n")
    assert several.mix == {"convnet": 0.7, "small": 0.3}
    assert [several.is_told_of(model) for model in several.models] == [False, True]
    assert experiment.parse(several.to_toml()) == several
    house = experiment.parse("models = {convnet = 0.7, lenet = 0.3}\nclasses = 'labels.txt'\n")
    assert all(house.is_told_of(model) for model in house.models)
    one = experiment.parse("model = 'resnet18'\n[preprocessing]\npreset = 'imagenet'\n")
    assert (one.declared, one.is_told_of("resnet18")) == ({"preprocessing": {"preset": "imagenet"}}, True)


def test_a_model_of_the_user_s_own_is_served_under_its_factory_s_name():
    own = experiment.parse(f"{OWN}output = 'probabilities'\n[preprocessing]\nscale = 0.5\nresize = [40, 60]\n")
    assert (own.mix, own.input, own.output) == ({"small": 1.0}, "33x47x1", "probabilities")
    assert own.preprocessing.declared == {"scale": 0.5, "resize": [40, 60]}
    assert experiment.parse(own.to_toml()) == own
    other = experiment.parse(OWN, "f", {"preprocessing": {"preset": "none"}, "input": "8x8x1"})
    assert (other.preprocessing.preset, other.input) == ("none", "8x8x1")
    with pytest.raises(Problem, match=r"^command line: input = '8': use HEIGHTxWIDTHxCHANNELS"):
        experiment.parse(OWN, "f", {"input": "8"})
    assert experiment.parse(f"{OWN}runtime = 'remote'\n").served == "nets.small:small"  # what the servers call it


def test_a_model_that_comes_as_a_file_is_called_after_it():
    one = experiment.parse("torchscript = 'nets/My net-2.pt'\ninput = '8x9x3'\nonnx = 'net.onnx'\n")
    assert (one.model, one.served, one.mix) == ("My_net_2", "My_net_2", {"My_net_2": 1.0})
    assert experiment.parse(one.to_toml()) == one


def test_a_model_of_the_command_line_takes_the_place_of_the_file_s():
    assert experiment.parse("models = {a = 0.7, b = 0.3}\n", "f", {"model": "lenet"}).mix == {"lenet": 1.0}
    assert experiment.parse("model = 'c'\n", "f", {"models": {"a": 0.7, "b": 0.3}}).mix == {"a": 0.7, "b": 0.3}
    assert experiment.parse("models = {a = 0.7, b = 0.3}\n", "f", {"models.a": 0.5, "models.b": 0.5}).mix["a"] == 0.5
    with pytest.raises(Problem, match="give either model or models"):
        experiment.parse("", "f", {"model": "c", "models": {"a": 0.7, "b": 0.3}})


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("ladder.duration_s=10", ("ladder.duration_s", 10)),
        ("dataset=digits", ("dataset", "digits")),
        ("protocols=['grpc']", ("protocols", ["grpc"])),
    ],
)
def test_set_takes_toml_values_or_plain_text(argument, expected):
    assert experiment.override(argument) == expected


@pytest.mark.parametrize("argument", ["ladder", "=3", "a b=1"])
def test_set_without_key_or_value_is_refused(argument):
    with pytest.raises(Problem, match="use KEY=VALUE"):
        experiment.override(argument)


THREE = """
targets = ["pytorch", "tensorflow", "unbatched"]

[profile]
threads = 2

[[target]]
name = "unbatched"
engine = "tensorflow-serving"
profile = { max_batch_size = 1 }
"""


def test_a_target_has_a_name_an_engine_and_a_tuning_of_its_own():
    three = experiment.parse(THREE)
    assert three.target_names == ("pytorch", "tensorflow", "unbatched")
    assert [one.engine for one in three.targets] == ["torchserve", "tensorflow-serving", "tensorflow-serving"]
    assert three.profile_of("tensorflow") == three.profile == ServingProfile(threads=2)
    assert three.profile_of("unbatched") == ServingProfile(threads=2, max_batch_size=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ('engine = "tensorflow-serving"', 'engine = "tensorflow-servin"'),
            "mine.toml:9: target.unbatched.engine = 'tensorflow-servin': did you mean tensorflow-serving?",
        ),
        (('engine = "tensorflow-serving"', ""), "mine.toml:7: target.unbatched: name its engine, one of "),
        (
            ("max_batch_size = 1", "max_batchsize = 1"),
            "mine.toml:10: target.unbatched.profile.max_batchsize: unknown key; did you mean max_batch_size?",
        ),
        (
            ("max_batch_size = 1", "max_batch_size = 0"),
            "mine.toml:10: target.unbatched.profile.max_batch_size = 0: use a whole ",
        ),
        (
            ("max_batch_size = 1", "max_batch_size = 'a'"),
            "mine.toml:10: target.unbatched.profile.max_batch_size = 'a': use a whole ",
        ),
        (
            ("profile = { max_batch_size = 1 }", "profile = 1"),
            "mine.toml:10: target.unbatched.profile = 1: use a table",
        ),
        (
            ("max_batch_size = 1 }", "max_batch_size = 1 }\ntune = 3"),
            "mine.toml:11: target.unbatched.tune: unknown key;",
        ),
        ((', "unbatched"', ""), "mine.toml:7: target.unbatched: a table, but targets does not name it"),
        ((', "unbatched"', ', "unbatchd"'), "mine.toml:7: target.unbatched: a table, but targets does not name it"),
        (('name = "unbatched"', "name = 3"), "mine.toml:8: target.1.name = 3: use 1 to 40 letters and digits"),
        (('name = "unbatched"', "name = 'un batched'"), "mine.toml:8: target.1.name = 'un batched': use 1 to 40 "),
        (("[[target]]", "[target]"), "mine.toml:7: target: use tables, [[target]]"),
        (
            ("[profile]", "[[target]]\nname = 'unbatched'\nengine = 'torchserve'\n[profile]"),
            "mine.toml:4: target.unbatched: two tables",
        ),
        (
            ("[profile]", "runtime = 'kubernetes'\n[profile]"),
            "mine.toml:11: target.unbatched.profile: a cluster's servers share one: use [profile] alone",
        ),
    ],
)
def test_a_target_that_cannot_be_is_refused_with_its_line(change, message):
    assert change[0] in THREE
    assert refused(THREE.replace(*change)).startswith(message)


def test_a_cluster_has_one_server_of_each_engine():
    twice = "runtime = 'kubernetes'\ntargets = ['tensorflow', 'again']\n[[target]]\nname = 'again'\n"
    message = "mine.toml:3: target.again: a cluster has one server of tensorflow-serving: leave one target out"
    assert refused(f"{twice}engine = 'tensorflow-serving'\n") == message
    assert experiment.parse(f"{twice}engine = 'torchserve'\n").target_names == ("tensorflow", "again")


def test_the_tables_alone_are_the_targets_in_their_order():
    alone = experiment.parse(THREE.replace('targets = ["pytorch", "tensorflow", "unbatched"]', ""))
    assert alone.target_names == ("unbatched",)
    assert experiment.parse("").target_names == ("pytorch", "tensorflow")


def test_the_command_line_chooses_among_the_targets_that_are_defined():
    assert experiment.parse(THREE, "f", {"targets": ["unbatched"]}).targets == experiment.parse(THREE).targets[2:]


def test_shorthand_stays_shorthand_in_what_is_saved():
    saved = tomllib.loads(experiment.parse("").to_toml())
    assert saved["targets"] == ["pytorch", "tensorflow"]
    assert "target" not in saved
    saved = tomllib.loads(experiment.parse(THREE).to_toml())
    assert saved["targets"] == ["pytorch", "tensorflow", "unbatched"]
    assert saved["target"] == [
        {"name": "unbatched", "engine": "tensorflow-serving", "profile": {"max_batch_size": 1}},
    ]


rates = st.lists(st.floats(0.5, 9000), min_size=1, max_size=5).map(tuple)
one_rate = st.floats(0.5, 9000).map(lambda rate: (rate,))
specs = st.builds(
    TargetSpec,
    name=st.from_regex(r"[A-Za-z0-9]{1,10}(-[a-z0-9]{1,10})?", fullmatch=True),
    engine=st.sampled_from([one.id for one in registry.all() if not one.endpoint_only]),
    profile=st.fixed_dictionaries(
        {},
        optional={
            "max_batch_size": st.integers(1, 64),
            "batch_timeout_ms": st.floats(0, 100),
            "device": st.sampled_from(["cpu", "gpu"]),
            "onednn": st.sampled_from(["default", True, False]),
        },
    ),
)
experiments = st.builds(
    Experiment,
    name=st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
    models=st.one_of(st.just({}), st.floats(0.01, 0.99).map(lambda share: {"convnet": share, "lenet": 1 - share})),
    dataset=st.text(min_size=1, max_size=20),
    targets=st.one_of(
        st.sampled_from([by_default(), by_default()[:1], by_default()[::-1]]),
        st.lists(
            st.one_of(specs, st.sampled_from(by_default())), min_size=1, max_size=4, unique_by=lambda one: one.name
        ).map(tuple),
    ),
    protocols=st.just(PROTOCOLS[:2]),
    seed=st.integers(0, 2**40),
    profile=st.builds(
        ServingProfile,
        max_batch_size=st.integers(1, 64),
        batch_timeout_ms=st.floats(0, 100),
        onednn=st.sampled_from(["default", True, False]),
        precision=st.sampled_from([Precision.FP32, Precision.BF16, Precision.FP16]),
    ),
    slo=st.builds(Slo, p99_ms=st.floats(0.1, 1000)),
    ladder=st.builds(
        Ladder,
        rates=st.one_of(st.just({}), st.fixed_dictionaries({"grpc": rates, "rest": rates})),
        fractions=st.just((0.5, 1.0)),
        overload_rates=st.one_of(st.just({}), st.fixed_dictionaries({"grpc": st.floats(0.5, 9000)})),
        repetitions=st.integers(0, 5),
    ),
    capacity=st.builds(
        Capacity,
        rates=st.one_of(st.just({}), st.fixed_dictionaries({"grpc": one_rate, "rest": one_rate})),
        precision=st.floats(0.01, 0.5),
    ),
    decision=st.builds(Decision, budget_s=st.floats(1, 10_000)),
    warm_up=st.builds(WarmUp, concurrency=st.integers(1, 100)),
    generator=st.builds(Generator, check_share=st.floats(0, 1)),
)


@given(experiments)
def test_the_saved_experiment_repeats_the_experiment(one):
    assert experiment.parse(one.to_toml()) == one


plain = st.recursive(
    st.one_of(
        st.integers(-3, 70_000), st.floats(), st.booleans(), st.text(max_size=3), st.sampled_from(["grpc", "lenet"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)
KNOWN = [one.name for one in fields(Experiment)]
tables = st.sampled_from(
    [*(one.name for kind in (Ladder, ServingProfile, WarmUp) for one in fields(kind)), "name", "engine"]
)


@given(
    st.dictionaries(
        st.sampled_from([*KNOWN, "target"]),
        st.one_of(
            plain,
            st.dictionaries(tables, plain, max_size=3),
            st.lists(st.dictionaries(tables, plain, max_size=3), max_size=2),
        ),
        max_size=4,
    )
)
def test_whatever_the_values_are_the_experiment_is_one_that_can_be_saved_or_a_one_line_problem(values):
    text = tomlkit.dumps(values)
    try:
        one = experiment.parse(text, "f.toml")
    except Problem as problem:
        assert re.match(r"f.toml:\d+: ", str(problem))
        assert "\n" not in str(problem)
    else:
        assert experiment.parse(one.to_toml()) == one


@given(st.text())
def test_any_text_is_an_experiment_or_a_one_line_problem(text):
    try:
        experiment.parse(text, "f.toml")
    except Problem as problem:
        assert str(problem).startswith("f.toml")


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"profile.threads": 0}, "threads"),
        ({"targets": ["tensorflow", "nobody"]}, "targets"),
        ({"protocols": ["rest"], "ladder.rates": {"rest": [40.0], "grpc": [1.0]}}, "ladder.rates"),
        ({"protocols": ["rest"]}, "ladder.rates"),
        ({"generator.most_rate": 10.0}, "ladder.rates"),
    ],
)
def test_what_the_command_line_makes_wrong_is_blamed_on_it_whatever_key_shows_it(given, key):
    text = "[ladder]\nrates = {grpc = [100.0], rest = [100.0]}\n"
    with pytest.raises(Problem, match=rf"^command line: .*{key}"):
        experiment.parse(text, "mine.toml", given)
    with pytest.raises(Problem, match=r"^mine.toml:2: slo"):
        experiment.parse("[slo]\np99_ms = 0\n", "mine.toml", {"seed": 1})


def test_a_byte_order_mark_is_no_syntax_error(tmp_path):
    for name, text in (("mine.toml", "seed = 7\n"), ("targets.toml", "protocols = ['rest']\n")):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
    found = experiment.load(str(tmp_path / "mine.toml"), None, tmp_path / "targets.toml")
    assert (found.seed, found.protocols) == (7, ("rest",))
