import os

import pytest

from mlpf.engine.base import Slot
from mlpf.engine.sites import load_site, site_names, slots_per_node
from mlpf.errors import ConfigError

MINIMAL = "description: a machine\nprovider: slurm\ncores_per_node: 8\nmax_minutes: 60\n"


def written(folder, text):
    path = folder / "site.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", site_names())
def test_sites_of_the_package_are_valid(name):
    assert load_site(name).description


def test_there_is_one_for_this_machine():
    site = load_site("this-machine")
    assert site.provider == "local"
    assert site.num_cores == len(os.sched_getaffinity(0))


def test_file_and_defaults(tmp_path):
    site = load_site(str(written(tmp_path, MINIMAL)))
    assert (site.num_cores, site.gpus_per_node, site.max_minutes, site.stop_margin) == (8, 0, 60, 5)
    assert site.account is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "gpu_per_node: 4\n", r":5  gpu_per_node: unknown key \(did you mean 'gpus_per_node'\?\)"),
        (MINIMAL + "stop_margin: soon\n", r":5  stop_margin: input should be a valid integer.*given 'soon'"),
        (MINIMAL + "partition: a b\n", r":5  partition: "),
        (MINIMAL + "provider: local\n", r":5  provider: key given twice, first on line 2"),
        (MINIMAL.replace("slurm", "slurn"), r":2  provider: input should be 'local', 'slurm'"),
        (MINIMAL.replace("max_minutes: 60\n", ""), "max_minutes is missing"),
        (MINIMAL.replace("cores_per_node: 8\n", ""), "cores_per_node is missing"),
        (MINIMAL.replace("60", "10"), "stop_margin 5 leaves too little of 10 minutes"),
        (MINIMAL + "address: a\nhost_suffix: i\n", "host_suffix and address both say where"),
        (MINIMAL + "scheduler_lines: [exclusive]\n", "'exclusive': expected --name=value"),
        ("description: a\nprovider: local\nqos: high\n", "provider local does not use qos"),
        ("description: a\nprovider: kubernetes\ncores_per_node: 1\n", "container is missing"),
        ("- a list\n", r":1  expected a mapping"),
        ("a: [\n", r"not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_site(written(tmp_path, text))
    assert all(line.startswith(str(tmp_path)) for line in str(caught.value).splitlines())


def test_every_problem_is_told_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_site(written(tmp_path, MINIMAL + "qoss: a\nstop_margin: -1\n"))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("name", ["nowhere", "nowhere.yaml"])
def test_unknown_site_lists_those_there_are(name):
    with pytest.raises(ConfigError, match=r"nowhere.*no such.*this-machine"):
        load_site(name)


@pytest.mark.parametrize(
    ("slot", "slots"), [(Slot(1, 0), 8), (Slot(3, 0), 2), (Slot(1, 1), 4), (Slot(4, 1), 2), (Slot(1, 4), 1)]
)
def test_slots_of_a_node(tmp_path, slot, slots):
    assert slots_per_node(load_site(written(tmp_path, MINIMAL + "gpus_per_node: 4\n")), slot) == slots


@pytest.mark.parametrize(
    ("slot", "what"), [(Slot(9, 0), r"9 core\(s\).*has 8"), (Slot(1, 1), r"1 GPU\(s\).*has 0")]
)
def test_slot_larger_than_a_node_is_refused(tmp_path, slot, what):
    with pytest.raises(ConfigError, match=what):
        slots_per_node(load_site(written(tmp_path, MINIMAL)), slot)
