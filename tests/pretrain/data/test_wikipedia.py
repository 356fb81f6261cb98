"""The cleaning against text worked out by hand."""

import re

import pytest
from gensim.corpora import wikicorpus
from gensim.test.utils import datapath

from pretrain.data import wikipedia, wikipedia_dump
from pretrain.data.bad_input import Tally
from pretrain.data.documents import open_source


@pytest.fixture(scope='module')
def articles():
    source = open_source('wikipedia:excerpt')
    return [text for unit in source.units(100) for text in source.documents(unit, Tally())]


@pytest.fixture(scope='module')
def cleaned(articles):
    return [wikipedia.clean(article) for article in articles]


def test_links_of_a_wikis_own_namespaces_vanish():
    path = datapath('bgwiki-latest-pages-articles-shortened.xml.bz2')
    site = open_source(f'wikipedia:{path}').site
    assert isinstance(site, wikipedia_dump.Site)
    text = 'Едно изречение с [[Файл:x.jpg|мини|надпис]] връзка към [[София|столицата]] тук.'
    assert wikipedia.clean(text, site) == 'Едно изречение с връзка към столицата тук.'


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


@pytest.mark.parametrize(
    'marks',
    [
        '\n=' + ' ' * 200_000 + 'x', '( ) ' + ',' * 200_000 + 'x', '[//' * 100_000,
        '<table>' * 30_000 + '</table>' * 30_000, '<table>' * 60_000,
    ],
    ids=['heading', 'commas', 'links', 'tables', 'open tables'],
)  # fmt: skip
def test_a_page_of_marks_takes_no_more_than_linear_time(marks):
    """With the square of the marks these would take hours."""
    text = 'A real sentence that has some words in it.'
    assert wikipedia.clean(f'{text}\n\n{marks}').startswith(text)


def test_tables_go_however_deep():
    text = 'Before the table are some words here.\n\n{}\n\nAfter it are a few more words.'
    inner = '<table><tr><td>a<TABLE class=x>b</table ></td></tr></table>'
    found = [wikipedia.clean(text.format(table)) for table in (inner, '')]
    assert found[0] == found[1]
