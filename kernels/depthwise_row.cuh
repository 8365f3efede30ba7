// What the depthwise kernels share: rows of y, and the strip of positions that a thread sums.
#pragma once
#include <algorithm>

#include "problem.h"
#include "tile.cuh"

namespace conv1d {
namespace depthwise {

// What sums an output: kernels, and ways of the rows kernel.
enum class Way { strips, words, strided, sliding, padded, outputs, gathered };

constexpr int kMaxThreads = 256;
constexpr int kSumBytes = 4;
constexpr int kSmemSums = kPlainSmemBytes / kSumBytes;  // of a block
constexpr int kWideBytes = 16;  // what a thread loads or stores at once

// A thread's strip of positions, and what it slides over.
constexpr int kVector = 4;
constexpr int kStripVectors = 3;
constexpr int kStrip = kStripVectors * kVector;
constexpr int kChunkTaps = kVector * (kStripVectors + 1);  // after these the registers' roles repeat
using SumVector = Vector<float, kVector>;
static_assert(kStripVectors % 2 == 1, "strips must be an odd number of vectors to avoid bank conflicts");

// What the kernels read of a problem, and no more, about in the order in which they do: each new 64 bytes of
// parameters take 0.1 us. Numbers have 32 bits by fits_depthwise.
struct Params {
    IndexDivisor segments;  // of a row
    IndexDivisor channels;  // of y
    uint32_t rows;          // of y
    int32_t segment;        // positions of a row that one block or warp takes
    uint32_t N, O;
    const void *x, *w, *bias;
    void* y;
    int64_t x_stride_n, x_stride_c, x_stride_l;
    int32_t L, P, K, stride, dilation, pad_left;
    Activation activation;
};

// Where blocks take whole rows, or one segment of one.
struct BlockParams : Params {
    uint32_t row_blocks;  // blocks for one segment of all rows
    int32_t rows_per_block;
    Divisor threads_per_row;
    bool by_channel;  // x is contiguous along channels, and a block's rows are of one sample
};

// The part of one row of y that one thread works on.
template <class Element>
struct Row {
    const Element* x;  // position 0 of the input row
    const Element* w;  // its K taps
    Element* y;        // position 0
    int32_t p_begin, p_end;
    uint32_t o;  // output channel
    bool valid;
};

// Row `index` of y, which is sample n's and channel o's. Rows and blocks are fewer than 2^31
// (fits_depthwise).
template <class Element>
__device__ __forceinline__ Row<Element> row_at(const Params& params, uint32_t index, uint32_t n, uint32_t o) {
    Row<Element> row;
    row.o = o;
    row.x = static_cast<const Element*>(params.x) + n * params.x_stride_n +
            (params.O == 1 ? o : o / params.O) * params.x_stride_c;
    row.w = static_cast<const Element*>(params.w) + o * int64_t{params.K};
    row.y = static_cast<Element*>(params.y) + index * int64_t{params.P};
    return row;
}

// The block's row `place`.
template <class Element>
__device__ __forceinline__ Row<Element> row_of_block(const BlockParams& params, int place) {
    const uint32_t channels = params.channels.divisor;
    uint32_t index, n, o, segment;
    bool valid;
    // Blocks that run together should share what they read: a row, or rows of neighbouring channels.
    if (params.by_channel) {
        const uint32_t row_block = blockIdx.x % params.row_blocks;
        segment = blockIdx.x / params.row_blocks;
        n = row_block % params.N;
        o = row_block / params.N * params.rows_per_block + place;
        index = n * channels + o;
        valid = o < channels;
    } else {
        const uint32_t row_block = params.segments.quotient(blockIdx.x);
        segment = blockIdx.x - row_block * params.segments.divisor;
        index = row_block * params.rows_per_block + place;
        n = params.channels.quotient(index);
        o = index - n * channels;
        valid = index < params.rows;
    }
    Row<Element> row = row_at<Element>(params, valid ? index : 0, valid ? n : 0, valid ? o : 0);
    row.p_begin = segment * params.segment;
    row.p_end = min(row.p_begin + params.segment, params.P);
    row.valid = valid;
    return row;
}

// The thread's row in the block, and its place among the row's threads.
struct Place {
    int row, lane;
};
__device__ __forceinline__ Place place_of_thread(const BlockParams& params) {
    const int thread = threadIdx.x;
    const int row = params.threads_per_row.quotient(thread);
    return {row, static_cast<int>(thread - row * params.threads_per_row.divisor)};
}

template <class Element>
__device__ __forceinline__ typename SumOf<Element>::Type bias_of(const Params& params, uint32_t o) {
    return params.bias == nullptr ? 0 : widen(static_cast<const Element*>(params.bias)[o]);
}

// Four neighbours of x, as they are multiplied. Those of fp32 by value: from a reference the compiler loads
// them one by one (ms of conformer_dw31 .074 and .0645); of 16 bits it should, as registers do not last for
// all four (mamba_dw4 .189 and .218).
template <class Element>
__device__ __forceinline__ SumVector widen_vector(const Vector<Element, kVector>& vector) {
    SumVector result;
#pragma unroll
    for (int i = 0; i < kVector; ++i) result.at[i] = widen(vector.at[i]);
    return result;
}
__device__ __forceinline__ SumVector widen_vector(SumVector vector) { return vector; }

// Adds kChunkTaps taps, or, where not kWhole, the `taps_left` that there are. `x` and `w` are at the first
// of them; vectors 0 to 2 of the strip's window are in registers on entry and, for the next chunk, on
// return: vector i in window[i % 4].
template <bool kWhole, class Element>
__device__ __forceinline__ void add_chunk(const Vector<Element, kVector>* x, const SumVector* w,
                                          int taps_left, SumVector (&window)[kStripVectors + 1],
                                          float (&part)[kStrip]) {
    constexpr int kGroups = kChunkTaps / kVector;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
        if (!kWhole && g * kVector >= taps_left) break;
        window[(g + kStripVectors) % kGroups] = widen_vector(x[g + kStripVectors]);
        const SumVector w_frag = w[g];
        const auto add = [&](int t) {
#pragma unroll
            for (int i = 0; i < kStrip; ++i) {
                const int at = i + t;
                const float x_at = window[(g + at / kVector) % kGroups].at[at % kVector];
                part[i] = fmaf(w_frag.at[t], x_at, part[i]);
            }
        };
        // One branch a group: with one a tap the compiler would load vectors piece by piece.
        if (kWhole || (g + 1) * kVector <= taps_left) {
#pragma unroll
            for (int t = 0; t < kVector; ++t) add(t);
        } else {
#pragma unroll
            for (int t = 0; t < kVector - 1; ++t) {
                if (g * kVector + t < taps_left) add(t);
            }
        }
    }
}

// A plan without its own numbers.
template <class Params>
Params plan_any(const Problem& problem) {
    Params params{};
    params.channels = plan_index_divisor(problem.G * problem.O);
    params.rows = static_cast<uint32_t>(problem.N * problem.G * problem.O);
    params.N = static_cast<uint32_t>(problem.N);
    params.O = static_cast<uint32_t>(problem.O);
    params.x = problem.x;
    params.w = problem.w;
    params.bias = problem.bias;
    params.y = problem.y;
    params.x_stride_n = problem.x_stride_n;
    params.x_stride_c = problem.x_stride_c;
    params.x_stride_l = problem.x_stride_l;
    params.L = static_cast<int32_t>(problem.L);
    params.P = static_cast<int32_t>(problem.P);
    params.K = static_cast<int32_t>(problem.K);
    params.stride = static_cast<int32_t>(problem.stride);
    params.dilation = static_cast<int32_t>(problem.dilation);
    params.pad_left = static_cast<int32_t>(problem.pad_left);
    params.activation = problem.activation;
    return params;
}

// Of an output's taps, those that can meet x.
inline int64_t meeting_taps(const Problem& problem) {
    return std::min(problem.K, ceil_div(problem.L, problem.dilation));
}

}  // namespace depthwise
}  // namespace conv1d
