import json

import pytest

from models import whole_file


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "run.json"
    whole_file.write_json(path, {"finished": False})
    whole_file.write_json(path, {"finished": True})
    assert json.loads(path.read_text()) == {"finished": True}
    assert whole_file.write_text(tmp_path / "ä.txt", "ä\n").read_bytes() == "ä\n".encode()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["run.json", "ä.txt"]


def interrupted(path, folder=False):
    with whole_file.replacing(path) as partial:
        if folder:
            partial.mkdir()
        (partial / "a" if folder else partial).write_text("ne")
        raise KeyboardInterrupt


def test_the_old_file_stays_where_the_new_one_cannot_be_written_to_its_end(tmp_path):
    path = whole_file.write_text(tmp_path / "run.json", "old")
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    with pytest.raises(TypeError):
        whole_file.write_json(path, {1j})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_with_its_content_or_not_at_all(tmp_path):
    with whole_file.replacing(tmp_path / "whole") as partial:
        partial.mkdir()
        (partial / "a").touch()
        assert not (tmp_path / "whole").exists()
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "half", folder=True)
    assert [one.name for one in tmp_path.iterdir()] == ["whole"]
    assert (tmp_path / "whole" / "a").exists()


def test_a_link_is_moved_to_another_target(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with whole_file.replacing(tmp_path / "latest") as partial:
            partial.symlink_to(name)
    assert (tmp_path / "latest").resolve() == tmp_path / "two"
