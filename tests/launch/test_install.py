"""The script that installs the project on a worker, with Pythons that write down what they do."""

import subprocess
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / 'launch' / 'install.sh'
PYTHON = """#!/bin/bash
echo "$(basename "$0") $*" >> "$HOME"/calls
case "$*" in
  *version_info*) exit {old} ;;
  '-m venv '* | *'uv venv '*)
    mkdir -p "${{!#}}"/bin
    cp "$0" "${{!#}}"/bin/python ;;
esac
"""


@pytest.fixture
def install(cluster, tmp_path):
    """install({program: 1 where it is too old}) -> its calls, and the folder."""

    def install(pythons):
        for name in ('python3.13', 'python3.12', 'python3.11', 'python3'):
            cluster.program(name, PYTHON.format(old=pythons.get(name, 1)))
        home = cluster.folder
        (home / 'calls').unlink(missing_ok=True)
        (tmp_path / 'setup.cfg').write_text('[metadata]\n')
        with tarfile.open(home / 'project.tar.gz', 'w:gz') as archive:
            archive.add(tmp_path / 'setup.cfg', 'setup.cfg')
        done = subprocess.run(
            ['bash', SCRIPT, 'project.tar.gz', home / 'pretraining', '[tpu]'], cwd=home, text=True,
            env=cluster.environment, capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout == 'launch-installed\n'
        assert not (home / 'project.tar.gz').exists()
        return (home / 'calls').read_text().splitlines(), home / 'pretraining'

    return install


def test_a_python_that_is_there_is_taken(install):
    calls, folder = install({'python3.12': 0})
    assert f'python3.12 -m venv {folder}/venv' in calls
    assert calls[-1] == f'python -m pip install --quiet --editable {folder}/project[tpu]'
    assert (folder / 'project' / 'setup.cfg').exists()


def test_where_all_are_too_old_one_is_fetched(install):
    calls, folder = install({})
    assert 'python3 -m pip install --quiet --user uv' in calls
    assert f'python3 -m uv venv --quiet --seed --python 3.12 {folder}/venv' in calls


def test_what_was_staged_and_what_ran_stays(install):
    _, folder = install({'python3': 0})
    for name in ('cache/a', 'runs/b', 'launch/old.py'):
        (folder / 'project' / name).parent.mkdir()
        (folder / 'project' / name).write_text('')
    calls, _ = install({'python3': 0})
    names = {path.name for path in (folder / 'project').iterdir()}
    assert names == {'cache', 'runs', 'setup.cfg'}
    assert not any('-m venv' in call for call in calls)
