"""What a report says of servers that were up before: what was compared, and what nobody here knows of them."""

from __future__ import annotations

import msgspec

from loadtest.analysis import validity
from loadtest.analysis.records import (
    AnswersUnchecked,
    EncodedImages,
    ExperimentInfo,
    FileSizes,
    LadderInfo,
    OwnFile,
    Parity,
    WireParity,
)
from loadtest.analysis.run_files import WireResult
from loadtest.experiment.records import Environment, ProxyNotUsed, ProxyUsed, RateLimited, RightAnswers
from loadtest.report import badges, conditions, first_screen, parity_words, warning_words
from models.bundle import Around, Kind, Weights
from models.declaration import Preprocessing
from models.encoding import Encoding
from serving.target import Caveat
from tests.loadtest.report.summaries import TF_SERVING, TORCHSERVE, latency, summary

NEEDED = [("a", "rest"), ("b", "rest")]
ALIKE = {name: {"rest": WireParity(max_abs_diff=1e-5, top1_agreement=1.0)} for name, _ in NEEDED}


def proof(right: RightAnswers, **values: object) -> Parity:
    return validity.parity(None, msgspec.convert({"right": right, "tolerance": 1e-3, **values}, WireResult), NEEDED)


def test_answers_of_the_first_target_or_recorded_ones_prove_what_was_asked():
    for right, words in (
        (RightAnswers.FIRST, "as the first one does"),
        (RightAnswers.RECORDED, "the recorded answers"),
    ):
        found = proof(right, samples=64, targets=ALIKE)
        assert (found.proven, found.right, found.wire_samples, found.max_abs_diff) == (True, right, 64, 1e-5)
        assert words in parity_words.lead(found)
        assert "to 64 samples" in parity_words.line(found, 2)


def test_a_target_that_was_not_asked_or_answers_otherwise_is_a_doubt():
    missing = proof(RightAnswers.FIRST, samples=64, targets={"a": ALIKE["a"]})
    assert [type(one).__name__ for one in missing.why_not_proven] == ["NotCompared"]
    far = {**ALIKE, "b": {"rest": WireParity(max_abs_diff=0.5)}}
    other = proof(RightAnswers.FIRST, samples=64, targets=far)
    assert [type(one).__name__ for one in other.why_not_proven] == ["AnswersDiffer"]


def test_status_alone_proves_nothing_and_that_is_said_once():
    found = proof(RightAnswers.ANY, targets={"a": {}, "b": {}})
    assert (found.proven, found.why_not_proven) == (False, (AnswersUnchecked(),))
    assert warning_words.doubt(AnswersUnchecked()) == (
        "any answer that was no error counted as right, and none was compared with another"
    )
    assert badges._parity(found).label == "Model parity not proven"


def test_of_a_bundle_s_model_it_still_takes_the_exports():
    assert not proof(RightAnswers.REFERENCE, samples=64, targets=ALIKE).proven


KEPT_UP = [
    msgspec.structs.replace(one, caveats=(Caveat.KEPT_UP,), runtime="remote") for one in (TORCHSERVE, TF_SERVING)
]
ASKED = ExperimentInfo(
    targets=("pytorch", "tensorflow"),
    protocols=("rest",),
    model="resnet",
    dataset="",
    profile={"max_batch_size": 32, "device": "cpu"},
    ladder=LadderInfo(duration_s=2.0),
)


def test_what_tandem_does_not_know_of_a_server_is_not_said():
    theirs = summary(latency(5.0, 6.0), targets=KEPT_UP, experiment=ASKED, environment=Environment(cpu_model="EPYC"))
    told = dict(conditions.conditions(theirs))
    assert "Profile" not in told
    assert told["Model"] == "resnet"
    assert told["Starts"].startswith("none: the servers stayed up; ")
    assert "CPU" not in conditions.holds(theirs).replace("CPUs", "")
    assert "from EPYC" in conditions.holds(theirs)


def test_an_own_model_s_input_and_preprocessing_are_conditions():
    declared = Preprocessing("imagenet", std=(0.2, 0.3, 0.4), resize=(256,), centre_crop=(224,), channel_order="bgr")
    own = ExperimentInfo(model="nets:build", checkpoint="w.pt", input="300x400x3", preprocessing=declared)
    told = dict(conditions.conditions(summary(latency(5.0, 6.0), experiment=own)))
    assert told["Model"] == "nets:build with the weights of w.pt"
    assert told["Input"] == (
        "300×400×3 images, shorter side resized to 256, centre of 224 cropped, pixels 'imagenet', "
        "divided by 0.2 0.3 0.4, BGR; the model gives logits"
    )
    assert "Input" not in dict(conditions.conditions(summary(latency(5.0, 6.0), experiment=ASKED)))


