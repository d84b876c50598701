"""provisional: the real one is written in nbs/40_optim.ipynb"""
__all__ = ['Parameter', 'Rprop']
import math
import numpy as np
from rprop_lit.rule import init
from rprop_lit.variants import knobs, update


def as_data(data, dtype=None):
    if not hasattr(data, 'dtype'):
        data = np.array(data, dtype=dtype or np.float32)
    return data


class Parameter:
    def __init__(self, data, dtype=None):
        self.data = as_data(data, dtype)
        self.grad = None
    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)


class Rprop:
    def __init__(self, params, lr=1e-2, etas=(0.5, 1.2), step_sizes=(1e-6, 50.0), *, variant='irprop-', maximize=False, nonfinite='hold'):
        self.defaults = dict(lr=lr, etas=etas, step_sizes=step_sizes, variant=variant, maximize=maximize, nonfinite=nonfinite)
        self.param_groups = [dict(self.defaults, params=list(params))]
        self.state = {}

    def zero_grad(self, set_to_none=True):
        for p in self.param_groups[0]['params']:
            p.grad = None

    def step(self, closure=None, *, loss=None):
        if closure:
            loss = closure()
        for group in self.param_groups:
            for p in group['params']:
                if p.grad is None:
                    continue
                w = p.data
                st = self.state.get(p) or init(w, group['lr'])
                dw, self.state[p] = update(p.grad, st, variant=group['variant'], etas=group['etas'], step_sizes=group['step_sizes'], loss=loss)
                w[...] = w + dw
        return loss
