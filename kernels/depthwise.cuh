// Depthwise convolution: one input channel a group, any taps, stride and dilation, all dtypes, sm_75 and
// later. Bound by memory: each element of x and y moves once.
//
// A block takes one or several rows of y (a row: one sample, one output channel), or a segment of a long
// row. Stride and dilation 1: the row's window of x is brought to shared memory as fp32 (fp64), at a shift
// that aligns both the vectors read from there and the vectors of y that a thread stores, whatever the
// alignment of the rows; a thread then slides over 2 x 4 positions, 4 taps at a time:
//
//   x_smem   0 1 2 3 | 4 5 6 7 | ...      positions v*4 .. v*4+3 and taps 0..3 need x_smem[v*4 .. v*4+6]
//
// All else: taps are read through the L1 cache.
#pragma once
#include <algorithm>

#include "problem.h"
#include "tile.cuh"

namespace conv1d {
namespace depthwise {

constexpr int kMaxThreads = 256;
constexpr int kVector = 4;   // neighbouring output positions of a thread
constexpr int kVectors = 2;  // of them at once
constexpr int kMaxO = 4;
constexpr int kSmemBytes = 46080;  // below the 48 KB that need no permission
constexpr int kPieceTaps = 256;    // summed apart, so that the error of many taps stays that of few

struct Params {
    Problem problem;
    int64_t rows;            // of y
    int64_t segment;         // positions of a row that one block takes, a multiple of kVector
    int64_t segments;        // of a row
    int32_t rows_per_block;  // 1 where there are several segments
    int32_t threads_per_row;
    int32_t x_pitch;  // shared memory of one row's window of x, in sums; a multiple of kVector
    int32_t w_pitch;  // likewise of its taps
};

// The part of one row of y that one thread works on.
template <class Element>
struct Row {
    const Element* x;  // position 0 of the input row
    const Element* w;  // its K taps
    Element* y;        // position 0
    typename SumOf<Element>::Type bias;
    int64_t p_begin, p_end;
    int place;  // of the row in the block
    int lane;   // of the thread among the row's
    bool valid;
};

template <class Element>
__device__ __forceinline__ Row<Element> row_of_thread(const Params& params) {
    const Problem& problem = params.problem;
    Row<Element> row;
    row.place = threadIdx.x / params.threads_per_row;
    row.lane = threadIdx.x % params.threads_per_row;
    const int64_t index = blockIdx.x / params.segments * params.rows_per_block + row.place;
    row.p_begin = blockIdx.x % params.segments * params.segment;
    row.p_end = min(row.p_begin + params.segment, problem.P);
    row.valid = index < params.rows;
    const int64_t channels = problem.G * problem.O;
    const int64_t n = row.valid ? index / channels : 0;
    const int64_t o = row.valid ? index % channels : 0;
    row.x =
        static_cast<const Element*>(problem.x) + n * problem.x_stride_n + o / problem.O * problem.x_stride_c;
    row.w = static_cast<const Element*>(problem.w) + o * problem.K;
    row.y = static_cast<Element*>(problem.y) + (n * channels + o) * problem.P;
    row.bias = problem.bias == nullptr ? 0 : widen(static_cast<const Element*>(problem.bias)[o]);
    return row;
}

// Four neighbours of y at p, of which those within [p_begin, p_end) are stored; y + p is aligned to four.
template <class Element>
__device__ __forceinline__ void store_vector(const Row<Element>& row, int64_t p,
                                             const typename SumOf<Element>::Type (&sum)[kVector]) {
    Vector<Element, kVector> out;
#pragma unroll
    for (int i = 0; i < kVector; ++i) out.at[i] = narrow<Element>(sum[i] + row.bias);
    if (p >= row.p_begin && p + kVector <= row.p_end) {
        *reinterpret_cast<Vector<Element, kVector>*>(row.y + p) = out;
        return;
    }
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
        if (p + i >= row.p_begin && p + i < row.p_end) row.y[p + i] = out.at[i];
    }
}

// Stride 1, dilation 1.
template <class Element>
__global__ void __launch_bounds__(kMaxThreads)
    depthwise_sliding_kernel(const __grid_constant__ Params params) {
    using Sum = typename SumOf<Element>::Type;
    using SumVector = Vector<Sum, kVector>;
    extern __shared__ __align__(16) unsigned char smem[];
    const Problem& problem = params.problem;
    const Row<Element> row = row_of_thread<Element>(params);
    Sum* w_smem = reinterpret_cast<Sum*>(smem) + row.place * (params.w_pitch + params.x_pitch);
    Sum* x_smem = w_smem + params.w_pitch;
    const int taps = static_cast<int>(problem.K);

    // Vectors start at the multiple of four in y's memory at or before p_begin.
    const int64_t y_place =
        reinterpret_cast<int64_t>(row.y + row.p_begin) / static_cast<int64_t>(sizeof(Element));
    const int64_t p_first = row.p_begin - (y_place & (kVector - 1));
    const int vectors = static_cast<int>((row.p_end - p_first + kVector - 1) / kVector);
    if (row.valid) {
        for (int k = row.lane; k < taps; k += params.threads_per_row) w_smem[k] = widen(row.w[k]);
        const int64_t l_first = p_first - problem.pad_left;
        const int count = vectors * kVector + taps - 1;
        constexpr int kBatch = 8;  // loads in flight
        for (int i = row.lane; i < count; i += kBatch * params.threads_per_row) {
            Element value[kBatch];
#pragma unroll
            for (int j = 0; j < kBatch; ++j) {
                const int64_t l = l_first + i + j * params.threads_per_row;
                value[j] = l >= 0 && l < problem.L ? row.x[l * problem.x_stride_l] : Element{};
            }
#pragma unroll
            for (int j = 0; j < kBatch; ++j) {
                const int place = i + j * params.threads_per_row;
                if (place < count) x_smem[place] = widen(value[j]);
            }
        }
    }
    __syncthreads();
    if (!row.valid) return;

    const SumVector* w = reinterpret_cast<const SumVector*>(w_smem);
    for (int v = row.lane; v < vectors; v += kVectors * params.threads_per_row) {
        Sum sum[kVectors][kVector] = {};
        SumVector left[kVectors], right[kVectors];
        const SumVector* x[kVectors];
#pragma unroll
        for (int j = 0; j < kVectors; ++j) {
            // A vector past the row's last one repeats that one and is not stored.
            x[j] = reinterpret_cast<const SumVector*>(x_smem) +
                   min(v + j * params.threads_per_row, vectors - 1);
            left[j] = *x[j];
        }
        for (int piece = 0; piece < taps; piece += kPieceTaps) {
            Sum part[kVectors][kVector] = {};
            const int piece_end = min(piece + kPieceTaps, taps);
            int k = piece;
            for (; k + kVector <= piece_end; k += kVector) {
                const SumVector w_frag = w[k / kVector];
#pragma unroll
                for (int j = 0; j < kVectors; ++j) {
                    right[j] = x[j][k / kVector + 1];
#pragma unroll
                    for (int t = 0; t < kVector; ++t) {
#pragma unroll
                        for (int i = 0; i < kVector; ++i) {
                            const int at = i + t;
                            part[j][i] +=
                                w_frag.at[t] * (at < kVector ? left[j].at[at] : right[j].at[at - kVector]);
                        }
                    }
                    left[j] = right[j];
                }
            }
            if (k < piece_end) {
                const SumVector w_frag = w[k / kVector];
#pragma unroll
                for (int j = 0; j < kVectors; ++j) {
                    right[j] = x[j][k / kVector + 1];
#pragma unroll
                    for (int t = 0; t < kVector - 1; ++t) {
                        if (k + t >= piece_end) break;
#pragma unroll
                        for (int i = 0; i < kVector; ++i) {
                            const int at = i + t;
                            part[j][i] +=
                                w_frag.at[t] * (at < kVector ? left[j].at[at] : right[j].at[at - kVector]);
                        }
                    }
                }
            }
#pragma unroll
            for (int j = 0; j < kVectors; ++j) {
#pragma unroll
                for (int i = 0; i < kVector; ++i) sum[j][i] += part[j][i];
            }
        }
#pragma unroll
        for (int j = 0; j < kVectors; ++j) {
            const int place = v + j * params.threads_per_row;
            if (place < vectors) store_vector(row, p_first + static_cast<int64_t>(place) * kVector, sum[j]);
        }
    }
}

// Any stride, any dilation: a thread computes positions threads_per_row apart, four at once.
template <class Element>
__global__ void __launch_bounds__(kMaxThreads)
    depthwise_strided_kernel(const __grid_constant__ Params params) {
    using Sum = typename SumOf<Element>::Type;
    const Problem& problem = params.problem;
    const Row<Element> row = row_of_thread<Element>(params);
    if (!row.valid) return;
    for (int64_t p = row.p_begin + row.lane; p < row.p_end; p += kVector * params.threads_per_row) {
        Sum sum[kVector] = {};
        for (int64_t piece = 0; piece < problem.K; piece += kPieceTaps) {
            Sum part[kVector] = {};
            const int64_t piece_end = min(piece + kPieceTaps, problem.K);
            for (int64_t k = piece; k < piece_end; ++k) {
                const Sum w = widen(row.w[k]);
                const int64_t l_first = k * problem.dilation - problem.pad_left;
#pragma unroll
                for (int i = 0; i < kVector; ++i) {
                    const int64_t l = l_first + (p + i * params.threads_per_row) * problem.stride;
                    if (l >= 0 && l < problem.L) part[i] += w * widen(row.x[l * problem.x_stride_l]);
                }
            }
#pragma unroll
            for (int i = 0; i < kVector; ++i) sum[i] += part[i];
        }
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
            const int64_t place = p + i * params.threads_per_row;
            if (place < row.p_end) row.y[place] = narrow<Element>(sum[i] + row.bias);
        }
    }
}

