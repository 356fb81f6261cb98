def test_prepares_and_says_what_there_is(call, small, tmp_path):
    flags = [f for f in small if 'data.cache' not in f]
    done = call('prepare', *flags, f'--out={tmp_path}', '--processes=2')
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    assert str(folder) in done.stdout
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[-3:]}
    train, validation = lines['train'], lines['validation']
    assert int(train[0]) + int(validation[0]) == 20
    assert int(train[1].replace(',', '')) + int(validation[1].replace(',', '')) == 800
    again = call('prepare', *flags, f'--out={tmp_path}')
    assert again.stdout.splitlines()[-3:] == done.stdout.splitlines()[-3:]


def test_what_is_wrong_is_said_in_one_line(call_many, small):
    cases = [
        ([*small, '--config.data.source=text:/none'], '/none'),
        ([*small, '--processes=-1'], '--processes=-1'),
        ([*small, '--out=/proc/none'], '/proc/none'),
        ([], '--config is missing'),
    ]
    for (_, says), (code, _, err) in zip(cases, call_many('prepare', [c[0] for c in cases])):
        said = [line for line in err.splitlines() if line.startswith('error: ')]
        assert code == 2, err
        assert len(said) == 1, err
        assert says in said[0], said
