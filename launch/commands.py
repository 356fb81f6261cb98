"""What the launchers share: what stands behind `--`, and programs that run or are only printed."""

import difflib
import functools
import re
import shlex
import subprocess
import sys
from typing import NamedTuple

from launch import known_flags
from pretrain import commandline
from pretrain.errors import UserError

COMMANDS = ('pretrain.train', 'pretrain.prepare', 'pretrain.finetune', 'pretrain.evaluate')
PREEMPTED = 143  # 128 + SIGTERM: pretrain.train was told to stop, and has saved
MISTAKE = 2  # a UserError: to try it again helps nothing
NAME = re.compile(r'[a-z]([-a-z0-9]{0,38}[a-z0-9])?')  # what gcloud, Kubernetes and SLURM all take


class Training(NamedTuple):
    """The command behind `--`.

    module: of COMMANDS. arguments: its flags as they were given. workdir: value of --workdir, or
    None.
    """

    module: str
    arguments: tuple[str, ...]
    workdir: str | None

    def command(self, python='python', extra=()):
        """The list of words that starts it; `extra` flags stand first."""
        return [python, '-m', self.module, *extra, *self.arguments]


def run(main):
    """Runs a launcher: main(argv, training), where training is the list of words behind `--`.

    absl would take those words for flags of the launcher, so they are cut off before it looks.
    """
    words = sys.argv
    forgotten = next((word for word in words[1:] if word in COMMANDS), None)
    if forgotten and '--' not in words:
        commandline.fail(f'write -- before {forgotten}: what stands before it is for the launcher')
    cut = words.index('--') if '--' in words else len(words)
    sys.argv, training = words[:cut], words[cut + 1 :]
    commandline.run(functools.partial(main, training=training))


def no_more(argv, count=1):
    """Raises UserError where more words are given than a command takes."""
    if len(argv) > count:
        raise UserError(f'unknown argument {argv[count]!r}: what is to run stands behind --')


def subcommand(argv, choices):
    """The first word, which says what to do.

    Raises:
        UserError: it is missing, or none of the choices.
    """
    if len(argv) < 2:
        raise UserError(f'say what to do: one of {", ".join(choices)}')
    if argv[1] not in choices:
        near = difflib.get_close_matches(argv[1], choices, 1)
        hint = f'did you mean {near[0]}?' if near else f'it is one of {", ".join(choices)}'
        raise UserError(f'unknown subcommand {argv[1]!r}: {hint}')
    return argv[1]


def check_name(flag, name):
    """Returns a name that every cluster takes.

    Raises:
        UserError: it is missing, or has other than small letters, digits and hyphens.
    """
    if not name:
        raise UserError(f'{flag} is missing: a name, for example gpt-tiny')
    if not NAME.fullmatch(name):
        raise UserError(
            f'{flag}={name!r} must be small letters, digits and hyphens, at most 40, '
            'a letter first: for example gpt-tiny'
        )
    return name


def parse(words):
    """The Training that stands behind `--`.

    Args:
        words: list of str; a leading `python -m` is left out.

    Raises:
        UserError: nothing is there, it is none of COMMANDS, or it lacks --config or --workdir.
    """
    words = list(words)
    if re.fullmatch(r'(.*/)?python[\d.]*', words[0] if words else '') and words[1:2] == ['-m']:
        words = words[2:]
    example = '-- pretrain.train --config=configs/gpt.py:tiny --workdir=runs/gpt-tiny'
    if not words:
        raise UserError(f'what is to run is missing: for example {example}')
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, 1)
        hint = f'did you mean {near[0]}?' if near else f'it is one of {", ".join(COMMANDS)}'
        raise UserError(f'{words[0]!r} behind -- is no command that can be launched: {hint}')
    training = Training(words[0], tuple(words[1:]), _flag(words, 'workdir'))
    if _flag(words, 'config') is None and training.module != 'pretrain.evaluate':
        raise UserError(f'--config is missing behind --: for example {example}')
    if training.module in ('pretrain.train', 'pretrain.finetune') and not training.workdir:
        raise UserError(f'--workdir is missing behind --: for example {example}')
    for name in ('coordinator', 'processes', 'process', 'distributed'):
        given = next((w for w in words if re.match(rf'--?(no)?{name}(=|$)', w)), None)
        if given:
            raise UserError(f'{given} behind --: the launcher gives each process its own: leave it')
    if training.workdir and '://' in training.workdir:
        check_remote(training)
    return training


