// Depthwise convolution: one input channel a group, any taps, stride and dilation, all dtypes, sm_75 and
// later. Each element of x and y moves once; from some 60 taps on, multiply-adds bind instead.
//
// A block takes one or several rows of y (one sample, one output channel), or a segment of a long row.
// short    stride and dilation 1, at most 8 taps, x contiguous along l. A thread stores 16 bytes of y,
//          aligned, and reads the 48 aligned bytes of x around its window; a shift in registers undoes the
//          misalignment.
// sliding  stride 1. The segment's window of x lies in shared memory as sums, one run for each residue of l
//          modulo the dilation: within a run, taps are neighbours. A thread slides over a strip of 12
//          positions of a run: a new vector of 4 x serves 48 multiply-adds. (3 vectors: an odd count, so
//          that the strips of a warp meet no bank twice.)
// strided  all else: taps are read through the L1 cache.
#pragma once
#include <algorithm>
#include <type_traits>

#include "problem.h"
#include "mma.cuh"
#include "ptx.cuh"
#include "tile.cuh"

namespace conv1d {
namespace depthwise {

constexpr int kMaxThreads = 256;
constexpr int kMaxO = 4;
constexpr int kSmemBytes = 46080;  // below the 48 KB that need no permission
constexpr int kMaxSegment = 8192;  // positions, of the kernels without shared memory
constexpr int kPieceTaps = 256;    // summed apart, so that the error of many taps stays that of few

// short
constexpr int kWideBytes = 16;  // a thread's part of y
constexpr int kWides = 2;       // of them at once
constexpr int kWindowWides = 3;  // aligned loads that hold a window at any shift: 14 + 22 B in 16 bits
constexpr int kGroupTaps = 4;
constexpr int kMaxShortTaps = 2 * kGroupTaps;
constexpr int64_t kRounds = 6;  // over the row where the GPU is full anyway: a thread's start costs as one
// Blocks of floats that share a multiprocessor. With four, ptxas for other architectures spills.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
constexpr int kShortBlocks = 4;
#else
constexpr int kShortBlocks = 1;
#endif

// sliding
constexpr int kVector = 4;
constexpr int kStripVectors = 3;
constexpr int kStrip = kStripVectors * kVector;        // positions of a thread
constexpr int kChunkTaps = kVector * (kStripVectors + 1);  // after these the registers' roles repeat
static_assert(kStripVectors % 2 == 1, "strips must be an odd number of vectors to avoid bank conflicts");
static_assert(kPieceTaps % kChunkTaps == 0, "pieces must end with a chunk");

constexpr int kSlidingThreads = 128;  // of a block of several rows: small blocks wait and work in turns

constexpr int kPositions = 4;  // strided: of a thread at once

struct Params {
    Problem problem;
    int64_t segment;         // positions of a row that one block takes
    uint32_t rows;           // of y
    uint32_t segments;       // of a row
    int32_t rows_per_block;  // 1 where there are several segments
    int32_t threads_per_row;
    int32_t w_pitch;    // sliding: shared memory of a row's taps, in sums; a multiple of kVector
    int32_t run_pitch;  // sliding: likewise of one residue's run of x
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

// Rows and blocks are fewer than 2^31 (fits_depthwise): divisions are of 32 bits.
template <class Element>
__device__ __forceinline__ Row<Element> row_of_thread(const Params& params) {
    const Problem& problem = params.problem;
    Row<Element> row;
    row.place = threadIdx.x / static_cast<uint32_t>(params.threads_per_row);
    row.lane = threadIdx.x % static_cast<uint32_t>(params.threads_per_row);
    const uint32_t index = blockIdx.x / params.segments * params.rows_per_block + row.place;
    row.p_begin = blockIdx.x % params.segments * params.segment;
    row.p_end = min(row.p_begin + params.segment, problem.P);
    row.valid = index < params.rows;
    const uint32_t channels = static_cast<uint32_t>(problem.G * problem.O);
    const uint32_t n = row.valid ? index / channels : 0;
    const uint32_t o = row.valid ? index % channels : 0;
    row.x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n +
            o / static_cast<uint32_t>(problem.O) * problem.x_stride_c;
    row.w = static_cast<const Element*>(problem.w) + o * problem.K;
    row.y = static_cast<Element*>(problem.y) + (n * static_cast<int64_t>(channels) + o) * problem.P;
    row.bias = problem.bias == nullptr ? 0 : widen(static_cast<const Element*>(problem.bias)[o]);
    return row;
}

// Neighbours of y from `place` on, of which those within [begin, end) are stored; y + place is aligned.
template <bool kActivated, class Element, int kCount>
__device__ __forceinline__ void store_vector(const Problem& problem, Element* y, int place, int begin,
                                             int end, const typename SumOf<Element>::Type (&sum)[kCount]) {
    // Of plain stores the compiler makes narrow ones, to share them with the branch below.
    using Piece = typename std::conditional<kCount * sizeof(Element) % 16 == 0, uint4, uint2>::type;
    constexpr int kPieces = kCount * sizeof(Element) / sizeof(Piece);
    alignas(16) Element out[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) out[i] = finish<Element, kActivated>(problem, sum[i]);
    if (place >= begin && place + kCount <= end) {
#pragma unroll
        for (int i = 0; i < kPieces; ++i) {
            __stwb(reinterpret_cast<Piece*>(y + place) + i, reinterpret_cast<const Piece*>(out)[i]);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
        if (place + i >= begin && place + i < end) y[place + i] = out[i];
    }
}

// 48 bytes as they were loaded.
struct alignas(16) Words {
    uint32_t at[kWindowWides * kWideBytes / sizeof(uint32_t)];
};

// Moves the words down by `bytes`, 0 to 14 and a multiple of the element's size; the top becomes undefined.
template <class Element>
__device__ __forceinline__ void shift_down(Words& words, int bytes) {
    constexpr int kCount = sizeof(words.at) / sizeof(uint32_t);
    if (sizeof(Element) <= 8) {
#pragma unroll
        for (int i = 0; i + 2 < kCount; ++i) words.at[i] = bytes & 8 ? words.at[i + 2] : words.at[i];
    }
    if (sizeof(Element) <= 4) {
#pragma unroll
        for (int i = 0; i + 1 < kCount; ++i) words.at[i] = bytes & 4 ? words.at[i + 1] : words.at[i];
    }
    if (sizeof(Element) <= 2) {
        const int bits = (bytes & 2) * 8;
#pragma unroll
        for (int i = 0; i + 1 < kCount; ++i) {
            const uint64_t pair = uint64_t{words.at[i + 1]} << 32 | words.at[i];
            words.at[i] = static_cast<uint32_t>(pair >> bits);  // one funnel shift
        }
    }
}

template <class Element, bool kActivated>
__global__ void __launch_bounds__(kMaxThreads, sizeof(Element) == 4 ? kShortBlocks : 1)
    depthwise_short_kernel(const __grid_constant__ Params params) {
    using Sum = typename SumOf<Element>::Type;
    constexpr int kWide = kWideBytes / sizeof(Element);
    constexpr int kWindow = kWide + kGroupTaps - 1;
    static_assert((kWide - 1 + kWindow) * sizeof(Element) <= sizeof(Words),
                  "a shifted window must lie within its loads");
    const Problem& problem = params.problem;
    const Row<Element> row = row_of_thread<Element>(params);
    if (!row.valid) return;
    const int taps = static_cast<int>(problem.K);
    Sum w[kMaxShortTaps];
#pragma unroll
    for (int k = 0; k < kMaxShortTaps; ++k) w[k] = k < taps ? widen(row.w[k]) : Sum{};

    // All places count from p_first in y, and from the x under its tap 0.
    const int y_begin = misalignment<kWide>(row.y + row.p_begin);
    const int64_t p_first = row.p_begin - y_begin;
    const int y_end = static_cast<int>(row.p_end - p_first);
    Element* y = row.y + p_first;
    const int64_t l_first = p_first - problem.pad_left;
    const Element* x = row.x + l_first;
    const Inside inside = inside_row(l_first, problem.L, 2 * kMaxSegment);
    const int wides = (y_end + kWide - 1) / kWide;

    for (int v = row.lane; v < wides; v += kWides * params.threads_per_row) {
        int place[kWides];
        Sum sum[kWides][kWide];
#pragma unroll
        for (int j = 0; j < kWides; ++j) {
            // Past the row's last one, that one is repeated and not stored.
            place[j] = min(v + j * params.threads_per_row, wides - 1) * kWide;
#pragma unroll
            for (int i = 0; i < kWide; ++i) sum[j][i] = row.bias;
        }
#pragma unroll
        for (int k = 0; k < kMaxShortTaps; k += kGroupTaps) {
            if (k >= taps) break;
            const int shift = misalignment<kWide>(x + k);
            Sum window[kWides][kWindow];
            Words words[kWides];
#pragma unroll
            for (int j = 0; j < kWides; ++j) {
#pragma unroll
                for (int i = 0; i < kWindowWides; ++i) {
                    const int at = place[j] + k - shift + i * kWide;
                    uint4 wide = {};
                    if (at >= inside.begin && at + kWide <= inside.end) {
                        wide = *reinterpret_cast<const uint4*>(x + at);
                    }
                    reinterpret_cast<uint4*>(words[j].at)[i] = wide;
                }
            }
            // The 16 bytes in which a row begins or ends, element by element.
#pragma unroll
            for (int j = 0; j < kWides; ++j) {
                const int first = place[j] + k - shift, last = first + kWindowWides * kWide;
                if (first >= inside.begin && last <= inside.end) continue;
#pragma unroll
                for (int i = 0; i < kWindowWides * kWide; ++i) {
                    const int begin = first + i / kWide * kWide, end = begin + kWide;
                    if (begin >= inside.begin && end <= inside.end) continue;
                    if (first + i < inside.begin || first + i >= inside.end) continue;
                    reinterpret_cast<Element*>(words[j].at)[i] = x[first + i];
                }
            }
#pragma unroll
            for (int j = 0; j < kWides; ++j) {
                shift_down<Element>(words[j], shift * sizeof(Element));
#pragma unroll
                for (int i = 0; i < kWindow; ++i) {
                    window[j][i] = widen(reinterpret_cast<const Element*>(words[j].at)[i]);
                }
            }
#pragma unroll
            for (int t = 0; t < kGroupTaps; ++t) {
                if (k + t >= taps) break;
#pragma unroll
                for (int j = 0; j < kWides; ++j) {
#pragma unroll
                    for (int i = 0; i < kWide; ++i) sum[j][i] += w[k + t] * window[j][i + t];
                }
            }
        }
#pragma unroll
        for (int j = 0; j < kWides; ++j) {
            if (v + j * params.threads_per_row < wides) {
                store_vector<kActivated>(problem, y, place[j], y_begin, y_end, sum[j]);
            }
        }
    }
}

// Starts to bring one number to shared memory, zero where it is not inside. Without registers where the
// architecture has such copies and the number needs no conversion.
template <class Element>
__device__ __forceinline__ void fetch(typename SumOf<Element>::Type* target, const Element* source,
                                      bool inside) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    if constexpr (sizeof(*target) == sizeof(*source)) {
        ptx::cp_async<sizeof(Element)>(ptx::smem_address(target), source, inside ? sizeof(Element) : 0);
        return;
    }
#endif
    *target = inside ? widen(*source) : typename SumOf<Element>::Type{};
}
__device__ __forceinline__ void fetch_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    ptx::cp_async_wait_all();
#endif
}

// Adds kChunkTaps taps, or, where not kWhole, the `taps_left` that there are. `x` and `w` are at the first
// of them; vectors 0 to 2 of the strip's window are in registers on entry and, for the next chunk, on
// return: vector i in window[i % 4].
template <bool kWhole, class Sum>
__device__ __forceinline__ void add_chunk(const Vector<Sum, kVector>* x, const Vector<Sum, kVector>* w,
                                          int taps_left, Vector<Sum, kVector> (&window)[kStripVectors + 1],
                                          Sum (&part)[kStrip]) {
    constexpr int kGroups = kChunkTaps / kVector;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
        if (!kWhole && g * kVector >= taps_left) break;
        window[(g + kStripVectors) % kGroups] = x[g + kStripVectors];
        const Vector<Sum, kVector> w_frag = w[g];
#pragma unroll
        for (int t = 0; t < kVector; ++t) {
            if (!kWhole && g * kVector + t >= taps_left) break;
#pragma unroll
            for (int i = 0; i < kStrip; ++i) {
                const int at = i + t;
                part[i] += w_frag.at[t] * window[(g + at / kVector) % kGroups].at[at % kVector];
            }
        }
    }
}

// Stride 1.
template <class Element, bool kActivated>
__global__ void __launch_bounds__(kMaxThreads)
    depthwise_sliding_kernel(const __grid_constant__ Params params) {
    using Sum = typename SumOf<Element>::Type;
    using SumVector = Vector<Sum, kVector>;
    extern __shared__ __align__(16) unsigned char smem[];
    const Problem& problem = params.problem;
    const Row<Element> row = row_of_thread<Element>(params);
    const int taps = static_cast<int>(problem.K);
    const int dilation = static_cast<int>(problem.dilation);
    const uint32_t divisor = dilation;  // unsigned divisions are shorter
    const int threads = params.threads_per_row;
    Sum* w_smem = reinterpret_cast<Sum*>(smem) + row.place * (params.w_pitch + dilation * params.run_pitch);
    Sum* x_smem = w_smem + params.w_pitch;  // [residue][run_pitch]

    // All places count from p_first in y, and from the x under its tap 0. Strips without gaps store vectors.
    const int y_begin = dilation == 1 ? misalignment<kVector>(row.y + row.p_begin) : 0;
    const int64_t p_first = row.p_begin - y_begin;
    const int y_end = static_cast<int>(row.p_end - p_first);
    const int64_t l_first = p_first - problem.pad_left;
    const int count = y_end + (taps - 1) * dilation;
    const Inside inside = inside_row(l_first, problem.L, count);
    if (row.valid) {
        for (int k = row.lane; k < taps; k += threads) fetch(w_smem + k, row.w + k, true);
        const Element* x = row.x + (l_first + row.lane) * problem.x_stride_l;
        const int64_t step_x = threads * problem.x_stride_l;
        const uint32_t inside_count = inside.end - inside.begin;
        const int step_run = threads / divisor, step_residue = threads % divisor;
        int run = row.lane / divisor, residue = row.lane % divisor;
#pragma unroll 4
        for (int i = row.lane; i < count; i += threads) {
            const bool is_inside = static_cast<uint32_t>(i - inside.begin) < inside_count;
            fetch(x_smem + residue * params.run_pitch + run, x, is_inside);
            x += step_x;
            run += step_run;
            residue += step_residue;
            if (residue >= dilation) {
                residue -= dilation;
                ++run;
            }
        }
    }
    fetch_wait();
    __syncthreads();
    if (!row.valid) return;

    const int strips = ((y_end + dilation - 1) / divisor + kStrip - 1) / kStrip * dilation;
    const int x_begin = inside.begin / divisor, x_end = inside.end / divisor + 1;  // in any run
    for (int strip = row.lane; strip < strips; strip += threads) {
        const int residue = strip % divisor;
        const int first = strip / divisor * kStrip;  // in the run
        // Chunks that see nothing but padding are left out, the same ones throughout a warp.
        const int warp_first = (strip & ~31) / divisor * kStrip;
        const int warp_last = (strip | 31) / divisor * kStrip;
        const int k_begin =
            max(x_begin - warp_last - kStrip - kChunkTaps, 0) / kChunkTaps * kChunkTaps;
        const int k_end = min(x_end - warp_first, taps);
        const SumVector* x = reinterpret_cast<const SumVector*>(x_smem + residue * params.run_pitch + first);
        const SumVector* w = reinterpret_cast<const SumVector*>(w_smem);
        Sum sum[kStrip] = {}, part[kStrip] = {};
        SumVector window[kStripVectors + 1];
        if (k_begin < k_end) {
#pragma unroll
            for (int i = 0; i < kStripVectors; ++i) window[i] = x[k_begin / kVector + i];
        }
        for (int k = k_begin; k < k_end; k += kChunkTaps) {
            if (k + kChunkTaps <= taps) {
                add_chunk<true>(x + k / kVector, w + k / kVector, kChunkTaps, window, part);
            } else {
                add_chunk<false>(x + k / kVector, w + k / kVector, taps - k, window, part);
            }
            if ((k + kChunkTaps) % kPieceTaps == 0) {
#pragma unroll
                for (int i = 0; i < kStrip; ++i) {
                    sum[i] += part[i];
                    part[i] = 0;
                }
            }
        }
#pragma unroll
        for (int i = 0; i < kStrip; ++i) sum[i] = sum[i] + part[i] + row.bias;

        Element* y = row.y + p_first;
        if (dilation == 1) {
#pragma unroll
            for (int v = 0; v < kStripVectors; ++v) {
                Sum out[kVector];
#pragma unroll
                for (int i = 0; i < kVector; ++i) out[i] = sum[v * kVector + i];
                store_vector<kActivated>(problem, y, first + v * kVector, y_begin, y_end, out);
            }
        } else {
#pragma unroll
            for (int i = 0; i < kStrip; ++i) {
                const int place = (first + i) * dilation + residue;
                if (place < y_end) y[place] = finish<Element, kActivated>(problem, sum[i]);
            }
        }
    }
}

// Any stride, any dilation: a thread computes positions threads_per_row apart, four at once.
template <class Element, bool kActivated>
__global__ void __launch_bounds__(kMaxThreads)
    depthwise_strided_kernel(const __grid_constant__ Params params) {
    using Sum = typename SumOf<Element>::Type;
    const Problem& problem = params.problem;
    const Row<Element> row = row_of_thread<Element>(params);
    if (!row.valid) return;
    for (int64_t p = row.p_begin + row.lane; p < row.p_end; p += kPositions * params.threads_per_row) {
        Sum sum[kPositions] = {};
        for (int64_t piece = 0; piece < problem.K; piece += kPieceTaps) {
            Sum part[kPositions] = {};
            const int64_t piece_end = min(piece + kPieceTaps, problem.K);
            for (int64_t k = piece; k < piece_end; ++k) {
                const Sum w = widen(row.w[k]);
                const int64_t l_first = k * problem.dilation - problem.pad_left;
#pragma unroll
                for (int i = 0; i < kPositions; ++i) {
                    const int64_t l = l_first + (p + i * params.threads_per_row) * problem.stride;
                    if (l >= 0 && l < problem.L) part[i] += w * widen(row.x[l * problem.x_stride_l]);
                }
            }
#pragma unroll
            for (int i = 0; i < kPositions; ++i) sum[i] += part[i];
        }
#pragma unroll
        for (int i = 0; i < kPositions; ++i) {
            const int64_t place = p + i * params.threads_per_row;
            if (place < row.p_end) {
                row.y[place] = finish<Element, kActivated>(problem, sum[i] + row.bias);
            }
        }
    }
}

enum class Way { short_taps, sliding, strided };

// Shared memory of one row, in sums: its taps, and a run of x of one residue with what the last strip's
// vectors add. An odd number of vectors, so that neighbouring runs begin in different banks.
inline int64_t w_pitch(const Problem& problem) { return round_up(problem.K, kVector); }
inline int64_t strips_of_run(const Problem& problem, int64_t segment) {
    const int64_t misaligned = problem.dilation == 1 ? kVector - 1 : 0;
    return ceil_div(ceil_div(segment + misaligned, problem.dilation), kStrip);
}
inline int64_t run_pitch(const Problem& problem, int64_t segment) {
    const int64_t vectors = (strips_of_run(problem, segment) * kStrip + w_pitch(problem)) / kVector;
    return (vectors / 2 * 2 + 1) * kVector;
}

// The longest segment whose runs fit `slots` sums; none or less than none where the taps alone do not.
inline int64_t longest_segment(const Problem& problem, int64_t slots) {
    const int64_t run = (slots - w_pitch(problem)) / problem.dilation;
    return (run - w_pitch(problem) - kVector) / kStrip * kStrip * problem.dilation -
           (problem.dilation == 1 ? kVector - 1 : 0);
}

// `slots` is the shared memory of a block, in sums.
inline Way way_of(const Problem& problem, int64_t slots) {
    if (problem.stride != 1) return Way::strided;
    const bool neighbours = problem.dilation == 1 && problem.x_stride_l == 1;
    if (neighbours && problem.K <= kMaxShortTaps) return Way::short_taps;
    const bool small = problem.K <= 2048 && problem.dilation <= 1024;
    // Of a shorter segment, a block would mostly load what others load as well.
    const bool fits = small && longest_segment(problem, slots) >= std::min(problem.P, slots / 4);
    return fits ? Way::sliding : Way::strided;
}

inline Params plan(const Problem& problem, Way way, int64_t slots) {
    Params params{};
    params.problem = problem;
    const int64_t rows = problem.N * problem.G * problem.O;
    params.rows = static_cast<uint32_t>(rows);
    const int64_t longest = way == Way::sliding ? longest_segment(problem, slots) : kMaxSegment;
    int64_t segments = ceil_div(problem.P, longest);
    // Few rows are cut further, until each multiprocessor has work.
    while (rows * segments < 4 * problem.device.sm_count && problem.P > 2048 * segments) segments *= 2;
    params.segment = ceil_div(problem.P, segments);
    params.segments = static_cast<uint32_t>(ceil_div(problem.P, params.segment));

    // As many rounds over the row as 256 threads need, and no more threads than those need.
    const int64_t wide = kWideBytes / element_bytes(problem.dtype);
    int64_t work = ceil_div(params.segment, kPositions);
    if (way == Way::sliding) work = strips_of_run(problem, params.segment) * problem.dilation;
    if (way == Way::short_taps) work = ceil_div(ceil_div(params.segment + wide - 1, wide), kWides);
    int64_t rounds = ceil_div(work, kMaxThreads);
    if (way == Way::short_taps) {
        const int64_t full = rows * params.segments * work / (2048 * std::max(problem.device.sm_count, 1));
        rounds = std::max(rounds, std::min(full, kRounds));
    }
    int64_t threads = ceil_div(work, rounds);
    if (threads > kMaxThreads / 2) threads = round_up(threads, 32);
    params.threads_per_row = static_cast<int32_t>(threads);
    int64_t room = kMaxThreads;
    if (way == Way::sliding) {
        params.w_pitch = static_cast<int32_t>(w_pitch(problem));
        params.run_pitch = static_cast<int32_t>(run_pitch(problem, params.segment));
        room = slots / (params.w_pitch + problem.dilation * params.run_pitch);
    }
    const int64_t most = way == Way::sliding ? kSlidingThreads : kMaxThreads;
    const int64_t rows_per_block = segments > 1 ? 1 : std::min(most / threads, room);
    params.rows_per_block = static_cast<int32_t>(std::max<int64_t>(rows_per_block, 1));
    return params;
}

template <class Element, bool kActivated>
Error launch_way(const Problem& problem, Way way, int64_t slots, cudaStream_t stream) {
    const Params params = plan(problem, way, slots);
    const auto blocks =
        static_cast<unsigned>(ceil_div(params.rows, params.rows_per_block) * params.segments);
    const int threads = params.rows_per_block * params.threads_per_row;
    if (way == Way::sliding) {
        const size_t row_sums = params.w_pitch + problem.dilation * params.run_pitch;
        const size_t smem_bytes = params.rows_per_block * row_sums * sizeof(typename SumOf<Element>::Type);
        depthwise_sliding_kernel<Element, kActivated><<<blocks, threads, smem_bytes, stream>>>(params);
    } else if (way == Way::short_taps) {
        depthwise_short_kernel<Element, kActivated><<<blocks, threads, 0, stream>>>(params);
    } else {
        depthwise_strided_kernel<Element, kActivated><<<blocks, threads, 0, stream>>>(params);
    }
    return launch_error();
}

template <class Element, bool kActivated>
Error launch_element(const Problem& problem, cudaStream_t stream) {
    constexpr int64_t kSlots = kSmemBytes / sizeof(typename SumOf<Element>::Type);
    return launch_way<Element, kActivated>(problem, way_of(problem, kSlots), kSlots, stream);
}

}  // namespace depthwise

// A block takes at least one row, and segments are at least 512 positions long where there are several.
inline bool fits_depthwise(const Problem& problem) {
    return problem.C == 1 && problem.O <= depthwise::kMaxO &&
           problem.N * problem.G * problem.O * ceil_div(problem.P, 512) <= kMaxBlocks;
}

inline Error launch_depthwise(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    return launch_instance(problem, [&](auto element, auto activated) {
        return depthwise::launch_element<decltype(element), decltype(activated)::value>(problem, stream);
    });
}

}  // namespace conv1d
