"""Ways to move weights, all called alike: `move = rprop(w, 'irprop-')`, then `move(loss, gradient)` moves `w` in place."""
import numpy as np

from rprop_lit import Parameter, Rprop


def rprop(w, variant):
    "Our Rprop at its defaults"
    p = Parameter(w)
    optimizer = Rprop([p], variant=variant)
    def move(loss, g):
        p.grad = g
        optimizer.step(loss=float(loss))
    return move


def adam(w, rate, beta=0.999):
    "Adam (Kingma and Ba 2015), first moment 0.9, eps 1e-8"
    m, v, n = np.zeros_like(w), np.zeros_like(w), 0
    def move(loss, g):
        nonlocal n
        n += 1
        m[...] = 0.9 * m + 0.1 * g
        v[...] = beta * v + (1 - beta) * g * g
        w[...] -= rate * (m / (1 - 0.9**n)) / (np.sqrt(v / (1 - beta**n)) + 1e-8)
    return move


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