def check_remote(training):
    """Refuses a workdir that is no folder and that the command would refuse on the machines.

    Args:
        training: Training, whose workdir holds '://'.

    Raises:
        UserError: it is not on gs://, names no bucket, or the command writes to disks alone.
    """
    workdir = training.workdir
    if not re.match(r'gs://[^/]', workdir):
        raise UserError(f'--workdir={workdir} should be a folder or gs://BUCKET/FOLDER')
    if training.module != 'pretrain.train':
        raise UserError(f'--workdir={workdir}: {training.module} writes to a folder, not to gs://')


def _flag(words, name):
    for i, word in enumerate(words):
        if re.match(rf'--?{name}=', word):
            return word.split('=', 1)[1]
        if word in (f'--{name}', f'-{name}') and i + 1 < len(words):
            return words[i + 1]
    return None


def check_processes(training, processes):
    """Raises UserError where a command that runs in one process is to run in several."""
    if processes > 1 and training.module != 'pretrain.train':
        raise UserError(
            f'{training.module} runs in one process, and this would start {processes}: '
            'launch it on one host'
        )


def check_workdir(training, hosts, shared):
    """Raises UserError where hosts would not see one another's checkpoints.

    Args:
        training: Training. hosts: number of machines. shared: the user says that the folder is on
            a disk that all of them see.
    """
    workdir = training.workdir
    if workdir is None or '://' in workdir or hosts == 1 or shared:
        return
    raise UserError(
        f'--workdir={workdir} is a folder of each of the {hosts} hosts, which must share one: '
        'give one on gs://, or --shared_workdir where all of them mount that folder'
    )


class Programs:
    """Runs programs of the machine, or only prints them.

    Every command is compared with the committed lists of flags first, printed or not.
    """

    def __init__(self, dry_run):
        """Begins.

        Args:
            dry_run: print each command, and run none.
        """
        self.dry_run = dry_run

    def ask(self, *command, absent=None):
        """What a program prints.

        Args:
            command: words. absent: a word of its error that means that there is no such thing.

        Returns:
            str; None where there is no such thing, and in a dry run, as nobody has answered.

        Raises:
            UserError: it is not on PATH, or failed.
        """
        done = self._run(command, capture_output=True)
        if done is None or (done.returncode and absent and absent in done.stderr):
            return None
        self._check(command, done)
        return done.stdout

    def do(self, *command, given=None):
        """Runs a program whose output the user sees.

        Args:
            command: words. given: text for its standard input.

        Raises:
            UserError: it is not on PATH, or failed.
        """
        done = self._run(command, input=given, stderr=subprocess.PIPE)
        if done is not None:
            if not done.returncode:
                sys.stderr.write(done.stderr)
            self._check(command, done)

    def watch(self, *command):
        """Runs a program until it ends or the user interrupts it; its output goes through.

        Returns:
            Its exit code; 0 in a dry run.

        Raises:
            KeyboardInterrupt: the user pressed Ctrl-C.
        """
        done = self._run(command)
        return done.returncode if done else 0

    def _run(self, command, **options):
        known_flags.check(list(command))
        if self.dry_run:
            print(shlex.join(command))
            if options.get('input'):
                print(options['input'])
            return None
        sys.stdout.flush()
        try:
            return subprocess.run(command, text=True, **options)
        except FileNotFoundError:
            raise UserError(
                f'{command[0]!r} is not on PATH: install it, or see what would run with --dry_run'
            ) from None

    def _check(self, command, done):
        if not done.returncode:
            return
        lines = (done.stderr or done.stdout or '').strip().splitlines()
        if len(lines) > 1:  # all of it, so that nothing is kept back, and the gist in our one line
            print('\n'.join(f'| {line}' for line in lines), file=sys.stderr)
        gist = [line for line in lines if line.startswith('error: ')]  # of ours, on a worker
        gist = gist or [line for line in lines if 'ERROR' in line] or lines[-1:]
        said = f': {gist[0].strip()}' if gist else ''
        raise UserError(f'{shlex.join(command[:6])} failed with exit code {done.returncode}{said}')
