"""What the launchers read at run time is installed with them, and the page's commands run."""

import configparser
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r'```sh\n(.*?)```', (ROOT / 'docs' / 'launching.md').read_text(), re.DOTALL)
COMMANDS = [
    line for block in BLOCKS for line in block.replace('\\\n', ' ').splitlines()
    if line.startswith('python -m launch.') and '--dry_run' in line
]  # fmt: skip


def test_data_is_installed():
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    patterns = config['options.package_data']['launch'].split()
    installed = {path for pattern in patterns for path in (ROOT / 'launch').glob(pattern)}
    other = {p for p in (ROOT / 'launch').rglob('*') if p.is_file() and p.suffix != '.py'}
    assert {p for p in other if '__pycache__' not in p.parts} == installed


@pytest.mark.parametrize('command', COMMANDS)
def test_the_commands_of_the_page_run(launch, cluster, command):
    words = shlex.split(command)[2:]
    place = {'CLOUDSDK_COMPUTE_ZONE': 'us-west4-a', 'CLOUDSDK_CORE_PROJECT': 'my-project'}
    code, out, err = launch(words[0].removeprefix('launch.'), *words[1:], PATH='', **place)
    assert code == 0, err
    assert re.search(r'^(gcloud|kubectl|sbatch) ', out, re.MULTILINE), out
    assert cluster.calls() == []


def test_the_page_names_every_subcommand():
    text = ' '.join(COMMANDS)
    for module, words in (
        ('gke', 'run status logs delete'), ('tpu', 'create setup stage run logs status stop delete')
    ):  # fmt: skip
        for word in words.split():
            assert f'launch.{module} {word}' in text
