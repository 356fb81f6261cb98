"""The batch script is right and really runs; what cannot work is refused."""

import re
import subprocess
from pathlib import Path

import pytest

TRAINING = ['--', 'pretrain.train', '--config=configs/gpt.py:tiny', '--workdir=runs/gpt tiny']
ODD = '--config.data.source=text:it\'s "a" $HOME; \\ $(ls) file'
# Ends as the words of `codes` say, one a start, and writes down its own words.
PROGRAM = """#!/bin/bash
printf '%s\\0' "$@" > "$HOME"/words
read -r code rest < "$HOME"/codes
echo "$rest" > "$HOME"/codes
exit "$code"
"""


@pytest.fixture
def submit(launch, cluster, tmp_path):
    """submit(*flags) -> path of the script that sbatch was given."""

    def submit(*flags, training=TRAINING):
        cluster.answer('sbatch', '77;trial\n')
        logs = tmp_path / 'the logs'
        python = cluster.program('python', PROGRAM)
        code, out, err = launch(
            'slurm', '--time=1:00:00', f'--logs={logs}', f'--python={python}', *flags, *training
        )
        assert code == 0, err
        assert 'job 77' in out
        (call,) = cluster.calls('sbatch')
        return Path(call[1][-1])

    return submit


def option(text, name):
    """Value of an #SBATCH option in a script."""
    found = re.search(rf'^#SBATCH --{name}(?:=(.*))?$', text, re.MULTILINE)
    return found and (found[1] or True)


def test_the_script_asks_for_what_the_flags_say(submit, shellcheck):
    path = submit(
        '--nodes=4', '--gpus_per_node=8', '--partition=a', '--account=b-1', '--save_seconds=90',
        '--shared_workdir', '--cpus_per_task=6', '--memory=200G', '--qos=low',
        '--setup=module load cuda',
    )  # fmt: skip
    shellcheck(path)
    text = path.read_text()
    asked = {
        'nodes': '4', 'ntasks-per-node': '8', 'gpus-per-node': '8', 'time': '1:00:00',
        'partition': 'a', 'account': 'b-1', 'signal': 'TERM@90', 'requeue': True, 'mem': '200G',
        'cpus-per-task': '6', 'qos': 'low', 'open-mode': 'append', 'job-name': 'gpt-tiny',
        'output': f'"{path.parent}/%x-%j.log"',
    }  # fmt: skip
    assert {name: option(text, name) for name in asked} == asked
    assert 'srun --kill-on-bad-exit=1 --label --cpus-per-task=6 bash' in text
    assert 'module load cuda\n' in text
    assert 'JAX_PLATFORMS:-cuda,cpu' in text


