"""provisional"""
__all__ = ['update_one', 'State', 'namespace', 'signed', 'init', 'update']
import math
import sys
from typing import Any, NamedTuple


def update_one(g, sign, step, forget, undo, eta_minus, eta_plus, lo, hi):
    last = sign * step
    s = int(g > 0) - int(g < 0)
    flip = s * sign < 0
    if s * sign > 0:
        step = step * eta_plus
    if flip:
        step = step * eta_minus
    step = min(max(step, lo), hi)
    if flip and forget:
        s = 0
    dw = -(s * step)
    if flip and undo:
        dw = last
    return dw, s, step


class State(NamedTuple):
    sign: Any
    step: Any
    loss: Any = math.inf


def namespace(x):
    if hasattr(x, '__array_namespace__'):
        return x.__array_namespace__()
    return sys.modules[type(x).__module__.partition('.')[0]]


def signed(sign, x):
    xp = namespace(x)
    return xp.where(sign > 0, x, xp.where(sign < 0, -x, 0 * x))


def init(w, lr):
    xp = namespace(w)
    if 'float' not in str(w.dtype):
        raise TypeError(f'w is {w.dtype}: Rprop moves real floating-point weights (pass a complex array as pairs of reals)')
    T = xp.float64 if xp.finfo(w.dtype).bits > 32 else xp.float32
    return State(xp.zeros_like(w, dtype=xp.int8), xp.zeros_like(w, dtype=T) + xp.asarray(lr, dtype=T))


def update(g, state, *, forget, undo, etas, step_sizes):
    xp = namespace(state.step)
    one = xp.ones_like(state.sign)
    s = xp.where(g > 0, one, xp.where(g < 0, -one, 0 * one))
    same, flip = s * state.sign > 0, s * state.sign < 0
    step = xp.where(same, state.step * etas[1], xp.where(flip, state.step * etas[0], state.step))
    step = xp.clip(step, *step_sizes)
    if forget:
        s = xp.where(flip, 0 * one, s)
    dw = xp.where(flip & undo, signed(state.sign, state.step), -signed(s, step))
    return dw, State(s, step, state.loss)
