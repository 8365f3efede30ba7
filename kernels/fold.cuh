// Groups of few channels on tensor cores, sm_80 and later: an implicit GEMM with mma.sync whose depth is the
// folded index (channel, tap). TF32, fp16, bf16, and fp32 at full accuracy as three TF32 products.
//
// Depth counts in words of 4 bytes: one fp32 operand, or two 16-bit ones: of two channels and one tap, or,
// where a group has one channel, of two neighbouring taps. A block brings weights, in the order in which
// lanes hold operand A, and its window of x into shared memory, as [row][l % stride][l / stride]: row r of
// words is channel r, or channels {2r, 2r + 1}, or {x[l], x[l + dilation]}. Of any word then neighbouring
// output positions lie side by side, for operand B of any stride and dilation. After one filling each warp
// goes its own way over tasks of 16*kMTiles channels x kWarpP positions, so that stores overlap products. A
// depth too long for shared memory comes in chunks of rows, with one task a warp. Cost: 2 reads of x for each
// 16*kMTiles x 8 outputs and 8 words; far fewer where x slides along registers (Params::slide).
#pragma once
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "gather_plan.cuh"
#include "mma.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tile.cuh"

namespace conv1d {
namespace fold {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kMmaWords = 8;   // depth of one product
constexpr int kMaxMTiles = 8;  // of 16 output channels, of a block
constexpr int kMaxTasks = 32;  // of a block

// kSplit: each fp32 operand is a high and a low part, and three products of parts make one.
template <class Element_, bool kSplit_, int kMTiles_, int kNTiles_, int kBlocks_>
struct Tile {
    using Element = Element_;
    static constexpr bool kSplit = kSplit_;
    static constexpr int kMTiles = kMTiles_;  // of 16 output channels, of one task
    static constexpr int kNTiles = kNTiles_;  // of 8 positions, of one task
    static constexpr int kBlocks = kBlocks_;  // that share a multiprocessor
    // For up to 16 output channels: registers for more blocks, none for a depth that comes in chunks.
    static constexpr bool kIsNarrow = !kSplit && kMTiles == 1;
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
    Divisor row_depth;   // row_words, or the next multiple of 8 where they slide
    int32_t tap_step;    // input positions from a word to the next of its row
    int32_t chunk_rows;  // rows in shared memory at once; the last chunk may have fewer
    int32_t chunks;
    int32_t chunk_steps;  // products in the depth of a chunk
    Divisor stride;
    int32_t span;         // input positions that a block reads
    int32_t plane_words;  // from a plane to the next; a plane's words lie `stride` input positions apart
    int32_t row_slots;    // words of a row, which has `stride` planes
    Divisor fill_width;   // threads that bring x side by side along a row
    int32_t fill_rows;    // at once
    Divisor fill_quads;   // warps that bring weights side by side across output channels, of 4 each
    int32_t fill_steps;   // at once
    int32_t filled_quads;  // of output channels, likewise; weights of others may be anything, but for the
                           // soundness of split sums
    int32_t m_tiles;      // of a block
    int32_t tasks_o;      // of a block, along output channels
    int32_t tasks_p;      // of a block, along positions: neighbouring warps store neighbouring pieces of rows
    int32_t tasks;        // of a block
    int32_t warps;        // of a block
    int32_t smem_bytes;
    IndexDivisor o_blocks, p_blocks, groups;
    int64_t blocks;
};

// What one block computes. Kept in shared memory: the sums leave few registers.
struct Place {
    int64_t n, g, o_begin, p_begin;
    int32_t m_tiles;  // that hold output channels
};

template <class Tile>
__device__ __forceinline__ Place place_of(const Params& params) {
    const Problem& problem = params.problem;
    const uint32_t run = params.o_blocks.quotient(blockIdx.x), sample = params.p_blocks.quotient(run);
    Place place;
    place.n = params.groups.quotient(sample);
    place.g = sample - place.n * problem.G;
    place.o_begin = (blockIdx.x - run * params.o_blocks.divisor) * params.m_tiles * 16;
    place.p_begin = (run - sample * params.p_blocks.divisor) * (params.tasks_p * Tile::kWarpP);
    place.m_tiles = static_cast<int>(min((problem.O - place.o_begin + 15) / 16, int64_t{params.m_tiles}));
    return place;
}

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

// A word on its way to shared memory, zero where elements are missing. `second_step` leads from one half's
// element to the other's.
template <class Tile>
struct Word {
    using Element = typename Tile::Element;
    Element half[Tile::kPerWord];