def run_job(cluster, path, codes, **environment):
    """Runs a script as a job does; (exit code, output, calls of scontrol)."""
    (cluster.folder / 'codes').write_text(codes)
    done = subprocess.run(
        ['bash', path], env=cluster.environment | {'SLURM_JOB_ID': '77'} | environment, text=True,
        capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr, [c[1] for c in cluster.calls('scontrol')]


def test_words_reach_the_run_as_they_were_given(submit, cluster, shellcheck):
    path = submit('--nodes=2', '--shared_workdir', training=[*TRAINING, ODD])
    shellcheck(path)
    code, out, _ = run_job(cluster, path, '0')
    assert code == 0, out
    words = (cluster.folder / 'words').read_text().split('\0')[:-1]
    assert words == ['-m', 'pretrain.train', '--distributed', *TRAINING[2:], ODD]


def test_one_process_joins_no_others(submit, cluster):
    run_job(cluster, submit(), '0')
    assert '--distributed' not in (cluster.folder / 'words').read_text()


@pytest.mark.parametrize(
    ('ends', 'state', 'restarts', 'code', 'requeued', 'says'),
    [
        (143, 'RUNNING', 0, 0, True, 'is queued again'),
        (143, 'RUNNING', 3, 143, False, '--max_requeues=3 is used up'),
        (143, 'CANCELLED', 0, 143, False, 'the job is CANCELLED'),
        (143, 'COMPLETING', 0, 143, False, 'the job is COMPLETING'),
        (0, 'RUNNING', 0, 0, False, 'the run is done'),
        (2, 'RUNNING', 0, 2, False, 'cannot start so'),
        (1, 'RUNNING', 0, 1, False, 'process 0 ended with exit code 1'),
        (139, 'RUNNING', 0, 1, False, 'process 0 ended with exit code 139'),
    ],
)
def test_only_a_run_that_was_told_to_stop_is_queued_again(
    submit, cluster, ends, state, restarts, code, requeued, says
):
    cluster.answer('scontrol --oneliner show job 77', f'JobId=77 JobState={state} Reason=None\n')
    cluster.program('sleep', '#!/bin/bash\n')
    path = submit('--max_requeues=3')
    ended = run_job(cluster, path, str(ends), SLURM_RESTART_COUNT=str(restarts))
    assert ended[0] == code, ended[1]
    assert (['requeue', '77'] in ended[2]) == requeued
    assert says in ended[1]


def test_a_signal_to_the_shells_lets_the_run_save(submit, cluster):
    """The run is told by SLURM; the shells around it wait for it."""
    path = submit()
    text = 'trap "echo saved; exit 143" TERM\nkill -TERM $PPID\nkill -TERM $$\nexit 1\n'
    cluster.program('python', f'#!/bin/bash\n{text}')
    cluster.program('sleep', '#!/bin/bash\n')
    cluster.answer('scontrol --oneliner show job 77', 'JobState=RUNNING\n')
    code, out, scontrol = run_job(cluster, path, '')
    assert (code, scontrol[-1]) == (0, ['requeue', '77']), out
    assert 'saved' in out


def test_a_dry_run_prints_all_and_runs_nothing(launch, cluster, tmp_path):
    logs = tmp_path / 'logs'
    code, out, err = launch('slurm', '--dry_run', '--time=60', f'--logs={logs}', *TRAINING, PATH='')
    assert code == 0, err
    assert f'sbatch --parsable {logs}/gpt-tiny.sbatch' in out
    assert '#SBATCH --signal=TERM@120' in out
    assert cluster.calls() == []
    assert not logs.exists()


def test_what_is_wrong_is_said_in_one_line(refused, cluster):
    time = '--time=1:00:00'
    cases = [
        ([time], 'what is to run is missing: for example -- pretrain.train'),
        ([*TRAINING], '--time is missing'),
        (['--time=soon', *TRAINING], "--time='soon' is no time limit"),
        (['--time=2', *TRAINING], '--time=2 is not longer than --save_seconds=120'),
        ([time, '--nodes=2', *TRAINING], '--workdir=runs/gpt tiny is a folder of each of the 2'),
        ([time, '--nodes=0', *TRAINING], '--nodes=0 must be at least 1'),
        ([time, '--save_seconds=5', *TRAINING], '--save_seconds=5 must be at least 30'),
        (
            [time, '--gpus_per_node=8', '--tasks_per_node=1', *TRAINING],
            '--tasks_per_node=1 must be --gpus_per_node=8',
        ),
        ([time, '--name=My Job', *TRAINING], "--name='My Job' must be small letters"),
        ([time, '--partition=a b', *TRAINING], "--partition='a b' holds a character"),
        ([time, '--logs=a"b', *TRAINING], 'holds a quote'),
        ([time, '--', 'pretrain.trian'], "'pretrain.trian' behind -- is no command"),
        ([time, '--', 'rm', '-rf'], "'rm' behind -- is no command that can be launched"),
        ([time, '--', 'pretrain.train', '--workdir=a'], '--config is missing behind --'),
        ([time, '--', 'pretrain.train', '--config=a'], '--workdir is missing behind --'),
        ([time, '--', 'pretrain.finetune', '--config=a'], '--workdir is missing behind --'),
        (
            [time, '--nodes=2', '--', 'pretrain.prepare', '--config=a'],
            'pretrain.prepare runs in one process, and this would start 2',
        ),
        ([time, '--', *TRAINING[1:2], '--config=a', '--workdir=runs/../'], '--name is missing'),
        ([time, 'extra', *TRAINING], "unknown argument 'extra'"),
        ([time, '--noodles=2', *TRAINING], 'noodles'),
    ]
    refused('slurm', cases)
    cluster.answer('squeue', '41\n42\n')
    refused('slurm', [([time, *TRAINING], "job 41 is there already under the name 'gpt-tiny'")])
    cluster.answer('squeue', '')
    cluster.answer('sbatch', code=1, error='sbatch: error: invalid partition\n')
    refused('slurm', [([time, f'--logs={cluster.folder}', *TRAINING], 'invalid partition')])
    refused('slurm', [([time, *TRAINING], "'squeue' is not on PATH")], PATH='')


def test_time_limits_are_read_as_sbatch_reads_them(launch):
    """60 s is too short for the 120 s of --save_seconds, 180 s is not."""
    for text, seconds in (
        ('3', 180), ('0:03:00', 180), ('0-1', 3600), ('0-0:03:00', 180), ('1:00', 60),
        ('0-0:01', 60),
    ):  # fmt: skip
        code, _, err = launch('slurm', '--dry_run', f'--time={text}', *TRAINING)
        assert (code == 0) == (seconds > 120), (text, err)
