"""An objective that is written here and trained by its name, as docs/your-own-objective.md says."""

import inspect
import math
from pathlib import Path

from pretrain import run_log

# In the docs from here ...
import jax.numpy as jnp  # isort: skip

from objectives import contract, losses  # isort: skip


def make(config, vocabulary):
    """Predicts the token `gap` places ahead, from all tokens up to here."""
    gap = config.get('gap', 2)
    if not 1 <= gap <= config.length:
        raise ValueError(f'gap={gap} must be 1 to objective.length={config.length}')

    def window_length():
        return config.length + gap

    def corrupt(key, windows):
        real_BxL = windows.documents_BxW[:, gap:] != contract.PADDING
        return contract.Batch(
            inputs=contract.Inputs(windows.tokens_BxW[:, :-gap]),
            decoder_inputs=None,
            targets_BxK=windows.tokens_BxW[:, gap:],
            weights_BxK=real_BxL.astype(jnp.float32),
        )

    def loss(models, batch, key):
        model = models['model']
        return losses.predict_targets(model, model.hidden(batch, key), batch)

    return contract.Objective(window_length, corrupt, loss, stacks=('decoder',))


# ... to here.
ROOT = Path(__file__).parents[2]


def train(start, *flags):
    """(exit code, stdout, stderr) of the command, which finds this file."""
    process = start('train', *flags, PYTHONPATH=f'{ROOT}:{Path(__file__).parent}')
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_it_trains_without_a_change_elsewhere(start, small, tmp_path):
    flags = ['--config.objective.name=test_own_objective:make', '--config.steps=60',
             '--config.sample.tokens=0', f'--workdir={tmp_path / "run"}']  # fmt: skip
    code, out, err = train(start, *small, *flags)
    assert code == 0, err
    rows = run_log.read_rows(tmp_path / 'run')
    assert abs(rows[0]['loss'] - math.log(512)) < 0.2
    assert rows[-1]['validation_loss'] < rows[0]['loss'] - 0.3
    assert 'validation_unigram' in rows[-1]
    for line in ('example 1', '  reads ', '  predicts '):
        assert line in out
    assert 'windows of 34 tokens' in out  # 32 and the gap


def test_its_own_mistakes_are_one_line(start, small, tmp_path):
    flags = ['--config.objective.name=test_own_objective:mak', f'--workdir={tmp_path / "run"}']
    code, _, err = train(start, *small, *flags)
    assert code == 2
    assert 'cannot be imported' in err
    assert 'Traceback' not in err


def test_the_docs_show_this_very_code():
    page = (ROOT / 'docs' / 'your-own-objective.md').read_text()
    assert inspect.getsource(make) in page
