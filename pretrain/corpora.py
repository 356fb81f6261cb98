"""From a config's `data` to what a command reads: corpora, mixtures of them, and their windows."""

from pretrain.data import preparation
from pretrain.data.corpus import Corpus
from pretrain.data.mixture import MixedReader, Mixture, places_of, rates
from pretrain.data.windows import WindowReader
from pretrain.errors import UserError


def corpus_recipes(data):
    """{preparation.Recipe: weight} of a config's `data`: of its mixture, or of its one source.

    Raises:
        UserError: the mixture is none.
    """
    mixture = data.get('mixture', ())  # runs of before mixtures have none of these keys
    rates([1.0], [1], *_mixing(data))  # says what is wrong with them
    if not mixture:
        return {_recipe(data, data.source): 1.0}
    recipes = {}
    for entry in mixture:
        pair = isinstance(entry, (tuple, list)) and len(entry) == 2
        if not pair or not (isinstance(entry[0], str) and type(entry[1]) in (int, float)):
            raise UserError(
                f'data.mixture={mixture!r}: each is (source, weight), for instance '
                "(('wikipedia:excerpt', 1.0), ('text:books', 2.0))"
            )
        source, weight = entry
        if not (0 < weight < float('inf')):
            raise UserError(f'data.mixture: the weight {weight} of {source!r} must be above 0')
        recipe = _recipe(data, source)
        if recipe in recipes:
            raise UserError(f'data.mixture names {source!r} twice: add the weights up')
        recipes[recipe] = weight
    mixing, *numbers = _mixing(data)
    if mixing == 'weights':  # with sizes the rates are known when all is prepared
        places_of(rates(list(recipes.values()), None, mixing, *numbers))
    return recipes


def _mixing(data):
    return data.get('mixing', 'weights'), data.get('temperature', 1.0), data.get('cap', 0)


def _recipe(data, source):
    return preparation.Recipe(
        source=source,
        text_field=data.text_field,
        tokenizer=data.tokenizer,
        vocabulary_size=data.vocabulary_size,
        tokenizer_megabytes=data.tokenizer_megabytes,
        validation_fraction=data.validation_fraction,
        shard_megabytes=data.shard_megabytes,
        filters=tuple(data.get('filters', ())),
        data_dir=data.get('data_dir', ''),
    )


def named_source(data):
    """What a config's `data` is read from, in words."""
    return ' and '.join(recipe.source for recipe in corpus_recipes(data))


def open_corpus(data):
    """The Corpus or Mixture of a config's `data`, prepared first where it is not there yet."""
    recipes = corpus_recipes(data)
    return join_corpora(data, preparation.prepare_all(recipes, data.cache))


def join_corpora(data, folders):
    """The Corpus of one folder, or the Mixture of several, in the order of data.mixture."""
    corpora = [Corpus(folder) for folder in folders]
    if len(corpora) == 1:
        return corpora[0]
    weights = list(corpus_recipes(data).values())
    return Mixture(corpora, weights, *_mixing(data))


def open_windows(config, corpus, split, objective, tail=False):
    """Reader of a split, as the config's `data` and the objective want it.

    Returns:
        windows.WindowReader, or, of a mixture, MixedReader.
    """
    readers = open_each(config, corpus, split, objective, tail)
    if not isinstance(corpus, Mixture):
        return readers[next(iter(readers))]
    return MixedReader(readers, corpus.places)


def open_each(config, corpus, split, objective, tail=False):
    """{name of a corpus: windows.WindowReader} of a split; corpora with no text in it are out."""
    data = config.data
    if objective.cut and data.cut != objective.cut:
        raise UserError(
            f'objective {config.objective.name!r} needs windows that begin with a sentence and '
            f'keep to one document: set data.cut={objective.cut}, not {data.cut!r}'
        )
    return {
        name: WindowReader(each, split, objective.window_length(), data.cut, data.separator, tail)
        for name, each in corpus.corpora.items()
        if split == 'train' or each.total(split, 'tokens')
    }
