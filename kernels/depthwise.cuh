// Depthwise convolution: one input channel a group, any taps, stride and dilation, all dtypes, sm_75 and
// later. Each element of x and y moves once; from some 60 taps on, multiply-adds bind instead.
//
// A block takes one or several rows of y (one sample, one output channel), or segments of long rows.
// short    stride and dilation 1, at most 8 taps, x contiguous along l. A thread stores 16 bytes of y,
//          aligned, and reads the 48 aligned bytes of x around its window; a shift in registers undoes the
//          misalignment.
// sliding  The segment's window of x lies in shared memory, in runs within which taps are neighbours. A
//          thread slides over a strip of 12 positions of a run: a new vector of 4 x serves 48 multiply-adds.
//          (3 vectors: an odd count, so that a warp's strips meet no bank twice.) y is put in order there.
// strided  all else, and doubles: taps are read through the L1 cache.
#pragma once
#include <algorithm>
#include <numeric>
#include <type_traits>

#include "problem.h"
#include "mma.cuh"
#include "ptx.cuh"
#include "tile.cuh"

namespace conv1d {
namespace depthwise {

constexpr int kMaxThreads = 256;
constexpr int kMaxO = 4;
constexpr int kSmemSums = 46080 / 4;  // of a block: below the 48 KB that need no permission
constexpr int kMaxSegment = 8192;  // positions, of the kernels without shared memory
constexpr int kPieceTaps = 256;    // summed apart, so that the error of many taps stays that of few

constexpr int kAlignBytes = 32;  // where the stores of a warp begin: of parts of sectors, L2 takes fewer
constexpr int kWideBytes = 16;   // a thread's part of y

// short
constexpr int kWides = 2;        // of them at once
constexpr int kWindowWides = 3;  // aligned loads that hold a window at any shift: 14 + 22 B in 16 bits
constexpr int kGroupTaps = 4;    // that share a window
constexpr int kMaxShortTaps = 8;
constexpr int64_t kRounds = 6;  // over the row where the GPU is full anyway: a thread's start costs as one
// Blocks that share a multiprocessor, of short those of floats. With as many, ptxas spills for others.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
constexpr int kShortBlocks = 4, kSlidingBlocks = 3;
#else
constexpr int kShortBlocks = 1, kSlidingBlocks = 1;
#endif

// sliding
constexpr int kVector = 4;
constexpr int kStripVectors = 3;
constexpr int kStrip = kStripVectors * kVector;        // positions of a thread
constexpr int kChunkTaps = kVector * (kStripVectors + 1);  // after these the registers' roles repeat
static_assert(kStripVectors % 2 == 1, "strips must be an odd number of vectors to avoid bank conflicts");
static_assert(kPieceTaps % kChunkTaps == 0, "pieces must end with a chunk");

constexpr int kSlidingThreads = 128;  // of a block of several rows: small blocks wait and work in turns
template <class Element>
constexpr int kBatch = sizeof(Element) == 2 ? 16 : 4;  // loads at once
constexpr int kManyTaps = 64;         // of which those that see padding are worth to be left out
constexpr int kLaneRows = 8;          // rows of neighbouring channels that a warp loads at once
constexpr int kRowGroups = 4;         // of these in a block, at most

// strided
constexpr int kSlots = 4;     // products of a thread at once
constexpr int kLittle = 512;  // outputs a multiprocessor: so few take no time but that of one
constexpr int kFewTaps = 8;   // of so few outputs, through the L1 cache

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

struct Params {
    Problem problem;
    int64_t segment;         // positions of a row that one block takes
    uint32_t rows;           // of y
    uint32_t segments;       // of a row
    uint32_t row_blocks;     // blocks for one segment of all rows
    int32_t rows_per_block;
    int32_t threads_per_row;
    bool little;      // strided: a thread has one output
    int64_t tap_step;  // strided: as in Runs, at most K
    bool by_channel;  // sliding: x is contiguous along channels, and a block's rows are of one sample
    Runs runs;
};

// The part of one row of y that one thread works on.
template <class Element>
struct Row {
    const Element* x;  // position 0 of the input row
    const Element* w;  // its K taps
    Element* y;        // position 0
    int64_t p_begin, p_end;
    uint32_t o;  // output channel
    bool valid;
};

// The block's row `place`. Rows and blocks are fewer than 2^31 (fits_depthwise): divisions are of 32 bits.
template <class Element>
__device__ __forceinline__ Row<Element> row_of_block(const Params& params, int place) {
    const Problem& problem = params.problem;
    const uint32_t channels = static_cast<uint32_t>(problem.G * problem.O);
    Row<Element> row;
    uint32_t n, segment;
    // Blocks that run together should share what they read: a row, or rows of neighbouring channels.
    if (params.by_channel) {
        const uint32_t row_block = blockIdx.x % params.row_blocks, samples = static_cast<uint32_t>(problem.N);
        segment = blockIdx.x / params.row_blocks;
        n = row_block % samples;
        row.o = row_block / samples * params.rows_per_block + place;
        row.valid = row.o < channels;
    } else {
        uint32_t row_block = blockIdx.x;
        segment = 0;
        if (params.segments > 1) {
            row_block = blockIdx.x / params.segments;
            segment = blockIdx.x - row_block * params.segments;
        }
        const uint32_t index = row_block * params.rows_per_block + place;
        n = index / channels;
        row.o = index - n * channels;
        row.valid = index < params.rows;
    }
    row.p_begin = segment * params.segment;
    row.p_end = min(row.p_begin + params.segment, problem.P);
    if (!row.valid) n = row.o = 0;
    row.x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n +
            (problem.O == 1 ? row.o : row.o / static_cast<uint32_t>(problem.O)) * problem.x_stride_c;
    row.w = static_cast<const Element*>(problem.w) + row.o * problem.K;
    row.y = static_cast<Element*>(problem.y) + (n * static_cast<int64_t>(channels) + row.o) * problem.P;
    return row;
}

// The thread's row in the block, and its place among the row's threads.
struct Place {
    int row, lane;
};
__device__ __forceinline__ Place place_of_thread(const Params& params) {
    const int thread = threadIdx.x;
    if (params.rows_per_block == 1) return {0, thread};
    const int row = threadIdx.x / static_cast<uint32_t>(params.threads_per_row);
    return {row, thread - row * params.threads_per_row};
}

template <class Element>
__device__ __forceinline__ typename SumOf<Element>::Type bias_of(const Problem& problem, uint32_t o) {
    return problem.bias == nullptr ? 0 : widen(static_cast<const Element*>(problem.bias)[o]);
}

// kWideBytes of y from `place` on, of which those within [begin, end) are stored; y + place is aligned.
template <class Element, int kCount>
__device__ __forceinline__ void store_wide(const Problem& problem, Element* y, int place, int begin, int end,
                                           const float (&sum)[kCount]) {
    static_assert(kCount * sizeof(Element) == kWideBytes, "one store");
    alignas(16) Element out[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) out[i] = narrow<Element>(sum[i]);
    if (problem.activation != Activation::none) {
#pragma unroll
        for (int i = 0; i < kCount; ++i) out[i] = activate<Element, true>(problem.activation, sum[i]);
    }
    if (place >= begin && place + kCount <= end) {
        // Of plain stores the compiler makes narrow ones, to share them with what follows.
        __stwb(reinterpret_cast<uint4*>(y + place), *reinterpret_cast<const uint4*>(out));
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

template <class Element>
__global__ void __launch_bounds__(kMaxThreads, sizeof(Element) == 4 ? kShortBlocks : 1)
    depthwise_short_kernel(const __grid_constant__ Params params) {
    constexpr int kWide = kWideBytes / sizeof(Element);
    constexpr int kWindow = kWide + kGroupTaps - 1;
    static_assert((kWide - 1 + kWindow) * sizeof(Element) <= sizeof(Words),
                  "a shifted window must lie within its loads");
    const Problem& problem = params.problem;
    const Place place = place_of_thread(params);
    const int lane = place.lane;
    const Row<Element> row = row_of_block<Element>(params, place.row);
    if (!row.valid) return;
    const float bias = bias_of<Element>(problem, row.o);
    const int taps = static_cast<int>(problem.K);
    float w[kMaxShortTaps];
#pragma unroll
    for (int k = 0; k < kMaxShortTaps; ++k) w[k] = k < taps ? widen(row.w[k]) : 0.0f;

    // All places count from p_first in y, and from the x under its tap 0.
    const int y_begin = misalignment<kAlignBytes / sizeof(Element)>(row.y + row.p_begin);
    const int64_t p_first = row.p_begin - y_begin;
    const int y_end = static_cast<int>(row.p_end - p_first);
    Element* y = row.y + p_first;
    const int64_t l_first = p_first - problem.pad_left;
    const Element* x = row.x + l_first;
    const Inside inside = inside_row(l_first, problem.L, 1 << 30);
    const int wides = (y_end + kWide - 1) / kWide;

    for (int v = lane; v < wides; v += kWides * params.threads_per_row) {
        int at_y[kWides];
        float sum[kWides][kWide];
#pragma unroll
        for (int j = 0; j < kWides; ++j) {
            // Past the row's last one, that one is repeated and not stored.
            at_y[j] = min(v + j * params.threads_per_row, wides - 1) * kWide;
#pragma unroll
            for (int i = 0; i < kWide; ++i) sum[j][i] = bias;
        }
#pragma unroll
        for (int k = 0; k < kMaxShortTaps; k += kGroupTaps) {
            if (k >= taps) break;
            const int shift = misalignment<kWide>(x + k);
            float window[kWides][kWindow];
            Words words[kWides];
#pragma unroll
            for (int j = 0; j < kWides; ++j) {
#pragma unroll
                for (int i = 0; i < kWindowWides; ++i) {
                    const int at = at_y[j] + k - shift + i * kWide;
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
                const int first = at_y[j] + k - shift, last = first + kWindowWides * kWide;
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
                store_wide(problem, y, at_y[j], y_begin, y_end, sum[j]);
            }
        }
    }
}

using SumVector = Vector<float, kVector>;

// Adds kChunkTaps taps, or, where not kWhole, the `taps_left` that there are. `x` and `w` are at the first
// of them; vectors 0 to 2 of the strip's window are in registers on entry and, for the next chunk, on
// return: vector i in window[i % 4].
template <bool kWhole>
__device__ __forceinline__ void add_chunk(const SumVector* x, const SumVector* w, int taps_left,
                                          SumVector (&window)[kStripVectors + 1], float (&part)[kStrip]) {
    constexpr int kGroups = kChunkTaps / kVector;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
        if (!kWhole && g * kVector >= taps_left) break;
        window[(g + kStripVectors) % kGroups] = x[g + kStripVectors];
        const SumVector w_frag = w[g];
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

// Where a row's positions begin in its plan: of runs of neighbours, at the aligned y before, so that vectors
// of a strip are aligned.
template <class Element>
__device__ __forceinline__ int lead_of(const Params& params, const Row<Element>& row) {
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
__device__ __forceinline__ void fetch_row(const Params& params, const Element* x, const Inside& inside,
                                          int count, int lead, int lane, float* x_smem) {
    const Problem& problem = params.problem;
    const Runs& runs = params.runs;
    const int threads = params.threads_per_row, stride = static_cast<int>(problem.stride);
    const uint32_t inside_count = inside.end - inside.begin;
    int at = lane * stride;  // of x, from the first
    const int step = threads * stride;
    const Element* source = x + at * problem.x_stride_l;
    const int64_t step_x = step * problem.x_stride_l;
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
    const int wrap = static_cast<int>(problem.dilation) - count * stride;
    const int64_t wrap_x = wrap * problem.x_stride_l;
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
__device__ __forceinline__ void fetch_channels(const Params& params, int plane, int64_t l, int count,
                                               float* x_smem) {
    const Problem& problem = params.problem;
    const Runs& runs = params.runs;
    const int place = threadIdx.x % kLaneRows;
    const Row<Element> row = row_of_block<Element>(params, place);
    const Element* x[kRowGroups];
    int lead[kRowGroups];
#pragma unroll
    for (int group = 0; group < kRowGroups; ++group) {
        Row<Element> other = row;
        const int rows_on = group * kLaneRows;
        if (row.o + rows_on < problem.G * problem.O) {
            other.y += rows_on * problem.P;
            const uint32_t O = static_cast<uint32_t>(problem.O);
            other.x += (O == 1 ? rows_on : (row.o + rows_on) / O - row.o / O) * problem.x_stride_c;
        }
        x[group] = other.x;
        lead[group] = lead_of(params, other);
    }
    const int groups = params.rows_per_block / kLaneRows, step = blockDim.x / kLaneRows;
    x_smem += place * runs.row_pitch + plane * runs.residues * runs.run_pitch;
    l += plane * problem.dilation;
#pragma unroll 2
    for (int i = threadIdx.x / kLaneRows; i < count; i += step) {
        const int64_t at = l + i * problem.stride;
        const bool is_inside = at >= 0 && at < problem.L;
        Element values[kRowGroups];
#pragma unroll
        for (int group = 0; group < kRowGroups; ++group) {
            if (group >= groups) break;
            const Element* const source = x[group] + at * problem.x_stride_l;
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
    depthwise_sliding_kernel(const __grid_constant__ Params params) {
    constexpr int kWide = kWideBytes / sizeof(Element);
    extern __shared__ __align__(16) unsigned char smem[];
    const Problem& problem = params.problem;
    const Runs& runs = params.runs;
    const int taps = static_cast<int>(problem.K);
    const int threads = params.threads_per_row;
    const Place place = place_of_thread(params);
    const int lane = place.lane;
    const Row<Element> row = row_of_block<Element>(params, place.row);
    float* const w_smem = reinterpret_cast<float*>(smem) + place.row * runs.row_pitch;  // [plane][w_pitch]
    float* const x_smem = w_smem + runs.planes * runs.w_pitch;  // [plane][residue][run_pitch]
    Element* const y_smem = reinterpret_cast<Element*>(x_smem);  // once x has been read

    // Places in y_smem count from the aligned y at or before the segment's first.
    const int y_begin = misalignment<kAlignBytes / sizeof(Element)>(row.y + row.p_begin);
    const int lead = lead_of(params, row);
    const int count = static_cast<int>(row.p_end - row.p_begin);
    const int64_t l_begin = row.p_begin * problem.stride - problem.pad_left;
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
        const Inside inside = inside_row(l_begin, problem.L, 1 << 30);
        fetch_row(params, row.x + l_begin * problem.x_stride_l, inside, plane_count, lead, lane, x_smem);
    }
    if constexpr (kAsync<Element>) ptx::cp_async_wait_all();
    const float bias = bias_of<Element>(problem, row.o);
    __syncthreads();  // x and w are there

    // A thread has one strip.
    const int strip_of_run = runs.residues == 1 ? lane : lane / static_cast<uint32_t>(runs.residues);
    const int residue = lane - strip_of_run * runs.residues, first = strip_of_run * kStrip;  // in the run
    float sum[kStrip] = {}, part[kStrip] = {};
    // Chunks of stride 1 that see nothing but padding are left out, the same ones throughout a warp.
    int chunks_begin = 0, chunks_end = taps;
    if (problem.stride == 1 && taps >= kManyTaps) {
        const uint32_t divisor = runs.residues;
        const int total = lead + count + (taps - 1) * static_cast<int>(problem.dilation);
        const Inside inside = inside_row(l_begin - lead, problem.L, total);
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
                add_chunk<true>(x + k / kVector, w + k / kVector, kChunkTaps, window, part);
            } else {
                add_chunk<false>(x + k / kVector, w + k / kVector, plane_taps - k, window, part);
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
        if (problem.activation != Activation::none) {
#pragma unroll 1
            for (int j = i; j < i + kWide; ++j) {
                y_smem[j] = activate<Element>(problem.activation, widen(y_smem[j]));
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

// Any stride, any dilation. A thread has kSlots products at once: of one tap and positions threads_per_row
// apart or, where there are few outputs, of one position and several taps. Either way, and in the sliding
// kernel, an output's products are summed in the same order, plane by plane: the number of samples, on which
// the choice depends, does not show.
template <class Element>
__global__ void __launch_bounds__(kMaxThreads)
    depthwise_strided_kernel(const __grid_constant__ Params params) {
    using Sum = typename SumOf<Element>::Type;
    const Problem& problem = params.problem;
    const Place place = place_of_thread(params);
    const Row<Element> row = row_of_block<Element>(params, place.row);
    if (!row.valid) return;
    const Sum bias = bias_of<Element>(problem, row.o);
    const bool little = params.little;
    const int slot_positions = little ? 0 : params.threads_per_row;
    const int step = little ? params.threads_per_row : kSlots * params.threads_per_row;
    for (int64_t p = row.p_begin + place.lane; p < row.p_end; p += step) {
        Sum sum[kSlots] = {}, part[kSlots] = {};
        int64_t k = 0, plane = 0;
        for (int64_t done = 0; done < problem.K;) {
            Sum w = 0, products[kSlots][2];
#pragma unroll
            for (int i = 0; i < kSlots; ++i) {
                const int64_t at = p + i * slot_positions;
                const int64_t l = at * problem.stride + k * problem.dilation - problem.pad_left;
                if (i == 0 || little) w = k < problem.K ? widen(row.w[k]) : Sum{};
                const bool wanted = k < problem.K && at < row.p_end && l >= 0 && l < problem.L;
                products[i][0] = w;  // inf times padding is NaN, as it is in the sliding kernel
                products[i][1] = wanted ? widen(row.x[l * problem.x_stride_l]) : Sum{};
                if (little || i == kSlots - 1) {
                    k += params.tap_step;
                    if (k >= problem.K) k = ++plane < params.tap_step ? plane : problem.K;
                }
            }
#pragma unroll
            for (int i = 0; i < kSlots; ++i) part[little ? 0 : i] += products[i][0] * products[i][1];
            done += little ? kSlots : 1;
            if (done % kPieceTaps == 0 || done >= problem.K) {
#pragma unroll
                for (int i = 0; i < kSlots; ++i) {
                    sum[i] += part[i];
                    part[i] = 0;
                }
            }
        }
#pragma unroll
        for (int i = 0; i < kSlots; ++i) {
            const int64_t at = p + i * slot_positions;
            if (at >= row.p_end || (little && i > 0)) break;
            row.y[at] = narrow<Element>(sum[i] + bias);
        }
        if (problem.activation == Activation::none) continue;
#pragma unroll 1
        for (int i = 0; i < (little ? 1 : kSlots); ++i) {
            const int64_t at = p + i * slot_positions;
            if (at < row.p_end) row.y[at] = activate<Element>(problem.activation, widen(row.y[at]));
        }
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

// Cuts few rows into more segments, until each multiprocessor has work.
inline void cut_segments(Params& params, int64_t segments) {
    const Problem& problem = params.problem;
    while (params.rows * segments < 4 * problem.device.sm_count && problem.P > 2048 * segments) segments *= 2;
    params.segment = ceil_div(problem.P, segments);
    params.segments = static_cast<uint32_t>(ceil_div(problem.P, params.segment));
}

inline Params plan_any(const Problem& problem) {
    Params params{};
    params.problem = problem;
    params.rows = static_cast<uint32_t>(problem.N * problem.G * problem.O);
    return params;
}

// Ways without shared memory: of `work` units of `most` threads and at least `rounds` rounds over a row.
inline void plan_threads(Params& params, int64_t work, int64_t rounds) {
    // As many rounds over the row as kMaxThreads need, and no more threads than those need.
    int64_t threads = ceil_div(work, std::max(rounds, ceil_div(work, kMaxThreads)));
    if (threads > kMaxThreads / 2) threads = round_up(threads, 32);
    params.threads_per_row = static_cast<int32_t>(threads);
    params.rows_per_block = params.segments > 1 ? 1 : static_cast<int32_t>(kMaxThreads / threads);
    params.row_blocks = static_cast<uint32_t>(ceil_div(params.rows, params.rows_per_block));
}

// stride and dilation 1, few taps, x contiguous along l.
inline Params plan_short(const Problem& problem) {
    Params params = plan_any(problem);
    cut_segments(params, ceil_div(problem.P, kMaxSegment));
    const int64_t wide = kWideBytes / element_bytes(problem.dtype);
    const int64_t most = params.segment + kAlignBytes / element_bytes(problem.dtype) - 1;
    const int64_t work = ceil_div(ceil_div(most, wide), kWides);
    const int64_t full =
        params.rows * int64_t{params.segments} * work / (2048 * std::max(problem.device.sm_count, 1));
    plan_threads(params, work, std::min(full, kRounds));
    return params;
}

inline bool is_little(const Problem& problem) {
    return problem.N * problem.G * problem.O * problem.P < int64_t{kLittle} * problem.device.sm_count;
}

inline Params plan_strided(const Problem& problem) {
    Params params = plan_any(problem);
    cut_segments(params, ceil_div(problem.P, kMaxSegment));
    params.little = is_little(problem);
    params.tap_step = std::min(problem.stride / std::gcd(problem.stride, problem.dilation), problem.K);
    plan_threads(params, params.little ? params.segment : ceil_div(params.segment, kSlots), 1);
    return params;
}

// A row by so many threads, a strip each: false where its shared memory or its threads are more than a block
// has, or most of x would be loaded twice.
inline bool plan_sliding_rows(Params& params, int64_t threads, int64_t rows_per_block) {
    const Problem& problem = params.problem;
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
    params.segments = static_cast<uint32_t>(ceil_div(problem.P, most));
    const int64_t segment = residues == 1 ? ceil_div(problem.P, params.segments) : most;
    params.segment = std::min(round_up(std::min(segment, problem.P), wide), most);
    const int64_t strips_of_run = ceil_div(ceil_div(params.segment + lead, residues), kStrip);
    params.runs = plan_runs(problem, strips_of_run);
    params.threads_per_row = static_cast<int32_t>(strips_of_run * residues);
    params.rows_per_block = static_cast<int32_t>(rows_per_block);
    return (params.segments == 1 || params.segment >= halo) &&
           rows_per_block * params.runs.row_pitch <= kSmemSums;
}

// threads_per_row stays 0 where sliding does not take the problem.
inline Params plan_sliding(const Problem& problem) {
    Params params = plan_any(problem), none = params;
    if (problem.dtype == Dtype::float64 || problem.K > 2048) return none;
    if (problem.stride > 1024 || problem.dilation > 1024) return none;
    if (problem.K <= kFewTaps && is_little(problem)) return none;
    if (problem.x_stride_l != 1 && problem.x_stride_c == 1 && problem.G > 1) {
        params.by_channel = true;
        // First of many channels and few positions, whose taps reach furthest into what others load.
        for (int64_t rows = kLaneRows * kRowGroups; rows >= kLaneRows; rows /= 2) {
            for (int64_t threads = kMaxThreads / rows; threads >= 4; threads /= 2) {
                if (!plan_sliding_rows(params, threads, rows)) continue;
                params.row_blocks = static_cast<uint32_t>(problem.N * ceil_div(problem.G * problem.O, rows));
                return params;
            }
        }
        params.by_channel = false;
    }
    for (int64_t threads = kMaxThreads; threads >= 32; threads /= 2) {
        if (!plan_sliding_rows(params, threads, 1)) continue;
        if (params.segments == 1) {
            const int64_t rows = std::min<int64_t>(kSlidingThreads / params.threads_per_row,
                                                   kSmemSums / params.runs.row_pitch);
            params.rows_per_block = static_cast<int32_t>(std::max<int64_t>(rows, 1));
        }
        params.row_blocks = static_cast<uint32_t>(ceil_div(params.rows, params.rows_per_block));
        return params;
    }
    return none;
}

template <class Element>
Error launch_element(const Problem& problem, cudaStream_t stream) {
    const auto blocks_of = [](const Params& params) { return params.row_blocks * params.segments; };
    const auto threads_of = [](const Params& params) {
        return params.rows_per_block * params.threads_per_row;
    };
    if constexpr (!std::is_same<Element, double>::value) {
        const bool neighbours = problem.stride == 1 && problem.dilation == 1 && problem.x_stride_l == 1;
        if (neighbours && problem.K <= kMaxShortTaps) {
            const Params params = plan_short(problem);
            depthwise_short_kernel<Element><<<blocks_of(params), threads_of(params), 0, stream>>>(params);
            return launch_error();
        }
        const Params params = plan_sliding(problem);
        if (params.threads_per_row > 0) {
            const size_t smem_bytes = params.rows_per_block * params.runs.row_pitch * sizeof(float);
            depthwise_sliding_kernel<Element>
                <<<blocks_of(params), threads_of(params), smem_bytes, stream>>>(params);
            return launch_error();
        }
    }
    const Params params = plan_strided(problem);
    depthwise_strided_kernel<Element><<<blocks_of(params), threads_of(params), 0, stream>>>(params);
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
