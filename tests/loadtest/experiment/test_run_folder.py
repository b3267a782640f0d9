import pytest

from loadtest.experiment import run_folder
from loadtest.experiment.file import Experiment
from loadtest.experiment.run_folder import RunFolder
from models.problem import Problem


def test_the_same_command_goes_on_with_an_unfinished_run(tmp_path):
    first = RunFolder.open(tmp_path, Experiment(), "bundle-a")
    first.save_experiment(Experiment().with_rates({"grpc": (1.0,), "rest": (2.0,)}))
    again = RunFolder.open(tmp_path, Experiment(), "bundle-a")
    assert again.path == first.path
    assert again.experiment().ladder.rates == {"grpc": (1.0,), "rest": (2.0,)}


def test_a_finished_run_another_experiment_another_bundle_or_fresh_start_a_new_one(tmp_path):
    first = RunFolder.open(tmp_path, Experiment(), "bundle-a")
    paths = {first.path}
    paths.add(RunFolder.open(tmp_path, Experiment(seed=2), "bundle-a").path)
    paths.add(RunFolder.open(tmp_path, Experiment(), "bundle-b").path)
    paths.add(RunFolder.open(tmp_path, Experiment(), "bundle-a", fresh=True).path)
    first.finish()
    for path in paths - {first.path}:
        RunFolder(path).finish()
    paths.add(RunFolder.open(tmp_path, Experiment(), "bundle-a").path)
    assert len(paths) == 5


def test_latest_points_to_the_newest_run(tmp_path):
    RunFolder.open(tmp_path, Experiment(), "a")
    newest = RunFolder.open(tmp_path, Experiment(), "b")
    assert (tmp_path / "latest").resolve() == newest.path


def test_a_damaged_run_is_passed_over(tmp_path):
    first = RunFolder.open(tmp_path, Experiment(), "a")
    (first.path / "run.json").write_text("{")
    assert RunFolder.open(tmp_path, Experiment(), "a").path != first.path


def test_a_trial_counts_as_measured_once_its_results_are_whole(tmp_path):
    run = RunFolder.open(tmp_path, Experiment(), "a")
    run.trial("x").mkdir(parents=True)
    assert not run.measured("x")
    run.write("trials/x/trial.json", {})
    assert run.measured("x")
    assert run.trials() == [run.trial("x")]


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(Problem, match="not a run's folder"):
        run_folder.resolve(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(Problem, match="cannot create a run's folder"):
        RunFolder.open(tmp_path / "file", Experiment(), "a")
