"""provisional"""
__all__ = ['Variant', 'VARIANTS', 'knobs', 'retreat', 'update']
import math
from typing import NamedTuple

from rprop_lit import rule
from rprop_lit.rule import State, namespace, signed


class Variant(NamedTuple):
    forget: bool
    undo: str


VARIANTS = {'rprop-': Variant(False, 'never'), 'irprop-': Variant(True, 'never'),
            'rprop+': Variant(True, 'always'), 'irprop+': Variant(True, 'if worse')}


def knobs(variant):
    row = VARIANTS.get(str(variant).lower())
    if row is None:
        raise ValueError(f"variant={variant!r} is unknown: choose one of {', '.join(map(repr, VARIANTS))}")
    return row


def retreat(state, *, etas, step_sizes):
    xp = namespace(state.step)
    step = xp.clip(state.step * etas[0], *step_sizes)
    return signed(state.sign, state.step), State(0 * state.sign, step, state.loss)


def update(g, state, *, variant, etas=(0.5, 1.2), step_sizes=(1e-6, 50.0), loss=None):
    forget, undo = knobs(variant)
    options = dict(etas=etas, step_sizes=step_sizes)
    if undo != 'if worse':
        return rule.update(g, state, forget=forget, undo=undo == 'always', **options)
    if loss is None:
        raise ValueError(f'variant={variant!r} compares errors: pass loss=')
    if not math.isfinite(loss):
        if state.loss == math.inf:
            raise ValueError(f'loss={loss!r} at the first step: start where the error is finite')
        return retreat(state, **options)
    dw, new = rule.update(g, state, forget=forget, undo=loss > state.loss, **options)
    return dw, new._replace(loss=loss)
