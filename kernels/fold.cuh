// Groups of few channels on tensor cores, sm_80 and later: an implicit GEMM with mma.sync whose depth is the
// folded index (channel, tap). TF32, fp16, bf16, and fp32 at full accuracy as three TF32 products.
//
// Depth counts in words of 4 bytes: one fp32 operand, or two 16-bit ones: of two channels and one tap, or,
// where a group has one channel, of two neighbouring taps. A block brings weights, in the order in which
// lanes hold operand A, and its window of x into shared memory, as [row][l]: row r of words is channel r, or
// channels {2r, 2r + 1}, or {x[l], x[l + dilation]}. Word (r, k) of output position p then lies at
// r*row_slots + p*stride + k*tap_step, for operand B of any stride and dilation. After one filling each warp
// goes its own way over tasks of 16*kMTiles channels x kWarpP positions, so that stores overlap products. A
// depth too long for shared memory comes in chunks of rows, with one task a warp. Cost: 2 reads of x for each
// 16*kMTiles x 8 outputs and 8 words; far fewer where x slides along registers (Params::slide).
#pragma once
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "gather.cuh"
#include "mma.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tile.cuh"

namespace conv1d {
namespace fold {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kBlocks = 2;     // that share a multiprocessor
constexpr int kMmaWords = 8;   // depth of one product
constexpr int kBatch = 8;      // elements that a thread loads before it stores any
constexpr int kMaxMTiles = 8;  // of 16 output channels, of a block
constexpr int kMaxTasks = 32;  // of a block

// kSplit: each fp32 operand is a high and a low part, and three products of parts make one.
template <class Element_, bool kSplit_, int kMTiles_, int kNTiles_>
struct Tile {
    using Element = Element_;
    static constexpr bool kSplit = kSplit_;
    static constexpr int kMTiles = kMTiles_;  // of 16 output channels, of one task
    static constexpr int kNTiles = kNTiles_;  // of 8 positions, of one task
    static constexpr int kWarpP = 8 * kNTiles;
    // Whether x stays in registers from one step to the next; three products for one hide its reads anyway.
    static constexpr bool kCanSlide = !kSplit && kNTiles <= 8;
    static constexpr int kPerWord = 4 / sizeof(Element);
    static constexpr int kVector = 16 / sizeof(Element);  // elements of a store
    // Of a staged row of y, in elements: 8 (4) words mod 32, so that 8 rows of pairs fall into all banks.
    static constexpr int kStagePitch = kWarpP + 8;
    static constexpr int kStageBytes = 8 * kStagePitch * static_cast<int>(sizeof(Element));  // of one warp
};

struct Params {
    Problem problem;
    bool tap_pairs;     // a word is two taps of one channel, not two channels of one tap
    bool y_pairs;       // rows of y start at multiples of two elements
    bool y_vectors;     // ... of 16 bytes
    int32_t rows;       // of words: ceil(C / kPerWord), 1 for tap pairs
    int32_t row_words;  // K, or ceil(K / 2)
    bool slide;  // each row fills whole products, and one product's x is the last one's, 8 positions on
    int32_t row_depth;   // row_words, or the next multiple of 8 where they slide
    int32_t tap_step;    // input positions from a word to the next of its row
    int32_t chunk_rows;  // rows in shared memory at once; the last chunk may have fewer
    int32_t chunks;
    int32_t chunk_steps;  // products in the depth of a chunk
    int32_t row_slots;    // input positions that a block reads
    int32_t m_tiles;      // of a block
    int32_t tasks_o;      // of a block, along output channels
    int32_t tasks_p;      // of a block, along positions: neighbouring warps store neighbouring pieces of rows
    int32_t tasks;        // of a block
    int32_t warps;        // of a block
    int32_t smem_bytes;
    int64_t o_blocks, p_blocks, blocks;
};

// What one block computes. Kept in shared memory: the sums leave few registers.
struct Place {
    int64_t n, g, o_begin, p_begin;
    int32_t m_tiles;  // that hold output channels
};

// Shared memory, in order.
struct Memory {
    uint32_t* w;            // [m_tile][chunk_steps][lane][4]
    int2* offsets;          // [chunk_steps][4]: of words t and t + 4
    uint32_t* x;            // [chunk_rows][row_slots]
    float* bias;            // [m_tiles*16]
    unsigned char* staged;  // [warp][8][kStagePitch] elements
};

template <class Tile>
constexpr int64_t smem_bytes(const Params& params) {
    const int64_t words = int64_t{params.m_tiles} * params.chunk_steps * 128 + params.chunk_steps * 8 +
                          round_up(int64_t{params.chunk_rows} * params.row_slots, 4) + params.m_tiles * 16;
    return words * 4 + std::min<int64_t>(params.tasks, kWarps) * Tile::kStageBytes;
}

__device__ __forceinline__ Memory memory_at(const Params& params, unsigned char* smem) {
    Memory memory;
    memory.w = reinterpret_cast<uint32_t*>(smem);
    memory.offsets = reinterpret_cast<int2*>(memory.w + params.m_tiles * params.chunk_steps * 128);
    memory.x = reinterpret_cast<uint32_t*>(memory.offsets + params.chunk_steps * 4);
    memory.bias = reinterpret_cast<float*>(memory.x + (params.chunk_rows * params.row_slots + 3) / 4 * 4);
    memory.staged = reinterpret_cast<unsigned char*>(memory.bias + params.m_tiles * 16);
    return memory;
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// An fp32 operand as it lies in shared memory: rounded to TF32, or whole where it is split at each use.
template <class Tile>
__device__ __forceinline__ uint32_t float_word(float value) {
    return Tile::kSplit ? __float_as_uint(value) : round_tf32(__float_as_uint(value));
}

// Weights of one chunk, with zeros for what O, C and K lack.
template <class Tile, int kElements>
__device__ __forceinline__ void fill_w(const Params& params, const Place& place, int row_begin,
                                       uint32_t* w_smem) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32;
    const int K = static_cast<int>(problem.K);
    const int C = static_cast<int>(problem.C);
    const int chunk_rows = min(params.chunk_rows, params.rows - row_begin);
    const int outputs = static_cast<int>(min(problem.O - place.o_begin, int64_t{params.m_tiles} * 16));
    const Element* w = static_cast<const Element*>(problem.w) +
                       (place.g * problem.O + place.o_begin) * (problem.C * problem.K);
    // A warp reads 8 neighbouring words of 4 output channels at once, kCount times.
    constexpr int kCount = kElements / Tile::kPerWord;
    const int quads = params.m_tiles * 4;
    const int items = quads * params.chunk_steps;
#pragma unroll 1
    for (int begin = threadIdx.x / 32 * kCount; begin < items; begin += params.warps * kCount) {
        const int first_step = begin / quads;
        const int first_o = (begin - first_step * quads) * 4 + lane / 8;
        Element value[kCount][Tile::kPerWord];
        int o = first_o;
        int row = (first_step * kMmaWords + lane % 8) / params.row_depth;
        int k = first_step * kMmaWords + lane % 8 - row * params.row_depth;
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            const bool inside = row < chunk_rows && k < params.row_words && o < outputs;
            const int c = Tile::kPerWord * (row_begin + row);
            const int source = (o * C + c) * K + (params.tap_pairs ? 2 * k : k);
            value[i][0] = inside ? w[source] : Element{};
            if constexpr (Tile::kPerWord == 2) {
                const bool second = params.tap_pairs ? 2 * k + 1 < K : c + 1 < C;
                value[i][1] = inside && second ? w[source + (params.tap_pairs ? 1 : K)] : Element{};
            }
            o += 4;
            if (o >= quads * 4) {
                o -= quads * 4;
                for (k += kMmaWords; k >= params.row_depth; ++row) k -= params.row_depth;
            }
        }
        o = first_o;
        uint32_t* target = w_smem + first_step * 128 + lane % 4 * 4 + lane / 4 % 2 * 2;
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            if (begin + i >= items) break;
            uint32_t* const word = target + o / 16 * params.chunk_steps * 128 + o % 8 * 16 + o / 8 % 2;
            if constexpr (Tile::kPerWord == 1) *word = float_word<Tile>(value[i][0]);
            else memcpy(word, value[i], 4);
            o += 4;
            if (o >= quads * 4) {
                o -= quads * 4;
                target += 128;
            }
        }
    }
}

