import bz2
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pretrain.data import duplicates, preparation, shards, unit
from pretrain.data.corpus import Corpus
from pretrain.data.filters import Filters
from pretrain.data.preparation import Work, prepare
from pretrain.errors import UserError


def content(folder):
    """Everything that is read of a corpus."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and not path.name.startswith('.lock') and '.windows-' not in path.name
    }


def test_two_processes_write_what_one_writes(recipe, corpus, tmp_path):
    assert len(corpus.manifest['shards']) > 2
    assert content(prepare(recipe, tmp_path, Work(2))) == content(corpus.folder)


def test_every_document_is_there_and_comes_back(corpus, documents):
    texts = []
    for number, split, _, _ in corpus.parts('all'):
        part = shards.open_part(shards.shard_folder(corpus.folder, number), split)
        ends = [*part.documents[1:], len(part.tokens)]
        texts += [corpus.tokenizer.decode(part.tokens[b:e]) for b, e in zip(part.documents, ends)]
    assert sorted(texts) == sorted(documents)
    assert corpus.total('all', 'bytes') == sum(len(text.encode()) for text in documents)


def test_white_space_before_the_first_sentence_belongs_to_it(recipe, corpus, tmp_path):
    path = tmp_path / 'two.jsonl'
    texts = ['\n\n  Hello there. A second one.', 'The other. It has two.']
    path.write_text(''.join(json.dumps({'text': text}) + '\n' for text in texts))
    made = Corpus(prepare(
        recipe._replace(
            source=f'jsonl:{path}', tokenizer=str(corpus.folder / 'tokenizer.model'),
            validation_fraction=0.0,
        ),
        tmp_path / 'cache', Work(1),
    ))  # fmt: skip
    part = shards.open_part(shards.shard_folder(made.folder, 0), 'train')
    assert len(part.sentences) == 4
    assert set(part.documents) <= set(part.sentences)


def test_a_second_call_finds_it_made(recipe, corpus, monkeypatch):
    monkeypatch.setattr(preparation, '_make', None)
    assert prepare(recipe, corpus.folder.parent) == corpus.folder


@pytest.mark.parametrize(
    'change',
    [
        {'validation_fraction': 0.3},
        {'vocabulary_size': 300},
        {'shard_megabytes': 0.003},
        {'filters': ('c4',)},
    ],
)
def test_another_recipe_is_another_corpus(recipe, corpus, change):
    def name(recipe):
        source = preparation.open_source(recipe.source, recipe.text_field)
        return preparation._digest(recipe, source, Filters(recipe.filters), None)

    assert corpus.folder.name.endswith(name(recipe))
    assert not corpus.folder.name.endswith(name(recipe._replace(**change)))


def test_copies_of_a_document_fall_into_one_split(recipe, documents, tmp_path):
    folder = tmp_path / 'text'
    folder.mkdir()
    for i, text in enumerate(documents + documents):
        (folder / f'{i:03d}.txt').write_text(text)
    made = Corpus(prepare(recipe._replace(source=f'text:{folder}'), tmp_path / 'cache', Work(1)))
    texts = {'train': [], 'validation': []}
    for number, split, _, _ in made.parts('all'):
        part = shards.open_part(shards.shard_folder(made.folder, number), split)
        ends = [*part.documents[1:], len(part.tokens)]
        texts[split] += [bytes(part.tokens[b:e]) for b, e in zip(part.documents, ends)]
    assert len(texts['validation']) > 0
    assert not set(texts['train']) & set(texts['validation'])


def test_a_few_documents_have_a_held_out_one(recipe, tmp_path, documents):
    folder = tmp_path / 'text'
    folder.mkdir()
    for i, text in enumerate(documents[:6]):
        (folder / f'{i}.txt').write_text(text * 20)
    few = recipe._replace(
        source=f'text:{folder}', validation_fraction=1e-6, shard_megabytes=10.0, vocabulary_size=300
    )
    made = Corpus(prepare(few, tmp_path / 'cache', Work(1)))
    assert made.total('validation', 'documents') == 1
    assert made.total('train', 'documents') == 5
    # Copies count as one document: they do not all leave the training split.
    for i in range(6):
        (folder / f'{i}.txt').write_text(documents[0] * 20)
    made = Corpus(prepare(few, tmp_path / 'cache', Work(1)))
    assert made.total('validation', 'documents') == 0
    assert made.total('train', 'documents') == 6


KILLED = """
import sys
from pretrain.data import preparation
recipe = preparation.Recipe(*{fields!r})
if __name__ == '__main__':
    print('begin', flush=True)
    preparation.prepare(recipe, {cache!r}, preparation.Work(2))
