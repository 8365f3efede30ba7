// One to eight output channels a group: bound by reading x. "project", for few taps, reads each x once.
#pragma once
#include <algorithm>
#include <numeric>
#include <type_traits>

#include "few_outputs_project.cuh"
#include "gather_plan.cuh"
#include "gemm_sm90_plan.cuh"
#include "mma.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tile.cuh"

namespace conv1d {
namespace few {

// A window of x in shared memory, a few steps ahead of the products; the block's weights lie there
// throughout. A thread computes all outputs of kThreadP positions, 32 apart; warps share the positions and
// the products of a step. Where a sample has few positions, blocks share the reduction too: their sums meet
// in the workspace.
//
// x lies in rows as in memory, in pieces of 16 bytes at their alignment ("pieces"). Of fp32 whose stride
// would let lanes meet in a bank, it lies in planes of positions `stride` apart: tap k reads plane k % cycle,
// from row k / cycle * turn on.
constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kStages = 4;
constexpr int64_t kChannelBytes = 12288;  // of one channel's window, at most
constexpr int64_t kStageBytes = 12288;    // of a step's, about
constexpr int64_t kWeights = 4096;        // of a block
constexpr int64_t kChain = 1024;          // products that one thread sums in a line

template <class Element_, int kO_, int kThreadP_>
struct Tile {
    using Element = Element_;
    static constexpr int kO = kO_;
    static constexpr int kThreadP = kThreadP_;
    static constexpr int kWarpP = 32 * kThreadP;
    static constexpr int kPiece = 16 / sizeof(Element);  // elements
    static constexpr int kBlocks = kO * kThreadP > 16 ? 2 : 3;  // that registers are shared by
};

struct Params {
    Problem problem;
    int32_t p_shift, warps_k;  // of a block: 2^p_shift warps side by side; warps_k share the same positions
    int32_t channels, taps;    // of a step: more than one channel only with all taps
    int32_t tap_steps;         // of one channel
    int32_t steps, split_steps;  // of all, and of a block
    int32_t splits;
    bool in_planes;
    int32_t k_parts, c_parts;  // the warps that share products share taps, and channels
    int32_t items;             // of one channel: pieces, or elements
    Divisor fill_width;        // threads that fill one channel
    int32_t fill_channels;     // that are filled at once
    int32_t share_taps;        // of a part
    Divisor planes;
    Divisor cycle;             // more than all taps where x lies in pieces
    int32_t turn, plane_step; // in elements
    int32_t position_step;    // elements from a position to the next
    int32_t channel_bytes, stage_bytes, w_bytes;
    int64_t p_tiles, blocks;
    size_t smem_bytes;
};

// Where a step begins.
struct Step {
    int32_t channel, tap;