// Shared memory of one row, in sums: its taps, and its window of x with what a misaligned start and the last
// vector of taps add.
inline int64_t w_pitch(const Problem& problem) { return round_up(problem.K, kVector); }
inline int64_t x_pitch(const Problem& problem, int64_t segment) {
    return round_up(segment + kVector - 1, kVector) + w_pitch(problem) + kVector;
}

inline bool slides(const Problem& problem) {
    return problem.stride == 1 && problem.dilation == 1 && problem.K <= 2048;
}

// `slots` is the shared memory of a block, in sums.
inline Params plan(const Problem& problem, int64_t slots) {
    Params params{};
    params.problem = problem;
    params.rows = problem.N * problem.G * problem.O;
    const bool sliding = slides(problem);
    const int64_t longest =
        sliding ? (slots - 2 * w_pitch(problem) - 2 * kVector) / kVector * kVector : 8192;
    params.segments = ceil_div(problem.P, longest);
    // Few rows are cut further, until each multiprocessor has work.
    while (params.rows * params.segments < 4 * problem.device.sm_count &&
           problem.P > 2048 * params.segments) {
        params.segments *= 2;
    }
    params.segment = round_up(ceil_div(problem.P, params.segments), kVector);
    params.segments = ceil_div(problem.P, params.segment);
    params.w_pitch = static_cast<int32_t>(w_pitch(problem));
    params.x_pitch = static_cast<int32_t>(x_pitch(problem, params.segment));

    // As many passes over the row as 256 threads need, and no more threads than those need.
    const int64_t vectors = ceil_div(sliding ? params.segment + kVector - 1 : params.segment, kVector);
    const int64_t work = sliding ? ceil_div(vectors, kVectors) : vectors;
    int64_t threads = ceil_div(work, ceil_div(work, kMaxThreads));
    if (threads > 16) threads = round_up(threads, 32);
    params.threads_per_row = static_cast<int32_t>(threads);
    const int64_t room = sliding ? slots / (params.w_pitch + params.x_pitch) : kMaxThreads;
    const int64_t rows = std::min(kMaxThreads / threads, room);
    params.rows_per_block = static_cast<int32_t>(params.segments > 1 ? 1 : rows);
    return params;
}

