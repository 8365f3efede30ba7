"""PyTorch's own test data for conv1d: the samples and error inputs of its operator and module databases."""

import pytest
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

CONV1D = next(op for op in op_db if op.name == "nn.functional.conv1d")
MODULE = next(info for info in module_db if info.module_cls is torch.nn.Conv1d)
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.int64]

named = lambda dtype: str(dtype)[6:]


def assert_close(ours, theirs):
    """Both sum in at least float32, in another order: the default tolerances, as in PyTorch's own tests."""
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES, ids=named)
def test_operator_samples(model_new, dtype):
    samples = list(CONV1D.sample_inputs("cpu", dtype))
    assert samples
    for sample in samples:
        theirs = CONV1D.op(sample.input, *sample.args, **sample.kwargs)
        assert_close(model_new.conv1d(sample.input, *sample.args, **sample.kwargs), theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=named)
def test_operator_sample_gradients(model_new, dtype):
    for sample in CONV1D.sample_inputs("cpu", dtype, requires_grad=True):
        leaves = [tensor for tensor in (sample.input, *sample.args) if isinstance(tensor, torch.Tensor)]
        theirs = CONV1D.op(sample.input, *sample.args, **sample.kwargs)
        ours = model_new.conv1d(sample.input, *sample.args, **sample.kwargs)
        y_grad = torch.randn_like(theirs)
        for a, b in zip(
            torch.autograd.grad(ours, leaves, y_grad), torch.autograd.grad(theirs, leaves, y_grad)
        ):
            assert_close(a, b)


def test_float_samples_run_on_our_kernels(model_new):
    """Only empty samples may go to PyTorch."""
    for dtype in DTYPES[:4]:
        for sample in CONV1D.sample_inputs("cpu", dtype):
            names = ("stride", "padding", "dilation")
            numbers = [sample.kwargs.get(name, default) for name, default in zip(names, (1, 0, 1))]
            if isinstance(numbers[1], str):
                continue
            lists = [number if isinstance(number, tuple) else (number,) for number in numbers]
            weight, bias = (*sample.args, None)[:2]
            route = model_new._conv1d_ops.route(
                sample.input, weight, bias, *lists, sample.kwargs.get("groups", 1)
            )
            assert route == ("cpu" if sample.input.numel() else "pytorch")


def test_operator_error_inputs(model_new):
    errors = list(CONV1D.error_inputs("cpu"))
    assert errors
    for error in errors:
        sample = error.sample_input
        with pytest.raises(error.error_type, match=error.error_regex) as theirs:
            CONV1D.op(sample.input, *sample.args, **sample.kwargs)
        with pytest.raises(error.error_type) as ours:
            model_new.conv1d(sample.input, *sample.args, **sample.kwargs)
        assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=named)
def test_module_samples(model_new, dtype, training):
    samples = MODULE.module_inputs_func(
        MODULE, device="cpu", dtype=dtype, requires_grad=True, training=training
    )
    assert samples
    for sample in samples:
        made, forward = sample.constructor_input, sample.forward_input
        torch.manual_seed(0)
        theirs = torch.nn.Conv1d(*made.args, **made.kwargs).to(dtype).train(training)
        torch.manual_seed(0)
        ours = model_new.Conv1d(*made.args, **made.kwargs).to(dtype).train(training)
        y, y_theirs = ours(*forward.args, **forward.kwargs), theirs(*forward.args, **forward.kwargs)
        assert_close(y, y_theirs)
        y.sum().backward()
        y_theirs.sum().backward()
        for (name, a), (name_theirs, b) in zip(
            ours.named_parameters(), theirs.named_parameters(), strict=True
        ):
            assert name == name_theirs and torch.equal(a, b)
            assert_close(a.grad, b.grad)