    __device__ __forceinline__ void advance(const Params& params) {
        tap += params.taps;
        if (tap < params.problem.K) return;
        tap = 0;
        channel += params.channels;
    }
    __device__ __forceinline__ int32_t channels(const Params& params) const {
        return min(params.channels, static_cast<int32_t>(params.problem.C) - channel);
    }
    __device__ __forceinline__ int32_t taps(const Params& params) const {
        return min(params.taps, static_cast<int32_t>(params.problem.K) - tap);
    }
};

// Starts to bring a step's x; `x` is position 0 of the group's first channel, `l_begin` what tap 0 of the
// block's first position reads.
template <class Tile>
__device__ __forceinline__ void fill_x(const Params& params, const Step& step, int32_t l_begin,
                                       const typename Tile::Element* x, unsigned char* stage) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int32_t l_step = l_begin + step.tap * static_cast<int32_t>(problem.dilation);
    const int32_t L = static_cast<int32_t>(problem.L), channels = step.channels(params);
    const int32_t width = params.fill_width.divisor, at_once = params.fill_channels;
    const int32_t first = params.fill_width.quotient(threadIdx.x);
    if (first >= at_once) return;
    const Element* row = x + (step.channel + static_cast<int64_t>(first)) * problem.x_stride_c;
    uint32_t target = ptx::smem_address(stage) + first * params.channel_bytes;
#pragma unroll 1
    for (int32_t c = first; c < channels; c += at_once) {
        const int32_t shift = misalignment<Tile::kPiece>(row + l_step);
#pragma unroll 1
        for (int32_t i = threadIdx.x - first * width; i < params.items; i += width) {
            if (sizeof(Element) == 4 && params.in_planes) {
                const int32_t r = params.planes.quotient(i), plane = i - r * params.planes.divisor;
                const int32_t l = l_step + r * static_cast<int32_t>(problem.stride) +
                                  plane * static_cast<int32_t>(problem.dilation);
                const bool inside = l >= 0 && l < L;
                ptx::cp_async<4>(target + (plane * params.plane_step + r) * 4, row + (inside ? l : 0),
                                 inside ? 4 : 0);
                continue;
            }
            const int32_t l = l_step - shift + i * Tile::kPiece;
            const bool inside = l >= 0 && l + Tile::kPiece <= L;
            if (inside || l + Tile::kPiece <= 0 || l >= L) {
                ptx::cp_async_16(target + i * 16, row + l, inside ? 16 : 0);
            } else {  // the row begins or ends inside this piece
                Element* const elements =
                    reinterpret_cast<Element*>(stage + c * params.channel_bytes) + i * Tile::kPiece;
#pragma unroll 1
                for (int j = 0; j < Tile::kPiece; ++j)
                    elements[j] = l + j >= 0 && l + j < L ? row[l + j] : Element{};
            }
        }
        row += at_once * problem.x_stride_c;
        target += at_once * params.channel_bytes;
    }
}

// Brings the weights of all products of a block: those of neighbouring steps are neighbours.
template <class Tile>
__device__ __forceinline__ void fill_w(const Params& params, int64_t g, int32_t begin, int32_t end,
                                       float* w_smem) {
    using Element = typename Tile::Element;
    constexpr int kBatch = 8 / Tile::kO;  // products whose weights are loaded at once
    const int32_t O = static_cast<int32_t>(params.problem.O);
    const int32_t all = static_cast<int32_t>(params.problem.C * params.problem.K);
    const Element* const w = static_cast<const Element*>(params.problem.w) + g * O * all;
#pragma unroll 1
    for (int32_t product = begin + threadIdx.x; product < end; product += kBatch * kThreads) {
        Element weight[kBatch][Tile::kO];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
#pragma unroll
            for (int o = 0; o < Tile::kO; ++o) {
                const bool counts = product + i * kThreads < end && o < O;
                weight[i][o] = counts ? w[static_cast<int64_t>(o) * all + product + i * kThreads] : Element{};
            }
        }
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
            Vector<float, Tile::kO> wide;
#pragma unroll
            for (int o = 0; o < Tile::kO; ++o) wide.at[o] = widen(weight[i][o]);
            float* const target = w_smem + (product - begin + i * kThreads) * Tile::kO;
            if (product + i * kThreads < end) *reinterpret_cast<Vector<float, Tile::kO>*>(target) = wide;
        }
    }
}

// sum += this warp's share of a step's products; taps outside [tap_begin, tap_end) meet no x.
template <class Tile>
__device__ __forceinline__ void multiply(const Params& params, const Step& step, const unsigned char* stage,
                                         const float* w_smem, int32_t x_shift, int32_t part_k, int32_t part_c,
                                         int32_t tap_begin, int32_t tap_end,
                                         const int32_t (&offset)[Tile::kThreadP],
                                         float (&sum)[Tile::kO][Tile::kThreadP]) {
    using Element = typename Tile::Element;
    const int32_t taps = step.taps(params), channels = step.channels(params);
    const int32_t first = max(part_k * params.share_taps, tap_begin - step.tap);
    const int32_t last = min(min((part_k + 1) * params.share_taps, taps), tap_end - step.tap);
    if (part_c >= params.c_parts || first >= last) return;
    const uint32_t turns = params.cycle.quotient(first), first_phase = first - turns * params.cycle.divisor;
    const int32_t wrap = params.turn - static_cast<int32_t>(params.cycle.divisor) * params.plane_step;
    stage += (first_phase * params.plane_step + turns * params.turn) * sizeof(Element);
#pragma unroll 1
    for (int32_t c = part_c; c < channels; c += params.c_parts) {
        // As fill_x has it.
        const int32_t stride_c = static_cast<int32_t>(params.problem.x_stride_c);
        const int32_t shift =
            params.in_planes ? 0 : (x_shift + (step.channel + c) * stride_c) & (Tile::kPiece - 1);
        const Element* x_row = reinterpret_cast<const Element*>(stage + c * params.channel_bytes) + shift;
        const float* w_row = w_smem + (c * taps + first) * Tile::kO;
        uint32_t phase = first_phase;
#pragma unroll 2
        for (int32_t tap = first; tap < last; ++tap) {
            const auto w_frag = *reinterpret_cast<const Vector<float, Tile::kO>*>(w_row);
            float x_frag[Tile::kThreadP];
#pragma unroll
            for (int j = 0; j < Tile::kThreadP; ++j) x_frag[j] = widen(x_row[offset[j]]);
#pragma unroll
            for (int o = 0; o < Tile::kO; ++o) {
#pragma unroll
                for (int j = 0; j < Tile::kThreadP; ++j) sum[o][j] += w_frag.at[o] * x_frag[j];
            }
            w_row += Tile::kO;
            x_row += params.plane_step;
            if (++phase == params.cycle.divisor) {
                phase = 0;
                x_row += wrap;
            }
        }
    }
}

