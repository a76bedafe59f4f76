"""A sample of the user's own, of few files, from parquet to splits."""

import json

from mlpf.config.data_schema import DatasetSourceConfig
from mlpf.data.dataset.recipes import find_recipe
from mlpf.data.dataset.split import open_split
from mlpf.data.dataset.splitting import partition, stored_keys
from mlpf.errors import DataError
from mlpf.workflows import build
from tests.support.parquet_files import write_parquet

FRACTIONS = (0.4, 0.3, 0.3)


def test_few_files_are_split_by_event_by_both_builders_alike(tmp_path, capsys):
    files = [write_parquet(tmp_path / f"reco_{i}.parquet", 6) for i in range(2)]
    arguments = {"split_seed": event_seed(files), "split_fractions": FRACTIONS}
    summary = build.run("clic_edm4hep/my_sample", tmp_path, files, **arguments)
    printed = capsys.readouterr().out
    assert "2 files are too few for a split by file: events are split one by one" in printed
    assert "clic_edm4hep/my_sample: a sample of your own" in printed
    assert summary.path == tmp_path / "clic_edm4hep" / "my_sample" / "1.0.0"
    metadata = json.loads((summary.path / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["split_by"] == "event"

    builder = find_recipe("clic_edm4hep/my_sample")[0](
        config=find_recipe("clic_edm4hep/my_sample")[1], data_dir=tmp_path / "tfds", inputs=files, **arguments
    )
    builder.download_and_prepare()
    assert dict(builder.info.metadata)["split_by"] == "event"

    def events(folder, split):
        opened = open_split(
            "clic_edm4hep/my_sample", DatasetSourceConfig(version="1.0.0", data_dir=str(folder)), split
        )
        return opened.fetch(range(opened.num_events), ("event",)).names

    found = {split: events(tmp_path, split) for split in ("train", "valid", "test")}
    assert all(found.values())
    assert {split: len(names) for split, names in found.items()} == summary.events
    names = [name for split in found.values() for name in split]
    assert sorted(names) == sorted(key for file in files for key in stored_keys(file))
    assert {split: sorted(events(tmp_path / "tfds", split)) for split in found} == {
        split: sorted(names) for split, names in found.items()
    }
    assert build.run("clic_edm4hep/my_sample", tmp_path, files, **arguments).reused


def event_seed(files):
    """A seed with which all files are in one split, and each split has events."""

    def works(seed):
        try:
            return partition(files, seed, FRACTIONS).by == "event"
        except DataError:
            return False

    return next(seed for seed in range(100) if works(seed))
