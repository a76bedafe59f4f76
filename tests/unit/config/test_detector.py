import pytest
import yaml

from mlpf.config.data_schema import DatasetConfig
from mlpf.config.detector import CLIC, DetectorConfig, find_detector, recorded_detector, shipped_detectors
from mlpf.config.loading import load_config, resolved_text
from mlpf.errors import ConfigError, DataError
from tests.support.configs import write_config


def write(folder, **changes):
    """Write CLIC's description with other values of some keys, given by dotted path; None drops a key."""
    data = CLIC.model_dump()
    for dotted, value in changes.items():
        *sections, last = dotted.split("__")
        node = data
        for section in sections:
            node = node[section]
        node[last] = value
        if value is None:
            del node[last]
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def refusal(path):
    with pytest.raises(ConfigError) as caught:
        find_detector(str(path))
    return str(caught.value)


def test_the_shipped_detector_is_read_as_files_of_users_are():
    assert shipped_detectors() == ["clic"]
    assert find_detector("clic") == CLIC
    # of the published simulation (CLIC_o3_v14)
    assert (CLIC.field_T, CLIC.face_mm, CLIC.ecal_hadron_response) == (4.0, (1500.0, 2307.0), 0.8)


def test_a_file_of_a_user_is_read(tmp_path):
    found = find_detector(str(write(tmp_path, name="mine", field_T=2)))
    assert (found.name, found.field_T) == ("mine", 2.0)


@pytest.mark.parametrize(
    ("changes", "line", "message"),
    [
        ({"fieldT": 2.0}, 21, "fieldT: unknown key (did you mean 'field_T'?)"),
        ({"collections__hits": "a"}, 19, "collections.hits: unknown key"),
        ({"face_radius_mm": -1500.0}, 3, "face_radius_mm: input should be greater than 0 (given -1500.0)"),
        ({"face_radius_mm": float("inf")}, 3, "face_radius_mm: input should be a finite number"),
        ({"field_T": "strong"}, 2, "field_T: input should be a valid number"),
        ({"field_T": None}, None, "field_T: required key is missing"),
        ({"collections__tracks": "a b"}, 8, "collections.tracks: 'a b': expected the name of a collection"),
        ({"collections__ecal_hits": []}, 15, "collections.ecal_hits: list should have at least 1 item"),
        ({"collections__tracks": "MCParticles"}, 6, "collections: named twice: MCParticles"),
        (
            {"simulation__tracker_inner_radius_mm": 1600.0},
            None,
            "simulation.tracker_inner_radius_mm is 1600, expected less than face_radius_mm, 1500",
        ),
        (
            {"face_half_length_mm": 2500.0},
            None,
            "face_half_length_mm + simulation.hcal_end_mm is 4326, expected less than simulation.",
        ),
        ({"simulation__ecal_depth_mm": 250.0}, None, "simulation.ecal_depth_mm is 250, expected at most"),
    ],
)
def test_errors_name_file_line_and_key(tmp_path, changes, line, message):
    path = write(tmp_path, **changes)
    found = refusal(path)
    assert message in found
    assert len(found.splitlines()) == 1
    where = found.split("  ")[0]
    if line is None:
        assert where == str(path)
        return
    key = next(reversed(changes)).split("__")[-1]
    lines = path.read_text(encoding="utf-8").splitlines()
    number = int(where.rpartition(":")[2])
    assert key in lines[number - 1] or lines[number - 1] == "collections:"


def test_a_detector_that_does_not_exist(tmp_path):
    assert refusal("clik") == (
        "detector clik: no such detector (did you mean 'clic'?); the package has clic, or give a file "
        "FILE.yaml"
    )
    missing = tmp_path / "none.yaml"
    assert refusal(missing) == f"{missing}: no such file; the package has clic, or give a file of your own"


def test_a_description_from_before_is_clic_and_a_damaged_one_is_told():
    assert recorded_detector({}, "a file") == CLIC
    assert recorded_detector({"detector": CLIC.model_dump()}, "a file") == CLIC
    with pytest.raises(
        DataError, match=r"a.parquet: its description of .*detector.field_T: .*; make it again"
    ):
        recorded_detector({"detector": {**CLIC.model_dump(), "field_T": -1}}, "a.parquet")


def test_the_first_difference_is_named():
    def with_(**changes):
        return DetectorConfig.model_validate({**CLIC.model_dump(), **changes})

    assert CLIC.difference(find_detector("clic"), "a", "b") == ""
    other = with_(face_radius_mm=1400.0, ecal_hadron_response=0.7)
    assert CLIC.difference(other, "here", "there") == "face_radius_mm is 1500.0 here, 1400.0 there"
    names = {**CLIC.collections.model_dump(), "tracks": "MyTracks"}
    different = CLIC.difference(with_(collections=names), "a", "b")
    assert different == "collections.tracks is SiTracks_Refitted a, MyTracks b"
    not_simulated = CLIC.difference(with_(simulation=None), "a", "b")
    assert not_simulated == "simulation.tracker_inner_radius_mm is 31.0 a, not given b"


def test_a_configuration_holds_the_whole_description(tmp_path):
    own = write(tmp_path, name="mine", field_T=2.0)
    config = load_config(write_config(tmp_path), [f"dataset.detector={own}"])
    assert config.dataset.detector.field_T == 2.0
    own.unlink()
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(resolved_text(config), encoding="utf-8")
    assert load_config(resolved) == config
    assert load_config(write_config(tmp_path)).dataset.detector == CLIC


def test_a_configuration_names_where_its_detector_is_wrong(tmp_path):
    own = write(tmp_path, field_T=-2.0)
    path = write_config(tmp_path, f"dataset: {{detector: {own}}}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    line = len(path.read_text(encoding="utf-8").splitlines())
    assert f"{path}:{line}  dataset.detector: in {own}:2  field_T: input should be" in str(caught.value)
    with pytest.raises(ConfigError, match=r"--set dataset.detector=clik.*detector clik: no such detector"):
        load_config(write_config(tmp_path), ["dataset.detector=clik"])


def test_events_without_positions_have_no_detector():
    assert DatasetConfig(schema="delphes").detector is None
    with pytest.raises(ValueError, match="delphes events need none; leave the key out"):
        DatasetConfig(schema="delphes", detector="clic")
    with pytest.raises(ValueError, match="clic_hits events need a detector"):
        DatasetConfig(schema="clic_hits", detector=None)