template <class Element>
__device__ __forceinline__ void store_output(const Problem& problem, int64_t channel, int64_t index,
                                             float value) {
    if (problem.bias != nullptr) value += widen(static_cast<const Element*>(problem.bias)[channel]);
    static_cast<Element*>(problem.y)[index] = problem.activation == Activation::none
                                                  ? narrow<Element>(value)
                                                  : activate<Element, true>(problem.activation, value);
}

template <class Tile>
__global__ void __launch_bounds__(kThreads, Tile::kBlocks)
    few_outputs_forward_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    using Element = typename Tile::Element;
    extern __shared__ __align__(16) unsigned char smem[];
    float* const w_smem = reinterpret_cast<float*>(smem);  // [product][kO]
    unsigned char* const x_smem = smem + params.w_bytes;   // [stage][channel], then the warps' sums

    const Problem& problem = params.problem;
    const int32_t K = static_cast<int32_t>(problem.K), C = static_cast<int32_t>(problem.C);
    const int32_t O = static_cast<int32_t>(problem.O), P = static_cast<int32_t>(problem.P);
    const int32_t stride = static_cast<int32_t>(problem.stride);
    const int32_t dilation = static_cast<int32_t>(problem.dilation);
    const uint32_t tile = blockIdx.x / static_cast<uint32_t>(params.splits);
    const int32_t split = blockIdx.x - tile * params.splits;
    const uint32_t sample = tile / static_cast<uint32_t>(params.p_tiles);
    const int64_t n = sample / static_cast<uint32_t>(problem.G), g = sample - n * problem.G;
    const int32_t tile_p = Tile::kWarpP << params.p_shift;
    const int32_t p_begin = (tile - sample * static_cast<int32_t>(params.p_tiles)) * tile_p;
    const int32_t l_begin = p_begin * stride - static_cast<int32_t>(problem.pad_left);
    const Element* const x =
        static_cast<const Element*>(problem.x) + n * problem.x_stride_n + g * C * problem.x_stride_c;

    // The block's steps, and its taps that meet x.
    const int32_t first_step = split * params.split_steps;
    const int32_t steps = min(params.split_steps, params.steps - first_step);
    const int32_t first_group = first_step / params.tap_steps;
    Step step{first_group * params.channels, (first_step - first_group * params.tap_steps) * params.taps};
    const int32_t l_last = l_begin + (min(tile_p, P - p_begin) - 1) * stride;
    const int32_t tap_begin = l_last < 0 ? (-l_last + dilation - 1) / dilation : 0;
    const int32_t beyond = static_cast<int32_t>(problem.L) - l_begin;  // the first tap of which is outside
    const int32_t tap_end = beyond <= 0 ? 0 : min(K, (beyond - 1) / dilation + 1);
    const auto meets = [&](const Step& some) {
        return some.tap < tap_end && some.tap + params.taps > tap_begin;
    };

    Step ahead = step;
    int32_t ahead_index = 0;
    // The products of neighbouring steps are neighbours in w.
    const int32_t first_product = step.channel * K + step.tap;
    const int32_t next_step = first_step + steps, next_group = next_step / params.tap_steps;
    const int32_t next_tap = (next_step - next_group * params.tap_steps) * params.taps;
    const int32_t last_product = min(next_group * params.channels * K + next_tap, C * K);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int32_t warp_k = warp >> params.p_shift;
    const int32_t part_c = warp_k / params.k_parts, part_k = warp_k - part_c * params.k_parts;
    const int warp_p = (warp & ((1 << params.p_shift) - 1)) * Tile::kWarpP;
    const int live = max(0, min((P - p_begin - warp_p + 31) / 32, Tile::kThreadP));
    const int32_t x_shift = misalignment<Tile::kPiece>(x) + l_begin;
    const int32_t thread_x = (warp_p + lane) * params.position_step * static_cast<int32_t>(sizeof(Element));
    int32_t offset[Tile::kThreadP];  // of its positions; those that nobody needs read what the first does
