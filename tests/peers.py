"""Run another implementation through the golden traces, in that implementation's own Python, and print what
it did.

    python tests/peers.py NAME rprop_lit/data/traces.json

This file needs NumPy and the named package, nothing of this one, and keeps to what Python 2.7 understands,
since one of the packages asks for it. `tests/make_others.py` makes the environments and calls it.

A peer is a function (dtype, lr, etas, step_sizes, start) -> step, or None if it cannot be set so; step(g,
loss) returns the weight. `lr` and the other settings are Python floats, `g` is an array of one element.
"""
from __future__ import print_function  # noqa: UP010

import json
import os
import platform
import sys

import numpy as np

USUAL = (0.5, 1.2)


def alike(a, b):
    "Are two settings the same but for the rounding to float32?"
    return np.allclose(a, b, rtol=1e-6, atol=0)


def torch_with(**options):
    "torch.optim.Rprop on a CPU tensor"
    def peer(dtype, lr, etas, step_sizes, start):
        import torch
        w = torch.tensor([start], dtype=getattr(torch, dtype), requires_grad=True)
        opt = torch.optim.Rprop([w], lr=lr, etas=etas, step_sizes=step_sizes, **options)

        def step(g, loss):
            w.grad = torch.from_numpy(g)
            opt.step()
            return w.detach().numpy()
        return step
    return peer


def torchzero_with(backtrack):
    "torchzero's Rprop module, given the loss as a closure would"
    def peer(dtype, lr, etas, step_sizes, start):
        import torch
        import torchzero as tz
        w = torch.tensor([start], dtype=getattr(torch, dtype), requires_grad=True)
        rule = tz.m.Rprop(nplus=etas[1], nminus=etas[0], lb=step_sizes[0], ub=step_sizes[1],
                          backtrack=backtrack, alpha=lr)
        opt = tz.Optimizer([w], rule)

        def step(g, loss):
            w.grad = torch.from_numpy(g)
            opt.step()
            return w.detach().numpy()
        return step
    return peer


def optax(dtype, lr, etas, step_sizes, start):
    "optax.rprop, applied with apply_updates, without jit"
    import jax
    jax.config.update('jax_enable_x64', True)
    import jax.numpy as jnp
    import optax
    opt = optax.rprop(lr, eta_minus=etas[0], eta_plus=etas[1], min_step_size=step_sizes[0],
                      max_step_size=step_sizes[1])
    w = jnp.full(1, start, dtype)
    now = [w, opt.init(w)]

    def step(g, loss):
        updates, now[1] = opt.update(jnp.asarray(g), now[1], now[0])
        now[0] = optax.apply_updates(now[0], updates)
        return np.asarray(now[0])
    return step


def paddle(dtype, lr, etas, step_sizes, start):
    "paddle.optimizer.Rprop; it refuses a first step outside the bounds, so it is not set so"
    if not step_sizes[0] <= lr <= step_sizes[1]:
        return None
    import paddle
    w = paddle.create_parameter([1], dtype)
    w.set_value(np.full(1, start, dtype))
    opt = paddle.optimizer.Rprop(lr, learning_rate_range=step_sizes, parameters=[w], etas=etas)

    def step(g, loss):
        (w * paddle.to_tensor(g)).sum().backward()
        opt.step()
        opt.clear_grad()
        return w.numpy()
    return step


def pints(dtype, lr, etas, step_sizes, start):
    "pints.IRPropMin through ask and tell; its factors are fixed"
    if dtype != 'float64' or not alike(etas, USUAL):
        return None
    import pints
    opt = pints.IRPropMin([start], sigma0=[lr])
    opt.set_min_step_size(step_sizes[0])
    opt.set_max_step_size(step_sizes[1])

    def step(g, loss):
        opt.ask()
        opt.tell([(loss, g)])
        return opt.ask()[0]
    return step


def pybop(dtype, lr, etas, step_sizes, start):
    "PyBOP's IRPropPlusImpl through ask and tell"
    if dtype != 'float64':
        return None
    from pybop.optimisers._irprop_plus import IRPropPlusImpl
    opt = IRPropPlusImpl(np.array([start]), [lr], None)
    opt.eta_min, opt.eta_max = etas
    opt.step_min, opt.step_max = step_sizes

    def step(g, loss):
        opt.ask()
        opt.tell([(loss, g)])
        return opt.ask()[0]
    return step


def neurolab_with(name):
    "A trainer of neurolab, through its learn method; the other weight of its network gets no gradient"
    def peer(dtype, lr, etas, step_sizes, start):
        if dtype != 'float64':
            return None
        import neurolab
        net = neurolab.net.newff([[-1, 1]], [1])
        trainer = getattr(neurolab.train.gd, name)(net, None, None, lr=lr, rate_dec=etas[0], rate_inc=etas[1],
                                                   rate_min=step_sizes[0], rate_max=step_sizes[1])
        trainer.x[:] = start

        def step(g, loss):
            trainer.learn(net, np.concatenate([g, [0.0]]))
            return trainer.x[:1]
        return step
    return peer


