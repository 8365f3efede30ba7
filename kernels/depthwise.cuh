// Depthwise convolution: one input channel a group, any taps, stride and dilation, all dtypes, sm_75 and
// later. Each element of x and y moves once; from some 60 taps on, multiply-adds bind instead. Which of five
// kernels sums an output depends on one sample, as its order of sums does; where several add taps in their
// order, on the number of samples too:
//
// rows     taps that lie near each other, a warp a row (depthwise_rows.cuh)
// sliding  many taps, a block a row or several (depthwise_sliding.cuh)
// padded   filters mostly longer than the row or few positions, a thread an output (depthwise_padded.cuh)
// gathered rows too short for a warp each (gather.cuh)
// outputs  all else, and doubles, a thread or some an output (depthwise_outputs.cuh)
#pragma once
#include <algorithm>
#include <numeric>
#include <type_traits>

#include "problem.h"
#include "depthwise_outputs.cuh"
#include "depthwise_padded.cuh"
#include "depthwise_rows.cuh"
#include "depthwise_sliding.cuh"
#include "gather_plan.cuh"
#include "tile.cuh"

namespace conv1d {
namespace depthwise {

constexpr int kMaxO = 4;
constexpr int64_t kMaxReach = 1 << 27;  // positions: sums of some of them have 32 bits

// Blocks of "gathered" that all run at once, two or three a multiprocessor: then it is the soonest done.
inline bool has_few_blocks(const Problem& problem) {
    const int64_t blocks = problem.G * ceil_div(problem.N * problem.P, gather::kThreads);
    return 2 * blocks <= 5 * problem.device.sm_count && gather::takes(problem);
}

// Stride 1, x contiguous along l. Taps are added in their order by "gathered" up to gather::kShortChain, by
// "outputs" up to kLaneTaps, and by strips, words and sliding: among them the number of samples may choose.
inline Way way_of_neighbours(const Problem& problem) {
    const int64_t K = problem.K, P = problem.P;
    const bool is_fp32 = problem.dtype == Dtype::float32;
    const double outputs = static_cast<double>(problem.N * problem.G * problem.O) * static_cast<double>(P);
    const double products = outputs * static_cast<double>(K);
    if (K <= gather::kShortChain ? has_few_blocks(problem)
                                 : problem.G * P * K <= 1 << 16 && gather::takes(problem))
        return Way::gathered;
    // us by words and by this, bf16: 4x302x229, K4 d2 6.1, 5.5; 1x308x637, K5 d2 5.9, 5.5; but 6x45x1150, K6
    // d9 6.2, 7.7.
    if (K <= (is_fp32 ? 4 : kLaneTaps) && products <= 1.2e6) return Way::outputs;
    // us by words and by this: 2x2102x614, K4 fp32 11.4, 9.9, bf16 10.8, 8.4; 1x262x53528, K10 42, 36 and 39,
    // 25; but mamba_dw4 fp32 342, 348.
    const bool fills_strips = is_fp32 ? K > (outputs > 1.5e7 ? 4 : 3) : K > (P >= 1024 ? 2 : 3);
    if (problem.dilation == 1 && P >= 192 && fills_strips && K <= 128) return Way::strips;
    if (K <= 4 && P < 48) return Way::outputs;
    // us by words and by this: 512x128x16 to 256, K5, fp32 62 and 26, bf16 85 and 26.
    const int64_t some = problem.O * (is_fp32 ? 1 : 2);
    if (P <= std::min<int64_t>(16 * some, 47) && K * P <= 256 * some && gather::takes(problem))
        return Way::gathered;
    if (K > 32) return P < 48 ? Way::outputs : Way::sliding;
    // Words are sooner set out to, but a short row takes a warp as long as one of 128 positions, and each tap
    // costs them more (us by them and by sliding: 1, 8 and 64 samples of 341x58, K17 fp32 5.2, 6.0, 18.5 and
    // 7.0, 7.1, 10.4; 1 and 64 of 341x100, K12 4.7, 16.5 and 6.4, 14.0; 1 and 64 of 445x66 to 890, K18 bf16
    // 6.5, 67 and 7.4, 22; 2x3714x56, K8 bf16 9.6, 7.1; 2x186x55403, K18 d2 fp32 80, 95; 40x35x5358, K29 d4
    // 47, 41).
    const double work = static_cast<double>(problem.N * problem.G * problem.O) * static_cast<double>(K + 8);
    if (P < 32) return Way::words;
    if (P < 128) return work <= (is_fp32 ? 140e3 : 55e3) ? Way::words : Way::sliding;
    if (P < 192) return K <= 8 || work <= 70e3 ? Way::words : Way::sliding;
    if (P >= 400) return K <= 20 ? Way::words : Way::sliding;
    if (products <= 8e6) return K <= (is_fp32 ? 24 : 12) ? Way::words : Way::sliding;
    return K <= (is_fp32 ? 12 : 5) ? Way::words : Way::sliding;
}

// Who sums the outputs: by the numbers of one sample, but where ways add taps in the same order, as the
// number of samples must not change the order of a sum. The bounds are those of measurements on an H200
// (results/findings.md).
inline Way way_of(const Problem& problem) {
    const int64_t K = problem.K, P = problem.P, stride = problem.stride;
    const int64_t common = std::gcd(stride, problem.dilation);
    const int64_t planes = stride / common;  // of x, in each of which taps are neighbours
    const bool by_channel = problem.x_stride_l != 1 && problem.x_stride_c == 1;
    if (problem.dtype == Dtype::float64) return Way::outputs;
    if (by_channel) return Way::sliding;
    if (2 * meeting_taps(problem) <= K && fits_padded(problem)) return Way::padded;
    if (stride == 1 && problem.x_stride_l == 1) return way_of_neighbours(problem);
    // us by sliding and by this: 1x39x54, K47, padding 46 7.8, 4.7; 3x250x582, K12, stride 4 8.7, 5.8. Of
    // fewer taps others are as good, and of many samples better.
    if (K >= 5 && problem.G * P * K <= 1 << 16 && gather::takes(problem)) return Way::gathered;
    if (problem.x_stride_l != 1) return P < 64 ? Way::outputs : Way::sliding;
    const auto outputs_or_gathered = [&] {
        return K <= kLaneTaps && has_few_blocks(problem) ? Way::gathered : Way::outputs;
    };
    if (common == 1 && P >= 16 && P < 64 && K > 16 && K <= 96) return Way::strided;
    if (common == 1 && P >= 64 && stride % 2 == 1 && K > (P < 512 ? 4 : 2) && K <= 32) return Way::strided;
    // us by outputs or sliding and by this, fp32 and bf16: 8x36x39071 to 72, K3 s2 58, 46 and 58, 36;
    // 21x50x8047, K7 s4 26, 22 and 26, 17; 2x645x55009, K8 s2 d9 192, 189 and 207, 129; but 1x3377x31709, K23
    // s4 223, 243 and 224, 239, and of fp32 1x797x43897, K5 s8 49, 52.
    const bool is_fp32 = problem.dtype == Dtype::float32;
    if (common == 1 && P >= 400 && stride % 2 == 0 && stride <= 8 && K <= (is_fp32 ? 16 : 20) &&
        2 * K >= (is_fp32 ? 3 * stride : stride + 1))
        return Way::strided;
    // 16 bits of few taps come faster by 16 bytes: 9x427x8288 to 854, K2 s8 55 us by outputs, 38 by this;
    // 11x3780x1057, K3 s3 76, 62; 3x1391x16985, K4 s4 d2 97, 75.
    if (!is_fp32 && K > 1 && K <= 4 && P >= 300) return Way::strided;
    if ((K <= 4 && (planes > 1 || P < 64)) || 2 * K <= 3 * planes) return outputs_or_gathered();
    if (common == 1 && P >= 64 && stride >= 8 && K <= 32) return Way::strided;
    // Few positions for as many planes: 3x41x2940, K48, stride 8 13.5 us by sliding, 6.6 by this; 4x90x16719
    // to 180, K50, stride 8 58, 34; 2x176x1182, K45 s4 d9 12, 8. But of fewer planes 5x370x1831, K38 s4 d2
    // 14, 21; 11x345x1043, K41 s4 19, 25.
    const int64_t few_positions = stride >= 8 ? 2500 : stride >= 4 ? 200 : 0;
    if (common == 1 && K >= 24 && K <= 63 && P >= 64 && P <= few_positions) return Way::strided;
    // Too few products for setting out. Of few taps in one plane both ways add in their order, so that all
    // samples' products count (us by outputs and by sliding, 1, 8 and 64 samples of 46x2132, K7 s2 d2: 5.4,
    // 10, 36 and 6.0, 6.8, 17; but 49x146x382, K2 s2 d4 10.0, 12.6); of others one sample's.
    const bool in_order = planes == 1 && K <= kLaneTaps;
    const int64_t products = (in_order ? problem.N : 1) * problem.G * problem.O * P * K;
    const int64_t few = in_order ? (K <= 4 ? 48 : 12) : planes > 1 && K <= 16 ? 3 : 1;
    if (products <= few << 17) return outputs_or_gathered();
    if (P < 64 && K >= 192 && fits_padded(problem)) return Way::padded;
    return P < 64 && (planes > 2 || K < 16 || K > 64) ? Way::outputs : Way::sliding;
}

// Whether few_outputs sums long filters sooner: for few positions, and whose window of x no block could
// hold. ms there and here: 27x96x7185, K1782, dilation 4 .20 and .36; 2x574x43521, K1774, dilation 4 13.7
// and 44.
inline bool prefers_few_outputs(const Problem& problem) {
    if (problem.K < 1000 || problem.O != 1 || problem.device.arch < 80) return false;
    if (way_of(problem) != Way::sliding || problem.x_stride_l != 1) return false;
    return problem.P < 64 || plan_sliding(problem).threads_per_row.divisor == 0;
}

template <class Element, Way kWay>
Error launch_rows(const Problem& problem, const RowsParams& params, cudaStream_t stream) {
    const int smem_bytes = kRowsWarps * params.warp_bytes;
    if (smem_bytes > kPlainSmemBytes) {
        const Error error = allow_smem<depthwise_rows_kernel<Element, kWay>>(problem.device);
        if (error != nullptr) return error;
    }
    const int64_t blocks = ceil_div(int64_t{params.rows} * params.segments.divisor, kRowsWarps);
    depthwise_rows_kernel<Element, kWay>
        <<<static_cast<unsigned>(blocks), kRowsWarps * 32, smem_bytes, stream>>>(params);
    return launch_error();
}

template <class Element>
Error launch_element(const Problem& problem, cudaStream_t stream) {
    const auto blocks_of = [](const BlockParams& params) {
        return params.row_blocks * params.segments.divisor;
    };
    const auto threads_of = [](const BlockParams& params) {
        return params.rows_per_block * params.threads_per_row.divisor;
    };
    if constexpr (!std::is_same<Element, double>::value) {
        Way way = way_of(problem);
        RowsParams rows = plan_any<RowsParams>(problem);
        if (way <= Way::strided && !plan_rows(problem, rows, way)) way = Way::sliding;
        if (way == Way::strips) return launch_rows<Element, Way::strips>(problem, rows, stream);
        if (way == Way::words) return launch_rows<Element, Way::words>(problem, rows, stream);
        if (way == Way::strided) return launch_rows<Element, Way::strided>(problem, rows, stream);
        if (way == Way::padded) return launch_padded<Element>(problem, stream);
        if (way == Way::gathered) return launch_gather(problem, stream);
        if (way == Way::sliding) {
            const SlidingParams params = plan_sliding(problem);
            if (params.threads_per_row.divisor > 0) {
                const size_t smem_bytes = params.rows_per_block * params.runs.row_pitch * sizeof(float);
                depthwise_sliding_kernel<Element>
                    <<<blocks_of(params), threads_of(params), smem_bytes, stream>>>(params);
                return launch_error();
            }
        }
    }
    const OutputsParams params = plan_outputs(problem);
    const auto threads = static_cast<unsigned>(round_up(threads_of(params), 32));
    depthwise_outputs_kernel<Element><<<blocks_of(params), threads, 0, stream>>>(params);
    return launch_error();
}

}  // namespace depthwise

// Places in a row are numbers of 32 bits. A block takes at least one row, or a segment of
// kMaxThreads / kMaxLanes positions.
inline bool fits_depthwise(const Problem& any_problem) {
    using namespace depthwise;
    const Problem problem = canonical(any_problem);
    const int64_t reach = (problem.P - 1) * problem.stride + (problem.K - 1) * problem.dilation;
    const int64_t most = std::max({reach, problem.L, problem.pad_left});
    const int64_t rows = problem.N * problem.G * problem.O;
    return problem.C == 1 && problem.O <= kMaxO && most < kMaxReach && !prefers_few_outputs(problem) &&
           problem.x_stride_l <= (int64_t{1} << 31) / problem.L &&
           rows * ceil_div(problem.P, kMaxThreads / kMaxLanes) <= kMaxBlocks;
}

inline Error launch_depthwise(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    switch (problem.dtype) {
        case Dtype::float32:
            return depthwise::launch_element<float>(problem, stream);
        case Dtype::float64:
            return depthwise::launch_element<double>(problem, stream);
        case Dtype::float16:
            return depthwise::launch_element<__half>(problem, stream);
        case Dtype::bfloat16:
            return depthwise::launch_element<__nv_bfloat16>(problem, stream);
    }
    return nullptr;
}

}  // namespace conv1d
