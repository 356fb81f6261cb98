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
        ({'rotary_theta_local': -1.0}, 'model.rotary_theta_local=-1.0 must be at least 0'),
        ({'embedding_width': 16}, 'model.width=768 does not fit the tied table of model.embedding'),
        ({'first_norm': False, 'norm_placement': 'post'}, 'model.first_norm=False goes with'),
    ],
)
def test_contradictions_are_refused(fields, says):
    with pytest.raises(UserError, match=says.replace('.', r'\.')):
        TransformerConfig(**({'vocabulary': 10, 'decoder_layers': 1} | fields))


def test_which_layers_are_local():
    fields = {'vocabulary': 10, 'decoder_layers': 7, 'rotary_theta': 9.0}
    config = TransformerConfig(**fields, attention_window=4, global_every=3, rotary_theta_local=2)
    assert config.windows(7) == [0, 4, 4, 0, 4, 4, 0]
    assert config.thetas(7) == [9, 2, 2, 9, 2, 2, 9]
    every_layer = TransformerConfig(**fields, attention_window=4)
    assert every_layer.windows(3) == [4, 4, 4]
    assert every_layer.thetas(3) == [9, 9, 9]
    assert TransformerConfig(**fields, global_every=2).windows(3) == [0, 0, 0]


def test_an_untied_head_needs_no_table_of_its_width():
    for fields in ({'tied': False}, {'logit_transform': True}, {'token_head': False}):
        assert TransformerConfig(10, decoder_layers=1, embedding_width=16, **fields).e == 16
    assert TransformerConfig(10, decoder_layers=1).e == 768
