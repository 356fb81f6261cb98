"""Flags are read from help texts as gcloud and kubectl print them."""

from launch import collect_flags

GCLOUD = """\x1b[1mSYNOPSIS\x1b[0m
    \x1b[1mgcloud do\x1b[0m [--hidden-here=A]

OPTIONAL FLAGS
     \x1b[1m--spot\x1b[0m
        Not the same as --mentioned.

     --zone=ZONE
        Where.

GCLOUD WIDE FLAGS
    These flags are available to all commands: --project, --quiet,
    --format.
"""
KUBECTL = """Options:
    --all=false:
\tSelect all.

    -f, --filename=[]:
\tFiles, see --nothing.
"""


def test_flags_in_help_texts():
    assert collect_flags.flags_in(GCLOUD) == [
        '--format', '--project', '--quiet', '--spot', '--zone',
    ]  # fmt: skip
    assert collect_flags.flags_in(KUBECTL) == ['--all', '--filename']
