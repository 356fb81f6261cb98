"""Runs a command on a SLURM cluster: writes a batch script, and submits it.

    python -m launch.slurm --nodes=4 --gpus_per_node=8 --time=24:00:00 --shared_workdir \\
        -- pretrain.train --config=configs/gpt.py:gpt2_124m --workdir=runs/gpt2

A job that nears its time limit, or is preempted, saves and goes back into the queue by itself until
the run is done; one that fails stays out. --dry_run prints the script and the commands.
"""

import os
import re
import shlex
import sys
from pathlib import Path

from absl import flags

from launch import commands, known_flags
from pretrain.data.shards import write_whole
from pretrain.errors import UserError

NAME = flags.DEFINE_string('name', None, "Of the job; default: the name of the run's folder.")
NODES = flags.DEFINE_integer('nodes', 1, 'Number of machines.')
GPUS = flags.DEFINE_integer('gpus_per_node', 0, 'GPUs of each; 0: train on CPUs.')
TASKS = flags.DEFINE_integer('tasks_per_node', 0, 'Processes on each; 0: one a GPU.')
CPUS = flags.DEFINE_integer('cpus_per_task', 0, "Cores of a process; 0: the cluster's default.")
TIME = flags.DEFINE_string('time', None, 'Limit of one job, as sbatch takes it: 24:00:00.')
PARTITION = flags.DEFINE_string('partition', None, "Default: the cluster's.")
ACCOUNT = flags.DEFINE_string('account', None, "Default: the user's.")
QOS = flags.DEFINE_string('qos', None, 'Quality of service; default: none is named.')
MEMORY = flags.DEFINE_string('memory', None, 'Of a node, as sbatch takes it: 200G.')
SAVE_SECONDS = flags.DEFINE_integer(
    'save_seconds', 120, 'Before the time limit to tell the run to save and stop.'
)
REQUEUES = flags.DEFINE_integer('max_requeues', 1000, 'Times that a job goes back to the queue.')
LOGS = flags.DEFINE_string('logs', 'runs/slurm', 'Folder of scripts and logs, seen by all nodes.')
SETUP = flags.DEFINE_string('setup', '', 'Shell line before all else: module load cuda, say.')
PYTHON = flags.DEFINE_string('python', sys.executable, 'Python of the nodes.')
SHARED = flags.DEFINE_bool('shared_workdir', False, 'All nodes mount the folder of --workdir.')
DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Print what would be written and run.')

# srun ends with the highest exit code of its tasks, and at the first that is not 0 it sends SIGTERM
# to the others, which makes them save and end with 143 as well. So a failure must count for more
# than that, and one that was preempted waits until the others have let go of their last checkpoint.
LINGER_SECONDS = 20
FAILED, FAILED_BY_MISTAKE = 201, 202
SCRIPT = """\
#!/bin/bash
{directives}
# Written by python -m launch.slurm. To go on by hand: sbatch {path}
set -u
# Around each process: what it ends with, in numbers of which the highest counts.
# shellcheck disable=SC2016
task='
trap : TERM
"$@"
code=$?
case "$code" in
  0) exit 0 ;;
  {preempted}) sleep {linger}; exit {preempted} ;;
  {mistake}) exit {failed_by_mistake} ;;
  *) echo "launch: process $SLURM_PROCID ended with exit code $code"; exit {failed} ;;
esac
'
# A signal that reaches this shell must not end it before srun has ended.
trap : TERM
{setup}
{srun}
code=$?
case "$code" in
  {preempted}) ;;
  0) echo 'launch: the run is done'; exit 0 ;;
  {failed_by_mistake}) echo 'launch: the run cannot start so: see its error'; exit {mistake} ;;
  *) echo 'launch: the run has failed, and is not queued again'; exit 1 ;;
esac
# The run was told to stop before it was done. Only a job that runs is queued again, and one that
# the user cancels is not in that state any more.
state=$({show})
state=${{state#*JobState=}}
state=${{state%% *}}
if [ "$state" != RUNNING ]; then
  echo "launch: the job is $state: it is not queued again"
  exit "$code"
fi
if [ "${{SLURM_RESTART_COUNT:-0}}" -ge {requeues} ]; then
  echo 'launch: not queued again: --max_requeues={requeues} is used up'
  exit "$code"
fi
echo 'launch: {stopped}, and the job is queued again'
{requeue}
"""


