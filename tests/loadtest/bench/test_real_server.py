"""Every bench that starts a server of the TensorFlow side takes the real one, and nothing else for it."""

from __future__ import annotations

import pytest

from loadtest.bench import aa, crosscheck, dashboards_check, drain, embedded, restarts

pytestmark = pytest.mark.slow
BENCHES = {module.VERB.name: module for module in (aa, crosscheck, dashboards_check, drain, embedded, restarts)}


@pytest.mark.parametrize("where", ["named", "on the PATH"])
@pytest.mark.parametrize("bench", BENCHES)
def test_a_bench_refuses_a_program_that_is_not_it_before_it_begins(bench, where, bundle, tmp_path, monkeypatch, capsys):
    program = tmp_path / "tensorflow_model_server"
    program.write_text("#!/bin/sh\necho 'embedded-tfserving: 0.1.0'\n")
    program.chmod(0o755)
    monkeypatch.setattr(crosscheck, "find", lambda _: "installed")
    monkeypatch.chdir(tmp_path)  # where a bench leaves nothing
    options = ["--bundle", str(bundle.folder)] if BENCHES[bench] in (aa, dashboards_check, drain) else []
    if where == "named":
        options += ["--tensorflow-model-server", "./tensorflow_model_server"]
    else:
        monkeypatch.delenv("TFSERVING")
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert BENCHES[bench].VERB.main(options) == 1
    said = f"error: {program} is not TensorFlow Serving: its --version says 'embedded-tfserving: 0.1.0'"
    assert capsys.readouterr().err.startswith(said)
    assert list(tmp_path.iterdir()) == [program]
