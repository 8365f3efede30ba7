// Few products an output: each thread gathers its own x, for one position of kO output channels, and threads
// share long sums. Nothing is staged but weights, so that tiny problems take little more than a launch, and
// strides that pass most of x by cost no more than what they read.
#pragma once
#include <algorithm>

#include "problem.h"
#include "tile.cuh"

namespace conv1d {
namespace gather {

constexpr int kThreads = 256;
constexpr int kBatch = 8;            // elements of x that a thread has in flight
constexpr int kMostParts = 32;
constexpr int64_t kChain = 1024;     // products that one thread sums in a line, about

struct Params {
    Problem problem;
    int32_t positions, parts;  // of a block: threads side by side, and those that share a position's products
    int32_t products;          // C * K
    int32_t share;             // of a part
    Divisor taps;
    int64_t total;             // N * P: positions of all samples follow one another
    int64_t p_blocks, o_blocks, blocks;
    int32_t smem_bytes;
};

template <class Element, int kO>
__global__ void __launch_bounds__(kThreads) gather_kernel(const __grid_constant__ Params params) {
    extern __shared__ __align__(16) unsigned char smem[];
    float* const w_smem = reinterpret_cast<float*>(smem);  // [product][kO]; later sums, [part][kO][position]
    const Problem& problem = params.problem;
    const int32_t thread = threadIdx.x, positions = params.positions;
    const int32_t part = thread / positions, position = thread - part * positions;
    const int64_t row = blockIdx.x / params.p_blocks;  // of blocks: kO output channels
    const int64_t index = (blockIdx.x - row * params.p_blocks) * positions + position;
    const int64_t g = row / params.o_blocks, o_begin = (row - g * params.o_blocks) * kO;
    const int outputs = static_cast<int>(min(problem.O - o_begin, int64_t{kO}));
    const bool active = index < params.total;
    const int64_t n = !active ? 0
                      : params.total <= UINT32_MAX
                          ? static_cast<uint32_t>(index) / static_cast<uint32_t>(problem.P)
                          : index / problem.P;
    const int64_t p = index - n * problem.P;

    // The part's products, by channel and tap.
    const int32_t taps = static_cast<int32_t>(problem.K);
    const int32_t begin = min(part * params.share, params.products);
    const int32_t end = active ? min(begin + params.share, params.products) : begin;
    const int64_t tap_step = problem.dilation * problem.x_stride_l;
    const int64_t channel_step = problem.x_stride_c - taps * tap_step;
    const auto l_begin = static_cast<int32_t>(p * problem.stride - problem.pad_left);
    const auto dilation = static_cast<int32_t>(problem.dilation), length = static_cast<int32_t>(problem.L);
    int32_t tap = begin - params.taps.quotient(begin) * taps;
    const Element* x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n +
                       (g * problem.C + params.taps.quotient(begin)) * problem.x_stride_c +
                       l_begin * problem.x_stride_l + tap * tap_step;
    int32_t l = l_begin + tap * dilation;
    Element value[kBatch];
    const auto load = [&](int32_t first) {
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
            const bool inside = first + i < end && static_cast<uint32_t>(l) < static_cast<uint32_t>(length);
            value[i] = inside ? *x : Element{};
            x += tap_step;
            l += dilation;
            if (++tap < taps) continue;
            tap = 0;
            x += channel_step;
            l = l_begin;
        }
    };
    load(begin);  // on its way while weights come

    const Element* const w =
        static_cast<const Element*>(problem.w) + (g * problem.O + o_begin) * params.products;
#pragma unroll 1
    for (int32_t i = thread; i < params.products; i += kThreads) {
#pragma unroll
        for (int o = 0; o < kO; ++o)
            w_smem[i * kO + o] = o < outputs ? widen(w[o * static_cast<int64_t>(params.products) + i]) : 0.0f;
    }
    __syncthreads();

    float sum[kO] = {};
#pragma unroll 1
    for (int32_t first = begin; first < end; first += kBatch) {
        float wide[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) wide[i] = widen(value[i]);
        if (first + kBatch < end) load(first + kBatch);
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
            if (first + i >= end) break;
            const auto w_frag = *reinterpret_cast<const Vector<float, kO>*>(w_smem + (first + i) * kO);
#pragma unroll
            for (int o = 0; o < kO; ++o) sum[o] = fmaf(w_frag.at[o], wide[i], sum[o]);
        }
    }

    const int64_t channel = g * problem.O + o_begin;
    const auto bias_of = [&](int o) {
        return problem.bias == nullptr ? 0.0f : widen(static_cast<const Element*>(problem.bias)[channel + o]);
    };
    Element* const y =
        static_cast<Element*>(problem.y) + (n * problem.G * problem.O + channel) * problem.P + p;
    if (params.parts == 1 && problem.activation == Activation::none) {
#pragma unroll
        for (int o = 0; o < kO; ++o) {
            if (active && o < outputs) y[o * problem.P] = narrow<Element>(sum[o] + bias_of(o));
        }
        return;
    }
    __syncthreads();  // weights have been read
#pragma unroll
    for (int o = 0; o < kO; ++o) w_smem[(part * kO + o) * positions + position] = sum[o];
    __syncthreads();
    if (!active) return;
#pragma unroll 1
    for (int o = part; o < outputs; o += params.parts) {
        float total = bias_of(o);
#pragma unroll 1
        for (int i = 0; i < params.parts; ++i) total += w_smem[(i * kO + o) * positions + position];
        y[o * problem.P] = problem.activation == Activation::none
                               ? narrow<Element>(total)
                               : activate<Element, true>(problem.activation, total);
    }
}

