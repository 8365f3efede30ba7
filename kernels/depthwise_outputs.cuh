// Depthwise outputs one by one: any strides. x and w are read through the L1 cache.
#pragma once
#include <algorithm>

#include "problem.h"
#include "depthwise_row.cuh"

namespace conv1d {
namespace depthwise {

constexpr int kOutputs = 4;    // of a thread
constexpr int kBatchTaps = 2;  // whose loads are under way at once
constexpr int kLaneTaps = 8;   // of a lane, before another lane takes some
constexpr int kMaxLanes = 32;
constexpr int64_t kManyThreads = 1 << 16;  // more lanes would hide no more latency

template <class Element>
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
constexpr int kOutputsBlocks = sizeof(Element) == 8 ? 2 : 5;
#else
constexpr int kOutputsBlocks = 1;
#endif

struct OutputsParams : BlockParams {
    int32_t lanes_log2;  // of an output
    int32_t p_distance;  // between a thread's outputs
};

// Rounded once.
__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) { return fma(a, b, c); }

// A thread has outputs of one row. `lanes` neighbours share them: lane i sums taps i, i + lanes, ... that
// meet x.
template <class Element>
__global__ void __launch_bounds__(kMaxThreads, kOutputsBlocks<Element>)
    depthwise_outputs_kernel(const __grid_constant__ OutputsParams params) {
    using Sum = typename SumOf<Element>::Type;
    const Place place = place_of_thread(params);
    const Row<Element> row = row_of_block<Element>(params, place.row);
    const bool valid = row.valid && place.row < params.rows_per_block;  // blocks are whole warps
    const Sum bias = bias_of<Element>(params, row.o);
    const int lanes = 1 << params.lanes_log2, lane = place.lane % lanes;
    const int taps = params.K, dilation = params.dilation, stride = params.stride, L = params.L;
    const uint32_t x_stride_l = static_cast<uint32_t>(params.x_stride_l);
    const uint32_t most_l = L - 1;
    const int step = params.p_distance, step_l = step * stride;
    const int p = row.p_begin + (place.lane >> params.lanes_log2);
    const int l = p * stride - params.pad_left, l_last = l + (kOutputs - 1) * step_l;
    // Taps that meet x, of one output at least.
    const int k_begin = l_last >= 0 ? 0 : -l_last / dilation / lanes * lanes;
    int k_end = l + (taps - 1) * dilation < L ? taps : (L - l + dilation - 1) / dilation;
    if (!valid) k_end = 0;
    Sum sum[kOutputs] = {};
#pragma unroll 1
    for (int k = k_begin + lane; k < k_end; k += kBatchTaps * lanes) {
        Element w[kBatchTaps], x[kBatchTaps][kOutputs];
        // From the nearest that there is, so that no load waits in a branch.
#pragma unroll
        for (int i = 0; i < kBatchTaps; ++i) {
            const int tap = min(k + i * lanes, taps - 1);
            w[i] = row.w[tap];
#pragma unroll
            for (int j = 0; j < kOutputs; ++j) {
                const uint32_t at = l + j * step_l + tap * dilation;
                x[i][j] = row.x[min(at, most_l) * x_stride_l];
            }
        }
#pragma unroll
        for (int i = 0; i < kBatchTaps; ++i) {
            const int tap = k + i * lanes;
            const Sum factor = tap < taps ? widen(w[i]) : Sum{};
#pragma unroll
            for (int j = 0; j < kOutputs; ++j) {
                const uint32_t at = l + j * step_l + tap * dilation;
                const Sum value = tap < taps && at <= most_l ? widen(x[i][j]) : Sum{};
                sum[j] = multiply_add(factor, value, sum[j]);
            }
        }
    }
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
#pragma unroll
        for (int j = 0; j < kOutputs; ++j) sum[j] += __shfl_xor_sync(0xFFFFFFFF, sum[j], distance);
    }
#pragma unroll
    for (int j = 0; j < kOutputs; ++j) {
        const bool wanted = valid && lane == j % lanes && p + j * step < row.p_end;
        if (wanted) row.y[p + j * step] = narrow<Element>(sum[j] + bias);
    }
    if (params.activation == Activation::none || !valid) return;
#pragma unroll 1
    for (int j = lane; j < kOutputs && p + j * step < row.p_end; j += lanes) {
        Element* const y = row.y + p + j * step;
        *y = activate<Element>(params.activation, widen(*y));
    }
}

// Neither an output's lanes nor the outputs that it shares a thread with depend on the number of samples, so
// that its sum does not.
inline OutputsParams plan_outputs(const Problem& problem) {
    OutputsParams params = plan_any<OutputsParams>(problem);
    const int64_t taps = meeting_taps(problem), threads = problem.G * problem.O * problem.P / kOutputs;
    int64_t lanes = 1;
    while (lanes < kMaxLanes && taps > kLaneTaps * lanes && threads * lanes < kManyThreads) {
        lanes *= 2;
        ++params.lanes_log2;
    }
    const int64_t step = std::min(ceil_div(problem.P, kOutputs), kMaxThreads / lanes);
    params.segment = static_cast<int32_t>(kOutputs * step);
    params.p_distance = static_cast<int32_t>(step);  // neighbours load neighbours
    params.segments = plan_index_divisor(ceil_div(problem.P, params.segment));
    params.threads_per_row = plan_divisor(step * lanes);
    params.rows_per_block =
        params.segments.divisor > 1 ? 1 : static_cast<int32_t>(kMaxThreads / (step * lanes));
    params.row_blocks = static_cast<uint32_t>(ceil_div(params.rows, params.rows_per_block));
    return params;
}

}  // namespace depthwise
}  // namespace conv1d
