import os

from hypothesis import given
from hypothesis import strategies as st

from loadtest.experiment import environment
from serving.cores import split_cores


@given(st.sets(st.integers(0, 255), min_size=2).map(sorted))
def test_server_and_generator_never_share_a_core(available):
    server, generator = split_cores(available)
    assert server
    assert 1 <= len(generator) <= 2
    assert not set(server) & set(generator)
    assert sorted(server + generator) == available
    assert len(server) >= len(generator)


def test_one_cpu_is_not_pinned():
    assert split_cores([3]) == ((), ())


def test_how_late_a_process_is_woken_is_measured_where_the_generator_will_run():
    priority, late = environment.punctuality([min(os.sched_getaffinity(0))], seconds=0.2)
    assert priority in ("real-time priority, cores kept awake", "high priority", "ordinary priority")
    assert 0 <= (late.p50 or 0) <= (late.p99 or 0) <= (late.max or 0)
    assert late.max is not None


def test_the_machine_is_described():
    found = environment.describe()
    assert found.cpu_count == len(os.sched_getaffinity(0))
    assert (found.memory_bytes or 0) > 2**30
    assert found.libraries["torch"].startswith("2.13.0")
    assert found.cpu_model
