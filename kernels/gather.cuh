// Few products an output: each thread gathers its own x, for one position of kO output channels. Long sums
// are added up from parts, which threads share where outputs are few. Nothing is staged but weights, and what
// a thread does before its first load is kept short, so that tiny problems take little more than a launch,
// and strides that pass most of x by cost no more than what they read.
#pragma once
#include <type_traits>

#include "problem.h"
#include "gather_plan.cuh"
#include "tile.cuh"

namespace conv1d {
namespace gather {

// kAlone: there are so many outputs that each thread sums all parts of its own.
template <class Element, int kO, bool kAlone>
__global__ void __launch_bounds__(kThreads, kUnboundBlocks)
    gather_kernel(const __grid_constant__ Params params) {
    extern __shared__ __align__(16) unsigned char smem[];
    const int32_t thread = threadIdx.x, products = params.products;
    float* const bias_smem = reinterpret_cast<float*>(smem);  // [kO]
    float* const w_smem = bias_smem + round_up(kO, 4);  // [product][kO]; later sums, [part][kO][position]
    const int32_t part = thread >> params.positions_log2, position = thread - (part << params.positions_log2);
    const int64_t index = (int64_t{blockIdx.x} << params.positions_log2) + position;
    const int64_t n = params.samples.quotient(index);
    const auto p = static_cast<int32_t>(index - n * params.samples.row.divisor);
    const bool active = n < params.N;
    const uint32_t o_begin = blockIdx.y * kO, channel = blockIdx.z * params.channels + o_begin;
    const int32_t outputs = min(static_cast<int32_t>(params.channels - o_begin), kO);

    // Weights and bias, then x: all on their way before any is waited for.
    const Element* const w = static_cast<const Element*>(params.w) +
                             static_cast<uint64_t>(channel) * static_cast<uint32_t>(products);
    const int32_t known = outputs * products;
    const Element w_first = thread < known ? w[thread] : Element{};
    float bias = 0.0f;
    if (params.bias != nullptr && thread < outputs)
        bias = widen(static_cast<const Element*>(params.bias)[channel + thread]);

    const int64_t row = params.samples.row.divisor;
    Element* const y = static_cast<Element*>(params.y) + n * params.y_sample_step +
                       static_cast<uint64_t>(channel) * row + p;

    // The thread's products, by channel and tap.
    const int32_t begin = min(part * params.share, products);
    const int32_t last = kAlone ? products : min(begin + params.share, products);
    const int32_t end = active ? last : begin;
    const int32_t first_row = params.taps.quotient(begin), taps = params.taps.divisor;
    const int32_t l_begin = p * params.stride - params.pad_left;
    int32_t tap = begin - first_row * taps;
    int32_t l = l_begin + tap * params.dilation;
    const Element* x = static_cast<const Element*>(params.x) + n * params.sample_step +
                       int64_t{blockIdx.z} * params.group_step + int64_t{first_row} * params.row_step +
                       int64_t{l} * params.l_step;
    Element value[kBatch];
    const auto load = [&](int32_t left) {
#pragma unroll
        for (int i = 0; i < kBatch; ++i) value[i] = Element{};
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
            if (i == kBatch / 2 && i >= left) break;
            const bool inside = i < left && static_cast<uint32_t>(l) < static_cast<uint32_t>(params.length);
            if (inside) value[i] = *x;
            const bool is_last = ++tap == taps;
            x += is_last ? params.turn_step : params.tap_step;
            l = is_last ? l_begin : l + params.dilation;
            if (is_last) tap = 0;
        }
    };
    load(end - begin);

    if (thread < kO) bias_smem[thread] = bias;
    if (thread < (kStep - 1) * kO) w_smem[kO * products + thread] = 0.0f;
    const auto store_w = [&](int32_t at, Element w_value) {
        const int32_t o = kO == 1 ? 0 : params.products_of_channel.quotient(at);
        if (at < kO * products) w_smem[(at - o * products) * kO + o] = widen(w_value);
    };
    store_w(thread, w_first);
#pragma unroll 1
    for (int32_t first = thread + kThreads; first < kO * products; first += kBatchW * kThreads) {
        Element w_value[kBatchW];
#pragma unroll
        for (int i = 0; i < kBatchW; ++i) {
            const int32_t at = first + i * kThreads;
            w_value[i] = at < known ? w[at] : Element{};
        }
#pragma unroll
        for (int i = 0; i < kBatchW; ++i) store_w(first + i * kThreads, w_value[i]);
    }
    __syncthreads();

