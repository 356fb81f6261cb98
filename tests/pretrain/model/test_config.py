import pytest

from pretrain.errors import UserError
from pretrain.model.config import TransformerConfig


@pytest.mark.parametrize(
    ('fields', 'says'),
    [
        ({'norm': 'layr'}, "model.norm='layr' is not one of 'layer', 'rms'; did you mean 'layer'"),
        ({'decoder_layers': 0}, 'model has no layers'),
        ({'decoder_layers': -1}, 'model.decoder_layers=-1 must be at least 0'),
        ({'kv_heads': -1}, 'model.kv_heads=-1 must be at least 0'),
        ({'width': 30, 'heads': 4}, 'model.width=30 is not divisible by model.heads=4'),
        ({'heads': 12, 'kv_heads': 5}, 'model.heads=12 is not divisible by model.kv_heads=5'),
        ({'positions': 'rotary', 'head_width': 7}, 'even head width, not 7'),
        ({'heads': 0}, 'model.heads=0 must be at least 1'),
    ],
)
def test_contradictions_are_refused(fields, says):
    with pytest.raises(UserError, match=says.replace('.', r'\.')):
        TransformerConfig(**({'vocabulary': 10, 'decoder_layers': 1} | fields))


def test_which_layers_are_local():
    config = TransformerConfig(
        10, decoder_layers=5, attention_window=4, window_every=2, window_offset=1
    )
    assert config.windows(5) == [0, 4, 0, 4, 0]
