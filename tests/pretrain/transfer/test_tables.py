import pytest

from pretrain.errors import UserError
from pretrain.transfer import tables


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'file.tsv'


def fault(call, *args, **kwargs):
    """The message of the UserError that a call raises; it must be one line."""
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_lines_end_at_line_feeds_alone(path):
    path.write_bytes('\ufeffa\u0085b\u2028c\x0bd\x1ce\r\n"quoted\r\n\r\n\n'.encode())
    assert tables.read_lines(path) == ['a\u0085b\u2028c\x0bd\x1ce', '"quoted']


def test_a_carriage_return_inside_a_line_stays(path):
    path.write_bytes(b'a\rb\nc\n')
    assert tables.read_lines(path) == ['a\rb', 'c']


def test_bytes_that_are_no_utf8_are_named_with_their_line(path):
    path.write_bytes(b'\xef\xbb\xbfgood\nna\xefve\n')
    message = fault(tables.read_lines, path)
    assert f'{path}, line 2: byte 0xef is no UTF-8' in message


def test_a_missing_file_is_named(path):
    assert str(path) in fault(tables.read_lines, path)


def test_columns_are_found_by_name_and_quotes_mean_nothing(path):
    path.write_text('label\tindex\tsentence\n1\t0\t"He said\n0\t1\tno"\n')
    rows = tables.read_table(path, {'text': ('Sentence', 'sentence'), 'gold': 'label'})
    assert rows == [
        (2, 0, {'text': '"He said', 'gold': '1'}),
        (3, 1, {'text': 'no"', 'gold': '0'}),
    ]


def test_columns_by_number_without_header(path):
    path.write_text('gj04\t1\t\tOur friends.\nks08\t0\t*\tWho they.\n')
    rows = tables.read_table(path, {'text': 3, 'gold': 1}, header=False)
    assert [row.values for row in rows] == [
        {'text': 'Our friends.', 'gold': '1'},
        {'text': 'Who they.', 'gold': '0'},
    ]
    assert [(row.line, row.row) for row in rows] == [(1, 0), (2, 1)]
    assert 'line 1: too few columns, 4: column number 4' in fault(
        tables.read_table, path, {'text': 4}, header=False
    )


def test_a_column_that_is_not_there_lists_those_that_are_nearest_first(path):
    path.write_text('index\tscore\tsentense1\n')
    message = fault(tables.read_table, path, {'a': 'sentence1'})
    assert "no column 'sentence1': there are 'sentense1', " in message
    assert "'index'" in message
    assert "'score'" in message


@pytest.mark.parametrize(('line', 'many'), [('a', 'few'), ('a\tb\tc', 'many'), ('', 'few')])
def test_a_row_with_another_number_of_columns(path, line, many):
    path.write_text(f'x\ty\n1\t2\n{line}\n3\t4\n')
    message = fault(tables.read_table, path, {'x': 'x'})
    found = len(line.split('\t'))
    assert f'{path}, line 3: too {many} columns, {found} instead of 2' in message
    broken = []
    rows = tables.read_table(path, {'x': 'x'}, broken=broken)
    assert broken == [3]
    assert [(row.row, row.values['x']) for row in rows] == [(0, '1'), (2, '3')]


def test_short_rows_must_hold_the_columns_that_are_read(path):
    path.write_text('x\ty\tz\n1\t2\n')
    assert tables.read_table(path, {'y': 'y'}, short=True)[0].values == {'y': '2'}
    assert 'too few columns, 2' in fault(tables.read_table, path, {'z': 'z'}, short=True)


def test_an_empty_table_has_no_rows(path):
    path.write_text('')
    assert tables.read_table(path, {'x': 'x'}) == []
    path.write_text('x\n')
    assert tables.read_table(path, {'x': 'x'}) == []


def test_records_are_lines(path):
    path.write_text('{"a": "x\\u2028y"}\n\n  \n{"a": 2}\r\n')
    first, second = tables.read_records(path)
    assert first.text('a') == 'x\u2028y'
    assert second.where == f'{path}, line 4'


@pytest.mark.parametrize(
    ('line', 'said'),
    [
        ('{"a": }', 'does not parse as JSON (Expecting value at character 6)'),
        ('{"a": 1} {"b": 2}', 'does not parse as JSON (Extra data'),
        ('[{"a": 1}]', 'is no JSON object but [{'),
        ('"text"', 'is no JSON object but'),
        ('[' * 100_000, 'does not parse as JSON'),
    ],
)
def test_a_line_that_is_no_object(path, line, said):
    path.write_text('{"a": 1}\n' + line + '\n')
    message = fault(tables.read_records, path)
    assert f'{path}, line 2' in message
    assert said in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ('read', 'said'),
    [
        (lambda r: r.text('txt'), "no field 'txt': there are 'text', "),
        (lambda r: r.text('number'), "field 'number' is 3, not a text"),
        (lambda r: r.integer('text'), "field 'text' is 'abc', not a whole number"),
        (lambda r: r.integer('truth'), "field 'truth' is True, not a whole number"),
        (lambda r: r.integer('half'), "field 'half' is 0.5, not a whole number"),
        (lambda r: r.object('list'), "field 'list' is [{'b': None}, 4], not an object"),
        (lambda r: r.objects('inner'), "field 'inner' is {}, not a list"),
        (lambda r: r.objects('list'), 'field list[1] is 4, not an object'),
        (lambda r: r.object('inner').text('c'), "no field 'inner.c': there are no field at all"),
        (lambda r: r.objects('lists')[0].text('b'), "field 'lists[0].b' is None, not a text"),
    ],
)
def test_fields_are_checked(path, read, said):
    path.write_text(
        '{"text": "abc", "number": 3, "truth": true, "half": 0.5, "inner": {}, '
        '"list": [{"b": null}, 4], "lists": [{"b": null}]}'
    )
    message = fault(read, tables.read_records(path)[0])
    assert message.startswith(f'{path}, line 1: ')
    assert said in message


def test_numbers_in_quotes_are_numbers_and_half_pairs_are_replaced(path):
    path.write_text('{"idx": "12", "text": "a\\ud800b\\ud83d\\ude00"}')
    record = tables.read_records(path)[0]
    assert record.integer('idx') == 12
    assert record.text('text') == 'a\ufffdb\U0001f600'


def test_labels_are_known_by_value_and_type():
    spellings = {'no': False, 'yes': True}
    assert tables.class_label('f, line 1', True, spellings) == 'yes'
    message = fault(tables.class_label, 'f, line 1', 1, spellings)
    assert message == 'f, line 1: the label 1 is not one of false, true'
    message = fault(tables.class_label, 'f, line 9', '2', {'bad': '0', 'good': '1'})
    assert message == 'f, line 9: the label \'2\' is not one of "0", "1"'


@pytest.mark.parametrize('value', ['4.2x', '', 'nan', None, True, [1]])
def test_scores_that_are_no_numbers(value):
    assert 'is no number' in fault(tables.number, 'f, line 1', value, 0, 5)


def test_scores_are_in_their_range():
    assert tables.number('', '4.750', 0, 5) == 4.75
    assert tables.number('', 5, 0, 5) == 5.0
    for value in ('5.2', '-0.1', 'inf'):
        assert f"'{value}' is not between 0 and 5" in fault(tables.number, 'f', value, 0, 5)


def test_long_values_are_cut():
    assert len(tables.show('x' * 1000)) < 80
    assert '\n' not in tables.show('a\nb')
