"""Ways to move weights, all called alike: `move = rprop(w, 'irprop-')`, then `move(loss,
gradient)` moves `w` in place."""
import numpy as np
from common import definitions

PAGE = definitions('80_puf')
rprop, adam = PAGE['rprop'], PAGE['adam']


def momentum(w, rate):
    "Gradient descent with Polyak's momentum, 0.9"
    v = np.zeros_like(w)
    def move(loss, g):
        v[...] = 0.9 * v + g
        w[...] -= rate * v
    return move


def fixed(w, rate):
    "A step of the same length for all weights and times, against the sign of the gradient"
    def move(loss, g):
        w[...] -= rate * np.sign(g)
    return move
