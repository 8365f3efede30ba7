// Short sums of few channels on tensor cores, sm_80 and later, bound by the stores of y: TF32, fp16, bf16,
// and fp32 at full accuracy as three products of fp16 parts. Stems of audio and genome models.
//
// Operands are as in fold.cuh: D[channel][position] by mma.sync, depth the folded (channel, tap) index in
// words of 4 bytes. A block has some channels and a span of positions. Its weights lie in shared memory as
// products read them, x as [row of words][l mod stride][l / stride]: a tap of any stride and dilation is a
// shift. Columns of products are dealt so that a lane holds 16 bytes of a row of y.
//
// A warp's job is 16 channels by 512 bytes of their rows, staged and stored by one bulk copy a row. The warps
// of a block, and then blocks, have neighbouring pieces of the same rows: stores are the faster the longer
// their pieces are and the fewer rows are written at once. Where sums are long, shared memory binds instead:
// then a job is 32 channels, whose products share x in registers, and is stored from there.
//
// Channels of a job are `classes` apart, so that their rows of y begin alike within a sector of 32 bytes, and
// positions count from there: all stores but the ends of rows fill whole sectors.
#pragma once
#include <algorithm>
#include <cstring>
#include <numeric>
#include <type_traits>

#include "mma.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tile.cuh"

namespace conv1d {
namespace stem {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kMmaWords = 8;      // depth of one product
constexpr int kMTileO = 16;       // output channels of one product
constexpr int kPieceBytes = 512;  // of a row of y, of a job
constexpr int kStagedBytes = kWarps * kMTileO * kPieceBytes;
constexpr int kMostTiles = 12;    // of 16 channels, of a block
constexpr int kMostPieces = 8;    // of rows, of a block; x is brought for each block
constexpr int kLongPieces = 4;    // likewise, of long sums: their stores need what is left as L1 cache
constexpr int kLongRowPieces = 16;  // from which a row is long enough for them
constexpr int kSetOutJobs = 6;    // that a warp does in the time that setting out takes
constexpr int kSectorBytes = 32;
constexpr int kMaxWords = 80;     // of depth
constexpr int kBlocks = 2;        // that share a multiprocessor of 228 KB
// Likewise, and its registers. With two, ptxas for sm_100 and later spills some.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kLaunchBlocks = 1;
#else
constexpr int kLaunchBlocks = kBlocks;
#endif

// kSplit: each fp32 operand is two fp16 numbers, scaled by a power of two: high + low / 2^11.
template <class Element_, bool kSplit_>
struct Tile {
    using Element = Element_;
    using Operand = std::conditional_t<kSplit_, __half, Element_>;  // of products
    static constexpr bool kSplit = kSplit_;
    static constexpr int kParts = kSplit ? 2 : 1;
    static constexpr int kPerWord = 4 / sizeof(Operand);
    static constexpr int kVector = 16 / sizeof(Element);  // positions that a lane stages at once
    static constexpr int kNTiles = kVector / 2;           // of 8 positions, whose columns that takes
    static constexpr int kGroup = 8 * kNTiles;            // positions: 64 bytes of a row of y
    static constexpr int kChunk = 2 * kGroup;
    static constexpr int kPiece = kPieceBytes / sizeof(Element);
    static constexpr int kBatch = kSplit ? 8 : kPerWord == 1 ? 11 : 14;  // words in flight, of a thread
    static constexpr int kBlockTiles = kSplit ? kMostTiles : 8;  // of 16 channels, of a block, at most
    static constexpr int kMaxSteps = kPerWord == 1 ? 10 : 5;     // products in the depth
    static constexpr int kLongSteps = kPerWord == 1 ? 8 : 5;     // likewise, where a job is 32 channels

    // For so many the kernel has code.
    static constexpr int round_steps(int64_t steps) {
        for (const int held : {1, 2, 4, kLongSteps})
            if (steps <= held) return held;
        return kMaxSteps;
    }
};

struct Params {
    Problem problem;
    bool tap_pairs;       // a word is two taps of one channel, not two channels of one tap
    int32_t rows;         // of words in shared memory
    int32_t words;        // of depth
    Divisor row_words;    // K, or K / 2 for tap pairs, whose last tap, where K is odd, has row 1 for itself
    int32_t steps;        // products in the depth
    Divisor stride;
    Divisor positions;    // of x, that a block reads
    int32_t plane_slots;  // of one row and one residue of l modulo the stride
    int32_t x_slots;      // of one part of x
    int32_t zeros;        // behind them, as many as a job has positions: for what the last step lacks
    int32_t part_slots;   // from one part to the next
    int32_t second_rows;  // that have a second element in their words
    int32_t row_bytes, l_bytes, second_bytes;  // in x, from row to row, position to position, to the second
    int32_t align;        // elements that phases count to
    int32_t classes;      // from a job's channel to its next
    int64_t row_step;     // likewise, in elements of y
    int32_t m_tiles;      // of 16 channels, of a job
    int32_t tiles;        // of a job's channels, of a group
    int32_t block_tiles;  // likewise, of a block
    int32_t span;         // positions of a block
    Divisor pieces;       // of 512 bytes of a row, of a block
    int32_t p_step;       // where a job is 32 channels, from its chunk to its next: others have those between
    int32_t p_blocks, o_blocks;
    int32_t replicas;     // blocks that share the places of some channels
    int32_t staged_bytes, smem_bytes;
    int64_t blocks;

