#!/usr/bin/env python3
"""The judge: is model_new.py's convolution correct, accurate and fast, and by which route does it run?

    python check.py                             every layer of the table below, in every mode
    python check.py kb67 mamba_dw4 --mode tf32  some layers, some modes
    python check.py --shape 8,64,1000 128 3 --stride 2
    python check.py --random depthwise 20       generated layers; ends with the mean ratio and the losers
    python check.py --kernelbench 67            the KernelBench evaluator's own procedure
    python check.py --record                    also write results/<gpu>.json; then: python check.py --table

A layer is correct where float64 says so: at the beginning, the middle and the end of the output, and around
the element that differs most from PyTorch's result, the error stays below that of an ideal implementation in
the same mode (operands and result rounded to nearest, exact sums) plus what the mode's accumulator can lose.
Exit code: 0 all correct, 1 something wrong or failed, 2 bad arguments, 130 interrupted (nothing is written).
"""
import argparse
import contextlib
import json
import math
import os
import random
import re
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results"
README = ROOT / "README.md"
MODES = {"tf32": torch.float32, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16,
         "fp64": torch.float64}
RECORDED_MODES = ("tf32", "fp32", "fp16", "bf16")
FLUSH_BYTES = 1 << 30  # many times the L2 cache; filling it lasts longer than the host takes for any launch
KEYS = ("route", "ms", "torch_ms", "floor_ms", "rel_err", "torch_rel_err", "correct")


