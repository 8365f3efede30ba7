"""Derivatives of every kind, against finite differences and against PyTorch's own convolution."""

import itertools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.nn.functional import conv1d as pytorch_conv1d

# (x, weight, bias?, stride, padding, dilation, groups)
CASES = {
    "plain": ((2, 2, 6), (3, 2, 2), True, 1, (0,), 1, 1),
    "no bias": ((2, 2, 6), (3, 2, 2), False, 1, (1,), 1, 1),
    "strided": ((2, 2, 8), (3, 2, 3), True, 2, (1,), 1, 1),
    "dilated": ((1, 2, 8), (2, 2, 3), True, 1, (2,), 2, 1),
    "grouped": ((1, 4, 4), (4, 2, 2), True, 1, (1,), 1, 2),
    "depthwise": ((2, 3, 5), (3, 1, 3), True, 1, (1,), 1, 3),
    "two-sided padding": ((2, 2, 6), (3, 2, 2), True, 1, (0, 1), 1, 1),
    "two-sided padding, strided": ((2, 2, 7), (3, 2, 3), True, 2, (3, 1), 2, 1),
    "unbatched": ((2, 6), (3, 2, 2), True, 1, (1,), 1, 1),
    "unbatched, two-sided padding": ((2, 6), (3, 2, 2), True, 1, (2, 1), 1, 1),
}


def make(case, requires_grad=True, dtype=torch.float64):
    x_shape, weight_shape, has_bias, stride, padding, dilation, groups = CASES[case]
    torch.manual_seed(0)
    shapes = [x_shape, weight_shape] + [weight_shape[:1]] * has_bias
    tensors = [torch.randn(shape) for shape in shapes]
    tensors = [tensor.to(dtype).requires_grad_(requires_grad) for tensor in tensors]
    return tensors, ((stride,), padding, (dilation,), groups)


def bound_op(model_new, numbers):
    """f(x, weight, bias=None) with the numbers filled in."""
    return lambda x, weight, bias=None: model_new._conv1d_ops.conv1d.lists(x, weight, bias, *numbers)


def pytorch_op(numbers):
    """The same by PyTorch, padding on two sides by zeros of its own."""
    stride, padding, dilation, groups = numbers
    if len(padding) == 1:
        return lambda x, weight, bias=None: pytorch_conv1d(
            x, weight, bias, stride, padding, dilation, groups
        )
    pad = torch.nn.functional.pad
    return lambda x, weight, bias=None: pytorch_conv1d(
        pad(x, padding), weight, bias, stride, 0, dilation, groups
    )


@pytest.mark.parametrize("case", CASES)
def test_first_and_second_derivatives(model_new, case):
    tensors, numbers = make(case)
    op = bound_op(model_new, numbers)
    assert gradcheck(
        op, tensors, check_batched_grad=True, check_forward_ad=True, check_batched_forward_grad=True
    )
    assert gradgradcheck(op, tensors, check_batched_grad=True)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_gradients_where_they_are_asked_for_only(model_new, case, dtype):
    tensors, numbers = make(case, False, dtype)
    for mask in itertools.product([False, True], repeat=len(tensors)):
        ours = [tensor.clone().requires_grad_(wanted) for tensor, wanted in zip(tensors, mask)]
        theirs = [tensor.clone().requires_grad_(wanted) for tensor, wanted in zip(tensors, mask)]
        y, y_theirs = bound_op(model_new, numbers)(*ours), pytorch_op(numbers)(*theirs)
        assert y.requires_grad == any(mask) and (y.grad_fn is not None) == any(mask)
        if not any(mask):
            continue
        y_grad = torch.randn_like(y)
        y.backward(y_grad)
        y_theirs.backward(y_grad)
        for tensor, tensor_theirs, wanted in zip(ours, theirs, mask):
            assert (tensor.grad is not None) == wanted
            # The same backward on the same operands: only the order of its threads may differ.
            torch.testing.assert_close(tensor.grad, tensor_theirs.grad)


def test_undefined_where_the_mask_is_false(model_new):
    """A frozen weight costs no weight gradient: the node hands back nothing for it."""
    (x, weight, bias), numbers = make("plain")
    y = bound_op(model_new, numbers)(x, weight.detach(), bias)
    x_grad, weight_grad, bias_grad = y.grad_fn(torch.ones_like(y))
    assert x_grad is not None and weight_grad is None and bias_grad is not None


def test_no_graph_without_grad_mode(model_new):
    tensors, numbers = make("plain")
    with torch.no_grad():
        y = bound_op(model_new, numbers)(*tensors)
    assert y.grad_fn is None and not y.requires_grad


