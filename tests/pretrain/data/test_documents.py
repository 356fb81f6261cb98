"""Sources: what is read, in which order, in which units, and what is said about bad input."""

import bz2
import gzip
import json
import os
import pickle
import tracemalloc
from pathlib import Path

import pytest
from gensim.test.utils import datapath

from pretrain.data.bad_input import Tally
from pretrain.data.documents import open_source
from pretrain.errors import UserError

EXCERPT = Path(datapath('enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2'))


def texts(source, megabytes=1000.0, tally=None):
    tally = tally or Tally()
    return [text for unit in source.units(megabytes) for text in source.documents(unit, tally)]


def error_of(source, field='text', read=False):
    def use():
        opened = open_source(source, field)
        if read:
            texts(opened)

    with pytest.raises(UserError) as caught:
        use()
    message = str(caught.value)
    assert '\n' not in message
    return message


def test_wikipedia_excerpt():
    source = open_source('wikipedia:excerpt')
    found = texts(source)
    assert source.name == 'wikipedia-excerpt'
    assert source.size == EXCERPT.stat().st_size
    assert len(found) == 106
    assert texts(source, 1.0) == found
    first = pickle.loads(pickle.dumps(source)).clean(found[0])
    assert first.startswith('Anarchism is a political philosophy that advocates self-governed')


def test_a_folder_of_dumps(tmp_path):
    content = bz2.decompress(EXCERPT.read_bytes())
    (tmp_path / 'articles1.xml').write_bytes(content)
    (tmp_path / 'articles2.xml.gz').write_bytes(gzip.compress(content, 1))
    source = open_source(f'wikipedia:{tmp_path}')
    once = texts(open_source('wikipedia:excerpt'))
    assert texts(source) == once + once
    assert open_source(f'wikipedia:{tmp_path}/articles1.xml').name == 'wikipedia-articles1'


def test_text_is_left_as_it_is(tmp_path):
    (tmp_path / 'My Book.txt').write_bytes('\ufeffOne\r\n\r\n two\t<b>&amp; é \r x \n'.encode())
    source = open_source(f'text:{tmp_path}/My Book.txt')
    assert source.name == 'text-my-book'
    [text] = texts(source)
    assert text == source.clean(text) == 'One\n\n two\t<b>&amp; é \r x \n'
    assert source.clean(' \n\t') == ''


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b' / 'z.txt').write_text('third')
    (tmp_path / 'a.txt').write_text('first')
    (tmp_path / 'b' / 'a.txt.gz').write_bytes(gzip.compress(b'second'))
    (tmp_path / 'c.txt').write_text(' \n ')
    (tmp_path / 'e.md').write_text('no')
    (tmp_path / '.f.txt').write_text('no')
    assert texts(open_source(f'text:{tmp_path}')) == ['first', 'second', 'third']


def test_a_long_text_is_cut_at_paragraph_ends(tmp_path):
    paragraph = 'Ein schöner Satz — mit Strich.\r\n' * 20 + '\r\n'
    text = paragraph * 500
    (tmp_path / 'long.txt').write_bytes(text.encode())
    source = open_source(f'text:{tmp_path}/long.txt')
    pieces = texts(source)
    assert ''.join(pieces) == text.replace('\r\n', '\n')
    assert all(piece.endswith('\n\n') for piece in pieces)
    assert all(50_000 <= len(piece) <= 150_000 for piece in pieces)
    assert len(pieces) in (3, 4)
    assert ''.join(texts(source, 0.1)) == text.replace('\r\n', '\n')


def test_text_without_any_space_is_cut_and_whole(tmp_path):
    text = 'ü' * 250_001
    (tmp_path / 'odd.txt').write_bytes(text.encode())
    pieces = texts(open_source(f'text:{tmp_path}/odd.txt'))
    assert ''.join(pieces) == text
    assert max(map(len, pieces)) <= 150_000


def test_text_is_read_in_constant_memory(tmp_path):
    with open(tmp_path / 'big.txt', 'w') as file:
        for _ in range(100):
            file.write('Some words of a paragraph.\n\n' * 2000)
    source = open_source(f'text:{tmp_path}/big.txt')
    [unit] = source.units(1000.0)
    tracemalloc.start()
    total = sum(map(len, source.documents(unit, Tally())))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == source.size == 5_600_000
    assert peak < 3_000_000


def write_lines(path, *documents, end='\n', opener=open):
    with opener(path, 'wt', encoding='utf-8') as file:
        file.write('\n'.join(d if isinstance(d, str) else json.dumps(d) for d in documents) + end)