class Layer(NamedTuple):
    name: str
    N: int  # batch
    Cin: int
    L: int  # input positions
    Cout: int
    K: int  # taps
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    bias: bool = True
    source: str = ""

    @property
    def P(self):
        """Output positions."""
        return (self.L + 2 * self.padding - self.dilation * (self.K - 1) - 1) // self.stride + 1

    @property
    def terms(self):
        """Products that one output element sums."""
        return self.Cin // self.groups * self.K

    @property
    def elements(self):
        return self.N * (self.Cin * self.L + self.Cout * self.P) + self.Cout * self.terms

    @property
    def flop(self):
        """Arithmetic that cannot be avoided: taps that fall on padding are not counted."""
        inside = 0
        for k in range(self.K):
            first = max(0, -((k * self.dilation - self.padding) // self.stride))
            last = min(self.P - 1, (self.L - 1 + self.padding - k * self.dilation) // self.stride)
            inside += max(0, last - first + 1)
        return 2 * self.N * self.Cout * (self.Cin // self.groups) * inside

    @property
    def shape(self):
        parts = [f"{self.N}x{self.Cin}x{self.L} -> {self.Cout}, K{self.K}"]
        for letter, value, usual in (("s", self.stride, 1), ("p", self.padding, 0), ("d", self.dilation, 1),
                                     ("g", self.groups, 1)):
            parts += [f"{letter}{value}"] if value != usual else []
        return " ".join(parts)


LAYERS = {row[0]: Layer(*row) for row in (
    # name, N, Cin, L, Cout, K, stride, padding, dilation, groups, bias, where it comes from
    ("kb67", 32, 64, 131072, 128, 3, 1, 0, 1, 1, False, "KernelBench level 1, problem 67 (conv_standard_1D)"),
    ("kb76", 64, 64, 524280, 128, 3, 3, 0, 4, 1, False,
     "KernelBench level 1, problem 76 (conv_standard_1D_dilated_strided)"),
    ("kb67_v0", 16, 3, 512, 64, 3, 1, 0, 1, 1, False, "KernelBench v0 size of problem 67: launch-bound"),
    ("whisper_stem1", 16, 128, 3000, 1280, 3, 1, 1, 1, 1, True, "Whisper large encoder, first stem conv"),
    ("whisper_stem2", 16, 1280, 3000, 1280, 3, 2, 1, 1, 1, True, "Whisper large encoder, second stem conv"),
    ("w2v2_fe0", 16, 1, 160000, 512, 10, 5, 0, 1, 1, False,
     "wav2vec 2.0 feature extractor, layer 0 (10 s at 16 kHz)"),
    ("w2v2_fe1", 16, 512, 31999, 512, 3, 2, 0, 1, 1, False, "wav2vec 2.0 feature extractor, layers 1-4"),
    ("w2v2_posconv", 16, 768, 499, 768, 128, 1, 64, 1, 16, True, "wav2vec 2.0 positional convolution"),
    ("hifigan_rb_256", 8, 256, 6880, 256, 11, 1, 25, 5, 1, True,
     "HiFi-GAN generator residual block, dilation 5"),
    ("hifigan_post", 8, 32, 220160, 1, 7, 1, 3, 1, 1, True, "HiFi-GAN conv_post, 32 to 1 channel"),
    ("conformer_dw31", 32, 512, 1500, 512, 31, 1, 15, 1, 512, True, "Conformer depthwise convolution"),
    ("mamba_dw4", 8, 5120, 4096, 5120, 4, 1, 3, 1, 5120, True,
     "Mamba depthwise convolution, causal by padding"),
    ("enformer_stem", 2, 4, 196608, 768, 15, 1, 7, 1, 1, True, "Enformer stem, 196,608 bases"),
    ("enformer_tower", 2, 768, 98304, 896, 5, 1, 2, 1, 1, True, "Enformer tower convolution"),
    ("ecapa_tdnn", 64, 80, 300, 1024, 5, 1, 2, 1, 1, True, "ECAPA-TDNN first layer"),
    ("unet1d", 256, 256, 64, 512, 5, 1, 2, 1, 1, True, "1-D diffusion U-Net (robot policy)"),
    ("hyena_dw2k", 8, 768, 2048, 768, 2047, 1, 2046, 1, 768, False,
     "Hyena-like implicit long depthwise filter, causal by padding"),
    ("encodec_stem", 16, 1, 240006, 32, 7, 1, 0, 1, 1, True,
     "EnCodec 24 kHz encoder, first conv (padded before)"),
    ("encodec_down8", 16, 256, 6008, 512, 16, 8, 0, 1, 1, True,
     "EnCodec 24 kHz encoder, stride 8 (padded before)"),
    ("dac_res_d9", 8, 64, 44100, 64, 7, 1, 27, 9, 1, True,
     "Descript Audio Codec encoder, residual unit, dilation 9"),
    ("soundstream_down2", 16, 32, 24002, 64, 4, 2, 0, 1, 1, True,
     "SoundStream encoder, stride 2 (padded before)"),
    ("diffwave_d512", 16, 64, 15872, 128, 3, 1, 512, 512, 1, True, "DiffWave residual layer, dilation 512"),
    ("wavenet_d512", 8, 64, 16896, 128, 2, 1, 0, 512, 1, True,
     "WaveNet gated layer, dilation 512 (padded before)"),
    ("tcn_d64", 64, 25, 784, 25, 7, 1, 384, 64, 1, True,
     "TCN on sequential MNIST, 25 channels, causal by padding"),
    ("demucs_enc0", 4, 2, 441000, 64, 8, 4, 0, 1, 1, True,
     "Demucs encoder, layer 0 (stereo, 10 s at 44.1 kHz)"),
    ("demucs_enc1", 4, 64, 110249, 128, 8, 4, 0, 1, 1, True, "Demucs encoder, layer 1: odd length"),
    ("wav2letter_k32", 16, 250, 500, 2000, 32, 1, 16, 1, 1, True, "Wav2Letter, the wide K=32 layer"),
    ("quartznet_dw87", 16, 512, 800, 512, 87, 1, 86, 2, 512, False,
     "QuartzNet last depthwise conv, dilation 2"),
    ("convtasnet_enc", 16, 1, 32000, 512, 16, 8, 0, 1, 1, False, "Conv-TasNet encoder (4 s at 8 kHz)"),
    ("convtasnet_dw", 16, 512, 3999, 512, 3, 1, 128, 128, 512, True,
     "Conv-TasNet depthwise conv, dilation 128"),
    ("conformer_pw", 32, 512, 1500, 1024, 1, 1, 0, 1, 1, True,
     "Conformer pointwise convolution before the GLU"),
    ("squeezebert_ffn", 16, 768, 512, 3072, 1, 1, 0, 1, 4, True, "SqueezeBERT feed-forward, K=1 in 4 groups"),
    ("basset_conv1", 256, 4, 600, 300, 19, 1, 9, 1, 1, True, "Basset, first layer on one-hot DNA"),
    ("deepsea_conv2", 128, 320, 248, 480, 8, 1, 0, 1, 1, True, "DeepSEA, second layer"),
    ("hifigan_msd_g4", 16, 128, 8192, 128, 41, 2, 20, 1, 4, True,
     "HiFi-GAN scale discriminator, 4 groups of 32"),
    ("hifigan_msd_g16", 16, 128, 4096, 256, 41, 2, 20, 1, 16, True,
     "HiFi-GAN scale discriminator, 16 groups of 8"),
    ("melgan_disc_g64", 16, 256, 512, 1024, 41, 4, 20, 1, 64, True, "MelGAN discriminator, 64 groups of 4"),
    ("vits_wn", 16, 192, 401, 384, 5, 1, 2, 1, 1, True, "VITS posterior encoder, WaveNet layer"),
    ("ecg_resnet", 32, 64, 4096, 128, 17, 4, 7, 1, 1, False,
     "ECG ResNet1d (Ribeiro 2020), strided residual block"),
    ("bendr_enc0", 8, 20, 15360, 512, 3, 3, 1, 1, 1, True,
     "BENDR on EEG, first layer, 20 channels, stride 3"),
    ("inceptiontime_k39", 64, 32, 945, 32, 39, 1, 19, 1, 1, False, "InceptionTime, longest branch"),
    ("sincnet", 128, 1, 3200, 80, 251, 1, 0, 1, 1, False, "SincNet first layer (200 ms at 16 kHz)"),
    ("hyena_short", 8, 2304, 2048, 2304, 3, 1, 2, 1, 2304, True, "Hyena short filter, causal by padding"),
    ("vocos_dw7", 16, 512, 188, 512, 7, 1, 3, 1, 512, True, "Vocos ConvNeXt block, depthwise"),
)}


def generated(regime, count, seed):
    """`count` random layers of a regime, the same for the same seed."""
    rng, layers = random.Random(f"{regime}/{seed}"), []

    def size(low, high):
        return round(low * (high / low) ** rng.random())

    while len(layers) < count:
        N, L, K, O, groups = size(1, 64), size(32, 200_000), size(1, 31), None, 1
        if regime == "dense":
            groups = rng.choice((1, 1, 1, 2, 4, 16))
            C, O = size(16, 1024 // groups), size(16, 1024 // groups)
        elif regime == "depthwise":
            groups, C, O, K = size(32, 4096), 1, rng.choice((1, 1, 1, 2)), size(2, 63)
        elif regime == "few_channels":
            few, many = size(1, 8), size(16, 768)
            C, O = rng.choice(((few, many), (many, few), (few, size(1, 8))))
        elif regime == "small_groups":
            groups, C, O = size(4, 128), size(2, 15), size(2, 15)
        elif regime == "long":
            groups, C, O = rng.choice(((size(32, 1024), 1, 1), (1, size(1, 256), size(1, 256))))
            K = size(64, 2048)
        stride, dilation = rng.choice((1, 1, 1, 2, 3, 4, 8)), rng.choice((1, 1, 1, 2, 4, 9))
        padding = rng.choice((0, dilation * (K - 1) // 2, dilation * (K - 1)))
        layer = Layer(f"{regime}_{len(layers)}", N, C * groups, L, O * groups, K, stride, padding, dilation,
                      groups, rng.random() < 0.5, f"generated, seed {seed}")
        if L + 2 * padding > dilation * (K - 1) and layer.elements < 1 << 27 and layer.flop < 2e11:
            layers.append(layer)
    return layers


REGIMES = ("dense", "depthwise", "few_channels", "small_groups", "long")


def fitted(layer, max_elements, max_flop):
    """The layer itself, or with N, then L, then the number of groups halved until it fits."""
    def too_big():
        return layer.elements > max_elements or layer.flop > max_flop

    while too_big() and layer.N > 1:
        layer = layer._replace(N=layer.N // 2)
    shortest = max(16, layer.dilation * (layer.K - 1) - 2 * layer.padding + 8 * layer.stride)
    while too_big() and layer.L > shortest:
        layer = layer._replace(L=max(shortest, layer.L // 2 | layer.L & 1))  # an odd length stays odd
    while too_big() and layer.groups % 2 == 0:
        layer = layer._replace(groups=layer.groups // 2, Cin=layer.Cin // 2, Cout=layer.Cout // 2)
    return layer


# ---------------------------------------------------------------------------------------------- correctness

@contextlib.contextmanager
def precision(mode):
    """PyTorch's own TF32 switch for convolutions, on for mode tf32 and off otherwise; restored afterwards."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = mode == "tf32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def make_data(layer, mode, device, seed=0):
    """x uniform in [0, 1); weight and bias uniform in +-1/sqrt(fan in), as nn.Conv1d draws them."""
    generator = torch.Generator(device).manual_seed(seed)
    options = {"generator": generator, "device": device, "dtype": MODES[mode]}
    bound = layer.terms ** -0.5
    x = torch.rand(layer.N, layer.Cin, layer.L, **options)
    weight = torch.rand(layer.Cout, layer.Cin // layer.groups, layer.K, **options).mul_(2 * bound).sub_(bound)
    bias = torch.rand(layer.Cout, **options).mul_(2 * bound).sub_(bound) if layer.bias else None
    return x, weight, bias


def to_tf32(tensor):
    """float32 rounded to the nearest TF32 value (11 significand bits), ties to even."""
    bits = tensor.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


class Window(NamedTuple):
    """Output samples n_begin <= n < n_end at positions p_begin <= p < p_end, all channels."""
    n_begin: int
    n_end: int
    p_begin: int
    p_end: int

    def of(self, output):
        return output[self.n_begin:self.n_end, :, self.p_begin:self.p_end].double()


def choose_windows(layer, farthest=None, budget=1 << 25):
    """The whole output, or where that is too much: its beginning, middle, end, and around `farthest`."""
    cost = layer.Cin * layer.K + layer.Cout  # float64 numbers that one output position takes
    if layer.N * layer.P * cost <= budget:
        return [Window(0, layer.N, 0, layer.P)]
    width = max(1, min(layer.P, budget // cost))
    centres = [(0, 0), (layer.N // 2, layer.P // 2), (layer.N - 1, layer.P - 1)]
    centres += [farthest] if farthest else []
    begins = [(n, max(0, min(p - width // 2, layer.P - width))) for n, p in centres]
    return [Window(n, n + 1, p, p + width) for n, p in begins]


def input_of(layer, x, window):
    """The stretch of x that a window of the output reads, zeros where it reads padding."""
    begin = window.p_begin * layer.stride - layer.padding
    end = (window.p_end - 1) * layer.stride - layer.padding + layer.dilation * (layer.K - 1) + 1
    stretch = x.new_zeros(window.n_end - window.n_begin, layer.Cin, end - begin)
    first, last = max(begin, 0), min(end, layer.L)
    if first < last:
        stretch[:, :, first - begin:last - begin] = x[window.n_begin:window.n_end, :, first:last]
    return stretch


def exact(layer, stretch, weight, bias):
    """The convolution of a padded stretch in float64: columns of taps, then a matrix product a group."""
    stretch, n, width = stretch.double().contiguous(), stretch.shape[0], stretch.shape[2]
    G, C = layer.groups, layer.Cin // layer.groups
    P = (width - layer.dilation * (layer.K - 1) - 1) // layer.stride + 1
    columns = stretch.as_strided((n, G, C, layer.K, P),
                                 (G * C * width, C * width, width, layer.dilation, layer.stride))
    y = weight.double().reshape(G, -1, C * layer.K) @ columns.reshape(n, G, C * layer.K, P)
    return y.reshape(n, layer.Cout, P) + (0 if bias is None else bias.double()[:, None])


def accumulation_error(mode, terms):
    """Relative to |w| |x|: what a sum of `terms` products may lose in the mode's accumulator.

    A random walk of roundings; tensor cores also truncate every step of 8 products, always towards zero.
    With 192 terms in fp32 this asks for a relative error below 1e-6.
    """
    unit = 2.0 ** -53 if mode == "fp64" else 2.0 ** -24
    return unit * (1 + 0.6 * terms ** 0.5 + (terms / 8 if mode in ("tf32", "fp16", "bf16") else 0))


def judge_window(layer, mode, data, outputs, window):
    """Squared norms of each output's error and of the reference, and whether outputs[0] is right there."""
    x, weight, bias = data
    stretch = input_of(layer, x, window)
    reference = exact(layer, stretch, weight, bias)
    ideal = exact(layer, to_tf32(stretch), to_tf32(weight), bias) if mode == "tf32" else reference
    ideal_error = (ideal.to(MODES[mode]).double() - reference).norm()

    # |w| max|x|, a channel: bounds the root of sum (w x)^2, the scale of a random walk of roundings
    size = weight.double().flatten(1).norm(dim=1) * stretch.abs().max().double()
    size = (size + (0 if bias is None else bias.double().abs()))[:, None]
    accumulated = accumulation_error(mode, layer.terms)
    # Both operands' rounding, uniform in +-2^-11 at worst, at six standard deviations
    walk = 6 * (2 / 3) ** 0.5 * 2.0 ** -11 if mode == "tf32" else 0
    finfo = torch.finfo(MODES[mode])
    # Subnormal numbers lie as far apart as the smallest normal ones
    rounding = 1.01 * finfo.eps / 2 * reference.abs().clamp_min(finfo.tiny)
    each = (4 * accumulated + walk) * size + rounding
    total = 1.1 * ideal_error + accumulated * size.norm() * (reference.numel() / layer.Cout) ** 0.5

    errors = [window.of(output) - reference for output in outputs]
    right = bool((errors[0].abs() <= each).all()) and bool(errors[0].norm() <= total)  # NaN is never right
    return [float(error.norm() ** 2) for error in errors], float(reference.norm() ** 2), right


def find_farthest(layer, out, other, weight):
    """(n, p) where two outputs differ most, in units of the channel's weight; NaN differs infinitely."""
    size = weight.float().flatten(1).norm(dim=1).clamp_min(1e-30)[:, None]
    best, place, step = -1.0, (0, 0), max(1, (1 << 27) // (layer.Cout * layer.P))
    for n in range(0, layer.N, step):
        gap = (out[n:n + step] - other[n:n + step]).abs_() / size
        gap = gap.nan_to_num(nan=math.inf, posinf=math.inf).flatten()
        value, index = (part.item() for part in gap.max(0))
        if value > best:
            best, place = value, (n + index // (layer.Cout * layer.P), index % layer.P)
    return place


def judge_output(layer, mode, data, out, other):
    """(correct, relative error, relative error of PyTorch's `other`, which may be None), against float64."""
    expected = (layer.N, layer.Cout, layer.P)
    if tuple(out.shape) != expected or out.dtype != MODES[mode]:
        raise ValueError(f"output is {out.dtype} {tuple(out.shape)}, expected {MODES[mode]} {expected}")
    outputs = [out] if other is None else [out, other]
    windows = choose_windows(layer)
    sums = [0.0] * 3
    correct = True
    for window in windows:
        squares, reference, right = judge_window(layer, mode, data, outputs, window)
        sums = [a + b for a, b in zip(sums, [*squares, *[math.nan] * (2 - len(squares)), reference])]
        correct = correct and right
    if correct and other is not None and len(windows) > 1:
        at = choose_windows(layer, find_farthest(layer, out, other, data[1]))[-1]
        correct = judge_window(layer, mode, data, outputs, at)[-1]
    return correct, *((total / sums[2]) ** 0.5 if sums[2] else 0.0 for total in sums[:2])


# ------------------------------------------------------------------------------------------------- measuring

class Bench:
    """Times calls on one device: cold L2 cache, interleaved, medians."""

    def __init__(self, device):
        self.device = torch.device(device)
        self.cuda = self.device.type == "cuda"
        self.flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=self.device) if self.cuda else None
        free = torch.cuda.mem_get_info(self.device)[0] if self.cuda else 0
        # (elements, flop) of the largest layer that is not scaled down. On a GPU x, both outputs and a
        # workspace as large as x and y must find room, at four bytes an element.
        self.largest = (free // 16, math.inf) if self.cuda else (1 << 21, 6e7)
        # A thread keeps the first cuDNN plan of a shape, searched for or not: the search has its own thread.
        self.thread = ThreadPoolExecutor(1) if self.cuda else None

    def once(self, call):
        """Milliseconds of one call. The flush keeps the GPU busy while the host prepares the launch."""
        if not self.cuda:
            begin = time.perf_counter()
            call()
            return (time.perf_counter() - begin) * 1e3
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.flush.zero_()
        begin.record()
        call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def with_search(self, call):
        """As `once`, with cudnn.benchmark on."""
        def run():
            with torch.no_grad(), torch.cuda.device(self.device):
                torch.backends.cudnn.benchmark = True
                try:
                    return self.once(call)
                finally:
                    torch.backends.cudnn.benchmark = False
        return self.thread.submit(run).result()

    def medians(self, ours, theirs):
        """(ms of ours, ms of the better PyTorch or None where PyTorch fails)."""
        samplers = [lambda: self.once(ours)]
        searched = [lambda: self.with_search(theirs)] if self.cuda else []
        for sampler in [lambda: self.once(theirs), *searched]:
            with contextlib.suppress(RuntimeError):  # no plan, or no memory for its workspace
                sampler()
                samplers.append(sampler)
        for _ in range(2 if self.cuda else 1):
            estimate = sum(sampler() for sampler in samplers)
        repeats = int(min(max((300 if self.cuda else 60) / max(estimate, 1e-3), 3), 50))
        times = [[] for _ in samplers]
        for _ in range(repeats):
            for sampler, sampled in zip(samplers, times):
                sampled.append(sampler())
        ms, *others = (statistics.median(sampled) for sampled in times)
        return ms, min(others, default=None)

    def extra_bytes(self, call):
        """Peak memory of a call beyond its output."""
        if not self.cuda:
            return None
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_stats(self.device)["requested_bytes.all.current"]
        out = call()
        return torch.cuda.memory_stats(self.device)["requested_bytes.all.peak"] - before - out.nbytes

    def limits(self, modes):
        """The device's measured ceilings: copy bandwidth and matrix product rate of each mode."""
        count, n = (min(1 << 29, self.largest[0]), 8192) if self.cuda else (1 << 23, 512)
        source = torch.zeros(count, device=self.device)
        target = torch.empty_like(source)
        best = min(self.once(lambda: target.copy_(source)) for _ in range(8))
        limits = {"copy_TBps": 2 * source.nbytes / best / 1e9, "matmul_TFLOPs": {}}
        del source, target
        for mode in dict.fromkeys([*modes, "fp16"] if "fp32" in modes else modes):
            a = torch.rand(n, n, device=self.device, dtype=MODES[mode])
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("high" if mode == "tf32" else "highest")
            try:
                best = min(self.once(lambda: a @ a) for _ in range(6))
            finally:
                torch.set_float32_matmul_precision(before)
            limits["matmul_TFLOPs"][mode] = 2 * n ** 3 / best / 1e9
        return limits


def floor_ms(layer, mode, limits):
    """The least time: each byte moved once, or the arithmetic; fp32 may also be three fp16 products."""
    rates = limits["matmul_TFLOPs"]
    arithmetic = layer.flop / rates[mode]
    if mode == "fp32":
        arithmetic = min(arithmetic, 3 * layer.flop / rates["fp16"])
    return max(arithmetic / 1e9, layer.elements * MODES[mode].itemsize / limits["copy_TBps"] / 1e9)


def measure(module, layer, mode, bench, limits):
    """One case of the results: see KEYS."""
    torch.cuda.empty_cache()  # nothing where CUDA is not in use
    data = x, weight, bias = make_data(layer, mode, bench.device)
    settings = layer.stride, layer.padding, layer.dilation, layer.groups

    def ours():
        return module.conv1d(x, weight, bias, *settings)

    def theirs():
        return torch.nn.functional.conv1d(x, weight, bias, *settings)

    with precision(mode), torch.no_grad():
        route = module._conv1d_ops.route(x, weight, bias, [layer.stride], [layer.padding], [layer.dilation],
                                         layer.groups)
        # The next tensor of this size takes this block: what a kernel leaves unwritten stays NaN.
        torch.full((layer.N, layer.Cout, layer.P), math.nan, device=bench.device, dtype=MODES[mode])
        out = ours()
        synchronize(bench.device)  # an error of ours shows here, not in PyTorch's call
        try:
            other = theirs()
        except RuntimeError:
            other = None
        correct, error, other_error = judge_output(layer, mode, data, out, other)
        del out, other
        extra = bench.extra_bytes(ours)
        ms, other_ms = bench.medians(ours, theirs)
    case = dict(zip(KEYS, (route, ms, other_ms, floor_ms(layer, mode, limits), error, other_error, correct)))
    return case if extra is None else {**case, "extra_bytes": extra}


def overhead(module, device):
    """import_s: seconds beyond `import torch`. host_us: host time a call of a tiny layer without grad."""
    code = "import time, torch; t = time.perf_counter(); import model_new; print(time.perf_counter() - t)"

    def import_s(build):
        child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE,
                               env={**os.environ, "TORCH_EXTENSIONS_DIR": build})
        return float(child.stdout.split()[-1])

    x = torch.rand(16, 3, 512, device=device)
    layers = {
        key: kind(3, 64, 3, bias=False).to(device)
        for key, kind in (("ours", module.Conv1d), ("torch", torch.nn.Conv1d))
    }
    samples = {key: [] for key in layers}
    with torch.no_grad():
        for _ in range(60):  # by turns, and before compiling keeps the processors busy
            for key, layer in layers.items():
                synchronize(device)
                begin = time.perf_counter()
                for _ in range(100):  # too few to fill the launch queue
                    layer(x)
                samples[key].append((time.perf_counter() - begin) * 1e4)
    host = {key: statistics.median(values) for key, values in samples.items()}
    with tempfile.TemporaryDirectory() as build:
        imports = {"cold": import_s(build), "cached": import_s(build)}
    return {"import_s": imports, "host_us": host}


def synchronize(device):
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


# ----------------------------------------------------------------------------------------------- KernelBench

REFERENCE = """
import torch
import torch.nn as nn

class Model(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, {signature}, bias=False):
        super().__init__()
        self.conv1d = nn.Conv1d(in_channels, out_channels, kernel_size, {arguments}, bias=bias)

    def forward(self, x):
        return self.conv1d(x)

{sizes}

def get_inputs():
    return [torch.rand(batch_size, in_channels, length)]

def get_init_inputs():
    return [{init}]
"""
PROBLEMS = {  # KernelBench level 1
    67: REFERENCE.format(
        signature="stride=1, padding=0, dilation=1, groups=1",
        arguments="stride=stride, padding=padding, dilation=dilation, groups=groups",
        sizes="batch_size, in_channels, out_channels, kernel_size, length = 32, 64, 128, 3, 131072",
        init="in_channels, out_channels, kernel_size"),
    76: REFERENCE.format(
        signature="stride=1, dilation=1", arguments="stride=stride, dilation=dilation",
        sizes="batch_size, in_channels, out_channels, kernel_size, length = 64, 64, 128, 3, 524280\n"
              "stride, dilation = 3, 4",
        init="in_channels, out_channels, kernel_size, stride, dilation"),
}


def problem_text(problem):
    """The file that answers a problem: model_new.py itself, or what amalgamate.py writes."""
    if problem == 67:
        return (ROOT / "model_new.py").read_text()
    return runpy.run_path(str(ROOT / "kernels" / "amalgamate.py"))["amalgamate"](problem)


def kernelbench(problem, device, text, trials=5, runs=100, sizes=None):
    """KernelBench's evaluation of `text` against the problem, step by step; returns what it found.

    `sizes` replaces the problem's module-level sizes (batch_size, length) where they do not fit the device.
    """
    device, context = torch.device(device), {}
    exec(compile(PROBLEMS[problem], "<reference>", "exec"), context)
    context.update(sizes or {})
    get_inputs = context["get_inputs"]  # the candidate will bring its own
    torch.manual_seed(42)
    arguments = context["get_init_inputs"]()
    with torch.no_grad():
        torch.manual_seed(42)
        reference = context["Model"](*arguments)

    before = os.environ.get("TORCH_EXTENSIONS_DIR")
    build = before or os.path.expanduser("~/.cache/torch_extensions")
    begin = time.perf_counter()
    try:
        text = f"import os\nos.environ['TORCH_EXTENSIONS_DIR'] = {build!r}\n{text}"
        exec(compile(text, "<candidate>", "exec"), context)
    finally:
        if before is None:
            os.environ.pop("TORCH_EXTENSIONS_DIR", None)
    found = {"problem": problem, "sources": context.get("_conv1d_hash"),
             "load_s": time.perf_counter() - begin, "trials": trials, "passed": 0, "max_diff": 0.0}
    with torch.no_grad():
        torch.manual_seed(42)
        candidate = context["ModelNew"](*arguments)
    reference, candidate = (model.to(device=device, dtype=torch.float32) for model in (reference, candidate))

    torch.manual_seed(42)
    with torch.no_grad():
        for seed in [torch.randint(0, 2 ** 32 - 1, (1,)).item() for _ in range(trials)]:
            torch.manual_seed(seed)
            inputs = [x.to(device) for x in get_inputs()]
            torch.manual_seed(seed)
            expected = reference(*inputs)
            synchronize(device)
            torch.manual_seed(seed)
            output = candidate(*inputs)
            synchronize(device)
            if output.shape == expected.shape and output.dtype == expected.dtype:
                found["max_diff"] = max(found["max_diff"], (output - expected).abs_().max().item())
                found["passed"] += torch.allclose(expected, output, atol=1e-4, rtol=1e-4)
            del expected, output

    torch.manual_seed(42)
    inputs = [x.to(device) for x in get_inputs()]
    for key, model, grad in (("ms", candidate, False), ("grad_ms", candidate, True),
                             ("torch_ms", reference, False), ("torch_grad_ms", reference, True)):
        with torch.set_grad_enabled(grad):
            found[key] = statistics.mean(evaluator_times(model, inputs, device, runs))
    return {**found, "correct": found["passed"] == trials}


def evaluator_times(model, inputs, device, runs):
    """Milliseconds of each run, as the evaluator measures: 3 warm-ups, a 268 MB flush before every run."""
    for _ in range(3):
        model(*inputs)
        synchronize(device)
    times = []
    for _ in range(runs):
        synchronize(device)
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.empty((32, 1024, 1024), dtype=torch.int64, device=device).fill_(42)
            begin.record()
            model(*inputs)
            end.record()
            synchronize(device)
            times.append(begin.elapsed_time(end))
        else:
            begin = time.perf_counter()
            model(*inputs)
            times.append((time.perf_counter() - begin) * 1e3)
    return times


# ----------------------------------------------------------------------------------------------- the record

def clean(value):
    """Plain JSON: five significant digits, null for NaN and infinity."""
    if isinstance(value, dict):
        return {key: clean(item) for key, item in value.items()}
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def write_text(path, text):
    """Replaces a file in one step: it is the old one or the new one, never half of either."""
    path.parent.mkdir(exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text)
    os.replace(scratch, path)


def describe(sources, device):
    """What a result depends on: the sources' hash, the GPU, the versions."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"sources": sources, "gpu": gpu, "torch": str(torch.__version__), "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version()}


def write_record(report, directory):
    """Writes results/<gpu>.json; keeps the cases of an earlier run of the same sources and versions."""
    path = directory / (re.sub(r"[^a-z0-9]+", "_", report["gpu"].lower()).strip("_") + ".json")
    same = ("sources", "gpu", "torch", "cuda", "cudnn")
    earlier = json.loads(path.read_text()) if path.exists() else {}
    if any(earlier.get(key) != report[key] for key in same):
        earlier = {}
    known = earlier.get("cases", {})
    cases = {name: {**known.get(name, {}), **report["cases"].get(name, {})} for name in LAYERS}
    merged = {**earlier, **report, "cases": {name: modes for name, modes in cases.items() if modes}}
    write_text(path, json.dumps(clean(merged), indent=1) + "\n")
    return path


def results_table(directory, sources):
    """The README's results as Markdown; a record of other sources than `sources` is marked stale."""
    blocks = []
    for path in sorted(directory.glob("*.json")):
        record = json.loads(path.read_text())
        stale = "" if record["sources"] == sources else " **Stale: recorded with other sources than these.**"
        lines = [f"**{record['gpu']}**, torch {record['torch']}, cuDNN {record['cudnn']}.{stale}", "",
                 "| layer | shape | route | " + " | ".join(RECORDED_MODES) + " |",
                 "|---|---|---|" + "---:|" * len(RECORDED_MODES)]
        for name, modes in record["cases"].items():
            routes = dict.fromkeys(case["route"] for case in modes.values() if case["route"])
            scaled = [case["scaled"] for case in modes.values() if "scaled" in case]
            shape = scaled[0] if scaled else LAYERS[name].shape if name in LAYERS else ""
            cells = [table_cell(modes[mode]) if mode in modes else "" for mode in RECORDED_MODES]
            lines.append(f"| {name} | {shape} | {', '.join(routes)} | " + " | ".join(cells) + " |")
        if "import_s" in record:
            lines += ["", overhead_line(record)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) or "Nothing recorded yet: `python check.py --record` on a GPU."


def table_cell(case):
    """Milliseconds, times as fast as PyTorch, share of the floor."""
    if not case["correct"]:
        return "**wrong**"
    faster = f", {case['torch_ms'] / case['ms']:.2f}x" if case["torch_ms"] else ""
    return f"{case['ms']:.3g} ms{faster}, {case['floor_ms'] / case['ms']:.0%}"


def write_table(readme, directory, sources):
    """Replaces what stands between README's two marks by today's table."""
    begin, end = "<!-- results:begin -->", "<!-- results:end -->"
    text = readme.read_text()
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{readme} needs one line {begin} and, after it, one line {end}")
    head, rest = text.split(begin)
    write_text(readme, f"{head}{begin}\n{results_table(directory, sources)}\n{end}{rest.split(end)[1]}")


# -------------------------------------------------------------------------------------------- command line

def say(*words, **options):
    print(*words, file=sys.stderr, flush=True, **options)


def print_cases(cases):
    columns = "{:<18} {:<5} {:<10} {:<8} {:>8} {:>8} {:>9} {:>9} {:>6} {:>6}".format
    print(columns("layer", "mode", "route", "correct", "error", "torch", "ms", "torch ms", "ratio", "floor"))
    for name, modes in cases.items():
        for mode, case in modes.items():
            if "error" in case:
                print(f"{name:<18} {mode:<5} FAILED     {case['error']}")
                continue
            numbers = (math.nan if case[key] is None else case[key] for key in KEYS[1:6])
            ms, torch_ms, floor, error, torch_error = numbers
            print(columns(name, mode, case["route"], "yes" if case["correct"] else "WRONG", f"{error:.1e}",
                          f"{torch_error:.1e}", f"{ms:.4f}", f"{torch_ms:.4f}", f"{torch_ms / ms:.2f}",
                          f"{floor / ms:.0%}"))


def print_summary(cases, modes):
    """Of a random sweep: how many times as fast as PyTorch, and the layers that are slower."""
    for mode in modes:
        ratios = sorted((case[mode]["torch_ms"] / case[mode]["ms"], name) for name, case in cases.items()
                        if case[mode]["ms"] and case[mode]["torch_ms"])
        if ratios:
            losers = ", ".join(f"{name} {ratio:.2f}" for ratio, name in ratios if ratio < 1)
            mean = statistics.geometric_mean(ratio for ratio, _ in ratios)
            print(f"{mode}: ratio {mean:.2f} in the geometric mean, {ratios[0][0]:.2f} at least; "
                  f"slower than PyTorch: {losers or 'none'}")


def run_cases(module, layers, modes, bench, limits):
    """{layer: {mode: case}}; a layer that raises becomes a failed case, and the run goes on."""
    cases = {}
    for number, wanted in enumerate(layers, 1):
        layer = fitted(wanted, *bench.largest)
        cases[wanted.name] = {}
        for mode in modes:
            begin = time.perf_counter()
            say(f"[{number}/{len(layers)}] {layer.name} {mode}: {layer.shape}", end="")
            try:
                case = measure(module, layer, mode, bench, limits)
            except Exception as error:  # an operator's error is a result of the judge
                sentence = f"{type(error).__name__}: {error}".splitlines()[0]
                case = {**dict.fromkeys(KEYS), "correct": False, "error": sentence}
            if layer != wanted:
                case["scaled"] = layer.shape
            cases[wanted.name][mode] = case
            say(f"  {'ok' if case['correct'] else 'WRONG'}  {time.perf_counter() - begin:.1f} s")
    return cases


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("layers", nargs="*", metavar="LAYER", help="layers of the table; all where none is named")
    add("--mode", nargs="+", choices=MODES, help="default: tf32 fp32 fp16 bf16; without a GPU fp32 fp16 bf16")
    add("--device", help="default: cuda where there is one, else cpu")
    add("--shape", nargs=3, metavar=("N,CIN,L", "COUT", "K"), help="a layer of one's own")
    for option, default in (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)):
        add(f"--{option}", type=int, help=f"of --shape, default {default}")
    add("--no-bias", action="store_true", help="of --shape")
    add("--random", nargs=2, metavar=("REGIME", "COUNT"), help="generated layers: " + ", ".join(REGIMES))
    add("--seed", type=int, default=0, help="of --random")
    add("--kernelbench", type=int, choices=PROBLEMS, help="follow the KernelBench evaluator for a problem")
    add("--overhead", action="store_true", help="also measure import and host time; --record does")
    add("--json", action="store_true", help="print JSON instead of a table")
    add("--record", action="store_true", help="write results/<gpu>.json")
    add("--table", action="store_true", help="rewrite README.md's results from results/ and end")
    args = parser.parse_args(argv)

    if sum(map(bool, (args.layers, args.shape, args.random, args.kernelbench, args.table))) > 1:
        parser.error("choose one of: layers, --shape, --random, --kernelbench, --table")
    unknown = [name for name in args.layers if name not in LAYERS]
    if unknown:
        parser.error(f"no layer {unknown[0]}; the table has: {', '.join(LAYERS)}")
    try:
        args.device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        parser.error(f"argument --device: {str(error).splitlines()[0]}")
    if args.device.type not in ("cpu", "cuda") or (args.device.type == "cuda"
                                                   and (args.device.index or 0) >= torch.cuda.device_count()):
        parser.error(f"argument --device: there is no {args.device} here")
    if args.device.type == "cuda" and args.device.index is None:
        args.device = torch.device("cuda", torch.cuda.current_device())
    if args.record and (args.device.type != "cuda" or args.shape or args.random or args.kernelbench):
        parser.error("--record is for layers of the table on a GPU")
    args.mode = args.mode or list(RECORDED_MODES if args.device.type == "cuda" else RECORDED_MODES[1:])
    settings = {name: getattr(args, name) for name in ("stride", "padding", "dilation", "groups")}
    if not args.shape and (args.no_bias or any(value is not None for value in settings.values())):
        parser.error("--stride, --padding, --dilation, --groups and --no-bias describe a --shape")

    args.chosen = [LAYERS[name] for name in args.layers] or list(LAYERS.values())
    if args.shape:
        try:
            (N, Cin, L), Cout, K = map(int, args.shape[0].split(",")), int(args.shape[1]), int(args.shape[2])
        except ValueError:
            parser.error("argument --shape: expected N,CIN,L COUT K, for example 8,64,1000 128 3")
        layer = Layer("shape", N, Cin, L, Cout, K, bias=not args.no_bias,
                      **{key: value for key, value in settings.items() if value is not None})
        if min(N, Cin, L, Cout, K, layer.stride, layer.dilation, layer.groups) < 1 or layer.padding < 0:
            parser.error("argument --shape: all numbers must be positive; padding may be 0")
        if Cin % layer.groups or Cout % layer.groups:
            parser.error(f"argument --groups: {layer.groups} does not divide {Cin} and {Cout} channels")
        if L + 2 * layer.padding <= layer.dilation * (K - 1):
            parser.error("argument --shape: the kernel is longer than the padded input")
        args.chosen = [layer]
    if args.random:
        regime, count = args.random
        if regime not in REGIMES or not count.isdigit() or int(count) < 1:
            parser.error(f"argument --random: expected one of {', '.join(REGIMES)} and a count")
        args.chosen = generated(regime, int(count), args.seed)
    return args


def overhead_line(report):
    return ("Import beyond `import torch`: {cold:.1f} s cold, {cached:.2f} s cached. Host time a call of a "
            "tiny layer: {ours:.1f} us, nn.Conv1d {torch:.1f} us."
            ).format(**report["import_s"], **report["host_us"])


def kernelbench_lines(found):
    return ("problem {problem}: {passed}/{trials} trials correct, largest difference {max_diff:.2e}, "
            "loaded in {load_s:.1f} s\n"
            "no_grad: {ms:.4f} ms, nn.Conv1d {torch_ms:.4f} ms, ratio {ratio:.2f}\n"
            "grad on: {grad_ms:.4f} ms, nn.Conv1d {torch_grad_ms:.4f} ms").format(
                ratio=found["torch_ms"] / found["ms"], **found)


def judge_problem(args):
    """--kernelbench: model_new.py is loaded as the evaluator loads it, not imported."""
    sizes = None
    if args.device.type == "cpu":
        sizes = {"batch_size": 2, "length": 4096}
        say(f"No GPU: the problem at a size that fits, {sizes}.")
    found = kernelbench(args.kernelbench, args.device, problem_text(args.kernelbench), sizes=sizes)
    report = {**describe(found.pop("sources"), args.device), "kernelbench": found}
    print(json.dumps(clean(report), indent=1) if args.json else kernelbench_lines(found))
    return 0 if found["correct"] else 1


def judge_layers(args):
    import model_new  # builds at the first import, after the arguments proved good

    if args.table:
        write_table(README, RESULTS, model_new._conv1d_hash)
        return 0
    if args.device.type == "cpu":
        say("No GPU: the layers at a size that fits (N, L and groups cut), against nn.Conv1d on the CPU.")
    bench = Bench(args.device)
    limits = bench.limits(args.mode)
    report = {**describe(model_new._conv1d_hash, args.device), "limits": limits,
              "cases": run_cases(model_new, args.chosen, args.mode, bench, limits)}
    if args.record or args.overhead:
        report.update(overhead(model_new, args.device))
    if args.json:
        print(json.dumps(clean(report), indent=1))
    else:
        print_cases(report["cases"])
        if args.random:
            print_summary(report["cases"], args.mode)
        if "host_us" in report:
            print(overhead_line(report))
    if args.record:
        say("wrote", write_record(report, RESULTS))
    return 0 if all(case["correct"] for modes in report["cases"].values() for case in modes.values()) else 1


def main(argv=None):
    args = parse(argv)
    try:
        with torch.cuda.device(args.device) if args.device.type == "cuda" else contextlib.nullcontext():
            return judge_problem(args) if args.kernelbench else judge_layers(args)
    except KeyboardInterrupt:
        say("\ninterrupted: nothing was written")
        return 130


if __name__ == "__main__":
    sys.exit(main())