def test_what_is_declared_of_a_network_of_the_house_is_a_condition():
    house = ExperimentInfo(model="resnet18", preprocessing=Preprocessing("-1-1"))
    assert dict(conditions.conditions(summary(latency(5.0, 6.0), experiment=house)))["Input"] == "pixels '-1-1'"
    steps = Preprocessing(resize=(256,), centre_crop=(224,))
    house = ExperimentInfo(model="resnet18", input="300x400x3", preprocessing=steps)
    told = dict(conditions.conditions(summary(latency(5.0, 6.0), experiment=house)))
    assert told["Input"] == "300×400×3 images, shorter side resized to 256, centre of 224 cropped"


def test_whose_weights_they_are_is_told_of_each_of_several_models():
    mixed = ExperimentInfo(models={"nets.small:small": 0.3, "convnet": 0.7}, checkpoint="w.pt", input="8x9x1")
    figures = summary(latency(5.0, 6.0), experiment=mixed)
    own = msgspec.structs.replace(figures, weights={"small": Weights.CHECKPOINT, "convnet": Weights.TRAINED})
    assert dict(conditions.conditions(own))["Models"] == (
        "nets.small:small with the weights of w.pt (30 % of the requests) and convnet (70 % of the requests)"
    )
    made = msgspec.structs.replace(figures, weights={"small": Weights.FACTORY, "resnet18": Weights.SEEDED})
    assert first_screen.untrained(made) == (
        "Weights of small as the model's factory made them, trained or not: speed and parity are real either way. "
        "Untrained weights of resnet18: speed and parity are real, accuracy is not."
    )


def test_files_that_clients_sent_are_a_condition_with_what_they_take_on_the_wire():
    sent = EncodedImages(
        format=Encoding.JPEG, bytes=FileSizes(mean=997, least=846, most=1155), quality=90, subsampling="4:2:0"
    )
    plain = summary(latency(5.0, 6.0))
    wire = {"pytorch": {"grpc": WireParity(bytes_an_image=1018.7), "rest": WireParity(bytes_an_image=1129.2)}}
    figures = msgspec.structs.replace(plain, encoded=sent, parity=msgspec.structs.replace(plain.parity, wire=wire))
    assert dict(conditions.conditions(figures))["Images"] == (
        "JPEG files of 997 bytes (846 to 1,155), written in quality 90 and 4:2:0, which each server decodes itself; a "
        "request takes 1,019 over gRPC to PyTorch and 1,129 over REST to PyTorch"
    )
    assert "Images" not in dict(conditions.conditions(plain))


def test_whose_files_were_served_is_a_condition():
    own = ExperimentInfo(model="own_net", input="8x9x3")
    figures = msgspec.structs.replace(
        summary(latency(5.0, 6.0), experiment=own),
        own_files={
            Kind.TORCHSCRIPT: OwnFile(name="own-net.pt"),
            Kind.SAVEDMODEL: OwnFile(name="port", around=(Around.CAST, Around.SOFTMAX)),
        },
        weights={"own_net": Weights.FILE},
    )
    told = dict(conditions.conditions(figures))
    assert told["PyTorch’s side"] == "the user’s TorchScript file own-net.pt, as it came"
    assert told["TensorFlow’s side"] == (
        "the user’s SavedModel port, behind a graph of Tandem’s that casts and adds the softmax"
    )
    assert told["Input"] == "8×9×3 images, as they come; the model does the rest"


def test_of_a_mixed_run_it_is():
    mixed = summary(latency(5.0, 6.0), targets=(KEPT_UP[0], TF_SERVING), experiment=ASKED)
    assert "Profile" in dict(conditions.conditions(mixed))


def test_a_limit_is_told():
    assert "no more than 100 requests/s" in warning_words.warning(RateLimited(most=100.0))
    past = ProxyNotUsed(variable="HTTPS_PROXY", targets=["blue", "green"])
    assert warning_words.warning(past) == "HTTPS_PROXY names a proxy; the load went past it, straight to blue and green"
    through = ProxyUsed(proxy="http://proxy:3128", targets=["blue"])
    assert "blue went through the proxy http://proxy:3128, as asked" in warning_words.warning(through)
    named = ProxyUsed(proxy="HTTPS_PROXY", targets=["blue"])
    assert "the proxy that HTTPS_PROXY names" in warning_words.warning(named)
    told = summary(latency(5.0, 6.0), environment=Environment(warnings=(through,)))
    assert dict(conditions.conditions(told))["Proxy"] == "blue: through http://proxy:3128"
    assert "stays up" in warning_words.caveat(Caveat.KEPT_UP)


def test_which_output_was_judged_is_a_condition():
    several = (msgspec.structs.replace(KEPT_UP[0], output="scores"), KEPT_UP[1])
    told = dict(conditions.conditions(summary(latency(5.0, 6.0), targets=several, experiment=ASKED)))
    assert told["Judged output"].endswith(": scores")
    assert "Judged output" not in dict(conditions.conditions(summary(latency(5.0, 6.0), targets=KEPT_UP)))