def main(argv, training):
    """Writes the script, and submits it where no job has its name."""
    commands.no_more(argv)
    training = commands.parse(training)
    name = commands.check_name('--name', NAME.value or _name(training))
    tasks = check_shape(training)
    logs = Path(LOGS.value).absolute()
    path = logs / f'{name}.sbatch'
    text = script(training, name, tasks, path)
    programs = commands.Programs(DRY_RUN.value)
    queued = programs.ask(*queue(name))
    if queued and queued.split():
        number = queued.split()[0]
        raise UserError(
            f'job {number} is there already under the name {name!r}: scancel {number}, or give '
            'another --name (and another --workdir)'
        )
    submit = ('sbatch', '--parsable', str(path))
    if DRY_RUN.value:
        print(f'# {path}\n{text}')
        programs.do(*submit)
        return
    with write_whole(path) as file:
        file.write(text.encode())
    number = programs.ask(*submit).strip().split(';')[0]
    print(f'job {number}, {NODES.value} x {tasks} processes; script: {path}')
    print(f'log:    tail -F {shlex.quote(str(logs / f"{name}-{number}.log"))}')
    print(f'status: squeue --jobs={number}')
    print(f'end it: scancel {number}')


def check_shape(training):
    """Refuses numbers of machines, processes and seconds that cannot work.

    Returns:
        Processes on each node.
    """
    least = [(NODES, 1), (SAVE_SECONDS, LINGER_SECONDS + 10)]
    for flag, bound in [*least, *((flag, 0) for flag in (GPUS, TASKS, CPUS, REQUEUES))]:
        if flag.value < bound:
            raise UserError(f'--{flag.name}={flag.value} must be at least {bound}')
    tasks = TASKS.value or max(GPUS.value, 1)
    if training.module != 'pretrain.train':
        tasks = TASKS.value or 1
    elif GPUS.value and tasks != GPUS.value:
        # Under SLURM each process of jax takes one GPU, that of its number on the node.
        raise UserError(
            f'--tasks_per_node={tasks} must be --gpus_per_node={GPUS.value}: '
            'each process takes one GPU, and others would stay idle'
        )
    commands.check_processes(training, NODES.value * tasks)
    commands.check_workdir(training, NODES.value, SHARED.value)
    if not TIME.value:
        raise UserError('--time is missing: the limit of one job, for example --time=24:00:00')
    if limit_seconds(TIME.value) <= SAVE_SECONDS.value:
        raise UserError(
            f'--time={TIME.value} is not longer than --save_seconds={SAVE_SECONDS.value}: '
            'nothing would be trained'
        )
    return tasks


