"""Sources: what is read, in which order, and what is said about bad input."""

import bz2
import gzip
import json
import os
import pickle
import tracemalloc
from pathlib import Path

import pytest
from gensim.test.utils import datapath

from pretrain.data.documents import open_source
from pretrain.errors import UserError

EXCERPT = Path(datapath('enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2'))


def texts(source):
    return [record.raw for record in source.records()]


def error_of(source, field='text', read=False):
    def use():
        opened = open_source(source, field)
        if read:
            list(opened.records())

    with pytest.raises(UserError) as caught:
        use()
    message = str(caught.value)
    assert '\n' not in message
    return message


def test_wikipedia_excerpt():
    source = open_source('wikipedia:excerpt')
    records = list(source.records())
    assert source.name == 'wikipedia-excerpt'
    assert source.size == records[-1].position == EXCERPT.stat().st_size
    assert len(records) == 106
    assert source.losses == []
    first = pickle.loads(pickle.dumps(source)).clean(records[0].raw)
    assert first.startswith('Anarchism is a political philosophy that advocates self-governed')


def test_plain_xml_reads_as_the_compressed_dump(tmp_path):
    (tmp_path / 'wiki.xml').write_bytes(bz2.decompress(EXCERPT.read_bytes()))
    source = open_source(f'wikipedia:{tmp_path}/wiki.xml')
    assert source.name == 'wikipedia-wiki'
    assert texts(source) == texts(open_source('wikipedia:excerpt'))


def test_several_compressed_streams_are_one_dump(tmp_path):
    content = bz2.decompress(EXCERPT.read_bytes())
    half = len(content) // 2
    dump = tmp_path / 'multistream.xml.bz2'
    dump.write_bytes(bz2.compress(content[:half]) + bz2.compress(content[half:]))
    source = open_source(f'wikipedia:{dump}')
    assert len(texts(source)) == 106
    assert source.losses == []


@pytest.mark.parametrize('share', [0.4, 0.9])
def test_a_truncated_dump_is_read_up_to_its_end(tmp_path, share):
    content = EXCERPT.read_bytes()
    dump = tmp_path / 'cut.xml.bz2'
    dump.write_bytes(content[: int(share * len(content))])
    source = open_source(f'wikipedia:{dump}')
    found = texts(source)
    whole = texts(open_source('wikipedia:excerpt'))
    # Compression works in blocks of 900,000 bytes: at most one of them is lost.
    assert found == whole[: len(found)]
    assert len(found) > 106 * (share - 0.25)
    size = dump.stat().st_size
    assert source.losses == [
        f'{dump} ends early at byte {size} of {size}: {len(found)} pages read, the tail is lost'
    ]
    assert texts(source) == found
    assert len(source.losses) == 1


def test_a_damaged_or_cut_plain_dump(tmp_path):
    content = bytearray(EXCERPT.read_bytes())
    content[1_000_000:1_000_100] = bytes(100)
    dump = tmp_path / 'damaged.xml.bz2'
    dump.write_bytes(content)
    source = open_source(f'wikipedia:{dump}')
    count = len(texts(source))
    assert 10 < count < 106
    assert len(source.losses) == 1
    assert f'{dump} is damaged at byte ' in source.losses[0]
    assert f'of {len(content)}: {count} pages read' in source.losses[0]

    plain = tmp_path / 'cut.xml'
    plain.write_bytes(bz2.decompress(EXCERPT.read_bytes())[:3_000_000])
    source = open_source(f'wikipedia:{plain}')
    count = len(texts(source))
    assert source.losses == [
        f'{plain} ends early at byte 3000000 of 3000000: {count} pages read, the tail is lost'
    ]

    plain.write_bytes(plain.read_bytes()[:2_000_000] + b'</nothing>' * 3)
    source = open_source(f'wikipedia:{plain}')
    assert len(texts(source)) < count
    assert 'is broken XML (mismatched tag' in source.losses[0]