    __device__ __forceinline__ void load(const Element* source, int64_t second_step, bool has_first,
                                         bool has_second) {
        half[0] = has_first ? *source : Element{};
        if constexpr (Tile::kPerWord == 2) half[1] = has_second ? source[second_step] : Element{};
    }

    __device__ __forceinline__ void store(uint32_t* target) const {
        if constexpr (Tile::kPerWord == 1) *target = float_word<Tile>(half[0]);
        else memcpy(target, half, 4);
    }
};

// Both fills load kAlong x kAcross words before they store any.
//
// Weights of one chunk, with zeros for what O, C and K lack. A warp brings 8 neighbouring words, a product's
// depth, of 4 output channels at once.
template <class Tile, int kAlong, int kAcross>
__device__ __forceinline__ void fill_w(const Params& params, const Place& place, int row_begin,
                                       uint32_t* w_smem) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int K = static_cast<int>(problem.K), products = static_cast<int>(problem.C) * K;
    const int channels = static_cast<int>(problem.C) - row_begin * Tile::kPerWord;
    const int depth = params.row_depth.divisor;
    const int chunk_words = min(params.chunk_rows, params.rows - row_begin) * depth;
    const int outputs = static_cast<int>(min(problem.O - place.o_begin, int64_t{params.m_tiles} * 16));
    const Element* const w = static_cast<const Element*>(problem.w) +
                             (place.g * problem.O + place.o_begin) * products +
                             row_begin * Tile::kPerWord * K;
    const int second_step = params.tap_pairs ? 1 : K;
    const int across = params.fill_quads.divisor, first_step = params.fill_quads.quotient(warp);
    const int quads = first_step < params.fill_steps ? params.filled_quads : 0;
#pragma unroll 1
    for (int begin = first_step; begin < params.chunk_steps; begin += kAlong * params.fill_steps) {
        int source[kAlong];
        bool first[kAlong], second[kAlong];
#pragma unroll
        for (int i = 0; i < kAlong; ++i) {
            const int at = (begin + i * params.fill_steps) * kMmaWords + lane % 8;
            const int row = params.row_depth.quotient(at), k = at - row * depth;
            source[i] = row * Tile::kPerWord * K + (params.tap_pairs ? 2 * k : k);
            first[i] = at < chunk_words && k < params.row_words;
            second[i] = first[i] && (params.tap_pairs ? 2 * k + 1 < K : 2 * row + 1 < channels);
        }
#pragma unroll 1
        for (int quad = warp - first_step * across; quad < quads; quad += kAcross * across) {
            Word<Tile> word[kAcross][kAlong];
#pragma unroll
            for (int j = 0; j < kAcross; ++j) {
                const int o = (quad + j * across) * 4 + lane / 8;
#pragma unroll
                for (int i = 0; i < kAlong; ++i) {
                    word[j][i].load(w + o * products + source[i], second_step, first[i] && o < outputs,
                                    second[i] && o < outputs);
                }
            }
#pragma unroll
            for (int j = 0; j < kAcross; ++j) {
                const int o = (quad + j * across) * 4 + lane / 8;
                uint32_t* const target = w_smem + o / 16 * params.chunk_steps * 128 + o % 8 * 16 + o / 8 % 2 +
                                         lane % 4 * 4 + lane / 4 % 2 * 2;
#pragma unroll
                for (int i = 0; i < kAlong; ++i) {
                    const int step = begin + i * params.fill_steps;
                    if (step < params.chunk_steps && quad + j * across < quads)
                        word[j][i].store(target + step * 128);
                }
            }
        }
    }
}

// The window of x of one chunk, with zeros outside 0 <= l < L and for the channel that an odd C lacks.
template <class Tile, int kAlong, int kAcross>
__device__ __forceinline__ void fill_x(const Params& params, const Place& place, int row_begin,
                                       uint32_t* x_smem) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int rows = min(params.chunk_rows, params.rows - row_begin);
    const int channels = static_cast<int>(problem.C) - row_begin * Tile::kPerWord;
    const int lag = params.tap_pairs ? static_cast<int>(problem.dilation) : 0;  // of the second tap of a pair
    const int64_t l_begin = place.p_begin * problem.stride - problem.pad_left;
    const Inside inside = inside_row(l_begin, problem.L, params.span + lag);
    const int64_t row_step = Tile::kPerWord * problem.x_stride_c;
    const int64_t second_step = params.tap_pairs ? lag * problem.x_stride_l : problem.x_stride_c;
    const int width = params.fill_width.divisor, group = params.fill_width.quotient(threadIdx.x);
    const int first_row = group < params.fill_rows ? group : rows;
    const Element* const x = static_cast<const Element*>(problem.x) + place.n * problem.x_stride_n +
                             (place.g * problem.C + row_begin * Tile::kPerWord) * problem.x_stride_c +
                             l_begin * problem.x_stride_l + first_row * row_step;
#pragma unroll 1
    for (int begin = threadIdx.x - group * width; begin < params.span; begin += kAlong * width) {
        const Element* source[kAlong];
        int slot[kAlong];
        bool first[kAlong], second[kAlong];
#pragma unroll
        for (int i = 0; i < kAlong; ++i) {
            const int at = begin + i * width, turn = params.stride.quotient(at);
            source[i] = x + at * problem.x_stride_l;
            slot[i] = (at - turn * static_cast<int>(params.stride.divisor)) * params.plane_words + turn;
            first[i] = at >= inside.begin && at < inside.end;
            second[i] = at + lag >= inside.begin && at + lag < inside.end;
        }
#pragma unroll 1
        for (int row_at = first_row; row_at < rows; row_at += kAcross * params.fill_rows) {
            Word<Tile> word[kAcross][kAlong];
#pragma unroll
            for (int j = 0; j < kAcross; ++j) {
                const int row = row_at + j * params.fill_rows;
                const bool has_second = row < rows && (params.tap_pairs || 2 * row + 1 < channels);
#pragma unroll
                for (int i = 0; i < kAlong; ++i) {
                    word[j][i].load(source[i], second_step, first[i] && row < rows, second[i] && has_second);
                    source[i] += row_step * params.fill_rows;
                }
            }
#pragma unroll
            for (int j = 0; j < kAcross; ++j) {
                const int row = row_at + j * params.fill_rows;
#pragma unroll
                for (int i = 0; i < kAlong; ++i) {
                    if (begin + i * width < params.span && row < rows)
                        word[j][i].store(x_smem + row * params.row_slots + slot[i]);
                }
            }
        }
    }
}

