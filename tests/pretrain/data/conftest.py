"""A small corpus of text files, prepared once."""

import random

import pytest

from pretrain.data.corpus import Corpus
from pretrain.data.preparation import Recipe, prepare

WORDS = [
    'the',
    'of',
    'city',
    'river',
    'hill',
    'small',
    'old',
    'people',
    'year',
    'war',
    'water',
    'green',
    'house',
    'road',
    'world',
]


def make_documents(count, seed=0):
    """Texts of one to three paragraphs of short sentences."""
    rng = random.Random(seed)
    sentence = lambda: ' '.join(rng.choices(WORDS, k=rng.randrange(3, 9))).capitalize() + '.'  # noqa: E731
    paragraph = lambda: ' '.join(sentence() for _ in range(rng.randrange(1, 6)))  # noqa: E731
    return ['\n\n'.join(paragraph() for _ in range(rng.randrange(1, 4))) for _ in range(count)]


@pytest.fixture(scope='session')
def documents():
    return make_documents(60)


@pytest.fixture(scope='session')
def recipe(documents, tmp_path_factory):
    folder = tmp_path_factory.mktemp('text')
    for i, text in enumerate(documents):
        (folder / f'{i:03d}.txt').write_text(text)
    return Recipe(
        source=f'text:{folder}', text_field='text', tokenizer='', vocabulary_size=310,
        tokenizer_megabytes=1.0, validation_fraction=0.2, shard_megabytes=0.004,
    )  # fmt: skip


@pytest.fixture(scope='session')
def corpus(recipe, tmp_path_factory):
    return Corpus(prepare(recipe, tmp_path_factory.mktemp('cache'), processes=1))
