"""activation= gives what torch's function of that name gives on the convolution, whatever calls it."""

import copy
import inspect
import pickle

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jvp, vmap
from torch.testing._internal.optests import opcheck

from test_autograd import CASES, make

SEPARATE = {
    None: lambda y: y,
    "relu": torch.nn.functional.relu,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
}
NAMES = [name for name in SEPARATE if name]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
BAD = ["tanh", "ReLU", "", 3, torch.nn.ReLU()]


def fused_op(model_new, numbers, name):
    return lambda x, weight, bias=None: model_new._conv1d_ops.conv1d.lists(x, weight, bias, *numbers, name)


def separate_op(model_new, numbers, name):
    return lambda *operands: SEPARATE[name](fused_op(model_new, numbers, None)(*operands))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_values(model_new, name, case, dtype):
    tensors, numbers = make(case, False, dtype)
    fused = fused_op(model_new, numbers, name)(*tensors)
    assert torch.equal(fused, separate_op(model_new, numbers, name)(*tensors))
    x, weight, bias = (*tensors, None)[:3]
    assert torch.equal(fused, model_new._conv1d_ops.conv1d_by("cpu", x, weight, bias, *numbers, name))


@pytest.mark.parametrize("padding", [1, (1,), "same", "valid"])
@pytest.mark.parametrize("name", SEPARATE)
def test_function_and_module(model_new, name, padding):
    layer = model_new.Conv1d(4, 6, 4, padding=padding, activation=name)
    x = torch.randn(2, 4, 19)
    with torch.no_grad():
        plain = model_new.conv1d(x, layer.weight, layer.bias, padding=padding)
        assert torch.equal(layer(x), SEPARATE[name](plain))
        fused = model_new.conv1d(x, layer.weight, layer.bias, padding=padding, activation=name)
        assert torch.equal(fused, SEPARATE[name](plain))


@pytest.mark.parametrize("mode", ["reflect", "circular"])
def test_padding_modes(model_new, mode):
    layer = model_new.Conv1d(4, 6, 4, padding=2, padding_mode=mode, activation="relu")
    x = torch.randn(2, 4, 19)
    y = layer(x)
    layer.activation = None
    assert torch.equal(y, layer(x).relu())


@pytest.mark.parametrize("name", NAMES)
def test_nan_and_infinities(model_new, name):
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-30, -1e30]).view(1, 1, -1)
    weight = torch.ones(1, 1, 1)
    fused = model_new.conv1d(x, weight, activation=name)
    torch.testing.assert_close(fused, SEPARATE[name](x), rtol=0, atol=0, equal_nan=True)
    assert fused[0, 0, 0].isnan()