def test_saved_operand_changed_in_place_is_an_error(model_new):
    tensors, numbers = make("plain")
    y = bound_op(model_new, numbers)(*tensors)
    with torch.no_grad():
        tensors[1].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_graph_can_be_used_twice_when_retained(model_new):
    tensors, numbers = make("plain")
    y = bound_op(model_new, numbers)(*tensors)
    first = torch.autograd.grad(y.sum(), tensors, retain_graph=True)
    second = torch.autograd.grad(y.sum(), tensors)
    assert all(torch.equal(a, b) for a, b in zip(first, second))


@pytest.mark.parametrize("case", CASES)
def test_transforms_agree_with_pytorch(model_new, case):
    tensors, numbers = make(case, requires_grad=False)
    ours, theirs = bound_op(model_new, numbers), pytorch_op(numbers)
    tangents = [torch.randn_like(tensor) for tensor in tensors]
    positions = tuple(range(len(tensors)))
    loss = lambda op: lambda *tensors: op(*tensors).sin().sum()

    def same(transform):
        torch.testing.assert_close(transform(ours), transform(theirs))

    same(lambda op: jvp(op, tuple(tensors), tuple(tangents)))
    same(lambda op: vjp(op, *tensors)[1](torch.ones_like(theirs(*tensors))))
    same(lambda op: grad(loss(op), positions)(*tensors))
    same(lambda op: jacrev(op, positions)(*tensors))
    same(lambda op: jacfwd(op, positions)(*tensors))
    same(lambda op: hessian(loss(op), positions)(*tensors))


@pytest.mark.parametrize("in_dims", [(0, None), (None, 0), (0, 0), (2, 1)])
def test_vmap(model_new, in_dims):
    torch.manual_seed(0)
    shapes = [[2, 4, 9], [6, 2, 3]]
    for shape, dim in zip(shapes, in_dims):
        if dim is not None:
            shape.insert(dim, 5)
    x, weight = (torch.randn(shape) for shape in shapes)
    ours = vmap(lambda x, weight: model_new.conv1d(x, weight, None, 2, 1, 1, 2), in_dims)(x, weight)
    theirs = vmap(lambda x, weight: pytorch_conv1d(x, weight, None, 2, 1, 1, 2), in_dims)(x, weight)
    torch.testing.assert_close(ours, theirs)


def test_gradients_of_each_sample(model_new):
    """The usual recipe: vmap over grad over functional_call."""
    torch.manual_seed(0)
    module = model_new.Conv1d(2, 3, 3, padding=1)
    x = torch.randn(4, 2, 8)
    parameters = dict(module.named_parameters())
    loss = lambda parameters, x: functional_call(module, parameters, (x,)).square().sum()
    each = vmap(grad(loss), (None, 0))(parameters, x)
    for n in range(4):
        alone = torch.autograd.grad(module(x[n]).square().sum(), tuple(parameters.values()))
        for one, name in zip(alone, parameters):
            torch.testing.assert_close(each[name][n], one)


def test_outer_graph_through_an_inner_transform(model_new):
    """A transform over x while the weight requires grad in the ordinary way, outside of it."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 2, 8), torch.randn(3, 2, 3, requires_grad=True)

    def weight_grad(op):
        x_grad = grad(lambda x: op(x, weight).square().sum())(x)
        return torch.autograd.grad(x_grad.sum(), weight)[0]

    torch.testing.assert_close(weight_grad(model_new.conv1d), weight_grad(pytorch_conv1d))


def test_forward_mode_tangents(model_new):
    """Dual numbers outside functorch: the tangent must be right, with and without grad mode."""
    (x, weight, bias), numbers = make("two-sided padding", requires_grad=False)
    forward = torch.autograd.forward_ad
    x_tangent, weight_tangent = torch.randn_like(x), torch.randn_like(weight)
    ours, theirs = bound_op(model_new, numbers), pytorch_op(numbers)
    for enabled in True, False:
        with forward.dual_level(), torch.set_grad_enabled(enabled):
            duals = forward.make_dual(x, x_tangent), forward.make_dual(weight, weight_tangent), bias
            value, tangent = forward.unpack_dual(ours(*duals))
            value_theirs, tangent_theirs = forward.unpack_dual(theirs(*duals))
        torch.testing.assert_close(value, value_theirs)
        torch.testing.assert_close(tangent, tangent_theirs)


def test_complex_gradients(model_new):
    (x, weight, bias), numbers = make("strided", dtype=torch.complex128)
    assert gradcheck(bound_op(model_new, numbers), (x, weight, bias))
