"""Exact copies of documents, found over all shards and taken out of them.

A copy is a document whose text has the same 64 bits of hash as one before it, in the order of
shards, or as one that is held out. Among C4's 365 million documents that would be a mistake once in
three hundred such corpora.
The hashes of the whole corpus are compared in parts, by their first bits, so that memory does not
grow with it. Then the shards are written once more without the copies.
"""

import collections

import numpy as np

from pretrain.data import shards, workers

PART = 8_000_000  # hashes compared at once, about


def remove(places, processes):
    """Writes the shards of `places` without copies; those that are there are not written again.

    Args:
        places: list of (folder of the unit, folder of its shard).
        processes: as in workers.run.
    """
    # A unit is there as long as the manifest is not: one that lacks its shard has its hashes.
    if all((shard / 'summary.json').exists() for _, shard in places):
        return
    copies = find([unit for unit, _ in places])
    tasks = {
        number: (_rewrite, (unit, shard, copies[number]))
        for number, (unit, shard) in enumerate(places)
        if not (shard / 'summary.json').exists()
    }
    done = len(places) - len(tasks)
    workers.run(tasks, processes, 'taking copies out', len(places), done, ' shards')


def find(units):
    """Where copies stand.

    Args:
        units: folders, each with hashes of its documents, by split.

    Returns:
        For each unit {split: int64 array of the documents that are copies, ascending}.
    """
    arrays = [
        (number, split, np.load(unit / f'{split}.hashes.npy', mmap_mode='r'))
        for split in ('validation', 'train')
        for number, unit in enumerate(units)
    ]
    total = sum(len(hashes) for *_, hashes in arrays)
    bits = max(0, (total // PART).bit_length())
    found = collections.defaultdict(list)
    for part in range(1 << bits):
        hashes, owners, places = [], [], []
        for index, (_, _, array) in enumerate(arrays):
            here = np.flatnonzero(array >> np.uint64(64 - bits) == part) if bits else slice(None)
            chosen = np.asarray(array[here])
            hashes.append(chosen)
            owners.append(np.full(len(chosen), index, np.int32))
            places.append(np.arange(len(array))[here])
        hashes, owners, places = map(np.concatenate, (hashes, owners, places))
        _, first = np.unique(hashes, return_index=True)  # of the first in this order
        copied = np.ones(len(hashes), bool)
        copied[first] = False
        for index in np.unique(owners[copied]):
            found[index].append(places[copied & (owners == index)])
    result = [{split: np.zeros(0, np.int64) for split in shards.SPLITS} for _ in units]
    for index, pieces in found.items():
        number, split, _ = arrays[index]
        result[number][split] = np.sort(np.concatenate(pieces))
    return result


def _rewrite(unit, shard, copies, report):
    """Writes a shard with the documents of a unit that are no copies."""
    summary = shards.read_summary(unit)
    counts = np.load(unit / 'counts.npy', mmap_mode='r')
    sizes = {split: np.load(unit / f'{split}.sizes.npy', mmap_mode='r') for split in shards.SPLITS}
    lengths = list(summary['lengths'])
    with shards.ShardWriter(shard, len(counts)) as writer:
        for split in shards.SPLITS:
            part = shards.open_part(unit, split)
            ends = np.append(part.documents, len(part.tokens))[1:]
            dropped = set(copies[split].tolist())
            for number, (begin, end) in enumerate(zip(part.documents, ends, strict=True)):
                report.check()
                if number in dropped:
                    lengths[min(int(end - begin).bit_length(), len(lengths) - 1)] -= 1
                    continue
                among = slice(*np.searchsorted(part.sentences, (begin, end)))
                writer.add(
                    split, part.tokens[begin:end], part.sentences[among] - begin,
                    int(sizes[split][number]),
                )  # fmt: skip
        kept = {name: summary[name] for name in ('skipped', 'examples')}
        removed = dict(summary['removed'])
        if count := sum(map(len, copies.values())):
            removed['duplicates'] = count
        writer.facts.update(kept | {'removed': removed, 'lengths': lengths})
    report.advance(1)
