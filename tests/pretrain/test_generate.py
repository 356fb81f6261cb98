import ast
import functools
import random
import re
import shutil

import jax
import pytest

from configs import compare, objectives
from objectives import find
from pretrain import assembly, train_step
from pretrain.data import tokenizer
from pretrain.huggingface.run import write


def test_prompts_are_continued_the_same_way_each_time(call, trained, tmp_path):
    workdir, _ = trained
    prompts = tmp_path / 'prompts.txt'
    prompts.write_text('Kalo mi\nTer\n')
    flags = [f'--checkpoint={workdir}', '--tokens=12', '--top_k=10', '--top_p=0.9']
    one, again, other = (
        call('generate', *flags, f'--prompts_file={prompts}', f'--seed={seed}')
        for seed in (0, 0, 1)
    )
    assert one.returncode == 0, one.stderr
    assert [line[:3] for line in one.stdout.splitlines() if line[:3] in ('Kal', 'Ter')] == [
        'Kal',
        'Ter',
    ]
    assert one.stdout == again.stdout
    assert one.stdout != other.stdout


def test_greedy_needs_no_seed(call, trained):
    workdir, _ = trained
    flags = [f'--checkpoint={workdir}', '--prompt=', '--temperature=0', '--tokens=8']
    one, other = (call('generate', *flags, f'--seed={seed}').stdout for seed in (0, 1))
    assert one
    assert one == other


def test_another_tokenizer_in_the_runs_folder_is_refused(call, trained, tmp_path):
    copy = shutil.copytree(trained[0], tmp_path / 'run')
    words = ['ripe', 'chill', 'cold', 'vine', 'house', 'fallen']
    texts = [' '.join(random.Random(i).choices(words, k=9)) for i in range(99)]
    other = tokenizer.train(texts, 290)
    (copy / 'tokenizer.model').write_bytes(other.model)
    done = call('generate', f'--checkpoint={copy}', '--prompt=x')
    assert done.returncode == 2
    assert 'is not the one that its checkpoint was trained with' in done.stderr


def test_what_is_wrong_is_said_in_one_line(refused, trained, tmp_path):
    workdir, _ = trained
    run = f'--checkpoint={workdir}'
    empty = tmp_path / 'none.txt'
    empty.write_text('')
    cases = [
        (['--checkpoint=/no/run', '--prompt=x'], '/no/run'),
        ([f'--checkpoint={tmp_path}', '--prompt=x'], 'holds no run'),
        ([run], 'give either --prompt=TEXT or --prompts_file=FILE'),
        ([run, '--prompt=x', f'--prompts_file={empty}'], 'give either'),
        ([run, f'--prompts_file={empty}'], 'is empty'),
        ([run, f'--prompts_file={tmp_path}/no.txt'], 'no.txt'),
        ([run, '--prompt=x', '--tokens=0'], '--tokens=0'),
        ([run, '--prompt=x', '--top_p=1.5'], '--top_p=1.5'),
        ([run, '--prompt=x', '--temperature=-1'], '--temperature=-1'),
        ([run, '--prompt=x', '--tokens=1000'], 'are more than the'),
        ([run, '--prompt=x', '--step=7'], '7'),
        ([run, 'x'], "unknown argument 'x'"),
    ]
    refused('generate', cases)


@pytest.fixture(scope='module')
def untrained(tmp_path_factory):
    """Folders of an encoder with a decoder, an encoder, ELECTRA's two, a decoder that denoises."""
    words = ['ripe', 'chill', 'cold', 'vine', 'house', 'fallen']
    texts = [' '.join(random.Random(i).choices(words, k=9)) for i in range(99)]
    tokens, made = tokenizer.train(texts, 290), {}
    for name in ('two_stacks', 'masked_lm', 'replaced_token', 'span_corruption'):
        two = name == 'two_stacks'
        config = compare.get_config(f'{"span_corruption" if two else name},smoke')
        if two:
            config.objective = objectives.span_corruption(32)
            config.model.encoder_layers = 1
        config.model.stddev = 0.3
        learner = assembly.make_learner(config, tokens.vocabulary)
        params = jax.jit(functools.partial(train_step.draw_params, learner))()
        made[name] = tmp_path_factory.mktemp('runs') / name
        made[name].mkdir()
        write(made[name], config, tokens, jax.device_get(params))
    return made


@pytest.mark.parametrize('name', ['span_corruption', 'mixture_of_denoisers', 'prefix_lm'])
def test_how_a_prompt_is_read(name, vocabulary):
    config = getattr(objectives, name)(32)
    config.layout = 'encoder_decoder'
    assert find(name)(config, vocabulary).prompt == 'encoder'
    config.layout = 'decoder'
    alone = {'prefix_lm': 'prefix'}.get(name)
    assert find(name)(config, vocabulary).prompt == alone
    hard = {'hard': name, 'temperature': 2.0, 'soft': 1.0, 'hard_weight': 1.0, 'cosine': 0.0}
    config.update(hard | {'mse': 0.0, 'projection_width': 0})
    assert find('distillation')(config, vocabulary).prompt == alone


def test_encoders(call_many, untrained):
    """What is read by an encoder is answered, or its masks are filled; and what is refused."""
    answers, fills, pair, neither = (
        f'--checkpoint={untrained[name]}'
        for name in ('two_stacks', 'masked_lm', 'replaced_token', 'span_corruption')
    )
    text, masks = '--prompt=ripe cold', '--prompt=ripe [MASK] cold [MASK]'
    calls = [
        [answers, text, '--temperature=0', '--tokens=6'],
        [answers, text, '--beams=2', '--tokens=6', '--length_penalty=0', '--early_stopping=never'],
        [fills, masks, '--top_k=3'],
        [pair, masks],
        [answers, text, '--beams=0'],
        [answers, text, '--beams=2', '--temperature=0.5'],
        [answers, text, '--beams=2', '--top_k=3'],
        [answers, text, '--length_penalty=2'],
        [fills, text],
        [fills, masks, '--temperature=1'],
        [fills, masks, '--beams=2'],
        [fills, masks, '--top_k=0'],
        [neither, masks],
    ]
    done = call_many('generate', calls)
    for (code, _, err), says in zip(
        done,
        [
            None,
            None,
            None,
            None,
            '--beams=0 is out of range',
            '--temperature=0.5 draws',
            '--top_k=3 draws',
            'give --beams above 1',
            "'ripe cold' has no mask: write [MASK]",
            '--temperature=1.0 does not apply',
            '--beams=2 does not apply',
            '--top_k=0',
            'can neither continue texts nor fill masks',
        ],
    ):
        said = [line for line in err.splitlines() if line.startswith('error: ')]
        assert (code, len(said)) == ((0, 0) if says is None else (2, 1)), err
        assert says is None or says in said[0]
    (_, greedy, _), (_, searched, _), (_, filled, _), (_, generator, _) = done[:4]
    assert greedy.strip()
    assert searched.strip()
    assert 'ripe cold' not in greedy, 'the answer alone'
    lines = filled.splitlines()
    assert len(lines) == 2 * 3
    assert len(generator.splitlines()) == 2 * 5
    for line in lines:
        parts = re.fullmatch(r"(0\.\d{4})  (['\"].*['\"])  (ripe.*)", line)
        probability, piece, text = parts.groups()
        assert 0 < float(probability) < 1
        assert ast.literal_eval(piece) in text
        assert text.count('<MASK>') == 1
