"""Makes fixtures/: small random models as transformers saves them, and what transformers computes.

    pip install -e .[test,peers]
    python tests/pretrain/huggingface/make_fixtures.py

One folder a model: config.json, model.safetensors, expected.npz. They are made once and committed,
so that the tests need neither torch nor transformers; test_peers_conversion.py makes them anew and
compares.
"""

import sys
from pathlib import Path

import numpy as np

V, D, LENGTH, NEW = 61, 16, 20, 12
HERE = Path(__file__).parent / 'fixtures'


def models():
    """{name: (a random model, kind of its inputs)}: gpt, bert, plain (no segments) or t5."""
    import torch
    import transformers as t

    torch.manual_seed(0)
    special = {'bos_token_id': 1, 'eos_token_id': 1, 'pad_token_id': 0}
    bert = {
        'vocab_size': V, 'hidden_size': D, 'num_hidden_layers': 2, 'num_attention_heads': 2,
        'intermediate_size': 24, 'max_position_embeddings': LENGTH, 'layer_norm_eps': 1e-3,
    }  # fmt: skip
    t5 = {
        'vocab_size': V, 'd_model': D, 'd_kv': 6, 'd_ff': 24, 'num_layers': 2,
        'num_heads': 2, 'decoder_start_token_id': 0,
    }  # fmt: skip
    llama = {
        'vocab_size': V, 'hidden_size': D, 'intermediate_size': 24, 'num_hidden_layers': 2,
        'num_attention_heads': 4, 'num_key_value_heads': 2, 'rope_theta': 500.0, **special,
    }  # fmt: skip
    newer = t.T5ForConditionalGeneration(
        t.T5Config(**t5, feed_forward_proj='gated-gelu', tie_word_embeddings=False)
    )
    # transformers 5 ties the logits of a new model whatever its config says.
    newer.lm_head.weight = torch.nn.Parameter(torch.zeros(V, D))
    made = {
        'gpt2': (t.GPT2LMHeadModel(t.GPT2Config(
            vocab_size=V, n_embd=D, n_layer=2, n_head=2, n_positions=LENGTH + 20, **special,
        )), 'gpt'),
        'bert': (t.BertForPreTraining(t.BertConfig(**bert)), 'bert'),
        'bert_masked_lm': (t.BertForMaskedLM(t.BertConfig(**bert)), 'bert'),
        'bert_without_heads': (t.BertModel(t.BertConfig(**bert)), 'bert'),
        'distilbert': (t.DistilBertForMaskedLM(t.DistilBertConfig(
            vocab_size=V, dim=D, hidden_dim=24, n_layers=2, n_heads=2,
            max_position_embeddings=LENGTH,
        )), 'plain'),
        'electra_discriminator': (
            t.ElectraForPreTraining(t.ElectraConfig(**bert, embedding_size=12)), 'bert'
        ),
        'electra_generator': (t.ElectraForMaskedLM(t.ElectraConfig(
            **(bert | {'hidden_size': 8, 'intermediate_size': 16}), embedding_size=12
        )), 'bert'),
        't5': (t.T5ForConditionalGeneration(t.T5Config(**t5, feed_forward_proj='relu')), 't5'),
        't5_1_1': (newer, 't5'),
        'llama': (t.LlamaForCausalLM(t.LlamaConfig(**llama, tie_word_embeddings=False)), 'gpt'),
        'qwen3': (t.Qwen3ForCausalLM(t.Qwen3Config(
            **llama, head_dim=6, tie_word_embeddings=True
        )), 'gpt'),
    }  # fmt: skip
    for number, (model, _) in enumerate(made.values()):
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():  # so that a parameter left at 0 or 1 shows
            for parameter in model.parameters():
                parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
        model.eval()
    # The parts of an ELECTRA share their tables and the norm of their sum.
    generator, discriminator = (made[f'electra_{n}'][0] for n in ('generator', 'discriminator'))
    tables = discriminator.electra.embeddings.state_dict()
    generator.electra.embeddings.load_state_dict(tables)
    return made


def inputs(kind):
    """{name: array} as transformers calls them: padded rows, segments, T5 beyond distance 128."""
    rng = np.random.default_rng(0)
    length = 140 if kind == 't5' else LENGTH
    ids = rng.integers(3, V, (3, length))
    ends = [length, 134, 129] if kind == 't5' else [length, 13, 5]
    real = (np.arange(length) < np.array(ends)[:, None]).astype(np.int64)
    given = {'input_ids': ids, 'attention_mask': real}
    if kind == 'gpt':  # padded on the left, as for generation
        given['attention_mask'] = real[:, ::-1].copy()
        positions = np.cumsum(given['attention_mask'], axis=1) - 1
        given['position_ids'] = np.maximum(positions, 0)
    if kind == 'bert':
        given['token_type_ids'] = (np.arange(length) >= np.array([[9], [6], [2]])).astype(np.int64)
    if kind == 't5':
        given['decoder_input_ids'] = rng.integers(3, V, (3, 8))
    return given


def expected(model, kind):
    """{name: array} of the inputs and of all that transformers computes from them."""
    import torch

    given = inputs(kind)
    tensors = {name: torch.tensor(x) for name, x in given.items()}
    with torch.no_grad():
        out = model(**tensors, output_hidden_states=True)
        states = out if kind == 't5' else model.base_model(**tensors)
        found = {
            'hidden': out.decoder_hidden_states[-1] if kind == 't5' else states.last_hidden_state
        }
        for ours, theirs in (
            ('pooled', 'pooler_output'),
            ('logits', 'prediction_logits'),
            ('classes', 'seq_relationship_logits'),
            ('logits', 'logits'),
        ):
            value = getattr(out, theirs, None)
            value = getattr(states, theirs, None) if value is None else value
            if value is not None:
                found[ours] = value
        if kind in ('gpt', 't5'):
            prompt = {name: tensors[name][:, -12:] for name in ('input_ids', 'attention_mask')}

            def generate(beams, eos):
                made = model.generate(
                    **prompt, do_sample=False, num_beams=beams, max_new_tokens=NEW,
                    eos_token_id=eos, pad_token_id=0,
                )  # fmt: skip
                return made[:, 12 if kind == 'gpt' else 1 :]

            # The end is a token that some rows make and others do not.
            free = generate(1, None).numpy()
            ends = [t for t in free.T.ravel() if 0 < (free == t).any(axis=1).sum() < len(free)]
            eos = int(ends[len(ends) // 2])
            found |= {'greedy': generate(1, eos), 'beams': generate(3, eos)}
            found['eos'] = torch.tensor(eos)
    found = {name: value.numpy() for name, value in found.items()}
    return given | {f'expected_{name}': value for name, value in found.items()}


def main(out=HERE):
    """Writes the folders."""
    for name, (model, kind) in models().items():
        folder = Path(out) / name
        model.save_pretrained(folder)
        np.savez_compressed(folder / 'expected.npz', **expected(model, kind))
        for file in folder.iterdir():
            if file.name not in ('config.json', 'model.safetensors', 'expected.npz'):
                file.unlink()
            else:
                file.chmod(0o644)


if __name__ == '__main__':
    main(*sys.argv[1:])