template <class Element>
Error launch_element(const Problem& problem, cudaStream_t stream) {
    using Sum = typename SumOf<Element>::Type;
    const Params params = plan(problem, kSmemBytes / sizeof(Sum));
    const auto blocks =
        static_cast<unsigned>(ceil_div(params.rows, params.rows_per_block) * params.segments);
    const int threads = params.rows_per_block * params.threads_per_row;
    if (slides(problem)) {
        const size_t smem_bytes = params.rows_per_block * (params.w_pitch + params.x_pitch) * sizeof(Sum);
        depthwise_sliding_kernel<Element><<<blocks, threads, smem_bytes, stream>>>(params);
    } else {
        depthwise_strided_kernel<Element><<<blocks, threads, 0, stream>>>(params);
    }
    return launch_error();
}

}  // namespace depthwise

// A block takes at least one row, and segments are at least 512 positions long where there are several.
inline bool fits_depthwise(const Problem& problem) {
    return problem.C == 1 && problem.O <= depthwise::kMaxO &&
           problem.N * problem.G * problem.O * ceil_div(problem.P, 512) <= kMaxBlocks;
}

inline Error launch_depthwise(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    using depthwise::launch_element;
    switch (problem.dtype) {
        case Dtype::float32: return launch_element<float>(problem, stream);
        case Dtype::float64: return launch_element<double>(problem, stream);
        case Dtype::float16: return launch_element<__half>(problem, stream);
        case Dtype::bfloat16: return launch_element<__nv_bfloat16>(problem, stream);
    }
    return nullptr;
}

}  // namespace conv1d