// The window of x of one chunk, with zeros outside 0 <= l < L and for the channel that an odd C lacks.
template <class Tile, int kElements>
__device__ __forceinline__ void fill_x(const Params& params, const Place& place, int row_begin,
                                       uint32_t* x_smem) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int rows = min(params.chunk_rows, params.rows - row_begin);
    const int channels = params.tap_pairs ? 1 : rows * Tile::kPerWord;
    const int64_t channel_begin = static_cast<int64_t>(row_begin) * Tile::kPerWord;
    const int lag = static_cast<int>(problem.dilation);  // of the second tap of a pair
    const int span = params.row_slots + (params.tap_pairs ? lag : 0);
    const int64_t l_begin = place.p_begin * problem.stride - problem.pad_left;
    const Inside inside = inside_row(l_begin, problem.L, span);
    const int present = static_cast<int>(min(problem.C - channel_begin, int64_t{channels}));
    // This thread's items, blockDim.x apart in [channel][offset].
    int c = 0, offset = threadIdx.x;
    const Element* source = static_cast<const Element*>(problem.x) + place.n * problem.x_stride_n +
                            (place.g * problem.C + channel_begin) * problem.x_stride_c +
                            (l_begin + offset) * problem.x_stride_l;
    const int64_t step = blockDim.x * problem.x_stride_l;
    const int64_t next_row = problem.x_stride_c - span * problem.x_stride_l;
    const auto wrap = [&] {
        for (; offset >= span && c < channels; ++c) offset -= span, source += next_row;
    };
    wrap();
    while (c < channels) {
        Element value[kElements];
        int slot[kElements];  // in elements
#pragma unroll
        for (int i = 0; i < kElements; ++i) {
            value[i] = c < present && offset >= inside.begin && offset < inside.end ? *source : Element{};
            slot[i] = c < channels ? (c / Tile::kPerWord * params.row_slots + offset) * Tile::kPerWord +
                                         c % Tile::kPerWord
                                   : -1;
            offset += blockDim.x, source += step;
            wrap();
        }
#pragma unroll
        for (int i = 0; i < kElements; ++i) {
            if (slot[i] < 0) break;
            if constexpr (Tile::kPerWord == 1) {
                x_smem[slot[i]] = float_word<Tile>(value[i]);
            } else {
                Element* const halves = reinterpret_cast<Element*>(x_smem);
                if (!params.tap_pairs || slot[i] < 2 * params.row_slots) halves[slot[i]] = value[i];
                if (params.tap_pairs && slot[i] >= 2 * lag) halves[slot[i] - 2 * lag + 1] = value[i];
            }
        }
    }
}

