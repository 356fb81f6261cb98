import bz2
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from pretrain.data import preparation, shards
from pretrain.data.corpus import Corpus
from pretrain.data.preparation import prepare
from pretrain.errors import UserError


def content(folder):
    """Everything that is read of a corpus."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and path.name != '.lock' and '.windows-' not in path.name
    }


def test_two_processes_write_what_one_writes(recipe, corpus, tmp_path):
    assert len(corpus.manifest['shards']) > 2
    assert content(prepare(recipe, tmp_path, processes=2)) == content(corpus.folder)


def test_every_document_is_there_and_comes_back(corpus, documents):
    texts = []
    for number, split, _, _ in corpus.parts('all'):
        part = shards.open_part(corpus.folder, number, split)
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
        tmp_path / 'cache', 1,
    ))  # fmt: skip
    part = shards.open_part(made.folder, 0, 'train')
    assert len(part.sentences) == 4
    assert set(part.documents) <= set(part.sentences)


def test_a_second_call_finds_it_made(recipe, corpus, monkeypatch):
    monkeypatch.setattr(preparation, '_make', None)
    assert prepare(recipe, corpus.folder.parent) == corpus.folder


@pytest.mark.parametrize(
    'change', [{'validation_fraction': 0.3}, {'vocabulary_size': 300}, {'shard_megabytes': 0.003}]
)
def test_another_recipe_is_another_corpus(recipe, corpus, change):
    other = recipe._replace(**change)
    source = preparation.open_source(other.source, other.text_field)
    assert not corpus.folder.name.endswith(preparation._digest(other, source, None))


def test_copies_of_a_document_fall_into_one_split(recipe, documents, tmp_path):
    folder = tmp_path / 'text'
    folder.mkdir()
    for i, text in enumerate(documents + documents):
        (folder / f'{i:03d}.txt').write_text(text)
    made = Corpus(prepare(recipe._replace(source=f'text:{folder}'), tmp_path / 'cache', 1))
    texts = {'train': [], 'validation': []}
    for number, split, _, _ in made.parts('all'):
        part = shards.open_part(made.folder, number, split)
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
    made = Corpus(prepare(few, tmp_path / 'cache', 1))
    assert made.total('validation', 'documents') == 1
    assert made.total('train', 'documents') == 5


KILLED = """
import sys
from pretrain.data import preparation
recipe = preparation.Recipe(*{fields!r})
if __name__ == '__main__':
    print('begin', flush=True)
    preparation.prepare(recipe, {cache!r}, processes=2)
"""


def test_killed_at_any_moment_it_goes_on(recipe, corpus, tmp_path, environment):
    """kill -9 of the whole group at five moments, then once to the end: the same bytes."""
    cache = tmp_path / 'cache'
    script = tmp_path / 'prepare.py'
    script.write_text(KILLED.format(fields=tuple(recipe), cache=str(cache)))
    kills = 0
    for pause in (0.3, 0.7, 1.1, 1.6, 2.2):
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
    assert content(prepare(recipe, cache, processes=2)) == content(corpus.folder)


def test_shards_that_are_there_are_not_made_again(recipe, corpus, tmp_path, monkeypatch):
    copy = shutil.copytree(corpus.folder, tmp_path / corpus.folder.name)
    (copy / 'manifest.json').unlink()
    shutil.rmtree(shards.shard_folder(copy, 1))
    made = []
    write = shards.write_shard
    monkeypatch.setattr(
        preparation.concurrent.futures, 'ProcessPoolExecutor',
        lambda *_, **__: preparation.concurrent.futures.ThreadPoolExecutor(1),
    )  # fmt: skip
    monkeypatch.setattr(shards, 'write_shard', lambda *a: made.append(a[1]) or write(*a))
    assert content(prepare(recipe, tmp_path)) == content(corpus.folder)
    assert made == [1]


def test_a_given_tokenizer_is_used(recipe, corpus, tmp_path):
    given = recipe._replace(tokenizer=str(corpus.folder / 'tokenizer.model'), vocabulary_size=9999)
    made = Corpus(prepare(given, tmp_path, processes=1))
    assert made.tokenizer.digest == corpus.tokenizer.digest


def test_the_lost_tail_of_a_truncated_dump_is_said_and_the_rest_kept(tmp_path, recipe, capsys):
    page = (
        '<page><title>{0}</title><ns>0</ns><id>{0}</id><revision><id>1</id>'
        '<text xml:space="preserve">{1}</text></revision></page>'
    )
    prose = 'The city of {0} lies on a river and has a long history of trade and war. ' * 30
    xml = (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">'
        '<siteinfo><sitename>W</sitename><namespaces><namespace key="0"/></namespaces></siteinfo>'
        + ''.join(
            page.format(i, os.urandom(200).hex() + ' ' + prose.format(i)) for i in range(2000)
        )
        + '</mediawiki>'
    )
    packed = bz2.compress(xml.encode(), 1)
    dump = tmp_path / 'x-pages-articles.xml.bz2'
    dump.write_bytes(packed[: len(packed) * 2 // 3])
    made = Corpus(prepare(
        recipe._replace(source=f'wikipedia:{dump}', shard_megabytes=0.5), tmp_path / 'cache', 2
    ))  # fmt: skip
    assert 200 < made.total('all', 'documents') < 2000
    assert 'ends early' in made.manifest['losses'][0]
    assert 'ends early' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        ({'source': 'text:/nowhere/at/all'}, '/nowhere/at/all'),
        ({'source': 'txt:/tmp'}, 'txt'),
        ({'validation_fraction': 1.0}, 'data.validation_fraction=1.0'),
        ({'shard_megabytes': 0.0}, 'must be above 0'),
        ({'vocabulary_size': 8192}, 'too large for this text'),
        ({'tokenizer': '/nowhere/x.model'}, '/nowhere/x.model'),
    ],
)
def test_what_is_wrong_is_said_and_leaves_nothing(recipe, tmp_path, change, says):
    with pytest.raises(UserError, match=says):
        prepare(recipe._replace(**change), tmp_path / 'cache', 1)
    left = [p for p in (tmp_path / 'cache').rglob('*') if p.is_file() and p.name != '.lock']
    assert left == []


def test_documents_of_markup_alone_are_no_corpus(recipe, tmp_path, corpus):
    path = tmp_path / 'empty.jsonl'
    path.write_text(json.dumps({'text': ' \n '}) + '\n')
    with pytest.raises(UserError, match='no document'):
        prepare(
            recipe._replace(
                source=f'jsonl:{path}', tokenizer=str(corpus.folder / 'tokenizer.model')
            ),
            tmp_path / 'cache',
            1,
        )
    with pytest.raises(UserError, match='no document'):
        prepare(recipe._replace(source=f'jsonl:{path}'), tmp_path / 'cache', 1)


def test_a_full_disk_is_said_in_one_line(recipe, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(shards, 'write_whole', full)
    with pytest.raises(UserError, match=r'cannot make the corpus .*No space left on device'):
        prepare(recipe, tmp_path / 'cache', 1)
