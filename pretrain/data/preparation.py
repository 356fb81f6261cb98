"""From documents to a corpus: a tokenizer, shards, and a manifest that says they are whole.

A corpus is a folder whose name ends in a digest of everything it depends on: the source's files,
the tokenizer, the filters, the split. What is there is therefore never wrong, only unfinished: unit
i of the source becomes shard i, whichever process of whichever machine makes it, and the shards
that are there are not made again.
"""

import collections
import contextlib
import fcntl
import hashlib
import json
import shutil
from typing import NamedTuple

from pretrain import storage
from pretrain.data import duplicates, shards, tokenizer, unit, workers
from pretrain.data.bad_input import Tally
from pretrain.data.documents import open_source
from pretrain.data.filters import Filters
from pretrain.data.permutation import permute
from pretrain.data.unit import Job, documents
from pretrain.errors import UserError

FORMAT = 3  # of the folder; a change of what is written in it must change this number
MEGABYTE = 10**6
MOST_OF_ONE = MEGABYTE  # characters of one document that a tokenizer is trained on
SAMPLED_UNITS = 64  # that a tokenizer is trained on, of a source that has more text than it takes


class Recipe(NamedTuple):
    """What a corpus is made from; the fields of `data` that decide what is written.

    source: scheme and path, see documents.open_source. text_field: of JSON lines.
    tokenizer: path of a SentencePiece model, a tokenizer.json or a folder that holds one; '' trains
        a SentencePiece model on the training split.
    vocabulary_size: pieces of a trained one. tokenizer_megabytes: text that it is trained on, of
        the whole source or, where that has more, of a sample.
    validation_fraction: of the documents, chosen by a hash of the text, so that a document and its
        copies fall into one split; not used where the source has a validation split of its own.
    shard_megabytes: of text in a shard, about, and so in a piece of work.
    filters: names of filters.Filters.
    data_dir: where tensorflow-datasets keeps what it has prepared; '' for its usual place.
    """

    source: str
    text_field: str
    tokenizer: str
    vocabulary_size: int
    tokenizer_megabytes: float
    validation_fraction: float
    shard_megabytes: float
    filters: tuple[str, ...] = ()
    data_dir: str = ''


class Work(NamedTuple):
    """How much of the work to do here, and how.

    processes: that read, clean and tokenise; 0: as many as there are cores.
    share: (i, n): only the units whose number leaves i when divided by n.
    skip: go on after bad input, and count it.
    """

    processes: int = 0
    share: tuple[int, int] = (0, 1)
    skip: bool = False


def prepare(recipe, cache, work=Work()):  # noqa: B008 (a tuple)
    """Makes a corpus, or its share of one, or finishes one, or finds it made.

    Args:
        recipe: Recipe.
        cache: folder that holds corpora.
        work: Work.

    Returns:
        Path of the corpus. It has a manifest.json when all shares are done; whoever is the last
        writes it.

    Raises:
        UserError: the source, the tokenizer or the disk is not as it should be.
    """
    _check(recipe)
    source = open_source(recipe.source, recipe.text_field, recipe.data_dir, work.skip)
    filters = Filters(recipe.filters)
    given = tokenizer.load(recipe.tokenizer) if recipe.tokenizer else None
    name = f'{source.name}-{_digest(recipe, source, filters, given)}'
    folder = storage.local(cache, 'data.cache') / name
    if (folder / 'manifest.json').exists():
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        job = Job(recipe, source, filters, folder, work)
        _make(job, given)
    except UserError:
        with contextlib.suppress(FileNotFoundError):  # another process, refused as well, was faster
            if {path.name.partition('-')[0] for path in folder.iterdir()} <= {'.lock'}:
                shutil.rmtree(folder)  # there is nothing to go on from
        raise
    except OSError as error:
        raise UserError(
            f'cannot make the corpus {str(folder)!r}: {error.strerror or error}; what is whole is '
            'kept, the same command goes on from there'
        ) from None
    return folder