"""


def test_killed_at_any_moment_it_goes_on(recipe, corpus, tmp_path, environment):
    """kill -9 of the whole group at three moments, then once to the end: the same bytes."""
    cache = tmp_path / 'cache'
    script = tmp_path / 'prepare.py'
    script.write_text(KILLED.format(fields=tuple(recipe), cache=str(cache)))
    kills = 0
    for pause in (0.5, 1.2, 2.0):
        process = subprocess.Popen(
            [sys.executable, script], env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        process.stdout.readline()
        time.sleep(pause)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        process.stdout.close()
    assert kills
    assert content(prepare(recipe, cache, Work(1))) == content(corpus.folder)


def test_shards_that_are_there_are_not_made_again(recipe, corpus, tmp_path, monkeypatch):
    copy = shutil.copytree(corpus.folder, tmp_path / corpus.folder.name)
    (copy / 'manifest.json').unlink()
    shutil.rmtree(shards.shard_folder(copy, 1))
    made = []
    make = unit.make
    monkeypatch.setattr(unit, 'make', lambda *a: made.append(a[1]) or make(*a))
    assert content(prepare(recipe, tmp_path, Work(1))) == content(corpus.folder)
    assert made == [1]


def test_a_given_tokenizer_is_used(recipe, corpus, tmp_path):
    given = recipe._replace(tokenizer=str(corpus.folder / 'tokenizer.model'), vocabulary_size=9999)
    made = Corpus(prepare(given, tmp_path, Work(1)))
    assert made.tokenizer.digest == corpus.tokenizer.digest


def test_the_lost_tail_of_a_truncated_dump_is_said_and_the_rest_kept(tmp_path, recipe):
    page = (
        '<page><title>{0}</title><ns>0</ns><id>{0}</id><revision><id>1</id>'
        '<text xml:space="preserve">{1}</text></revision></page>'
    )
    prose = 'The city of {0} lies on a river and has a long history of trade and war. ' * 30
    xml = (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">'
        '<siteinfo><sitename>W</sitename><namespaces><namespace key="0"/></namespaces></siteinfo>'
        + ''.join(page.format(i, os.urandom(200).hex() + ' ' + prose.format(i)) for i in range(800))
        + '</mediawiki>'
    )
    packed = bz2.compress(xml.encode(), 1)
    dump = tmp_path / 'x-pages-articles.xml.bz2'
    dump.write_bytes(packed[: len(packed) * 2 // 3])
    cut = recipe._replace(source=f'wikipedia:{dump}', shard_megabytes=0.5)
    with pytest.raises(UserError, match='cut off'):
        prepare(cut, tmp_path / 'cache', Work(2))
    made = Corpus(prepare(cut, tmp_path / 'cache', Work(2, skip=True)))
    assert 80 < made.total('all', 'documents') < 800
    assert made.manifest['skipped'] == {'cut_off': 1}
    assert made.manifest['examples'] == {'cut_off': [f'{dump}: cut off']}


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        ({'source': 'text:/nowhere/at/all'}, '/nowhere/at/all'),
        ({'source': 'txt:/tmp'}, 'txt'),
        ({'validation_fraction': 1.0}, 'data.validation_fraction=1.0'),
        ({'shard_megabytes': 0.0}, 'must be from 0.001 to'),
        ({'vocabulary_size': 8192}, 'too large for this text'),
        ({'tokenizer': '/nowhere/x.model'}, '/nowhere/x.model'),
    ],
)
def test_what_is_wrong_is_said_and_leaves_nothing(recipe, tmp_path, change, says):
    with pytest.raises(UserError, match=says):
        prepare(recipe._replace(**change), tmp_path / 'cache', Work(1))
    assert [p for p in (tmp_path / 'cache').rglob('*') if p.is_file()] == []


def test_two_processes_that_are_refused_both_say_why(recipe, tmp_path, monkeypatch):
    def refused(jobs):
        shutil.rmtree(jobs[0].folder)  # as the other process does, which was refused before
        raise UserError('too few words')

    monkeypatch.setattr(preparation, '_train_tokenizer', refused)
    with pytest.raises(UserError, match='too few words'):
        prepare(recipe, tmp_path, Work(1))


def test_documents_of_markup_alone_are_no_corpus(recipe, tmp_path, corpus):
    path = tmp_path / 'empty.jsonl'
    path.write_text(json.dumps({'text': ' \n '}) + '\n')
    with pytest.raises(UserError, match='no document'):
        prepare(
            recipe._replace(
                source=f'jsonl:{path}', tokenizer=str(corpus.folder / 'tokenizer.model')
            ),
            tmp_path / 'cache',
            Work(1),
        )
    with pytest.raises(UserError, match='no document'):
        prepare(recipe._replace(source=f'jsonl:{path}'), tmp_path / 'cache', Work(1))


def test_documents_of_which_the_tokenizer_leaves_nothing_are_no_corpus(recipe, tmp_path):
    pieces = tmp_path / 'vocab.txt'
    pieces.write_text('[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n')
    path = tmp_path / 'marks.jsonl'
    path.write_text(json.dumps({'text': '\u200b\u200b'}) + '\n')  # BERT drops such characters
    marks = recipe._replace(source=f'jsonl:{path}', tokenizer=str(pieces))
    with pytest.raises(UserError, match='no document with text'):
        prepare(marks, tmp_path / 'cache', Work(1))


def test_a_full_disk_is_said_in_one_line(recipe, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(shards, 'write_whole', full)
    with pytest.raises(UserError, match=r'cannot make the corpus .*No space left on device'):
        prepare(recipe, tmp_path / 'cache', Work(1))


def test_shares_of_many_machines_make_the_same_corpus(recipe, corpus, tmp_path):
    count = len(corpus.manifest['shards'])
    for share in (2, 0, 1):
        folder = prepare(recipe, tmp_path, Work(1, (share, 3)))
        assert (folder / 'manifest.json').exists() == (share == 1)
        there = [int(path.name[-5:]) for path in folder.glob('shard-*')]
        ended = (2, 0, 1)[: (2, 0, 1).index(share) + 1]
        assert sorted(there) == [n for n in range(count) if n % 3 in ended]
    assert content(folder) == content(corpus.folder)


def test_more_shares_than_units(recipe, corpus, tmp_path):
    few = recipe._replace(shard_megabytes=1.0)
    assert not (prepare(few, tmp_path, Work(1, (3, 4))) / 'manifest.json').exists()
    folder = prepare(few, tmp_path, Work(1, (0, 4)))
    assert len(Corpus(folder).manifest['shards']) == 1


@pytest.mark.parametrize('processes', [1, 2])
def test_copies_are_taken_out_wherever_they_stand(recipe, documents, tmp_path, processes):
    folder = tmp_path / 'text'
    folder.mkdir()
    texts = documents[:30] + documents[10:40] + documents[5:8]
    for i, text in enumerate(texts):
        (folder / f'{i:03d}.txt').write_text(text)
    once = recipe._replace(source=f'text:{folder}', filters=('duplicates',))
    made = Corpus(prepare(once, tmp_path / 'cache', Work(processes)))
    assert made.manifest['removed'] == {'duplicates': 23}
    assert made.total('all', 'documents') == sum(made.manifest['lengths']) == 40
    assert made.total('all', 'bytes') == sum(len(text.encode()) for text in documents[:40])
    found = []
    for number, split, _, _ in made.parts('all'):
        part = shards.open_part(shards.shard_folder(made.folder, number), split)
        ends = [*part.documents[1:], len(part.tokens)]
        found += [made.tokenizer.decode(part.tokens[b:e]) for b, e in zip(part.documents, ends)]
        assert set(part.documents) <= set(part.sentences)
    assert sorted(found) == sorted(documents[:40])
    assert not list(made.folder.glob('unit-*'))
    counts = sum(
        np.bincount(
            shards.open_part(shards.shard_folder(made.folder, n), 'train').tokens,
            minlength=len(made.counts_V),
        )
        for n in range(len(made.manifest['shards']))
    )
    np.testing.assert_array_equal(made.counts_V, counts)


def test_copies_out_killed_between_shards(recipe, documents, tmp_path, monkeypatch):
    once = recipe._replace(filters=('duplicates',))
    whole = content(prepare(once, tmp_path / 'whole', Work(1)))
    rewrite = duplicates._rewrite

    def break_off(unit, *rest):
        if unit.name.endswith('2'):
            raise KeyboardInterrupt
        rewrite(unit, *rest)

    monkeypatch.setattr(duplicates, '_rewrite', break_off)
    with pytest.raises(KeyboardInterrupt):
        prepare(once, tmp_path / 'cut', Work(1))
    monkeypatch.undo()
    assert content(prepare(once, tmp_path / 'cut', Work(1))) == whole


def test_filters_are_counted(recipe, tmp_path):
    (tmp_path / 'a.txt').write_text('Here is one line. And two. And three.\nno end\ntoo short.')
    (tmp_path / 'b.txt').write_text('A curly { bracket of code is in here.')
    filtered = recipe._replace(
        source=f'text:{tmp_path}', filters=('c4',), vocabulary_size=280, validation_fraction=0.0
    )
    made = Corpus(prepare(filtered, tmp_path / 'cache', Work(1)))
    assert made.manifest['removed'] == {'braces': 1, 'line_ends': 1, 'line_words': 1}
    assert made.total('all', 'documents') == 1
    assert made.total('train', 'bytes') == 37


def test_a_source_with_its_own_validation_split_holds_out_nothing_else(
    recipe, documents, corpus, tmp_path
):
    for name, some in (('train', documents[:50]), ('validation', documents[50:])):
        with gzip.open(tmp_path / f'c4-{name}.00000-of-00001.json.gz', 'wt') as file:
            file.write(''.join(json.dumps({'text': text}) + '\n' for text in some))
    given = str(corpus.folder / 'tokenizer.model')
    made = Corpus(prepare(
        recipe._replace(source=f'c4:{tmp_path}', tokenizer=given), tmp_path / 'cache', Work(1)
    ))  # fmt: skip
    assert made.total('train', 'documents') == 50
    assert made.total('validation', 'documents') == 10


def test_bad_input_of_any_shard_stops_all_and_what_is_whole_is_kept(
    recipe, documents, corpus, tmp_path
):
    path = tmp_path / 'a.jsonl'
    rows = [json.dumps({'text': text}) for text in documents]
    rows[40] = '{"text": '
    path.write_text('\n'.join(rows) + '\n')
    bad = recipe._replace(source=f'jsonl:{path}', tokenizer=str(corpus.folder / 'tokenizer.model'))
    with pytest.raises(UserError, match=f'{path}, line 41: no JSON'):
        prepare(bad, tmp_path / 'cache', Work(1))
    [folder] = (tmp_path / 'cache').iterdir()
    before = {path.name for path in folder.glob('shard-*')}
    assert 'shard-00000' in before
    made = Corpus(prepare(bad, tmp_path / 'cache', Work(2, skip=True)))
    assert made.folder == folder
    assert made.manifest['skipped'] == {'no_json': 1}
    assert f'{path}, line 41: no JSON' in made.manifest['examples']['no_json'][0]
    assert made.total('all', 'documents') == len(documents) - 1


def test_a_tokenizer_is_trained_on_a_part_of_every_unit(recipe, documents, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        preparation.tokenizer, 'train', lambda texts, _: read.extend(texts) or 1 / 0
    )
    size = sum(map(len, documents))
    for megabytes in (1.0, 0.3 * size / 1e6):
        read.clear()
        with pytest.raises(ZeroDivisionError):
            prepare(recipe._replace(tokenizer_megabytes=megabytes), tmp_path, Work(1))
        places = sorted(documents.index(text) for text in read)
        if megabytes == 1.0:
            assert len(read) > 0.6 * len(documents)
            assert read == [documents[place] for place in places]
        else:
            assert 0.3 * size <= sum(map(len, read)) < 0.45 * size
            assert len({place // 10 for place in places}) >= 4  # of 6