    // Which of a channel's weights a word of the depth holds, -1 for none.
    template <int kPerWord>
    __device__ __forceinline__ int2 elements_of(int word) const {
        if (word >= words) return int2{-1, -1};
        if (kPerWord == 1) return int2{word, -1};
        const int K = static_cast<int>(problem.K);
        if (tap_pairs) return int2{2 * word, 2 * word + 1 < K ? 2 * word + 1 : -1};
        const int row = row_words.quotient(word), first = word + row * K;
        return int2{first, 2 * row + 1 < problem.C ? first + K : -1};
    }
    // Where x of a word of the depth lies for position 0, and whether it moves along with positions: what
    // the last step lacks is zeros.
    __device__ __forceinline__ int2 slot_of(int word) const {
        if (word >= words) return int2{x_slots, 0};
        const uint32_t row = row_words.quotient(word);
        const uint32_t tap = tap_pairs ? 2 * word : word - row * row_words.divisor;
        const uint32_t offset = tap * static_cast<uint32_t>(problem.dilation);
        const uint32_t shift = stride.quotient(offset);
        return int2{static_cast<int>(((row - shift) * stride.divisor + offset) * plane_slots + shift), -1};
    }
};

struct WarpRanges {
    uint2 of[kWarps];
};

// The channels of a job.
struct Rows {
    void* y;        // of the first one
    int32_t o;      // the first one
    int32_t count;  // that exist
    int32_t phase;  // how far behind a sector their rows of y begin
};

// What a block keeps beside weights, x and y.
struct alignas(16) Tables {
    WarpRanges ranges;
    int2 slots[kMaxWords];
    int2 elements[kMaxWords];
    float2 finish[kMostTiles * kMTileO];  // {factor, bias} of a row's sums
    Rows rows[kMostTiles];                // of each tile
    int32_t suit[kMostTiles];             // whether their weights are sums of two parts
    float x_unscale;                      // 0 where x is not
};

// Shared memory of a block, as a warp sees it.
struct Shared {
    unsigned char* staged;  // what it stores next, 16 rows of 512 bytes
    Tables* tables;
    uint4* weights;  // [tile of 16 channels][step][part][lane]
    uint32_t* x;     // [part], each [row of words][l mod stride][l / stride] and zeros
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// An operand's high and low part, of a value already scaled.
struct Parts {
    __half high, low;
};
__device__ __forceinline__ Parts split(float value) {
    const __half high = __float2half_rn(value);
    return {high, __float2half_rn((value - __half2float(high)) * 2048.0f)};
}

template <class Element>
__device__ __forceinline__ uint32_t pack(Element first, Element second) {
    const Element pair[2] = {first, second};
    uint32_t bits;
    memcpy(&bits, pair, 4);
    return bits;
}

// Words of products from elements: {high, low} where they are split, else the first alone.
template <class Tile>
__device__ __forceinline__ uint2 operand_words(const typename Tile::Element (&value)[Tile::kPerWord],
                                               float scale) {
    if constexpr (Tile::kSplit) {
        const Parts first = split(value[0] * scale), second = split(value[1] * scale);
        return make_uint2(pack(first.high, second.high), pack(first.low, second.low));
    } else if constexpr (Tile::kPerWord == 2) {
        return make_uint2(pack(value[0], value[1]), 0);
    } else {
        return make_uint2(round_tf32(__float_as_uint(value[0])), 0);
    }
}

// The largest and the smallest magnitude but zero among fp32 operands, as bits.
constexpr uint32_t kInfinity = 0x7F800000;
struct Range {
    uint32_t largest, smallest;

