"""Prepared datasets of events in memory: as the package builds them, or as others publish them."""

import numpy as np
import tensorflow_datasets as tfds


class EventsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the events it is given."""

    name = "events"
    VERSION = tfds.core.Version("1.5.0")

    def __init__(self, splits, published, metadata, **kwargs):
        self._events, self._published, self._words = splits, published, metadata
        super().__init__(file_format="array_record", **kwargs)

    def _info(self):
        first = next(event for events in self._events.values() for event in events)
        encoding = "none" if self._published else "bytes"

        def feature(value):
            if value.dtype.kind == "U":
                return tfds.features.Text()
            return tfds.features.Tensor(shape=(None, value.shape[1]), dtype=np.float32, encoding=encoding)

        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({name: feature(value) for name, value in first.items()}),
            metadata=tfds.core.MetadataDict(self._words),
        )

    def _split_generators(self, _):
        return {name: self._generate_examples(events) for name, events in self._events.items()}

    def _generate_examples(self, events):
        for i, event in enumerate(events):
            values = {k: str(v) if v.dtype.kind == "U" else v for k, v in event.items()}
            yield f"{i:06d}", values


def write_dataset(folder, splits, published=False, metadata=None):
    """Write split -> events (dicts of arrays) into ``folder``; return the folder of the version.

    ``published``: without names of events and metadata, each number on its own (``float_list``).
    """
    if published:
        splits = {
            name: [{k: event[k] for k in ("X", "ygen", "ycand")} for event in events]
            for name, events in splits.items()
        }
    builder = EventsBuilder(splits, published, metadata or {}, data_dir=folder)
    builder.download_and_prepare()
    return folder / "events" / "1.5.0"
