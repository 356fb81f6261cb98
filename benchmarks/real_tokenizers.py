"""Ids of real tokenizers, ours against transformers', on real and on hard text.

    python -m benchmarks.real_tokenizers --data_dir=DATA --gpt2_dir=GPT2 --bert_dir=BERT

DATA/tokenizers/t5 holds T5's spiece.model and tokenizer.json, DATA/wikipedia the text (JSON lines
with the field `text`, gzipped), GPT2 the files vocab.json and merges.txt, BERT a vocab.txt. What
is not there is left out. A tokenizer of our own is trained on the first part of the text, written
in the Hugging Face layout and loaded again by transformers; so is T5's spiece.model.

Raw text: names of special tokens inside it are text (our encode; theirs with
split_special_tokens=True). Prompts: they are special tokens (specials=True; theirs as it comes).
The hard texts of the rows of raw text hold no such names for T5's tokenizer.json, as transformers
finds them there all the same.
"""

import argparse
import glob
import gzip
import json
import random
import shutil
import tempfile
import time
from pathlib import Path

from pretrain.data import tokenizer
from pretrain.huggingface import tokenizer_files

PIECES = 8192  # of our own tokenizer
NAMES = '[CLS] [MASK] </s> <pad> <unk> <0x41> <extra_id_0> [R]', 'a[MASK]b</s>c<|endoftext|>', (
    'The <extra_id_0> walks in <extra_id_1> park'
)  # fmt: skip
HARD = [
    '', ' ', '\n', 'a', ' a ', 'a  b   c', 'a\n\tb\r\nc', '\n\n\n', '\ttab', 'a\x00b\x01\x7f\x1f',
    'e\u0301 a\u0308\u0323 \u1e69 s\u0323\u0307', 'ﬁ ﬀ ㎏ Ⅷ ½ ² ℃ ｆｕｌｌ',
    '\u200b\u200c\ufeff\u2060 x',
    '\u202eabc\u202c', 'שלום עולם مرحبا', 'नमस्ते ประเทศไทย क्षि', '日本語、中文。한국어 ㄱㄴ',
    '\U0001f469\u200d\U0001f680 \U0001f1eb\U0001f1f7 \U0001f44d\U0001f3fd', 'x' * 5000, 'ab ' * 700,
    'antidisestablishmentarianism' * 30, '<0x41><0xE2> <0x4 <<0x41>>', '\u2581', 'a \u2581 b',
    '\u00a0\u3000\u2003x\u2028y\u2029z\x85w', '\ufffd\uffff\U0010ffff', 'İstanbul ı ß ẞ Σας ŉ ǅ',
    'A\u0301\u0327\u0328B', "don't I'll ''quotes'' “smart” — …", '3.14 1,000,000 2nd $5 €6 50%',
    'def f(x):\n    return x**2  # comment\n\n\n', '~`!@#$%^&*()_+-={}|[]\\:";\'<>?,./',
    '##abc ## #',
    '\u1100\u1161\u11a8 각', '\u0344 \u0f73 ﷺ', 'a\u0300' * 50, '\x1c\x1d\x1e', 'x\u00ady',
    '①②③ ™®©',
]  # fmt: skip
PLANES = [(32, 127), (0, 0x250), (0x300, 0x370), (0x4E00, 0x9FFF), (0x1F300, 0x1F700)]
PLANES += [(0, 0x110000)]


def random_texts(count):
    """Texts of characters drawn from the planes of Unicode."""
    rng = random.Random(0)
    texts = []
    for _ in range(count):
        low, high = rng.choice(PLANES)
        points = (rng.randrange(low, high) for _ in range(rng.randrange(40)))
        texts.append(''.join(chr(p) for p in points if not 0xD800 <= p < 0xE000))
    return texts


def articles(folder, megabytes):
    """The first articles of the files in a folder."""
    texts, size = [], 0
    for path in sorted(glob.glob(f'{folder}/*.jsonl.gz')):
        with gzip.open(path, 'rt', encoding='utf-8') as file:
            for line in file:
                texts.append(json.loads(line)['text'])
                size += len(texts[-1].encode())
                if size >= megabytes * 1e6:
                    return texts
    return texts


def ids_of(encode, texts):
    """The ids of each text, and megabytes a second."""
    began = time.perf_counter()
    ids = [list(map(int, encode(text))) for text in texts]
    return ids, sum(len(t.encode()) for t in texts) / 1e6 / (time.perf_counter() - began)


def differing_tokens(a, b):
    """How many of the first's tokens lie between the common start and the common end."""
    if a == b:
        return 0
    start = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    end = next((i for i, (x, y) in enumerate(zip(a[::-1], b[::-1])) if x != y), 0)
    return max(1, len(a) - start - end)


