"""A call that is not valid raises exactly what torch.nn.functional.conv1d raises for it."""

import re

import numpy as np
import pytest
import torch
from torch.nn.functional import conv1d as pytorch_conv1d

zeros = torch.zeros
X, W, B = zeros(2, 4, 9), zeros(6, 4, 3), zeros(6)
META = torch.device("meta")

# Positional arguments: x, weight, bias, stride, padding, dilation, groups.
BAD = {
    "scalar x": (zeros(()), W),
    "vector x": (zeros(9), W),
    "x of rank 4": (zeros(1, 2, 4, 9), W),
    "weight of rank 1": (X, zeros(3)),
    "weight of rank 2": (X, zeros(6, 4)),
    "weight of rank 4": (X, zeros(6, 4, 3, 1)),
    "channels differ": (zeros(2, 5, 9), W),
    "channels differ, unbatched": (zeros(5, 9), W),
    "channels differ from groups * C": (X, zeros(6, 4, 3), B, 1, 0, 1, 2),
    "groups does not divide the outputs": (X, zeros(5, 2, 3), None, 1, 0, 1, 2),
    "more groups than outputs": (X, zeros(2, 1, 3), None, 1, 0, 1, 4),
    "groups 0": (X, W, B, 1, 0, 1, 0),
    "groups negative": (X, W, B, 1, 0, 1, -1),
    "stride 0": (X, W, B, 0),
    "stride negative": (X, W, B, -1),
    "stride of two entries": (X, W, B, (1, 1)),
    "no stride": (X, W, B, ()),
    "dilation 0": (X, W, B, 1, 0, 0),
    "dilation negative": (X, W, B, 1, 0, -2),
    "dilation of two entries": (X, W, B, 1, 0, (1, 1)),
    "padding negative": (X, W, B, 1, -1),
    "padding of three entries": (X, W, B, 1, (1, 1, 1)),
    "kernel longer than x": (zeros(2, 4, 2), W),
    "kernel longer than padded x": (zeros(2, 4, 2), zeros(6, 4, 9), B, 1, 3),
    "dilated kernel longer than x": (X, W, B, 1, 0, 5),
    "dilation overflows": (X, W, B, 1, 0, 2**62),
    "bias too long": (X, W, zeros(7)),
    "bias of rank 2": (X, W, zeros(6, 1)),
    "bias scalar": (X, W, zeros(())),
    "weight of another dtype": (X, W.double(), B),
    "weight and bias of another dtype": (X, W.double(), B.double()),
    "bias of another dtype": (X, W, B.double()),
    "half x, float weight": (X.half(), W, B),
    "integer x, float weight": (X.long(), W, B),
    "float x, complex weight": (X, W.cfloat(), None),
    "bool": (X.bool(), W.bool(), None),
    "x on another device": (X.to(META), W, B),
    "meta: channels differ": (zeros(2, 5, 9, device=META), W.to(META)),
    "meta: kernel longer than x": (zeros(2, 4, 2, device=META), W.to(META)),
    "no channels": (zeros(2, 0, 9), zeros(6, 0, 3)),
    "no taps": (X, zeros(6, 4, 0)),
    "no positions": (zeros(2, 4, 0), W),
    "padding unknown": (X, W, B, 1, "circular"),
    "padding empty": (X, W, B, 1, ""),
    "same with a stride": (X, W, B, 2, "same"),
    "same with other channels": (zeros(2, 5, 9), W, B, 1, "same"),
    "same, even kernel, other channels": (zeros(2, 5, 9), zeros(6, 4, 4), B, 1, "same"),
    "same with weight of rank 2": (X, zeros(6, 4), B, 1, "same"),
    "same with dilation of two entries": (X, W, B, 1, "same", (1, 1)),
    "same with dilation negative": (X, W, B, 1, "same", -1),
    "same with groups 0": (X, W, B, 1, "same", 1, 0),
    "same, bias of another dtype": (X, W, B.double(), 1, "same"),
    "same, weight of another dtype": (X, W.double(), B, 1, "same"),
    "valid, kernel longer than x": (zeros(2, 4, 2), W, B, 1, "valid"),
    "sparse x": (X.to_sparse(), W, B),
}


def outcome(function, arguments):
    """The exception's type and text, or the result."""
    try:
        return "result", function(*arguments)
    except Exception as error:
        return type(error), str(error)


def assert_same_outcome(model_new, arguments, part=str):
    """The same result as PyTorch's, or the same type of exception with the same `part` of its text."""
    kind, theirs = outcome(pytorch_conv1d, arguments)
    kind_ours, ours = outcome(model_new.conv1d, arguments)
    assert kind_ours == kind
    if kind == "result":  # PyTorch takes it after all: then so do we
        torch.testing.assert_close(ours, theirs)
    else:
        assert part(ours) == part(theirs)


@pytest.mark.parametrize("requires_grad", [False, True], ids=["no grad", "grad"])
@pytest.mark.parametrize("case", BAD)
def test_same_error(model_new, case, requires_grad):
    arguments = BAD[case]
    if requires_grad:
        arguments = [
            a.detach().requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a
            for a in arguments
        ]
    assert_same_outcome(model_new, arguments)


VALUES = True, 2**62, 2.0, None, "2", np.int64(2), np.float32(2), torch.tensor(2), (2,), [2, 2, 2], (2.0,)


@pytest.mark.parametrize("at", range(7), ids=["x", "weight", "bias", "stride", "padding", "dilation", "groups"])
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_arguments_of_every_type_get_torchs_answer(model_new, at, value):
    torch.manual_seed(0)
    arguments = [torch.randn(2, 4, 20), torch.randn(6, 4, 3), torch.randn(6), 2, 1, 1, 1]
    arguments[at] = value
    # What follows lists all signatures that torch has.
    assert_same_outcome(model_new, arguments, lambda text: re.split(r" - got|\n", text)[0])


def test_the_list_holds_errors(model_new):
    """All but a few entries of BAD are errors in PyTorch."""
    taken = [case for case in BAD if outcome(pytorch_conv1d, BAD[case])[0] == "result"]
    assert len(taken) <= 4, taken


@pytest.mark.parametrize("case", BAD)
def test_bad_calls_are_pytorchs(model_new, case):
    """What is not valid takes PyTorch's route."""
    defaults = (None, 1, 0, 1, 1)  # from bias on
    x, weight, bias, stride, padding, dilation, groups = BAD[case] + defaults[len(BAD[case]) - 2 :]
    if isinstance(padding, str):
        return
    lists = [number if isinstance(number, tuple) else (number,) for number in (stride, padding, dilation)]
    assert model_new._conv1d_ops.route(x, weight, bias, *lists, groups) == "pytorch"


def test_conv1d_by_names_what_does_not_fit(model_new):
    by = model_new._conv1d_ops.conv1d_by
    torch.testing.assert_close(by("cpu", X, W, B), pytorch_conv1d(X, W, B))
    with pytest.raises(RuntimeError, match="route 'gemm' does not take this problem"):
        by("gemm", X, W, B)
    with pytest.raises(RuntimeError, match="takes valid floating-point problems only"):
        by("cpu", X.long(), W.long())
