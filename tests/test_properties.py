"""What must hold for any gradients at all: Hypothesis looks for a counterexample, the same way every time."""
import copy
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rprop_lit.optim import Parameter, Rprop
from rprop_lit.rule import init
from rprop_lit.variants import VARIANTS, update

few = settings(derandomize=True, max_examples=100, deadline=None, database=None)
ODD = [0.0, -0.0, math.nan, math.inf, -math.inf, 1e-30, -1e-30, 1e30]


class Case:
    "Gradients (step by weight), errors, weights and settings"
    def __init__(self, gradients, errors, w, lr, etas, step_sizes):
        self.gradients, self.errors, self.w, self.lr = gradients, errors, w, lr
        self.settings = {'etas': etas, 'step_sizes': step_sizes}

    def __repr__(self):
        return f'Case({self.gradients!r}, errors={self.errors}, w={self.w!r}, lr={self.lr}, {self.settings})'


@st.composite
def cases(draw, dtypes=('float32', 'float64'), least=1):
    "Streams that flip often; a few odd numbers; bounds that are reached"
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(st.integers(1, 12)), draw(st.integers(least, 6))
    size = st.floats(2**-10, 2**10, width=16)
    number = st.one_of(size, size.map(lambda x: -x), st.sampled_from(ODD if dtype != 'float16' else ODD[:5]))
    gradients = draw(hnp.arrays(dtype, shape, elements=number, fill=st.nothing()))
    errors = [draw(st.floats(-8, 8))] + draw(st.lists(st.one_of(st.floats(-8, 8),
                                                                st.sampled_from([math.nan, math.inf])),
                                                      min_size=shape[0] - 1, max_size=shape[0] - 1))
    w = draw(hnp.arrays(dtype, shape[1:], elements=st.floats(-4, 4, width=16), fill=st.nothing()))
    etas = draw(st.sampled_from([(0.5, 1.2), (0.3, 1.7), (0.5, 3.0), (0.9, 1.01)]))
    bounds = draw(st.sampled_from([(1e-6, 50.0), (0.0, math.inf), (0.05, 0.2), (1e-3, 1.0)]))
    return Case(gradients, errors, w, draw(st.sampled_from([0.1, 1.0, 1e-8, 1e3])), etas, bounds)


variants = st.sampled_from(list(VARIANTS))
some = given(case=cases(), variant=variants)


def follow(case, variant, gradients=None):
    "Moves and states, step by step"
    state = init(case.w, case.lr)
    for g, error in zip(case.gradients if gradients is None else gradients, case.errors):
        dw, state = update(g, state, variant=variant, loss=error, **case.settings)
        yield dw, state


def same(one, other):
    "Are two walks the same in every move, sign and step?"
    return all(np.array_equal(a, b) and np.array_equal(s.sign, t.sign) and np.array_equal(s.step, t.step)
               and s.loss == t.loss
               for (a, s), (b, t) in zip(one, other, strict=True))


@few
@given(case=cases(), variant=variants, data=st.data())
def test_the_scale_of_a_gradient_changes_nothing(case, variant, data):
    factors = data.draw(hnp.arrays(case.gradients.dtype, case.gradients.shape,
                                   elements=st.floats(2**-40, 2**40, width=32), fill=st.nothing()))
    with np.errstate(all='ignore'):
        scaled = case.gradients * factors
    usable = (np.sign(scaled) == np.sign(case.gradients)) & (np.isinf(scaled) == np.isinf(case.gradients))
    assert same(follow(case, variant), follow(case, variant, np.where(usable, scaled, case.gradients)))


@few
@some
def test_only_the_sign_of_a_gradient_counts(case, variant):
    signs = np.sign(np.nan_to_num(case.gradients)).astype(case.gradients.dtype)
    assert same(follow(case, variant), follow(case, variant, signs))


@few
@given(case=cases(), variant=variants, data=st.data())
def test_the_order_of_the_weights_changes_nothing(case, variant, data):
    order = data.draw(st.permutations(range(case.w.size)))
    for (a, s), (b, t) in zip(follow(case, variant), follow(case, variant, case.gradients[:, order])):
        assert (np.array_equal(a[order], b) and np.array_equal(s.sign[order], t.sign)
                and np.array_equal(s.step[order], t.step))


@few
@some
def test_the_mirror_image_walks_as_a_mirror_image(case, variant):
    for (a, s), (b, t) in zip(follow(case, variant), follow(case, variant, -case.gradients)):
        assert np.array_equal(a, -b) and np.array_equal(s.sign, -t.sign) and np.array_equal(s.step, t.step)


