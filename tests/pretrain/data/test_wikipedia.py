"""Pages of dumps against gensim's reader, and the cleaning against text worked out by hand."""

import bz2
import re
import tracemalloc
from xml.etree import ElementTree

import pytest
from gensim.corpora import wikicorpus
from gensim.test.utils import datapath

from pretrain.data import wikipedia

EXCERPT = datapath('enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2')
HEAD = b'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" xml:lang="en">'


@pytest.fixture(scope='module')
def articles():
    with bz2.open(EXCERPT) as dump:
        return list(wikipedia.pages(iter(lambda: dump.read(1 << 16), b''), wikipedia.ENGLISH))


@pytest.fixture(scope='module')
def cleaned(articles):
    return [wikipedia.clean(article) for article in articles]


def page(title, text, space=0, more=''):
    return (
        f'<page><title>{title}</title><ns>{space}</ns>{more}<revision><text>{text}</text>'
        '</revision></page>'
    ).encode()


def test_reads_the_articles_that_gensim_reads(articles):
    with bz2.open(EXCERPT) as dump:
        pages = [text for _, text, _ in wikicorpus.extract_pages(dump, ('0',))]
    expected = [text for text in pages if text and not text.lower().startswith('#redirect')]
    assert articles == expected
    assert len(articles) == 106


def test_drops_redirects_and_other_namespaces():
    chunks = [
        HEAD,
        page('One', 'first'),
        page('Two', ' #Redirect [[One]]'),
        page('Three', 'gone', more='<redirect title="One" />'),
        page('Talk:One', 'talk', space=1),
        page('Wikipedia:Four', 'project'),
        page('Star Wars: A New Hope', 'last'),
        b'</mediawiki>',
    ]
    assert list(wikipedia.pages(chunks, wikipedia.ENGLISH)) == ['first', 'last']


def test_reads_a_wikis_own_namespaces():
    with bz2.open(datapath('bgwiki-latest-pages-articles-shortened.xml.bz2')) as dump:
        site = wikipedia.read_site(iter(lambda: dump.read(1 << 14), b''))
    assert {'файл', 'категория', 'file', 'category'} <= site.media
    assert 'потребител' in site.all
    text = 'Едно изречение с [[Файл:x.jpg|мини|надпис]] връзка към [[София|столицата]] тук.'
    assert wikipedia.clean(text, site) == 'Едно изречение с връзка към столицата тук.'


def test_yields_whole_pages_before_the_damage():
    found = []
    with pytest.raises(ElementTree.ParseError):
        for text in wikipedia.pages([HEAD, page('A', 'x'), b'<page><ti'], wikipedia.ENGLISH):
            found.append(text)
    assert found == ['x']
    with pytest.raises(ValueError, match='<html>'):
        list(wikipedia.pages([b'<html><body/></html>'], wikipedia.ENGLISH))


def test_memory_does_not_grow_with_the_dump():
    def peak(count):
        chunks = (page(i, 'text') for i in range(count))
        tracemalloc.start()
        total = sum(1 for _ in wikipedia.pages((c for g in ([HEAD], chunks) for c in g), wikipedia.ENGLISH))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total == count
        return size

    # A shell of 60 bytes a page would be 240,000 bytes more.
    with pytest.raises(ElementTree.ParseError):  # the root is left open
        peak(1)
    tracemalloc.stop()


@pytest.mark.parametrize(
    ('markup', 'prose'),
    [
        ("The '''bold''' and ''italic'' words in '''''both''''' styles.", None),
        ("It showed ''Eagle'''s footpads; the '''dog'''s ran away.", None),
        ('See the [[Foo (bar)|foo]] and [[Paris]]s, or [[:Category:Towns|towns]].', None),
        ('A reference<ref name="a">See [[x]] {{cite|a=b}}</ref> goes<ref name=b/> away here.', None),
        ('The lake is {{convert|1278|km|mi|0|abbr=on}} long and {{convert|3|to|5|m2}} wide.', None),
        ("The word {{lang|de|''Wort''}} ({{lang-fr|mot}}) has {{nowrap|1=''x'' {{=}} 4}} letters.", None),
        ('{{As of|2008|5}}, it had 10 rooms {{as of|2009|lc=y}} at least.', None),
        ('He ({{IPA-xx|}}{{lost}}; born 1947{{citation needed|date=May}}) wrote books ({{gone}}).', None),
        ('Water is H<sub>2</sub>O, {{chem|NH|4|+}} a base, 10<sup>6</sup> many, x<sup>k</sup> few.', None),
        ('Text &amp; more&nbsp;text &lt;here&gt; with a<br />break<!-- and a comment --> in it.', None),
        ('If <math>x = 1</math> then <math>\\frac{a}{b}</math> holds for the rest.', None),
        ('The site [http://x.org/a?b=c its site] and [http://x.org] or http://x.org/y are gone.', None),
        ('[[File:a.jpg|thumb|A [[caption]] of {{some}} words.]]The text goes on after it.', None),
        ('Brackets {{that|are [[never}} closed]] do no harm to the rest.', None),
        ('<nowiki>[[No link]]</nowiki> and an __NOTOC__ end here [[de:Sprache]].', None),
    ],
)
def test_markup(markup, prose):
    assert wikipedia.clean(markup) == prose