def prepare_all(recipes, cache, work=Work()):  # noqa: B008 (a tuple)
    """Makes the corpora of a mixture, which share a tokenizer, or one corpus.

    Args:
        recipes: of the corpora. A tokenizer that is not given is trained on as much of each: what
            a run reads of each does not decide it, so rates can be changed later.
        cache, work: as of `prepare`.

    Returns:
        Paths of the corpora.
    """
    recipes = list(recipes)
    if len(recipes) == 1 or recipes[0].tokenizer:
        return [prepare(recipe, cache, work) for recipe in recipes]
    cache, jobs = storage.local(cache, 'data.cache'), []
    for recipe in recipes:
        _check(recipe)
        source = open_source(recipe.source, recipe.text_field, recipe.data_dir, work.skip)
        jobs.append(Job(recipe, source, Filters(recipe.filters), cache, work))
    facts = [_digest(j.recipe, j.source, j.filters, None) for j in jobs]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    folder = cache / f'tokenizer-{digest}'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder, 'tokenizer'):
            if not tokenizer.find(folder):
                trained = _train_tokenizer(jobs)
                with shards.write_whole(folder / trained.file) as file:
                    file.write(trained.model)
    except OSError as error:
        raise UserError(f'cannot write {str(folder)!r}: {error.strerror or error}') from None
    path = str(tokenizer.find(folder))
    return [prepare(recipe._replace(tokenizer=path), cache, work) for recipe in recipes]


def _check(recipe):
    if not 0 <= recipe.validation_fraction < 1:
        raise UserError(
            f'data.validation_fraction={recipe.validation_fraction} must be at least 0 and under 1'
        )
    for name in ('shard_megabytes', 'tokenizer_megabytes'):
        value = getattr(recipe, name)
        if not 0.001 <= value <= 1e6:  # so is no nan
            raise UserError(f'data.{name}={value} must be from 0.001 to 1,000,000')


def _digest(recipe, source, filters, given):
    facts = recipe._asdict() | {
        'source': source.fingerprint(),
        'tokenizer': given.digest if given else '',
        'filters': filters.facts(),
        'format': FORMAT,
    }
    del facts['data_dir']  # the source's fingerprint tells what is there
    if given:  # these then decide nothing
        del facts['vocabulary_size'], facts['tokenizer_megabytes']
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


