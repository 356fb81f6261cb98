"""What stands behind `--`, and programs that run or are only printed."""

import pytest

from launch import commands, known_flags
from pretrain.errors import UserError

WORDS = ['pretrain.train', '--config=a.py:b', '--workdir', 'runs/x y', '--config.name=it\'s "q"']


def test_a_training_is_taken_as_it_is():
    training = commands.parse(WORDS)
    assert training.workdir == 'runs/x y'
    assert training.command('py', ['--extra']) == ['py', '-m', WORDS[0], '--extra', *WORDS[1:]]
    assert commands.parse(['python3.11', '-m', *WORDS]) == training
    assert commands.parse(['/usr/bin/python', '-m', *WORDS]) == training


def test_folders_that_hosts_share():
    local = commands.parse(WORDS)
    cloud = commands.parse(['pretrain.train', '--config=a', '--workdir=gs://bucket/x'])
    commands.check_workdir(local, 1, False)
    commands.check_workdir(local, 4, True)
    commands.check_workdir(cloud, 4, False)
    with pytest.raises(UserError, match='runs/x y is a folder of each of the 4 hosts'):
        commands.check_workdir(local, 4, False)


def test_programs_run_and_fail(cluster, monkeypatch, capfd):
    monkeypatch.setenv('PATH', cluster.environment['PATH'])
    programs = commands.Programs(dry_run=False)
    cluster.answer('kubectl get', 'an answer\n')
    assert programs.ask('kubectl', 'get', 'pods') == 'an answer\n'
    programs.do('kubectl', 'apply', '--filename=-', given='text')
    assert cluster.calls('kubectl')[-1] == ['kubectl', ['apply', '--filename=-'], 'text']
    cluster.answer('kubectl get', code=1, error='ERROR: NOT_FOUND: no pods\nmore\nof it\n')
    assert programs.ask('kubectl', 'get', 'pods', absent='NOT_FOUND') is None
    for act in (programs.ask, programs.do):
        with pytest.raises(UserError, match='failed with exit code 1: ERROR: NOT_FOUND: no pods'):
            act('kubectl', 'get', 'pods')
    assert programs.watch('kubectl', 'get', 'pods') == 1
    with pytest.raises(UserError, match="'no-such' is not on PATH"):
        programs.ask('no-such')
    with pytest.raises(known_flags.UnknownFlagError):
        programs.ask('kubectl', 'get', '--no-such-flag')


def test_a_dry_run_only_prints_what_is_known(cluster, monkeypatch, capsys):
    monkeypatch.setenv('PATH', cluster.environment['PATH'])
    programs = commands.Programs(dry_run=True)
    assert programs.ask('kubectl', 'get', 'a b') is None
    programs.do('kubectl', 'apply', '--filename=-', given='the file')
    assert programs.watch('kubectl', 'logs') == 0
    said = capsys.readouterr().out.splitlines()
    assert said == ["kubectl get 'a b'", 'kubectl apply --filename=-', 'the file', 'kubectl logs']
    assert cluster.calls() == []
    with pytest.raises(known_flags.UnknownFlagError):
        programs.do('kubectl', 'get', '--no-such-flag')
