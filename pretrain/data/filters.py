"""C4's cleaning rules, each a filter with a name and a count of what it removed.

The rules are those of Raffel et al. 2020 (section 2.2) as their code applies them: line by line, in
one order, on lines that the rules before let through. Any of them can be named alone, in
`data.filters`; 'c4' stands for all but bad_words, english and duplicates.

    long_words     lines with a word of more than 1,000 characters
    citations      marks like [1], [edit], [citation needed], from inside of lines
    line_ends      lines that do not end with . ? ! or ", or that end with ...
    line_words     lines of fewer than 5 words
    lorem_ipsum    documents with a line that says it
    javascript     lines that name it, as notices to switch it on do
    braces         documents with a line that has a {, which is likely code
    policy         lines of terms of use and of cookies
    bad_words:FILE documents with one of the words of a file, one a line
    sentences      documents of fewer than 3 sentences, after the lines were removed
    english        documents of 20 words and more of which few are the commonest of English
    duplicates     documents whose text came before, anywhere in the source (preparation.py)
"""

import difflib
import hashlib
import re
from pathlib import Path

from pretrain.data.sentences import sentence_starts
from pretrain.errors import UserError

LINES = ('long_words', 'line_ends', 'line_words', 'javascript', 'policy')
DOCUMENTS = ('lorem_ipsum', 'braces', 'bad_words', 'sentences', 'english', 'duplicates')
C4 = (
    'long_words', 'citations', 'line_ends', 'line_words', 'lorem_ipsum', 'javascript', 'braces',
    'policy', 'sentences',
)  # fmt: skip
KNOWN = {*LINES, *DOCUMENTS, 'citations'}
LONGEST_WORD, FEWEST_WORDS, FEWEST_SENTENCES = 1000, 5, 3
END_MARKS = ('.', '?', '!', '"')
POLICIES = (
    'terms of use',
    'privacy policy',
    'cookie policy',
    'uses cookies',
    'use of cookies',
    'use cookies',
)
CITATION = re.compile(r'\[\d*\]|\[edit\]|\[citation needed\]')
# The commonest words of English that other languages written in Latin letters do not share.
ENGLISH = frozenset(
    'the and of to with that was for from by which this were are have been not his they'.split()  # noqa: SIM905
)
# English prose has them at 0.25 of its words and more; lists and tables have fewer.
FEWEST_ENGLISH, WORDS_TO_TELL = 0.08, 20


class Filters:
    """The filters of a config's `data.filters`; calling it cleans a document."""

    def __init__(self, names):
        """Reads the names.

        Args:
            names: tuple of strings, see the top of this file.

        Raises:
            UserError: a name is unknown, or the file of bad words cannot be read.
        """
        self.names, self._bad_words, self.bad_words_digest = set(), None, ''
        for name in names:
            if not isinstance(name, str):
                raise UserError(f'data.filters: {name!r} is no name of a filter')
            rule, _, path = name.partition(':')
            if name == 'c4':
                self.names |= {*C4}
                continue
            if rule not in KNOWN or bool(path) != (rule == 'bad_words'):
                near = difflib.get_close_matches(rule, {*KNOWN, 'c4'}, 1)
                hint = (
                    f'did you mean {near[0]!r}?'
                    if near
                    else 'there are: c4, ' + ', '.join(sorted(KNOWN - {'bad_words'}))
                )
                if rule == 'bad_words':
                    hint = "name its file: 'bad_words:FILE'"
                raise UserError(f'data.filters: there is no {name!r}; {hint}')
            if rule == 'bad_words' and rule in self.names:
                raise UserError('data.filters: bad_words twice; put the words into one file')
            self.names.add(rule)
            if rule == 'bad_words':
                words = _read_words(Path(path).expanduser())
                self.bad_words_digest = hashlib.sha256('\n'.join(words).encode()).hexdigest()
                alternatives = '|'.join(map(re.escape, words))
                self._bad_words = re.compile(rf'(?<!\w)(?:{alternatives})(?!\w)')

    def facts(self):
        """What decides which text is kept, for a corpus's digest."""
        return [sorted(self.names), self.bad_words_digest]

    def __call__(self, text, removed):
        """Cleans a document.

        Args:
            text: of the document.
            removed: collections.Counter that is told the lines, marks and documents removed, by
                the filters' names.

        Returns:
            What is left, '' where the document goes.
        """
        by_line = self.names - {'english', 'duplicates'}
        if by_line:
            text = self._lines(text, by_line, removed)
        if text and 'english' in self.names:
            words = re.findall(r"[^\W\d_']+", text.lower())
            share = sum(word in ENGLISH for word in words) / max(1, len(words))
            if len(words) >= WORDS_TO_TELL and share < FEWEST_ENGLISH:
                removed['english'] += 1
                return ''
        return text

    def _lines(self, text, names, removed):
        kept, sentences = [], 0
        for line in text.splitlines():
            line = line.strip()
            if not line:
                continue
            if 'long_words' in names and any(len(w) > LONGEST_WORD for w in line.split()):
                removed['long_words'] += 1
                continue
            if 'citations' in names and '[' in line:
                line, count = CITATION.subn('', line)
                removed['citations'] += count
            if 'line_ends' in names and (not line.endswith(END_MARKS) or line.endswith('...')):
                removed['line_ends'] += 1
                continue
            if 'line_words' in names and len(line.split()) < FEWEST_WORDS:
                removed['line_words'] += 1
                continue
            lower = line.lower()
            if 'lorem_ipsum' in names and 'lorem ipsum' in lower:
                removed['lorem_ipsum'] += 1
                return ''
            if 'javascript' in names and 'javascript' in lower:
                removed['javascript'] += 1
                continue
            if 'braces' in names and '{' in line:
                removed['braces'] += 1
                return ''
            if 'policy' in names and any(policy in lower for policy in POLICIES):
                removed['policy'] += 1
                continue
            if self._bad_words and self._bad_words.search(lower):
                removed['bad_words'] += 1
                return ''
            kept.append(line)
            if 'sentences' in names and sentences < FEWEST_SENTENCES:
                sentences += len(sentence_starts(line))
        if 'sentences' in names and sentences < FEWEST_SENTENCES:
            removed['sentences'] += 1
            return ''
        # Filters of whole documents leave a text's blank lines as they are.
        return '\n'.join(kept).strip() if names & {*LINES, 'citations'} else text


def _read_words(path):
    try:
        words = sorted({w.strip().lower() for w in path.read_text('utf-8').splitlines()} - {''})
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, 'strerror', None) or 'it is no UTF-8'
        raise UserError(
            f'data.filters: cannot read the bad words of {str(path)!r}: {why}'
        ) from None
    if not words:
        raise UserError(f'data.filters: {str(path)!r} holds no word: give one a line')
    return words