// blocks is 0 where the problem does not suit. N decides neither parts nor kO, which order the sums.
inline Params plan(const Problem& problem, int block_o) {
    Params params{};
    params.problem = problem;
    const int64_t products = problem.C * problem.K;
    if (products > kPlainSmemBytes / 4 / block_o) return params;
    const int64_t o_blocks = ceil_div(problem.O, block_o);
    int64_t parts = 1;
    const auto wants_more = [&] {
        const int64_t p_blocks = ceil_div(problem.P * parts, kThreads);
        return products > kChain * parts ||
               (products > 16 * parts && problem.G * o_blocks * p_blocks < 2 * problem.device.sm_count);
    };
    while (parts < kMostParts && wants_more()) parts *= 2;
    params.parts = static_cast<int32_t>(parts);
    params.positions = kThreads / params.parts;
    params.products = static_cast<int32_t>(products);
    params.share = static_cast<int32_t>(ceil_div(products, parts));
    params.taps = plan_divisor(problem.K);
    params.total = problem.N * problem.P;
    params.p_blocks = ceil_div(params.total, params.positions);
    params.o_blocks = o_blocks;
    params.smem_bytes = static_cast<int32_t>(std::max<int64_t>(products, kThreads) * block_o * 4);
    const int64_t blocks = params.p_blocks * o_blocks * problem.G;
    if (blocks <= kMaxBlocks) params.blocks = blocks;
    return params;
}

inline int block_o(const Problem& problem) {
    return problem.O == 1 ? 1 : problem.O == 2 ? 2 : problem.O <= 4 ? 4 : 8;
}

// What the kernel can compute; `problem` is canonical.
inline bool takes(const Problem& problem) {
    constexpr int64_t kMost = int64_t{1} << 30;  // positions of x are counted in 32 bits
    return problem.dtype != Dtype::float64 && problem.L < kMost && problem.P < kMost &&
           problem.stride < kMost && problem.P * problem.stride < kMost && problem.pad_left < kMost &&
           problem.dilation < kMost && problem.K < kMost && problem.K * problem.dilation < kMost &&
           problem.C < kMost && plan(problem, block_o(problem)).blocks > 0;
}

template <class Element>
Error launch(const Problem& problem, cudaStream_t stream) {
    const Params params = plan(problem, block_o(problem));
    const auto blocks = static_cast<unsigned>(params.blocks);
    switch (block_o(problem)) {
        case 1:
            gather_kernel<Element, 1><<<blocks, kThreads, params.smem_bytes, stream>>>(params);
            break;
        case 2:
            gather_kernel<Element, 2><<<blocks, kThreads, params.smem_bytes, stream>>>(params);
            break;
        case 4:
            gather_kernel<Element, 4><<<blocks, kThreads, params.smem_bytes, stream>>>(params);
            break;
        default:
            gather_kernel<Element, 8><<<blocks, kThreads, params.smem_bytes, stream>>>(params);
    }
    return launch_error();
}

}  // namespace gather

// Few outputs whose taps hardly overlap, or of long sums over few positions; and tiny problems. us by this
// route and by the next best, of 224 random layers (small_sm80 is better at what it takes): 11x527x4212 to
// 1, K1: 48 and 127; 32x413x41 to 6, K1, stride 4: 8 and 50; 2x130x1927 to 4, K7: 12 and 25; 11x5x44 to 5,
// K6: 6 and 8; 46x22x17103 to 1, K1, bf16: 49 and 83. But 7x255x37625 to 2, K10, stride 3: 215 and 140;
// 34x3x74346 to 2, K14: 93 and 32; and of eight outputs, TF32: 16x128x2000 K7 100 and 21, one sample 12 and
// 16.
inline bool fits_gather(const Problem& any_problem) {
    const Problem problem = canonical(any_problem);
    if (!gather::takes(problem)) return false;
    const int64_t products = problem.C * problem.K;
    const int64_t outputs = problem.G * problem.O * problem.P;  // of a sample, as the loads
    const int64_t loads = problem.G * ceil_div(problem.O, 8) * problem.P * products;
    if (problem.O <= 8 && products >= 8 && problem.K <= std::min<int64_t>(problem.stride, 8)) return true;
    if (problem.O <= 8 && products >= 32 && problem.K <= std::min<int64_t>(2 * problem.stride, 8))
        return loads <= 1 << 21;
    if (problem.O < 8 && problem.G == 1 && problem.C >= 80 && problem.K <= 8 * problem.stride)
        return loads <= 1 << 21;
    if (problem.C >= 16 && problem.O >= 8) return false;
    return loads <= 1 << 17 && outputs <= (problem.dtype == Dtype::float32 ? 12288 : 49152);
}

inline Error launch_gather(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    if (problem.dtype == Dtype::float16) return gather::launch<__half>(problem, stream);
    if (problem.dtype == Dtype::bfloat16) return gather::launch<__nv_bfloat16>(problem, stream);
    return gather::launch<float>(problem, stream);
}

}  // namespace conv1d
