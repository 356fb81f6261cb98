"""What is done with input that cannot be read: stopped at, or skipped and counted."""

import collections

from pretrain.errors import UserError

# What may be wrong with input, in the words that a summary uses.
KINDS = {
    'unreadable': 'files that cannot be opened or are not what their names say',
    'cut_off': 'files that are cut off',
    'damaged': 'places where a file is damaged',
    'empty_file': 'empty files',
    'nul': 'lines with NUL bytes',
    'no_utf8': 'lines that are not UTF-8',
    'long_line': 'lines of more than 16 MB',
    'no_json': 'lines that are not JSON',
    'no_text': 'records without the text field',
    'no_xml': 'pages that are not XML',
    'long_record': 'records of more than 16 MB',
    'no_record': 'records that do not parse',
}
EXAMPLES = 3  # of each kind, kept for the summary


class Damaged(Exception):
    """What stands at a byte of a file cannot be read, nor what follows it."""

    def __init__(self, offset):
        super().__init__(offset)
        self.offset = offset


class Stopped(Exception):
    """Another process met something that ends the work; this one's is given up."""


class Tally:
    """Counts the bad input of one unit of work, and the bytes that it has read.

    counts: how often each of KINDS came. examples: {kind: the first of them, in words}.
    """

    def __init__(self, skip=False, advance=None):
        """Begins to count.

        Args:
            skip: go on after bad input; otherwise it is an error.
            advance: called with the number of bytes read since the last call.
        """
        self.skip = skip
        self.advance = advance or (lambda size: None)
        self.counts = collections.Counter()
        self.examples = collections.defaultdict(list)

    def bad(self, kind, where, what):
        """Counts a piece of bad input.

        Args:
            kind: of KINDS. where: file and line, as something that `str` turns into words.
            what: is wrong with it.

        Raises:
            UserError: bad input is not to be skipped.
        """
        self.counts[kind] += 1
        if not self.skip:
            raise UserError(
                f'{where}: {what}; mend or leave it out, or skip all such: '
                'python -m pretrain.prepare ... --on_bad_input=skip'
            )
        if len(self.examples[kind]) < EXAMPLES:
            self.examples[kind].append(f'{where}: {what}')