#pragma unroll
    for (int j = 0; j < Tile::kThreadP; ++j) offset[j] = j < live ? 32 * j * params.position_step : 0;
    float sum[Tile::kO][Tile::kThreadP] = {};
#pragma unroll 1
    for (int32_t i = 1 - kStages; i < steps; ++i) {
        if (i >= 0) {
            ptx::cp_async_wait_group<kStages - 2>();
            __syncthreads();  // this step's x is there, that of the step before has been read
        }
        if (ahead_index < steps && meets(ahead))
            fill_x<Tile>(params, ahead, l_begin, x, x_smem + ahead_index % kStages * params.stage_bytes);
        ptx::cp_async_commit_group();
        ahead.advance(params);
        ++ahead_index;
        if (i == -1) fill_w<Tile>(params, g, first_product, last_product, w_smem);
        if (i < 0) continue;
        if (live > 0 && meets(step)) {
            const float* const step_w = w_smem + (step.channel * K + step.tap - first_product) * Tile::kO;
            multiply<Tile>(params, step, x_smem + i % kStages * params.stage_bytes + thread_x, step_w,
                           x_shift + step.tap * dilation, part_k, part_c, tap_begin, tap_end, offset, sum);
        }
        step.advance(params);
    }
    ptx::cp_async_wait_all();
    __syncthreads();  // all x has been read

    float* const sums = reinterpret_cast<float*>(x_smem);  // [warp][kO][kWarpP]
#pragma unroll
    for (int o = 0; o < Tile::kO; ++o) {
#pragma unroll
        for (int j = 0; j < Tile::kThreadP; ++j)
            sums[(warp * Tile::kO + o) * Tile::kWarpP + 32 * j + lane] = sum[o][j];
    }
    __syncthreads();
#pragma unroll 1
    for (int32_t i = threadIdx.x; i < O * tile_p; i += kThreads) {
        const int32_t o = i / Tile::kWarpP >> params.p_shift, p = i - o * tile_p;
        if (p_begin + p >= P) continue;
        const float* const part =
            sums + (p / Tile::kWarpP * Tile::kO + o) * Tile::kWarpP + p % Tile::kWarpP;
        float value = 0.0f;
#pragma unroll 2
        for (int32_t warp_k = 0; warp_k < params.warps_k; ++warp_k)
            value += part[(warp_k << params.p_shift) * Tile::kO * Tile::kWarpP];
        const int64_t channel = g * O + o;
        const int64_t index = (n * problem.G * O + channel) * P + p_begin + p;
        if (params.splits == 1) {
            store_output<Element>(problem, channel, index, value);
        } else {
            const int64_t outputs = problem.N * problem.G * O * P;
            static_cast<float*>(problem.workspace)[split * outputs + index] = value;
        }
    }
#endif
}

// y from the blocks' sums.
template <class Element>
__global__ void __launch_bounds__(kThreads)
    few_outputs_finish_kernel(const __grid_constant__ Problem problem, int32_t splits) {
    const int64_t outputs = problem.N * problem.G * problem.O * problem.P;
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (index >= outputs) return;
    const float* const part = static_cast<const float*>(problem.workspace) + index;
    float value = 0.0f;
#pragma unroll 8
    for (int32_t split = 0; split < splits; ++split) value += part[split * outputs];
    store_output<Element>(problem, index / problem.P % (problem.G * problem.O), index, value);
}

