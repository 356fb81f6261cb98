"""Pages of dumps against gensim's reader, from their start and from anywhere else."""

import bz2
import gzip
import random
import tracemalloc
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gensim.corpora import wikicorpus
from gensim.test.utils import datapath

from pretrain.data import files, wikipedia_dump
from pretrain.data.bad_input import Tally
from pretrain.errors import UserError

EXCERPT = Path(datapath('enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2'))
HEAD = b'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" xml:lang="en">'
LAST = b'</mediawiki>'


def page(title, text, space=0, more=''):
    return (
        f'<page><title>{title}</title><ns>{space}</ns>{more}<revision><text>{text}</text>'
        '</revision></page>'
    ).encode()


def write(folder, data, name='wiki.xml'):
    (folder / name).write_bytes(data)
    return files.find(folder / name, ())[0]


def pages_of(file, target=1e9, tally=None):
    return [
        xml
        for extent in files.divide(file, target)
        for _, xml in wikipedia_dump.pages(files.Content(extent, tally or Tally()))
    ]


def articles_of(file, target=1e9, tally=None):
    texts = (
        wikipedia_dump.article(xml, wikipedia_dump.ENGLISH) for xml in pages_of(file, target, tally)
    )
    return [text for text in texts if text]


@pytest.fixture(scope='module')
def expected():
    with bz2.open(EXCERPT) as dump:
        pages = [text for _, text, _ in wikicorpus.extract_pages(dump, ('0',))]
    return [text for text in pages if text and not text.lower().startswith('#redirect')]


@pytest.mark.parametrize('target', [1e9, 4e6, 1e6, 3e5])
def test_reads_the_articles_that_gensim_reads_however_it_is_divided(expected, target):
    [file] = files.find(EXCERPT, ())
    assert articles_of(file, target) == expected
    assert len(expected) == 106


@pytest.mark.parametrize('suffix', ['', '.gz', '.bz2'])
def test_a_multistream_dump_and_other_packings(expected, tmp_path, suffix):
    content = bz2.decompress(EXCERPT.read_bytes())
    if suffix == '.bz2':  # streams of a hundred pages as Wikimedia's multistream dumps
        cuts = sorted(random.Random(0).sample(range(len(content)), 30))
        pairs = zip([0, *cuts], [*cuts, len(content)], strict=True)
        packed = b''.join(bz2.compress(content[a:b]) for a, b in pairs)
    else:
        packed = gzip.compress(content, 1) if suffix else content
    file = write(tmp_path, packed, 'wiki.xml' + suffix)
    assert articles_of(file) == articles_of(file, 5e5) == expected


def test_pages_of_all_extents_are_those_of_the_file(tmp_path):
    rng = random.Random(0)
    pages = [page(f'P{i}', 'x' * rng.randrange(200)) for i in range(60)]
    blanks = [b'\n ' * rng.randrange(3) for _ in pages]
    file = write(tmp_path, HEAD + b''.join(b + p for b, p in zip(blanks, pages)) + LAST)
    for target in (1e9, 3000, 200, 31, 9):
        assert pages_of(file, target) == pages


def test_drops_redirects_and_other_namespaces(tmp_path):
    chunks = [
        HEAD,
        page('One', 'first'),
        page('Two', ' #Redirect [[One]]'),
        page('Three', 'gone', more='<redirect title="One" />'),
        page('Talk:One', 'talk', space=1),
        page('Wikipedia:Four', 'project'),
        page('Star Wars: A New Hope', 'last'),
        LAST,
    ]
    assert articles_of(write(tmp_path, b''.join(chunks))) == ['first', 'last']


def test_reads_a_wikis_own_namespaces():
    with bz2.open(datapath('bgwiki-latest-pages-articles-shortened.xml.bz2')) as dump:
        site = wikipedia_dump.read_site(iter(lambda: dump.read(1 << 14), b''))
    assert {'файл', 'категория', 'file', 'category'} <= site.media
    assert 'потребител' in site.all
    with pytest.raises(ValueError, match='<html>'):
        wikipedia_dump.read_site([b'<html><body/></html>'])