@pytest.mark.parametrize("name", NAMES)
def test_calls_that_are_delegated(model_new, name):
    for shape in (0, 4, 9), (2, 4, 9):
        x, weight = torch.randn(shape), torch.randn(6, 4, 3)
        assert model_new.conv1d(x, weight, activation=name).shape == (shape[0], 6, 7)
    y = model_new.conv1d(x.to("meta"), weight.to("meta"), activation=name)
    assert y.is_meta and y.shape == (2, 6, 7)
    x, weight = torch.arange(-8, 8).view(1, 2, 8), torch.ones(1, 2, 1, dtype=torch.int64)
    if name == "relu":  # the others know no integers
        assert torch.equal(model_new.conv1d(x, weight, activation=name), x.sum(1, keepdim=True).relu())
    with pytest.raises(RuntimeError, match="expected input"):  # PyTorch's own words
        model_new.conv1d(torch.randn(2, 5, 9), torch.randn(6, 4, 3), activation=name)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_first_and_second_derivatives(model_new, name, case):
    tensors, numbers = make(case)
    op = fused_op(model_new, numbers, name)
    assert gradcheck(op, tensors, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(op, tensors)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_where_they_are_asked_for_only(model_new, name):
    tensors, numbers = make("plain", False)
    for which in range(len(tensors)):
        leaves = [t.clone().requires_grad_(i == which) for i, t in enumerate(tensors)]
        y = fused_op(model_new, numbers, name)(*leaves)
        expected = separate_op(model_new, numbers, name)(*leaves)
        assert y.requires_grad
        torch.testing.assert_close(y, expected)
        ours, theirs = (torch.autograd.grad(out.sum(), leaves[which])[0] for out in (y, expected))
        torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        assert not fused_op(model_new, numbers, name)(*leaves).requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_transforms(model_new, name):
    tensors, numbers = make("strided", requires_grad=False)
    ours, theirs = fused_op(model_new, numbers, name), separate_op(model_new, numbers, name)
    tangents = tuple(torch.randn_like(tensor) for tensor in tensors)
    for transform in (
        lambda op: jvp(op, tuple(tensors), tangents),
        lambda op: grad(lambda *t: op(*t).sin().sum(), (0, 1, 2))(*tensors),
        lambda op: vmap(op, (0, None, None))(tensors[0].expand(3, *tensors[0].shape), *tensors[1:]),
        lambda op: vmap(op, (None, 0, 0))(tensors[0], *(t.expand(3, *t.shape) for t in tensors[1:])),
    ):
        torch.testing.assert_close(transform(ours), transform(theirs))


@pytest.mark.parametrize("requires_grad", [False, True], ids=["no grad", "grad"])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(model_new, name, requires_grad):
    for case in "plain", "two-sided padding, strided", "unbatched":
        tensors, numbers = make(case, requires_grad, torch.float32)
        opcheck(model_new._conv1d_ops.conv1d.lists, (*tensors, *numbers, name))
        (stride,), padding, (dilation,), groups = numbers
        numbers = stride, padding[0], dilation, groups, name, padding[-1]
        opcheck(model_new._conv1d_ops.conv1d.default, (*tensors, *numbers))
    opcheck(model_new._conv1d_ops.conv1d.padding, (*tensors, (1,), "same", (1,), 1, name))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_autocast(model_new, name, dtype):
    layer, x = model_new.Conv1d(4, 6, 3, activation=name), torch.randn(2, 4, 19)
    plain = model_new.Conv1d(4, 6, 3)
    plain.load_state_dict(layer.state_dict())
    with torch.autocast("cpu", dtype):
        for context in torch.no_grad(), torch.enable_grad():
            with context:
                y = layer(x)
                assert y.dtype == dtype
                torch.testing.assert_close(y, SEPARATE[name](plain(x)))
        y.sum().backward()
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("training", [False, True], ids=["no grad", "grad"])
@pytest.mark.parametrize("name", NAMES)
def test_compiled(model_new, name, training):
    """One graph, for every length; without a gradient one op in it."""
    layer = model_new.Conv1d(4, 6, 3, padding=1, activation=name).requires_grad_(training)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    # Not the layer itself: where the outermost code lies, there torch leaves names of its own.
    compiled = torch.compile(lambda x: layer(x), fullgraph=True, dynamic=True, backend=backend)
    for length in 20, 33, 57:
        x = torch.randn(2, 4, length)
        torch.testing.assert_close(compiled(x), layer(x))
    assert len(graphs) == 1
    torch._dynamo.reset()
    x = torch.randn(2, 4, 21)
    y = torch.compile(lambda x: layer(x), fullgraph=True)(x)
    torch.testing.assert_close(y, layer(x))
    if training:
        got, wanted = (torch.autograd.grad(out.square().sum(), layer.weight)[0] for out in (y, layer(x)))
        torch.testing.assert_close(got, wanted)
    else:
        program = torch.export.export(layer, (x,))
        ops = [node.target for node in program.graph.nodes if node.op == "call_function"]
        assert ops == [model_new._conv1d_ops.conv1d.default]


@pytest.mark.parametrize("bad", BAD, ids=repr)
def test_invalid_names(model_new, bad):
    words = r"activation must be one of \(None, 'relu', 'gelu', 'silu'\), but got activation="
    x, weight = torch.randn(2, 4, 9), torch.randn(6, 4, 3)
    with pytest.raises(ValueError, match=words):
        model_new.conv1d(x, weight, activation=bad)
    with pytest.raises(ValueError, match=words):
        model_new.Conv1d(4, 6, 3, activation=bad)
    if isinstance(bad, str):
        for requires_grad in False, True:
            with pytest.raises(ValueError, match=words + f"'{bad}'"):
                model_new._conv1d_ops.conv1d(x, weight.requires_grad_(requires_grad), activation=bad)


def test_python_and_op_know_the_same_names(model_new):
    assert model_new._conv1d_activations == tuple(SEPARATE)


def test_module_keeps_it(model_new):
    layer = model_new.Conv1d(4, 6, 3, activation="gelu")
    x = torch.randn(2, 4, 9)
    for twin in copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)):
        assert twin.activation == "gelu" and torch.equal(twin(x), layer(x))
    assert repr(layer) == "Conv1d(4, 6, kernel_size=(3,), stride=(1,), activation=gelu)"
    assert repr(model_new.Conv1d(4, 6, 3)) == repr(torch.nn.Conv1d(4, 6, 3))
    assert list(layer.state_dict()) == ["weight", "bias"]
    torch.nn.Conv1d(4, 6, 3).load_state_dict(layer.state_dict(), strict=True)


def test_replaced_layers_have_none(model_new):
    model = model_new.Conv1d.replace(torch.nn.Sequential(torch.nn.Conv1d(4, 6, 3), torch.nn.LazyConv1d(6, 3)))
    model(torch.randn(2, 4, 19))
    assert [layer.activation for layer in model] == [None, None]


def test_signature_is_that_of_nn_conv1d_and_activation_by_name(model_new):
    ours = list(inspect.signature(model_new.Conv1d).parameters.values())
    theirs = list(inspect.signature(torch.nn.Conv1d).parameters.values())
    assert [(p.name, p.default) for p in ours[:-1]] == [(p.name, p.default) for p in theirs]
    assert ours[-1].name == "activation" and ours[-1].kind is inspect.Parameter.KEYWORD_ONLY
    assert torch.nn.utils.skip_init(model_new.Conv1d, 2, 3, 1, activation="silu").activation == "silu"
