"""Prose out of the wikitext of Wikipedia's pages.

`clean` turns one page's wikitext into paragraphs of prose: one pass over the brackets builds the
nesting of templates, links and tables, and each is rendered (a converted length, a foreign word, a
link's label) or dropped when its closing bracket comes.

Why not gensim's filter_wiki: it drops every template, so that "{{convert|10|km}}" leaves a hole in
the sentence. Why not mwparserfromhell: its parser alone reads 0.9 MB of wikitext a second,
filter_wiki 3.9 MB, this module 8.5 MB (106 articles of gensim's excerpt, one core, November 2026).
"""

import html
import re

from pretrain.data import wikipedia_templates
from pretrain.data.wikipedia_dump import ENGLISH, Site
from pretrain.data.wikipedia_templates import SUBSCRIPTS, SUPERSCRIPTS

_COMMENT = re.compile(r'<!--.*?(?:-->|\Z)', re.S)
_NOWIKI = re.compile(r'<nowiki>(.{0,999}?)</nowiki>', re.S | re.I)
# Elements that go with their content.
_OPENING = re.compile(
    r'<(ref|gallery|timeline|source|syntaxhighlight|score|imagemap|hiero|graph|mapframe|maplink|pre|chem'
    r'|ce|templatestyles|indicator|categorytree|inputbox|includeonly|references|templatedata|style|math)'
    r'\b([^<>]*)>',
    re.I,
)
_TABLE = re.compile(r'<table\b|</table\s*+>', re.I)
_SIMPLE_MATH = re.compile(r'\s*[A-Za-z0-9+\-=<>(),./ ]{1,30}\s*')
_BRACKET = re.compile(r'\{\{|\}\}|\[\[|\]\]|\||^[ :*]*\{\||^[ :*]*\|\}(?!\})', re.M)
_QUOTES = re.compile(r"'{2,}")
_POSSESSIVE = re.compile(r"^.*[^\s']'''s\b.*", re.M)
_SCRIPT = re.compile(r'<su([bp])\b[^<>]*>([^<>]{0,40})</su[bp]\s*>', re.I)
_EXTERNAL = re.compile(
    r'\[(?:https?:|ftps?:|mailto:|news:|irc:)?//[^\s\[\]]{0,2000}+'
    r'(?:\s++([^\]\n]{0,2000}+))?+\]',
    re.I,
)
_URL = re.compile(r'(?:https?|ftp)://[^\s<>|]+', re.I)
_BLOCK_TAG = re.compile(
    r'</?(?:p|div|blockquote|center|ul|ol|dl|poem|h\d|hr|section|table|tr|td)\b[^<>]*>', re.I
)
_ITEM_TAG = re.compile(r'<(?:li|dt|dd)\b[^<>]*>', re.I)
_BREAK_TAG = re.compile(r'<br\b[^<>]*>', re.I)
_TAG = re.compile(r'</?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]*)?/?>')
_MAGIC = re.compile(r'__[A-Z]{3,}__')
_LANGUAGE = re.compile(r'[a-z]{2,3}(?:-[a-z]+)*:|simple:')
_INVISIBLE = re.compile(r'[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]')
_ITEM = re.compile(r'[*#:;]+\s*| +')
# Hatnotes say where else to look, not something of the subject.
_HATNOTE = re.compile(
    r'(?:For (?:other|more|the|a|an)\b.*\bsee\b|This article is about|See also|Main article'
    r'|Further info|Not to be confused|.{0,60}\bredirects here\b'
    r'|.{0,80}\b(?:may|can) (?:also )?refer to\b)',
    re.I,
)
_SENTENCE_END = re.compile(r'[.!?…。！？।][\'"”’»)\]]*$')
# Closing sections hold lists of works and links.
_APPENDIX = re.compile(
    r'(?:see also|(?:\w+ )?notes|sources|citations|footnotes|endnotes|literature|links|works cited'
    r'|(?:selected |published )?(?:publications|works)|(?:image )?gallery|web links|notes and \w+'
    r'|.*\b(?:references|bibliography|further reading|external links|filmography|discography'
    r'|(?:primary|secondary) sources)\b.*)',
    re.I,
)
_CITATION = re.compile(r'\b(?:ISBN|ISSN|OCLC|doi:|DOI)\b')
# What is left around the place of a template that went: "( ; born 1947)", "(, )", "word ,".
_DEBRIS_SIGN = re.compile(r'[(\[][\s,;:)\]]|[\s,;:][)\]]| [,;.:!?](?:\s|$)|[,;:] *[,;.](?:\s|$)')
_DEBRIS = (
    (re.compile(r'\(\)|\[\]'), ''),
    (re.compile(r'([(\[])[\s,;:]+'), r'\1'),
    (re.compile(r'(?<![\s,;:])[\s,;:]+([)\]])'), r'\1'),
    (re.compile(r'\(\)|\[\]'), ''),
    (re.compile(r' +([,;.:!?])(?=\s|$)'), r'\1'),
    (re.compile(r'([,;:])(?: *+[,;])++(.?)'), lambda m: m[0] if m[2].strip() else m[1] + m[2]),
    (re.compile(r',\.(?=\s|$)'), '.'),
    (re.compile(r' {2,}'), ' '),
)


