"""Devices by name: those of TPU slices that are not there, and those that are."""

import importlib.util

import jax
import numpy as np
import pytest

from launch import topology
from pretrain import meshes
from pretrain.errors import UserError


@pytest.mark.parametrize(
    ('name', 'means', 'count', 'kind', 'hosts'),
    [
        ('v5e:4x4', 'v5e:4x4', 16, 'TPU v5 lite', 4),
        ('v5e-256', 'v5e:16x16', 256, 'TPU v5 lite', 64),
        ('v5litepod-8', 'v5e:2x4', 8, 'TPU v5 lite', 2),
        ('v5e:1x1', 'v5e:1x1', 1, 'TPU v5 lite', 1),
        ('V5P:4x4x8', 'v5p:4x4x8', 128, 'TPU v5', 32),
        ('v5p-128', 'v5p:4x4x4', 64, 'TPU v5', 16),  # two cores a chip
        ('v4-512', 'v4:4x8x8', 256, 'TPU v4', 64),
        ('v5p:4x4x12', 'v5p:4x4x12', 192, 'TPU v5', 48),
        ('v6e-8', 'v6e:2x4', 8, 'TPU v6 lite', 2),
        ('2*v5e:4x4', '2*v5e:4x4', 32, 'TPU v5 lite', 4),
    ],
)
def test_slices_by_name(name, means, count, kind, hosts):
    found = topology.find(name)
    assert found.name == means
    assert len(found.devices) == count
    assert {device.device_kind for device in found.devices} == {kind}
    slices = {getattr(device, 'slice_index', None) for device in found.devices}
    assert len(slices) == int(name.split('*')[0] if '*' in name else 1)
    assert len({device.process_index for device in found.devices}) == hosts * len(slices)
    assert found.memory == found.chip.memory


def test_two_slices_are_apart_along_data():
    mesh = meshes.make_mesh('data=4,fsdp=8', topology.find('2*v5e:4x4').devices)
    slices = np.vectorize(lambda device: device.slice_index)(mesh.devices).reshape(4, 8)
    assert slices.tolist() == [[0] * 8] * 2 + [[1] * 8] * 2


def test_devices_of_this_machine():
    found = topology.find('cpu:8')
    assert found.devices == jax.devices()
    assert found.chip is None
    assert found.memory > 2**26


@pytest.mark.parametrize(
    ('name', 'says'),
    [
        ('v3-8', 'none of v4, v5e, v5p, v6e, cpu, gpu: did you mean v4:2x2x2?'),
        ('v7x:4x4', 'none of v4'),
        ('v5e:4x5', 'the nearest is v5e:4x4'),
        ('v5p:4x4x9', 'the nearest is v5p:4x4x8'),
        ('v5p:4x4', 'the nearest is v5p:'),
        ('v5p-100', 'the nearest is v5p:'),
        ('v5p:64x64x64', 'the nearest is v5p:16x16x24'),
        ('v5x:4x4', 'did you mean v5'),
        ('v5e:4', 'did you mean v5e:2x2'),
        ('v5litepod:64', 'did you mean v5e:8x8'),
        ('tpu', 'did you mean'),
        ('', 'did you mean'),
        ('x*v5e:4x4', "'2*v5e:4x4'"),
        ('cpu:9', 'this machine has 8'),
        ('gpu:1', 'finds no gpu'),
    ],
)
def test_what_does_not_exist(name, says):
    with pytest.raises(UserError) as error:
        topology.find(name)
    assert f'--topology={name}' in str(error.value).replace("'", '')
    assert says in str(error.value)


def test_without_the_compiler(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name: None if name == 'libtpu' else real(name)
    )
    with pytest.raises(UserError, match='pip install libtpu'):
        topology.find('v5e:4x4')
