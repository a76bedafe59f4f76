"""Sums of absolute coordinate differences between all elements of a bin, without a tensor [S, S, d]."""

from keras import ops

# Coordinates at a time: the largest tensor is this many times the result, forward and backward.
CHUNK = 8


@ops.custom_gradient
def l1_distances(z):
    """Return D_ij = sum_c |z_ic - z_jc|, [G, S, S], for z [G, S, d] with d known.

    The gradient is written out, dL/dz_ic = sum_j (G_ij + G_ji) sign(z_ic - z_jc), so that training computes
    the signs again, a few coordinates at a time, and does not keep them. It is 0 where coordinates are equal.
    """
    distance = sum(ops.sum(ops.abs(difference), axis=1) for difference in _differences(z))

    def gradient(*args, upstream=None):
        """Return dL/dz [G, S, d] for dL/dD [G, S, S]; backends pass it by place or by name."""
        upstream = args[0] if upstream is None else upstream
        both = ops.expand_dims(upstream + ops.swapaxes(upstream, -1, -2), axis=1)
        parts = [ops.sum(ops.sign(difference) * both, axis=-1) for difference in _differences(z)]
        return ops.swapaxes(ops.concatenate(parts, axis=1), -1, -2)

    return distance, gradient


def _differences(z):
    """Yield z_ic - z_jc, [G, c, S, S], for a few coordinates c at a time."""
    z = ops.swapaxes(z, -1, -2)
    for start in range(0, z.shape[1], CHUNK):
        some = z[:, start : start + CHUNK]
        yield ops.expand_dims(some, -1) - ops.expand_dims(some, -2)
