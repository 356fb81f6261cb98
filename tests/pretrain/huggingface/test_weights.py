import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from pretrain.errors import UserError
from pretrain.huggingface.weights import Weights, write

TENSORS = {
    'a': np.arange(6, dtype=np.float32).reshape(2, 3),
    'b': np.array([1.5, -2.0], ml_dtypes.bfloat16),
    'c': np.array([0.25], np.float16),
}


def shards(folder):
    """TENSORS in two files and their index."""
    safetensors.numpy.save_file({'a': TENSORS['a']}, folder / 'one.safetensors')
    safetensors.numpy.save_file({name: TENSORS[name] for name in 'bc'}, folder / 'two.safetensors')
    listed = {'a': 'one.safetensors', 'b': 'two.safetensors', 'c': 'two.safetensors'}
    index = folder / 'model.safetensors.index.json'
    index.write_text(json.dumps({'weight_map': listed}))
    return index, listed


@pytest.mark.parametrize('sharded', [False, True])
def test_all_types_are_read_as_float32(tmp_path, sharded):
    if sharded:
        shards(tmp_path)
    else:
        safetensors.numpy.save_file(TENSORS, tmp_path / 'model.safetensors')
    weights = Weights(tmp_path)
    assert weights.names == {name: x.shape for name, x in TENSORS.items()}
    for name, array in TENSORS.items():
        assert weights.read(name).dtype == np.float32
        np.testing.assert_array_equal(weights.read(name), array.astype(np.float32))


def test_what_is_written_is_read_again(tmp_path):
    arrays = {'x': np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)}
    write(tmp_path / 'model.safetensors', arrays)
    np.testing.assert_array_equal(Weights(tmp_path).read('x'), arrays['x'])
    with safetensors.safe_open(tmp_path / 'model.safetensors', 'numpy') as file:
        assert file.metadata() == {'format': 'pt'}  # older transformers refuse a file without it


def fails(folder, *says):
    with pytest.raises(UserError) as caught:
        Weights(folder)
    assert '\n' not in str(caught.value)
    for part in says:
        assert part in str(caught.value)


def test_a_folder_without_weights(tmp_path):
    fails(tmp_path, 'holds no weights', 'model.safetensors')


@pytest.mark.parametrize('kept', [0, 4, 40, 100])
def test_a_truncated_file_is_named(tmp_path, kept):
    path = tmp_path / 'model.safetensors'
    safetensors.numpy.save_file(TENSORS, path)
    path.write_bytes(path.read_bytes()[:kept])
    fails(tmp_path, 'model.safetensors', 'fetch it again')


def test_a_missing_shard_is_named(tmp_path):
    shards(tmp_path)
    (tmp_path / 'two.safetensors').unlink()
    fails(tmp_path, 'lacks the shard', 'two.safetensors', '1 of 2')


def test_a_tensor_that_only_the_index_knows_is_named(tmp_path):
    index, listed = shards(tmp_path)
    index.write_text(json.dumps({'weight_map': listed | {'d': 'one.safetensors'}}))
    fails(tmp_path, "the tensor 'd'", 'one.safetensors')


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"weight_map": 3}'])
def test_a_damaged_index_is_named(tmp_path, text):
    index, _ = shards(tmp_path)
    index.write_text(text)
    fails(tmp_path, 'is no index of shards')


def test_quantised_weights_are_refused(tmp_path):
    arrays = {'q': np.zeros(2, ml_dtypes.float8_e4m3fn)}
    safetensors.numpy.save_file(arrays, tmp_path / 'model.safetensors')
    fails(tmp_path, "'q'", 'F8_E4M3')
