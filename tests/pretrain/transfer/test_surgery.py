"""What a task takes over from real runs of every kind, name by name, and what is refused."""

import functools
import random
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from configs import bert, distilbert, electra, gpt, t5
from configs.transfer import transfer
from pretrain import assembly, commandline, train_step
from pretrain.data import tokenizer
from pretrain.errors import UserError
from pretrain.huggingface import run
from pretrain.model.transformer import Transformer
from pretrain.transfer import casts, fine_tuned, surgery
from pretrain.transfer.task import Task

WORDS = re.findall('[a-z]+', 'the cat sat on mat because it was warm a dog ran and glad house')
TEXT = [' '.join(random.Random(i).choices(WORDS, k=10)) for i in range(300)]
CONFIGS = {'bert': bert, 'gpt': gpt, 'electra': electra, 'distilbert': distilbert, 't5': t5}
MODELS = {'electra': 'discriminator', 'distilbert': 'student'}
OUTPUT = ['output/bias', 'output/kernel']
POOLER = ['pooler/bias', 'pooler/kernel']


def task(labels=2, name='own'):
    labels = tuple(f'label{n}' for n in range(labels))
    return Task(name, name, 'own', 'classes', labels, ('a',), (), lambda folder, split: [])


def flat(tree):
    return traverse_util.flatten_dict(tree, sep='/')


