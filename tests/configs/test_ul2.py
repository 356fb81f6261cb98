import pytest

from configs import objectives as sections
from configs import ul2
from objectives import mixture_of_denoisers


def test_the_denoisers_are_the_modules_own():
    assert sections.DENOISERS == mixture_of_denoisers.DENOISERS
    named = sorted((mode, span, rate) for mode, span, rate, _ in sections.DENOISERS)
    assert named == [  # Tay et al. 2022, section 3.1: R, S and X
        ('R', 3, 0.15), ('R', 8, 0.15), ('S', 0, 0.25), ('X', 3, 0.5), ('X', 8, 0.5),
        ('X', 64, 0.15), ('X', 64, 0.5),
    ]  # fmt: skip


def test_the_released_model_has_about_20_billion_parameters(count):
    assert count(ul2.get_config('20b'))['model'] == pytest.approx(19.5e9, rel=0.03)


@pytest.mark.parametrize('variant', ['tiny', 'base', '20b'])
def test_smoke_is_of_the_same_kind(variant, count):
    cut = ul2.get_config(f'{variant},smoke')
    assert count(cut)['model'] < 900_000
    assert cut.objective.denoisers == sections.DENOISERS
    assert cut.objective.window == 32


def test_a_decoder_alone_trains_on_the_same_mixture(count):
    cut = ul2.get_config('tiny,smoke')
    cut.objective.layout, cut.model.encoder_layers = 'decoder', 0
    count(cut)
