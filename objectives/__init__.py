"""What to predict: each objective a pair of pure functions of arrays.

`find(name)` gives an objective's `make`; a name with a colon, `my_module:make`, is imported from
wherever Python finds it, so that a new objective needs no change here.
"""

import difflib
import importlib

NAMES = (
    'causal_lm',
    'masked_lm',
    'next_sentence',
    'span_corruption',
    'prefix_lm',
    'mixture_of_denoisers',
    'replaced_token',
    'distillation',
)


def find(name):
    """Returns the function `make(config, vocabulary)` of the objective called `name`.

    Args:
        name: one of NAMES, or 'module:function' for an objective of your own.

    Raises:
        ValueError: there is no such objective; the nearest name is said.
    """
    if ':' in name:
        module, function = name.split(':', 1)
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, SyntaxError) as error:
            raise ValueError(f'objective.name={name!r} cannot be imported: {error}') from error
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, 1)
        hint = f'did you mean {near[0]!r}?' if near else f'there are: {", ".join(NAMES)}'
        raise ValueError(f'unknown objective.name={name!r}; {hint}')
    return importlib.import_module(f'objectives.{name}').make
