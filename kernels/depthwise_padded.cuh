// Depthwise filters that are mostly longer than their row of x: an output sums the taps that meet x, one
// after the other, and no other.
#pragma once
#include <algorithm>
#include <numeric>

#include "problem.h"
#include "depthwise_row.cuh"

namespace conv1d {
namespace depthwise {

constexpr int kPaddedThreads = 128;

struct PaddedParams : Params {
    uint32_t blocks_per_row;  // of output channels
    // Positions whose taps meet the same x, `cycle` apart, are neighbours: turn of them, then the next ones.
    uint32_t cycle, turn;
};

// Where a tap lies in shared memory. Lanes whose first taps lie a power of two apart meet in no bank.
__host__ __device__ constexpr int padded_slot(int tap) { return tap + (tap >> 5); }

template <class Element, int kSamples>
__global__ void __launch_bounds__(kPaddedThreads, kUnboundBlocks)
    depthwise_padded_kernel(const __grid_constant__ PaddedParams params) {
    constexpr int kBatch = kSamples == 1 ? 8 : 4;  // taps whose loads are under way at once
    extern __shared__ __align__(16) unsigned char smem[];
    float* const w_smem = reinterpret_cast<float*>(smem);
    const uint32_t o = blockIdx.x / params.blocks_per_row;
    const uint64_t item =
        uint64_t{blockIdx.x - o * params.blocks_per_row} * kPaddedThreads + threadIdx.x;
    const int taps = params.K, dilation = params.dilation;
    const Element* const w = static_cast<const Element*>(params.w) + int64_t{o} * taps;
#pragma unroll 4
    for (int k = threadIdx.x; k < taps; k += kPaddedThreads) w_smem[padded_slot(k)] = widen(w[k]);
    __syncthreads();

    const uint32_t places = params.cycle * params.turn;  // of a sample
    const uint32_t group = static_cast<uint32_t>(
        item <= UINT32_MAX ? static_cast<uint32_t>(item) / places : item / places);
    const uint32_t n_first = group * kSamples, place = static_cast<uint32_t>(item - uint64_t{group} * places);
    const int p = static_cast<int>(place % params.turn * params.cycle + place / params.turn);
    if (n_first >= params.N || p >= params.P) return;
    const Row<Element> row = row_at<Element>(params, n_first * params.channels.divisor + o, n_first, o);
    const int samples = static_cast<int>(min(params.N - n_first, uint32_t{kSamples}));
    const Element* x[kSamples];
#pragma unroll
    for (int j = 0; j < kSamples; ++j) x[j] = row.x + min(j, samples - 1) * params.x_stride_n;
    // The taps that meet x: 0 <= l + k * dilation < L.
    const int l = p * params.stride - params.pad_left, left = params.L - l;
    int k = l < 0 ? (dilation - 1 - l) / dilation : 0;
    const int k_end = left <= 0 ? 0 : min(taps, (left + dilation - 1) / dilation);
    const int32_t x_stride_l = static_cast<int32_t>(params.x_stride_l), step = dilation * x_stride_l;
    int32_t at = (l + k * dilation) * x_stride_l;

    float sum[kSamples] = {};
    const auto add = [&](auto count) {
        constexpr int kCount = decltype(count)::value;
        float factor[kCount];
        Element value[kCount][kSamples];
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            factor[i] = w_smem[padded_slot(k + i)];
#pragma unroll
            for (int j = 0; j < kSamples; ++j) value[i][j] = x[j][at];
            at += step;
        }
        k += kCount;
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
#pragma unroll
            for (int j = 0; j < kSamples; ++j) sum[j] = fmaf(factor[i], widen(value[i][j]), sum[j]);
        }
    };
#pragma unroll 1
    while (k + kBatch <= k_end) add(std::integral_constant<int, kBatch>{});
#pragma unroll 1
    while (k < k_end) add(std::integral_constant<int, 1>{});

    const float bias = bias_of<Element>(params, o);
    Element* y = row.y + p;
    const int64_t y_stride_n = int64_t{params.channels.divisor} * params.P;
#pragma unroll
    for (int j = 0; j < kSamples; ++j) {
        if (j < samples) y[j * y_stride_n] = narrow<Element>(sum[j] + bias);
    }
    if (params.activation == Activation::none) return;
#pragma unroll 1
    for (int j = 0; j < samples; ++j, y += y_stride_n) *y = activate<Element>(params.activation, widen(*y));
}

inline int padded_smem_bytes(const Problem& problem) {
    return padded_slot(static_cast<int>(problem.K)) * static_cast<int>(sizeof(float));
}

template <class Element, int kSamples>
Error launch_padded(const Problem& problem, cudaStream_t stream) {
    PaddedParams params = plan_any<PaddedParams>(problem);
    const int64_t cycle = problem.dilation / std::gcd(problem.stride, problem.dilation);
    params.cycle = static_cast<uint32_t>(8 * cycle <= problem.P ? cycle : 1);
    params.turn = static_cast<uint32_t>(ceil_div(problem.P, params.cycle));
    const int64_t places = ceil_div(problem.N, kSamples) * params.cycle * params.turn;
    params.blocks_per_row = static_cast<uint32_t>(ceil_div(places, kPaddedThreads));
    const auto blocks = static_cast<unsigned>(problem.G * problem.O * params.blocks_per_row);
    const int smem_bytes = padded_smem_bytes(problem);
    depthwise_padded_kernel<Element, kSamples><<<blocks, kPaddedThreads, smem_bytes, stream>>>(params);
    return launch_error();
}

// A thread takes several samples where enough threads remain: the sum of an output does not change with that.
template <class Element>
Error launch_padded(const Problem& problem, cudaStream_t stream) {
    const auto fill = [&](int samples) {
        const int64_t threads = problem.G * problem.O * ceil_div(problem.N, samples) * problem.P;
        return problem.N >= samples && threads >= int64_t{128} * problem.device.sm_count;
    };
    if (fill(4)) return launch_padded<Element, 4>(problem, stream);
    if (fill(2)) return launch_padded<Element, 2>(problem, stream);
    return launch_padded<Element, 1>(problem, stream);
}

inline bool fits_padded(const Problem& problem) {
    return problem.dtype != Dtype::float64 && problem.K < kSmemSums &&
           padded_smem_bytes(problem) <= kSmemSums * kSumBytes;
}

}  // namespace depthwise
}  // namespace conv1d
