// How route "gather" (gather.cuh) cuts a problem, and which problems it takes.
#pragma once
#include <algorithm>

#include "problem.h"
#include "tile.cuh"

namespace conv1d {
namespace gather {

constexpr int kThreads = 256;
constexpr int kBatch = 12;           // elements of x that a thread has in flight
constexpr int kBatchW = 4;           // and of w
constexpr int kOutputs = 8;          // of a thread, or twice as many
constexpr int kMostParts = 32;
constexpr int kStep = 4;             // products between two looks at the end; zeros follow the last weight
constexpr int64_t kChain = 1024;     // products that one thread sums in a line, about,
constexpr int64_t kShortChain = 16;  // and that it does sum so where they are all

// A block is [part][position]: threads side by side, and those that share a position's products. What the
// kernel reads, and no more, in the order in which it does: each new 64 bytes of parameters take 0.1 us.
struct Params {
    int32_t positions_log2;
    SampleDivisor samples;            // whose positions follow one another
    int32_t products, share;          // C * K, and those of a part
    int32_t channels;                 // O
    const void* w;
    const void* bias;
    Divisor taps;
    int32_t stride, pad_left, dilation, length;
    const void* x;
    int64_t sample_step, group_step;  // in x
    int32_t row_step, l_step;         // likewise, from channel to channel and position to position,
    int32_t tap_step, turn_step;      // tap to tap, and a channel's last tap to the next's first
    void* y;
    int64_t y_sample_step;
    int64_t N;
    Divisor products_of_channel;
    int32_t shared_parts;             // 1 where each thread sums all of its own
    Activation activation;
};

// How it is launched. p_blocks is 0 where the problem does not suit.
struct Plan {
    Params params;
    int64_t p_blocks, o_blocks;
    int32_t outputs;  // of a thread
    bool alone;       // each thread sums all parts, of which there are several
    int32_t smem_bytes;
};

// N does not decide parts, which order the sums, but whether threads share them.
inline Plan plan(const Problem& problem) {
    Plan plan{};
    const int64_t products = problem.C * problem.K;
    const int64_t few_outputs = problem.O <= 2 ? problem.O : problem.O <= 4 ? 4 : kOutputs;
    const int64_t few_rows = problem.G * ceil_div(problem.O, few_outputs);  // of blocks
    int64_t sharers = 1;
    const auto wants_more = [&] {
        const int64_t p_blocks = ceil_div(problem.P * sharers, kThreads);
        return products > kChain * sharers ||
               (products > kShortChain * sharers && few_rows * p_blocks < 2 * problem.device.sm_count);
    };
    while (sharers < kMostParts && wants_more()) sharers *= 2;
    const int64_t share = round_up(ceil_div(products, sharers), kBatch), parts = ceil_div(products, share);
    const auto smem_bytes = [&](int64_t outputs, bool alone) {
        const int64_t w_rows = products + kStep - 1;
        const int64_t rows = alone ? w_rows + kThreads : std::max<int64_t>(w_rows, kThreads);
        return (round_up(outputs, 4) + rows * outputs) * 4;
    };
    // One and a half blocks a multiprocessor, and room for the sums of earlier parts.
    const int64_t outputs = few_rows * problem.N * problem.P;  // of threads
    plan.alone = parts > 1 && 2 * outputs >= 3 * kThreads * problem.device.sm_count &&
                 smem_bytes(few_outputs, true) <= kPlainSmemBytes;
    if (plan.alone) sharers = 1;
    Params& params = plan.params;
    params.positions_log2 = 8;
    for (int64_t count = 1; count < sharers; count *= 2) --params.positions_log2;
    params.samples = plan_sample_divisor(problem.N, problem.P);
    params.products = static_cast<int32_t>(products);
    params.share = static_cast<int32_t>(share);
    params.channels = static_cast<int32_t>(problem.O);
    params.w = problem.w;
    params.bias = problem.bias;
    params.taps = plan_divisor(problem.K);
    params.stride = static_cast<int32_t>(problem.stride);
    params.pad_left = static_cast<int32_t>(problem.pad_left);
    params.dilation = static_cast<int32_t>(problem.dilation);
    params.length = static_cast<int32_t>(problem.L);
    params.x = problem.x;
    params.sample_step = problem.x_stride_n;
    params.group_step = problem.C * problem.x_stride_c;
    params.row_step = static_cast<int32_t>(problem.x_stride_c);
    params.l_step = static_cast<int32_t>(problem.x_stride_l);
    params.tap_step = static_cast<int32_t>(problem.dilation * problem.x_stride_l);
    params.turn_step = static_cast<int32_t>(problem.x_stride_c - (problem.K - 1) * params.tap_step);
    params.y = problem.y;
    params.y_sample_step = problem.G * problem.O * problem.P;
    params.N = problem.N;
    params.products_of_channel = plan_divisor(products);
    params.shared_parts = static_cast<int32_t>(plan.alone ? 1 : parts);
    params.activation = problem.activation;

    const int64_t p_blocks = ceil_div(problem.N * problem.P, kThreads / sharers);
    // Twice the outputs a thread where enough blocks remain: 1024x3x512 to 64, K3, bf16 150 and 77 us.
    const bool many = problem.O > kOutputs && few_rows * p_blocks >= 4 * problem.device.sm_count &&
                      smem_bytes(2 * kOutputs, plan.alone) <= kPlainSmemBytes;
    plan.outputs = static_cast<int32_t>(many ? 2 * kOutputs : few_outputs);
    plan.smem_bytes = static_cast<int32_t>(smem_bytes(plan.outputs, plan.alone));
    plan.o_blocks = ceil_div(problem.O, plan.outputs);
    if (plan.smem_bytes <= kPlainSmemBytes && plan.o_blocks <= kMaxBlockRows && p_blocks <= kMaxBlocks)
        plan.p_blocks = p_blocks;
    return plan;
}

// What the kernel can compute; `problem` is canonical.
inline bool takes(const Problem& problem) {
    // Positions of x are counted in 32 bits, and steps from one product's to the next's.
    constexpr int64_t kMost = int64_t{1} << 30;
    return problem.dtype != Dtype::float64 && problem.L < kMost && problem.P < kMost &&
           problem.stride < kMost && problem.P * problem.stride < kMost && problem.pad_left < kMost &&
           problem.dilation < kMost && problem.K < kMost && problem.K * problem.dilation < kMost &&
           problem.x_stride_l < kMost && problem.K * problem.dilation * problem.x_stride_l < kMost &&
           problem.x_stride_c < kMost && problem.C < kMost && problem.G <= kMaxBlockRows &&
           problem.G * problem.O < kMost && problem.C * problem.K < kMost && plan(problem).p_blocks > 0;
}

}  // namespace gather

// Tiny problems, taps that hardly overlap, and few outputs of long sums over few positions. us by this route
// and by the next best, TF32 and bf16, of some 700 random layers of few channels or small groups: 26x6x29597
// to 4, K1 15, 19 and 15, 27; 19x90x16678 to 360, K1 s3 g30 84, 94 and 62, 119; 10x76x2205 to 418, K5 s3 g38
// 14, 16 and 13, 20; 3x48x418 to 12, K22 s3 g6 6, 9 and 6, 10; 2x1488x50 to 248, K12 g124 8.5, 12 and 8.9,
// 12; 11x527x4212 to 1, K1 48, 127; 1x66x120270 to 7, K2 25, 32 and 28, 22 (fp32 26, 64). But 40x345x696 to
// 1380, K7 s3 g115 83, 54 and 83, 71; 7x255x37625 to 2, K10 s3 215, 140; 6x516x8190 to 516, K12 s8 g43 92, 86
// and 74, 55; and of eight outputs 16x128x2000 K7 100, 21. Many samples that alone leave rows short are what
// its bound costs: 33x40x2210 to 35, K7 g5 29, 24 and 33, 21; 42x1x4392 to 36, K21 s2 18, 15 and 19, 17.
inline bool fits_gather(const Problem& any_problem) {
    const Problem problem = canonical(any_problem);
    if (!gather::takes(problem)) return false;
    constexpr int64_t kFewProducts = 300;
    const int64_t products = problem.C * problem.K;
    const int64_t loads = problem.G * ceil_div(problem.O, 8) * problem.P * products;  // of a sample
    if (problem.O <= 8 && problem.K <= std::min<int64_t>(problem.stride, 8)) return true;
    // us by this and by gemm_sm90, bf16: 43x115x716 to 6, K3 41, 14; 63x213x403 to 2, K9 61, 22.
    if (element_bytes(problem.dtype) == 2 && problem.device.arch == 90 && problem.C >= 16 && problem.O < 8 &&
        pays_for_few_outputs(problem))
        return false;
    if (problem.O <= 8 && products >= 32 && problem.K <= std::min<int64_t>(2 * problem.stride, 8))
        return loads <= 1 << 21 || (problem.dtype == Dtype::float32 && products <= kFewProducts);
    if (problem.O < 8 && problem.G == 1 && problem.C >= 80 && problem.K <= 8 * problem.stride)
        return loads <= 1 << 21;
    if (problem.C >= 16 && problem.O >= 8) return false;
    const bool is_ieee = problem.dtype == Dtype::float32 && problem.precision == Precision::ieee;
    if (loads <= (problem.G > 1 && !is_ieee ? 3 << 18 : 1 << 20)) return true;
    return problem.K <= 2 * problem.stride && products <= (problem.O <= 32 ? kFewProducts : 10);
}

Error launch_gather(const Problem& any_problem, cudaStream_t stream);  // gather.cuh, for other routes too

}  // namespace conv1d
