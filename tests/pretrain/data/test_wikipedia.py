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
    texts = wikipedia.pages([HEAD, page('A', 'x'), b'<page><ti'], wikipedia.ENGLISH)
    assert next(texts) == 'x'
    with pytest.raises(ElementTree.ParseError):
        next(texts)
    with pytest.raises(ValueError, match='<html>'):
        list(wikipedia.pages([b'<html><body/></html>'], wikipedia.ENGLISH))


def test_memory_does_not_grow_with_the_dump():
    def chunks():
        yield HEAD
        for _ in range(10_000):
            yield page('A', 'text')
        yield b'</mediawiki>'

    sizes = []
    tracemalloc.start()
    for number, _ in enumerate(wikipedia.pages(chunks(), wikipedia.ENGLISH)):
        if number in (1000, 9999):
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    # gensim's reader keeps 85 bytes of every page, which would be 765,000 here.
    assert sizes[1] - sizes[0] < 100_000


@pytest.mark.parametrize(
    ('markup', 'prose'),
    [
        (
            "The '''bold''' and ''italic'' words in '''''both''''' styles.",
            'The bold and italic words in both styles.',
        ),
        (
            "It showed ''Eagle'''s footpads; the '''dog'''s ran away.",
            "It showed Eagle's footpads; the dogs ran away.",
        ),
        (
            'See the [[Foo (bar)|foo]] and [[Paris]]s, or [[:Category:Towns|towns]].',
            'See the foo and Pariss, or towns.',
        ),
        (
            'A reference<ref name="a">See [[x]] {{cite|a=b}}</ref> goes<ref name=b/> away here.',
            'A reference goes away here.',
        ),
        (
            'The lake is {{convert|1278|km|mi|0|abbr=on}} long and {{convert|3|to|5|m2}} wide.',
            'The lake is 1,278 km long and 3 to 5 m² wide.',
        ),
        (
            "The word {{lang|de|''Wort''}} ({{lang-fr|mot}}) has {{nowrap|1=''x'' {{=}} 4}} letters"
            '.',
            'The word Wort (mot) has x = 4 letters.',
        ),
        (
            '{{As of|2008|5}}, it had 10 rooms {{as of|2009|lc=y}} at least.',
            'As of May 2008, it had 10 rooms as of 2009 at least.',
        ),
        (
            'He ({{IPA-xx|}}{{lost}}; born 1947{{fact|date=9}}) wrote books ({{gone}}).',
            'He (born 1947) wrote books.',
        ),
        (
            'Water is H<sub>2</sub>O, {{chem|NH|4|+}} a base, 10<sup>6</sup> or x<sup>k</sup> so.',
            'Water is H₂O, NH₄⁺ a base, 10⁶ or x^k so.',
        ),
        (
            'Text &amp; more&nbsp;text &lt;here&gt; with a<br />break<!-- and a comment --> in it.',
            'Text & more text <here> with a break in it.',
        ),
        (
            'If <math>x = 1</math> then <math>\\frac{a}{b}</math> holds for the rest.',
            'If x = 1 then holds for the rest.',
        ),
        (
            'The site [http://x.org/a?b=c its site] and [http://x.org] or http://x.org/y are gone.',
            'The site its site and or are gone.',
        ),
        (
            '[[File:a.jpg|thumb|A [[caption]] of {{some}} words.]]The text goes on after it.',
            'The text goes on after it.',
        ),
        (
            'Brackets {{that|are [[never}} closed]] do no harm to the rest.',
            'Brackets closed do no harm to the rest.',
        ),
        (
            '<nowiki>[[No link]]</nowiki> and an __NOTOC__ end here [[de:Sprache]].',
            '[[No link]] and an end here.',
        ),
    ],
)
def test_markup(markup, prose):
    assert wikipedia.clean(markup) == prose


def test_keeps_prose_and_drops_the_rest():
    markup = """{{Infobox settlement|name={{lang|fr|Ville}}|area=|}}
:''For other uses, see [[Ville (disambiguation)]].''
'''Ville''' is a town.
It has two [[bridge]]s and a mill.

== History ==
{| class="wikitable"
|-
! Year || People
|-
| 1900 || 12 {{small|(est.)}}
|}
The rulers of the town were these:
* [[John]]
* [[Jane]], countess

For long nothing happened there. The mayors were these:
# One
----
;Term
* In the year 1901 the first of the two bridges was washed away by the river.
* when the second followed nobody was there to see how it went down the river.
* Author, A. (1990). A book about the town and its mill. Town Press. ISBN 0-123-45678-9.
<gallery>
File:a.jpg|A mill that stands beside the river and is quite old.
</gallery>
Short line

=== References in literature ===
This whole section is left out, since it is a list of works.
==== Deeper ====
And this one too, since it stands below that section's heading.
== See also ==
* [[Other town]] which lies on the other side of the very same river.
== Trade ==
The mill is still at work.
[[Category:Towns]]"""
    assert wikipedia.clean(markup).split('\n\n') == [
        'Ville is a town. It has two bridges and a mill.',
        'For long nothing happened there.',
        'In the year 1901 the first of the two bridges was washed away by the river.',
        'The mill is still at work.',
    ]


def test_a_page_of_links_has_no_prose():
    markup = """'''Ville''' may refer to:
* [[Ville (France)]], a town in France that has two bridges and an old mill.
* [[Ville (song)]], a song about the town that was sung by all of its people."""
    assert wikipedia.clean(markup) == ''


def test_no_residue_of_markup_in_the_excerpt(cleaned):
    """Counted over all articles; a formula's |x|, code's <> and the like are part of the text."""
    text = '\n\n'.join(cleaned)
    none = ('{{', '}}', '[[', ']]', "''", '==', '&nbsp;', '&amp;', '()', '(,', '( ', ' )', '  ')
    counts = {sign: text.count(sign) for sign in (*none, 'http', 'Category:', 'File:', 'px|')}
    assert counts == dict.fromkeys(counts, 0)
    assert text.count('|') <= 3
    assert text.count('<') <= 3
    assert text.count(' .') - text.count(' ...') <= 2
    for article in cleaned:
        assert not re.search(r'\n{3}|^\s|\s$|[ \t]\n|\n[ \t]', article)


def test_most_of_gensims_words_stay_and_few_are_new(articles, cleaned):
    """An independent cleaner agrees on the words, apart from tables, lists and closing sections.

    New words are those of templates (quotations, foreign words) and of text that gensim loses.
    """
    kept = new = total = 0
    for article, text in zip(articles, cleaned):
        theirs = set(re.findall(r'[a-z]{4,}', wikicorpus.filter_wiki(article).lower()))
        ours = set(re.findall(r'[a-z]{4,}', text.lower()))
        kept += len(ours & theirs)
        new += len(ours - theirs)
        total += len(theirs)
    assert kept / total > 0.75
    assert new / kept < 0.025


@pytest.mark.parametrize(
    'markup',
    [
        '[[' * 50_000,
        '{{a|' * 50_000,
        '<ref>' * 50_000,
        '{|\n' * 50_000,
        ' ,' * 50_000,
        '<nowiki>' * 9_000,
    ],
)
def test_broken_markup_takes_no_quadratic_time(markup):
    # Each takes well below a second; quadratic ones took minutes.
    assert len(wikipedia.clean(markup)) <= len(markup)
