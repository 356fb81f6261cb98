"""Writes down which flags gcloud and kubectl have, from the help texts of those installed here.

    python -m launch.collect_flags --date=2026-11-23

The lists in launch/known/ are what `known_flags.check` compares every command with. gcloud and
kubectl print their help without a network. There is no such way to the options of SLURM and the
fields of a JobSet: launch/known/slurm.json and jobset.json say where they were read.
"""

import json
import re
import subprocess

from absl import flags

from launch import known_flags
from pretrain import commandline
from pretrain.data.shards import write_whole
from pretrain.errors import UserError

DATE = flags.DEFINE_string('date', None, 'Today, as 2026-11-23.', required=True)
GCLOUD_COMMANDS = (
    'alpha compute tpus queued-resources create',
    'compute tpus queued-resources create',
    'compute tpus queued-resources delete',
    'compute tpus queued-resources describe',
    'compute tpus queued-resources list',
    'compute tpus tpu-vm create',
    'compute tpus tpu-vm delete',
    'compute tpus tpu-vm describe',
    'compute tpus tpu-vm list',
    'compute tpus tpu-vm scp',
    'compute tpus tpu-vm ssh',
    'compute tpus tpu-vm stop',
    'storage cp',
    'storage rsync',
)
KUBECTL_COMMANDS = ('apply', 'delete', 'get', 'logs')


def main(argv):
    """Asks both programs, and rewrites their lists."""
    if len(argv) > 1:
        raise UserError(f'unknown argument {argv[1]!r}')
    gcloud = {c: flags_in(said('gcloud', *c.split(), '--help')) for c in GCLOUD_COMMANDS}
    write('gcloud', said('gcloud', '--version').splitlines(), gcloud)
    everywhere = flags_in(said('kubectl', 'options'))
    kubectl = {
        c: sorted({*flags_in(said('kubectl', c, '--help')), *everywhere}) for c in KUBECTL_COMMANDS
    }
    write('kubectl', said('kubectl', 'version', '--client').splitlines(), kubectl)


def said(*command):
    """What a program prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f'{" ".join(command)!r} did not run: {error}') from None
    return done.stdout


def flags_in(text):
    """The flags that a help text explains: those at the beginning of an indented line."""
    plain = re.sub(r'\x1b\[[0-9;]*m', '', text)
    at_line_start = re.findall(r'^ {4,}(?:-\w, )?(--[a-z][a-z0-9-]*)', plain, re.MULTILINE)
    # gcloud names the flags of all its commands in one sentence.
    shared = re.search(r'These flags are available to all commands: ([^.]*)\.', plain)
    return sorted({*at_line_start, *re.findall(r'--[a-z-]+', shared[1] if shared else '')})


def write(program, version, commands):
    """Writes the list of one program."""
    kept = [line for line in version if re.match(r'Google|alpha|beta|Client', line)]
    table = {
        'program': program,
        'version': '; '.join(kept),
        'source': f'{program} COMMAND --help',
        'date': DATE.value,
        'unverified': [],
        'commands': commands,
    }
    with write_whole(known_flags.FOLDER / f'{program}.json') as file:
        file.write(json.dumps(table, indent=1).encode() + b'\n')


if __name__ == '__main__':
    commandline.run(main)