@pytest.mark.parametrize('target', [1e9, 40])
@pytest.mark.parametrize('tail', [b'', b'<pa', b'<page><title>Cut</title><ti', b'</media'])
def test_a_dump_that_is_cut_off_says_so_once(tmp_path, tail, target):
    file = write(tmp_path, HEAD + page('A', 'x') + page('B', 'y') + tail)
    with pytest.raises(UserError, match=r'wiki\.xml: cut off, it has no end tag'):
        pages_of(file, target)
    tally = Tally(skip=True)
    assert articles_of(file, target, tally) == ['x', 'y']
    assert tally.counts == {'cut_off': 1}


@pytest.mark.parametrize('share', [0.4, 0.9])
@pytest.mark.parametrize('target', [1e9, 1e6])
def test_a_truncated_dump_is_read_up_to_its_end(expected, tmp_path, share, target):
    content = EXCERPT.read_bytes()
    file = write(tmp_path, content[: int(share * len(content))], 'cut.xml.bz2')
    with pytest.raises(UserError, match=r'cut\.xml\.bz2: cut off'):
        articles_of(file, target)
    tally = Tally(skip=True)
    found = articles_of(file, target, tally)
    assert tally.counts == {'cut_off': 1}
    # Compression works in blocks of 900,000 bytes: at most one of them is lost.
    assert found == expected[: len(found)]
    assert len(found) > 106 * (share - 0.25)


def test_damage_costs_what_stands_in_its_extent_alone(expected, tmp_path):
    content = bytearray(EXCERPT.read_bytes())
    content[1_000_000:1_000_100] = bytes(100)
    file = write(tmp_path, bytes(content), 'damaged.xml.bz2')
    tally = Tally(skip=True)
    found = articles_of(file, 1e6, tally)
    assert tally.counts == {'damaged': 1}
    assert set(found) < set(expected)
    assert found[-1] == expected[-1]
    assert len(articles_of(file, 1e9, Tally(skip=True))) < len(found)


def test_a_page_without_an_end_is_passed(tmp_path, monkeypatch):
    monkeypatch.setattr(wikipedia_dump, 'LONGEST_PAGE', 100_000)
    lost = b'<page><title>Lost</title>' + b'x' * 300_000
    file = write(tmp_path, HEAD + page('A', 'x') + lost + page('B', 'y') + LAST)
    tally = Tally(skip=True)
    assert articles_of(file, 1e9, tally) == ['x', 'y']
    assert tally.examples['no_xml'] == [f"{file.path}, page 'Lost': a page without an end"]


@pytest.mark.parametrize('target', [1e9, 200, 31, 9])
def test_a_page_without_an_end_takes_no_other_with_it(tmp_path, target):
    lost = b'<page><title>Lost</title>' * 2
    file = write(tmp_path, HEAD + page('A', 'x') + lost + page('B', 'y') + LAST)
    tally = Tally(skip=True)
    assert articles_of(file, target, tally) == ['x', 'y']
    assert set(tally.counts) == {'no_xml'}
    with pytest.raises(UserError, match="page 'Lost': a page without an end"):
        pages_of(file, target)


def test_broken_xml_is_an_error_of_its_page():
    with pytest.raises(ElementTree.ParseError):
        wikipedia_dump.article(b'<page><title>A</page>', wikipedia_dump.ENGLISH)


def test_memory_does_not_grow_with_the_dump(tmp_path):
    file = write(tmp_path, HEAD + page('A', 'text') * 100_000 + LAST)
    tracemalloc.start()
    content = files.Content(files.Extent(file, 0, None, 0), Tally())
    count = sum(1 for _ in wikipedia_dump.pages(content))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 100_000
    # gensim's reader keeps 85 bytes of every page, which would be 8,500,000 here.
    assert peak < 1_000_000
