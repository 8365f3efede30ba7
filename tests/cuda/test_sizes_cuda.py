"""Tensors of more elements than 32 bits count. Windows of the result are held against float64."""

import pytest
import torch

from problems import MODES, assert_accurate, run_by, tf32

GIB = 2**30
needs_memory = pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_properties(0).total_memory < 40 * GIB,
    reason="needs a GPU of 40 GiB and more",
)

# (shape of x, shape of weight, groups, stride)
SIZES = {
    "a row of x and y beyond 2^31": ((1, 1, 2**31 + 1001), (1, 1, 3), 1, 1),
    "a row of x beyond 2^31": ((1, 1, 2**31 + 1001), (2, 1, 3), 1, 7),
    "x and y beyond 2^31, dense": ((2, 32, 2**25 + 77), (40, 32, 3), 1, 1),
    "x beyond 2^31, dense, strided": ((2, 32, 2**25 + 77), (16, 32, 3), 1, 3),
    "y beyond 2^31, dense": ((2, 16, 2**22 + 5), (260, 16, 3), 1, 1),
    "a row of x beyond 2^31, folded": ((1, 1, 2**31 + 1001), (8, 1, 16), 1, 8),
    "y beyond 2^31, folded": ((2, 3, 2**24 + 77), (72, 3, 5), 1, 1),
    "x and y beyond 2^31, depthwise": ((2, 300, 3600007), (300, 1, 4), 300, 1),
}


def window(arguments, n, p_begin, p_end):
    """The problem whose y is y[n, :, p_begin:p_end]."""
    x, weight, bias, (stride,), padding, (dilation,), groups = arguments
    reach = dilation * (weight.shape[-1] - 1) + 1
    return (
        x[n : n + 1, :, p_begin * stride : (p_end - 1) * stride + reach],
        weight,
        bias,
        (stride,),
        padding,
        (dilation,),
        groups,
    )


@needs_memory
@pytest.mark.parametrize("size", SIZES)
def test_beyond_32_bits(model_new, size):
    torch.cuda.empty_cache()
    x_shape, w_shape, groups, stride = SIZES[size]
    generator = torch.Generator("cuda").manual_seed(0)
    x = torch.empty(x_shape, dtype=torch.bfloat16, device="cuda").uniform_(-1, 1, generator=generator)
    weight = torch.empty(w_shape, dtype=torch.bfloat16, device="cuda").uniform_(
        -1, 1, generator=generator
    )
    arguments = (x, weight, None, (stride,), (0, 0), (1,), groups)
    ops = model_new._conv1d_ops
    for route in ops.routes():
        y = run_by(ops, route, arguments)
        if y is None:
            continue
        N, _, P = y.shape
        # Ends, and where an offset within a row passes 2^31 or 2^32, in elements or in bytes.
        places = {0, P - 4096} | {
            min(limit // scale, P - 4096) for limit in (2**31, 2**32) for scale in (1, 2, stride)
        }
        for n in {0, N - 1}:
            for p in places:
                p = max(0, p - 2048) if p < P - 4096 else p
                part = y[n : n + 1, :, p : p + 4096].contiguous()
                assert_accurate(part, window(arguments, n, p, p + 4096), "bf16", (route, n, p))
        del y


@needs_memory
def test_fp32_beyond_32_bits(model_new):
    """The size of the larger benchmark problem, by all routes, with and without TF32."""
    torch.cuda.empty_cache()
    x = torch.empty((65, 64, 524280), device="cuda").uniform_(
        generator=torch.Generator("cuda").manual_seed(0)
    )
    weight = torch.randn((128, 64, 3), device="cuda") / 14
    arguments = (x, weight, None, (3,), (0, 0), (4,), 1)
    ops = model_new._conv1d_ops
    for mode in ["tf32", "fp32"]:
        with tf32(MODES[mode][1]):
            for route in ops.routes():
                y = run_by(ops, route, arguments)
                if y is None:
                    continue
                N, _, P = y.shape
                for n in [0, N // 2, N - 1]:
                    for p in [0, P - 2048]:
                        x_part = window(arguments, n, p, p + 2048)[0]
                        expected = torch.nn.functional.conv1d(
                            x_part.double(), weight.double(), stride=3, dilation=4
                        )
                        error = (
                            y[n : n + 1, :, p : p + 2048].double() - expected
                        ).norm() / expected.norm()
                        assert error < (1e-3 if mode == "tf32" else 1e-6), (route, mode, n, p)
                del y
