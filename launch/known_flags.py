"""The flags and fields that other programs are known to have, and the check against them.

Each file in launch/known/ says what was read, where, of which version, and when. A command with a
flag that is not in them is a mistake in this package, and is stopped before anything runs.
"""

import functools
import json
from pathlib import Path

FOLDER = Path(__file__).parent / 'known'


class UnknownFlagError(Exception):
    """A command or a manifest holds what its program is not known to have: our own mistake."""


@functools.cache
def table(name):
    """One of the lists: 'gcloud', 'kubectl', 'slurm', 'jobset', 'accelerators'."""
    return json.loads((FOLDER / f'{name}.json').read_text())


def check(command):
    """Raises where a command has a flag that its program is not known to have.

    Args:
        command: list of str, the program first. Programs without a list are not checked, nor is
            what stands behind `--`.

    Returns:
        The command.

    Raises:
        UnknownFlagError: the program has no such subcommand, or that no such flag.
    """
    program = Path(command[0]).name
    lists = {'gcloud': 'gcloud', 'kubectl': 'kubectl'}
    slurm = table('slurm')['commands']
    if program in slurm:
        known, subcommand = slurm[program], program
    elif program in lists:
        known, subcommand = _subcommand(table(lists[program])['commands'], command)
    else:
        return command
    for part in command[1:]:
        if part == '--':
            break
        if part.startswith('-') and part.split('=', 1)[0] not in known:
            raise UnknownFlagError(f'{program}: {subcommand!r} is not known to have {part!r}')
    return command


def _subcommand(commands, command):
    words = command[1:]
    for count in range(len(words), 0, -1):
        name = ' '.join(words[:count])
        if name in commands:
            return commands[name], name
    raise UnknownFlagError(f'{" ".join(command)!r} is not a known command')


def check_manifest(manifest):
    """Raises where a JobSet has a field that it is not known to have.

    Args:
        manifest: dict, as YAML or JSON holds it.

    Returns:
        The manifest.

    Raises:
        UnknownFlagError: a field is not in launch/known/jobset.json.
    """
    known = set(table('jobset')['fields'])
    for path in _paths(manifest, known):
        if path not in known:
            raise UnknownFlagError(f'a JobSet is not known to have the field {path!r}')
    return manifest


def _paths(tree, known, prefix=''):
    """'spec.replicatedJobs[].name' and so on; a field that is listed as 'X{}' holds free names."""
    if isinstance(tree, list):
        for item in tree:
            yield from _paths(item, known, f'{prefix}[]')
    elif isinstance(tree, dict) and f'{prefix}{{}}' not in known:
        for key, value in tree.items():
            yield from _paths(value, known, f'{prefix}.{key}' if prefix else key)
    else:
        yield f'{prefix}{{}}' if isinstance(tree, dict) else prefix
