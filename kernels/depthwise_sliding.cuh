// Depthwise rows of many taps, by blocks: a block takes one or several rows of y, or a segment of a long one.
// The segment's window of x lies in shared memory, in runs within which taps are neighbours. A thread slides
// over a strip of a run; y is put in order where x has been.
#pragma once
#include <algorithm>
#include <numeric>
#include <type_traits>

#include "problem.h"
#include "mma.cuh"
#include "ptx.cuh"
#include "depthwise_row.cuh"

namespace conv1d {
namespace depthwise {

constexpr int kAlignBytes = 32;  // where the stores of a warp begin: of parts of sectors, L2 takes fewer
constexpr int kPieceTaps = 256;  // summed apart, so that the error of many taps stays that of few
static_assert(kPieceTaps % kChunkTaps == 0, "pieces must end with a chunk");
constexpr int kSlidingThreads = 128;  // of a block of several rows: small blocks wait and work in turns
template <class Element>
constexpr int kBatch = sizeof(Element) == 2 ? 16 : 4;  // loads at once
constexpr int kManyTaps = 64;  // of which those that see padding are worth to be left out
constexpr int kLaneRows = 8;   // rows of neighbouring channels that a warp loads at once
constexpr int kRowGroups = 4;  // of these in a block, at most
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
constexpr int kSlidingBlocks = 3;
#else
constexpr int kSlidingBlocks = 1;
#endif

// The runs of sliding. With s = stride / gcd(stride, dilation) and d = dilation / gcd(stride, dilation), taps
// q, q + s, q + 2*s, ... read x d output positions apart: they share plane q, which holds x from offset
// q*dilation on, a stride apart. A run is what is a multiple of d apart in a plane. For example, stride 2:
//
//   plane 0   offsets 0 2 4 6 ...   taps 0 2 4 ...
//   plane 1   offsets 1 3 5 7 ...   taps 1 3 5 ...
//
// and with dilation 2 and stride 1, run 0 of the only plane has offsets 0 2 4 ..., run 1 has 1 3 5 ...
struct Runs {
    int32_t planes;  // that have taps
    int32_t tap_step;  // between neighbouring taps of a plane: s
    int32_t most_taps, planes_of_most;  // of the first planes; the others have one less
    int32_t residues;  // runs of a plane: d
    uint32_t inverse;  // 2^32 / d, rounded up
    int32_t w_pitch;   // shared memory of a plane's taps, in sums; a multiple of kVector
    int32_t run_pitch;  // likewise of a run
    int32_t row_pitch;  // of all of a row
};

struct SlidingParams : BlockParams {
    Runs runs;
};

// Where a row's positions begin in its plan: of runs of neighbours, at the aligned y before, so that vectors
// of a strip are aligned.
template <class Element>
__device__ __forceinline__ int lead_of(const SlidingParams& params, const Row<Element>& row) {
    return params.runs.residues == 1 ? misalignment<kWideBytes / sizeof(Element)>(row.y + row.p_begin) : 0;
}

// Whether numbers go to shared memory without registers: where the architecture has such copies and they need
// no conversion.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
template <class Element>
constexpr bool kAsync = sizeof(Element) == sizeof(float);
#else
template <class Element>
constexpr bool kAsync = false;
#endif

// Where position i of a plane lies in it. `divisor` is the number of residues, its `inverse` 2^32 / divisor
// rounded up: exact, as positions times divisor are fewer than 2^32.
__device__ __forceinline__ int place_in_plane(const Runs& runs, int i) {
    if (runs.residues == 1) return i;
    const int run = static_cast<int>(static_cast<uint64_t>(static_cast<uint32_t>(i)) * runs.inverse >> 32);
    return (i - run * runs.residues) * runs.run_pitch + run;
}

// Brings what a row reads of x, plane after plane, by the threads of that row; `x` is under the segment's
// first position and tap 0, and a plane needs `count` positions.
template <class Element>
__device__ __forceinline__ void fetch_row(const SlidingParams& params, const Element* x, const Inside& inside,
                                          int count, int lead, int lane, float* x_smem) {
    const Runs& runs = params.runs;
    const int threads = params.threads_per_row.divisor, stride = params.stride;
    const uint32_t inside_count = inside.end - inside.begin;
    int at = lane * stride;  // of x, from the first
    const int step = threads * stride;
    const Element* source = x + at * params.x_stride_l;
    const int64_t step_x = step * params.x_stride_l;
    at -= inside.begin;
    if constexpr (kAsync<Element>) {
        if (runs.planes == 1) {
            const uint32_t divisor = runs.residues;
            const int step_run = divisor == 1 ? threads : threads / divisor;
            const int step_residue = threads - step_run * runs.residues;
            const int step_bytes = (step_residue * runs.run_pitch + step_run) * sizeof(Element);
            const int wrap_bytes = (1 - runs.residues * runs.run_pitch) * static_cast<int>(sizeof(Element));
            uint32_t target = ptx::smem_address(x_smem + place_in_plane(runs, lead + lane));
            int residue = divisor == 1 ? 0 : lane % divisor;
#pragma unroll 4
            for (int i = lane; i < count; i += threads) {
                const bool is_inside = static_cast<uint32_t>(at) < inside_count;
                ptx::cp_async<sizeof(Element)>(target, source, is_inside ? sizeof(Element) : 0);
                target += step_bytes;
                residue += step_residue;
                if (residue >= runs.residues) {
                    residue -= runs.residues;
                    target += wrap_bytes;
                }
                source += step_x;
                at += step;
            }
            return;
        }
    }
    // From the end of one plane to the beginning of the next.
    const int wrap = params.dilation - count * stride;
    const int64_t wrap_x = wrap * params.x_stride_l;
    struct {
        int i, left, plane_first;
    } next = {lane, count * runs.planes - lane, 0};
    const auto target_of = [&](auto& place) {
        return x_smem + place.plane_first + place_in_plane(runs, lead + place.i);
    };
#pragma unroll 1
    while (next.left > 0) {
        Element values[kBatch<Element>];
        auto stored = next;
#pragma unroll
        for (int j = 0; j < kBatch<Element>; ++j) {
            if (next.left <= 0) break;
            while (next.i >= count) {
                next.i -= count;
                next.plane_first += runs.residues * runs.run_pitch;
                at += wrap;
                source += wrap_x;
            }
            const bool is_inside = static_cast<uint32_t>(at) < inside_count;
            if constexpr (kAsync<Element>) {
                ptx::cp_async<sizeof(Element)>(ptx::smem_address(target_of(next)), source,
                                               is_inside ? sizeof(Element) : 0);
            } else {
                values[j] = is_inside ? *source : narrow<Element>(0);
            }
            next.i += threads;
            next.left -= threads;
            at += step;
            source += step_x;
        }
        if constexpr (!kAsync<Element>) {
#pragma unroll
            for (int j = 0; j < kBatch<Element>; ++j) {
                if (stored.left <= 0) break;
                while (stored.i >= count) {
                    stored.i -= count;
                    stored.plane_first += runs.residues * runs.run_pitch;
                }
                *target_of(stored) = widen(values[j]);
                stored.i += threads;
                stored.left -= threads;
            }
        }
    }
}

// Brings one plane of all the block's rows: a warp loads kLaneRows neighbours along channels from some
// neighbouring positions, and the same of kRowGroups groups of rows at once. `inside` is the plane's.
template <class Element>
__device__ __forceinline__ void fetch_channels(const SlidingParams& params, int plane, int64_t l, int count,
                                               float* x_smem) {
    const Runs& runs = params.runs;
    const int place = threadIdx.x % kLaneRows;
    const Row<Element> row = row_of_block<Element>(params, place);
    const Element* x[kRowGroups];
    int lead[kRowGroups];
#pragma unroll
    for (int group = 0; group < kRowGroups; ++group) {
        Row<Element> other = row;
        const int rows_on = group * kLaneRows;
        if (row.o + rows_on < params.channels.divisor) {
            other.y += rows_on * int64_t{params.P};
            const uint32_t O = params.O;
            other.x += (O == 1 ? rows_on : (row.o + rows_on) / O - row.o / O) * params.x_stride_c;
        }
        x[group] = other.x;
        lead[group] = lead_of(params, other);
    }
    const int groups = params.rows_per_block / kLaneRows, step = blockDim.x / kLaneRows;
    x_smem += place * runs.row_pitch + plane * runs.residues * runs.run_pitch;
    l += plane * params.dilation;
#pragma unroll 2
    for (int i = threadIdx.x / kLaneRows; i < count; i += step) {
        const int64_t at = l + i * params.stride;
        const bool is_inside = at >= 0 && at < params.L;
        Element values[kRowGroups];
#pragma unroll
        for (int group = 0; group < kRowGroups; ++group) {
            if (group >= groups) break;
            const Element* const source = x[group] + at * params.x_stride_l;
            if constexpr (kAsync<Element>) {
                float* const target = x_smem + group * kLaneRows * runs.row_pitch;
                const int to = place_in_plane(runs, lead[group] + i);
                ptx::cp_async<sizeof(Element)>(ptx::smem_address(target + to), source,
                                               is_inside ? sizeof(Element) : 0);
            } else {
                values[group] = is_inside ? *source : narrow<Element>(0);
            }
        }
        if constexpr (!kAsync<Element>) {
#pragma unroll
            for (int group = 0; group < kRowGroups; ++group) {
                if (group >= groups) break;
                float* const target = x_smem + group * kLaneRows * runs.row_pitch;
                target[place_in_plane(runs, lead[group] + i)] = widen(values[group]);
            }
        }
    }
}

template <class Element>
__global__ void __launch_bounds__(kMaxThreads, kSlidingBlocks)
    depthwise_sliding_kernel(const __grid_constant__ SlidingParams params) {
    constexpr int kWide = kWideBytes / sizeof(Element);
    extern __shared__ __align__(16) unsigned char smem[];
    const Runs& runs = params.runs;
    const int taps = params.K;
    const int threads = params.threads_per_row.divisor;
    const Place place = place_of_thread(params);
    const int lane = place.lane;
    const Row<Element> row = row_of_block<Element>(params, place.row);
    float* const w_smem = reinterpret_cast<float*>(smem) + place.row * runs.row_pitch;  // [plane][w_pitch]
    float* const x_smem = w_smem + runs.planes * runs.w_pitch;  // [plane][residue][run_pitch]
    Element* const y_smem = reinterpret_cast<Element*>(x_smem);  // once x has been read

    // Places in y_smem count from the aligned y at or before the segment's first.
    const int y_begin = misalignment<kAlignBytes / sizeof(Element)>(row.y + row.p_begin);
    const int lead = lead_of(params, row);
    const int count = row.p_end - row.p_begin;
    const int64_t l_begin = row.p_begin * params.stride - params.pad_left;
    Element* const y = row.y + row.p_begin - y_begin;
    if (row.valid) {
#pragma unroll 1
        for (int k = lane; k < taps; k += threads) {
            const uint32_t divisor = runs.tap_step;
            const int target = divisor == 1 ? k : k % divisor * runs.w_pitch + k / divisor;
            w_smem[target] = widen(row.w[k]);
        }
    }
    // Of the first plane, which has most.
    const int plane_count = count + (runs.most_taps - 1) * runs.residues;
    if (params.by_channel) {
        float* const first = reinterpret_cast<float*>(smem) + runs.planes * runs.w_pitch;
        for (int plane = 0; plane < runs.planes; ++plane) {
            fetch_channels<Element>(params, plane, l_begin, plane_count, first);
        }
    } else if (row.valid) {
        const Inside inside = inside_row(l_begin, params.L, 1 << 30);
        fetch_row(params, row.x + l_begin * params.x_stride_l, inside, plane_count, lead, lane, x_smem);
    }
    if constexpr (kAsync<Element>) ptx::cp_async_wait_all();
    const float bias = bias_of<Element>(params, row.o);
    __syncthreads();  // x and w are there

    // A thread has one strip.
    const int strip_of_run = runs.residues == 1 ? lane : lane / static_cast<uint32_t>(runs.residues);
    const int residue = lane - strip_of_run * runs.residues, first = strip_of_run * kStrip;  // in the run
    float sum[kStrip] = {}, part[kStrip] = {};
    // Chunks of stride 1 that see nothing but padding are left out, the same ones throughout a warp.
    int chunks_begin = 0, chunks_end = taps;
    if (params.stride == 1 && taps >= kManyTaps) {
        const uint32_t divisor = runs.residues;
        const int total = lead + count + (taps - 1) * params.dilation;
        const Inside inside = inside_row(l_begin - lead, params.L, total);
        const int warp_first = max(lane - 31, 0) / divisor * kStrip;
        const int warp_last = (lane + 31) / divisor * kStrip;
        const int x_begin = inside.begin / divisor, x_end = inside.end / divisor + 1;  // in any run
        chunks_begin = max(x_begin - warp_last - kStrip - kChunkTaps, 0) / kChunkTaps * kChunkTaps;
        chunks_end = x_end - warp_first;
    }
    for (int plane = 0; row.valid && plane < runs.planes; ++plane) {
        const float* const run = x_smem + (plane * runs.residues + residue) * runs.run_pitch + first;
        const SumVector* x = reinterpret_cast<const SumVector*>(run);
        const SumVector* w = reinterpret_cast<const SumVector*>(w_smem + plane * runs.w_pitch);
        const int plane_taps = runs.most_taps - (plane >= runs.planes_of_most);
        const int k_end = min(chunks_end, plane_taps);
        SumVector window[kStripVectors + 1];
        if (chunks_begin < k_end) {
#pragma unroll
            for (int i = 0; i < kStripVectors; ++i) window[i] = x[chunks_begin / kVector + i];
        }
        for (int k = chunks_begin; k < k_end; k += kChunkTaps) {
            if (k + kChunkTaps <= plane_taps) {
                add_chunk<true, float>(x + k / kVector, w + k / kVector, kChunkTaps, window, part);
            } else {
                add_chunk<false, float>(x + k / kVector, w + k / kVector, plane_taps - k, window, part);
            }
            if ((k + kChunkTaps) % kPieceTaps == 0) {
#pragma unroll
                for (int i = 0; i < kStrip; ++i) {
                    sum[i] += part[i];
                    part[i] = 0;
                }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < kStrip; ++i) sum[i] = sum[i] + part[i] + bias;
    __syncthreads();  // x has been read

    if (runs.residues == 1) {
#pragma unroll
        for (int v = 0; v < kStripVectors; ++v) {
            Vector<Element, kVector> out;
#pragma unroll
            for (int i = 0; i < kVector; ++i) out.at[i] = narrow<Element>(sum[v * kVector + i]);
            reinterpret_cast<Vector<Element, kVector>*>(y_smem + y_begin - lead + first)[v] = out;
        }
    } else {
#pragma unroll
        for (int i = 0; i < kStrip; ++i) {
            y_smem[y_begin + (first + i) * runs.residues + residue] = narrow<Element>(sum[i]);
        }
    }
    __syncthreads();  // y is there
    if (!row.valid) return;
    const int y_end = y_begin + count;
#pragma unroll 1
    for (int i = lane * kWide; i < y_end; i += threads * kWide) {
        if (params.activation != Activation::none) {
#pragma unroll 1
            for (int j = i; j < i + kWide; ++j) {
                y_smem[j] = activate<Element>(params.activation, widen(y_smem[j]));
            }
        }
        if (i >= y_begin && i + kWide <= y_end) {
            *reinterpret_cast<uint4*>(y + i) = *reinterpret_cast<const uint4*>(y_smem + i);
            continue;
        }
#pragma unroll 1
        for (int j = max(i, y_begin); j < min(i + kWide, y_end); ++j) y[j] = y_smem[j];
    }
}

// Shared memory of a row of sliding, in sums: its taps, and runs of x with what the last strip's vectors add.
// Odd numbers of vectors, so that neighbouring runs, and rows, begin in different banks.
inline Runs plan_runs(const Problem& problem, int64_t strips_of_run) {
    const int64_t common = std::gcd(problem.stride, problem.dilation);
    const int64_t tap_step = problem.stride / common, residues = problem.dilation / common;
    const int64_t planes = std::min(tap_step, problem.K);
    const int64_t w_pitch = round_up(ceil_div(problem.K, tap_step), kVector);
    const int64_t run_pitch = (strips_of_run * kStrip + w_pitch) / kVector / 2 * 2 * kVector + kVector;
    const int64_t row_vectors = planes * (w_pitch + residues * run_pitch) / kVector;
    Runs runs;
    runs.planes = static_cast<int32_t>(planes);
    runs.tap_step = static_cast<int32_t>(tap_step);
    runs.most_taps = static_cast<int32_t>(ceil_div(problem.K, tap_step));
    runs.planes_of_most = static_cast<int32_t>(problem.K - (runs.most_taps - 1) * tap_step);
    runs.residues = static_cast<int32_t>(residues);
    runs.inverse = residues == 1 ? 0 : static_cast<uint32_t>(ceil_div(int64_t{1} << 32, residues));
    runs.w_pitch = static_cast<int32_t>(w_pitch);
    runs.run_pitch = static_cast<int32_t>(run_pitch);
    runs.row_pitch = static_cast<int32_t>((row_vectors / 2 * 2 + 1) * kVector);
    return runs;
}

// A row by so many threads, a strip each: false where its shared memory or its threads are more than a block
// has, or most of x would be loaded twice.
inline bool plan_sliding_rows(const Problem& problem, SlidingParams& params, int64_t threads,
                              int64_t rows_per_block) {
    const int64_t residues = problem.dilation / std::gcd(problem.stride, problem.dilation);
    const int64_t wide = kWideBytes / element_bytes(problem.dtype);
    const bool aligned = problem.P % wide == 0 && reinterpret_cast<uint64_t>(problem.y) % kWideBytes == 0;
    const int64_t lead = residues > 1 || aligned ? 0 : wide;
    if (threads < residues) return false;
    // Of several runs, a segment may have fewer strips than would fit, where these then fit the row better.
    int64_t strips = threads / residues;
    const int64_t halo = (problem.K - 1) / problem.stride * problem.dilation;
    const int64_t halo_strips = ceil_div(halo, kStrip * residues);
    const auto cost_of = [&](int64_t some) {
        return ceil_div(problem.P, some * kStrip * residues) * (some + halo_strips);
    };
    for (int64_t some = strips - 1; residues > 1 && some > 0; --some) {
        if (cost_of(some) < cost_of(strips)) strips = some;
    }
    // They begin aligned.
    const int64_t most = strips * kStrip * residues - lead;
    if (most < 1) return false;
    const int64_t segments = ceil_div(problem.P, most);
    params.segments = plan_index_divisor(segments);
    const int64_t segment = residues == 1 ? ceil_div(problem.P, segments) : most;
    params.segment = static_cast<int32_t>(std::min(round_up(std::min(segment, problem.P), wide), most));
    const int64_t strips_of_run = ceil_div(ceil_div(params.segment + lead, residues), kStrip);
    params.runs = plan_runs(problem, strips_of_run);
    params.threads_per_row = plan_divisor(strips_of_run * residues);
    params.rows_per_block = static_cast<int32_t>(rows_per_block);
    return (segments == 1 || params.segment >= halo) &&
           rows_per_block * params.runs.row_pitch <= kSmemSums;
}

// threads_per_row.divisor stays 0 where sliding does not take the problem.
inline SlidingParams plan_sliding(const Problem& problem) {
    SlidingParams params = plan_any<SlidingParams>(problem), none = params;
    if (problem.dtype == Dtype::float64 || problem.K > 2048) return none;
    if (problem.stride > 1024 || problem.dilation > 1024) return none;
    if (problem.x_stride_l != 1 && problem.x_stride_c == 1 && problem.G > 1) {
        params.by_channel = true;
        // First of many channels and few positions, whose taps reach furthest into what others load.
        for (int64_t rows = kLaneRows * kRowGroups; rows >= kLaneRows; rows /= 2) {
            for (int64_t threads = kMaxThreads / rows; threads >= 4; threads /= 2) {
                if (!plan_sliding_rows(problem, params, threads, rows)) continue;
                params.row_blocks = static_cast<uint32_t>(problem.N * ceil_div(problem.G * problem.O, rows));
                return params;
            }
        }
        params.by_channel = false;
    }
    for (int64_t threads = kMaxThreads; threads >= 32; threads /= 2) {
        if (!plan_sliding_rows(problem, params, threads, 1)) continue;
        if (params.segments.divisor == 1) {
            const int64_t rows = std::min<int64_t>(kSlidingThreads / params.threads_per_row.divisor,
                                                   kSmemSums / params.runs.row_pitch);
            params.rows_per_block = static_cast<int32_t>(std::max<int64_t>(rows, 1));
        }
        params.row_blocks = static_cast<uint32_t>(ceil_div(params.rows, params.rows_per_block));
        return params;
    }
    return none;
}

}  // namespace depthwise
}  // namespace conv1d
