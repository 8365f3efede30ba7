"""The convolution in float64 by its definition, and how far from it a kernel's rounding may lead."""

import torch

# What the CPU kernel says of itself: chains of at most this many products, added one after the other.
CHAIN = 256

ROUNDOFF = {
    torch.float16: 2.0**-11,
    torch.bfloat16: 2.0**-8,
    torch.float32: 2.0**-24,
    torch.float64: 2.0**-53,
}
# Half of the smallest step, for results that are subnormal.
UNDERFLOW = {
    torch.float16: 2.0**-25,
    torch.bfloat16: 2.0**-134,
    torch.float32: 2.0**-150,
    torch.float64: 0.0,
}


def sides(padding):
    return (padding, padding) if isinstance(padding, int) else padding


def exact(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """y in float64, summed from gathered patches; padding is an int or (left, right)."""
    batched = x if x.dim() == 3 else x.unsqueeze(0)
    N, channels, _ = batched.shape
    outputs, C, K = weight.shape
    padded = torch.nn.functional.pad(batched.double(), sides(padding))
    P = (padded.shape[-1] - dilation * (K - 1) - 1) // stride + 1
    taps = torch.arange(P)[:, None] * stride + torch.arange(K) * dilation
    patches = padded[:, :, taps].reshape(N, groups, C, P, K)
    kernel = weight.double().reshape(groups, outputs // groups, C, K)
    y = torch.einsum("ngcpk,gock->ngop", patches, kernel).reshape(N, outputs, P)
    if bias is not None:
        y = y + bias.double()[:, None]
    return y if x.dim() == 3 else y.squeeze(0)


def bound(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """How far each element may be from `exact`: the a-priori bound of a blocked sum in the accumulator's
    type, plus the rounding of the result. fp16 and bf16 accumulate in float32."""
    y = exact(x, weight, bias, stride, padding, dilation, groups)
    magnitude = exact(
        x.abs(), weight.abs(), None if bias is None else bias.abs(), stride, padding, dilation, groups
    )
    products = weight.shape[1] * weight.shape[2]
    unit = min(ROUNDOFF[x.dtype], ROUNDOFF[torch.float32])
    depth = min(products, CHAIN) + -(-products // CHAIN) + 1
    if x.dtype == torch.float64:
        depth += products  # the reference rounds as well
    gamma = depth * unit / (1 - depth * unit)
    result = 0.0 if ROUNDOFF[x.dtype] == unit else ROUNDOFF[x.dtype]
    return gamma * magnitude + result * (y.abs() + gamma * magnitude) + UNDERFLOW[x.dtype]


def assert_within_bound(y, *arguments, **keywords):
    """y is the convolution of the arguments, rounded no worse than `bound` says."""
    x = arguments[0]
    reference = exact(*arguments, **keywords)
    assert y.shape == reference.shape and y.dtype == x.dtype and y.is_contiguous()
    excess = (y.double() - reference).abs() - bound(*arguments, **keywords)
    assert (excess <= 0).all(), f"beyond the bound by {excess.max():.3e}"