// Where the words of a chunk lie in x_smem for output position 0 of the block.
__device__ __forceinline__ void fill_offsets(const Params& params, int2* offsets) {
    const int chunk_words = params.chunk_rows * params.row_depth;
    for (int word = threadIdx.x; word < params.chunk_steps * kMmaWords; word += blockDim.x) {
        const int row = word / params.row_depth;
        const int offset = row * params.row_slots + (word - row * params.row_depth) * params.tap_step;
        int* const target = reinterpret_cast<int*>(offsets) + word / 8 * 8 + word % 4 * 2 + word / 4 % 2;
        *target = word < chunk_words ? offset : 0;
    }
}

// The high part: 11 significant bits, ties away from zero. What remains has 12, and the product drops the
// last.
__device__ __forceinline__ uint32_t high_part(uint32_t bits) { return (bits + 0x1000) & 0xFFFFE000; }
__device__ __forceinline__ uint32_t low_part(uint32_t bits, uint32_t high) {
    return __float_as_uint(__uint_as_float(bits) - __uint_as_float(high));
}

// sum += w * x, one product deep, of whole fp32 operands. Small terms first; products truncate their sum, the
// addition rounds to nearest.
__device__ __forceinline__ void multiply_split(float (&sum)[4], const uint4& w, const uint4& w_low,
                                               const uint2& x) {
    const uint2 high = make_uint2(high_part(x.x), high_part(x.y));
    const uint2 low = make_uint2(low_part(x.x, high.x), low_part(x.y, high.y));
    float part[4] = {};
    ptx::mma<float>(part, w_low, high);
    ptx::mma<float>(part, w, low);
    ptx::mma<float>(part, w, high);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] += part[i];
}

// One step of a task's depth. `slides`: x_frag holds the step before, whose words are this one's 8 positions
// on. kMasked: the step may have words that no tap fills. Weights are zero there, but x may hold an infinity.
template <class Tile, bool kMasked>
__device__ __forceinline__ void multiply_step(const uint4* w, int w_pitch, const uint32_t* x, int2 offset,
                                              int x_pitch, bool slides, uint2 mask, int m_count,
                                              uint2 (&x_frag)[Tile::kNTiles],
                                              float (&sum)[Tile::kMTiles][Tile::kNTiles][4]) {
    const auto load = [&](int n) { return make_uint2(x[offset.x + n * x_pitch], x[offset.y + n * x_pitch]); };
    if (Tile::kCanSlide && slides) {
#pragma unroll
        for (int n = 0; n < Tile::kNTiles - 1; ++n) x_frag[n] = x_frag[n + 1];
        x_frag[Tile::kNTiles - 1] = load(Tile::kNTiles - 1);
    } else {
#pragma unroll
        for (int n = 0; n < Tile::kNTiles; ++n) x_frag[n] = load(n);
    }
    if (kMasked) {
#pragma unroll
        for (int n = 0; n < Tile::kNTiles; ++n)
            x_frag[n] = make_uint2(x_frag[n].x & mask.x, x_frag[n].y & mask.y);
    }
#pragma unroll
    for (int m = 0; m < Tile::kMTiles; ++m) {
        if (m > 0 && m >= m_count) break;
        const uint4 w_frag = w[m * w_pitch];
        if constexpr (Tile::kSplit) {
            const uint4 high = make_uint4(high_part(w_frag.x), high_part(w_frag.y), high_part(w_frag.z),
                                          high_part(w_frag.w));
            const uint4 low = make_uint4(low_part(w_frag.x, high.x), low_part(w_frag.y, high.y),
                                         low_part(w_frag.z, high.z), low_part(w_frag.w, high.w));
#pragma unroll
            for (int n = 0; n < Tile::kNTiles; ++n) multiply_split(sum[m][n], high, low, x_frag[n]);
        } else {
#pragma unroll
            for (int n = 0; n < Tile::kNTiles; ++n)
                ptx::mma<typename Tile::Element>(sum[m][n], w_frag, x_frag[n]);
        }
    }
}

