"""Which files a user's own model is made of, told apart before any library opens them."""

from __future__ import annotations

import pytest

from models import own_files
from models.bundle import Around
from models.own_files import Files
from models.problem import Problem


def _folder(path, *names):
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    return path


def test_a_savedmodels_digest_is_of_names_and_contents(tmp_path):
    found = own_files.savedmodel(_folder(tmp_path / "port", "saved_model.pb", "variables/variables.index"))
    assert list(found.sha256) == ["saved_model.pb", "variables/variables.index"]
    same = own_files.savedmodel(_folder(tmp_path / "again", "saved_model.pb", "variables/variables.index"))
    assert same.digest == found.digest
    (tmp_path / "again" / "variables" / "variables.index").write_text("other")
    assert own_files.savedmodel(tmp_path / "again").digest != found.digest
    assert Files(tmp_path, {"a": "1", "b": "2"}).digest == Files(tmp_path, {"b": "2", "a": "1"}).digest
    assert found.record([Around.CAST]) == {"name": "port", "sha256": found.sha256, "around": ["cast"]}


def test_what_is_no_savedmodel_is_told_what_to_name(tmp_path):
    def told(path):
        with pytest.raises(Problem) as raised:
            own_files.savedmodel(path)
        return str(raised.value)

    assert told(tmp_path / "nowhere") == f"SAVEDMODEL={tmp_path}/nowhere: no such folder"
    (tmp_path / "net.keras").write_bytes(b"PK")
    assert "a file of Keras and no SavedModel's folder; write one with model.export(folder)" in told(
        tmp_path / "net.keras"
    )
    assert "no SavedModel (saved_model.pb is missing)" in told(_folder(tmp_path / "other", "weights.bin"))
    versions = _folder(tmp_path / "served", "1/saved_model.pb", "2/saved_model.pb")
    assert told(versions).endswith(f"a folder of versions (1, 2); name one: SAVEDMODEL={versions / '2'}")