// blocks is 0 where the problem does not suit. Nothing here depends on N: the order of sums must not.
template <class Tile>
Params plan(const Problem& problem) {
    using Element = typename Tile::Element;
    Params params{};
    params.problem = problem;
    constexpr int64_t kMost = int64_t{1} << 28;  // positions and offsets are counted in 32 bits
    if (problem.device.arch < 80 || problem.O > Tile::kO || (problem.x_stride_l != 1 && problem.L > 1) ||
        problem.L > kMost || problem.P * problem.stride > kMost || problem.K * problem.dilation > kMost ||
        problem.pad_left > kMost || problem.C * problem.K > kMost || problem.G * problem.O > kMost ||
        problem.stride > 4096)
        return params;
    const int64_t stride = problem.stride, dilation = problem.dilation, K = problem.K;
    const int64_t common = std::gcd(stride, dilation);
    // Few taps do not repay copies of single elements, unless most of x is left out.
    params.in_planes = sizeof(Element) == 4 && (stride % 2 == 0 ? K > 8 || stride > 8 : stride > 8);
    const int64_t cycle = params.in_planes ? stride / common : K + 1;
    const int64_t planes = params.in_planes ? std::min(cycle, K) : 1;
    params.cycle = plan_divisor(cycle);
    params.planes = plan_divisor(planes);
    params.turn = static_cast<int32_t>(dilation / common);
    params.position_step = static_cast<int32_t>(params.in_planes ? 1 : stride);

    int64_t rows, plane_rows, channel_bytes, items;
    const auto lay_out = [&](int64_t taps) {
        if (params.in_planes) {
            const int64_t needed = rows + (taps - 1) / cycle * params.turn;
            // Neighbours in x, which fall into different planes, fall into different banks.
            plane_rows = planes == 1 ? needed : needed + (ceil_div(32, planes) + 31 * needed) % 32;
            items = needed * planes;
            channel_bytes = round_up(planes * plane_rows * sizeof(Element), 16);
        } else {
            const int64_t span = (rows - 1) * stride + (taps - 1) * dilation + 1;
            items = ceil_div(span + Tile::kPiece - 1, Tile::kPiece);
            channel_bytes = 16 * items;
        }
    };
    // Few warps along a row, for many to share its products, but each should have some products and each
    // multiprocessor some blocks.
    int64_t warps_p = kWarps, most_products = 0, taps = 0;
    for (;; warps_p /= 2) {
        rows = std::min(warps_p * Tile::kWarpP, round_up(problem.P, 32));
        most_products = std::min(kWeights / Tile::kO, kChain * (kWarps / warps_p));
        for (int64_t tap_steps = 1;; ++tap_steps) {
            taps = ceil_div(K, tap_steps);
            lay_out(taps);
            if (taps == 1 || (channel_bytes <= kChannelBytes && taps <= most_products)) break;
        }
        if (warps_p == 1) break;
        const bool too_wide = warps_p * Tile::kWarpP >= 2 * problem.P || channel_bytes > kChannelBytes;
        const bool few_blocks = ceil_div(problem.P, rows) * problem.G < 2 * problem.device.sm_count;
        const bool few_products = problem.C * K < 3 * (kWarps / warps_p);
        if (!too_wide && (!few_blocks || few_products)) break;
    }
    if (channel_bytes > kChannelBytes || items > 4096) return params;
    while (1 << params.p_shift < warps_p) ++params.p_shift;
    params.warps_k = static_cast<int32_t>(kWarps / warps_p);
    params.taps = static_cast<int32_t>(taps);
    params.items = static_cast<int32_t>(items);
    params.fill_width = plan_divisor(ceil_div(items, ceil_div(items, 64)));
    params.fill_channels = static_cast<int32_t>(kThreads / params.fill_width.divisor);
    params.plane_step = static_cast<int32_t>(params.in_planes ? plane_rows : dilation);
    params.channel_bytes = static_cast<int32_t>(channel_bytes);

    int64_t channels = taps < K ? 1 : std::min(problem.C, std::max<int64_t>(1, kStageBytes / channel_bytes));
    channels = std::max<int64_t>(1, std::min(channels, most_products / taps));
    channels = ceil_div(problem.C, ceil_div(problem.C, channels));
    const int64_t steps = ceil_div(problem.C, channels) * ceil_div(K, taps);
    params.channels = static_cast<int32_t>(channels);
    int64_t least_share = INT64_MAX;
    for (int64_t k_parts = 1; k_parts <= params.warps_k; ++k_parts) {
        const int64_t c_parts = params.warps_k / k_parts;
        const int64_t share = ceil_div(channels, c_parts) * ceil_div(taps, k_parts);
        if (share >= least_share) continue;
        least_share = share;
        params.k_parts = static_cast<int32_t>(k_parts);
        params.c_parts = static_cast<int32_t>(c_parts);
        params.share_taps = static_cast<int32_t>(ceil_div(taps, k_parts));
    }
    params.steps = static_cast<int32_t>(steps);
    params.tap_steps = static_cast<int32_t>(ceil_div(K, taps));
    params.p_tiles = ceil_div(problem.P, warps_p * Tile::kWarpP);
    const int64_t step_products = channels * taps;
    const int64_t wanted = ceil_div(2 * problem.device.sm_count, params.p_tiles * problem.G);
    const int64_t least = ceil_div(64 * params.warps_k, step_products);
    const int64_t most = std::max<int64_t>(1, most_products / step_products);
    const int64_t split_steps = std::min(most, std::max(least, ceil_div(steps, wanted)));
    params.splits = static_cast<int32_t>(ceil_div(steps, split_steps));
    params.split_steps = static_cast<int32_t>(ceil_div(steps, params.splits));
    params.splits = static_cast<int32_t>(ceil_div(steps, params.split_steps));

    params.stage_bytes = static_cast<int32_t>(channels * channel_bytes);
    const int64_t weights = std::min(params.split_steps * step_products, problem.C * K) * Tile::kO;
    params.w_bytes = static_cast<int32_t>(round_up(weights * sizeof(float), 16));
    const int64_t stages = std::min<int64_t>(kStages, params.split_steps);
    const int64_t sum_bytes = kWarps * Tile::kO * Tile::kWarpP * sizeof(float);
    params.smem_bytes = params.w_bytes + std::max(stages * params.stage_bytes, sum_bytes);
    const int64_t blocks = params.p_tiles * problem.G * problem.N * params.splits;
    const int64_t outputs = problem.N * problem.G * problem.O * problem.P;
    if (blocks <= kMaxBlocks && outputs / kThreads < kMaxBlocks) params.blocks = blocks;
    return params;
}