    __device__ __forceinline__ void add(float value) {
        const uint32_t bits = __float_as_uint(value) & 0x7FFFFFFF;
        largest = max(largest, bits);
        smallest = min(smallest, bits == 0 ? smallest : bits);
    }
    // Whether two fp16 numbers hold 22 bits of each operand, once the largest is scaled to 2^14..2^15.
    __device__ __forceinline__ bool suits() const {
        const int high = largest >> 23, low = smallest >> 23;
        return largest == 0 || (high <= 127 + 60 && high >= 127 - 40 && high - low <= 26);
    }
    __device__ __forceinline__ float scale() const {
        return largest == 0 ? 1.0f : __uint_as_float((127 + 14 + 127 - (largest >> 23)) << 23);
    }
    __device__ __forceinline__ float unscale() const {
        return largest == 0 ? 1.0f : __uint_as_float(((largest >> 23) - 14) << 23);
    }
};

// Calls use(slot, value) for the words of x that a block reads, zeros outside 0 <= l < L.
template <class Tile, class Use>
__device__ __forceinline__ void for_words(const Params& params, const typename Tile::Element* x,
                                          int64_t l_begin, Use use) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const uint32_t positions = params.positions.divisor, items = params.rows * positions;
    // Where a row of x begins and ends, counted from l_begin; how far on the second element of a word lies.
    constexpr int64_t kMost = 1 << 30;
    const int row_begin = static_cast<int>(min(max(-l_begin, -kMost), kMost));
    const int row_end = static_cast<int>(min(max(problem.L - l_begin, -kMost), kMost));
    const uint32_t inside = max(row_end - row_begin, 0);
    const int lag = params.tap_pairs ? static_cast<int>(problem.dilation) : 0;
    const auto* const bytes = reinterpret_cast<const unsigned char*>(x + l_begin * problem.x_stride_l);
#pragma unroll 1
    for (uint32_t begin = ptx::anew(threadIdx.x); begin < items; begin += Tile::kBatch * kThreads) {
        // Set here, or the compiler would carry what a break leaves unset around the loop, and spill.
        Element value[Tile::kBatch][Tile::kPerWord] = {};
        uint32_t slot[Tile::kBatch] = {};
        const uint32_t left = items - begin / kThreads * kThreads;
#pragma unroll
        for (int i = 0; i < Tile::kBatch; ++i) {
            if (i * kThreads >= left) break;
            const uint32_t item = begin + i * kThreads;
            const int row = params.positions.quotient(item);
            const int offset = item - row * positions;
            const uint32_t shift = params.stride.quotient(offset);
            slot[i] = ((row - shift) * params.stride.divisor + offset) * params.plane_slots + shift;
            const auto* const source =
                reinterpret_cast<const Element*>(bytes + (row * params.row_bytes + offset * params.l_bytes));
            const bool exists = item < items;
            value[i][0] = exists && static_cast<uint32_t>(offset - row_begin) < inside ? *source : Element{};
            if constexpr (Tile::kPerWord == 2) {
                const auto* const second = reinterpret_cast<const Element*>(
                    reinterpret_cast<const unsigned char*>(source) + params.second_bytes);
                const bool has_second = exists && row < params.second_rows &&
                                        static_cast<uint32_t>(offset + lag - row_begin) < inside;
                value[i][1] = has_second ? *second : Element{};
            }
        }
#pragma unroll
        for (int i = 0; i < Tile::kBatch; ++i) {
            if (i * kThreads >= left) break;
            if (begin + i * kThreads < items) use(slot[i], value[i]);
        }
    }
}

// The range of what all threads have seen.
__device__ __forceinline__ Range block_range(Range range, WarpRanges& warps_smem) {
    range.largest = __reduce_max_sync(0xFFFFFFFF, range.largest);
    range.smallest = __reduce_min_sync(0xFFFFFFFF, range.smallest);
    if (threadIdx.x % 32 == 0) warps_smem.of[threadIdx.x / 32] = make_uint2(range.largest, range.smallest);
    __syncthreads();
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) {
        range.largest = max(range.largest, warps_smem.of[warp].x);
        range.smallest = min(range.smallest, warps_smem.of[warp].y);
    }
    return range;
}

// The first channel of the group's `tile`th job, whose channels are `classes` apart.
__device__ __forceinline__ int first_channel(const Params& params, int tile) {
    const int before = tile / params.classes;
    return tile + before * (params.m_tiles * kMTileO - 1) * params.classes;
}

// One warp: the operands A of 16 channels from o_begin on, in the order in which lanes hold them, as
// [step][part][lane], and what becomes of the channels' sums. Returns whether they have two parts.
template <class Tile>
__device__ __forceinline__ bool load_weights(const Params& params, int64_t g, int o_begin,
                                             const int2* elements_smem, uint4* weights_smem,
                                             float2* finish_smem) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32;
    const int K = static_cast<int>(problem.K);
    const int row_elements = static_cast<int>(problem.C) * K;
    const Element* const w = static_cast<const Element*>(problem.w) + g * problem.O * row_elements;
    int row_offset[2];  // channels past the last have its weights, and go nowhere
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = half * 8 + lane / 4;
        const int64_t o = min(int64_t{o_begin + row * params.classes}, problem.O - 1);
        row_offset[half] = static_cast<int>(o) * row_elements;
        if (lane % 4 == 0) {
            const Element* const bias = static_cast<const Element*>(problem.bias) + g * problem.O + o;
            finish_smem[row] = make_float2(1.0f, problem.bias != nullptr ? widen(*bias) : 0.0f);
        }
    }
    // Words of step i / 4: rows lane / 4 and that + 8, word lane % 4 of the step and that + 4.
    Element value[4 * Tile::kMaxSteps][Tile::kPerWord];
#pragma unroll
    for (int i = 0; i < 4 * Tile::kMaxSteps; ++i) {
        const int2 element = elements_smem[i / 2 * 4 + lane % 4];
        const Element* const row = w + row_offset[i % 2];
        value[i][0] = element.x >= 0 ? row[element.x] : Element{};
        if constexpr (Tile::kPerWord == 2) value[i][1] = element.y >= 0 ? row[element.y] : Element{};
    }
    bool suit = true;
    float scale[2] = {};
    if constexpr (Tile::kSplit) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            Range range = {0, kInfinity};
#pragma unroll
            for (int i = half; i < 4 * Tile::kMaxSteps; i += 2) {
                range.add(value[i][0]);
                range.add(value[i][1]);
            }
#pragma unroll
            for (int other = 1; other < 4; other *= 2) {
                range.largest = max(range.largest, __shfl_xor_sync(0xFFFFFFFF, range.largest, other));
                range.smallest = min(range.smallest, __shfl_xor_sync(0xFFFFFFFF, range.smallest, other));
            }
            suit = suit && range.suits();
            scale[half] = range.scale();
            if (lane % 4 == 0) finish_smem[half * 8 + lane / 4].x = range.unscale();
        }
        suit = __all_sync(0xFFFFFFFF, suit);
    }
#pragma unroll
    for (int step = 0; step < Tile::kMaxSteps; ++step) {
        if (step >= params.steps) break;
        uint2 word[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) word[i] = operand_words<Tile>(value[4 * step + i], scale[i % 2]);
        uint4* const target = weights_smem + step * Tile::kParts * 32 + lane;
        target[0] = make_uint4(word[0].x, word[1].x, word[2].x, word[3].x);
        if constexpr (Tile::kSplit) target[32] = make_uint4(word[0].y, word[1].y, word[2].y, word[3].y);
    }
    return suit;
}

// A piece of the rows of some channels, `classes` apart.
template <class Element>
struct Piece {
    Element* y;      // of the first channel, at the first position
    int rows;        // channels that exist
    int begin, end;  // positions that exist
};

// Two neighbours of a row of y, rounded.
template <class Element>
__device__ __forceinline__ uint32_t round_pair(float first, float second) {
    return pack(narrow<Element>(first), narrow<Element>(second));
}