// The products of one chunk for the task whose first tile and position in the block these are.
template <class Tile>
__device__ __forceinline__ void multiply(const Params& params, const Memory& memory, int chunk_rows,
                                         int m_begin, int m_count, int position,
                                         float (&sum)[Tile::kMTiles][Tile::kNTiles][4]) {
    const int lane = threadIdx.x % 32;
    const int t = lane % 4;
    const int stride = static_cast<int>(params.problem.stride);
    // Runs of steps: the rows where x slides along them, else all words in one.
    const int runs = params.slide ? chunk_rows : 1;
    const int words = (params.slide ? 1 : chunk_rows) * params.row_words;
    const int last = (words - 1) / kMmaWords;  // step of a run, the one that may have words to spare
    const auto mask_of = [&](int word) {
        if (word >= words) return 0u;
        return params.tap_pairs && word == words - 1 && params.problem.K % 2 != 0 ? 0xFFFFu : ~0u;
    };
    const uint2 mask = make_uint2(mask_of(last * kMmaWords + t), mask_of(last * kMmaWords + t + 4));
    const int w_pitch = params.chunk_steps * 32;
    const uint4* w = reinterpret_cast<const uint4*>(memory.w) + m_begin * w_pitch + lane;
    const uint32_t* x = memory.x + (position + lane / 4) * stride;
    const int2* offsets = memory.offsets + t;
    uint2 x_frag[Tile::kNTiles];
    for (int run = 0; run < runs; ++run) {
#pragma unroll 1
        for (int step = 0; step < last; ++step, w += 32, offsets += 4) {
            multiply_step<Tile, false>(w, w_pitch, x, *offsets, 8 * stride, params.slide && step > 0, mask,
                                       m_count, x_frag, sum);
        }
        multiply_step<Tile, true>(w, w_pitch, x, *offsets, 8 * stride, params.slide && last > 0, mask,
                                  m_count, x_frag, sum);
        w += 32;
        offsets += 4;
    }
}

// Two neighbours of a row of y, as they lie in memory.
template <class Element>
__device__ __forceinline__ auto round_pair(float first, float second) {
    if constexpr (sizeof(Element) == 4) {
        return make_float2(first, second);
    } else {
        const Element pair[2] = {narrow<Element>(first), narrow<Element>(second)};
        uint32_t bits;
        memcpy(&bits, pair, 4);
        return bits;
    }
}

// Eight output channels of a task to y. Each row is staged `phase` elements behind a multiple of 16 bytes, as
// it lies in y, so that all but its ends moves in 16 bytes, whatever P is.
template <class Tile>
__device__ __forceinline__ void write_rows(const Params& params, const float (&sum)[Tile::kNTiles][4],
                                           int half, float bias, typename Tile::Element* staged,
                                           typename Tile::Element* y, int rows, int left) {
    using Element = typename Tile::Element;
    constexpr int kVector = Tile::kVector;
    constexpr int kPitch = Tile::kStagePitch;
    constexpr int kLanes = Tile::kWarpP / kVector < 32 ? Tile::kWarpP / kVector : 32;  // along a row
    const int lane = threadIdx.x % 32;
    const int64_t P = params.problem.P;
    const uint32_t first_phase = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(y) / sizeof(Element));
    const auto phase_of = [&](int row) {
        return static_cast<int>((first_phase + row * static_cast<uint32_t>(P)) % kVector);
    };
    const uint32_t target = ptx::smem_address(staged + lane / 4 * kPitch + phase_of(lane / 4) + lane % 4 * 2);
    if (params.y_pairs) {
#pragma unroll
        for (int n = 0; n < Tile::kNTiles; ++n)
            ptx::st_shared(target + n * 8 * sizeof(Element),
                           round_pair<Element>(sum[n][2 * half] + bias, sum[n][2 * half + 1] + bias));
    } else {
#pragma unroll
        for (int n = 0; n < Tile::kNTiles; ++n)
            ptx::st_shared_apart(target + n * 8 * sizeof(Element),
                                 round_pair<Element>(sum[n][2 * half] + bias, sum[n][2 * half + 1] + bias));
    }
    __syncwarp();
    if (params.problem.activation != Activation::none)
        activate_staged(params.problem.activation, staged, 8 * kPitch);
