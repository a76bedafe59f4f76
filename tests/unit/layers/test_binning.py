import numpy as np
import pytest
import tensorflow as tf

from mlpf.layers.binning import Bins, LearnableBinning, gather_rows
from tests.support.layer_contract import LayerCase, check_layer, set_values


def test_contract(rng):
    z = rng.normal(size=(2, 32, 3)).astype(np.float32)
    mask = np.arange(32)[None] < np.array([[32], [20]])
    # 16 bins at most: a codebook of 3 x 8
    check_layer(
        LayerCase(
            lambda: LearnableBinning(8, 16, 3),
            (z, mask),
            (2, 32),
            num_trainable=0,
            num_frozen=24,
            dtype="int32",
            mixed_dtype="int32",
            gradients=False,
        )
    )


def test_hand_worked():
    layer = LearnableBinning(2, 4, 1)
    layer.build((None, None, 1))
    set_values(layer, np.array([[1.0, 2.0]]))
    # 8 elements, 4 bins, both columns: u = [z, 2z, -z, -2z]; z > 0 is in bucket 1, z < 0 in bucket 3.
    # z = 0 ties at bucket 0. Element 3 is padding: last.
    z = np.array([[[-1.0], [2.0], [0.0], [5.0], [-3.0], [1.0], [0.0], [-2.0]]])
    mask = np.array([[True, True, True, False, True, True, True, True]])
    # bucket 0: 2, 6; bucket 1: 1, 5; bucket 3: 0, 4, 7; padding: 3
    assert np.asarray(layer(z, mask))[0].tolist() == [2, 6, 1, 5, 0, 4, 7, 3]