def climin(dtype, lr, etas, step_sizes, start):
    "climin.Rprop; no argument sets the first step, so it is put into its array of steps"
    import itertools

    import climin
    w = np.full(1, start, dtype)
    given = []
    opt = climin.rprop.Rprop(w, lambda w: given[0], step_shrink=etas[0], step_grow=etas[1],
                             min_step=step_sizes[0],
                             max_step=step_sizes[1], args=itertools.repeat(([], {})))
    opt.changes[:] = lr
    turns = iter(opt)

    def step(g, loss):
        given[:] = [g]
        next(turns)
        return w
    return step


def neupy_with(name):
    """An algorithm of neupy on a network of one weight, with a loss whose value and gradient are the given
    ones"""
    def peer(dtype, lr, etas, step_sizes, start):
        if dtype != 'float32':
            return None
        os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
        import tensorflow as tf
        from neupy import algorithms, layers
        tf.logging.set_verbosity(tf.logging.ERROR)

        def loss_of(expected, predicted):  # expected holds the gradient and the error
            linear = tf.reduce_sum(expected[:, :1] * predicted[:, :1])
            return tf.reduce_sum(expected[:, 1:]) + linear - tf.stop_gradient(linear)

        weight = tf.Variable(np.array([[start, 0]], 'float32'))
        network = layers.join(layers.Input(1), layers.Linear(2, weight=weight, bias=None))
        opt = getattr(algorithms, name)(network, step=lr, minstep=step_sizes[0], maxstep=step_sizes[1],
                                        increase_factor=etas[1],
                                        decrease_factor=etas[0], loss=loss_of, verbose=False,
                                        shuffle_data=False)
        from neupy.utils import tensorflow_session

        def step(g, loss):
            opt.train(np.ones((1, 1), 'float32'), np.array([[g[0], loss]], 'float32'), epochs=1)
            return tensorflow_session().run(weight)[0, :1]
        return step
    return peer


def downhill(dtype, lr, etas, step_sizes, start):
    "downhill's rprop, through its compiled step; Theano's C compiler is switched off"
    os.environ['THEANO_FLAGS'] = 'cxx=,optimizer=None,floatX=' + dtype
    import theano
    if dtype != theano.config.floatX:
        return None
    import downhill
    w = theano.shared(np.full(1, start, dtype), name='w')
    given = theano.tensor.vector('g')
    opt = downhill.build('rprop', loss=(w * given).sum(), params=[w], inputs=[given])
    opt._compile(learning_rate=lr, rprop_increase=etas[1], rprop_decrease=etas[0],
                 rprop_min_step=step_sizes[0], rprop_max_step=step_sizes[1])

    def step(g, loss):
        opt.f_step(g)
        return w.get_value()
    return step


def pybrain(dtype, lr, etas, step_sizes, start):
    """The descent of PyBrain's RPropMinusTrainer; it climbs, so it is given minus the gradient,
    as the trainer does"""
    if dtype != 'float64':
        return None
    from pybrain.auxiliary import GradientDescent
    opt = GradientDescent()
    opt.rprop = True
    opt.etaminus, opt.etaplus = etas
    opt.deltamin, opt.deltamax = step_sizes
    opt.deltanull = lr
    opt.init(np.full(1, start))

    def step(g, loss):
        return opt(-g)
    return step


PEERS = {
    'torch': torch_with(foreach=False), 'torch foreach': torch_with(foreach=True), 'optax': optax,
    'paddle': paddle,
    'torchzero': torchzero_with(True), 'torchzero without backtrack': torchzero_with(False), 'pints': pints,
    'pybop': pybop,
    'neupy RPROP': neupy_with('RPROP'), 'neupy IRPROPPlus': neupy_with('IRPROPPlus'), 'climin': climin,
    'downhill': downhill,
    'neurolab TrainRprop': neurolab_with('TrainRprop'), 'neurolab TrainRpropM': neurolab_with('TrainRpropM'),
    'pybrain': pybrain,
}


def version(package):
    "Installed version of a package"
    try:
        from importlib.metadata import version
        return version(package)
    except ImportError:
        import pkg_resources
        return pkg_resources.get_distribution(package).version


def follow(peer, trace):
    "What a peer does with one trace; None if it cannot be set so"
    def number(word):
        return float.fromhex(word)
    etas, step_sizes = (tuple(map(number, trace[key])) for key in ('etas', 'step_sizes'))
    step = peer(trace['dtype'], number(trace['lr']), etas, step_sizes, number(trace['start']))
    if step is None:
        return None
    weights, wrote = [], False
    for g, error in zip(trace['gradients'], trace['errors']):
        given = np.full(1, number(g), trace['dtype'])
        before = given.copy()
        try:
            weights.append(float(np.asarray(step(given, number(error))).ravel()[0]).hex())
        except Exception as problem:
            return {"weights": weights, "wrote": wrote,
                    "refused": '{}: {}'.format(type(problem).__name__, str(problem).split('\n')[0])}
        wrote = wrote or bool(before == before and given != before)
    return {"weights": weights, "wrote": wrote, "refused": ''}


def main(name, package, dtypes, path):
    with open(path) as file:
        traces = [t for t in json.load(file)['traces'] if t['dtype'] in dtypes.split(',')]
    np.seterr(all='ignore')
    runs = [{"name": t['name'], "dtype": t['dtype'], "run": follow(PEERS[name], t)} for t in traces]
    print(json.dumps({"version": version(package), "python": platform.python_version(),
                      "numpy": np.__version__, "runs": runs}))


if __name__ == '__main__':
    main(*sys.argv[1:])
