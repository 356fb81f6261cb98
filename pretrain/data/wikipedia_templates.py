"""The templates of Wikipedia that stand inside sentences, and the text that each stands for.

"{{convert|10|km|mi}}" is "10 km", "{{lang|de|Wort}}" is "Wort". Dropping them would leave holes in
sentences. Chosen by counting the templates in running text of gensim's excerpt of the English
Wikipedia (2016), with the names that have come into use since. Any other template (references,
notices, boxes) is no prose.
"""

import re
from collections.abc import Callable

SUPERSCRIPTS = str.maketrans('0123456789+-−=()ni', '⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱ')
SUBSCRIPTS = str.maketrans('0123456789+-−=()', '₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎')


def _number(text):
    if re.fullmatch(r'[-−]?\d{4,}(?:\.\d+)?', text):
        whole, point, rest = text.partition('.')
        return f'{int(whole.replace("−", "-")):,}{point}{rest}'
    return text


def _first(places, named):
    return places[0] if places else ''


def _last(places, named):
    return places[-1] if places else ''


def _second(places, named):
    return places[min(1, len(places) - 1)] if places else ''


def _quotation(places, named):
    return '\n\n' + (named.get('text') or named.get('quote') or _first(places, named)) + '\n\n'


_UNITS = {
    'sqmi': 'sq mi',
    'sqkm': 'km²',
    'c': '°C',
    'f': '°F',
    'm2': 'm²',
    'km2': 'km²',
    'sqft': 'sq ft',
}
_UNITS |= {
    'm3': 'm³',
    'km3': 'km³',
    'cm2': 'cm²',
    'cm3': 'cm³',
    'cuft': 'cu ft',
    'e6km2': 'million km²',
}


def _convert(places, named):
    """{{convert|10|to|20|km|mi}}: the first quantity as it stands in the source."""
    words, expected = [], 'number'
    for place in places:
        if expected == 'number':
            words.append(_number(place))
            expected = 'unit'
        elif place in ('to', '-', '–', 'and', 'or', 'x', 'by', '+/-', '±', 'to(-)', 'and(-)'):
            words.append({'-': 'to', '–': 'to', 'to(-)': 'to', 'and(-)': 'and'}.get(place, place))
            expected = 'number'
        else:
            words.append(_UNITS.get(place.lower(), place))
            break
    return ' '.join(words)


_MONTHS = ('January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September')
_MONTHS += ('October', 'November', 'December')


def _as_of(places, named):
    if 'alt' in named:
        return named['alt']
    date = [place for place in reversed(places[:3]) if place]
    if len(date) > 1 and date[-2].isdigit() and 1 <= int(date[-2]) <= 12:
        date[-2] = _MONTHS[int(date[-2]) - 1]
    return ('as of ' if named.get('lc') else 'As of ') + ' '.join(date)


def _fraction(places, named):
    if len(places) < 2:
        return ' 1/' + _first(places, named)
    return ' ' + ' '.join(places[:-2]) + ' ' + '/'.join(places[-2:])


def _value(places, named):
    power = '×10' + named['e'].translate(SUPERSCRIPTS) if 'e' in named else ''
    unit = named.get('u') or named.get('ul') or ''
    return (_number(_first(places, named)) + power + ' ' + unit).strip()


def _chemistry(places, named):
    charge = re.compile(r'\d*[+\-−]')
    return ''.join(
        place.translate(SUPERSCRIPTS if charge.fullmatch(place) else SUBSCRIPTS)
        if place[:1].isdigit() or charge.fullmatch(place)
        else place
        for place in places
    )


def _japanese(places, named):
    inside = ', '.join(place for place in places[1:3] if place)
    return _first(places, named) + (f' ({inside})' if inside else '')


def _foreign_article(places, named):
    # {{ill|Title|de}} today, {{ill|de|Title}} in older dumps.
    return _second(places, named) if re.fullmatch(r'[a-z]{2,3}', places[0]) else places[0]


_PRONUNCIATION_NOTES = {'lang', 'local', 'pron', 'us', 'uk', 'also', 'audio', 'link', 'small'}


def _phonemes(places, named):
    signs = [place for place in places if place.lower() not in _PRONUNCIATION_NOTES]
    return '/' + ''.join(signs).replace('_', ' ') + '/' if signs else ''


