"""Chips and hosts of TPUs; figures by hand, from the pages that accelerators.json names."""

import pytest

from launch import accelerators
from pretrain.errors import UserError


@pytest.mark.parametrize(
    ('name', 'chips', 'hosts'),
    [
        ('v2-8', 4, 1), ('v3-32', 16, 4), ('v4-8', 4, 1), ('v4-64', 32, 8), ('v5litepod-1', 1, 1),
        ('v5litepod-8', 8, 1), ('v5litepod-16', 16, 4), ('v5litepod-256', 256, 64),
        ('v5p-8', 4, 1), ('v5p-128', 64, 16), ('v6e-8', 8, 1), ('v6e-256', 256, 64),
    ],
)  # fmt: skip
def test_slices_by_their_names(name, chips, hosts):
    made = accelerators.tpu(name)
    assert (made.chips, made.hosts) == (chips, hosts)


@pytest.mark.parametrize(
    ('name', 'hint'),
    [
        ('v5e-16', 'did you mean v5litepod-16?'),
        ('v5litepod-17', 'did you mean v5litepod-16?'),
        ('v5p-12', 'did you mean v5p-16?'),
        ('v6-256', 'did you mean v6e-256?'),
        ('v4', 'did you mean v4-8?'),
        ('h100', 'is no accelerator type'),
        ('v6e-many', 'did you mean v6e-1?'),
        ('v6e-0', 'did you mean v6e-1?'),
    ],
)
def test_the_nearest_is_given(name, hint):
    with pytest.raises(UserError, match=name) as error:
        accelerators.tpu(name)
    assert hint in str(error.value)


@pytest.mark.parametrize(
    ('accelerator', 'topology', 'per_node', 'nodes'),
    [
        ('tpu-v5-lite-podslice', '1x1', 1, 1), ('tpu-v5-lite-podslice', '2x2', 4, 1),
        ('tpu-v5-lite-podslice', '2x4', 4, 2), ('tpu-v5-lite-podslice', '4x4', 4, 4),
        ('tpu-v5-lite-podslice', '16x16', 4, 64), ('tpu-v5p-slice', '2x2x1', 4, 1),
        ('tpu-v5p-slice', '4x4x4', 4, 16), ('tpu-v4-podslice', '2x2x4', 4, 4),
        ('tpu-v6e-slice', '8x8', 4, 16),
    ],
)  # fmt: skip
def test_node_pools_of_gke(accelerator, topology, per_node, nodes):
    pool = accelerators.tpu_pool(accelerator, topology)
    assert (pool.per_node, pool.nodes) == (per_node, nodes)
    assert pool.labels['cloud.google.com/gke-tpu-topology'] == topology


def test_a_machine_of_eight_chips():
    assert accelerators.tpu_pool('v6e', '2x4', 8).nodes == 1


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (('tpu-v5e', '4x4'), 'did you mean tpu-v5'),
        (('tpu-v5p-slice', '4x4'), 'which has 3 axes: for example 4x4x4'),
        (('v5litepod', '4by4'), 'which has 2 axes: for example 4x4'),
        (('v5litepod', '3x3'), 'the nearest is 2x4'),
        (('v5litepod', '64x64'), 'the nearest is 16x16'),
        (('tpu-v5p-slice', '4x4x6'), 'the nearest is 4x4x8'),
        (('v5litepod', '4x4', 5), 'nodes of 5'),
        (('v5litepod', '4x4', 1), 'nodes of 1'),
        (('v3', '4x4'), 'is no TPU of GKE'),
    ],
)
def test_what_no_pool_has_is_refused(arguments, says):
    with pytest.raises(UserError) as error:
        accelerators.tpu_pool(*arguments)
    assert says in str(error.value)


def test_gpus():
    pool = accelerators.gpu_pool('nvidia-h100-80gb', 2, 8)
    labels = {'cloud.google.com/gke-accelerator': 'nvidia-h100-80gb'}
    assert pool == (labels, 'nvidia.com/gpu', 8, 2)
    with pytest.raises(UserError, match='did you mean nvidia-h100-80gb'):
        accelerators.gpu_pool('nvidia-h100', 2, 8)
    with pytest.raises(UserError, match='--nodes=0 must be at least 1'):
        accelerators.gpu_pool('nvidia-l4', 0, 8)