def clean(raw: str, site: Site = ENGLISH) -> str:
    """Turns wikitext into prose.

    Args:
      raw: a page's wikitext.
      site: the wiki's namespaces; links into its picture and category namespaces vanish.

    Returns:
      Paragraphs divided by one blank line, without headings, tables, references, short list items
      and the closing sections (References, See also, ...); '' where no paragraph is left.
    """
    text = _COMMENT.sub('', raw)
    text = _NOWIKI.sub(_literal, text)
    text = _without_elements(text)
    text = _without_tables(text)
    text = _brackets(text, site)
    if "'''s" in text:
        text = _POSSESSIVE.sub(_apostrophe, text)
    text = _QUOTES.sub(lambda m: "'" * {3: 0, 4: 1}.get(len(m[0]), max(0, len(m[0]) - 5)), text)
    text = _SCRIPT.sub(_script, text)
    if '//' in text:
        text = _URL.sub('', _EXTERNAL.sub(lambda m: m[1] or '', text))
    text = _BREAK_TAG.sub(' ', _ITEM_TAG.sub('\n*', _BLOCK_TAG.sub('\n\n', text)))
    text = _MAGIC.sub('', _TAG.sub('', text))
    return '\n\n'.join(_paragraphs(text))


def _without_tables(text):
    """Takes out what stands between tags of tables that belong together, however deep."""
    opened, closed = [], []
    for tag in _TABLE.finditer(text):
        if tag[0][1] != '/':
            opened.append(tag.start())
        elif opened:
            begin = opened.pop()
            while closed and closed[-1][0] > begin:
                closed.pop()
            closed.append((begin, tag.end()))
    kept, place = [], 0
    for begin, end in closed:
        kept.append(text[place:begin])
        place = end
    return '\n\n'.join([*kept, text[place:]])


def _literal(match):
    return re.sub(r"[\[\]{}|'<>=*#:;]", lambda m: f'&#{ord(m[0])};', match[1])


def _without_elements(text):
    pieces, position = [], 0
    unclosed = set()
    while match := _OPENING.search(text, position):
        pieces.append(text[position : match.start()])
        position = match.end()
        name = match[1].lower()
        # The short form <ref name=x /> has no end tag; nor, by mistake, has many a long one.
        if match[2].endswith('/') or name in unclosed:
            continue
        closing = re.compile(rf'</{name}\s*>', re.I).search(text, position)
        if closing is None:
            unclosed.add(name)
            continue
        # A formula of plain letters and figures reads as text.
        content = text[position : closing.start()]
        if name == 'math' and _SIMPLE_MATH.fullmatch(content):
            pieces.append(content.strip().replace('<', '&lt;').replace('>', '&gt;'))
        position = closing.end()
    return ''.join([*pieces, text[position:]])


def _apostrophe(match):
    # In ''Eagle'''s footpads the marks are the end of italics and an apostrophe: the counts tell.
    runs = [len(run) for run in _QUOTES.findall(match[0])]
    if sum(n in (2, 5) for n in runs) % 2 and sum(n >= 3 for n in runs) % 2:
        return re.sub(r"(?<=[^\s'])'''(?=s\b)", "'", match[0], count=1)
    return match[0]


def _script(match):
    content = html.unescape(match[2]).strip()
    table = SUPERSCRIPTS if match[1] in 'pP' else SUBSCRIPTS
    if all(ord(c) in table for c in content):
        return content.translate(table)
    # 10 to the x must not read "10x"; an ordinal's "th" may stand as it is.
    plain = match[1] in 'bB' or (content.isalpha() and len(content) == 2)
    return content if plain else '^' + content