@contextlib.contextmanager
def _lock(folder, name):
    """Held over a part of the work, so that two processes that need it do not do it twice.

    Where the disk has no locks both do it, which costs time alone: files appear whole, and those
    of equal names are equal.
    """
    with open(folder / f'.lock-{name}', 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'waiting for another process that prepares {folder}', flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass
        yield


def _make(job, given):
    folder, (share, of) = job.folder, job.work.share
    with _lock(folder, 'tokenizer'):
        if not tokenizer.find(folder):
            trained = given or _train_tokenizer([job])
            with shards.write_whole(folder / trained.file) as file:
                file.write(trained.model)
    units = job.source.units(job.recipe.shard_megabytes)
    with _lock(folder, f'{share}-of-{of}'):
        if not (folder / 'manifest.json').exists():
            _write_units(job, units)
    missing = [n for n in range(len(units)) if not _is_made(job, n)]
    if missing:
        if of == 1:
            raise UserError(f'{str(folder)!r}: shard {missing[0]} vanished while it was prepared')
        others = sorted({number % of for number in missing})
        names = ', '.join(f'--shard={other}/{of}' for other in others[:8])
        print(
            f'{folder}: share {share}/{of} is made; of {len(units):,} shards {len(missing):,} are '
            f'missing: {names}{", ..." * (len(others) > 8)}; when the last of them ends, it puts '
            'all together'
        )
        return
    with _lock(folder, 'manifest'):
        if not (folder / 'manifest.json').exists():
            try:
                _merge(job, len(units))
            except OSError:
                # Without locks another process may have been faster, and cleared up.
                if not (folder / 'manifest.json').exists():
                    raise


def _is_made(job, number):
    places = job.stage(number), shards.shard_folder(job.folder, number)
    return any((place / 'summary.json').exists() for place in places)


def _write_units(job, units):
    share, of = job.work.share
    mine = [n for n in range(share, len(units), of)]
    shards.remove_left(job.folder)
    weights = {n: sum(extent.weight for extent in units[n].extents) for n in mine}
    tasks = {n: (unit.make, (job, n, units[n])) for n in mine if not _is_made(job, n)}
    done = sum(weights[n] for n in mine if n not in tasks)
    workers.run(
        tasks, job.work.processes, f'tokenising {job.source.name}', sum(weights.values()), done
    )


def _merge(job, count):
    """Takes copies out, adds the shards' summaries up, and writes the manifest."""
    if 'duplicates' in job.filters.names:
        shards.remove_left(job.folder)
        duplicates.remove(
            [(job.stage(n), shards.shard_folder(job.folder, n)) for n in range(count)],
            job.work.processes,
        )
    summaries = [shards.read_summary(shards.shard_folder(job.folder, n)) for n in range(count)]
    add = lambda name: sum((collections.Counter(s[name]) for s in summaries), collections.Counter())  # noqa: E731
    totals = {split: collections.Counter() for split in shards.SPLITS}
    for summary in summaries:
        for split in shards.SPLITS:
            totals[split].update(summary[split])
    skipped, examples = add('skipped'), collections.defaultdict(list)
    for summary in summaries:
        for kind, some in summary['examples'].items():
            examples[kind] = (examples[kind] + some)[:3]
    if not sum(total['tokens'] for total in totals.values()):  # some tokenizers drop characters
        why = next((f' ({some[0]})' for some in examples.values()), '')
        removed = ', '.join(f'{n} by {name}' for name, n in add('removed').items())
        why = why or (f' (removed: {removed})' if removed else '')
        raise UserError(f'{job.recipe.source!r} holds no document with text{why}')
    lengths = [sum(column) for column in zip(*(s['lengths'] for s in summaries), strict=True)]
    manifest = {
        'source': job.recipe.source,
        'tokenizer': tokenizer.load(job.folder).digest,
        'filters': list(job.recipe.filters),
        'totals': {
            split: {n: totals[split][n] for n in ('tokens', 'documents', 'sentences', 'bytes')}
            for split in shards.SPLITS
        },
        'removed': dict(sorted(add('removed').items())),
        'skipped': dict(sorted(skipped.items())),
        'examples': dict(sorted(examples.items())),
        'lengths': lengths,
        'shards': [{split: s[split] for split in shards.SPLITS} for s in summaries],
    }
    for stage in job.folder.glob('unit-*'):  # the shards are there, which is enough to go on from
        shutil.rmtree(stage, ignore_errors=True)
    with shards.write_whole(job.folder / 'manifest.json') as file:
        file.write(json.dumps(manifest, indent=1).encode())


def _train_tokenizer(jobs):
    """Trains a tokenizer on the training splits of sources, on as much of each."""
    recipe, texts = jobs[0].recipe, []
    for job in jobs:
        found = _sample(job, int(recipe.tokenizer_megabytes * MEGABYTE / len(jobs)))
        if not found:
            _refuse_empty(job)
        texts += found
    size = sum(map(len, texts)) / MEGABYTE
    print(f'training a tokenizer of {recipe.vocabulary_size} pieces on {size:.1f} MB')
    return tokenizer.train(texts, recipe.vocabulary_size)


def _sample(job, limit):
    """Documents of the training split of about `limit` characters.

    All of them where there are no more; else some of each of some units, drawn by a fixed seed.
    """
    units = job.source.units(job.recipe.shard_megabytes)
    sampled = permute(range(len(units)), len(units), (0,))[:SAMPLED_UNITS]
    texts, size = [], 0
    with workers.bar(limit, f'reading {job.source.name}') as bar:
        # What a unit falls short of its share the units after it may take.
        for done, number in enumerate(sorted(sampled)):
            share = (limit - size) / (len(sampled) - done)
            before = size
            for split, text in documents(job, units[number], Tally(skip=True)):
                if split == 'validation':
                    continue
                text = text[:MOST_OF_ONE]
                texts.append(text)
                size += len(text)
                bar.update(len(text))
                if size - before >= share:
                    break
    return texts


def _refuse_empty(job):
    """Says why there is no document to train on: by the first bad input, where there is some."""
    for piece in job.source.units(job.recipe.shard_megabytes):
        for _ in documents(job, piece, Tally(skip=job.work.skip)):
            pass
    raise UserError(f'{job.recipe.source!r} holds no document with text to train a tokenizer on')
