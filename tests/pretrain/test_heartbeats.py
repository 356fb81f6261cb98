"""Processes that are killed, stopped or fail, among some that only wait."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WAIT = 'time.sleep(60)'
KILLED = 'time.sleep(0.5); os.kill(os.getpid(), signal.SIGKILL)'
STOPPED = 'time.sleep(0.5); os.kill(os.getpid(), signal.SIGSTOP)'
MISTAKE = "print('error: mine', file=sys.stderr); sys.exit(2)"
# Forks them, each with what it does; ends those that are stopped when the others have ended.
SCRIPT = """
import json, os, signal, socket, sys, time
from pretrain import heartbeats
heartbeats.GRACE_S = 1
folder, timeout, pause, *acts = sys.argv[1:]
count = len(acts)
pairs = {n: socket.socketpair() for n in range(1, count)}
started = []
for own, act in enumerate(acts):
    started.append(os.fork())
    if not started[-1]:
        os.dup2(os.open(f'{folder}/{own}', os.O_WRONLY | os.O_CREAT), 2)
        lines = {n: pair[0] for n, pair in pairs.items()} if own == 0 else {0: pairs[own][1]}
        for pair in pairs.values():
            for line in pair:
                line in lines.values() or line.close()
        try:
            with heartbeats.ending():
                heartbeats.start(lines, own, count, int(timeout))
                exec(act)
        finally:
            time.sleep(1)  # an exit takes its time
for pair in pairs.values():
    for line in pair:
        line.close()
if float(pause):
    for what in (signal.SIGSTOP, signal.SIGCONT):
        time.sleep(float(pause))
        for each in started:
            os.kill(each, what)
codes = [None] * count
for own, each in sorted(enumerate(started), key=lambda pair: 'SIGSTOP' in acts[pair[0]]):
    if 'SIGSTOP' in acts[own]:
        os.kill(each, signal.SIGKILL)
    codes[own] = os.waitstatus_to_exitcode(os.waitpid(each, 0)[1])
print(json.dumps(codes))
"""


@pytest.fixture
def ended(tmp_path):
    """ended(act, act, ...) -> (exit codes, what each has said on stderr)."""

    def ended(*acts, timeout=2, pause=0):
        done = subprocess.run(
            [sys.executable, '-c', SCRIPT, tmp_path, str(timeout), str(pause), *acts],
            env=os.environ | {'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), [(tmp_path / str(n)).read_text() for n in range(len(acts))]

    return ended


def assert_named(said, own, count, words):
    """It is one line that says who is missing."""
    assert said.strip().startswith(f'error: process {own} of {count}: {words}'), said
    assert said.strip().count('\n') == 0, said


@pytest.mark.parametrize('lost', [0, 2])
def test_a_killed_one_is_named_by_all(ended, lost):
    acts = [KILLED if n == lost else WAIT for n in range(4)]
    codes, said = ended(*acts, timeout=50)
    assert codes == [-9 if n == lost else 1 for n in range(4)]
    for own in {0, 1, 2, 3} - {lost}:
        assert_named(said[own], own, 4, f'process {lost} has ended without a word')


@pytest.mark.parametrize(('lost', 'name'), [((0,), 'process 0'), ((1, 3), 'processes 1, 3')])
def test_stopped_ones_are_named_when_the_time_is_over(ended, lost, name):
    acts = [STOPPED if n in lost else WAIT for n in range(4)]
    codes, said = ended(*acts)
    assert codes == [-9 if n in lost else 1 for n in range(4)]
    for own in {0, 1, 2, 3} - set(lost):
        assert_named(said[own], own, 4, f'no sign of life from {name} for 2 s')


def test_what_breaks_because_one_is_killed_is_not_said_besides(ended):
    codes, said = ended("raise OSError('connection reset')", KILLED, WAIT, timeout=50)
    assert codes == [1, -9, 1]
    assert_named(said[0], 0, 3, 'process 1 has ended without a word')


@pytest.mark.parametrize('failing', [0, 1])
def test_one_that_fails_says_why_and_the_others_end_with_its_code(ended, failing):
    codes, said = ended(*[MISTAKE if n == failing else WAIT for n in range(3)], timeout=50)
    assert codes == [2, 2, 2]
    assert said[failing] == 'error: mine\n'
    for own in {0, 1, 2} - {failing}:
        assert_named(said[own], own, 3, f'process {failing} has failed with exit code 2')


def test_an_exception_of_one_alone_is_not_hidden(ended):
    codes, said = ended(WAIT, "raise ValueError('a mistake of the program')", timeout=50)
    assert codes == [1, 1]
    assert 'Traceback' in said[1]
    assert said[1].endswith('ValueError: a mistake of the program\n')
    assert_named(said[0], 0, 2, 'process 1 has failed with exit code 1')


def test_one_that_cannot_even_say_what_is_wrong_is_named(ended):
    full = "os.dup2(os.open('/dev/full', os.O_WRONLY), 2); raise OSError('the disk is full')"
    codes, said = ended(WAIT, full, timeout=50)
    assert codes == [1, 1]
    assert_named(said[0], 0, 2, 'process 1 has failed with exit code 1')


def test_all_that_fail_alike_say_their_own_alone(ended):
    later = f'time.sleep(0.1 * own); {MISTAKE}'
    codes, said = ended(later, later, later, timeout=50)
    assert codes == [2, 2, 2]
    assert said == ['error: mine\n'] * 3


def test_an_end_is_no_death(ended):
    codes, said = ended('time.sleep(2); sys.exit()', 'sys.exit()', 'sys.exit(143)', timeout=50)
    assert codes == [0, 0, 143]
    assert said == [''] * 3


def test_who_was_away_itself_judges_nobody(ended):
    """All are stopped for longer than the time, as on a laptop that sleeps."""
    codes, said = ended(*['time.sleep(6); sys.exit()'] * 3, pause=2.5)
    assert said == [''] * 3
    assert codes == [0, 0, 0]
