"""The transformation of Optax: pure, under jit, vmap and scan, and equal to the golden traces."""
import numpy as np
import pytest
from streams import VARIANTS

jax = pytest.importorskip('jax', reason='JAX is not installed: the transformation of Optax is left out')
optax = pytest.importorskip('optax', reason='Optax is not installed: the transformation of Optax is left out')
import jax.numpy as jnp  # noqa: E402

from rprop_lit.conformance import run, traces  # noqa: E402
from rprop_lit.jax import RpropState, rprop  # noqa: E402
from rprop_lit.rule import init  # noqa: E402
from rprop_lit.variants import update  # noqa: E402


def factory(variant, compiled):
    "Our transformation as `conformance` takes it"
    def make(w, lr, etas, step_sizes):
        method = rprop(variant, lr, etas, step_sizes)
        held, move = [method.init(w)], jax.jit(method.update) if compiled else method.update

        def step(w, g, error):
            moves, held[0] = move(jnp.asarray(g), held[0], value=error)
            return optax.apply_updates(jnp.asarray(w), moves)
        return step
    return make


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_every_golden_trace(variant, dtype):
    small = float(np.finfo(dtype).tiny)
    with jax.enable_x64(dtype == 'float64'):
        left_out = []
        for trace in traces(dtype):
            if any(0 < abs(g) < small for g in trace.gradients):  # XLA takes subnormal numbers for zero
                left_out.append(trace.name)
                continue
            walked = run(factory(variant, len(trace.gradients) < 10
                                 and trace.name in ('golden', 'error not finite')), trace)
            assert not walked.refused and not walked.wrote
            assert np.array_equal(walked.weights, trace.variants[variant]['weights'],
                                  equal_nan=True), trace.name
        assert len(left_out) < len(traces(dtype)) / 5


@pytest.mark.parametrize('variant', VARIANTS)
def test_a_tree_under_jit_and_scan_is_the_readable_form_on_each_array(variant):
    random = np.random.default_rng(0)
    shapes = {'a': (3, 2), 'b': [(4,), ()], 'none': None}
    tree = jax.tree.map(lambda s: random.normal(size=s).astype('float32'), shapes,
                        is_leaf=lambda s: isinstance(s, tuple))
    grads = jax.tree.map(lambda w: random.normal(size=(30, *w.shape)).astype('float32'), tree)
    values = random.normal(size=30).astype('float32')
    values[7] = np.nan
    method = rprop(variant, lr=0.1)

    def one(carry, now):
        params, state = carry
        moves, state = method.update(now[0], state, params, value=now[1])
        return (optax.apply_updates(params, moves), state), moves
    (last, state), moves = jax.jit(lambda w: jax.lax.scan(one, (w, method.init(w)), (grads, values)))(tree)
    for w, gs, found, after in zip(*map(jax.tree.leaves, (tree, grads, moves, last))):
        memory = init(w, 0.1)
        for k in range(30):
            dw, memory = update(gs[k], memory, variant=variant, loss=float(values[k]))
            assert np.array_equal(dw, found[k]), k
            w = w + dw
        assert np.array_equal(w, after)
    assert jax.tree.structure(state.sign) == jax.tree.structure(tree)


def test_many_starts_at_once():
    method = rprop(lr=0.5)

    def walk(w, gs):
        state = method.init(w)
        for g in gs:
            dw, state = method.update(g, state)
            w = w + dw
        return w
    starts, alone = jnp.arange(3.0), jax.jit(walk)
    gs = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)), 'float32')
    assert jnp.array_equal(jax.jit(jax.vmap(walk))(starts, gs),
                           jnp.stack([alone(w, g) for w, g in zip(starts, gs)]))


def test_updates_are_pure():
    method, w = rprop('irprop+'), {'w': jnp.ones(3)}
    state = method.init(w)
    _, after = method.update({'w': jnp.ones(3)}, state, value=1.0)
    assert (float(state.loss) == np.inf and float(after.loss) == 1.0 and not state.sign['w'].any()
            and after.sign['w'].all())
    again, _ = method.update({'w': jnp.ones(3)}, state, value=1.0)
    assert jnp.array_equal(again['w'], -jnp.full(3, .01, 'float32')) and isinstance(after, RpropState)


def test_in_a_chain_with_what_optax_passes_on():
    method = optax.chain(optax.scale(100.0), rprop('irprop+', lr=0.1))
    w = jnp.array([1.0, -1.0])
    moves, _ = method.update(w, method.init(w), w, value=2.0, grad=w, value_fn=None)
    assert jnp.allclose(moves, jnp.array([-.1, .1]))  # float32


def test_half_types_have_wide_steps_and_an_empty_tree_moves_nothing():
    w = jnp.zeros(2, jnp.bfloat16)
    method = rprop(lr=0.01)
    moves, state = method.update(w + 1, method.init(w))
    assert state.step.dtype == jnp.float32 and optax.apply_updates(w, moves).dtype == jnp.bfloat16
    assert method.update({}, method.init({}))[0] == {}


def test_refusals():
    for settings, said in ((dict(variant='adam'), 'adam'), (dict(lr=-1), 'lr=-1'),
                           (dict(etas=(2, 3)), r'\(2, 3\)'), (dict(step_sizes=(1, 0)), r'\(1, 0\)')):
        with pytest.raises(ValueError, match=said):
            rprop(**settings)
    method, w = rprop('irprop+'), jnp.ones(2)
    with pytest.raises(ValueError, match='pass value='):
        method.update(w, method.init(w))
    with pytest.raises(ValueError, match=r'shape \(3,\)'):
        method.update(jnp.ones(3), method.init(w), value=1.0)
    with pytest.raises(TypeError, match='complex'):
        method.init(jnp.ones(2, complex))


def test_a_first_value_that_is_not_finite_moves_nothing():
    method, w = rprop('irprop+', lr=0.5), jnp.ones(2)
    moves, state = jax.jit(method.update)(w, method.init(w), value=jnp.nan)
    assert (not moves.any() and float(state.loss) == np.inf and (state.step == .25).all()
            and not state.sign.any())


def test_a_value_of_one_element_is_a_number_and_several_are_refused():
    rule, w = rprop('irprop+', lr=.1), jnp.zeros(())
    state = rule.init(w)
    move, state = rule.update(jnp.ones(()), state, value=jnp.ones(1))
    assert move.shape == state.loss.shape == () and state.loss == 1
    with pytest.raises(TypeError, match='reshape'):
        rule.update(jnp.ones(()), state, value=jnp.ones(2))
