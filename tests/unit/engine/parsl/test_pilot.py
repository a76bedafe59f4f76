import time

from mlpf.engine.parsl.pilot import _as_text, _drain_options
from mlpf.machine.allocation import DeviceGroup


def test_no_task_is_taken_in_the_margin_before_the_end():
    (option,) = _drain_options({"MLPF_PILOT_END": str(time.time() + 1000)}, 300)
    name, seconds = option.split("=")
    assert name == "--drain_period"
    assert 698 <= int(seconds) <= 700


def test_a_job_about_to_end_takes_none():
    assert _drain_options({"MLPF_PILOT_END": str(time.time() + 10)}, 300) == ["--drain_period=1"]


def test_a_job_without_end_takes_all():
    assert _drain_options({}, 300) == []


def test_cores_are_told_only_where_they_are_ours():
    groups = [DeviceGroup({"CUDA_VISIBLE_DEVICES": "2"}, 1, 2, frozenset({3, 2}))]
    assert _as_text(groups, True) == '[{"environment": {"CUDA_VISIBLE_DEVICES": "2"}, "cpus": [2, 3]}]'
    assert '"cpus": []' in _as_text(groups, False)