    // The sum of the part at hand, which ends before product `part_end`. A thread that sums several adds up
    // those before in shared memory, behind the weights: registers would cost a block in four.
    float sum[kO] = {};
    float* const total_smem = w_smem + (products + kStep - 1) * kO + thread;
    int32_t part_end = params.share;
    const auto add_total = [&] {
#pragma unroll
        for (int o = 0; o < kO; ++o) {
            if (part_end > params.share) sum[o] += total_smem[o * kThreads];
        }
    };
#pragma unroll 1
    for (int32_t first = begin; first < end; first += kBatch) {
        if (kAlone && first == part_end) {
            add_total();
#pragma unroll
            for (int o = 0; o < kO; ++o) total_smem[o * kThreads] = sum[o], sum[o] = 0.0f;
            part_end += params.share;
        }
        float wide[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) wide[i] = widen(value[i]);
        if (first + kBatch < end) load(end - first - kBatch);
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
            if (i % kStep == 0 && first + i >= end) break;
            const auto w_frag = *reinterpret_cast<const Vector<float, kO>*>(w_smem + (first + i) * kO);
#pragma unroll
            for (int o = 0; o < kO; ++o) sum[o] = fmaf(w_frag.at[o], wide[i], sum[o]);
        }
    }
    if (kAlone) add_total();

    if (params.shared_parts == 1 && params.activation == Activation::none) {
        const auto bias_frag = *reinterpret_cast<const Vector<float, kO>*>(bias_smem);
        Element* target = y;
#pragma unroll
        for (int o = 0; o < kO; ++o, target += row) {
            if (active && o < outputs) *target = narrow<Element>(sum[o] + bias_frag.at[o]);
        }
        return;
    }
    __syncthreads();  // weights have been read
    const int32_t step_log2 = params.positions_log2;
#pragma unroll
    for (int o = 0; o < kO; ++o) w_smem[((part * kO + o) << step_log2) + position] = sum[o];
    __syncthreads();
    if (!active) return;
#pragma unroll 1
    for (int o = part; o < outputs; o += kThreads >> step_log2) {
        float total = w_smem[(o << step_log2) + position];
#pragma unroll 4
        for (int i = 1; i < params.shared_parts; ++i)
            total += w_smem[((i * kO + o) << step_log2) + position];
        total += bias_smem[o];
        y[o * row] = params.activation == Activation::none
                         ? narrow<Element>(total)
                         : activate<Element, true>(params.activation, total);
    }
}

template <class Element>
Error launch(const Problem& problem, cudaStream_t stream) {
    const Plan plan = gather::plan(problem);
    const dim3 blocks(static_cast<unsigned>(plan.p_blocks), static_cast<unsigned>(plan.o_blocks),
                      static_cast<unsigned>(problem.G));
    const auto run = [&](auto* kernel) {
        kernel<<<blocks, kThreads, plan.smem_bytes, stream>>>(plan.params);
        return launch_error();
    };
    const auto run_outputs = [&](auto outputs) {
        constexpr int kO = decltype(outputs)::value;
        return plan.alone ? run(gather_kernel<Element, kO, true>) : run(gather_kernel<Element, kO, false>);
    };
    if (plan.outputs == 1) return run_outputs(std::integral_constant<int, 1>{});
    if (plan.outputs == 2) return run_outputs(std::integral_constant<int, 2>{});
    if (plan.outputs == 4) return run_outputs(std::integral_constant<int, 4>{});
    if (plan.outputs == kOutputs) return run_outputs(std::integral_constant<int, kOutputs>{});
    return run_outputs(std::integral_constant<int, 2 * kOutputs>{});
}

}  // namespace gather

// Not inline: the kernels are compiled once, in gather.cu.
Error launch_gather(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    if (problem.dtype == Dtype::float16) return gather::launch<__half>(problem, stream);
    if (problem.dtype == Dtype::bfloat16) return gather::launch<__nv_bfloat16>(problem, stream);
    return gather::launch<float>(problem, stream);
}

}  // namespace conv1d
