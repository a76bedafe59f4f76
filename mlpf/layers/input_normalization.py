"""Input normalisation per element type: heavy-tailed columns to order 1."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

CLIP = 10.0
STATISTICS = ("scale", "mean", "std")


@keras.saving.register_keras_serializable(package="mlpf")
class InputNormalization(keras.layers.Layer):
    """y = (symlog(x / scale) - mean) / std, symlog(v) = sign(v) log(1 + |v|), clipped to +-10.

    One set of constants per element type and column; column 0 (the type) is left alone; NaN and Inf become
    0 before the transformation. The identity until ``set_statistics`` was called. The constants are frozen
    weights, saved with the model.

    Args:
        num_input_classes: element types T, padding included.
        **kwargs: keyword arguments of ``keras.layers.Layer``.

    Example:
        >>> import numpy as np
        >>> x = np.array([[[1.0, 5.0], [1.0, 50.0], [1.0, 500.0]]], "float32")
        >>> layer = InputNormalization(num_input_classes=3)
        >>> layer.build(x.shape)
        >>> layer.set_statistics(fit_normalization([x]))
        >>> [round(float(y), 2) for y in layer(x)[0, :, 1]]
        [-0.99, -0.38, 1.37]
    """

    def __init__(self, num_input_classes: int, **kwargs: Any):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.num_input_classes = num_input_classes

    def build(self, input_shape):
        """Create scale, mean, std [T, F - 1] and the flag that they were set."""
        shape = (self.num_input_classes, input_shape[-1] - 1)
        for name, start in zip(STATISTICS, ("ones", "zeros", "ones"), strict=True):
            setattr(self, name, self.add_weight(shape=shape, initializer=start, trainable=False, name=name))
        self.adapted = self.add_weight(shape=(), initializer="zeros", trainable=False, name="adapted")

    def call(self, x):
        """Normalise x [B, N, F]; column 0 is the element type."""
        kind = ops.clip(ops.cast(x[..., 0], "int32"), 0, self.num_input_classes - 1)
        scale, mean, std = (ops.take(getattr(self, name), kind, axis=0) for name in STATISTICS)
        raw = x[..., 1:]
        raw = ops.where(ops.abs(raw) <= np.finfo(np.float32).max, raw, ops.zeros_like(raw))
        v = raw / scale
        # log(1 + |v|) and not log1p: the latter does not export to ONNX.
        y = (ops.sign(v) * ops.log(1.0 + ops.abs(v)) - mean) / std
        y = ops.where(self.adapted > 0, ops.clip(y, -CLIP, CLIP), raw)
        return ops.concatenate([x[..., :1], y], axis=-1)

    def set_statistics(self, statistics: dict[str, npt.NDArray[np.floating]]) -> None:
        """Set the constants to those of ``fit_normalization``.

        Raises:
            ValueError: a constant is missing or has another shape.
        """
        for name in STATISTICS:
            shape = tuple(getattr(self, name).shape)
            if name not in statistics or np.shape(statistics[name]) != shape:
                found = np.shape(statistics[name]) if name in statistics else "nothing"
                raise ValueError(f"normalisation constant {name!r} has shape {found}, expected {shape}")
        for name in STATISTICS:
            getattr(self, name).assign(statistics[name])
        self.adapted.assign(1.0)

    def get_statistics(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the constants, [T, F - 1] each."""
        return {name: ops.convert_to_numpy(getattr(self, name)) for name in STATISTICS}

    def compute_output_shape(self, input_shape):
        """Return the shape of the input."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_input_classes": self.num_input_classes}


def fit_normalization(
    batches: Iterable[npt.NDArray[np.floating]], num_input_classes: int = 3, sample_rows: int = 100_000
) -> dict[str, npt.NDArray[np.float32]]:
    """Compute the constants of ``InputNormalization`` in one pass over the events.

    Args:
        batches: arrays [..., F] of raw elements; padded ones (type 0) are ignored.
        num_input_classes: element types T, padding included.
        sample_rows: elements per type (the first ones) whose median |x| > 0 is the scale of a column.

    Returns:
        ``scale``, ``mean``, ``std``, [T, F - 1] float32 each; 1, 0, 1 for types that do not occur and
        std 1 for constant columns.

    Raises:
        ValueError: no batch has a real element, or the number of columns changes.
    """
    moments = [_TypeMoments(sample_rows) for _ in range(num_input_classes)]
    width = 0
    for batch in batches:
        rows = np.asarray(batch, dtype=np.float64).reshape(-1, np.shape(batch)[-1])
        if width not in (0, rows.shape[1]):
            raise ValueError(f"a batch has {rows.shape[1]} columns, expected {width} as in the first batch")
        width = rows.shape[1]
        for kind in range(1, num_input_classes):
            moments[kind].add(rows[rows[:, 0] == kind, 1:])
    if not any(m.count or m.waiting for m in moments):
        raise ValueError("no real element (type other than 0) to compute the normalisation from")
    results = [m.result(width - 1) for m in moments]
    return {name: np.stack([r[i] for r in results]).astype(np.float32) for i, name in enumerate(STATISTICS)}


class _TypeMoments:
    """Streamed scale, mean and standard deviation of the elements of one type."""

    def __init__(self, sample_rows: int):
        self.sample_rows = sample_rows
        self.waiting: list[npt.NDArray[np.float64]] = []
        self.num_waiting = 0
        self.scale: npt.NDArray[np.float64] | None = None
        self.count = 0
        self.mean: npt.NDArray[np.float64] | None = None
        self.square: npt.NDArray[np.float64] | None = None

    def add(self, rows: npt.NDArray[np.float64]) -> None:
        """Take rows [n, F - 1] into account."""
        if not len(rows):
            return
        rows = np.where(np.isfinite(rows), rows, 0.0)
        if self.scale is None:
            self.waiting.append(rows)
            self.num_waiting += len(rows)
            if self.num_waiting >= self.sample_rows:
                self._fix_scale()
        else:
            self._accumulate(rows, self.scale)

    def _fix_scale(self) -> None:
        rows = np.concatenate(self.waiting)
        self.waiting = []
        magnitude = np.abs(rows[: self.sample_rows])
        self.scale = np.array([np.median(c[c > 0]) if (c > 0).any() else 1.0 for c in magnitude.T])
        self._accumulate(rows, self.scale)

    def _accumulate(self, rows: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]) -> None:
        v = rows / scale
        y = np.sign(v) * np.log1p(np.abs(v))
        if self.mean is None or self.square is None:
            self.mean, self.square = np.zeros(y.shape[1]), np.zeros(y.shape[1])
        # Chan et al. 1979: sums of squares about the mean, so that large means do not cancel.
        mean, total = y.mean(axis=0), self.count + len(y)
        step = mean - self.mean
        self.square = self.square + ((y - mean) ** 2).sum(axis=0) + step**2 * self.count * len(y) / total
        self.mean = self.mean + step * len(y) / total
        self.count = total

    def result(self, width: int) -> tuple[npt.NDArray[np.float64], ...]:
        """Return scale, mean, std of ``width`` columns."""
        if self.waiting:
            self._fix_scale()
        if self.scale is None or self.mean is None or self.square is None:
            return np.ones(width), np.zeros(width), np.ones(width)
        std = np.sqrt(self.square / self.count)
        return self.scale, self.mean, np.where(std > 1e-6, std, 1.0)