def compare(name, ours, theirs, kinds):
    """Prints a row for each kind of text."""
    for kind, (texts, specials) in kinds.items():
        ids, speed = ids_of(lambda text, s=specials: ours.encode(text, specials=s), texts)
        call = lambda text, s=specials: theirs(  # noqa: E731
            text, add_special_tokens=False, split_special_tokens=not s, verbose=False
        )
        others, other_speed = ids_of(lambda text, c=call: c(text)['input_ids'], texts)
        wrong = [(text, a, b) for text, a, b in zip(texts, ids, others) if a != b]
        print(
            f'| {name} | {kind} | {len(texts):,} | {sum(map(len, ids)):,} | {len(wrong)} | '
            f'{speed:.1f} | {other_speed:.1f} |'
        )
        if wrong:
            _, a, b = min(wrong, key=lambda w: differing_tokens(w[1], w[2]))
            at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), 0)
            print(
                f'    for example token {at}: '
                f'{theirs.convert_ids_to_tokens(a[at : at + 4])} and '
                f'{theirs.convert_ids_to_tokens(b[at : at + 4])}'
            )


def main():
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data_dir', required=True)
    parser.add_argument('--gpt2_dir', default='')
    parser.add_argument('--bert_dir', default='')
    parser.add_argument('--megabytes', type=float, default=4)
    flags = parser.parse_args()
    try:
        import transformers
    except ImportError:
        print('transformers is missing: pip install -e .[peers]')
        return
    transformers.logging.set_verbosity_error()
    data, gpt2 = Path(flags.data_dir), Path(flags.gpt2_dir)
    wiki = articles(data / 'wikipedia', flags.megabytes)
    if not wiki:
        print(f'{str(data / "wikipedia")!r} holds no *.jsonl.gz: the real text is left out')
    paragraphs = [p for text in wiki for p in text.split('\n') if p]
    odd = [*HARD, *random_texts(3000)]
    kinds = {
        'articles': (wiki, False), 'paragraphs': (paragraphs, False), 'hard': (odd, False),
        'names, raw': ([*NAMES], False), 'prompts': ([*odd, *NAMES], True),
    }  # fmt: skip
    print(f'transformers {transformers.__version__}, {flags.megabytes:g} MB of text\n')
    print('| tokenizer | text | texts | tokens | differing | MB/s | theirs |')
    print('|---|---|---|---|---|---|---|')

    load = transformers.AutoTokenizer.from_pretrained
    t5 = data / 'tokenizers' / 't5'
    if (t5 / 'tokenizer.json').exists() and (t5 / 'spiece.model').exists():
        theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(t5 / 'tokenizer.json'))
        apart = {kind: value for kind, value in kinds.items() if kind != 'names, raw'}
        compare('T5, tokenizer.json', tokenizer_files.read(t5, {}), theirs, apart)
        rebuilt = transformers.T5Tokenizer.from_pretrained(t5)
        compare('T5, tokenizer.json; T5Tokenizer', tokenizer_files.read(t5, {}), rebuilt, apart)
        with tempfile.TemporaryDirectory() as folder:
            shutil.copyfile(t5 / 'spiece.model', Path(folder) / 'spiece.model')
            tokens = tokenizer_files.read(folder, {})
            rebuilt = transformers.T5Tokenizer.from_pretrained(folder)
            compare('T5, spiece.model', tokens, rebuilt, kinds)
        with tempfile.TemporaryDirectory() as folder:
            tokenizer_files.write(tokens, folder, 'encoder_decoder', 512)
            compare('T5, spiece.model, written', tokens, load(folder), kinds)
        pieces = tokenizer.load(t5 / 'spiece.model')
        compare("T5, SentencePiece's own ids", pieces, theirs, apart)
    else:
        print(f"T5's files are not in {str(t5)!r}: left out")
    if flags.gpt2_dir and (gpt2 / 'vocab.json').exists() and (gpt2 / 'merges.txt').exists():
        tokens = tokenizer_files.read(gpt2, {})
        compare('GPT-2', tokens, transformers.GPT2Tokenizer.from_pretrained(gpt2), kinds)
        with tempfile.TemporaryDirectory() as folder:
            tokenizer_files.write(tokens, folder, 'decoder', 1024)
            compare('GPT-2, written', tokens, load(folder), kinds)
    else:
        print("GPT-2's files are left out: give their folder by --gpt2_dir")
    if flags.bert_dir and (Path(flags.bert_dir) / 'vocab.txt').exists():
        with tempfile.TemporaryDirectory() as folder:
            shutil.copyfile(Path(flags.bert_dir) / 'vocab.txt', Path(folder) / 'vocab.txt')
            tokens = tokenizer_files.read(folder, {})
            compare('BERT', tokens, transformers.BertTokenizer.from_pretrained(folder), kinds)
    else:
        print("BERT's vocab.txt is left out: give its folder by --bert_dir")
    if wiki:
        tokens = tokenizer.train(wiki[: max(1, len(wiki) // 4)], PIECES)
        with tempfile.TemporaryDirectory() as folder:
            tokenizer_files.write(tokens, folder, 'encoder', 512)
            compare('ours, written', tokens, load(folder), kinds)


if __name__ == '__main__':
    main()
