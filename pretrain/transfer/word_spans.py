"""WSC's spans: from the number of a word and the span's text to characters of the text."""

import re

TOLERATED = 0.05  # share of rows of a file whose spans may disagree with it: the official ones do
NEAR = 3  # words by which an official index may be off


def locate(text, wanted, word):
    """Where a span stands in a text.

    The official files count words divided by white space, and in places by single blanks; an index
    may be one off, and a span's text may differ from the text in case, punctuation and line breaks.
    The nearest place where it does agree is taken; if there is none, as many words as the span's
    text has are taken from the index on.

    Args:
        text: the text. wanted: the span's text. word: number of its first word, from 0.

    Returns:
        Characters (start, end), and whether the text there agrees with `wanted` near the index;
        (0, 0, False) where the index is outside the text or `wanted` has no word.
    """
    words, by_blank = list(re.finditer(r'\S+', text)), text.split(' ')
    length = len(wanted.split())
    if not words or not length or not 0 <= word < max(len(words), len(by_blank)):
        return 0, 0, False
    before = len(' '.join(by_blank[:word]))
    indices = (word, sum(found.end() <= before for found in words))
    indices = [min(index, len(words) - 1) for index in indices]
    matches = [(n, _match(text, wanted, found.start())) for n, found in enumerate(words)]
    places = [
        (min(abs(n - index) for index in indices), -n, place) for n, place in matches if place
    ]
    distance, _, nearest = min(places, default=(NEAR + 1, 0, None))  # of two, the later one
    if distance <= NEAR:
        return *nearest, True
    first = words[indices[0]]
    last = words[min(indices[0] + length, len(words)) - 1]
    if _plain(first.group()) == _plain(wanted.split()[0]):  # a span with other words inside it
        return first.start(), last.end(), True
    return *(nearest or (first.start(), last.end())), False


def _match(text, wanted, start):
    """Characters of `wanted` in the text where a word begins at `start`, or None.

    Letters and digits must agree, except for case; what else is between them or around need not.
    """
    letters = [re.escape(letter) for letter in wanted if letter.isalnum()]
    pattern = r'[^\w\s]*(' + r'[\W_]*'.join(letters) + r')(?!\w)'
    found = re.compile(pattern, re.IGNORECASE).match(text, start)
    return found.span(1) if letters and found else None


def _plain(words):
    return ''.join(letter for letter in words.lower() if letter.isalnum())
