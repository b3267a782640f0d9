import pytest

from loadtest.experiment import decision, records, run_folder
from loadtest.experiment.file import Experiment
from loadtest.experiment.questions import Family, Metric, Question
from loadtest.experiment.records import DecidedQuestion, Decisions, SearchRecord, WarmUpRecord
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.standing import Standing
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


def test_a_search_counts_as_measured_once_it_has_ended_not_by_its_trials(tmp_path):
    run = RunFolder.open(tmp_path, Experiment(), "a")
    run.trial("s-1").mkdir(parents=True)
    run.write("trials/s-1/trial.json", {})
    assert not run.measured("s")
    run.search("s").mkdir(parents=True)
    found = SearchRecord(id="s", target="pytorch", protocol="grpc", centre=90.0, rate=101.0, sd=0.05)
    (run.search("s") / "search.json").write_text(records.encode(found))
    assert run.measured("s")
    assert run.searches() == [found]
    # What was being written when the run was killed is none.
    (run.path / "searches" / ".s2.partial").mkdir()
    (run.path / "searches" / ".s2.partial" / "search.json").write_text("{}")
    assert run.searches() == [found]


def test_warm_ups_are_found_by_their_names(tmp_path):
    run = RunFolder.open(tmp_path, Experiment(), "a")
    assert run.warm_ups() == []
    for steady in (True, False):
        folder = run.new_folder("warm-ups", "pytorch-grpc-r1")
        folder.mkdir(parents=True)
        record = WarmUpRecord(id=folder.name, target="pytorch", protocol="grpc", throughput=9.0, steady=steady)
        (folder / "warm-up.json").write_text(records.encode(record))
    assert [(one.id, one.steady) for one in run.warm_ups()] == [
        ("pytorch-grpc-r1-1", True),
        ("pytorch-grpc-r1-2", False),
    ]


def test_how_the_questions_stand_is_written_for_whoever_reads_the_run(tmp_path):
    run = RunFolder.open(tmp_path, Experiment(), "a")
    asked = Question(Family.LATENCY, Metric.P99, "grpc", ("pytorch", "tensorflow"), 300.0)
    run.save_decisions((3, 4, 6), [Standing(asked, 4, decision.Decision(True, 0.012, 0.01))], over=True)
    assert records.read_decisions(run.path / "decisions.json") == Decisions(
        looks=(3, 4, 6),
        over=True,
        questions=(
            DecidedQuestion(
                metric=Metric.P99,
                family=Family.LATENCY,
                protocol="grpc",
                compared=("pytorch", "tensorflow"),
                rate=300.0,
                starts=4,
                decided=True,
                p_adjusted=0.012,
            ),
        ),
    )


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(Problem, match="not a run's folder"):
        run_folder.resolve(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(Problem, match="cannot create a run's folder"):
        RunFolder.open(tmp_path / "file", Experiment(), "a")