def test_json_lines(tmp_path):
    write_lines(
        tmp_path / 'b.jsonl', {'text': 'two\u2028lines', 'x': 1}, '', {'text': '  '}, end=''
    )
    write_lines(tmp_path / 'a.json.gz', {'text': 'one', 'url': 'u'}, opener=gzip.open)
    write_lines(tmp_path / 'c.jsonl.gz', {'text': 'é\r\n'}, opener=gzip.open)
    write_lines(tmp_path / 'd.json', {'text': 'no'})
    assert texts(open_source(f'jsonl:{tmp_path}')) == ['one', 'two\u2028lines', 'é\n']
    write_lines(tmp_path / 'one.jsonl', {'body': 'other'})
    assert texts(open_source(f'jsonl:{tmp_path}/one.jsonl', 'body')) == ['other']


def test_c4_as_published(tmp_path, capsys):
    for name in ('train.00001-of-01024', 'train.00000-of-01024', 'validation.00000-of-00008'):
        write_lines(
            tmp_path / f'c4-{name}.json.gz',
            {'text': name, 'timestamp': '2019-04-25T12:57:54Z', 'url': 'http://a.b'},
            opener=gzip.open,
        )
    write_lines(tmp_path / 'other.json.gz', {'text': 'no'}, opener=gzip.open)
    source = open_source(f'c4:{tmp_path}')
    units = source.units(1000.0)
    assert [unit.split for unit in units] == ['train', 'validation']
    assert texts(source) == [
        'train.00000-of-01024', 'train.00001-of-01024', 'validation.00000-of-00008'
    ]  # fmt: skip
    pointer = b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 318\n'
    (tmp_path / 'c4-train.00002-of-01024.json.gz').write_bytes(pointer)
    capsys.readouterr()
    assert texts(open_source(f'c4:{tmp_path}')) == texts(source)
    assert '1 files are left out, which git lfs has not pulled' in capsys.readouterr().out
    assert 'a pointer of git-lfs, not the file' in error_of(
        f'jsonl:{tmp_path}/c4-train.00002-of-01024.json.gz'
    )
    for path in tmp_path.glob('c4-train.*'):
        path.unlink()
    assert 'no c4-train.*.json.gz in it' in error_of(f'c4:{tmp_path}')
    (tmp_path / 'c4-validation.00000-of-00008.json.gz').unlink()
    assert 'no file in it is named c4-*.json.gz' in error_of(f'c4:{tmp_path}')


def test_units_depend_on_sizes_alone(tmp_path):
    for i in range(10):
        write_lines(tmp_path / f'{i}.jsonl', *({'text': f'{i} {j}'} for j in range(1 + 20 * i)))
    source = open_source(f'jsonl:{tmp_path}')
    whole = texts(source)
    for megabytes in (1.0, 0.002, 0.0005, 0.00003):
        units = source.units(megabytes)
        assert units == source.units(megabytes)
        assert texts(source, megabytes) == whole
        sizes = [sum(extent.weight for extent in unit.extents) for unit in units]
        # A unit ends with the piece that fills it: none is much larger than was asked for.
        assert max(sizes) <= max(2.5e6 * megabytes, 4)
        assert sum(sizes) == pytest.approx(source.size, abs=len(units) + 10)
    assert len(source.units(1.0)) == 1
    assert len(source.units(0.00003)) > 300


BAD = {
    'an empty file': ('', [], 'empty_file', 'an empty file'),
    'a line of no JSON': (
        '{"text": "one"}\n{"text": \n{"text": "two"}', ['one', 'two'], 'no_json', 'line 2: no JSON'
    ),
    'a list': ('["x"]\n{"text": "two"}', ['two'], 'no_json', 'line 1: no JSON object but ["x"]'),
    'a cut last line': ('{"text": "one"}\n{"text": "tw', ['one'], 'cut_off', 'line 2: cut off'),
    'no such field': (
        '{"text": "one"}\n{"body": "y", "id": 1}\n', ['one'], 'no_text',
        "line 2: no field 'text' (its fields: body, id;",
    ),
    'a number': ('{"text": 3}\n{"text": "b"}', ['b'], 'no_text', "line 1: no text in field 'text'"),
    'NUL': ('{"text": "one"}\n{"text": "a\0"}\n', ['one'], 'nul', 'line 2: a NUL byte'),
    'nesting': ('[' * 100_000 + '\n{"text": "b"}\n', ['b'], 'no_json', 'line 1: no JSON'),
}  # fmt: skip


@pytest.mark.parametrize('name', BAD)
def test_bad_input_stops_or_is_skipped_and_counted(tmp_path, name):
    content, kept, kind, words = BAD[name]
    (tmp_path / 'a.jsonl').write_text(content)
    (tmp_path / 'b.jsonl').write_text('{"text": "last"}\n')
    message = error_of(f'jsonl:{tmp_path}', read=True)
    assert f'{tmp_path}/a.jsonl' in message
    assert words in message
    assert '--on_bad_input=skip' in message
    tally = Tally(skip=True)
    assert texts(open_source(f'jsonl:{tmp_path}'), tally=tally) == [*kept, 'last']
    assert tally.counts == {kind: 1}
    assert words in tally.examples[kind][0]