def test_text_is_left_as_it_is(tmp_path):
    (tmp_path / 'My Book.txt').write_bytes('\ufeffOne\r\n\r\n two\t<b>&amp; é \r x \n'.encode())
    source = open_source(f'text:{tmp_path}/My Book.txt')
    assert source.name == 'text-my-book'
    [record] = source.records()
    assert record.raw == source.clean(record.raw) == 'One\n\n two\t<b>&amp; é \r x \n'
    assert record.position == source.size == (tmp_path / 'My Book.txt').stat().st_size
    assert source.clean(' \n\t') == ''


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b' / 'z.txt').write_text('third')
    (tmp_path / 'a.txt').write_text('first')
    (tmp_path / 'b' / 'a.txt.gz').write_bytes(gzip.compress(b'second'))
    (tmp_path / 'c.txt').write_text(' \n ')
    (tmp_path / 'd.txt').write_text('')
    (tmp_path / 'e.md').write_text('no')
    (tmp_path / '.f.txt').write_text('no')
    source = open_source(f'text:{tmp_path}')
    records = list(source.records())
    assert [record.raw for record in records] == ['first', 'second', 'third']
    assert [record.position for record in records] == sorted(r.position for r in records)


def test_a_long_text_is_cut_at_paragraph_ends(tmp_path):
    paragraph = 'Ein schöner Satz — mit Strich.\r\n' * 20 + '\r\n'
    text = paragraph * 500
    (tmp_path / 'long.txt').write_bytes(text.encode())
    pieces = texts(open_source(f'text:{tmp_path}/long.txt'))
    assert ''.join(pieces) == text.replace('\r\n', '\n')
    assert all(piece.endswith('\n\n') for piece in pieces)
    assert all(50_000 <= len(piece) <= 150_000 for piece in pieces)
    assert len(pieces) in (3, 4)


def test_text_without_any_space_is_cut_and_whole(tmp_path):
    text = 'ü' * 250_001
    (tmp_path / 'odd.txt').write_bytes(text.encode())
    pieces = texts(open_source(f'text:{tmp_path}/odd.txt'))
    assert ''.join(pieces) == text
    assert max(map(len, pieces)) <= 150_000


def test_text_is_read_in_constant_memory(tmp_path):
    with open(tmp_path / 'big.txt', 'w') as file:
        for _ in range(200):
            file.write('Some words of a paragraph.\n\n' * 2000)
    source = open_source(f'text:{tmp_path}/big.txt')
    tracemalloc.start()
    total = sum(len(record.raw) for record in source.records())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == source.size == 11_200_000
    assert peak < 2_000_000


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
    source = open_source(f'jsonl:{tmp_path}')
    assert texts(source) == ['one', 'two\u2028lines', 'é\n']
    assert source.losses == []
    write_lines(tmp_path / 'one.jsonl', {'body': 'other'})
    assert texts(open_source(f'jsonl:{tmp_path}/one.jsonl', 'body')) == ['other']


def test_a_cut_last_line_is_lost(tmp_path):
    path = tmp_path / 'a.jsonl'
    write_lines(path, {'text': 'one'}, {'text': 'two'}, '{"text": "thr', end='')
    source = open_source(f'jsonl:{path}')
    assert texts(source) == ['one', 'two']
    assert source.losses == [f'{path} ends early in line 3: 2 documents read, the tail is lost']


def test_a_cut_gz_is_read_up_to_its_end(tmp_path):
    path = tmp_path / 'a.jsonl.gz'
    write_lines(
        path, *({'text': f'{i} {os.urandom(50).hex()}'} for i in range(500)), opener=gzip.open
    )
    path.write_bytes(path.read_bytes()[:-5000])
    source = open_source(f'jsonl:{path}')
    found = texts(source)
    assert [int(text.split()[0]) for text in found] == list(range(len(found)))
    assert 250 < len(found) < 500
    size = path.stat().st_size
    assert source.losses == [
        f'{path} ends early at byte {size} of {size}: {len(found)} documents read, the tail is lost'
    ]


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
    assert 'wikipedia:PATH, text:PATH, jsonl:PATH' in message
    assert "did you mean 'wikipedia:dump.xml'" in message
    assert "'text:book.txt'" in error_of('book.txt')
    assert "'jsonl:/c4/en'" in error_of('json:/c4/en')
    assert "'wikipedia:excerpt'" in error_of('wikipedia')
    assert "'text:PATH'" in error_of('text:')