@few
@some
def test_steps_stay_inside_the_bounds(case, variant):
    T = np.float64 if case.w.dtype == np.float64 else np.float32
    lo, hi = (T(min(b, np.finfo(T).max)) for b in case.settings['step_sizes'])
    for _, state in follow(case, variant):
        assert (state.step.dtype == T and (state.step >= lo).all() and (state.step <= hi).all()
                and np.isfinite(state.step).all())
        assert set(state.sign.tolist()) <= {-1, 0, 1}


@few
@some
def test_a_move_is_nothing_or_the_step_or_the_last_move_back(case, variant):
    before = np.zeros_like(init(case.w, case.lr).step)
    for g, (dw, state) in zip(case.gradients, follow(case, variant)):
        s = np.sign(np.nan_to_num(g)).astype(dw.dtype)
        back = (dw == -before) & (VARIANTS[variant].undo != 'never')
        assert ((dw == 0) | (dw == -s * state.step) | back).all()
        before = dw


def optimizer(case, variant, w):
    p = Parameter(w)
    return p, Rprop([p], case.lr, variant=variant, **case.settings)


@few
@given(case=cases(('float16', 'float32', 'float64')), variant=variants)
def test_the_weight_is_the_old_one_plus_the_move_rounded_once(case, variant):
    p, rprop = optimizer(case, variant, case.w.copy())
    for g, error, (dw, _) in zip(case.gradients, case.errors, follow(case, variant)):
        old, p.grad = p.data.copy(), g
        rprop.step(loss=error)
        if case.w.dtype == np.float16:  # the sum is made in float32, the type of the move
            want = (old.astype(np.float32) + dw).astype(np.float16)
        else:  # exact, then rounded; a float64 between is wide enough not to round a float32 twice
            want = np.array([float(Fraction(float(a)) + Fraction(float(b)))
                             for a, b in zip(old, dw)]).astype(case.w.dtype)
        assert np.array_equal(p.data, want)


@few
@given(case=cases(('float16', 'float32', 'float64')), variant=variants, data=st.data())
def test_one_array_or_many_is_the_same(case, variant, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, case.w.size), max_size=4)))
    whole, rprop = optimizer(case, variant, case.w.copy())
    parts = [Parameter(piece.copy()) for piece in np.split(case.w, cuts)]
    many = Rprop(parts, case.lr, variant=variant, **case.settings)
    for g, error in zip(case.gradients, case.errors):
        whole.grad = g
        for part, piece in zip(parts, np.split(g, cuts)):
            part.grad = piece.copy()
        rprop.step(loss=error), many.step(loss=error)
        assert np.array_equal(whole.data, np.concatenate([part.data for part in parts]), equal_nan=True)


@few
@given(case=cases(('float16', 'float32', 'float64')), variant=variants, data=st.data())
@pytest.mark.parametrize('way', ['state_dict', 'file', 'copy'])
def test_saving_at_any_point_changes_nothing(way, case, variant, data, tmp_path_factory):
    stop = data.draw(st.integers(0, len(case.errors)))
    p, rprop = optimizer(case, variant, case.w.copy())
    for i, (g, error) in enumerate(zip(case.gradients, case.errors)):
        if i == stop:
            if way == 'copy':
                (q, other) = copy.deepcopy((p, rprop))
            else:
                q, other = optimizer(case, variant, p.data.copy())
            if way == 'file':
                path = tmp_path_factory.mktemp('state') / 'rprop.npz'
                rprop.save(path), other.load(path)
            if way == 'state_dict':
                other.load_state_dict(rprop.state_dict())
        p.grad = g
        rprop.step(loss=error)
        if i >= stop:
            q.grad = g
            other.step(loss=error)
            assert np.array_equal(p.data, q.data)


@few
@some
def test_nothing_that_was_handed_in_is_written_to(case, variant):
    p, rprop = optimizer(case, variant, case.w.copy())
    for g, error in zip(case.gradients, case.errors):
        mine, p.grad = g.copy(), g
        rprop.step(loss=error)
        assert np.array_equal(g, mine, equal_nan=True)
    state = init(case.w, case.lr)
    kept = state.sign.copy(), state.step.copy()
    update(case.gradients[0], state, variant=variant, loss=case.errors[0], **case.settings)
    assert np.array_equal(state.sign, kept[0]) and np.array_equal(state.step, kept[1])
