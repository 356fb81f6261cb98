"""What the compiled train step holds on each device: nothing whole that the rules split.

The sizes are chosen so that each dimension, whole or halved, is known by its number alone.
"""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from configs import bert, distilbert, gpt, t5
from launch import hlo
from objectives import contract
from pretrain import assembly, meshes, partitioning, train_step
from pretrain.data import tokenizer

MESH = 'fsdp=2,tensor=2,sequence=2'
B, L, N, D, F, V, H, K = 22, 26, 5, 34, 46, 1706, 14, 10


@functools.cache
def learner(family):
    config = family.get_config('smoke')
    config.batch_size, config.optimizer.name = B, 'adamw'
    length = 'inputs_length' if family is t5 else 'length'
    config.objective[length] = config.model.max_positions = L
    config.model.update(width=D, feedforward_width=F, heads=H, head_width=K, vocabulary=V)
    for stack in ('encoder_layers', 'decoder_layers'):
        config.model[stack] = N if config.model[stack] else 0
    if family is distilbert:
        config.objective.layers = ()
        config.teacher.update(width=D, feedforward_width=F, heads=H, encoder_layers=N)
    return assembly.make_learner(config, tokenizer.stand_in(1600))


def on_a_device(family=gpt):
    """(shapes of the arrays that the step is given, of all that it holds), fused ones too."""
    mesh = meshes.make_mesh(MESH)
    it = learner(family)
    state = assembly.abstract_state(it, mesh)
    split = lambda *shape: jax.ShapeDtypeStruct(  # noqa: E731
        shape, np.int32, sharding=partitioning.batch_sharding(mesh)
    )
    W = it.objective.window_length()
    windows = contract.Windows(split(B, W), split(B, W), split(B, W), split(B))
    step = jax.jit(
        functools.partial(train_step.train_step, it),
        out_shardings=(jax.tree.map(lambda x: x.sharding, state), None),
    )
    frozen = assembly.abstract_frozen(it, mesh)
    with jax.set_mesh(mesh):
        program = hlo.parse(step.lower(state, windows, frozen).compile().as_text())
    given, held = set(), set()
    for name, computation in program.computations.items():
        for each in computation.values():
            shapes = {shape.dims for shape in each.shapes if shape.dtype in ('f32', 'bf16')}
            held |= shapes
            if name == program.entry and each.opcode == 'parameter':
                given |= shapes
    return given, held


def whole(given, held):
    """What lies whole on a device though a rule splits it."""
    found = set()
    for dims in held:
        has = lambda *sizes, dims=dims: all(size in dims for size in sizes)  # noqa: E731
        if has(F):
            found.add('hidden units')
        if has(H * K) or (has(H) and len(dims) > 2):
            found.add('heads')
        if has(V):
            found.add('vocabulary')
        if has(B) and len(dims) > 1:
            found.add('rows')
        if has(L, D) and len(dims) > 2:
            found.add('length')
        if len(dims) == 3 and has(N, D) and not has(D // 2) and not has(L // 2):
            found.add('layers')
    for dims in given:
        if D in dims and D // 2 not in dims and len(dims) > 1 + (N in dims):
            found.add('a kernel or a table')
    return found


@pytest.mark.parametrize('family', [gpt, bert, t5, distilbert], ids=lambda f: f.__name__)
def test_nothing_that_the_rules_split_lies_whole(family):
    given, held = on_a_device(family)
    assert (N, D // 2, H * K // 2) in given
    assert (V // 2, D // 2) in given
    assert any({B // 2, L // 2, D} <= set(dims) for dims in held)
    assert whole(given, held) == set()


@pytest.mark.parametrize(
    ('rule', 'lies_whole'),
    [
        ('token_embedding', {'a kernel or a table', 'vocabulary'}),
        ('position|segment', {'a kernel or a table'}),
        ('up|gate)/kernel', {'a kernel or a table', 'hidden units', 'heads'}),
        ('up|gate)/bias', {'hidden units', 'heads'}),
        ('out|down', {'a kernel or a table', 'hidden units', 'heads'}),
    ],
)
def test_a_rule_that_is_missing_is_noticed(monkeypatch, rule, lies_whole):
    rules = tuple(r for r in partitioning.RULES if rule not in r[0])
    assert len(rules) == len(partitioning.RULES) - 1
    monkeypatch.setattr(partitioning, 'RULES', (*rules[:-1], (r'nothing$', P())))
    found = whole(*on_a_device())
    assert lies_whole <= found


@pytest.mark.parametrize(
    ('names', 'lies_whole'),
    [('B', 'rows'), ('LT', 'length'), ('HG', 'heads'), ('F', 'hidden units')],
)
def test_a_dimension_that_is_missing_is_noticed(monkeypatch, names, lies_whole):
    kept = {name: axis for name, axis in partitioning.DIMENSIONS.items() if name not in names}
    monkeypatch.setattr(partitioning, 'DIMENSIONS', kept)
    assert lies_whole in whole(*on_a_device())