// A lane's 16 bytes of rows lane / 4 + 8 * i, of the group of a piece from p on: y is where the first goes.
template <int kCount, class Element>
__device__ __forceinline__ void store_vectors(const Params& params, const Piece<Element>& piece, int p,
                                              const uint4 (&vectors)[kCount], Element* y) {
    constexpr int kVector = 16 / sizeof(Element);
    const int lane = ptx::anew(threadIdx.x % 32), row = lane / 4, column = p + lane % 4 * kVector;
    if (p >= piece.begin && p + 4 * kVector <= piece.end && piece.rows == 8 * kCount) {
#pragma unroll
        for (int i = 0; i < kCount; ++i) ptx::st_global(y + i * 8 * params.row_step, vectors[i]);
        return;
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
        Element elements[kVector];
        memcpy(elements, &vectors[i], 16);
#pragma unroll
        for (int j = 0; j < kVector; ++j) {
            const bool exists = column + j >= piece.begin && column + j < piece.end;
            if (exists && row + 8 * i < piece.rows) y[i * 8 * params.row_step + j] = elements[j];
        }
    }
}

// One warp: the sums of a tile of kMTiles * 16 channels, by a piece from `at` on in the block. Those of 16
// channels are staged, 512 bytes a row; those of 32 go to y, 64 bytes of a row at a time.
template <class Tile, int kSteps, int kMTiles>
__device__ __forceinline__ void multiply(const Params& params, const Shared& shared,
                                         const Piece<typename Tile::Element>& piece, int tile, int at) {
    using Element = typename Tile::Element;
    using Operand = typename Tile::Operand;
    constexpr int kGroups = kMTiles == 1 ? 2 : 1;  // whose sums are held at once
    const int p_step = kMTiles == 1 ? Tile::kChunk : params.p_step;
    const int lane = ptx::anew(threadIdx.x % 32);
    const Tables& tables = *shared.tables;
    const uint4* const tile_weights = shared.weights + tile * kMTiles * kSteps * Tile::kParts * 32 + lane;
    const int position = at + params.align - 1 - tables.rows[tile].phase;
    uint4 weights[kSteps][kMTiles][Tile::kParts];
    const uint32_t* x[kSteps][2];  // where this lane's words of operand B lie for the first column
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
        for (int i = 0; i < kMTiles * Tile::kParts; ++i) {
            const int m = i / Tile::kParts, part = i % Tile::kParts;
            weights[step][m][part] = tile_weights[((m * kSteps + step) * Tile::kParts + part) * 32];
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int2 slot = tables.slots[step * kMmaWords + i * 4 + lane % 4];
            x[step][i] = shared.x + slot.x + (slot.y & position) + lane / 4 * Tile::kNTiles;
        }
    }
    float2 finish[2 * kMTiles];
#pragma unroll
    for (int i = 0; i < 2 * kMTiles; ++i) {
        finish[i] = tables.finish[tile * kMTiles * kMTileO + lane / 4 + 8 * i];
        if constexpr (Tile::kSplit) finish[i].x *= tables.x_unscale;
    }
    // Neighbouring rows lie in the same banks: odd ones stage their second group first.
    const bool is_odd = lane / 4 % 2 != 0;
    uint32_t target = ptx::smem_address(shared.staged) + lane / 4 * kPieceBytes + lane % 4 * 16;
    Element* y = piece.y + lane / 4 * params.row_step + lane % 4 * Tile::kVector;
#pragma unroll 1
    for (int p = 0; p < piece.end; p += p_step) {
#pragma unroll
        for (int held = 0; held < 2; held += kGroups) {
            float sum[kGroups][kMTiles][Tile::kNTiles][4] = {};
            float cross[kGroups][kMTiles][Tile::kNTiles][4] = {};
#pragma unroll
            for (int step = 0; step < kSteps; ++step) {
#pragma unroll
                for (int i = 0; i < kGroups * Tile::kNTiles; ++i) {
                    const int group = i / Tile::kNTiles, n = i % Tile::kNTiles;
                    const int column = (held + group) * Tile::kGroup + n;
                    const uint2 x_frag = make_uint2(x[step][0][column], x[step][1][column]);
                    uint2 x_low = make_uint2(0, 0);
                    if constexpr (Tile::kSplit) {
                        const uint32_t* const low[2] = {x[step][0] + params.part_slots,
                                                        x[step][1] + params.part_slots};
                        x_low = make_uint2(low[0][column], low[1][column]);
                    }
#pragma unroll
                    for (int m = 0; m < kMTiles; ++m) {
                        ptx::mma<Operand>(sum[group][m][n], weights[step][m][0], x_frag);
                        if constexpr (Tile::kSplit) {
                            ptx::mma<Operand>(cross[group][m][n], weights[step][m][0], x_low);
                            ptx::mma<Operand>(cross[group][m][n], weights[step][m][1], x_frag);
                        }
                    }
                }
            }
            uint4 out[kGroups][2 * kMTiles];
#pragma unroll
            for (int i = 0; i < kGroups * 2 * kMTiles; ++i) {
                const int group = i / (2 * kMTiles), half = i % (2 * kMTiles);
                const auto total = [&](int column) {
                    const int n = column % Tile::kNTiles, part = half % 2 * 2 + column / Tile::kNTiles;
                    float value = sum[group][half / 2][n][part];
                    if constexpr (Tile::kSplit)
                        value = (value + cross[group][half / 2][n][part] * (1.0f / 2048)) * finish[half].x;
                    return value + finish[half].y;
                };
                uint32_t word[4];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    if constexpr (sizeof(Element) == 4) word[j] = __float_as_uint(total(j));
                    else word[j] = round_pair<Element>(total(2 * j), total(2 * j + 1));
                }
                out[group][half] = make_uint4(word[0], word[1], word[2], word[3]);
            }
            if constexpr (kMTiles == 1) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const uint4 first = is_odd ? out[1][half] : out[0][half];
                    const uint4 second = is_odd ? out[0][half] : out[1][half];
                    const uint32_t row = target + half * 8 * kPieceBytes;
                    ptx::st_shared(row + (is_odd ? 64 : 0), first);
                    ptx::st_shared(row + (is_odd ? 0 : 64), second);
                }
            } else {
                store_vectors<2 * kMTiles>(params, piece, p + held * Tile::kGroup, out[0],
                                           y + held * Tile::kGroup);
            }
        }
        target += 128;
        y += p_step;
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
            x[step][0] += p_step;
            x[step][1] += p_step;
        }
    }
}