def limit_seconds(text):
    """Seconds of a time limit in one of sbatch's six forms, days-hours:minutes:seconds.

    Raises:
        UserError: it is none of them, or none at all.
    """
    day_form = re.fullmatch(r'(\d+)-(\d+)(?::(\d+))?(?::(\d+))?', text)
    hour_form = re.fullmatch(r'(?:(\d+):)?(\d+):(\d+)', text)
    if day_form:
        days, hours, minutes, seconds = (int(part or 0) for part in day_form.groups())
    elif hour_form:
        days, (hours, minutes, seconds) = 0, (int(part or 0) for part in hour_form.groups())
    elif text.isdecimal():
        days, hours, minutes, seconds = 0, 0, int(text), 0
    else:
        raise UserError(f'--time={text!r} is no time limit: for example 24:00:00 or 2-00:00:00')
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def script(training, name, tasks, path):
    """The batch script.

    Args:
        training: commands.Training. name: of the job. tasks: processes on each node. path: where
            the script will lie; logs lie beside it.

    Returns:
        str, a bash script.
    """
    options = directives(name, tasks, path)
    known_flags.check(['sbatch', *options])
    several = NODES.value * tasks > 1
    srun = ['srun', '--kill-on-bad-exit=1', '--label']
    if CPUS.value:  # srun does not take it from sbatch
        srun.append(f'--cpus-per-task={CPUS.value}')
    program = training.command(PYTHON.value, ['--distributed'] if several else [])
    known_flags.check(srun)
    setup = [SETUP.value, f'cd {shlex.quote(os.getcwd())} || exit 1']
    if GPUS.value:  # to train on a CPU because a driver is missing would be worse than to fail
        setup.append('export JAX_PLATFORMS="${JAX_PLATFORMS:-cuda,cpu}"')
    return SCRIPT.format(
        directives='\n'.join(f'#SBATCH {option}' for option in options),
        path=shlex.quote(str(path)),
        setup='\n'.join(line for line in setup if line),
        srun=f'{shlex.join(srun)} bash -c "$task" task \\\n  {lines(program)}',
        preempted=commands.PREEMPTED,
        stopped='the run has saved'
        if training.module == 'pretrain.train'
        else 'what was done in full is kept, what was begun begins anew',
        mistake=commands.MISTAKE,
        failed=FAILED,
        failed_by_mistake=FAILED_BY_MISTAKE,
        linger=LINGER_SECONDS,
        requeues=REQUEUES.value,
        show=of_job('scontrol', '--oneliner', 'show', 'job'),
        requeue=of_job('scontrol', 'requeue'),
    )


def directives(name, tasks, path):
    """sbatch's options, each a word."""
    options = {
        'job-name': name,
        'nodes': NODES.value,
        'ntasks-per-node': tasks,
        'gpus-per-node': GPUS.value or None,
        'cpus-per-task': CPUS.value or None,
        'mem': MEMORY.value,
        'time': TIME.value,
        'partition': PARTITION.value,
        'account': ACCOUNT.value,
        'qos': QOS.value,
        # Without B: the signal goes to the processes that srun has started, and not to the shell.
        'signal': f'TERM@{SAVE_SECONDS.value}',
        'output': _quoted(path.with_name('%x-%j.log')),
        'open-mode': 'append',
    }
    for option, value in options.items():
        if option != 'output' and re.search(r'[^\w.,:;@+=/\[\]-]', str(value)):
            flag = {'mem': 'memory'}.get(option, option)
            raise UserError(f'--{flag}={value!r} holds a character that sbatch does not take')
    kept = [f'--{option}={value}' for option, value in options.items() if value is not None]
    return [*kept, '--requeue']


def queue(name):
    """The command that lists the numbers of a user's jobs of that name."""
    return ('squeue', '--me', '--noheader', '--format=%i', f'--name={name}')


def of_job(*command):
    """A command of scontrol about the job itself, as shell."""
    return f'{shlex.join(known_flags.check(list(command)))} "$SLURM_JOB_ID"'


def lines(words):
    """`python -m module flag ...` as shell, a line each flag."""
    return ' \\\n  '.join([shlex.join(words[:3]), *map(shlex.quote, words[3:])])


def _quoted(path):
    if '"' in str(path) or '\n' in str(path):
        raise UserError(f'--logs={str(path.parent)!r} holds a quote, which sbatch does not take')
    return f'"{path}"' if ' ' in str(path) else str(path)


def _name(training):
    folder = (training.workdir or training.module).rstrip('/').rpartition('/')[2]
    return re.sub(r'[^a-z0-9]+', '-', folder.lower()).strip('-')[:40] or None


if __name__ == '__main__':
    commands.run(main)