template <class Tile>
Error launch(const Problem& problem, cudaStream_t stream) {
    const Params params = plan<Tile>(problem);
    const Error error = allow_smem<few_outputs_forward_kernel<Tile>>(problem.device);
    if (error != nullptr) return error;
    few_outputs_forward_kernel<Tile>
        <<<static_cast<unsigned>(params.blocks), kThreads, params.smem_bytes, stream>>>(params);
    if (params.splits > 1) {
        const int64_t outputs = problem.N * problem.G * problem.O * problem.P;
        using Element = typename Tile::Element;
        const int32_t splits = params.splits;
        few_outputs_finish_kernel<Element>
            <<<static_cast<unsigned>(ceil_div(outputs, kThreads)), kThreads, 0, stream>>>(problem, splits);
    }
    return launch_error();
}

// Calls call(Tile) of the tile that suits.
template <class Call>
auto with_tile(const Problem& problem, Call call) {
    const auto with_element = [&](auto element) {
        using Element = decltype(element);
        const auto with_positions = [&](auto positions) {
            constexpr int kThreadP = decltype(positions)::value;
            if (problem.O == 1) return call(Tile<Element, 1, kThreadP>{});
            if (problem.O == 2) return call(Tile<Element, 2, kThreadP>{});
            if (problem.O <= 4) return call(Tile<Element, 4, kThreadP>{});
            return call(Tile<Element, 8, kThreadP>{});
        };
        // Weights are read once for all positions of a thread; but short sums rather fill multiprocessors.
        if (problem.P <= (problem.C * problem.K <= 256 ? 512 : 64))
            return with_positions(std::integral_constant<int, 1>{});
        return with_positions(std::integral_constant<int, 4>{});
    };
    if (problem.dtype == Dtype::float16) return with_element(__half{});
    if (problem.dtype == Dtype::bfloat16) return with_element(__nv_bfloat16{});
    return with_element(float{});
}

