import pytest

from pretrain.transfer import word_spans


@pytest.mark.parametrize(
    ('text', 'wanted', 'word', 'marked'),
    [
        ('Mark told Pete many lies about himself, and Pete laughed. He', 'Pete', 2, 'Pete'),
        ('The trophy is too big. It fell.', 'It', 5, 'It'),
        ('I poured the water into the cup.', 'The cup', 5, 'the cup'),  # the case differs
        ('Sam likes "Dad\'s friend", he said.', "dad's friend.", 2, "Dad's friend"),
        ('the town\nto fetch  them. They left.', 'them', 4, 'them'),  # by white space
        ('a  b  c  it was it', 'it', 6, 'it'),  # counted by single blanks: the first
        ('They saw the old  man.', 'the old\nman', 2, 'the old  man'),
        ('He saw that she knew it.', 'she', 2, 'she'),  # one off
        ('but they scold them', 'theyscold', 1, 'they scold'),
        ('Dora\u2019s dress', "Dora's", 0, 'Dora\u2019s'),
        ('Kamenev, with Zinoviev, spoke.', 'Kamenev and Zinoviev', 0, 'Kamenev, with Zinoviev,'),
    ],
)
def test_spans_are_found(text, wanted, word, marked):
    start, end, agrees = word_spans.locate(text, wanted, word)
    assert text[start:end] == marked
    assert agrees


def test_of_equal_words_the_one_at_the_index_is_taken():
    text = 'it and it and it'
    assert [word_spans.locate(text, 'it', n)[0] for n in (0, 2, 4)] == [0, 7, 14]
    assert word_spans.locate(text, 'it', 1)[0] == 7  # as far from both: an index is one too low


def test_a_word_inside_another_is_not_the_word():
    assert word_spans.locate('The item is here: it', 'it', 1)[:2] == (18, 20)


def test_spans_that_do_not_agree():
    assert word_spans.locate('Ann saw Bob.', 'Zoe Black', 1) == (4, 12, False)
    far = 'Ann one two three four five'
    assert word_spans.locate(far, 'Ann', 5) == (0, 3, False)


@pytest.mark.parametrize(('wanted', 'word'), [('Ann', 9), ('Ann', -1), ('', 0)])
def test_indices_outside_and_empty_spans(wanted, word):
    assert word_spans.locate('Ann saw Bob.', wanted, word) == (0, 0, False)