def _joined(separator: str, count: int) -> Callable:
    return lambda places, named: separator.join(place for place in places[:count] if place)


def _around(before: str, after: str = '') -> Callable:
    return lambda places, named: before + _number(_first(places, named)) + after


# What a reader sees, and the names of the templates that show it.
_SIGNS = (
    ("'", "'"),
    ('"', '" -"'),
    ('\'"', '\'"'),
    ("'s", "'s"),
    (' ', 'nbsp spaces space thinsp pad'),
    (' – ', 'snd snds spnd dash'),
    ('–', 'ndash endash –'),
    ('—', 'mdash mdashb emdash — --'),
    ('=', '='),
    ('ʻ', 'okina'),
    ('CO₂', 'co2'),
    ('H₂O', 'h2o'),
    ('C', 'carbon'),
    ('H', 'hydrogen'),
    ('O', 'oxygen'),
)
_FIXED = {name: sign for sign, names in _SIGNS for name in names.split()} | {
    '\' "': '\'"',
    '" \'': '"\'',
    'spaced ndash': ' – ',
    'spaced en dash': ' – ',
    'en dash': '–',
    'em dash': '—',
}
_RENDERERS = (
    (_first, 'nowrap, nobr, nobreak, small, smaller, big, large, larger, center, nobold, noitalic'),
    (_first, 'abbr, tooltip, mvar, math, var, em, strong, sic, vanchor, visible anchor, dfn, w'),
    (
        _first,
        'flag, flagcountry, railgauge, track gauge, format price, nq, tq, avoid wrap, longitem',
    ),
    (_second, 'langx'),
    (_last, 'lang, rtl-lang, transl, transliteration, resize, font, color'),
    (_quotation, 'quote, blockquote, cquote, quotation, bquote'),
    (_convert, 'convert, cvt'),
    (_fraction, 'frac, sfrac, fraction'),
    (_value, 'val'),
    (_chemistry, 'chem, chem2'),
    (_japanese, 'nihongo, nihongo2, nihongo3'),
    (_foreign_article, 'ill, interlanguage link, link-interwiki'),
    (_phonemes, 'ipac-en, ipaslink, ipalink, ipa link'),
    (_as_of, 'as of'),
    (_joined(' ', 2), 'bibleref, bibleref2, bibleverse, ship, sclass'),
    (_joined('', 9), 'linktext, gaps'),
    (_around('c. '), 'circa, c.'),
    (_around('fl. '), 'floruit, fl.'),
    (_around('US$'), 'us$, usd'),
    (_around('£'), 'gbp, £'),
    (_around('€'), 'eur, €'),
    (_around('₹'), 'inr, ₹'),
    (_around('⟨', '⟩'), 'angbr, angbr ipa, vr'),
    (_around('<sup>', '</sup>'), 'sup'),
    (_around('<sub>', '</sub>'), 'sub'),
    (_around('×10<sup>', '</sup>'), 'e'),
    (lambda places, named: _first(places, named).upper(), 'sc'),
    *((_around(f'{name.upper()} '), name) for name in ('uss', 'hms', 'ss', 'mv', 'sms', 'rms')),
)
_TEMPLATES = {name: shown for shown, names in _RENDERERS for name in names.split(', ')}


def render(arguments: list[str]) -> str:
    """The text that a template stands for.

    Args:
      arguments: the parts between the bars, inner markup resolved; the first is the name.

    Returns:
      What a reader sees of it in running text; '' for a template that is not known here.
    """
    name = arguments[0].strip().replace('_', ' ').lower()
    if name in _FIXED:
        return _FIXED[name]
    if name.startswith('formatnum:'):
        return _number(name[10:].strip())
    places, named = [], {}
    for argument in arguments[1:]:
        key, equals, value = argument.partition('=')
        key = key.strip().lower()
        if equals and key.isdigit():
            places.append(value.strip())
        elif equals and re.fullmatch(r'[\w -]{1,24}', key):
            named[key] = value.strip()
        else:
            places.append(argument.strip())
    if name.startswith('lang-'):
        return _first(places, named)
    if name.startswith('ipa-') or name == 'ipa':
        sounds = _first(places, named).strip('[]/')
        return f'[{sounds}]' if sounds else ''
    known = _TEMPLATES.get(name)
    return known(places, named) if known and (places or named) else ''