// "project" where one thread can load 16 bytes of each row that it needs, and a sample alone fills half the
// multiprocessors.
inline bool takes_project(const Problem& problem) {
    Problem sample = problem;
    sample.N = 1;
    const auto takes = [&](auto element) {
        const ProjectParams params = plan_project<decltype(element)>(problem);
        const ProjectParams alone = plan_project<decltype(element)>(sample);
        return params.tiles > 0 && 2 * alone.tiles >= problem.device.sm_count;
    };
    return problem.dtype == Dtype::float32 ? takes(float{}) : takes(__half{});
}

// What the kernels can compute; `problem` is canonical.
inline bool takes(const Problem& problem) {
    if (problem.dtype == Dtype::float64 || problem.O > 8) return false;
    if (takes_project(problem)) return true;
    if (problem.device.arch < 80) return false;
    return with_tile(problem, [&](auto tile) { return plan<decltype(tile)>(problem).blocks > 0; });
}

}  // namespace few

// Besides "project": sums of very many products, where rows are short, or where tensor cores would be nearly
// empty (fp32 needs three products there). ms by this route and by the next best: 2x706x59 to 4, K16 bf16
// .018 and .160, fp32 .018 and .140; 3x192x37538 to 3, K11 fp32 .149 and .227, but bf16 .156 and .065;
// 11x65x6545 to 5, K4 bf16 .033 and .018.
inline bool fits_few_outputs(const Problem& any_problem) {
    const Problem problem = canonical(any_problem);
    if (!few::takes(problem)) return false;
    // Of few products gather is sooner done: 2x2x86720 to 2, K3, stride 2, 6.3 us here and 5.2 there.
    if (few::takes_project(problem)) return problem.C * problem.K > 10 || !fits_gather(problem);
    const bool exact = problem.dtype == Dtype::float32 && problem.precision == Precision::ieee;
    const bool is_half = element_bytes(problem.dtype) == 2;
    const bool fits_gemm = (is_half || exact) && fits_gemm_sm90(problem);
    const int64_t products = problem.C * problem.K;
    // In 16 bits very long ones: 9x370x252 to 6, K4 26, 12; 40x599x46 to 3, K15 65, 29; but one sample of
    // 606x188 to 2, K17 14, 29.
    const bool is_long = products >= (is_half && fits_gemm ? 10000 : 1000) &&
                         (problem.P <= 1024 || problem.O <= (exact ? 4 : 1));
    // Of fewer, where the next best is "direct" or, for fp32, tensor cores (us here and by that: bf16
    // 3x280x67127 to 2, K2 105, 308; 59x29x1783 to 7, K7 35, 47; fp32 8x26x5666 to 2, K30 23, 54;
    // 37x26x33749 to 3, K5 181, 224; but fp32 by "direct" 40x56x596 to 3, K8 19, 16; bf16 by tensor cores
    // 1x63x27281 to 2, K11 s2 18, 12).
    const bool gains = is_half ? !fits_gemm : exact && fits_gemm && problem.O <= 4;
    if (!is_long && !(gains && problem.C >= 16 && problem.O < 8)) return false;
    // 4x225x226 to 2, K11, stride 2: 15 us there, 20 here; 15x393x11331 to 2, K7, stride 8: 106 and 178.
    return !fits_gather(problem);
}

inline size_t workspace_few_outputs(const Problem& any_problem) {
    const Problem problem = canonical(any_problem);
    if (few::takes_project(problem)) return 0;
    return few::with_tile(problem, [&](auto tile) -> size_t {
        const int32_t splits = few::plan<decltype(tile)>(problem).splits;
        if (splits == 1) return 0;
        return splits * sizeof(float) * problem.N * problem.G * problem.O * problem.P;
    });
}

inline Error launch_few_outputs(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    return few::with_tile(problem, [&](auto tile) {
        using Tile = decltype(tile);
        using Element = typename Tile::Element;
        if (few::takes_project(problem))
            return few::launch_project<Element>(few::plan_project<Element>(problem), stream);
        return few::launch<Tile>(problem, stream);
    });
}

}  // namespace conv1d
