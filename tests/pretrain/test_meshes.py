"""Meshes by name, over one slice of devices and over several."""

import types

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from pretrain import meshes
from pretrain.errors import UserError


def test_parse_mesh():
    def sizes(text):
        parsed = meshes.parse_mesh(text)
        assert list(parsed) == ['data', 'fsdp', 'tensor', 'sequence']
        return tuple(parsed.values())

    assert sizes('data=-1,fsdp=1,tensor=1') == (-1, 1, 1, 1)
    assert sizes(' tensor = 4, fsdp=-1 ') == (1, -1, 4, 1)
    assert sizes('-1,2,4') == (-1, 2, 4, 1)
    assert sizes('8') == (8, 1, 1, 1)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('dat=2', ["'dat'", "'data'", 'sequence']),
        ('data=-1,fsdp=-1', ['data and fsdp', 'fsdp=1']),
        ('data=two', ['data=two', 'whole number']),
        ('data=0', ['data=0']),
        ('data=-2', ['data=-2']),
        ('data=1.5', ['data=1.5']),
        ('data=', ['nothing']),
        ('data=2,data=4', ['twice']),
        ('data=2,4', ['mixes']),
        ('1,1,1,1,1', ['5 sizes', '4 axes']),
        ('', ['empty', 'data=-1']),
        # Eight devices.
        ('data=-1,tensor=3', ['3', '8 devices', 'set tensor=2']),
        ('data=-1,fsdp=2,tensor=3', ['6', '8 devices', 'set tensor=2']),
        ('data=4,tensor=3', ['12 devices', 'there are 8', 'set tensor=2']),
        ('data=2,fsdp=2', ['4 devices', 'there are 8', 'set data=4']),
        ('data=16', ['16 devices', 'there are 8', 'set data=8']),
        ('data=3,fsdp=3', ['data=3 x fsdp=3 = 9 devices', 'there are 8', 'set data=2,fsdp=4']),
    ],
)
def test_mesh_mistakes_are_said_in_one_line(text, words):
    with pytest.raises(UserError) as error:
        meshes.make_mesh(text)
    message = str(error.value)
    assert '\n' not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    'text',
    ['data=-1,tensor=3', 'data=4,tensor=3', 'fsdp=2', 'fsdp=5,data=-1', 'fsdp=3,sequence=5',
     'data=-1,fsdp=3,tensor=3'],
)  # fmt: skip
def test_the_proposed_mend_makes_a_mesh(text):
    with pytest.raises(UserError) as error:
        meshes.make_mesh(text)
    mends = [mend.split('=') for mend in str(error.value).rpartition('set ')[2].split(',')]
    sizes = meshes.parse_mesh(text) | {axis: int(size) for axis, size in mends}
    mesh = meshes.make_mesh(','.join(f'{axis}={size}' for axis, size in sizes.items()))
    assert mesh.size == 8


def test_make_mesh_infers_and_is_auto():
    mesh = meshes.make_mesh('fsdp=-1,tensor=2')
    assert dict(mesh.shape) == {'data': 1, 'fsdp': 4, 'tensor': 2, 'sequence': 1}
    assert mesh.axis_types == (AxisType.Auto,) * 4
    one = meshes.make_mesh('data=-1', jax.devices()[:1])
    assert one.size == 1


def chips(slices=1, size=8):
    """Stand-ins of devices: hosts of two chips that come in turn, as along a torus."""
    return [
        types.SimpleNamespace(
            id=i, process_index=i % 4, slice_index=i // size, platform='cpu', device_kind='cpu'
        )
        for i in range(slices * size)
    ]


def test_one_slice_is_laid_out_as_its_wires_are(monkeypatch):
    monkeypatch.setattr(
        meshes.mesh_utils,
        'create_device_mesh',
        lambda shape, devices, **_: np.array(devices[::-1], dtype=object).reshape(shape),
    )
    grid = meshes._device_grid((4, 1, 2, 1), chips(), 'data=4,tensor=2')
    assert [chip.id for chip in grid.flat] == list(range(8))[::-1]


@pytest.mark.parametrize(
    ('slices', 'sizes', 'apart'),
    [
        (2, (2, 8, 1, 1), [0]),
        (2, (1, 8, 2, 1), [1]),
        (4, (2, 8, 2, 1), [0, 1]),
        (4, (8, 2, 2, 1), [0]),
        (3, (3, 8, 1, 1), [0]),
        (4, (1, 2, 8, 1), [1, 2]),
        (2, (1, 1, 4, 2), [3]),
    ],
)
def test_slices_split_data_and_then_fsdp(slices, sizes, apart):
    devices = chips(slices, np.prod(sizes) // slices)
    grid = meshes._device_grid(sizes, devices, 'a text')
    assert {chip.id for chip in grid.flat} == {chip.id for chip in devices}
    numbers = np.vectorize(lambda chip: chip.slice_index)(grid)
    for axis in range(4):
        same = (numbers == np.take(numbers, [0], axis)).all()
        assert same == (axis not in apart), axis


def test_slices_that_no_axes_can_be_split_into():
    with pytest.raises(UserError) as error:
        meshes._over_slices((1, 3, 5, 1), 4, 'fsdp=3,tensor=5')
    for word in ("mesh='fsdp=3,tensor=5'", '4 slices', 'data=4'):
        assert word in str(error.value)
