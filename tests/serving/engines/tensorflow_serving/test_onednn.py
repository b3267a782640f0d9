"""oneDNN as the TensorFlow side is told of it, and as its log tells."""

from __future__ import annotations

import pytest

from serving.engines import embedded_tfserving, tensorflow_serving
from serving.engines.engine import ONEDNN, Ports, Served, Site, Switch
from serving.profile import ServingProfile

SITE = Site("127.0.0.1", Ports(rest=8501, grpc=8500, metrics=8501), "/srv/config", "/srv", cores=4)
VARIABLE = "TF_ENABLE_ONEDNN_OPTS"
# A real server's first lines, on a CPU without oneDNN by default; with it the first one stands before them.
ON = (
    "2026-11-23 06:54:08.051833: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on. You may see "
    "slightly different numerical results due to floating-point round-off errors from different computation orders. To "
    "turn them off, set the environment variable `TF_ENABLE_ONEDNN_OPTS=0`.\n"
)
REAL = """\
2026-11-23 06:54:12.350709: I src/tensorflow_serving/model_servers/server.cc:80] Building single TensorFlow model \
file config:  model_name: m model_base_path: /srv/models/cnn
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795416852.351077   16209 server_core.cc:516] Adding/updating models.
"""


@pytest.mark.parametrize("engine", [tensorflow_serving.ENGINE, embedded_tfserving.ENGINE], ids=lambda one: one.id)
@pytest.mark.parametrize(("asked", "given"), [("default", None), (True, 1), (False, 0)])
def test_the_variable_is_set_where_the_profile_asks_and_not_inherited_where_it_does_not(engine, asked, given):
    rendering = engine.render(ServingProfile(onednn=asked), [Served("m", "1", "/m")], SITE)
    (knob,) = [one for one in rendering.knobs if one.name == "onednn"]
    assert (knob.native_key, knob.value, knob.asked) == (VARIABLE, given, asked)
    assert rendering.environment.get(VARIABLE) == (None if given is None else str(given))
    assert rendering.unset == ((VARIABLE,) if given is None else ())
    assert ("AVX512-VNNI" in knob.note) == (given is None)


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (ON + REAL, True),
        (REAL, False),
        ("I0000 00:00:1795416852.351077   16209 server_core.cc:516] Adding/updating models.\n", False),
        ("[evhttp_server.cc : 261] NET_LOG: Entering the event loop ...\n", None),  # as with TF_CPP_MIN_LOG_LEVEL=1
        ("", None),
        ("2026-11-30 02:56:09,123 I embedded-tfserving: oneDNN custom operations are off\n", False),
        ("2026-11-30 02:56:09,123 I embedded-tfserving: oneDNN custom operations are on\n", True),
    ],
)
def test_what_a_log_says(log, said):
    assert tensorflow_serving.ENGINE.in_force(log) == (Switch(ONEDNN, said),)
