"""Pages out of a MediaWiki dump, from any place of it, in constant memory.

Why not gensim's extract_pages: it reads a dump from its start only, and keeps an emptied element of
every page (85 bytes a page, near 2 GB for the whole English dump).
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from xml.etree import ElementTree

from pretrain.data.bad_input import Tally
from pretrain.data.files import Content, kind

EXPORT = '{http://www.mediawiki.org/xml/export-'
OPENING, CLOSING, LAST = b'<page>', b'</page>', b'</mediawiki>'
BLOCKS = 2_000_000  # bytes of bzip2 that hold a block and more
LONGEST_PAGE = 64_000_000  # bytes of XML; MediaWiki takes no text over 2 MB
NO_END = 'a page without an end'
_TITLE = re.compile(rb'<title>([^<]*)</title>')
_REDIRECT = re.compile(r'\s*#\s*redirect\b', re.I)


class Site(NamedTuple):
    """The names of a wiki's namespaces that the cleaning needs, in lower case.

    media: namespaces whose links are pictures or categories, which vanish from the text.
    all: every namespace; a page named after one is no article.
    """

    media: frozenset[str]
    all: frozenset[str]


# The keys of namespaces in every wiki: -2 Media, 6 File, 14 Category.
_MEDIA_KEYS = {'-2', '6', '14'}
ENGLISH = Site(
    frozenset({'media', 'file', 'image', 'category'}),
    frozenset(
        {'media', 'special', 'talk', 'user', 'wikipedia', 'file', 'mediawiki', 'template', 'help'}
        | {'image', 'category', 'portal', 'book', 'draft', 'timedtext', 'module', 'project'}
    ),
)


def read_site(chunks: Iterable[bytes]) -> Site:
    """Reads the head of a dump.

    Args:
      chunks: the bytes of the XML in order; no more are taken than the head needs.

    Returns:
      The wiki's own namespaces and the English ones, which hold in every wiki.

    Raises:
      ValueError: the XML is no MediaWiki dump.
      ElementTree.ParseError: the XML breaks off or is broken.
    """
    media, names = set(), set()
    for event, element in _events(chunks):
        tag = element.tag.rpartition('}')[2]
        if event == 'end' and tag == 'namespace' and element.text:
            names.add(element.text.lower())
            if element.get('key') in _MEDIA_KEYS:
                media.add(element.text.lower())
        if tag == 'page' or (tag == 'siteinfo' and event == 'end'):
            break
    return Site(ENGLISH.media | media, ENGLISH.all | names)


def pages(content: Content) -> Iterator[tuple[str, bytes]]:
    """The pages of a dump that begin inside an extent of it.

    They are found by their tags, so that the reading can begin anywhere: in what is no markup an
    export writes "<" as an entity.

    Args:
      content: of the extent.

    Yields:
      (where the page stands, in words; its XML). A page that the file's end cuts off is left out,
      and said to the content's tally, as is a file that ends without its end tag.
    """
    data, given, searched = b'', 0, 0  # given: bytes of the content before `data`
    whole, begin = False, -1
    for chunk in content:
        data += chunk
        while (begin := data.find(OPENING)) >= 0:
            if given + begin >= content.owned:
                return
            end = data.find(CLOSING, max(begin, searched))
            if end < 0:
                searched = len(data) - len(CLOSING)
                break
            # Where another page begins before the end of this one, this one has lost its end.
            if begin < (last := data.rfind(OPENING, begin, end)):
                content.tally.bad('no_xml', _place(content, data[begin:last]), NO_END)
                begin = last
                if given + begin >= content.owned:
                    return
            stop = end + len(CLOSING)
            page = data[begin:stop]
            data, given, searched = data[stop:], given + stop, 0
            yield _place(content, page), page
        if begin < 0:
            whole = whole or LAST in data
            if given + len(data) - len(OPENING) >= content.owned:
                return
            # A tag may begin here and end in the next chunk.
            gone = max(0, len(data) - len(LAST))
            data, given = data[gone:], given + gone
        elif len(data) - begin > LONGEST_PAGE:
            content.tally.bad('no_xml', _place(content, data[begin:]), NO_END)
            last = data.rfind(OPENING)
            stop = last if last > begin else len(data) - len(LAST)
            data, given, searched = data[stop:], given + stop, 0
    last = content.extent.end is None and not content.damaged
    if last and (begin >= 0 or not (whole or _ends(content.extent))):
        content.tally.bad('cut_off', content.file.path, 'cut off, it has no end tag')


def _ends(extent):
    """Whether a file has its end tag, looked for from before its last extent."""
    before = 0 if kind(extent.file) == 'gz' else max(0, extent.begin - BLOCKS)
    tail = b''
    for chunk in Content(extent._replace(begin=before), Tally(skip=True)):
        tail = (tail + chunk)[-len(chunk) - len(LAST) :]
        if LAST in tail:
            return True
    return False


def _place(content, page):
    title = _TITLE.search(page)
    name = repr(title[1].decode(errors='replace')) if title else 'without a title'
    return f'{content.file.path}, page {name}'


def article(page: bytes, site: Site) -> str:
    """The wikitext of a page; '' where it is a redirect or stands in another namespace.

    Args:
      page: its XML. site: what read_site found.

    Raises:
      ElementTree.ParseError: the XML is broken.
    """
    element = ElementTree.fromstring(page)
    title = element.findtext('title') or ''
    if element.findtext('ns', '0') != '0' or element.find('redirect') is not None:
        return ''
    prefix, colon, _ = title.partition(':')
    if colon and prefix.strip().lower() in site.all:
        return ''
    revision = element.find('revision')
    if revision is None or revision.findtext('model', 'wikitext') != 'wikitext':
        return ''
    text = revision.findtext('text') or ''
    return '' if _REDIRECT.match(text) else text


def _events(chunks):
    parser = ElementTree.XMLPullParser(('start', 'end'))
    first = True
    for chunk in chunks:
        parser.feed(chunk)
        for event, element in parser.read_events():
            if first and not element.tag.startswith(EXPORT):
                raise ValueError(f'its first element is <{element.tag}>, not <mediawiki>')
            first = False
            yield event, element
    try:
        parser.close()
    finally:
        yield from parser.read_events()