// One warp: stores what it has staged, and activates it before. From sm_90 on by bulk copies, which read it
// later: ptx::cp_async_bulk_wait_read.
template <class Tile>
__device__ __forceinline__ void store(const Params& params, const Piece<typename Tile::Element>& piece,
                                      unsigned char* staged) {
    using Element = typename Tile::Element;
    constexpr int kVector = Tile::kVector;
    const Problem& problem = params.problem;
    const int lane = ptx::anew(threadIdx.x % 32), row = lane % kMTileO;
    __syncwarp();  // all sums are staged
    if (problem.activation != Activation::none)
        activate_staged(problem.activation, reinterpret_cast<Element*>(staged), kMTileO * Tile::kPiece);
    // The part of the piece that is whole vectors.
    const int first = min((piece.begin + kVector - 1) / kVector * kVector, piece.end);
    const int last = max(piece.end / kVector * kVector, first);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    ptx::fence_proxy_async();
    __syncwarp();
    if (lane < piece.rows && lane < kMTileO && first < last) {
        ptx::cp_async_bulk_store(reinterpret_cast<uint64_t>(piece.y + lane * params.row_step + first),
                                 ptx::smem_address(staged) + lane * kPieceBytes + first * sizeof(Element),
                                 (last - first) * sizeof(Element));
    }
    ptx::cp_async_bulk_commit();
#else
    for (int i = 0; i < piece.rows; ++i) {
        const int column = lane * kVector;
        const uint4 vector = reinterpret_cast<const uint4*>(staged + i * kPieceBytes)[lane];
        if (column >= first && column < last) ptx::st_global(piece.y + i * params.row_step + column, vector);
    }
#endif
    if (row < piece.rows) {  // a lane has one end of a row
        const bool is_head = lane < kMTileO;
        const int end = is_head ? first : piece.end;
        for (int column = is_head ? piece.begin : last; column < end; ++column)
            piece.y[row * params.row_step + column] =
                reinterpret_cast<const Element*>(staged)[row * Tile::kPiece + column];
    }
}

// One warp: the same outputs in plain multiply-adds, for operands that are not sums of two parts. The piece
// begins at position p_begin.
__device__ __noinline__ void compute_exactly(const Params& params, Piece<float> piece, int n, int g, int o,
                                             int64_t p_begin) {
    const Problem& problem = params.problem;
#pragma unroll 1
    for (int row = 0; row < piece.rows; ++row, piece.y += params.row_step) {
#pragma unroll 1
        for (int i = piece.begin + threadIdx.x % 32; i < piece.end; i += 32)
            piece.y[i] = finish_exactly(problem, n, g, o + row * params.classes, p_begin + i);
    }
}

// The group of a block's channels, and which of its tiles they begin with.
struct Channels {
    int g, tile_begin;
};
__device__ __forceinline__ Channels channels_of(const Params& params) {
    const uint32_t o_blocks = params.o_blocks, sets = o_blocks * static_cast<uint32_t>(params.problem.G);
    const uint32_t set = static_cast<uint32_t>(ptx::anew(blockIdx.x)) % sets, g = set / o_blocks;
    return {static_cast<int>(g), static_cast<int>((set - g * o_blocks) * params.block_tiles)};
}

// Brings what a block needs of x, from the first position that any phase begins at.
template <class Tile>
__device__ __forceinline__ void bring_x(const Params& params, const Shared& shared, int n, int g,
                                        int64_t block_p) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int64_t l_begin = (block_p - (params.align - 1)) * problem.stride - problem.pad_left;
    const Element* const x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n +
                             g * problem.C * problem.x_stride_c;
    if constexpr (Tile::kSplit) {  // as it is, until its range is known
        Range range = {0, kInfinity};
        for_words<Tile>(params, x, l_begin, [&](int slot, const Element(&value)[2]) {
            range.add(value[0]);
            range.add(value[1]);
            shared.x[slot] = __float_as_uint(value[0]);
            shared.x[params.part_slots + slot] = __float_as_uint(value[1]);
        });
        range = block_range(range, shared.tables->ranges);
        const float scale = range.scale();
        if (threadIdx.x == 0) shared.tables->x_unscale = range.suits() ? range.unscale() : 0.0f;
#pragma unroll 4
        for (int slot = threadIdx.x; slot < params.x_slots; slot += kThreads) {
            uint32_t* const high = shared.x + slot;
            uint32_t* const low = high + params.part_slots;
            const float value[2] = {__uint_as_float(*high), __uint_as_float(*low)};
            const uint2 words = operand_words<Tile>(value, scale);
            *high = words.x;
            *low = words.y;
        }
    } else {
        for_words<Tile>(params, x, l_begin, [&](int slot, const Element(&value)[Tile::kPerWord]) {
            shared.x[slot] = operand_words<Tile>(value, 1.0f).x;
        });
    }
}

// The piece of a job's rows from `at` on in a block that begins at position block_p.
template <class Tile>
__device__ __forceinline__ Piece<typename Tile::Element> piece_of(const Params& params, const Rows& rows,
                                                                  int64_t block_p, int at, int most) {
    using Element = typename Tile::Element;
    const int64_t p_begin = block_p + at - rows.phase;
    const int end = static_cast<int>(min(params.problem.P - p_begin, int64_t{most}));
    return {static_cast<Element*>(rows.y) + p_begin, rows.count, p_begin < 0 ? static_cast<int>(-p_begin) : 0,
            end};
}

