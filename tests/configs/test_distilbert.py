"""DistilBERT's recipes against the paper and its released training command."""

import pytest

from configs import distilbert
from pretrain import assembly
from pretrain.errors import UserError


def test_published_size_and_settings(count):
    config = distilbert.get_config('base')
    objective, optimizer = config.objective, config.optimizer
    assert objective.teacher == 'runs/bert-base'
    assert objective.layers == (0, 2, 4, 7, 9, 11)
    assert (objective.temperature, objective.soft, objective.hard_weight, objective.cosine) == (
        2.0, 5.0, 2.0, 1.0,
    )  # fmt: skip
    assert (objective.mse, objective.smoothing, objective.rate) == (0.0, 0.7, 0.15)
    assert (optimizer.learning_rate, optimizer.b1, optimizer.b2) == (5e-4, 0.9, 0.98)
    assert (optimizer.epsilon, optimizer.weight_decay, optimizer.clip) == (1e-6, 0.0, 5.0)
    assert optimizer.schedule.warmup == pytest.approx(0.05 * config.steps)
    assert (optimizer.schedule.name, optimizer.schedule.final) == ('linear', 0.0)
    assert (config.batch_size, config.accumulation) == (2000, 50)
    assert config.model.segment_types == 0

    config.objective.teacher = ''  # drawn at random, so that nothing is read
    assert count(config) == {'student': 66_985_530, 'teacher': 109_514_298}


def test_gpt2_is_distilled_from_twelve_layers_to_six(count):
    config = distilbert.get_config('gpt2')
    assert config.objective.hard == 'causal_lm'
    config.objective.teacher = ''
    # DistilGPT2: 82 million (its card); GPT-2: 124,439,808.
    assert count(config) == {'student': 81_912_576, 'teacher': 124_439_808}


@pytest.mark.parametrize('variant', ['tiny', 'base', 'gpt2'])
def test_smoke_makes_its_own_teacher(variant, count):
    cut = distilbert.get_config(f'{variant},smoke')
    assert cut.objective.teacher == ''
    sizes = count(cut)
    assert sizes['student'] < sizes['teacher'] < 700_000
    assert cut.objective.layers == (0, 3)


def test_without_its_teacher_tiny_says_how_to_make_it(vocabulary, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = 'python -m pretrain.train --config=configs/bert.py:tiny --workdir=runs/bert-tiny'
    with pytest.raises(UserError, match=command):
        assembly.make_learner(distilbert.get_config('tiny'), vocabulary(8292))