def filled(shapes, seed=0):
    """Numbers of their own for every parameter."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


@functools.cache
def tokens():
    return tokenizer.train(TEXT, 310)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """folder(name, **fields of the model) -> (folder of a run, its parameters by model)."""

    @functools.cache
    def write(name, **fields):
        config = CONFIGS[name].get_config('smoke')
        for key, value in fields.items():
            section, _, key = key.rpartition('__')
            config[section or 'model'][key] = value
        learner = assembly.make_learner(config, tokens().vocabulary, frozen=False)
        params = filled(jax.eval_shape(lambda: train_step.draw_params(learner)))
        path = tmp_path_factory.mktemp('runs') / name
        with run.new_folder(path) as unfinished:
            run.write(unfinished, config, tokens(), params)
        return path, params

    return write


def open_source(path):
    return surgery.open_source(path, commandline.read_config(path / 'config.json'))


def settings(**changes):
    section = transfer('glue', 'rte').transfer
    section.update(changes)
    return section


def operate(path, of_task=None, **changes):
    """(Source, what was stored, trunk, head, Report, what was drawn)."""
    source = open_source(path)
    cast = casts.make_cast(source, of_task or task(), settings(**changes))
    drawn = filled(jax.eval_shape(lambda: casts.draw(cast, jax.random.key(0))), seed=1)
    trunk, head, report = surgery.take_over(
        *surgery.read_params(source), drawn['trunk'], drawn['head']
    )
    return source, flat(trunk), flat(head), report, drawn


LEFT = {
    'bert': (['classifier', 'head'], True),
    'gpt': ([], False),
    'electra': (['scores'], False),
    'distilbert': (['head'], False),
}


@pytest.mark.parametrize('name', LEFT)
def test_every_family_gives_its_trunk(name, folder):
    path, params = folder(name)
    source, trunk, head, report, drawn = operate(path)
    model = MODELS.get(name, 'model')
    assert (source.model, source.step, source.task) == (model, 0, None)
    stored = flat(params[model])
    parts, has_pooler = LEFT[name]
    heads = {p for p in stored if p.split('/')[0] in (*parts, 'pooler')}
    assert {p.split('/')[0] for p in heads} == {*parts, *(['pooler'] if has_pooler else [])}
    assert set(trunk) == stored.keys() - heads
    for path, x in trunk.items():
        np.testing.assert_array_equal(x, stored[path], err_msg=path)
    # Encoders have a pooler before their head, which next-sentence prediction trained.
    pooler = POOLER if name != 'gpt' else []
    assert set(head) == {*OUTPUT, *pooler}
    taken = pooler if has_pooler else []
    for path, x in head.items():
        known = stored[path] if path in taken else flat(drawn['head'])[path]
        np.testing.assert_array_equal(x, known, err_msg=path)
    assert sorted(report.used) == sorted([*trunk, *taken])
    assert report.drawn == sorted({*OUTPUT, *pooler} - {*taken})
    assert report.left == sorted(p for p in heads if p not in taken)
    assert report.mismatched == []


def test_a_report_is_one_line_with_every_name(folder):
    path, _ = folder('bert')
    report = operate(path, pooling='mean')[3]
    text = str(report)
    assert '\n' not in text
    assert text.startswith(f'{len(report.used)} parameters taken over; drawn anew: output/bias, ')
    assert text.endswith(f'left behind: {", ".join(report.left)}')
    assert 'shape' not in text
    assert {'classifier/kernel', 'head/bias', *POOLER} < set(report.left)
    of_all = surgery.Report(['a'], [], [], ['b', 'c'])
    assert str(of_all) == '1 parameters taken over; drawn anew for their shape: b, c'


def test_an_untied_head_of_a_decoder_stays_behind_or_comes_along(folder):
    path, params = folder('gpt', tied=False)
    kernel = 'head/logits/kernel'
    assert kernel in flat(params['model'])
    assert operate(path)[3].left == [kernel]
    _, trunk, _, report, _ = operate(path, lm_coefficient=0.5)
    assert kernel in report.used
    assert report.left == []
    np.testing.assert_array_equal(trunk[kernel], params['model']['head']['logits']['kernel'])


def test_text_to_text_takes_all(folder):
    path, params = folder('t5')
    _, trunk, head, report, _ = operate(path)
    assert trunk.keys() == flat(params['model']).keys()
    assert head == {}
    assert report[1:] == ([], [], [])


def test_a_student_leaves_the_map_to_its_teacher_behind(folder):
    path, _ = folder(
        'distilbert', teacher__width=64, objective__projection_width=64, objective__layers=()
    )
    report = operate(path)[3]
    assert 'projection/kernel' in report.left
    assert not any('projection' in name for name in report.used)


def test_the_discriminators_tables_are_its_own(folder):
    """The generator reads them there; its own layers are no part of the trunk."""
    path, params = folder('electra', embedding_width=8)
    source, trunk, _, _, _ = operate(path)
    assert 'token_embedding' not in params['generator']
    assert source.transformer.config.width == 32
    for name in ('token_embedding/table', 'embedding_projection/kernel'):
        np.testing.assert_array_equal(trunk[name], flat(params['discriminator'])[name])


def test_what_a_model_shares_is_read_from_its_owner(folder):
    path, params = folder('electra')
    source = open_source(path)._replace(model='generator')
    stored, head = surgery.read_params(source)
    assert head == {}
    table = params['discriminator']['token_embedding']['table']
    np.testing.assert_array_equal(stored['token_embedding/table'], table)
    own = params['generator']['embedding_projection']['kernel']
    np.testing.assert_array_equal(stored['embedding_projection/kernel'], own)


@pytest.fixture(scope='module')
def tuned(folder, tmp_path_factory):
    """tuned(name) -> (folder of its fine-tuned run for three labels, the parameters in it)."""

    @functools.cache
    def write(name):
        source, trunk, head, _, _ = operate(folder(name)[0], task(3, 'three'))
        path = tmp_path_factory.mktemp('tuned') / name
        trees = (traverse_util.unflatten_dict(x, sep='/') for x in (trunk, head))
        params = dict(zip(('trunk', 'head'), trees))
        fine_tuned.write(path, source, task(3, 'three'), params)
        return path, params

    return write


@pytest.mark.parametrize('name', ['bert', 'gpt', 'electra', 'distilbert'])
def test_a_fine_tuned_run_gives_its_head_to_a_task_of_as_many_labels(name, tuned):
    path, params = tuned(name)
    source, trunk, head, report, _ = operate(path, task(3, 'another'))
    assert source.task == {
        'benchmark': 'own', 'name': 'three', 'kind': 'classes', 'low': 0.0, 'high': 5.0,
        'labels': ('label0', 'label1', 'label2'),
    }  # fmt: skip
    for found, known in ((trunk, params['trunk']), (head, params['head'])):
        assert found.keys() == flat(known).keys()
        for key, x in flat(known).items():
            np.testing.assert_array_equal(found[key], x, err_msg=key)
    assert report[1:] == ([], [], [])
    assert sorted(report.used) == sorted([*trunk, *head])


def test_onto_another_number_of_labels_the_output_is_drawn_anew(tuned):
    path, params = tuned('bert')
    _, _, head, report, drawn = operate(path, task(2))
    assert report.mismatched == OUTPUT
    assert (report.drawn, report.left) == ([], [])
    assert set(POOLER) < set(report.used)
    assert not set(OUTPUT) & set(report.used)
    np.testing.assert_array_equal(head['output/kernel'], drawn['head']['output']['kernel'])
    np.testing.assert_array_equal(head['pooler/kernel'], params['head']['pooler']['kernel'])
    assert 'drawn anew for their shape: output/bias, output/kernel' in str(report)


def test_onto_another_kind_of_head_the_old_one_is_left_behind(tuned):
    path, _ = tuned('bert')
    _, _, head, report, _ = operate(path, task(3), pooling='mean', hidden_width=5)
    assert set(head) == {
        'norm/scale', 'norm/bias', 'hidden/kernel', 'hidden/bias', *OUTPUT,
    }  # fmt: skip
    assert report.left == POOLER
    assert report.mismatched == ['output/kernel']
    assert 'output/bias' in report.used
    assert report.drawn == ['hidden/bias', 'hidden/kernel', 'norm/bias', 'norm/scale']


def take_over(stored=None, head=None, drawn=None, new_head=None):
    leaf = lambda *shape: np.ones(shape, np.float32)  # noqa: E731
    stored = stored or {'encoder/scale': leaf(3), 'token_embedding/table': leaf(5, 3)}
    drawn = drawn or {'encoder': {'scale': leaf(3)}, 'token_embedding': {'table': leaf(5, 3)}}
    return surgery.take_over(
        {k: v * 2 for k, v in stored.items()}, head or {}, drawn,
        new_head or {'output': {'kernel': leaf(3, 2)}},
    )  # fmt: skip


def refused(match, **arguments):
    with pytest.raises(UserError, match=match) as error:
        take_over(**arguments)
    assert '\n' not in str(error.value)


def test_what_the_trunk_lacks_is_refused():
    one, table = np.ones(3), np.ones((5, 3))
    refused('lacks token_embedding/table, which', stored={'encoder/scale': one})
    refused(
        'lacks encoder/scale, token_embedding/table, which', stored={'pooler/kernel': table}
    )  # fmt: skip
    many = {f'encoder/{n}': one for n in 'abcde'}
    refused(
        'lacks encoder/a, encoder/b, encoder/c and 2 more, which',
        drawn={'encoder': {n: one for n in 'abcde'}}, stored={'encoder/f': one},
    )  # fmt: skip
    # A parameter of a head that the new model keeps is needed as well.
    refused(
        'lacks head/bias', stored=many,
        drawn={'encoder': {n: one for n in 'abcde'}, 'head': {'bias': one}},
    )  # fmt: skip


def test_what_has_no_place_is_refused():
    own = {'encoder/scale': np.ones(3), 'token_embedding/table': np.ones((5, 3))}
    for name in ('segment_embedding/table', 'embedding_projection/kernel', 'heads/kernel',
                 'decoder/layers/head/kernel', 'projections/kernel', 'classified'):  # fmt: skip
        refused(f'holds {name}, for which', stored=own | {name: np.ones(3)})
    for name in ('head/bias', 'pooler/kernel', 'classifier/bias', 'scores/out/kernel',
                 'projection/kernel'):  # fmt: skip
        report = take_over(stored=own | {name: np.ones(3)})[2]
        assert report.left == [name]


def test_another_shape_in_the_trunk_is_refused():
    own = {'encoder/scale': np.ones(3), 'token_embedding/table': np.ones((7, 3))}
    refused(r'has token_embedding/table of shape \(7, 3\), .* needs \(5, 3\)', stored=own)


def test_stored_numbers_take_the_models_precision():
    """What was saved in half precision is trained in the precision of what is drawn."""
    half = {'encoder/scale': np.ones(3, np.float16), 'token_embedding/table': np.ones((5, 3))}
    trunk, head, _ = take_over(stored=half, head={'output/kernel': np.ones((3, 2), np.float16)})
    assert {x.dtype.name for x in jax.tree.leaves((trunk, head))} == {'float32'}
    assert (trunk['encoder']['scale'] == 2).all()
    # A trunk that is only known by its shapes will do.
    shapes = {'encoder': {'scale': jax.ShapeDtypeStruct((3,), jnp.float32)}}
    trunk, _, _ = take_over(stored={'encoder/scale': np.ones(3)}, drawn=shapes)
    assert trunk['encoder']['scale'].dtype == jnp.float32


def test_what_stored_and_drawn_hold_is_left_alone():
    stored = {'encoder/scale': np.ones(3), 'pooler/kernel': np.ones((3, 3))}
    head = {'output/kernel': np.full((3, 2), 5.0)}
    drawn = {'encoder': {'scale': np.zeros(3)}}
    new = {'output': {'kernel': np.zeros((3, 2))}, 'pooler': {'kernel': np.zeros((3, 3))}}
    _, made, report = surgery.take_over(stored, head, drawn, new)
    assert (made['output']['kernel'] == 5).all()
    assert (made['pooler']['kernel'] == 1).all()
    assert (new['output']['kernel'] == 0).all()
    assert list(stored) == ['encoder/scale', 'pooler/kernel']
    assert list(head) == ['output/kernel']
    assert report.left == report.drawn == report.mismatched == []
    # The task's own pooler goes before that of the pretraining.
    _, made, _ = surgery.take_over(stored, {'pooler/kernel': np.full((3, 3), 7.0)}, drawn, new)
    assert (made['pooler']['kernel'] == 7).all()


def test_the_trunk_has_no_heads(folder):
    """Beside them only what is asked for is changed."""
    config = open_source(folder('bert')[0]).transformer.config
    assert config.classes == 2
    bare = surgery.trunk_of(Transformer(config), dropout=0.25).config
    assert (bare.token_head, bare.classes, bare.pooler, bare.token_scores) == (
        False, 0, False, False,
    )  # fmt: skip
    assert bare.dropout == 0.25
    changed = {'token_head', 'classes', 'dropout'}
    for field, value in vars(config).items():
        assert (getattr(bare, field) != value) == (field in changed), field
    assert surgery.trunk_of(Transformer(config), keep_head=True).config.token_head
    scores = open_source(folder('electra')[0]).transformer
    assert scores.config.token_scores
    assert not surgery.trunk_of(scores, keep_head=True).config.token_head


def test_a_folder_without_a_run_is_said(folder, tmp_path):
    path, _ = folder('gpt')
    config = commandline.read_config(path / 'config.json')
    with pytest.raises(UserError, match='no') as error:
        surgery.open_source(tmp_path, config)
    assert '\n' not in str(error.value)
    with pytest.raises(UserError, match='step 7'):
        surgery.open_source(path, config, step=7)


def test_the_number_of_parameters():
    assert surgery.count({'a': np.ones((3, 4)), 'b': {'c': np.ones(5), 'd': np.float32(1)}}) == 18