// Computes and stores what a block has of one place.
template <class Tile>
__device__ __forceinline__ void run_jobs(const Params& params, const Shared& shared, int n, int g,
                                         int64_t block_p) {
    using Element = typename Tile::Element;
    constexpr int kMost = Tile::kMaxSteps, kLongSteps = Tile::kLongSteps;
    const int warp = ptx::anew(threadIdx.x / 32);
    if constexpr (!Tile::kSplit) {
        if (params.m_tiles == 2) {  // a job for each warp
            const int warps_p = params.p_step / Tile::kChunk, tile = warp / warps_p;
            const int at = warp % warps_p * Tile::kChunk;
            if (tile >= params.block_tiles) return;
            const Rows& rows = shared.tables->rows[tile];
            const Piece<Element> piece = piece_of<Tile>(params, rows, block_p, at, params.span - at);
            if (piece.rows <= 0) return;
            if (params.steps == 4) multiply<Tile, 4, 2>(params, shared, piece, tile, at);
            else multiply<Tile, kLongSteps, 2>(params, shared, piece, tile, at);
            return;
        }
    }
    const int jobs = params.block_tiles * static_cast<int>(params.pieces.divisor);
#pragma unroll 1
    for (int job = warp; job < jobs; job += kWarps) {
        const int tile = params.pieces.quotient(job);
        const int at = (job - tile * static_cast<int>(params.pieces.divisor)) * Tile::kPiece;
        const Rows& rows = shared.tables->rows[tile];
        const Piece<Element> piece = piece_of<Tile>(params, rows, block_p, at, Tile::kPiece);
        if (piece.rows <= 0 || piece.end <= 0) continue;
        if constexpr (Tile::kSplit) {
            if (shared.tables->x_unscale == 0.0f || !shared.tables->suit[tile]) {
                compute_exactly(params, piece, n, g, rows.o, block_p + at - rows.phase);
                continue;
            }
        }
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
        ptx::cp_async_bulk_wait_read<0>();
#endif
        __syncwarp();  // what was staged has been read
        if (params.steps == 1) multiply<Tile, 1, 1>(params, shared, piece, tile, at);
        else if (params.steps == 2) multiply<Tile, 2, 1>(params, shared, piece, tile, at);
        else if (params.steps == 4) multiply<Tile, 4, 1>(params, shared, piece, tile, at);
        else if (params.steps == kLongSteps) multiply<Tile, kLongSteps, 1>(params, shared, piece, tile, at);
        else if constexpr (kMost > kLongSteps) multiply<Tile, kMost, 1>(params, shared, piece, tile, at);
        store<Tile>(params, piece, shared.staged);
    }
}

#endif  // sm_80

template <class Tile>
__global__ void __launch_bounds__(kThreads, kLaunchBlocks)
    stem_sm80_forward_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    using Element = typename Tile::Element;
    extern __shared__ __align__(16) unsigned char smem[];
    const int warp = threadIdx.x / 32;
    const int m_vectors = params.steps * Tile::kParts * 32;
    Shared shared;
    // Bulk copies from between multiples of 128 bytes would take half as long again.
    shared.staged = smem + warp * kMTileO * kPieceBytes;
    shared.tables = reinterpret_cast<Tables*>(smem + params.staged_bytes);
    shared.weights = reinterpret_cast<uint4*>(shared.tables + 1);
    shared.x = reinterpret_cast<uint32_t*>(shared.weights + params.block_tiles * params.m_tiles * m_vectors);
    Tables& tables = *shared.tables;
    const Problem& problem = params.problem;

    if (threadIdx.x < kMaxWords) {
        tables.slots[threadIdx.x] = params.slot_of(threadIdx.x);
        tables.elements[threadIdx.x] = params.elements_of<Tile::kPerWord>(threadIdx.x);
    }
    for (int i = threadIdx.x; i < params.zeros; i += kThreads) {
#pragma unroll
        for (int part = 0; part < Tile::kParts; ++part)
            shared.x[part * params.part_slots + params.x_slots + i] = 0;
    }
    __syncthreads();
    const Channels own = channels_of(params);
#pragma unroll 1
    for (int i = warp; i < params.block_tiles * params.m_tiles; i += kWarps) {
        const int tile = i / params.m_tiles, m = i - tile * params.m_tiles;
        const int o = first_channel(params, own.tile_begin + tile) + m * kMTileO * params.classes;
        const bool suit = load_weights<Tile>(params, own.g, o, tables.elements,
                                             shared.weights + i * m_vectors, tables.finish + i * kMTileO);
        if (Tile::kSplit && threadIdx.x % 32 == 0) tables.suit[tile] = suit;
    }

    // A block keeps its channels; of long sums it moves over places: samples and spans of positions.
    const uint32_t places = static_cast<uint32_t>(problem.N * params.p_blocks);
#pragma unroll 1
    for (uint32_t place = blockIdx.x / (params.o_blocks * static_cast<uint32_t>(problem.G)); place < places;
         place = Tile::kSplit ? places : place + params.replicas) {
        const int n = place / static_cast<uint32_t>(params.p_blocks);
        const int64_t block_p = int64_t{place - n * static_cast<uint32_t>(params.p_blocks)} * params.span;
        const Channels channels = channels_of(params);
        __syncthreads();  // x and rows of the place before have been read
        if (threadIdx.x < params.block_tiles) {
            const int o = first_channel(params, channels.tile_begin + threadIdx.x);
            Element* const y = static_cast<Element*>(problem.y) +
                               ((int64_t{n} * problem.G + channels.g) * problem.O + o) * problem.P;
            const int left = static_cast<int>(problem.O) - o;
            const int phase = static_cast<int>(reinterpret_cast<uintptr_t>(y) / sizeof(Element));
            tables.rows[threadIdx.x] = {
                y, o, min((left + params.classes - 1) / params.classes, params.m_tiles * kMTileO),
                phase & (params.align - 1)};
        }
        bring_x<Tile>(params, shared, n, channels.g, block_p);
        __syncthreads();
        run_jobs<Tile>(params, shared, n, channels.g, block_p);
    }
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    ptx::cp_async_bulk_wait_read<0>();  // shared memory outlives its readers
#endif
#endif
}