#pragma unroll
    for (int i = 0; i < 8 * kLanes / 32; ++i) {
        const int row = lane / kLanes + i * (32 / kLanes);
        const int phase = phase_of(row);
        const int p = (kVector - phase) % kVector + lane % kLanes * kVector;
        if (row < rows && p + kVector <= left) {
            const uint4 piece = *reinterpret_cast<const uint4*>(staged + row * kPitch + phase + p);
            *reinterpret_cast<uint4*>(y + row * P + p) = piece;
        }
    }
    if (!params.y_vectors || left < Tile::kWarpP) {  // before the first whole piece and after the last
        constexpr int kEnds = 2 * kVector;
#pragma unroll 1
        for (int row = lane / kEnds; row < rows; row += 32 / kEnds) {
            const int phase = phase_of(row);
            const int head = min((kVector - phase) % kVector, left);
            const int i = lane % kEnds;
            const int p = i < kVector ? i : head + (left - head) / kVector * kVector + i - kVector;
            if (p < (i < kVector ? head : left)) y[row * P + p] = staged[row * kPitch + phase + p];
        }
    }
    __syncwarp();
}

// A task's outputs to y. Split operands: outputs whose sums are not sound are computed again.
template <class Tile>
__device__ __forceinline__ void write(const Params& params, const Place& place, const Memory& memory,
                                      int m_begin, int m_count, int64_t p,
                                      const float (&sum)[Tile::kMTiles][Tile::kNTiles][4]) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32;
    const int64_t o_begin = place.o_begin + m_begin * 16;
    const int left = static_cast<int>(min(problem.P - p, int64_t{Tile::kWarpP}));
    if (left <= 0) return;
    Element* const staged = reinterpret_cast<Element*>(memory.staged + threadIdx.x / 32 * Tile::kStageBytes);
    Element* const y = static_cast<Element*>(problem.y) +
                       ((place.n * problem.G + place.g) * problem.O + o_begin) * problem.P + p;
    Soundness soundness;
#pragma unroll
    for (int m = 0; m < Tile::kMTiles; ++m) {
        if (m > 0 && m >= m_count) break;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int o = m * 16 + half * 8;
            const int rows = static_cast<int>(min(problem.O - o_begin - o, int64_t{8}));
            if (rows <= 0) break;
            const float bias = memory.bias[m_begin * 16 + o + lane / 4];
            write_rows<Tile>(params, sum[m], half, bias, staged, y + o * problem.P, rows, left);
            if constexpr (Tile::kSplit) {
#pragma unroll
                for (int n = 0; n < Tile::kNTiles; ++n) {
                    soundness.add(sum[m][n][2 * half]);
                    soundness.add(sum[m][n][2 * half + 1]);
                }
            }
        }
    }
    if constexpr (Tile::kSplit) {
        if (__all_sync(0xFFFFFFFF, soundness.holds())) return;
        const int rows = static_cast<int>(min(problem.O - o_begin, int64_t{16 * m_count}));
#pragma unroll 1
        for (int row = 0; row < rows; ++row) {
            for (int column = lane; column < left; column += 32) {
                float* const value = y + row * problem.P + column;
                if (!is_sound(*value))
                    *value = finish_exactly(problem, place.n, place.g, o_begin + row, p + column);
            }
        }
    }
}

#endif  // sm_80

// Blocks that registers are shared by. With two, ptxas for sm_120 spills some.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
constexpr int kLaunchBlocks = 1;
#else
constexpr int kLaunchBlocks = kBlocks;
#endif

