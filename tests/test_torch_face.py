"""The true optimizer of torch: what torch's schedulers, hooks, scalers,
copies and its own table of inputs ask of it."""
import copy
import io
import pickle
import re
import warnings

import numpy
import pytest
from streams import bits

torch = pytest.importorskip('torch',
                            reason='torch is not installed: the optimizer that is a torch.optim.Optimizer is '
                                   'left out')

from rprop_lit import optim  # noqa: E402
from rprop_lit.torch import Rprop  # noqa: E402

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def start(dtype=torch.float64, shapes=((3, 2), (4,), ()), seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, dtype=dtype, generator=random).requires_grad_() for shape in shapes]


def walk(optimizer, params, length=40, seed=1, **how):
    "Step by gradients that flip, vanish and are missing now and then"
    random = torch.Generator().manual_seed(seed)
    for k in range(length):
        for i, p in enumerate(params):
            g = torch.randn(p.shape, dtype=p.dtype, generator=random) + (1 - 2 * (k // 6 % 2))
            p.grad = (None if (k + i) % 9 == 8
                      else torch.where(torch.rand(p.shape, generator=random) < .1, 0 * g, g))
        optimizer.step(**how)


def values(params):
    return [bits(torch.view_as_real(p.detach()).numpy() if p.is_complex() else p.detach().numpy())
            for p in params]


def pair(dtype=torch.float64, **settings):
    "Ours and torch's, from the same start"
    one, two = start(dtype), start(dtype)
    return Rprop(one, **settings), one, torch.optim.Rprop(two, **settings), two


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('settings', [{}, dict(lr=3.0), dict(etas=(.3, 1.7)), dict(step_sizes=(1e-3, .02)),
                                      dict(maximize=True), dict(foreach=True), dict(foreach=False)], ids=str)
def test_equal_to_torch_bit_for_bit(dtype, settings):
    ours, one, theirs, two = pair(dtype, **settings)
    walk(ours, one, 200)
    walk(theirs, two, 200)
    assert values(one) == values(two) != values(start(dtype))
    assert ([bits(m['step_size'].numpy()) for m in ours.state_dict()['state'].values()]
            == [bits(m['step_size'].numpy()) for m in theirs.state_dict()['state'].values()])


@pytest.mark.parametrize('variant', ['rprop-', 'irprop-', 'rprop+', 'irprop+'])
def test_a_step_is_one_of_our_own_class(variant):
    losses = [3.0, 2.0, 2.5, 1.0, 4.0] * 8
    one, two = start(), start()
    ours, plain = Rprop(one, variant=variant), optim.Rprop(two, variant=variant)
    for k, loss in enumerate(losses):
        walk(ours, one, 1, seed=k, loss=loss)
        walk(plain, two, 1, seed=k, loss=loss)
        assert values(one) == values(two)
    assert (ours.param_groups[0]['loss'] == plain.param_groups[0]['loss']
            == (4.0 if variant == 'irprop+' else float('inf')))


# torch's own table

def table():
    pytest.importorskip('expecttest',
                        reason='expecttest is not installed: the table of inputs in torch.testing is '
                               'left out')
    from torch.testing._internal import common_optimizers
    return common_optimizers


def test_every_row_of_torchs_table_of_inputs():
    rows = table().optim_inputs_func_rprop('cpu')
    assert len(rows) >= 5
    for row in rows:
        ours, one, theirs, two = pair(**row.kwargs)
        walk(ours, one)
        walk(theirs, two)
        assert values(one) == values(two), row.desc
        assert set(theirs.param_groups[0]) <= set(ours.param_groups[0]), row.desc


def test_every_row_of_torchs_table_of_errors():
    rows = table().optim_error_inputs_func_rprop('cpu', torch.float64)
    assert len(rows) >= 7
    for row in rows:
        given, wanted = row.optimizer_error_input, row.error_type
        params = start(shapes=((2, 3),)) if given.params is None else given.params
        with warnings.catch_warnings(record=True) as heard, pytest.raises((TypeError, ValueError)) as error:
            warnings.simplefilter('always')
            Rprop(params, **given.kwargs)
        if wanted is UserWarning:  # torch warns that this will be an error; here it is one
            assert re.search(row.error_regex, str(heard[0].message)) and 'twice' in str(error.value)
        else:
            assert error.type is wanted, given.desc
            # the messages are torch's, but for those about settings, which are ours and name the value
            assert (re.search(row.error_regex, str(error.value)) or 'lr' in str(error.value)
                    or '(1.0, 0.5)' in str(error.value)), given.desc


# What torch's world asks for

def test_schedulers_run_and_change_nothing():
    ours, one, theirs, two = pair()
    for optimizer, params in ((ours, one), (theirs, two)):
        schedulers = (torch.optim.lr_scheduler.StepLR(optimizer, 5),
                      torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1 + k))
        for k in range(30):
            walk(optimizer, params, 1, seed=k)
            for scheduler in schedulers:
                scheduler.step()
    assert values(one) == values(two) and ours.param_groups[0]['lr'] == theirs.param_groups[0]['lr'] != 0.01
    plain = start()
    optimizer = Rprop(plain)
    for k in range(30):
        walk(optimizer, plain, 1, seed=k)
    assert values(plain) == values(one)


def test_a_late_first_gradient_takes_the_scheduled_lr():
    w = torch.zeros(2, requires_grad=True)
    optimizer = Rprop([w], lr=1.0)
    optimizer.param_groups[0]['lr'] = 0.25
    w.grad = torch.ones(2)
    optimizer.step()
    assert w.tolist() == [-0.25, -0.25]


def test_settings_that_are_written_into_a_group_are_used_and_checked():
    ours, one, theirs, two = pair()
    for optimizer, params in ((ours, one), (theirs, two)):
        walk(optimizer, params, 5)
        optimizer.param_groups[0].update(etas=(.4, 1.3), step_sizes=(1e-5, .03), maximize=True)
        walk(optimizer, params, 30)
    assert values(one) == values(two)
    ours.param_groups[0]['etas'] = (2, 3)
    before = values(one)
    with pytest.raises(ValueError, match=r'etas=\(2, 3\)'):
        walk(ours, one, 1)
    assert values(one) == before


def test_hooks():
    w, said = torch.ones(2, requires_grad=True), []
    optimizer = Rprop([w])
    optimizer.register_step_pre_hook(lambda o, args, kwargs: said.append(('before', o is optimizer)))
    optimizer.register_step_post_hook(lambda o, args, kwargs: said.append(('after', kwargs)))
    optimizer.register_state_dict_pre_hook(lambda o: said.append('saving'))
    optimizer.register_state_dict_post_hook(lambda o, d: {**d, 'more': sorted(d['state'][0])})
    optimizer.register_load_state_dict_pre_hook(lambda o, d: said.append(d['more']))
    optimizer.register_load_state_dict_post_hook(lambda o: said.append('loaded'))
    w.grad = torch.ones(2)
    optimizer.step(loss=1.0)
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    assert said == [('before', True), ('after', {'loss': 1.0}), 'saving', ['prev', 'step', 'step_size'],
                    'loaded']
    assert optimizer.state_dict()['state'][0]['step'] == 1


@pytest.mark.parametrize('scale', [1.0, 1024.0])
def test_a_scaler_of_gradients(scale):
    w = torch.zeros(3, requires_grad=True)
    optimizer, scaler = Rprop([w], lr=0.1), torch.amp.GradScaler('cpu', init_scale=scale)
    for factor in (1.0, float('inf'), 1.0):
        optimizer.zero_grad()
        scaler.scale((w * torch.tensor([1.0, -1.0, 1.0]) * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    # the step with inf was left out
    assert w.tolist() == pytest.approx([-.22, .22, -.22]) and optimizer.state[w]['step'] == 2


def test_averaged_models():
    torch.manual_seed(0)
    model, x = torch.nn.Linear(2, 1), torch.randn(16, 2)
    optimizer = Rprop(model.parameters())
    averaged, scheduler, seen = (torch.optim.swa_utils.AveragedModel(model),
                                 torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.05), [])
    for _ in range(10):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        averaged.update_parameters(model)
        scheduler.step()
        seen.append(model.weight.detach().clone())
    # a running mean rounds otherwise
    assert torch.allclose(averaged.module.weight, torch.stack(seen).mean(0))


def test_closures_and_losses():
    w = torch.tensor([2.0], requires_grad=True)
    optimizer = Rprop([w], variant='irprop+')

    def closure():
        optimizer.zero_grad()
        loss = (w ** 2).sum()
        loss.backward()
        return loss
    with torch.no_grad():
        assert optimizer.step(closure).item() == 4.0
    with pytest.raises(ValueError, match='loss'):
        optimizer.step()
    with pytest.raises(ValueError, match='both'):
        optimizer.step(closure, loss=1.0)


# States and copies

@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_states_travel_to_torch_and_back(dtype):
    ours, one, theirs, two = pair(dtype, etas=(.4, 1.4))
    for optimizer, params in ((ours, one), (theirs, two)):
        walk(optimizer, params, 20)
    saved, other = copy.deepcopy(theirs.state_dict()), copy.deepcopy(ours.state_dict())
    ours.load_state_dict(saved)
    theirs.load_state_dict(other)
    walk(ours, one, 30, seed=5)
    walk(theirs, two, 30, seed=5)
    assert values(one) == values(two)
    assert ours.param_groups[0]['etas'] == (.4, 1.4) and ours.param_groups[0]['variant'] == 'irprop-'


def test_half_types_keep_their_steps():
    w = torch.zeros(2, dtype=torch.bfloat16, requires_grad=True)
    optimizer = Rprop([w], lr=0.01)
    for _ in range(3):
        w.grad = torch.ones_like(w)
        optimizer.step()
    before = optimizer.state_dict()['state'][0]['step_size'].clone()
    assert before.dtype == torch.float32 and not torch.equal(before, before.bfloat16().float())
    optimizer.load_state_dict(optimizer.state_dict())
    assert torch.equal(optimizer.state[w]['step_size'], before)


COPIES = {'deepcopy': copy.deepcopy, 'pickle': lambda o: pickle.loads(pickle.dumps(o))}


@pytest.mark.parametrize('how', COPIES)
def test_copies_go_on_alone(how):
    one = start()
    optimizer = Rprop(one, variant='irprop+')
    walk(optimizer, one, 10, loss=1.0)
    other = COPIES[how](optimizer)
    copied = other.param_groups[0]['params']
    assert type(other) is Rprop and not set(map(id, copied)) & set(map(id, one))
    before = values(one)
    walk(other, copied, 10, seed=7, loss=2.0)
    assert values(one) == before != values(copied)
    walk(optimizer, one, 10, seed=7, loss=2.0)
    assert values(one) == values(copied)
    torch.optim.lr_scheduler.StepLR(other, 3)  # hooks and steps of a copy are in order
    other.add_param_group({'params': start(seed=9)})
    assert len(other.param_groups) == 2 and len(optimizer.param_groups) == 1


def test_a_state_dict_is_loaded_with_weights_only():
    one = start()
    optimizer = Rprop([dict(params=one[:1], lr=.5), dict(params=one[1:], etas=(.2, 1.5))], variant='irprop+')
    walk(optimizer, one, 10, loss=1.5)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    two = [p.detach().clone().requires_grad_() for p in one]
    fresh = Rprop([dict(params=two[:1]), dict(params=two[1:])])
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert ([g['variant'] for g in fresh.param_groups] == ['irprop+'] * 2
            and fresh.param_groups[0]['loss'] == 1.5)
    walk(optimizer, one, 10, seed=3, loss=1.6)
    walk(fresh, two, 10, seed=3, loss=1.6)
    assert values(one) == values(two)


def test_a_state_that_does_not_fit_changes_nothing():
    one, two = start(), start(shapes=((3, 2), (5,), ()))
    optimizer, other = Rprop(one), Rprop(two, lr=.5)
    walk(optimizer, one)
    walk(other, two)
    before = copy.deepcopy(optimizer.state_dict())
    for wrong in (other.state_dict(), Rprop(start()[:2]).state_dict(), {'state': {}}):
        with pytest.raises((KeyError, ValueError)):
            optimizer.load_state_dict(wrong)
        after = optimizer.state_dict()
        assert (after['param_groups'] == before['param_groups']
                and all(torch.equal(after['state'][i]['step_size'], m['step_size'])
                        for i, m in before['state'].items()))


def test_the_state_is_live():
    w = torch.zeros(2, requires_grad=True)
    optimizer = Rprop([w], lr=0.1)
    assert not optimizer.state.get(w)
    w.grad = torch.ones(2)
    optimizer.step()
    optimizer.state[w]['step_size'].fill_(1.0)
    optimizer.step()
    assert w.tolist() == pytest.approx([-1.3, -1.3])  # float32


# Groups and refusals

def test_groups_that_join_and_groups_that_are_refused():
    one, two = start(), start()
    ours, theirs = Rprop(one[:1]), torch.optim.Rprop(two[:1])
    for optimizer, params in ((ours, one), (theirs, two)):
        walk(optimizer, params[:1], 5)
        optimizer.add_param_group({'params': params[1], 'lr': .3, 'comment': 'torch lets this pass'})
        walk(optimizer, params[:2], 20)
    assert values(one) == values(two)
    for wrong in ({'params': start()[2], 'etas': (2, 3)}, {'params': torch.ones(2, dtype=torch.int64)},
                  {'params': one[:1]}):
        with pytest.raises((TypeError, ValueError)):
            ours.add_param_group(wrong)
        assert len(ours.param_groups) == 2
        walk(ours, one[:2], 1)


def test_names_appear_in_messages():
    one, two = start(shapes=((2,), (2,)))
    optimizer = Rprop([('alpha', one), ('beta', two)])
    assert optimizer.param_groups[0]['param_names'] == ['alpha', 'beta']
    one.grad, two.grad = torch.ones_like(one), torch.ones_like(two).to_sparse()
    before = values([one, two])
    with pytest.raises((RuntimeError, TypeError, ValueError), match='beta'):
        optimizer.step()
    assert values([one, two]) == before


def test_what_is_refused():
    w = torch.ones(2, requires_grad=True)
    for settings, said in ((dict(differentiable=True), 'differentiable=True'), (dict(variant='adam'), 'adam'),
                           (dict(lr=-1.0), 'lr=-1'), (dict(step_sizes=(2, 1)), r'\(2, 1\)')):
        with pytest.raises(ValueError, match=said):
            Rprop([w], **settings)
    assert Rprop([w], capturable=True, foreach=True).param_groups[0]['capturable'] is True


def change(optimizer, event, params, spare):
    "One of the things that people do to the groups of an optimizer of torch"
    groups, late = optimizer.param_groups, spare[-1:]
    if event == 'written, then a group added':
        groups[0]['step_sizes'] = (0, .01)
        optimizer.add_param_group({'params': late, 'lr': .3})
    elif event == 'list of parameters replaced':
        groups[0]['params'] = late
    elif event == 'parameter replaced':
        groups[0]['params'][0] = late[0]
    elif event == 'group deleted':
        del groups[0]
    elif event == 'groups reversed':
        groups.reverse()
    elif event == 'factor written in place':
        groups[0]['etas'][1] = 2.0


EVENTS = ('written, then a group added', 'list of parameters replaced', 'parameter replaced', 'group deleted',
          'groups reversed', 'factor written in place')


@pytest.mark.parametrize('event', EVENTS)
def test_groups_may_be_changed_as_in_torch(event):
    found = []
    for make in (Rprop, torch.optim.Rprop):
        params, spare = start(), start(seed=5)
        optimizer = make([{'params': params[:1], 'lr': .1, 'etas': [.5, 1.2]},
                          {'params': params[1:], 'step_sizes': (1e-3, .02)}])
        walk(optimizer, params + spare, 7)
        change(optimizer, event, params, spare)
        walk(optimizer, params + spare, 20, seed=2)
        if 'deleted' in event:  # a group that comes back finds its memory as it was
            optimizer.param_groups.insert(0, {**optimizer.param_groups[0], 'params': params[:1]})
            walk(optimizer, params + spare, 5, seed=3)
        found.append(values(params + spare))
    assert found[0] == found[1]


def test_a_tensor_lr_that_is_filled_counts_for_a_late_parameter():
    early, late = torch.zeros(1), torch.zeros(1)
    optimizer = Rprop([early, late], lr=torch.tensor(.1))
    early.grad = torch.ones(1)
    optimizer.step()
    optimizer.param_groups[0]['lr'].fill_(.25)
    late.grad = torch.ones(1)
    optimizer.step()
    assert late.item() == -.25


@pytest.mark.parametrize('name, value', [('etas', 'nonsense'), ('etas', (.5, .1)), ('variant', 'none')])
def test_a_wrong_setting_is_still_refused_after_a_group_was_added(name, value):
    w, other = torch.ones(1), torch.ones(1)
    optimizer = Rprop([w])
    optimizer.param_groups[0][name] = value
    optimizer.add_param_group({'params': [other]})
    w.grad = torch.ones(1)
    with pytest.raises(ValueError, match=name):
        optimizer.step()
    assert w.item() == 1


def test_a_dict_that_torch_has_not_seen_is_refused():
    w, other = torch.ones(1), torch.ones(1)
    w.grad, other.grad = torch.ones(1), torch.ones(1)
    optimizer = Rprop([w])
    optimizer.param_groups.append({'params': [other]})
    with pytest.raises(ValueError, match='add_param_group'):
        optimizer.step()
    optimizer.param_groups[1:] = [{**optimizer.param_groups[0], 'params': [other, w]}]
    with pytest.raises(ValueError, match='parameter'):  # the same weights in two groups
        optimizer.step()
    optimizer.param_groups[1:] = [{**optimizer.param_groups[0], 'params': [other], 'param_names': ['a', 'b']}]
    with pytest.raises(ValueError, match='2 param_names'):
        optimizer.step()
    assert w.item() == other.item() == 1


def test_what_cannot_be_added_leaves_the_optimizer_whole():
    w = torch.ones(1)
    optimizer = Rprop([w])
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        optimizer.add_param_group({'params': [torch.ones(2).to_sparse().requires_grad_()]})
    optimizer.add_param_group({'params': [torch.ones(2)]})
    w.grad = torch.ones(1)
    optimizer.step()
    assert w.item() < 1 and len(optimizer.param_groups) == 2


def test_names_stay_with_their_parameters_through_two_loads():
    def run(names, state=None):
        params = dict(a=torch.zeros(1), b=torch.zeros(1))
        optimizer = Rprop([(name, params[name]) for name in names], lr=.1)
        if state:
            optimizer.load_state_dict(state)
            assert optimizer.param_groups[0]['param_names'] == list(names)
        else:
            for k in range(3):
                params['a'].grad, params['b'].grad = torch.ones(1), torch.ones(1) * (-1) ** k
                optimizer.step()
        return ({name: optimizer.state[p]['step_size'].item() for name, p in params.items()},
                copy.deepcopy(optimizer.state_dict()))

    steps, state = run('ba')
    once, again = run('ab', state)
    assert once == steps == run('ab', again)[0] and steps['a'] != steps['b']


def test_a_part_of_a_model_is_loaded_by_name():
    w, extra = torch.zeros(1), torch.zeros(1)
    whole = Rprop([{'params': [('w', w)]}, {'params': [('extra', extra)]}], lr=.2)
    w.grad = extra.grad = torch.ones(1)
    whole.step()
    part = Rprop([('w', torch.zeros(1))])
    with pytest.raises(ValueError, match='groups'):
        part.load_state_dict(whole.state_dict())
    left = part.load_state_dict(whole.state_dict(), strict=False)
    p = part.param_groups[0]['params'][0]
    assert left.unknown == ['extra'] and part.state[p]['step'] == 1 and part.param_groups[0]['lr'] == .01
    part.step()


def test_what_a_closure_writes_counts_at_once():
    w = torch.ones(1, requires_grad=True)
    optimizer = Rprop([w], lr=.1)
    def closure():
        optimizer.param_groups[0]['step_sizes'] = (0, .01)
        w.grad = torch.ones(1)
        return 3.0
    assert optimizer.step(closure) == 3.0 and w.item() == torch.tensor(.99).item()
    with pytest.raises(ValueError, match='both a closure and a loss'):
        optimizer.step(closure, loss=1.0)


def test_a_gradient_that_is_no_number_may_be_an_error():
    w = torch.ones(2)
    optimizer = Rprop([w], nonfinite='raise')
    w.grad = torch.tensor([1.0, float('nan')])
    with pytest.raises(ValueError, match='1 NaN'):
        optimizer.step()
    optimizer.param_groups[0]['nonfinite'] = 'hold'
    optimizer.step()
    assert w.tolist() == [torch.tensor(.99).item(), 1]
    strict = optim.Rprop([w], nonfinite='raise')
    optimizer.load_state_dict(strict.state_dict())
    assert optimizer.param_groups[0]['nonfinite'] == 'raise'


def test_an_array_that_is_written_in_place_counts():
    w, caps = torch.zeros(2), numpy.full(2, 50.0)
    optimizer = Rprop([w], lr=.1, step_sizes=(0, caps))
    w.grad = torch.ones(2)
    optimizer.step()
    caps[1] = .05
    optimizer.step()
    grown, cut = torch.tensor(.1) * 1.2, torch.tensor(.05)
    assert optimizer.state[w]['step_size'].tolist() == [grown.item(), cut.item()]


def test_a_setting_that_counts_no_changes_is_handed_over_each_time():
    with torch.inference_mode():
        lr = torch.tensor(.1)
    early, late = torch.zeros(1), torch.zeros(1)
    optimizer = Rprop([early, late], lr=lr)
    early.grad = torch.ones(1)
    optimizer.step()
    with torch.inference_mode():
        lr.fill_(.25)
    late.grad = torch.ones(1)
    optimizer.step()
    assert late.item() == -.25
