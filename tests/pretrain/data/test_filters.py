"""C4's rules against the code that made C4, as tensorflow-datasets carries it, and by hand."""

import collections
import random

import pytest
from tensorflow_datasets.text import c4_utils

from pretrain.data.bad_input import Tally
from pretrain.data.documents import open_source
from pretrain.data.filters import C4, Filters
from pretrain.data.sentences import sentence_starts
from pretrain.errors import UserError

THEIRS = {  # their counters, ours
    'line-filtered:too_long_word': 'long_words',
    'line-filtered:no_endmark': 'line_ends',
    'line-filtered:too_short': 'line_words',
    'filtered:loremipsum': 'lorem_ipsum',
    'line-filtered:javascript': 'javascript',
    'filtered:squigglybracket': 'braces',
    'line-filtered:policy': 'policy',
    'filtered:too_few_sentences': 'sentences',
}
PIECES = [
    'A plain line of six words.',
    'Five words are just enough!',
    'Four words are few.',
    'No end mark here at all',
    'It trails off like this one...',
    'It is said that "this ends a line."',
    'Is this a question or what?',
    'Please enable JavaScript to go on here.',
    'We use cookies and that is all of it.',
    'Read our Privacy Policy now or later.',
    'Lorem ipsum dolor sit amet is no English.',
    'A function f(x) { return x } ends here.',
    'See the notes [12] and [citation needed] here.',
    'A word of ' + 'x' * 1001 + ' letters is long.',
    'One is here. Two is here. Three is here.',
    '   ',
    'The end is near [3]',
    '[1] It begins with a mark.',
]


def clean(names, text):
    removed = collections.Counter()
    return Filters(names)(text, removed), dict(removed)


def test_all_of_c4s_rules_do_what_their_code_does(monkeypatch):
    """Sentences alone are counted by ours: theirs needs a download."""
    monkeypatch.setattr(c4_utils, '_get_sentences', lambda line: sentence_starts(line))
    theirs = c4_utils.get_clean_page_fn()
    rng = random.Random(0)
    kept = 0
    filters = Filters(('c4',))
    for _ in range(2000):
        # Most pages would go for braces or lorem ipsum, were all pieces as likely.
        weights = [1 if '{' in p or 'Lorem' in p else 8 for p in PIECES]
        text = '\n'.join(rng.choices(PIECES, weights, k=rng.randrange(1, 12)))
        names, ours = [], collections.Counter()
        page = c4_utils.PageFeatures(text=text)
        found = list(theirs(page, counter_inc_fn=names.append))
        counts = collections.Counter(names)
        assert filters(text, ours) == (found[0].text if found else '')
        # They count a blank line as one without an end mark.
        blanks = sum(not line.strip() for line in text.splitlines())
        del ours['citations']
        for name, count in ((ours_, counts[theirs_]) for theirs_, ours_ in THEIRS.items()):
            slack = blanks if name == 'line_ends' else 0
            assert ours[name] <= count <= ours[name] + slack, (name, text)
        kept += bool(found)
    assert 300 < kept < 1900


@pytest.mark.parametrize('name', [name for name in C4 if name != 'sentences'])
def test_each_rule_alone_does_its_part_and_no_other(name):
    bad = {
        'long_words': (13, None),
        'citations': (12, 'See the notes  and  here.'),
        'line_ends': (3, None),
        'line_words': (2, None),
        'lorem_ipsum': (10, ''),
        'javascript': (7, None),
        'braces': (11, ''),
        'policy': (8, None),
    }
    place, left = bad[name]
    others = [i for i in range(14) if i != place and not (name == 'line_ends' and i in (4,))]
    others = [i for i in others if not (name == 'policy' and i == 9)]
    text = '\n'.join(PIECES[i] for i in others)
    assert clean((name,), text) == (text, {})
    cleaned, removed = clean((name,), f'{text}\n{PIECES[place]}')
    assert removed == {name: 2 if name == 'citations' else 1}
    assert cleaned == {None: text, '': ''}.get(left, f'{text}\n{left}')


def test_sentences():
    assert clean(('sentences',), 'One is here. Two is here. Three is.')[0]
    assert clean(('sentences',), 'One is here. Two is here.') == ('', {'sentences': 1})


def test_filters_of_documents_leave_the_text_as_it_is(tmp_path):
    (tmp_path / 'words').write_text('darn\nthree words here\n\n')
    text = ' One line \n\n another.\n'
    names = ('braces', 'english', 'sentences', f'bad_words:{tmp_path}/words')
    assert clean(names[:1] + names[1:2] + names[3:], text) == (text, {})
    for bad in ('Well, darn!', 'DARN', 'x three words here y'):
        assert clean(names[3:], f'{text}{bad}') == ('', {'bad_words': 1})
    assert clean(names[3:], 'darning darned')[1] == {}
    other = tmp_path / 'other'
    other.write_text('gosh')
    facts = [Filters((f'bad_words:{path}',)).facts() for path in (tmp_path / 'words', other)]
    assert facts[0] != facts[1]


FOREIGN = {
    'de': 'Der Hund läuft durch den großen Wald und sucht seinen Herrn, der am Fluss wartet; '
    'am Abend kehren beide nach Hause zurück.',
    'fr': 'Le chien court dans la grande forêt et cherche son maître au bord de la rivière. Le '
    'soir, ils rentrent tous les deux à la maison.',
    'es': 'El perro corre por el gran bosque y busca a su dueño, que lo espera junto al río. Por '
    'la noche los dos vuelven a casa.',
    'nl': 'De hond loopt door het grote bos en zoekt zijn baas, die bij de rivier op hem wacht. '
    'Later keren ze samen naar huis terug.',
    'ru': 'Собака бежит через большой лес и ищет своего хозяина, который ждёт её у реки. '
    'Вечером оба возвращаются домой и едят то, что приготовила для них кухарка.',
}


@pytest.mark.parametrize('language', FOREIGN)
def test_other_languages_are_told_from_english(language):
    assert clean(('english',), FOREIGN[language]) == ('', {'english': 1})


def test_english_stays():
    source = open_source('wikipedia:excerpt')
    removed, filters, count = collections.Counter(), Filters(('english',)), 0
    for unit in source.units(100):
        for raw in source.documents(unit, Tally()):
            for paragraph in source.clean(raw).split('\n\n')[:20]:
                count += 1
                filters(paragraph, removed)
    assert count > 1000
    assert removed['english'] < 0.005 * count


@pytest.mark.parametrize(
    ('name', 'says'),
    [
        ('line_end', "did you mean 'line_ends'"),
        ('xyz', 'there are: c4, braces'),
        ('bad_words', "'bad_words:FILE'"),
        ('c4:words', 'there is no'),
        (1, 'is no name of a filter'),
        ('braces:x', 'there is no'),
        ('bad_words:/nowhere', 'No such file'),
    ],
)
def test_unknown_names_are_said(name, says):
    with pytest.raises(UserError, match=says):
        Filters((name,))
