"""Headings, tables and marked text, for a terminal and as a page of HTML."""

import html
from typing import NamedTuple


class Block(NamedTuple):
    """A part of a page.

    heading: above it; ''. table: text in columns; ''. lines: {name: [(text, kind), ...]}, pieces of
    text of the KINDS.
    """

    heading: str = ''
    table: str = ''
    lines: dict = {}  # noqa: RUF012


KINDS = {  # kind: (codes of a terminal, colours of a page)
    'plain': ('', ''),
    'even': ('', 'background:var(--even)'),
    'odd': ('4', 'background:var(--odd)'),
    'wanted': ('9;31', 'background:var(--wanted);text-decoration:line-through'),
    'becomes': ('1;32', 'background:var(--target)'),  # behind what is wanted
    'target': ('1;32', 'background:var(--target)'),
    'nothing': ('2', 'color:var(--faint)'),
    'divider': ('1;36', 'color:var(--faint)'),
    'special': ('1;35', 'background:var(--special)'),
}
STYLE = """
:root { color-scheme: light dark; --even: #0000; --odd: #8882; --wanted: #f774; --target: #4b54;
  --special: #a5f4; --faint: #888; }
body { font: 15px/1.6 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
pre { font: 13px/1.4 ui-monospace, monospace; overflow-x: auto; }
dt { color: var(--faint); margin-top: .6rem; } dd { margin: 0; white-space: pre-wrap;
  overflow-wrap: anywhere; unicode-bidi: isolate; } span { border-radius: 3px; }
"""


def terminal(blocks, colour):
    """The blocks as text.

    Args:
        blocks: of Block. colour: whether kinds are shown by codes of a terminal.
    """
    bold = lambda text: f'\x1b[1m{text}\x1b[0m' if colour else text  # noqa: E731
    out = []
    for block in blocks:
        if block.heading:
            out += ['', bold(block.heading)]
        if block.table:
            out.append(block.table)
        for name, pieces in block.lines.items():
            out.append(f'  {name:<10} {"".join(_coded(t, k, colour) for t, k in pieces)}')
    return '\n'.join(out)


def _coded(text, kind, colour):
    text = _visible(text).replace('\n', '\\n ')
    if not colour:
        return {'wanted': f'[{text} -> ', 'becomes': f'{text}]'}.get(kind, text)
    code = KINDS[kind][0]
    return f'\x1b[{code}m{text}\x1b[0m' if code and text else text


def _visible(text):
    """Without what would command a terminal, or turn the text behind it round."""
    return ''.join(c if c.isprintable() or c == '\n' else '\ufffd' for c in text)


def page(title, blocks):
    """The blocks as a page of HTML that needs no other file."""
    parts = []
    for block in blocks:
        if block.heading:
            parts.append(f'<h2>{html.escape(block.heading)}</h2>')
        if block.table:
            parts.append(f'<pre>{html.escape(block.table)}</pre>')
        if block.lines:
            rows = (
                f'<dt>{html.escape(name)}</dt><dd>{"".join(_tagged(t, k) for t, k in pieces)}</dd>'
                for name, pieces in block.lines.items()
            )
            parts.append(f'<dl>{"".join(rows)}</dl>')
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}'
        f'</title><meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f'<body><h1>{html.escape(title)}</h1>{"".join(parts)}</body></html>\n'
    )


def _tagged(text, kind):
    style = KINDS[kind][1]
    text = html.escape(_visible(text))
    return f'<span style="{style}">{text}</span>' if style else text