def _brackets(text, site):
    """Resolves templates, links and tables, inner ones first."""
    kinds, frames = ['text'], [[[]]]  # a frame: its arguments, each a list of pieces of text
    position = 0
    for match in _BRACKET.finditer(text):
        token, start = match[0].lstrip(' :*'), match.start()
        if start > position:
            frames[-1][-1].append(text[position:start])
        position = match.end()
        if token in ('{{', '[[', '{|'):
            # No page nests so deep in earnest; the bound keeps the time linear.
            if len(kinds) < 100:
                kinds.append(token)
                frames.append([[]])
        elif token == '|':
            if kinds[-1] in ('{{', '[['):
                frames[-1].append([])
            else:
                frames[-1][-1].append('|')
        else:
            opening = {'}}': '{{', ']]': '[[', '|}': '{|'}[token]
            # A link may not close over an open template, nor a template over an open table.
            if (token == ']]' and kinds[-1] != '[[') or opening not in kinds:
                continue
            while kinds[-1] != opening:
                _flatten(kinds, frames)
            kinds.pop()
            arguments = [''.join(pieces) for pieces in frames.pop()]
            frames[-1][-1].append(_render(token, arguments, site))
    frames[-1][-1].append(text[position:])
    while len(kinds) > 1:
        _flatten(kinds, frames)
    return ''.join(frames[0][0])


def _flatten(kinds, frames):
    # A template or table that is never closed loses the rest of its paragraph, a link nothing.
    kind, arguments = kinds.pop(), [''.join(pieces) for pieces in frames.pop()]
    if kind == '[[':
        frames[-1][-1].append(arguments[-1])
    else:
        frames[-1][-1].append('\n\n' + '|'.join(arguments).partition('\n\n')[2])


def _render(token, arguments, site):
    if token == '|}':
        return '\n\n'
    if token == '}}':
        return wikipedia_templates.render(arguments)
    target, label = arguments[0].strip(), arguments[-1].strip()
    prefix = target.partition(':')[0].strip().lower() if ':' in target else ''
    if prefix and (prefix in site.media or _LANGUAGE.match(target)):
        return ''
    return label.lstrip(':').replace('\n', ' ')


def _paragraphs(text):
    """Puts lines together to paragraphs and keeps prose; a page of list items alone has none."""
    kept, lines, skipped_level = [], [], 0
    after_kept = running = False

    def cut_announcement():
        # "The provinces are:" says nothing once its list went.
        if after_kept and not _SENTENCE_END.search(kept[-1]):
            kept[-1:] = filter(None, [_without_last_sentence(kept[-1])])

    def end(item=False):
        nonlocal after_kept, running
        paragraph = _tidy(' '.join(lines))
        lines.clear()
        if not paragraph:
            return
        if _is_prose(paragraph, item):
            kept.append(paragraph)
            after_kept = True
            running = running or not item
        else:
            cut_announcement()
            after_kept = False

    for line in text.split('\n'):
        first = line[:1]
        if first == '=' and (heading := _heading(line)):
            end()
            cut_announcement()
            after_kept = False
            level, title = heading
            if skipped_level and level > skipped_level:
                continue
            skipped_level = level if _APPENDIX.fullmatch(_tidy(title)) else 0
        elif skipped_level:
            continue
        elif not line.strip() or first in '|!':
            end()
        elif item := _ITEM.match(line):
            end()
            lines.append(line[item.end() :])
            end(item=True)
        else:
            lines.append(line)
    end()
    cut_announcement()
    return kept if running else []


def _heading(line):
    """The (level, title) of a line that stands between one to six "=" on either side, or None."""
    line = line.rstrip()
    level = min(6, len(line) - len(line.lstrip('=')), len(line) - 1)
    closing = min(6, len(line) - len(line.rstrip('=')), len(line) - level)
    return (level, line[level : len(line) - closing].strip()) if level and closing else None


def _tidy(text):
    text = ' '.join(html.unescape(text).split())
    if not text.isascii():
        text = _INVISIBLE.sub('', text)
    # Most text has no debris, and one pass tells.
    if _DEBRIS_SIGN.search(text):
        for pattern, replacement in _DEBRIS:
            text = pattern.sub(replacement, text)
    return text.strip()


def _without_last_sentence(paragraph):
    ends = [m.end() for m in re.finditer(r'[^\W\d_]{2}[.!?]["”)]? (?=[A-Z"])', paragraph)]
    return paragraph[: ends[-1]].strip() if ends else ''


def _is_prose(paragraph, item):
    # Six characters count as a word where words are not divided by spaces.
    words = max(paragraph.count(' ') + 1, len(paragraph) // 6)
    if _HATNOTE.match(paragraph) and words < 40:
        return False
    whole = bool(_SENTENCE_END.search(paragraph))
    fragment = paragraph.lstrip('"“\'‘([')[:1].islower()
    if item:
        return words >= 10 and whole and not fragment and not _CITATION.search(paragraph)
    announcement = paragraph.endswith(':')
    return words >= (10 if fragment else 5) and (whole or announcement or words >= 15)