@pytest.mark.parametrize("open_axes", [False, True])
@pytest.mark.parametrize("num_elements", [1, 3, 4, 5, 8, 11, 12])
def test_bins_are_slices_of_the_order_and_are_undone(rng, num_elements, open_axes):
    x = rng.normal(size=(3, num_elements, 5)).astype(np.float32)
    order = np.stack([rng.permutation(num_elements) for _ in range(3)]).astype(np.int32)

    def there_and_back(order, x):
        bins = Bins(order, 4)
        parts = [gather_rows(tf.reshape(x, (-1, 5)), members) for members in bins.members]
        return parts, bins.undo(parts)

    if open_axes:
        spec = [tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None, 5))]
        there_and_back = tf.function(there_and_back, autograph=False, input_signature=spec)
    parts, back = there_and_back(tf.constant(order), tf.constant(x))

    np.testing.assert_array_equal(back, x)
    found = {tuple(np.sort(one.numpy()[:, 0])) for part in parts for one in part}
    slices = [order[e, i : i + 4] for e in range(3) for i in range(0, num_elements, 4)]
    assert found == {
        tuple(np.sort(x[e, one, 0]))
        for e, one in zip(np.arange(3).repeat(-(-num_elements // 4)), slices, strict=True)
    }


@pytest.mark.parametrize(("num_elements", "lengths"), [(3, [3]), (4, [4]), (6, [4, 2]), (8, [4]), (0, [1])])
def test_no_part_is_empty_where_the_number_of_elements_is_known(num_elements, lengths):
    order = np.tile(np.arange(num_elements, dtype=np.int32), (2, 1))
    assert [members.shape[1] for members in Bins(tf.constant(order), 4).members] == lengths


def test_more_bins_than_the_codebook_has_are_refused():
    layer = LearnableBinning(2, 4, 1)
    with pytest.raises(ValueError, match="10 elements make 5 bins of 2, more than max_num_bins=4"):
        layer(np.ones((1, 10, 1), np.float32), np.ones((1, 10), bool))


def test_projection_order_hand_worked():
    layer = LearnableBinning(3, 2, 1, bin_order="projection")
    layer.build((None, None, 1))
    set_values(layer, np.array([[1.0]]))
    # one direction: slabs along it from the largest z to the smallest, padding (element 5) last
    z = np.array([[[-1.0], [2.0], [0.5], [5.0], [-3.0], [9.0]]])
    mask = np.array([[True, True, True, True, True, False]])
    assert np.asarray(layer(z, mask))[0].tolist() == [3, 1, 2, 0, 4, 5]


def test_projection_order_does_not_depend_on_the_order_of_the_event(rng):
    layer = LearnableBinning(4, 8, 3, bin_order="projection")
    z = rng.normal(size=(1, 32, 3)).astype(np.float32)
    mask = np.ones((1, 32), bool)
    shuffle = rng.permutation(32)
    order = np.asarray(layer(z, mask))[0]
    shuffled = np.asarray(layer(z[:, shuffle], mask))[0]
    np.testing.assert_array_equal(shuffle[shuffled], order)


def test_unknown_order_is_refused():
    with pytest.raises(ValueError, match="expected one of event, projection"):
        LearnableBinning(4, 4, 1, bin_order="random")


@pytest.mark.parametrize("num_short", [32, 34])
@pytest.mark.parametrize("num_real", [3, 17, 32])
def test_projection_order_does_not_depend_on_padding(rng, num_real, num_short):
    layer = LearnableBinning(4, 16, 3, bin_order="projection")
    z = rng.normal(size=(1, 64, 3)).astype(np.float32)
    mask = np.arange(64)[None] < num_real
    short, long = (np.asarray(layer(z[:, :n], mask[:, :n]))[0, :num_real] for n in (num_short, 64))
    np.testing.assert_array_equal(short, long)


@pytest.mark.parametrize("bin_order", ["event", "projection"])
@pytest.mark.parametrize("num_elements", [4, 8, 9, 12, 28, 255, 799, 800])
def test_every_element_is_in_exactly_one_bin_and_padding_is_last(rng, num_elements, bin_order):
    layer = LearnableBinning(4, 200, 3, bin_order=bin_order)
    z = rng.normal(size=(2, num_elements, 3)).astype(np.float32)
    num_real = np.array([num_elements - 3, max(1, num_elements // 2)])
    order = np.asarray(layer(z, np.arange(num_elements)[None] < num_real[:, None]))
    for event, real in zip(order, num_real, strict=True):
        assert sorted(event) == list(range(num_elements))
        assert sorted(event[:real]) == list(range(real))


def test_elements_of_a_bucket_keep_the_order_of_the_event(rng):
    layer = LearnableBinning(4, 8, 2)
    layer.build((None, None, 2))
    z = rng.normal(size=(1, 32, 2)).astype(np.float32)
    projected = z[0] @ np.asarray(layer.codebook)
    bucket = np.argmax(np.concatenate([projected, -projected], axis=-1), axis=-1)
    order = np.asarray(layer(z, np.ones((1, 32), bool)))[0]
    assert order.tolist() == np.lexsort((np.arange(32), bucket)).tolist()


@pytest.mark.parametrize("num_elements", [1, 3, 8])
def test_one_short_bin_holds_a_small_event(rng, num_elements):
    layer = LearnableBinning(8, 4, 3)
    z = rng.normal(size=(1, num_elements, 3)).astype(np.float32)
    order = np.asarray(layer(z, np.ones((1, num_elements), bool)))[0]
    assert sorted(order) == list(range(num_elements))


def test_more_bins_than_the_codebook_has_fail_in_a_graph_of_open_axes_too():
    layer = LearnableBinning(2, 4, 1)
    layer.build((None, None, 1))
    graph = tf.function(lambda z, mask: layer(z, mask)).get_concrete_function(
        tf.TensorSpec((None, None, 1)), tf.TensorSpec((None, None), tf.bool)
    )
    assert graph(tf.ones((1, 8, 1)), tf.ones((1, 8), tf.bool)).shape == (1, 8)
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not in"):
        graph(tf.ones((1, 12, 1)), tf.ones((1, 12), tf.bool))