// Rows of y so far apart begin at the same place of a sector.
inline int64_t row_classes(const Problem& problem) {
    const int64_t align = kSectorBytes / element_bytes(problem.dtype);
    return align / std::gcd(align, problem.P);
}

// So many slots that lanes, which read neighbouring planes, meet in few banks: positions of a product are
// kNTiles apart.
template <class Tile>
int64_t padded_plane(int64_t slots) {
    return Tile::kNTiles == 4 ? round_up(slots - 1, 4) + 1 : round_up(slots - 16, 32) + 16;
}

// blocks is 0 where the problem does not suit.
template <class Tile>
Params plan(const Problem& problem) {
    Params params{};
    params.problem = problem;
    const int64_t reach = (problem.K - 1) * problem.dilation + 1;
    if (problem.C >= 16 || problem.C * problem.K > Tile::kMaxSteps * kMmaWords * Tile::kPerWord ||
        problem.O * problem.C * problem.K > kMaxBlocks || problem.stride > 64 || reach > 4096)
        return params;
    params.tap_pairs = Tile::kPerWord == 2 && problem.C == 1 && problem.K > 1;
    const int64_t row_words = params.tap_pairs ? problem.K / 2 : problem.K;
    params.rows =
        static_cast<int32_t>(params.tap_pairs ? 1 + problem.K % 2 : ceil_div(problem.C, Tile::kPerWord));
    params.words = static_cast<int32_t>(params.tap_pairs ? ceil_div(problem.K, 2) : params.rows * problem.K);
    params.row_words = plan_divisor(row_words);
    const int64_t steps = ceil_div(params.words, kMmaWords);
    if (steps > Tile::kMaxSteps) return params;
    params.steps = Tile::round_steps(steps);
    params.stride = plan_divisor(problem.stride);

    params.align = static_cast<int32_t>(kSectorBytes / sizeof(typename Tile::Element));
    params.classes = static_cast<int32_t>(row_classes(problem));
    params.row_step = params.classes * problem.P;
    // Of long sums and long rows a job is 32 channels, if all have so many. Weights of split operands would
    // take too many registers, and activations are staged.
    const bool is_long = params.steps > 2 && params.steps <= Tile::kLongSteps && !Tile::kSplit &&
                         problem.activation == Activation::none &&
                         problem.P >= kLongRowPieces * Tile::kPiece &&
                         problem.O % (2 * kMTileO * params.classes) == 0;
    params.m_tiles = is_long ? 2 : 1;
    params.staged_bytes = is_long ? 0 : kStagedBytes;
    params.tiles = static_cast<int32_t>(
        params.classes * ceil_div(ceil_div(problem.O, params.classes), params.m_tiles * kMTileO));
    constexpr int64_t kBytes = sizeof(typename Tile::Element);
    const int64_t second = params.tap_pairs ? problem.dilation * problem.x_stride_l : problem.x_stride_c;
    const int64_t row_step = params.tap_pairs ? 0 : Tile::kPerWord * problem.x_stride_c;
    params.second_rows = static_cast<int32_t>(params.tap_pairs ? 1 : problem.C / 2);
    params.second_bytes = static_cast<int32_t>(second * kBytes);
    params.row_bytes = static_cast<int32_t>(row_step * kBytes);
    params.l_bytes = static_cast<int32_t>(problem.x_stride_l * kBytes);

    // Rows of whole sectors all begin where y does.
    const int64_t y_phase = reinterpret_cast<uintptr_t>(problem.y) / kBytes % params.align;
    const int64_t most_phase = problem.P % params.align == 0 ? y_phase : params.align - 1;
    const int64_t row_pieces = ceil_div(problem.P + most_phase, Tile::kPiece);
    const int64_t planes = params.rows * problem.stride;
    const int64_t tile_bytes = params.m_tiles * params.steps * Tile::kParts * 512;
    const int64_t sharers = problem.device.smem_bytes > 200 << 10 ? kBlocks : 1;
    const int64_t share = (problem.device.smem_bytes + 1024) / sharers - 1024;
    const int64_t fixed_bytes = static_cast<int64_t>(sizeof(Tables)) + params.staged_bytes;
    // As many jobs a block as shared memory allows. Its positions must not depend on the number of samples:
    // split operands are scaled by what a block has of x.
    int64_t most_jobs = 0, most_tiles = 0, x_bytes = 0;
    const int64_t block_pieces = std::min<int64_t>(row_pieces, is_long ? kLongPieces : kMostPieces);
    for (int64_t most = block_pieces; most > 0; --most) {
        const int64_t p_blocks = ceil_div(row_pieces, most), pieces = ceil_div(row_pieces, p_blocks);
        const int64_t positions = (pieces * Tile::kPiece + params.align - 2) * problem.stride + reach;
        const int64_t plane_slots = padded_plane<Tile>(ceil_div(positions, problem.stride));
        const int64_t zeros = is_long ? pieces * Tile::kPiece : Tile::kPiece;
        const int64_t part_slots = round_up(planes * plane_slots + zeros, 4);
        const int64_t bytes = part_slots * Tile::kParts * 4;
        const int64_t tiles = std::min({(share - fixed_bytes - bytes) / tile_bytes,
                                        int64_t{Tile::kBlockTiles / params.m_tiles}, int64_t{params.tiles}});
        const int64_t items = params.rows * positions + Tile::kBatch * kThreads;
        const int64_t x_reach = (params.rows * row_step + items * problem.x_stride_l + second) * kBytes;
        if (std::max(items * positions, x_reach) > kMaxBlocks || tiles * pieces <= most_jobs) continue;
        most_jobs = tiles * pieces;
        most_tiles = tiles;
        x_bytes = bytes;
        params.positions = plan_divisor(positions);
        params.plane_slots = static_cast<int32_t>(plane_slots);
        params.x_slots = static_cast<int32_t>(planes * plane_slots);
        params.zeros = static_cast<int32_t>(zeros);
        params.part_slots = static_cast<int32_t>(part_slots);
        params.span = static_cast<int32_t>(pieces * Tile::kPiece);
        params.p_blocks = static_cast<int32_t>(p_blocks);
    }
    if (most_jobs == 0) return params;
    // In rounds of as many blocks as run at once, each of which takes as long as its jobs and setting out.
    const int64_t slots = sharers * problem.device.sm_count, pieces = params.span / Tile::kPiece;
    const int64_t places = problem.N * params.p_blocks;
    int64_t best = INT64_MAX;
    for (int64_t tiles = most_tiles; tiles > 0; --tiles) {
        if (is_long && kWarps % tiles != 0) continue;
        const int64_t o_blocks = ceil_div(params.tiles, tiles), sets = o_blocks * problem.G;
        // Blocks of long sums keep their weights: all that fit at once, each with as many places.
        const int64_t most = is_long ? std::max(slots / sets, int64_t{1}) : places;
        const int64_t replicas = ceil_div(places, ceil_div(places, most)), blocks = sets * replicas;
        const int64_t jobs = ceil_div(tiles * pieces * params.m_tiles, kWarps);  // of a warp
        const int64_t cost = ceil_div(sets * places, slots) * (jobs + kSetOutJobs);
        if (blocks > kMaxBlocks || places > kMaxBlocks / 2 || cost >= best) continue;
        best = cost;
        params.block_tiles = static_cast<int32_t>(tiles);
        params.o_blocks = static_cast<int32_t>(o_blocks);
        params.replicas = static_cast<int32_t>(replicas);
        params.blocks = blocks;
    }
    if (params.blocks == 0) return params;
    params.pieces = plan_divisor(pieces);
    params.p_step = static_cast<int32_t>(is_long ? kWarps / params.block_tiles * Tile::kChunk : Tile::kChunk);
    params.smem_bytes = static_cast<int32_t>(fixed_bytes + params.block_tiles * tile_bytes + x_bytes);
    return params;
}

