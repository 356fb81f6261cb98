"""What a page shows, in a terminal and in HTML."""

import html.parser

from pretrain.page import Block, page, terminal

BLOCKS = [
    Block('A heading & more', 'col  1\n <x>  2'),
    Block(lines={'reads': [('one <b>\n', 'plain'), ('[MASK]', 'wanted'), ('two', 'becomes')]}),
    Block(lines={'predicts': [('two', 'target'), ('_', 'nothing'), ('\x1b[31m\0\u202e"', 'even')]}),
]


def test_a_terminal_with_and_without_colour():
    assert terminal(BLOCKS, colour=False).splitlines() == [
        '', 'A heading & more', 'col  1', ' <x>  2',
        '  reads      one <b>\\n [[MASK] -> two]', '  predicts   two_\ufffd[31m\ufffd\ufffd"',
    ]  # fmt: skip
    coloured = terminal(BLOCKS, colour=True)
    assert '\x1b[9;31m[MASK]\x1b[0m\x1b[1;32mtwo\x1b[0m' in coloured
    assert '\x1b[31m' not in coloured  # text cannot colour the terminal


class Reader(html.parser.HTMLParser):
    """Collects the text, and checks that tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attributes):
        if tag != 'meta':
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != 'style':
            self.text.append(data)


def test_a_page_is_whole_and_text_is_text():
    reader = Reader()
    source = page('A <title>', BLOCKS)
    assert not set(source) & set('\x1b\0\u202e')
    reader.feed(source)
    assert reader.open == []
    text = ''.join(reader.text)
    last = 'two_\ufffd[31m\ufffd\ufffd"'
    for part in ('A <title>', 'A heading & more', ' <x>  2', 'one <b>\n', '[MASK]', last):
        assert part in text