def test_a_cut_gz_is_read_up_to_its_end(tmp_path):
    path = tmp_path / 'a.jsonl.gz'
    write_lines(
        path, *({'text': f'{i} {os.urandom(50).hex()}'} for i in range(500)), opener=gzip.open
    )
    path.write_bytes(path.read_bytes()[:-5000])
    assert 'cut off' in error_of(f'jsonl:{path}', read=True)
    tally = Tally(skip=True)
    found = texts(open_source(f'jsonl:{path}'), tally=tally)
    assert [int(text.split()[0]) for text in found] == list(range(len(found)))
    assert 250 < len(found) < 500
    assert tally.counts == {'cut_off': 1}


def test_broken_pages_of_a_dump(tmp_path):
    page = '<page><title>{0}</title><ns>0</ns><revision><text>{0}</text></revision></page>'
    pages = [page.format('A'), page.format('B').replace('</text>', '<br></text>'), page.format('C')]
    (tmp_path / 'wiki.xml').write_text(
        f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{"".join(pages)}</mediawiki>'
    )
    message = error_of(f'wikipedia:{tmp_path}/wiki.xml', read=True)
    assert f"{tmp_path}/wiki.xml, page 'B': a page that is broken XML" in message
    tally = Tally(skip=True)
    assert texts(open_source(f'wikipedia:{tmp_path}/wiki.xml'), tally=tally) == ['A', 'C']
    assert tally.counts == {'no_xml': 1}


def test_fingerprint(tmp_path):
    def folder(name, content='{"text": "x"}', time=1):
        path = tmp_path / name / 'a.jsonl'
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        os.utime(path, (time, time))
        return path

    first = folder('one')
    mark = open_source(f'jsonl:{first.parent}').fingerprint()
    assert mark == open_source(f'jsonl:{folder("two").parent}').fingerprint()
    others = [
        open_source(f'jsonl:{first.parent}', 'body').fingerprint(),
        open_source(f'text:{first}').fingerprint(),
        open_source(f'jsonl:{folder("three", time=2).parent}').fingerprint(),
        open_source(f'jsonl:{folder("four", content="{} ").parent}').fingerprint(),
    ]
    (tmp_path / 'two' / 'a.jsonl').rename(tmp_path / 'two' / 'b.jsonl')
    others.append(open_source(f'jsonl:{tmp_path}/two').fingerprint())
    assert len({mark, *others}) == 6


def test_unknown_schemes():
    message = error_of('wikpedia:dump.xml')
    assert 'wikipedia:PATH, c4:PATH, text:PATH, jsonl:PATH' in message
    assert "did you mean 'wikipedia:dump.xml'" in message
    assert "'text:book.txt'" in error_of('book.txt')
    assert "'jsonl:/c4/en'" in error_of('json:/c4/en')
    assert "'wikipedia:excerpt'" in error_of('wikipedia')
    assert "'text:PATH'" in error_of('text:')


def test_nothing_there(tmp_path):
    assert f'{tmp_path}/no: no such file' in error_of(f'text:{tmp_path}/no')
    assert '.txt, .txt.gz' in error_of(f'text:{tmp_path}')
    assert '.jsonl, .jsonl.gz, .json.gz' in error_of(f'jsonl:{tmp_path}')
    assert '.xml, .xml.bz2' in error_of(f'wikipedia:{tmp_path}')
    (tmp_path / 'a.txt').touch()
    assert f'{tmp_path}/a.txt: is empty' in error_of(f'text:{tmp_path}/a.txt')
    assert 'holds only empty files' in error_of(f'text:{tmp_path}')


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read anything')
def test_a_file_without_rights(tmp_path):
    (tmp_path / 'a.txt').write_text('x')
    (tmp_path / 'a.txt').chmod(0)
    assert 'cannot be read (Permission denied)' in error_of(f'text:{tmp_path}')


def test_files_of_another_kind(tmp_path):
    for name, scheme in (('a.txt.gz', 'text'), ('a.xml.bz2', 'wikipedia')):
        (tmp_path / name).write_bytes(b'plain text')
        assert f"no {name[-3:].strip('.')} file, it begins with b'pla'" in error_of(
            f'{scheme}:{tmp_path}/{name}'
        )
    (tmp_path / 'b.txt').write_text('fine')
    tally = Tally(skip=True)
    source = open_source(f'text:{tmp_path}', skip=True)
    assert [t for unit in source.units(1.0) for t in source.documents(unit, tally)] == ['fine']
    assert tally.counts == {'unreadable': 1}
    (tmp_path / 'page.xml').write_text('<html><body>x</body></html>')
    assert 'no MediaWiki dump' in error_of(f'wikipedia:{tmp_path}/page.xml')
    (tmp_path / 'words.xml').write_text('no xml')
    assert 'no MediaWiki dump' in error_of(f'wikipedia:{tmp_path}/words.xml')
    (tmp_path / 'head.xml.bz2').write_bytes(EXCERPT.read_bytes()[:5000])
    assert 'no MediaWiki dump' in error_of(f'wikipedia:{tmp_path}/head.xml.bz2')
