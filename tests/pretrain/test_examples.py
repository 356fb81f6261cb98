"""What a run shows of its objective, on a tokenizer of words."""

import numpy as np

from objectives import contract
from pretrain import examples


class Words:
    """Decodes id i to the word at i."""

    def __init__(self, *words):
        self.words = words

    def decode(self, ids):
        return ' '.join(self.words[i] for i in ids)


WORDS = Words('<pad>', '</s>', '<MASK>', 'one', 'two', 'three', 'four')


def row(tokens, targets, weights, places=None, **fields):
    array = lambda x: None if x is None else np.array(x)  # noqa: E731
    labels = fields.pop('labels_B', None)
    inputs = contract.Inputs(array(tokens), **{k: array(v) for k, v in fields.items()})
    return contract.Batch(
        inputs, None, array(targets), array(weights), array(places), labels
    )  # fmt: skip


def test_places_are_marked_in_the_text():
    made = row([3, 2, 5, 5, 0], [4, 6, 0], [1, 0.5, 0], [1, 3, 0], segments_BxL=[1, 1, 1, 1, 0])
    assert examples.describe(made, WORDS) == {
        'reads': 'one[<MASK> -> two]three[three -> four x0.5]'
    }


def test_targets_stand_in_a_line_of_their_own():
    made = row([3, 4, 5], [4, 5, 6], [1, 0, 1])
    assert examples.describe(made, WORDS) == {'reads': 'one two three', 'predicts': 'two_four'}


def test_weights_other_than_one_are_shown_and_padding_is_not():
    made = row([3, 4, 0], [4, 5, 0], [2, 1, 0], segments_BxL=[1, 1, 0], labels_B=np.int32(1))
    assert examples.describe(made, WORDS) == {
        'reads': 'one two', 'predicts': 'two x2three', 'label': '1',
    }  # fmt: skip


def test_a_prefix_is_divided_from_the_rest():
    made = row([3, 4, 5, 6], [5, 6], [1, 1], [1, 2], prefix_B=2)
    assert examples.describe(made, WORDS) == {
        'reads': 'one two || three four', 'predicts': 'three four',
    }  # fmt: skip


def test_long_texts_are_cut_in_the_middle():
    text = examples.shorten('a' * 300 + 'b' * 700)
    assert len(text) <= examples.WIDTH + 5
    assert text.startswith('aaa')
    assert text.endswith('bbb')
    assert ' ... ' in text
    assert '\n' not in examples.shorten('a\nb')
