"""The op under everything that stands between a call and its kernel: modes, autocast, compilers, export."""

import os
import warnings

import pytest
import torch
from torch.nn.functional import conv1d as pytorch_conv1d
from torch.overrides import TorchFunctionMode
from torch.testing._internal.optests import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

# (x, weight, bias?, stride, padding, dilation, groups)
CASES = {
    "plain": ((2, 4, 20), (6, 4, 3), True, 1, (0,), 1, 1),
    "strided, padded": ((2, 4, 20), (6, 4, 3), False, 2, (1,), 1, 1),
    "dilated, grouped": ((2, 4, 20), (6, 2, 3), True, 1, (2,), 2, 2),
    "two-sided padding": ((2, 4, 20), (6, 4, 4), True, 1, (1, 2), 1, 1),
    "unbatched": ((4, 20), (6, 4, 3), True, 1, (1,), 1, 1),
    "empty batch": ((0, 4, 20), (6, 4, 3), True, 1, (1,), 1, 1),
}


def make(case, dtype=torch.float32, requires_grad=False):
    x_shape, weight_shape, has_bias, stride, padding, dilation, groups = CASES[case]
    torch.manual_seed(0)
    x, weight, bias = torch.randn(x_shape), torch.randn(weight_shape), torch.randn(weight_shape[0])
    x, weight, bias = (tensor.to(dtype).requires_grad_(requires_grad) for tensor in (x, weight, bias))
    return x, weight, bias if has_bias else None, (stride,), padding, (dilation,), groups