template <class Tile>
struct Launch {
    static bool fits(const Problem& problem) { return plan<Tile>(problem).blocks > 0; }

    static Error run(const Problem& problem, cudaStream_t stream) {
        const Params params = plan<Tile>(problem);
        const Error error = allow_smem<stem_sm80_forward_kernel<Tile>>(problem.device);
        if (error != nullptr) return error;
        stem_sm80_forward_kernel<Tile>
            <<<static_cast<unsigned>(params.blocks), kThreads, params.smem_bytes, stream>>>(params);
        return launch_error();
    }
};

template <class Call>
auto with_launch(const Problem& problem, Call call) {
    switch (problem.dtype) {
        case Dtype::float16:
            return call(Launch<Tile<__half, false>>{});
        case Dtype::bfloat16:
            return call(Launch<Tile<__nv_bfloat16, false>>{});
        default:
            if (problem.precision == Precision::tf32) return call(Launch<Tile<float, false>>{});
            return call(Launch<Tile<float, true>>{});
    }
}

// What the kernel can compute; `problem` is canonical.
inline bool takes(const Problem& problem) {
    if (problem.dtype == Dtype::float64 || problem.device.arch < 80) return false;
    return with_launch(problem, [&](auto launch) { return launch.fits(problem); });
}

}  // namespace stem

// fp32, fp16 and bf16 from sm_80 on, fewer than 16 input channels a group, sums of some 80 products, and so
// many outputs and products that setting out does not count (us by this route and by the next best: TF32
// 7x3x29308 to 602, K2 138, 192; fp32 convtasnet_enc 57, 77; encodec_stem, 7 products for 32 channels, 170,
// 161; 7x3x2278 to 353, K8 s3 14.1, 10.4; of less than 10 million products a sample TF32 2x9x8698 to 86, K1
// 13.7, 8.7; 12x7x2423 to 64, K5 20, 12; but 16x5x4905 to 101, K3 18, 25). By one sample: its result must not
// depend on its batch.
inline bool fits_stem_sm80(const Problem& any_problem) {
    const Problem problem = canonical(any_problem);
    const int arch = problem.device.arch;
    const bool is_float = problem.dtype == Dtype::float32;
    const bool is_split = is_float && problem.precision != Precision::tf32;
    const bool fast = arch == 80 || (arch >= 90 && arch < 120);  // others do TF32 at the rate of FFMA
    const int64_t outputs = problem.G * problem.O * problem.P;
    const bool has_few = outputs < 3 << 17;
    const int64_t least_products = !is_float        ? (has_few ? 7 : 4)
                                   : has_few        ? (is_split ? 32 : 16)
                                   : problem.O < 64 ? (is_split ? 10 : 7)
                                                    : 4;
    const int64_t products = problem.C * problem.K;
    if ((is_float && !fast) || products < least_products || outputs < 1 << 17 || problem.P < 256 ||
        products * outputs < 10 << 20)
        return false;
    // Products may be half empty, in 16 bits three quarters: 8x4x30001 to 40, K9 in TF32 50, 40 (and to 100
    // 54, 74), in bf16 to 100 44, 65. Bringing x counts where it has many planes for the channels that there
    // are: TF32 31x7x110903 to 62, K5 s8 359, 125; 4x2x441000 to 64, K8 s4 58, 69.
    const int64_t least_rows = stem::kMTileO / (is_float ? 2 : 4) * stem::row_classes(problem);
    return problem.O >= std::max(least_rows, 4 * problem.C * problem.stride) && stem::takes(problem);
}

inline Error launch_stem_sm80(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    return stem::with_launch(problem, [&](auto launch) { return launch.run(problem, stream); });
}

}  // namespace conv1d
