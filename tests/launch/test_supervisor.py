"""The loop that keeps a run going, really run by bash; and that shellcheck finds no fault."""

import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / 'launch' / 'supervisor.sh'


@pytest.fixture
def supervise(tmp_path):
    """supervise('state', *words) -> what supervisor.sh prints."""

    def supervise(action, *words):
        done = subprocess.run(
            ['bash', SCRIPT, action, tmp_path / 'run', *map(str, words)], capture_output=True,
            text=True, stdin=subprocess.DEVNULL, timeout=20,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return supervise


@pytest.fixture
def program(tmp_path):
    """program(codes) -> words of a program that ends with those codes, one a start."""

    def program(*codes):
        path = tmp_path / 'a program'
        (tmp_path / 'codes').write_text(' '.join(map(str, codes)))
        path.write_text(
            f'cd {tmp_path}\nread -r code rest < codes\necho "$rest" > codes\n'
            'printf "%s|" "$@" >> words\necho "code $code" >> starts\nexit "$code"\n'
        )
        return ['bash', path]

    return program


def starts(tmp_path):
    """Exit codes of all starts so far."""
    return [int(line.split()[1]) for line in (tmp_path / 'starts').read_text().splitlines()]


def test_shellcheck(shellcheck):
    for path in sorted(SCRIPT.parent.glob('*.sh')):
        shellcheck(path)


@pytest.mark.parametrize(
    ('codes', 'restarts', 'ran', 'ended'),
    [
        ((0,), 3, [0], 0),
        ((2, 0), 3, [2], 2),
        ((143, 143, 143, 0), 0, [143, 143, 143, 0], 0),
        ((1, 1, 1, 1), 2, [1, 1, 1], 1),
        ((139, 143, 1, 0), 2, [139, 143, 1, 0], 0),
        ((1,), 0, [1], 1),
    ],
)
def test_what_is_started_again(supervise, program, tmp_path, codes, restarts, ran, ended):
    at_end = f'echo "at end $code" >> {tmp_path}/end'
    supervise('start', restarts, 0, at_end, *program(*codes), "it's", '"a b" $HOME')
    log = supervise('follow')
    assert starts(tmp_path) == ran
    assert f'launch-state: ended with exit code {ended}' in log
    assert (tmp_path / 'words').read_text() == 'it\'s|"a b" $HOME|' * len(ran)
    assert (tmp_path / 'end').read_text() == f'at end {ended}\n'
    assert supervise('state') == f'launch-state: ended with exit code {ended}\n'


def test_it_pauses_before_it_starts_again(supervise, program, tmp_path):
    began = time.time()
    supervise('start', 1, 1, '', *program(1, 0))
    supervise('follow')
    assert starts(tmp_path) == [1, 0]
    assert time.time() - began > 1


LONG = 'trap "echo saved; exit 143" TERM; while :; do sleep 0.05; done'


def test_there_is_one_run_at_a_time_and_stop_lets_it_save(supervise, tmp_path):
    assert supervise('state') == 'launch-state: no run\n'
    begun = supervise('start', 9, 0, 'touch ended', 'bash', '-c', LONG)
    assert begun.startswith('launch-state: begun')
    again = supervise('start', 9, 0, '', 'touch', tmp_path / 'second')
    assert again == f'launch-state: running bash -c {LONG}\n'
    assert not (tmp_path / 'second').exists()
    assert supervise('stop') == 'launch-state: ended with exit code 143\n'
    log = supervise('follow')
    assert log.count('begins') == 1
    assert 'saved' in log
    assert not (tmp_path / 'run' / 'ended').exists()
    assert supervise('stop') == 'launch-state: ended with exit code 143\n'
    supervise('start', 0, 0, '', 'touch', tmp_path / 'second')
    supervise('follow')
    assert (tmp_path / 'second').exists()


def test_stop_ends_the_pause_as_well(supervise, program, tmp_path):
    supervise('start', 9, 60, '', *program(1, 0))
    while 'starts again in' not in (tmp_path / 'run' / 'log').read_text():
        time.sleep(0.05)
    assert supervise('stop') == 'launch-state: ended with exit code 143\n'
    assert starts(tmp_path) == [1]


def test_a_machine_that_was_switched_off_says_so(supervise, tmp_path):
    supervise('start', 0, 0, '', 'true')
    supervise('follow')
    (tmp_path / 'run' / 'code').unlink()
    assert supervise('state') == 'launch-state: interrupted\n'