template <class Tile>
__global__ void __launch_bounds__(kThreads, kLaunchBlocks)
    fold_sm80_forward_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    using Element = typename Tile::Element;
    extern __shared__ __align__(16) unsigned char smem[];
    const Memory memory = memory_at(params, smem);
    const Problem& problem = params.problem;

    __shared__ Place place;
    if (threadIdx.x == 0) {
        const uint32_t run = blockIdx.x / static_cast<uint32_t>(params.o_blocks);
        const uint32_t sample = run / static_cast<uint32_t>(params.p_blocks);
        place.n = sample / static_cast<uint32_t>(problem.G);
        place.g = sample - place.n * problem.G;
        place.o_begin = (blockIdx.x - run * params.o_blocks) * params.m_tiles * 16;
        place.p_begin = (run - sample * params.p_blocks) * (params.tasks_p * Tile::kWarpP);
        place.m_tiles = static_cast<int>(min((problem.O - place.o_begin + 15) / 16, int64_t{params.m_tiles}));
    }
    __syncthreads();
    fill_offsets(params, memory.offsets);
    for (int o = threadIdx.x; o < params.m_tiles * 16; o += blockDim.x) {
        const bool biased = problem.bias != nullptr && place.o_begin + o < problem.O;
        const Element* bias = static_cast<const Element*>(problem.bias) + place.g * problem.O;
        memory.bias[o] = biased ? widen(bias[place.o_begin + o]) : 0.0f;
    }
    fill_w<Tile, kBatch>(params, place, 0, memory.w);
    fill_x<Tile, kBatch>(params, place, 0, memory.x);
    __syncthreads();

    // Of several chunks, warps without a task help to bring the rest.
    const int tasks = params.chunks == 1 ? params.tasks : params.warps;
    for (int task = threadIdx.x / 32; task < tasks; task += params.warps) {
        const int m_begin = task / params.tasks_p * Tile::kMTiles;
        const int m_count = min(place.m_tiles - m_begin, Tile::kMTiles);
        const int position = task % params.tasks_p * Tile::kWarpP;
        const bool active = m_count > 0 && place.p_begin + position < problem.P;
        if (params.chunks == 1 && !active) continue;
        float sum[Tile::kMTiles][Tile::kNTiles][4] = {};
#pragma unroll 1
        for (int chunk = 0; chunk < params.chunks; ++chunk) {
            const int row_begin = chunk * params.chunk_rows;
            if (chunk > 0) {
                __syncthreads();  // the chunk before has been read
                fill_w<Tile, kBatch>(params, place, row_begin, memory.w);
                fill_x<Tile, kBatch / 2>(params, place, row_begin, memory.x);
                __syncthreads();
            }
            if (!active) continue;
            multiply<Tile>(params, memory, min(params.chunk_rows, params.rows - row_begin), m_begin, m_count,
                           position, sum);
        }
        if (active) write<Tile>(params, place, memory, m_begin, m_count, place.p_begin + position, sum);
    }
#endif
}

// Cuts the depth, the output channels and the positions so that a block takes at most `smem_limit` bytes;
// `blocks` is 0 where that cannot be.
template <class Tile>
Params plan_within(const Problem& problem, int64_t smem_limit) {
    Params params{};
    params.problem = problem;
    params.tap_pairs = Tile::kPerWord == 2 && problem.C == 1;
    params.rows = static_cast<int32_t>(ceil_div(problem.C, Tile::kPerWord));
    params.row_words = static_cast<int32_t>(params.tap_pairs ? ceil_div(problem.K, 2) : problem.K);
    params.tap_step = static_cast<int32_t>(params.tap_pairs ? 2 * problem.dilation : problem.dilation);
    // Worth a quarter more products: an eighth of the reads of x remain.
    const int64_t whole = round_up(params.row_words, kMmaWords);
    params.slide = Tile::kCanSlide && params.tap_step == problem.stride && params.row_words > kMmaWords &&
                   4 * whole <= 5 * params.row_words;
    params.row_depth = static_cast<int32_t>(params.slide ? whole : params.row_words);
    const auto address = reinterpret_cast<uintptr_t>(problem.y);
    params.y_pairs = problem.P % 2 == 0 && address % (2 * sizeof(typename Tile::Element)) == 0;
    params.y_vectors = problem.P % Tile::kVector == 0 && address % 16 == 0;

    const int64_t m_total = ceil_div(problem.O, 16);
    const int64_t p_total = ceil_div(problem.P, Tile::kWarpP);
    const auto set = [&](int64_t chunk_rows, int64_t m_tiles, int64_t p_tiles) {
        params.chunks = static_cast<int32_t>(ceil_div(params.rows, chunk_rows));
        params.chunk_rows = static_cast<int32_t>(ceil_div(params.rows, params.chunks));
        params.chunk_steps =
            static_cast<int32_t>(ceil_div(int64_t{params.chunk_rows} * params.row_depth, kMmaWords));
        params.row_slots = static_cast<int32_t>((p_tiles * Tile::kWarpP - 1) * problem.stride +
                                                int64_t{params.row_depth - 1} * params.tap_step + 1);
        params.m_tiles = static_cast<int32_t>(m_tiles);
        params.tasks_o = static_cast<int32_t>(ceil_div(m_tiles, Tile::kMTiles));
        params.tasks_p = static_cast<int32_t>(p_tiles);
        params.tasks = params.tasks_o * params.tasks_p;
        params.smem_bytes = static_cast<int32_t>(smem_bytes<Tile>(params));
        params.o_blocks = ceil_div(m_total, m_tiles);
        params.p_blocks = ceil_div(p_total, p_tiles);
        params.blocks = params.o_blocks * params.p_blocks * problem.G * problem.N;
        // All where they share the tasks evenly, else some that do, and more that help to bring where blocks
        // are few.
        const int64_t even = params.tasks % kWarps == 0 ? kWarps
                             : params.tasks < kWarps    ? params.tasks
                                                        : kWarps / params.tasks_o * params.tasks_o;
        const int64_t share = 2 * kWarps * problem.device.sm_count / params.blocks;
        params.warps = static_cast<int32_t>(std::max(even, std::min<int64_t>(kWarps, share)));
        return params.smem_bytes <= smem_limit;
    };
    // Output channels in equal blocks, a multiple of a task's where there are several.
    const auto m_tiles_of = [&](int64_t most) {
        if (m_total <= most) return m_total;
        return round_up(ceil_div(m_total, ceil_div(m_total, most)), Tile::kMTiles);
    };
    // The whole depth at once, for as many output channels as leave half the room, and a task for each warp.
    for (int64_t most = kMaxMTiles; most >= Tile::kMTiles; most /= 2) {
        const int64_t m_tiles = m_tiles_of(most);
        int64_t p_tiles = std::min(kWarps / ceil_div(m_tiles, Tile::kMTiles), p_total);
        if (!set(params.rows, m_tiles, p_tiles)) continue;
        if (most / 2 >= Tile::kMTiles && m_tiles > most / 2 &&
            4 * m_total >= 3 * round_up(m_total, m_tiles_of(most / 2)) &&
            m_tiles * params.chunk_steps * 512 > smem_limit / 2)
            continue;
        // More positions share one filling while some waves of blocks remain.
        const auto larger = [&] {
            return 2 * params.tasks <= kMaxTasks && p_tiles < p_total &&
                   set(params.rows, m_tiles, 2 * p_tiles) &&
                   params.blocks >= 2 * kBlocks * problem.device.sm_count;
        };
        while (larger()) p_tiles *= 2;
        p_tiles = ceil_div(p_total, ceil_div(p_total, p_tiles));
        set(params.rows, m_tiles, p_tiles);
        // Fewer where multiprocessors would have no block.
        while (p_tiles > 1 && params.blocks < problem.device.sm_count) {
            p_tiles = ceil_div(p_tiles, 2);
            set(params.rows, m_tiles, p_tiles);
        }
        return params;
    }
    // Chunks of rows, one task for each warp.
    for (int64_t chunk_rows = params.rows; chunk_rows > 0; --chunk_rows) {
        const int64_t m_tiles = m_tiles_of(4);
        int64_t p_tiles = std::min(kWarps / ceil_div(m_tiles, Tile::kMTiles), p_total);
        if (!set(chunk_rows, m_tiles, p_tiles)) continue;
        while (p_tiles > 1 && params.blocks < problem.device.sm_count)
            set(chunk_rows, m_tiles, p_tiles = ceil_div(p_tiles, 2));
        return params;
    }
    params.blocks = 0;
    return params;
}

