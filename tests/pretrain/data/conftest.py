"""A small corpus of text files, prepared once."""

import hashlib
import random

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from pretrain.data.corpus import Corpus
from pretrain.data.preparation import Recipe, Work, prepare
from pretrain.data.sentences import sentence_starts

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
    return Corpus(prepare(recipe, tmp_path_factory.mktemp('cache'), Work(1)))


@pytest.fixture
def stream(corpus, documents):
    """The training split as (token, sentence in corpus, document) with an eos after each document.

    In the order of the shards, which hold the documents in the order of the files.
    """
    out, sentence, number = [], -1, 0
    held_out = {text for text in documents if is_held_out(corpus, text)}
    for text in documents:
        if text in held_out:
            continue
        ids, starts = corpus.tokenizer.encode_with_starts(text, sentence_starts(text))
        for place, token in enumerate(ids):
            sentence += place in set(starts.tolist())
            out.append((int(token), sentence, number))
        out.append((1, sentence, number))
        number += 1
    assert number == corpus.total('train', 'documents')
    return np.array(out)


def is_held_out(corpus, text):
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'big') < 0.2 * 2**64


@pytest.fixture(scope='session')
def example_class():
    """tf.train.Example, built from its definition."""
    file = descriptor_pb2.FileDescriptorProto(name='e.proto', package='t', syntax='proto3')
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(name, *fields):
        made = file.message_type.add(name=name)
        for number, (field, kind, label, of) in enumerate(fields, 1):
            made.field.add(name=field, number=number, type=kind, label=label, type_name=of)
        return made

    one, many = kinds.LABEL_OPTIONAL, kinds.LABEL_REPEATED
    message('BytesList', ('value', kinds.TYPE_BYTES, many, None))
    message('FloatList', ('value', kinds.TYPE_FLOAT, many, None))
    message('Int64List', ('value', kinds.TYPE_INT64, many, None))
    message(
        'Feature',
        ('bytes_list', kinds.TYPE_MESSAGE, one, '.t.BytesList'),
        ('float_list', kinds.TYPE_MESSAGE, one, '.t.FloatList'),
        ('int64_list', kinds.TYPE_MESSAGE, one, '.t.Int64List'),
    )
    features = message('Features', ('feature', kinds.TYPE_MESSAGE, many, '.t.Features.Entry'))
    entry = features.nested_type.add(name='Entry')
    entry.field.add(name='key', number=1, type=kinds.TYPE_STRING, label=one)
    entry.field.add(
        name='value', number=2, type=kinds.TYPE_MESSAGE, label=one, type_name='.t.Feature'
    )
    message('Example', ('features', kinds.TYPE_MESSAGE, one, '.t.Features'))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName('t.Example'))


@pytest.fixture(scope='session')
def example(example_class):
    """example(key=value, ...) -> bytes of a tf.train.Example."""

    def make(**values):
        made = example_class()
        for key, value in values.items():
            entry = made.features.feature.add(key=key)
            if isinstance(value, bytes):
                entry.value.bytes_list.value.append(value)
            elif isinstance(value, float):
                entry.value.float_list.value.append(value)
            else:
                entry.value.int64_list.value.append(value)
        return made.SerializeToString()

    return make
