// One to eight output channels a group: bound by reading x. "project", for few taps, reads each x once.
#pragma once
#include <algorithm>

#include "mma.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tile.cuh"

namespace conv1d {
namespace few {

constexpr int kSmemBytes = 46080;  // below the 48 KB that need no permission
constexpr int kPieceProducts = 512;

// Few outputs of few taps (O*K <= kRows): t[o, k, l] = sum over c of w[o, c, k] * x[c, l], which reads each x
// once, from memory straight to registers; then y[o, p] = sum over k of t[o, k, l], through shared memory.
template <class Element_>
struct ProjectTile {
    using Element = Element_;
    using Sum = typename SumOf<Element>::Type;
    static constexpr int kRows = 8;
    static constexpr int kThreadL = 16 / sizeof(Element);  // positions of a thread
    static constexpr int kAhead = 16;                      // channels whose vectors are in flight
    static constexpr int kBatch = 4;                       // channels whose elements are loaded at once
};

struct ProjectParams {
    Problem problem;
    bool vectors;  // a thread's positions are neighbours, one load of 16 bytes; else a block's threads apart
    int32_t threads;
    int32_t tile_p;  // output positions of a block
    int64_t p_tiles, tiles;
    size_t smem_bytes;
};

constexpr int kProjectThreads = 128;

// sum[row][begin + j] += w_row[row] * value[j]
template <class Tile, int kCount>
__device__ __forceinline__ void project(const typename Tile::Sum* w_row, int begin,
                                        const typename Tile::Sum (&value)[kCount],
                                        typename Tile::Sum (&sum)[Tile::kRows][Tile::kThreadL]) {
    constexpr int kVector = 16 / sizeof(typename Tile::Sum);
#pragma unroll
    for (int row = 0; row < Tile::kRows; row += kVector) {
        const auto w_frag = *reinterpret_cast<const Vector<typename Tile::Sum, kVector>*>(w_row + row);
#pragma unroll
        for (int v = 0; v < kVector; ++v) {
#pragma unroll
            for (int j = 0; j < kCount; ++j) sum[row + v][begin + j] += w_frag.at[v] * value[j];
        }
    }
}

template <class Tile>
__global__ void __launch_bounds__(kProjectThreads, 4)
    few_outputs_project_kernel(const __grid_constant__ ProjectParams params) {
    using Element = typename Tile::Element;
    using Sum = typename Tile::Sum;
    using Values = Vector<Element, Tile::kThreadL>;
    constexpr int kVector = 16 / sizeof(Sum);
    constexpr int kRows = Tile::kRows;
    extern __shared__ __align__(16) unsigned char smem[];
    const Problem& problem = params.problem;
    const int32_t tile_l = Tile::kThreadL * params.threads;
    const int32_t channels = static_cast<int32_t>(problem.C);
    const int32_t taps = static_cast<int32_t>(problem.K);
    const int32_t rows = static_cast<int32_t>(problem.O) * taps;
    const int32_t w_count = (channels + Tile::kBatch - 1) / Tile::kBatch * Tile::kBatch * kRows;
    Sum* w_smem = reinterpret_cast<Sum*>(smem);  // [channel][kRows]
    Sum* t_smem = w_smem + w_count;              // [row][tile_l], and before that x

    const uint32_t sample = blockIdx.x / static_cast<uint32_t>(params.p_tiles);
    const int64_t n = sample / static_cast<uint32_t>(problem.G);
    const int64_t g = sample - n * problem.G;
    const int64_t p_begin = (blockIdx.x - sample * params.p_tiles) * params.tile_p;
    // The block's first input position, at or before the first that an output needs.
    const int64_t l_needed = p_begin * problem.stride - problem.pad_left;
    const int32_t lead = params.vectors ? static_cast<int32_t>(l_needed & (Tile::kThreadL - 1)) : 0;
    const int32_t thread_l = threadIdx.x * (params.vectors ? Tile::kThreadL : 1);
    const int32_t step_l = params.vectors ? 1 : params.threads;
    const int64_t l_begin = l_needed - lead + thread_l;
    const Element* x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n +
                       g * channels * problem.x_stride_c + l_begin * problem.x_stride_l;
    const int64_t x_step = step_l * problem.x_stride_l;
    uint32_t inside = 0;  // one bit a position
#pragma unroll
    for (int j = 0; j < Tile::kThreadL; ++j) {
        const bool in = static_cast<uint64_t>(l_begin + j * step_l) < static_cast<uint64_t>(problem.L);
        inside |= static_cast<uint32_t>(in) << j;
    }
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    // Of vectors, each thread copies for itself, kAhead channels ahead, what only it reads.
    auto* const ring = reinterpret_cast<Values*>(t_smem) + threadIdx.x;  // [kAhead][threads]
    const bool in = inside & 1;
    const auto copy = [&](int32_t c, int32_t slot) {
        ptx::cp_async_16(ptx::smem_address(ring + slot * params.threads), x, in && c < channels ? 16 : 0);
        ptx::cp_async_commit_group();
        if (c + 1 < channels) x += problem.x_stride_c;
    };
    if (params.vectors) {
        if (!in) x -= l_begin;
#pragma unroll 1
        for (int32_t c = 0; c < Tile::kAhead; ++c) copy(c, c);
    }
#endif
    const Element* w = static_cast<const Element*>(problem.w) + g * rows * channels;
    for (int32_t i = threadIdx.x; i < w_count; i += params.threads) {
        const int32_t c = i / kRows, row = i % kRows;
        const int32_t o = row / taps, k = row - o * taps;
        w_smem[i] = row < rows && c < channels ? widen(w[(o * channels + c) * taps + k]) : 0;
    }
    __syncthreads();

    Sum sum[kRows][Tile::kThreadL] = {};
    if (params.vectors) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
        int32_t slot = 0;
#pragma unroll 1
        for (int32_t c = 0; c < channels; ++c) {
            ptx::cp_async_wait_group<Tile::kAhead - 1>();
            const Values values = ring[slot * params.threads];
            Sum wide[Tile::kThreadL];
#pragma unroll
            for (int j = 0; j < Tile::kThreadL; ++j) wide[j] = widen(values.at[j]);
            project<Tile, Tile::kThreadL>(w_smem + c * kRows, 0, wide, sum);
            copy(c + Tile::kAhead, slot);
            slot = slot + 1 < Tile::kAhead ? slot + 1 : 0;
        }
        ptx::cp_async_wait_all();
        __syncthreads();  // t may lie where x lay
#endif
    } else {
        constexpr int kHalf = Tile::kThreadL < 4 ? Tile::kThreadL : 4;  // positions at a time
#pragma unroll
        for (int half = 0; half < Tile::kThreadL; half += kHalf) {
            const Element* first = x + half * x_step;
#pragma unroll 1
            for (int32_t c_begin = 0; c_begin < channels; c_begin += Tile::kBatch) {
                Element value[Tile::kBatch][kHalf];
#pragma unroll
                for (int i = 0; i < Tile::kBatch; ++i) {
                    const Element* source = first;
#pragma unroll
                    for (int j = 0; j < kHalf; ++j) {
                        const bool counts = (inside >> (half + j) & 1) && c_begin + i < channels;
                        value[i][j] = counts ? *source : Element{};
                        source += x_step;
                    }
                    first += problem.x_stride_c;
                }
#pragma unroll
                for (int i = 0; i < Tile::kBatch; ++i) {
                    Sum wide[kHalf];
#pragma unroll
                    for (int j = 0; j < kHalf; ++j) wide[j] = widen(value[i][j]);
                    project<Tile, kHalf>(w_smem + (c_begin + i) * kRows, half, wide, sum);
                }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
        if (i >= rows) break;
        Sum* const t = t_smem + i * tile_l + thread_l;
        if (params.vectors) {
#pragma unroll
            for (int j = 0; j < Tile::kThreadL; j += kVector) {
                Vector<Sum, kVector> piece;
#pragma unroll
                for (int v = 0; v < kVector; ++v) piece.at[v] = sum[i][j + v];
                *reinterpret_cast<Vector<Sum, kVector>*>(t + j) = piece;
            }
        } else {
#pragma unroll
            for (int j = 0; j < Tile::kThreadL; ++j) t[j * step_l] = sum[i][j];
        }
    }
    __syncthreads();

    const int32_t stride = static_cast<int32_t>(problem.stride);
    const int32_t tap_step = tile_l + static_cast<int32_t>(problem.dilation);  // from a tap to the next
    const int32_t outputs = static_cast<int32_t>(min(problem.P - p_begin, int64_t{params.tile_p}));
    for (int32_t o = 0; o < problem.O; ++o) {
        const int64_t channel = g * problem.O + o;
        Sum bias = 0;
        if (problem.bias != nullptr) bias = widen(static_cast<const Element*>(problem.bias)[channel]);
        Element* y = static_cast<Element*>(problem.y) +
                     (n * problem.G * problem.O + channel) * problem.P + p_begin;
#pragma unroll 4
        for (int32_t p = threadIdx.x; p < outputs; p += params.threads) {
            const Sum* t = t_smem + o * taps * tile_l + p * stride + lead;
            Sum total = 0;
            for (int32_t k = 0; k < taps; ++k) total += t[k * tap_step];
            y[p] = problem.activation == Activation::none
                       ? narrow<Element>(total + bias)
                       : activate<Element, true>(problem.activation, total + bias);
        }
    }
}

// tiles is 0 where the problem does not suit.
template <class Tile>
ProjectParams plan_project(const Problem& problem) {
    using Element = typename Tile::Element;
    ProjectParams params{};
    params.problem = problem;
    if (problem.O > Tile::kRows || problem.K > Tile::kRows || problem.O * problem.K > Tile::kRows ||
        problem.C > kPieceProducts || problem.stride > problem.K || problem.dilation > 512) {
        return params;
    }
    const auto in_vectors = [](int64_t count) { return count % Tile::kThreadL == 0; };
    params.vectors = problem.device.arch >= 80 && problem.x_stride_l == 1 && in_vectors(problem.L) &&
                     in_vectors(problem.x_stride_c) && in_vectors(problem.x_stride_n) &&
                     reinterpret_cast<uintptr_t>(problem.x) % 16 == 0;
    const int64_t span = (problem.K - 1) * problem.dilation + (params.vectors ? Tile::kThreadL - 1 : 0);
    const auto set = [&](int64_t threads) {
        const int64_t tile_l = threads * Tile::kThreadL;
        params.threads = static_cast<int32_t>(threads);
        params.tile_p = static_cast<int32_t>(tile_l > span ? (tile_l - 1 - span) / problem.stride + 1 : 0);
        const int64_t t_bytes = problem.O * problem.K * tile_l * sizeof(typename Tile::Sum);
        const int64_t x_bytes = params.vectors ? threads * Tile::kAhead * 16 : 0;
        params.smem_bytes = round_up(problem.C, Tile::kBatch) * Tile::kRows * sizeof(typename Tile::Sum) +
                            std::max(t_bytes, x_bytes);
        if (params.smem_bytes > kSmemBytes || 2 * span > tile_l) return false;
        params.p_tiles = ceil_div(problem.P, params.tile_p);
        params.tiles = params.p_tiles * problem.G * problem.N;
        if (params.tiles > kMaxBlocks) params.tiles = 0;
        return params.tiles > 0;
    };
    // The largest block that fits, or a smaller one where that leaves multiprocessors without work.
    int64_t threads = kProjectThreads;
    while (threads > 64 && !set(threads)) threads /= 2;
    if (!set(threads)) {
        params.tiles = 0;
        return params;
    }
    while (threads > 64 && params.tiles < 4 * problem.device.sm_count && 8 * span <= threads * Tile::kThreadL)
        set(threads /= 2);
    // Rows much shorter than the smallest block: the general kernel, which counts through samples.
    if (2 * problem.P < params.tile_p) params.tiles = 0;
    return params;
}

template <class Tile>
Error launch_project(const ProjectParams& params, cudaStream_t stream) {
    few_outputs_project_kernel<Tile>
        <<<static_cast<unsigned>(params.tiles), params.threads, params.smem_bytes, stream>>>(params);
    return launch_error();
}
// Calls launch(element) for the problem's element type.
template <class Launch>
Error with_element(const Problem& problem, Launch launch) {
    switch (problem.dtype) {
        case Dtype::float16:
            return launch(__half{});
        case Dtype::bfloat16:
            return launch(__nv_bfloat16{});
        default:
            return launch(float{});
    }
}

}  // namespace few

// Enough blocks for half the multiprocessors, whatever the batch.
inline bool fits_few_outputs(const Problem& any_problem) {
    if (any_problem.dtype == Dtype::float64) return false;
    const Problem problem = canonical(any_problem);
    Problem sample = problem;
    sample.N = 1;
    const auto fits = [&](auto element) {
        using Tile = few::ProjectTile<decltype(element)>;
        return few::plan_project<Tile>(problem).tiles > 0 &&
               2 * few::plan_project<Tile>(sample).tiles >= problem.device.sm_count;
    };
    if (problem.dtype == Dtype::float32) return fits(float{});
    return fits(__half{});
}

inline Error launch_few_outputs(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    return few::with_element(problem, [&](auto element) {
        using Tile = few::ProjectTile<decltype(element)>;
        return few::launch_project<Tile>(few::plan_project<Tile>(problem), stream);
    });
}

}  // namespace conv1d