def test_nothing_there(tmp_path):
    assert f'{tmp_path}/no: no such file' in error_of(f'text:{tmp_path}/no')
    assert '.txt, .txt.gz' in error_of(f'text:{tmp_path}')
    assert '.jsonl, .jsonl.gz, .json.gz' in error_of(f'jsonl:{tmp_path}')
    assert 'a folder' in error_of(f'wikipedia:{tmp_path}')
    (tmp_path / 'a.txt').touch()
    assert f'{tmp_path}/a.txt: is empty' in error_of(f'text:{tmp_path}/a.txt')
    assert 'holds only empty files' in error_of(f'text:{tmp_path}')
    (tmp_path / 'a.txt').write_text(' \n')
    assert 'no document' in error_of(f'text:{tmp_path}', read=True)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read anything')
def test_a_file_without_rights(tmp_path):
    (tmp_path / 'a.txt').write_text('x')
    (tmp_path / 'a.txt').chmod(0)
    assert 'cannot be read (Permission denied)' in error_of(f'text:{tmp_path}')


def test_files_of_another_kind(tmp_path):
    (tmp_path / 'nul.txt').write_bytes(b'x' * 70_000 + b'\0')
    assert 'NUL byte, at byte 70000)' in error_of(f'text:{tmp_path}/nul.txt', read=True)
    (tmp_path / 'latin.txt').write_bytes(b'a' * 65_535 + 'é'.encode() + b'caf\xe9 x')
    assert 'no UTF-8, at byte 65540)' in error_of(f'text:{tmp_path}/latin.txt', read=True)
    (tmp_path / 'end.txt').write_bytes(b'ab\xc3')
    assert 'at byte 2)' in error_of(f'text:{tmp_path}/end.txt', read=True)
    (tmp_path / 'latin.jsonl').write_bytes(b'{"text": "x"}\n{"text": "\xe9"}\n')
    assert 'no UTF-8 in line 2, at byte 24)' in error_of(f'jsonl:{tmp_path}/latin.jsonl', read=True)
    for name, scheme in (('a.txt.gz', 'text'), ('a.xml.bz2', 'wikipedia')):
        (tmp_path / name).write_bytes(b'plain text')
        assert f"no {name[-3:].strip('.')} file, it begins with b'pla'" in error_of(
            f'{scheme}:{tmp_path}/{name}'
        )
    (tmp_path / 'page.xml').write_text('<html><body>x</body></html>')
    assert 'no MediaWiki dump' in error_of(f'wikipedia:{tmp_path}/page.xml')
    (tmp_path / 'words.xml').write_text('no xml')
    assert 'no MediaWiki dump' in error_of(f'wikipedia:{tmp_path}/words.xml')
    (tmp_path / 'head.xml.bz2').write_bytes(EXCERPT.read_bytes()[:5000])
    assert 'ends early at byte 5000 of 5000' in error_of(f'wikipedia:{tmp_path}/head.xml.bz2')
    (tmp_path / 'none.xml').write_text(
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/"><siteinfo/></mediawiki>'
    )
    assert 'no document in it' in error_of(f'wikipedia:{tmp_path}/none.xml', read=True)


def test_bad_json_lines(tmp_path):
    path = tmp_path / 'a.jsonl'
    for lines, field, expected in (
        (
            ({'text': 'x'}, {'body': 'y', 'id': 1}),
            'text',
            ['line 2', "no field 'text'", 'body, id'],
        ),
        (({'text': 3},), 'text', ['line 1', "no text in field 'text'"]),
        (({'text': 'x'}, '{"text": ', {'text': 'z'}), 'text', ['line 2', 'no JSON']),
        (('["x"]',), 'text', ['line 1', 'no JSON object but ["x"]']),
    ):
        write_lines(path, *lines)
        message = error_of(f'jsonl:{path}', field, read=True)
        assert all(part in message for part in [str(path), *expected])