@pytest.mark.parametrize("requires_grad", [False, True], ids=["no grad", "grad"])
@pytest.mark.parametrize("case", CASES)
def test_opcheck(model_new, case, requires_grad):
    arguments = make(case, requires_grad=requires_grad)
    opcheck(model_new._conv1d_ops.conv1d.lists, arguments)
    operands, ((stride,), padding, (dilation,), groups) = arguments[:3], arguments[3:]
    numbers = stride, padding[0], dilation, groups
    opcheck(model_new._conv1d_ops.conv1d.default, (*operands, *numbers), {"pad_right": padding[-1]})
    if len(padding) == 1:
        opcheck(model_new._conv1d_ops.conv1d.default, (*operands, *numbers))
        by_name = (*arguments[:3], (1,), "same", *arguments[5:])
        opcheck(model_new._conv1d_ops.conv1d.padding, by_name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_autocast_casts_what_pytorch_casts(model_new, dtype):
    x, weight, bias, *numbers = make("strided, padded", requires_grad=True)
    bias = torch.randn(6)
    with torch.autocast("cpu", dtype):
        for operand in torch.float32, torch.float64, torch.float16, torch.bfloat16:
            operands = [tensor.to(operand) for tensor in (x, weight, bias)]
            ours = model_new.conv1d(*operands, *numbers)
            theirs = pytorch_conv1d(*operands, *numbers)
            assert ours.dtype == theirs.dtype == (torch.float64 if operand == torch.float64 else dtype)
            torch.testing.assert_close(ours, theirs)
        mixed = model_new.conv1d(x.half(), weight, bias.bfloat16(), *numbers)
        assert mixed.dtype == dtype
        same = model_new.conv1d(x, weight, bias, 1, "same")
        assert same.dtype == dtype
    ours.sum().backward()
    assert x.grad.dtype == torch.float32 and weight.grad.dtype == torch.float32
    with torch.autocast("cpu", dtype), torch.autocast("cpu", enabled=False):
        assert model_new.conv1d(x, weight, bias, *numbers).dtype == torch.float32


def test_autocast_casts_a_weight_once(model_new):
    """Within one autocast region the low-precision copy of a leaf that requires grad is reused."""
    x, weight, bias, *numbers = make("plain")
    weight.requires_grad_()

    class Casts(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += function is torch.ops.aten._to_copy.default and args[0].shape == weight.shape
            return function(*args, **(kwargs or {}))

    with Casts() as casts, torch.autocast("cpu", torch.bfloat16):
        for _ in range(3):
            model_new.conv1d(x, weight, bias, *numbers)
    assert casts.count == 1


def test_inference_mode(model_new):
    arguments = make("plain", requires_grad=True)
    with torch.inference_mode():
        y = model_new.conv1d(*arguments)
        fresh = model_new.conv1d(arguments[0].clone(), *arguments[1:])
    assert y.is_inference() and not y.requires_grad
    torch.testing.assert_close(y, pytorch_conv1d(*arguments).detach())
    torch.testing.assert_close(fresh, y)


@pytest.mark.parametrize("case", [case for case in CASES if case != "two-sided padding"])
def test_meta_tensors(model_new, case):
    arguments = make(case)
    on_meta = [a.to("meta") if isinstance(a, torch.Tensor) else a for a in arguments]
    y, y_meta = pytorch_conv1d(*arguments), model_new.conv1d(*on_meta)
    assert y_meta.is_meta and y_meta.shape == y.shape and y_meta.dtype == y.dtype and y_meta.is_contiguous()


class FunctionLog(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


class Tagged(torch.Tensor):
    """A subclass: what it goes through is Tagged again."""


def test_calls_from_python_are_seen_by_what_watches_them(model_new):
    x, weight, bias, *numbers = make("strided, padded")
    want = pytorch_conv1d(x, weight, bias, *numbers)

    def call(x):
        return model_new.conv1d(x, weight, bias, *numbers)

    with FunctionLog() as log:
        torch.testing.assert_close(call(x), want)
    assert any(model_new._conv1d_ops.name in name for name in log.names), log.names
    assert type(call(x.as_subclass(Tagged))) is Tagged and type(call(x)) is torch.Tensor
    with warnings.catch_warnings(action="ignore"):
        traced = torch.jit.trace(call, x)
    assert f"{model_new._conv1d_ops.name}::conv1d" in str(traced.inlined_graph)
    torch.testing.assert_close(traced(2 * x), pytorch_conv1d(2 * x, weight, bias, *numbers))
    symbolic = torch.fx.symbolic_trace(call)
    torch.testing.assert_close(symbolic(2 * x), traced(2 * x))
    assert any("conv1d" in str(node.target) for node in symbolic.graph.nodes)


def test_one_op_in_a_trace(model_new):
    """A dispatch mode below autograd sees the op itself, whole."""

    class Trace(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    arguments, seen = make("plain", requires_grad=True), []
    with Trace():
        model_new.conv1d(*arguments)
        model_new.conv1d(*arguments[:3], 1, "same")
    assert seen == [model_new._conv1d_ops.conv1d.default] * 2


@pytest.mark.parametrize("case", CASES)
def test_compiled_with_gradients(model_new, case):
    """fullgraph, static shapes: forward and backward as in eager mode."""
    eager = make(case, requires_grad=True)
    compiled = make(case, requires_grad=True)
    op = model_new._conv1d_ops.conv1d.lists
    y = op(*eager)
    y_compiled = torch.compile(op, fullgraph=True, backend="aot_eager")(*compiled)
    assert torch.equal(y, y_compiled)
    y.square().sum().backward()
    y_compiled.square().sum().backward()
    for a, b in zip(eager[:3], compiled[:3]):
        if a is not None:
            torch.testing.assert_close(a.grad, b.grad)


def test_compiled_once_for_every_length(model_new):
    """dynamic=True: other batches and lengths reuse the graph."""
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x, weight: model_new.conv1d(x, weight, None, 2, 1) + model_new.conv1d(x, weight, None, 2, 1),
        fullgraph=True,
        dynamic=True,
        backend=counter,
    )
    weight = torch.randn(6, 4, 3, requires_grad=True)
    for N, L in (2, 20), (3, 31), (5, 64), (7, 333):
        x = torch.randn(N, 4, L)
        torch.testing.assert_close(compiled(x, weight), 2 * pytorch_conv1d(x, weight, None, 2, 1))
    assert counter.frame_count == 1


def test_compiled_by_inductor(model_new):
    """The default backend, with the convolution between operations that fuse."""
    arguments = make("dilated, grouped", requires_grad=True)
    f = lambda *a: model_new.conv1d(a[0].sin(), *a[1:]).relu()
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(f, fullgraph=True)(*arguments), f(*arguments))


def test_compiled_autograd(model_new):
    arguments = make("two-sided padding", requires_grad=True)
    expected = torch.autograd.grad(model_new._conv1d_ops.conv1d.lists(*arguments).sum(), arguments[:3])
    torch._dynamo.reset()
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager", fullgraph=True)):
        model_new._conv1d_ops.conv1d.lists(*arguments).sum().backward()
    for tensor, grad in zip(arguments, expected):
        torch.testing.assert_close(tensor.grad, grad)


def module(model_new):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        model_new.Conv1d(4, 6, 3, padding=1), torch.nn.ReLU(), model_new.Conv1d(6, 2, 5, 2)
    )


def lengths():
    return {0: torch.export.Dim("batch", min=1, max=64), 2: torch.export.Dim("length", min=16, max=4096)}


def test_exported_for_every_length(model_new):
    model = module(model_new)
    program = torch.export.export(model, (torch.randn(2, 4, 40),), dynamic_shapes=(lengths(),))
    ops = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert ops.count(model_new._conv1d_ops.conv1d.default) == 2
    for N, L in (1, 16), (3, 97):
        x = torch.randn(N, 4, L)
        torch.testing.assert_close(program.module()(x), model(x))


def test_compiled_ahead_of_time(model_new, tmp_path):
    """AOTInductor: a package that finds the op by its name when it is loaded."""
    model = module(model_new)
    program = torch.export.export(model, (torch.randn(2, 4, 40),), dynamic_shapes=(lengths(),))
    path = torch._inductor.aoti_compile_and_package(program, package_path=os.fspath(tmp_path / "model.pt2"))
    loaded = torch._inductor.aoti_load_package(path)
    for N, L in (2, 40), (3, 97):
        x = torch.randn(N, 4, L)
        torch.testing.assert_close(loaded(x), model(x))


def test_route_names(model_new):
    x, weight, bias, *numbers = make("plain")
    ops = model_new._conv1d_ops
    for dtype in torch.float32, torch.float64, torch.float16, torch.bfloat16:
        assert ops.route(x.to(dtype), weight.to(dtype), bias.to(dtype), *numbers) == "cpu"
    for dtype in torch.int64, torch.complex64, torch.int8:
        assert ops.route(x.to(dtype), weight.to(dtype), bias.to(dtype), *numbers) == "pytorch"
    assert ops.route(x[:0], weight, bias, *numbers) == "pytorch"
    assert ops.route(x.to("meta"), weight.to("meta"), None, *numbers) == "pytorch"
    assert "cpu" not in ops.routes() and "pytorch" not in ops.routes()
