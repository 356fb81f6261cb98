import random

import jax
import numpy as np
import pytest

from configs import bert, compare
from pretrain import assembly, restoration, train_step
from pretrain.data import tokenizer
from pretrain.errors import UserError
from pretrain.huggingface import exporting, run


@pytest.fixture(scope='module')
def tokens():
    words = ['ripe', 'chill', 'cold', 'vine', 'house', 'fallen']
    return tokenizer.train([' '.join(random.Random(i).choices(words, k=9)) for i in range(99)], 290)


def write_run(config, tokens, folder):
    """A run's folder of drawn parameters, and its Learner."""
    learner = assembly.make_learner(config, tokens.vocabulary, frozen=False)
    folder.mkdir()
    drawn = jax.tree.map(np.asarray, train_step.draw_params(learner))
    run.write(folder, config, tokens, drawn)
    return learner, drawn


def test_a_decoder_that_reads_in_both_directions_is_refused(tokens, tmp_path):
    write_run(compare.get_config('prefix_lm,smoke'), tokens, tmp_path / 'run')
    with pytest.raises(UserError, match="on 'prefix_lm', which reads in both"):
        exporting.export_run(tmp_path / 'run', tmp_path / 'out')
    assert [path.name for path in tmp_path.iterdir()] == ['run']


def test_a_run_starts_from_weights_without_a_head(tokens, tmp_path):
    """The body is theirs; the heads that they lack are named, and nothing else may lack."""
    config = bert.get_config('smoke')
    learner, drawn = write_run(config, tokens, tmp_path / 'whole')
    body = {name: part for name, part in drawn['model'].items() if name != 'head'}
    (tmp_path / 'body').mkdir()
    run.write(tmp_path / 'body', config, tokens, {'model': body})
    wanted = jax.eval_shape(lambda: train_step.draw_params(learner))
    found, new = restoration.restore_start(tmp_path / 'body', wanted)
    assert sorted({path.split('/')[1] for path in new}) == ['head']
    table = found['model/token_embedding/table']
    np.testing.assert_array_equal(table, drawn['model']['token_embedding']['table'])
    assert not restoration.restore_start(tmp_path / 'whole', wanted)[1]

    del body['encoder']['final_norm' if 'final_norm' in body['encoder'] else 'layers']
    (tmp_path / 'torso').mkdir()
    run.write(tmp_path / 'torso', config, tokens, {'model': body})
    with pytest.raises(UserError, match='the checkpoint lacks model/encoder'):
        restoration.restore_start(tmp_path / 'torso', wanted)
