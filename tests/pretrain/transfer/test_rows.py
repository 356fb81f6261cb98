"""Batches of rows: no row lost, none twice, no unit parted; and what lies in them, by hand."""

import math

import jax
import numpy as np
import pytest

from pretrain.errors import UserError
from pretrain.transfer import rows
from pretrain.transfer.rows import Place, Row

SIZES = [8, 16, 24, 32, 40, 48, 56, 64]  # the buckets that these rows need


def make(lengths):
    return [Row(np.full(n, 7, np.int32), None, i) for i, n in enumerate(lengths)]


def lengths(count, seed=0):
    return np.random.default_rng(seed).integers(1, 65, count).tolist()


def needed(length):
    return min(size for size in SIZES if size >= length)


def both(made, batch, unit):
    return {
        'training': rows.training_batches(made, batch, unit, seed=3, epoch=1),
        'evaluation': rows.evaluation_batches(made, batch, unit),
    }


@pytest.mark.parametrize(
    ('count', 'batch', 'unit'),
    [(1, 4, 1), (4, 4, 1), (5, 4, 1), (203, 8, 1), (64, 1, 1), (7, 64, 1), (2, 2, 2), (202, 8, 2),
     (202, 7, 2), (30, 1, 2), (201, 9, 3)],
)  # fmt: skip
def test_every_row_stands_in_one_batch_and_all_batches_but_one_are_full(count, batch, unit):
    for seed in range(3):
        own = lengths(count, seed)
        for name, places in both(make(own), batch, unit).items():
            held = max(batch // unit, 1) * unit
            assert len(places) == math.ceil(count / held), name
            assert all(len(place.rows_B) == held for place in places)
            partly = [place for place in places if (place.rows_B < 0).any()]
            assert len(partly) == (count % held > 0)
            for place in partly:  # what fills it up stands behind
                real = int((place.rows_B >= 0).sum())
                assert real == count % held
                assert (place.rows_B[:real] >= 0).all()
            flat = np.concatenate([place.rows_B for place in places])
            assert (flat >= -1).all()
            np.testing.assert_array_equal(np.sort(flat[flat >= 0]), np.arange(count))


def test_a_unit_is_never_parted_and_keeps_its_order():
    for unit in (2, 3):
        for places in both(make(lengths(60 * unit)), 4 * unit, unit).values():
            for place in places:
                units = place.rows_B.reshape(-1, unit)
                units = units[units[:, 0] >= 0]
                assert (units[:, 0] % unit == 0).all()
                np.testing.assert_array_equal(
                    units - units[:, :1], [list(range(unit))] * len(units)
                )


def test_a_batch_is_as_long_as_the_bucket_of_its_longest_row():
    own = lengths(300)
    for unit in (1, 2):
        for places in both(make(own), 8, unit).values():
            mixed = 0
            for place in places:
                longest = [own[r] for r in place.rows_B if r >= 0]
                assert place.length == needed(max(longest))
                of_units = np.max(np.reshape(longest, (-1, unit)), axis=1)
                mixed += len(set(map(needed, of_units))) > 1
            # Only what was left over of a bucket moves up into a longer one.
            assert mixed <= len(SIZES) - 1


def test_the_short_row_of_a_unit_goes_with_the_long_one():
    made = make([3, 60] * 4 + [3, 3] * 4)
    found = {place.length: np.sort(place.rows_B) for place in rows.evaluation_batches(made, 8, 2)}
    assert found.keys() == {8, 64}
    np.testing.assert_array_equal(found[64], np.arange(8))


def test_what_is_left_of_a_bucket_moves_up():
    made = make([5, 5, 5, 12, 12, 12, 40])
    found = [(place.length, sorted(place.rows_B)) for place in rows.evaluation_batches(made, 4)]
    assert found == [(16, [0, 1, 2, 3]), (40, [-1, 4, 5, 6])]


def test_the_same_seed_and_epoch_give_the_same_batches_and_others_others():
    made = make(lengths(100))

    def order(seed, epoch):
        return [place.rows_B.tolist() for place in rows.training_batches(made, 8, 1, seed, epoch)]

    assert order(1, 2) == order(1, 2)
    kinds = [order(1, 2), order(1, 3), order(2, 2), order(2, 1)]
    assert all(one != two for i, one in enumerate(kinds) for two in kinds[:i])
    # Not the same batches in another order, either.
    members = [{tuple(sorted(place)) for place in kind} for kind in kinds]
    assert all(one != two for i, one in enumerate(members) for two in members[:i])


def test_training_does_not_go_from_short_to_long():
    """Neither do the batches, nor does the one that is not full always come last."""
    made = make(lengths(203))
    partly = set()
    for epoch in range(8):
        places = rows.training_batches(made, 8, 1, 0, epoch)
        sizes = [place.length for place in places]
        assert sizes != sorted(sizes)
        partly |= {i for i, place in enumerate(places) if (place.rows_B < 0).any()}
    assert len(partly) > 2


def test_every_row_comes_with_others_and_at_any_time():
    """Rows of one length: where the first one stands in its epoch is anywhere, evenly."""
    made = make([5] * 16)
    seen = np.zeros(4)
    for epoch in range(200):
        places = rows.training_batches(made, 4, 1, 0, epoch)
        seen[[0 in place.rows_B for place in places].index(True)] += 1
    assert (seen > 25).all()


def test_evaluation_pads_little_and_does_not_depend_on_the_order():
    own = lengths(400)
    made = make(own)
    least = 1 - sum(own) / sum(needed(n) for n in own)
    places = rows.evaluation_batches(made, 4)
    assert rows.padding(made, places) < least + 0.05
    turned = rows.evaluation_batches(made[::-1], 4)
    assert [p.length for p in places] == [p.length for p in turned]


def test_the_share_of_padding_by_hand():
    """Rows of 5 and 8 in one batch of 8, of 20 in one of 24 with a row that fills it up."""
    made = make([5, 8, 20])
    places = [Place(np.array([0, 1]), 8), Place(np.array([2, -1]), 24)]
    assert rows.padding(made, places) == pytest.approx(1 - 33 / 64)


def test_the_bucket():
    assert [rows.bucket(n) for n in (1, 8, 9, 24, 25, 129, 4096)] == [8, 8, 16, 24, 32, 160, 4096]
    assert rows.bucket(3, (4, 8)) == 4
    with pytest.raises(UserError, match='4097 tokens is longer than the longest bucket, 4096'):
        rows.bucket(4097)


def test_a_batch_by_hand():
    made = [
        Row(np.array([3, 9, 4], np.int32), np.array([0, 0, 1], np.int32), 0, 1.5,
            np.array([[1, 1], [2, 2]], np.int32)),
        Row(np.array([3, 4], np.int32), np.array([0, 1], np.int32), 1, -1,
            np.array([[0, 1], [1, 1]], np.int32)),
    ]  # fmt: skip
    batch = rows.lay_out(made, Place(np.array([1, 0, -1]), 4), pad=6)
    np.testing.assert_array_equal(
        batch.inputs.tokens_BxL, [[3, 4, 6, 6], [3, 9, 4, 6], [6, 6, 6, 6]]
    )
    np.testing.assert_array_equal(batch.inputs.types_BxL[:2], [[0, 1, 0, 0], [0, 0, 1, 0]])
    np.testing.assert_array_equal(
        batch.inputs.segments_BxL, [[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]]
    )
    assert batch.inputs.prefix_B is None
    assert batch.inputs.positions_BxL is None
    np.testing.assert_array_equal(batch.lengths_B, [2, 3, 1])
    np.testing.assert_array_equal(batch.weights_B, [1, 1, 0])
    np.testing.assert_array_equal(batch.targets_B, np.array([-1, 1.5, 0], np.float32))
    np.testing.assert_array_equal(batch.spans_BxSx2[:2], [[[0, 1], [1, 1]], [[1, 1], [2, 2]]])
    assert batch.decoder_inputs is batch.targets_BxK is batch.target_weights_BxK is None
    assert batch.features is None
    dtypes = {leaf.dtype.name for leaf in jax.tree.leaves(batch)}
    assert dtypes == {'int32', 'float32'}
    assert batch.weights_B.dtype == batch.targets_B.dtype == np.float32

    read_at_once = rows.lay_out(made, Place(np.array([1, 0]), 4), 6, prefix=True)
    np.testing.assert_array_equal(read_at_once.inputs.prefix_B, [2, 3])
    plain = rows.lay_out([made[0]._replace(types_L=None, spans_Sx2=None)], Place([0], 8), 6)
    assert plain.inputs.types_BxL is plain.spans_BxSx2 is None


def test_targets_are_shifted_right_behind_a_pad():
    ids = np.array([5, 1], np.int32)
    made = [
        Row(ids, None, 0, targets_K=np.array([8, 9, 1], np.int32)),
        Row(ids, None, 1, targets_K=np.array([7, 2, 8, 9, 1], np.int32)),
    ]
    batch = rows.lay_out(made, Place(np.array([0, 1, -1]), 8), pad=0)
    np.testing.assert_array_equal(
        batch.targets_BxK, [[8, 9, 1, 0, 0, 0, 0, 0], [7, 2, 8, 9, 1, 0, 0, 0], [0] * 8]
    )
    np.testing.assert_array_equal(
        batch.decoder_inputs.tokens_BxL,
        [[0, 8, 9, 1, 0, 0, 0, 0], [0, 7, 2, 8, 9, 1, 0, 0], [0] * 8],
    )
    np.testing.assert_array_equal(batch.target_weights_BxK.sum(axis=1), [3, 5, 0])
    np.testing.assert_array_equal(batch.target_weights_BxK[1], [1, 1, 1, 1, 1, 0, 0, 0])
    short = rows.lay_out(made, Place(np.array([0, -1]), 8), pad=0)
    assert short.targets_BxK.shape == (2, 4)  # a bucket of its own