// Asks for the window of x before weights are brought: fill_x has few loads on its way. fp32 .97 of the time,
// in 16 bits, whose words are two loads each, 1.03.
template <class Tile>
__device__ __forceinline__ void prefetch_x(const Params& params, const Place& place) {
    using Element = typename Tile::Element;
    constexpr int kLine = 128 / sizeof(Element);
    const Problem& problem = params.problem;
    if (problem.x_stride_l != 1) return;
    const int64_t l_begin = place.p_begin * problem.stride - problem.pad_left;
    const Inside inside = inside_row(l_begin, problem.L, params.span);
    const Element* const x = static_cast<const Element*>(problem.x) + place.n * problem.x_stride_n +
                             place.g * problem.C * problem.x_stride_c + l_begin;
    for (int c = threadIdx.x / 32; c < problem.C; c += params.warps) {
        for (int at = inside.begin + threadIdx.x % 32 * kLine; at < inside.end; at += 32 * kLine)
            ptx::prefetch_l2(x + c * problem.x_stride_c + at);
    }
}

// Where the words of a chunk lie in x_smem for output position 0 of the block.
__device__ __forceinline__ void fill_offsets(const Params& params, int2* offsets) {
    const int depth = params.row_depth.divisor, chunk_words = params.chunk_rows * depth;
    for (int word = threadIdx.x; word < params.chunk_steps * kMmaWords; word += blockDim.x) {
        const int row = params.row_depth.quotient(word), l = (word - row * depth) * params.tap_step;
        const int turn = params.stride.quotient(l);
        const int plane = l - turn * static_cast<int>(params.stride.divisor);
        const int offset = row * params.row_slots + plane * params.plane_words + turn;
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
                                              bool slides, uint2 mask, int m_count,
                                              uint2 (&x_frag)[Tile::kNTiles],
                                              float (&sum)[Tile::kMTiles][Tile::kNTiles][4]) {
    const auto load = [&](int n) { return make_uint2(x[offset.x + 8 * n], x[offset.y + 8 * n]); };
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
    const uint32_t* x = memory.x + position + lane / 4;
    const int2* offsets = memory.offsets + t;
    uint2 x_frag[Tile::kNTiles];
    for (int run = 0; run < runs; ++run) {
#pragma unroll 1
        for (int step = 0; step < last; ++step, w += 32, offsets += 4) {
            multiply_step<Tile, false>(w, w_pitch, x, *offsets, params.slide && step > 0, {}, m_count, x_frag,
                                       sum);
        }
        multiply_step<Tile, true>(w, w_pitch, x, *offsets, params.slide && last > 0, mask, m_count, x_frag,
                                  sum);
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

// Blocks that registers are shared by. With more, ptxas spills some: for sm_120 with two, for sm_100 with
// three.
template <class Tile>
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
constexpr int kLaunchBlocks = 1;
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kLaunchBlocks = 2;
#else
constexpr int kLaunchBlocks = Tile::kBlocks;
#endif

template <class Tile>
__global__ void __launch_bounds__(kThreads, kLaunchBlocks<Tile>)
    fold_sm80_forward_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    using Element = typename Tile::Element;
    extern __shared__ __align__(16) unsigned char smem[];
    const Memory memory = memory_at(params, smem);
    const Problem& problem = params.problem;

    __shared__ Place place;
    {
        const Place here = place_of<Tile>(params);
        if (threadIdx.x == 0) place = here;
        if constexpr (Tile::kPerWord == 1) prefetch_x<Tile>(params, here);
        fill_offsets(params, memory.offsets);
        for (int o = threadIdx.x; o < params.m_tiles * 16; o += blockDim.x) {
            const bool biased = problem.bias != nullptr && here.o_begin + o < problem.O;
            const Element* bias = static_cast<const Element*>(problem.bias) + here.g * problem.O;
            memory.bias[o] = biased ? widen(bias[here.o_begin + o]) : 0.0f;
        }
        if constexpr (Tile::kMTiles == 1) fill_w<Tile, 8 / Tile::kPerWord, 1>(params, here, 0, memory.w);
        else fill_w<Tile, 2, 4>(params, here, 0, memory.w);
        if (params.rows <= 2) fill_x<Tile, 4, 2>(params, here, 0, memory.x);
        else fill_x<Tile, 2, 4>(params, here, 0, memory.x);
    }
    __syncthreads();

    // Of several chunks, warps without a task help to bring the rest.
    const int chunks = Tile::kIsNarrow ? 1 : params.chunks;
    const int tasks = chunks == 1 ? params.tasks : params.warps;
    for (int task = threadIdx.x / 32; task < tasks; task += params.warps) {
        const int row = Tile::kIsNarrow ? 0 : task / params.tasks_p;
        const int m_begin = row * Tile::kMTiles;
        const int m_count = Tile::kIsNarrow ? 1 : min(place.m_tiles - m_begin, Tile::kMTiles);
        const int position = (task - row * params.tasks_p) * Tile::kWarpP;
        const bool active = m_count > 0 && place.p_begin + position < problem.P;
        if (chunks == 1 && !active) continue;
        float sum[Tile::kMTiles][Tile::kNTiles][4] = {};
#pragma unroll 1
        for (int chunk = 0; chunk < chunks; ++chunk) {
            const int row_begin = chunk * params.chunk_rows;
            if (chunk > 0) {
                __syncthreads();  // the chunk before has been read
                fill_w<Tile, 1, 2>(params, place, row_begin, memory.w);
                fill_x<Tile, 1, 2>(params, place, row_begin, memory.x);
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

// Cuts the output channels and the positions so that a block takes at most `smem_limit` bytes: the whole
// depth at once and a task for each of `warps`, or, where that is 0, the depth in chunks. `blocks` is 0 where
// that cannot be.
template <class Tile>
Params plan_within(const Problem& problem, int64_t smem_limit, int64_t warps) {
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
    const int64_t depth = params.slide ? whole : params.row_words;
    params.row_depth = plan_divisor(depth);
    params.stride = plan_divisor(problem.stride);
    const auto address = reinterpret_cast<uintptr_t>(problem.y);
    params.y_pairs = problem.P % 2 == 0 && address % (2 * sizeof(typename Tile::Element)) == 0;
    params.y_vectors = problem.P % Tile::kVector == 0 && address % 16 == 0;

    const int64_t m_total = ceil_div(problem.O, 16);
    const int64_t p_total = ceil_div(problem.P, Tile::kWarpP);
    // The next number of words that is 8 more than a multiple of 32 banks: a warp reads words of 4 planes or
    // rows at once, at 8 positions each.
    const auto apart = [](int64_t words) { return round_up(words + 24, 32) - 24; };
    const auto set = [&](int64_t chunk_rows, int64_t m_tiles, int64_t p_tiles) {
        params.chunks = static_cast<int32_t>(ceil_div(params.rows, chunk_rows));
        params.chunk_rows = static_cast<int32_t>(ceil_div(params.rows, params.chunks));
        params.chunk_steps = static_cast<int32_t>(ceil_div(params.chunk_rows * depth, kMmaWords));
        const int64_t span =
            (p_tiles * Tile::kWarpP - 1) * problem.stride + (depth - 1) * params.tap_step + 1;
        const int64_t plane_words = ceil_div(span, problem.stride);
        params.span = static_cast<int32_t>(span);
        params.plane_words = static_cast<int32_t>(problem.stride > 1 ? apart(plane_words) : plane_words);
        params.row_slots = static_cast<int32_t>(apart(problem.stride * params.plane_words));
        params.m_tiles = static_cast<int32_t>(m_tiles);
        params.tasks_o = static_cast<int32_t>(ceil_div(m_tiles, Tile::kMTiles));
        params.tasks_p = static_cast<int32_t>(p_tiles);
        params.tasks = params.tasks_o * params.tasks_p;
        params.smem_bytes = static_cast<int32_t>(smem_bytes<Tile>(params));
        const int64_t o_blocks = ceil_div(m_total, m_tiles), p_blocks = ceil_div(p_total, p_tiles);
        params.o_blocks = plan_index_divisor(o_blocks);
        params.p_blocks = plan_index_divisor(p_blocks);
        params.groups = plan_index_divisor(problem.G);
        params.blocks = o_blocks * p_blocks * problem.G * problem.N;
        // All where they share the tasks evenly, else some that do, and more that help to bring where blocks
        // are few.
        const int64_t even = params.tasks % kWarps == 0 ? kWarps
                             : params.tasks < kWarps    ? params.tasks
                                                        : kWarps / params.tasks_o * params.tasks_o;
        const int64_t share = 2 * kWarps * problem.device.sm_count / params.blocks;
        params.warps = static_cast<int32_t>(std::max(even, std::min<int64_t>(kWarps, share)));
        const int64_t width = std::min<int64_t>(round_up(span, 32), 32 * params.warps);
        params.filled_quads = static_cast<int32_t>(Tile::kIsNarrow ? ceil_div(problem.O, 4) : 4 * m_tiles);
        const int64_t quads = std::min(params.filled_quads, params.warps);
        params.fill_width = plan_divisor(width);
        params.fill_rows = static_cast<int32_t>(32 * params.warps / width);
        params.fill_quads = plan_divisor(quads);
        params.fill_steps = static_cast<int32_t>(params.warps / quads);
        return params.smem_bytes <= smem_limit;
    };
    // Output channels in equal blocks, a multiple of a task's where there are several.
    const auto m_tiles_of = [&](int64_t most) {
        if (m_total <= most) return m_total;
        return round_up(ceil_div(m_total, ceil_div(m_total, most)), Tile::kMTiles);
    };
    // The whole depth, for as many output channels as leave half the room.
    for (int64_t most = kMaxMTiles; warps > 0 && most >= Tile::kMTiles; most /= 2) {
        const int64_t m_tiles = m_tiles_of(most);
        int64_t p_tiles = std::min(warps / ceil_div(m_tiles, Tile::kMTiles), p_total);
        if (!set(params.rows, m_tiles, p_tiles)) continue;
        if (most / 2 >= Tile::kMTiles && m_tiles > most / 2 &&
            4 * m_total >= 3 * round_up(m_total, m_tiles_of(most / 2)) &&
            m_tiles * params.chunk_steps * 512 > smem_limit / 2)
            continue;
        // More positions share one filling while some waves of blocks remain.
        const auto larger = [&] {
            return 2 * params.tasks <= kMaxTasks && p_tiles < p_total &&
                   set(params.rows, m_tiles, 2 * p_tiles) &&
                   params.blocks >= 2 * Tile::kBlocks * problem.device.sm_count;
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
    for (int64_t chunk_rows = params.rows; warps == 0 && chunk_rows > 0; --chunk_rows) {
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
    // A block's share of a multiprocessor's shared memory, of which each block takes 1 KB more.
    const int64_t all = problem.device.smem_bytes + 1024, other = 1024 + static_cast<int64_t>(sizeof(Place));
    for (const int64_t warps : {kWarps, Tile::kIsNarrow ? kWarps / 2 : 0}) {
        for (int blocks = Tile::kBlocks; blocks > (warps > 0 ? 1 : 0); --blocks) {
            const Params params = plan_within<Tile>(problem, all / blocks - other, warps);
            if (params.blocks > 0) return params;
        }
    }
    return {};
}

// Whether tensor cores need no more cycles than the multiply-adds of the "direct" route, by what one
// multiprocessor does in a cycle, measured: words by mma.sync, multiply-adds, bytes stored. Where stores
// outlast both, this route has the better stores.
template <class Tile>
bool beats_direct(const Problem& problem, double words) {
    const int arch = problem.device.arch;
    const bool fast = arch == 80 || (arch >= 90 && arch < 120);  // others do TF32 at the rate of FFMA
    const double fast_words = Tile::kSplit ? 75 : Tile::kIsNarrow ? 220 : 120;
    const double words_per_cycle = fast ? fast_words : Tile::kSplit ? 37.5 : 60;
    const double ffma_per_cycle = arch == 80 ? 30 : 52;
    const double bytes_per_cycle = 18;
    const double outputs = static_cast<double>(problem.O) * static_cast<double>(problem.P);
    const double direct = outputs * static_cast<double>(problem.C * problem.K) / ffma_per_cycle;
    const double stores = outputs * static_cast<double>(element_bytes(problem.dtype)) / bytes_per_cycle;
    return words / words_per_cycle <= std::max(direct, stores);
}

// A problem, planned for a tile.
template <class Tile>
struct Launch {
    const Params params;

    explicit Launch(const Problem& problem) : params(plan<Tile>(problem)) {}

    bool takes() const { return params.blocks > 0 && params.blocks <= kMaxBlocks; }

    // Whether it does better than "direct", by one sample's numbers.
    bool suits() const {
        const Problem& problem = params.problem;
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
        return beats_direct<Tile>(problem, words);
    }

    Error run(cudaStream_t stream) const {
        const auto kernel = fold_sm80_forward_kernel<Tile>;
        const Error error = allow_smem<fold_sm80_forward_kernel<Tile>>(params.problem.device);
        if (error != nullptr) return error;
        kernel<<<static_cast<unsigned>(params.blocks), 32 * params.warps, params.smem_bytes, stream>>>(
            params);
        return launch_error();
    }
};

// Calls with a Launch of the tile that suits: the one that reads least from shared memory, but long rows
// where three products for one hide the reads of x.
template <class Element, bool kSplit, class Call>
auto with_tile(const Problem& problem, Call call) {
    if constexpr (kSplit) {
        if (problem.P >= 448) return call(Launch<Tile<Element, true, 1, 16, 2>>(problem));
        return call(Launch<Tile<Element, true, 1, 8, 2>>(problem));
    } else {
        if (problem.O <= 16) {
            const Launch<Tile<Element, false, 1, 8, 3>> narrow(problem);
            if (narrow.takes()) return call(narrow);
        }
        return call(Launch<Tile<Element, false, 2, 8, 2>>(problem));
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

// Without a plan; `problem` is canonical, here and below.
inline bool may_take(const Problem& problem) {
    // What one block spans is counted in 32 bits.
    return problem.dtype != Dtype::float64 && problem.device.arch >= 80 && problem.C < 16 &&
           problem.stride <= 64 && problem.K <= 8192 && problem.dilation <= 8192 &&
           problem.K * problem.dilation <= 32768;
}

// What the kernel can compute.
inline bool takes(const Problem& problem) {
    return may_take(problem) && with_launch(problem, [](const auto& launch) { return launch.takes(); });
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
    const bool is_tf32 = problem.precision == Precision::tf32;
    const int64_t O = problem.O;
    // Products may be more than half empty: 20x780x157 to 325, K7 g65 bf16 55 us by direct, 21 by this, in
    // TF32 51, 23. With 4 outputs that takes long sums: bf16 14x272x1275 to 136, K21 g34 43, 24; 42x14x63902
    // to 28, K13 g7 264, 305.
    if (O < (!is_float ? 3 : is_tf32 ? 5 : 8) || !fold::may_take(problem)) return false;
    const int64_t least_products = !is_float ? (O < 4 ? 160 : O < 5 ? 90 : O < 8 ? 16 : 10)
                                   : !is_tf32 ? 48
                                              : (O < 128 ? 24 : 10);
    if (problem.C * problem.K < least_products || problem.stride >= 4 * problem.K) return false;
    if (fits_gather(problem)) return false;
    // Of one sample: its result must not depend on others.
    const double products = static_cast<double>(problem.G * problem.O * problem.C * problem.K) *
                            static_cast<double>(problem.P);
    const double least = !is_float ? 4e5 : is_tf32 ? 3e6 : problem.G > 1 ? 4e6 : 3.2e8;
    if (products < least) return false;
    return fold::with_launch(problem, [](const auto& launch) { return launch.takes() && launch.suits(); });
}

inline Error launch_fold_sm80(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    return fold::with_launch(problem, [&](const auto& launch) { return launch.run(stream); });
}

}  // namespace conv1d