template <class Tile>
Params plan(const Problem& problem) {
    // A block's share of a multiprocessor's shared memory, of which each block takes 1 KB more; else all of
    // it.
    const int64_t all = problem.device.smem_bytes + 1024, other = 1024 + static_cast<int64_t>(sizeof(Place));
    const Params params = plan_within<Tile>(problem, all / kBlocks - other);
    return params.blocks > 0 ? params : plan_within<Tile>(problem, all - other);
}

// Whether tensor cores need no more cycles than the multiply-adds of the "direct" route, by what one
// multiprocessor does in a cycle, measured: words by mma.sync, multiply-adds, bytes stored. Where stores
// outlast both, this route has the better stores.
inline bool beats_direct(const Problem& problem, double words, bool split) {
    const int arch = problem.device.arch;
    const bool fast = arch == 80 || (arch >= 90 && arch < 120);  // others do TF32 at the rate of FFMA
    const double words_per_cycle = (fast ? 120 : 60) / (split ? 1.6 : 1);
    const double ffma_per_cycle = arch == 80 ? 30 : 52;
    const double bytes_per_cycle = 18;
    const double outputs = static_cast<double>(problem.O) * static_cast<double>(problem.P);
    const double direct = outputs * static_cast<double>(problem.C * problem.K) / ffma_per_cycle;
    const double stores = outputs * static_cast<double>(element_bytes(problem.dtype)) / bytes_per_cycle;
    return words / words_per_cycle <= std::max(direct, stores);
}

template <class Tile>
struct Launch {
    static bool takes(const Problem& problem) {
        const Params params = plan<Tile>(problem);
        return params.blocks > 0 && params.blocks <= kMaxBlocks;
    }

