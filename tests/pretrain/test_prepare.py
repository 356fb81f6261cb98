def rows(text):
    """{first word of a line: the words after it}."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}


def test_prepares_and_says_what_there_is(call, small, tmp_path):
    flags = [f for f in small if 'data.cache' not in f]
    done = call('prepare', *flags, f'--out={tmp_path}', '--processes=2')
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    assert str(folder) in done.stdout
    train, validation = rows(done.stdout)['train'], rows(done.stdout)['validation']
    assert int(train[0]) + int(validation[0]) == 20
    assert int(train[1].replace(',', '')) + int(validation[1].replace(',', '')) == 800
    assert f'picture: {folder}/summary.png' in done.stdout
    assert (folder / 'summary.png').read_bytes().startswith(b'\x89PNG')
    again = call('prepare', *flags, f'--out={tmp_path}')
    assert again.stdout.splitlines()[-3:] == done.stdout.splitlines()[-3:]


def test_shares_and_bad_input(call_many, small, tmp_path):
    texts = tmp_path / 'text'
    texts.mkdir()
    for i in range(4):
        sentences = ' '.join(f'The {i} river and {n} hills are old.' for n in range(200))
        (texts / f'{i}.txt').write_text(f'{sentences}\n')
    (texts / '5.txt').write_bytes(b'A good line here.\nA bad \xff line here.\n')
    flags = [
        *small, f'--config.data.source=text:{texts}',
        '--config.data.shard_megabytes=0.004', '--config.data.vocabulary_size=290',
    ]  # fmt: skip
    stopped, first, second = call_many(
        'prepare',
        [
            [*flags, f'--out={tmp_path}/stopped'],
            *(
                [*flags, f'--out={tmp_path}/skipped', '--on_bad_input=skip', f'--shard={i}/2']
                for i in (0, 1)
            ),
        ],
    )
    assert stopped[0] == 2
    assert f'error: {texts}/5.txt, line 2: no UTF-8, at byte 6 of the line' in stopped[2]
    assert first[0] == 0, first[2]
    assert 'share 0/2 is made; of 9 shards 4 are missing: --shard=1/2;' in first[1]
    assert second[0] == 0, second[2]
    assert f'skipped: 1 lines that are not UTF-8 (the first: {texts}/5.txt, line 2' in second[1]


def test_what_is_wrong_is_said_in_one_line(refused, small):
    cases = [
        ([*small, '--config.data.source=text:/none'], '/none'),
        ([*small, '--processes=-1'], '--processes=-1'),
        ([*small, '--out=/proc/none'], '/proc/none'),
        ([*small, '--shard=2/2'], '--shard=2/2 is not i/n'),
        ([*small, '--on_bad_input=ignore'], '--on_bad_input=ignore is neither'),
        ([*small, "--config.data.filters=('c4_line',)"], "there is no 'c4_line'"),
        ([], '--config is missing'),
    ]
    refused('prepare', cases)


def test_a_mixture_and_packed_windows(call, small, tmp_path):
    sources = []
    for name in 'ab':
        (tmp_path / name).mkdir()
        for i in range(12):
            text = ' '.join(f'The {name}{i} river and {n} hills are old.' for n in range(30))
            (tmp_path / name / f'{i}.txt').write_text(text)
        sources.append(f'text:{tmp_path}/{name}')
    done = call(
        'prepare', *small, f'--out={tmp_path}/cache', '--config.data.vocabulary_size=290',
        f'--config.data.mixture=(({sources[0]!r}, 3.0), ({sources[1]!r}, 1.0))',
        '--config.data.cut=pack',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '75.00% of the windows are of text-a' in done.stdout
    for name in ('text-a', 'text-b'):
        assert f'{name}, train: ' in done.stdout
        assert ' windows of 33 tokens, 0.' in done.stdout
    folders = sorted(path.name.rpartition('-')[0] for path in (tmp_path / 'cache').iterdir())
    assert folders == ['text-a', 'text-b', 'tokenizer']
    models = {path.read_bytes() for path in (tmp_path / 'cache').glob('*/tokenizer.model')}
    assert len(models) == 1