    // Whether it does better than "direct", by one sample's numbers.
    static bool suits(const Problem& problem) {
        const Params params = plan<Tile>(problem);
        // Many weights take long to bring: worth it where many positions share them, and most taps meet x (us
        // by this route and by "direct": 8x11x792 to 72, K166, TF32 176 and 69; 5x3x593 to 104, K230, 40 and
        // 22; 19x7x87 to 17, K596 d9 all in padding, 500 and 400).
        const bool padded = problem.K * problem.dilation > 2 * problem.L;
        if (params.chunks > 1 && padded) return false;
        if (params.chunks * params.chunk_steps > 64 && problem.P < 2048) return false;
        // Multiply-adds of words, those of padding included.
        const double words = static_cast<double>(params.chunks) * params.chunk_steps * kMmaWords *
                             static_cast<double>(round_up(problem.O, 16)) *
                             static_cast<double>(round_up(problem.P, Tile::kWarpP));
        return beats_direct(problem, words, Tile::kSplit);
    }

    static Error run(const Problem& problem, cudaStream_t stream) {
        const Params params = plan<Tile>(problem);
        const auto kernel = fold_sm80_forward_kernel<Tile>;
        const Error error = allow_smem<fold_sm80_forward_kernel<Tile>>(problem.device);
        if (error != nullptr) return error;
        kernel<<<static_cast<unsigned>(params.blocks), 32 * params.warps, params.smem_bytes, stream>>>(
            params);
        return launch_error();
    }
};

// Calls Launch<Tile> of the tile that suits: the one that reads least from shared memory, but long rows where
// three products for one hide the reads of x.
template <class Element, bool kSplit, class Call>
auto with_tile(const Problem& problem, Call call) {
    if constexpr (kSplit) {
        if (problem.P >= 448) return call(Launch<Tile<Element, true, 1, 16>>{});
        return call(Launch<Tile<Element, true, 1, 8>>{});
    } else {
        return call(Launch<Tile<Element, false, 2, 8>>{});
    }
}

template <class Call>
auto with_launch(const Problem& problem, Call call) {
    switch (problem.dtype) {
        case Dtype::float16:
            return with_tile<__half, false>(problem, call);
        case Dtype::bfloat16:
            return with_tile<__nv_bfloat16, false>(problem, call);
        default:
            if (problem.precision == Precision::tf32) return with_tile<float, false>(problem, call);
            return with_tile<float, true>(problem, call);
    }
}

// What the kernel can compute; `problem` is canonical.
inline bool takes(const Problem& problem) {
    if (problem.dtype == Dtype::float64 || problem.device.arch < 80 || problem.C >= 16) return false;
    // What one block spans is counted in 32 bits.
    if (problem.stride > 64 || problem.K > 8192 || problem.dilation > 8192 ||
        problem.K * problem.dilation > 32768)
        return false;
    return with_launch(problem, [&](auto launch) { return launch.takes(problem); });
}

}  // namespace fold

// fp32, fp16 and bf16 from sm_80 on, fewer than 16 input channels a group. "direct" keeps sums too short
// for tensor cores to pay, and samples too small for setting out to (us by this route and by that: 3x3x468
// to 49, K24, TF32 17 and 10, bf16 14 and 11; 9x4x2594 to 71, K13 s4, 16 and 13, 14 and 17; 8x80x5238 to
// 104, K11 s4 g8, 20 and 34, 18 and 50; fp32, which takes three products for one, of one group: 1x2x1592 to
// 90, K158, 47 and 15, 256x4x600 to 300, K19, 333 and 286, but 23x3x2717 to 105, K459, 816 and 931), and
// strides that leave most of x unread (3x88x160185 to 96, K1 s8 g8, bf16, 97 and 60).
inline bool fits_fold_sm80(const Problem& any_problem) {
    const Problem problem = canonical(any_problem);
    const bool is_float = problem.dtype == Dtype::float32;
    // In 16 bits products may be more than half empty: 20x780x157 to 325, K7 g65 70 us by direct, 24 by this.
    if (problem.O < (is_float ? 8 : 4) || !fold::takes(problem)) return false;
    const bool is_tf32 = problem.precision == Precision::tf32;
    const int64_t least_products = !is_float ? (problem.O < 8 ? 36 : 10)
                                   : !is_tf32 ? 48
                                   : problem.O >= 128 ? 10 : 32;
    if (problem.C * problem.K < least_products || problem.stride >= 4 * problem.K) return false;
    if (fits_gather(problem)) return false;
    // Of one sample: its result must not depend on others.
    const double products = static_cast<double>(problem.G * problem.O * problem.C * problem.K) *
                            static_cast<double>(problem.P);
    const double least = !is_float ? 4e5 : is_tf32 ? 5e6 : problem.G > 1 ? 4e6 : 3.2e8;
    if (products < least) return false;
    return fold::with_launch(problem, [&](auto launch) { return launch.suits(problem); });
}

inline Error launch_fold_sm80(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    return fold::with_launch(problem, [&](auto launch) { return launch.run(problem, stream); });
}

}  // namespace conv1d
