// Short sums of few channels on tensor cores, sm_80 and later, bound by the stores of y: TF32, fp16, bf16,
// and fp32 at full accuracy as three products of fp16 parts. Stems of audio and genome models.
//
// Operands are as in fold.cuh: D[channel][position] by mma.sync, depth the folded (channel, tap) index in
// words of 4 bytes. A warp keeps the weights of 32 output channels in registers and moves along positions.
// x lies in shared memory as [row of words][l mod stride][l / stride]: a tap of any stride and dilation is a
// shift. Columns of products are dealt so that a lane holds 16 bytes of a row of y: four lanes store 64
// bytes straight from registers. A warp's channels are `classes` apart, so that their rows of y begin alike
// within a sector of 32 bytes, and positions count from there: all stores but the ends of rows fill whole
// sectors. Cost: 2 reads of x for each 32 x 8 outputs and 8 words.
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
constexpr int kBlocks = 2;     // that share a multiprocessor
constexpr int kMmaWords = 8;   // depth of one product
constexpr int kMTiles = 2;     // of 16 output channels, of a warp
constexpr int kWarpO = 16 * kMTiles;
constexpr int kMostSpan = 2048;  // positions of a block
constexpr int kManySteps = 3;    // from which a block keeps its weights from one place to the next
constexpr int kSampleBlocks = 24;  // that one sample of split operands makes, where it can
constexpr int kSectorBytes = 32;
constexpr int kMaxWords = 64;  // of depth
constexpr int kFixedBytes = kThreads * 4 * 16 + kWarps * kWarpO * 8 + kMaxWords * 4;  // besides x

// kSplit: each fp32 operand is two fp16 numbers, scaled by a power of two: high + low / 2^11.
template <class Element_, bool kSplit_>
struct Tile {
    using Element = Element_;
    using Operand = std::conditional_t<kSplit_, __half, Element_>;  // of products
    static constexpr bool kSplit = kSplit_;
    static constexpr int kParts = kSplit ? 2 : 1;
    static constexpr int kPerWord = 4 / sizeof(Operand);
    static constexpr int kVector = 16 / sizeof(Element);  // elements of a store
    static constexpr int kNTiles = kVector / 2;           // of 8 positions, whose columns one store takes
    static constexpr int kGroup = 8 * kNTiles;            // positions
    static constexpr int kChunk = 2 * kGroup;             // 128 bytes of a row of y
    static constexpr int kBatch = kSplit ? 4 : 8;         // words that a thread loads before it stores any
    static constexpr bool kOnePlace = kSplit;             // of a block: registers do not last for a loop
    static constexpr int kMaxSteps = kSplit ? 4 : sizeof(Element) == 4 ? 8 : 5;
};

struct Params {
    Problem problem;
    bool tap_pairs;      // a word is two taps of one channel, not two channels of one tap
    int32_t rows;        // of words in shared memory
    int32_t words;       // of depth
    Divisor row_words;   // K, or K / 2 for tap pairs, whose last tap, where K is odd, has row 1 for itself
    int32_t steps;       // products in the depth
    Divisor stride;
    Divisor positions;    // of x, that a block reads
    int32_t plane_slots;  // of one row and one residue of l modulo the stride
    int32_t x_slots;      // and then as many zeros as a block has positions, for what the last step lacks
    int32_t align;        // elements that phases count to
    int32_t classes;
    int32_t row_tasks;  // of 32 channels each
    int32_t warps_o;    // of a block
    int32_t p_step;     // from a warp's chunk to its next: the others of its channels have those between
    int32_t span;       // positions of a block
    int32_t smem_bytes;
    int32_t replicas;   // blocks that share the places of some channels
    int64_t o_blocks, p_blocks, blocks;

    // Of row 0 at the tap where a word of the depth begins, or of the zeros.
    __device__ __forceinline__ int slot_of(int word) const {
        if (word >= words) return x_slots;
        const uint32_t row = row_words.quotient(word);
        const uint32_t tap = tap_pairs ? 2 * word : word - row * row_words.divisor;
        const uint32_t offset = tap * static_cast<uint32_t>(problem.dilation);
        const uint32_t shift = stride.quotient(offset);
        return ((row - shift) * stride.divisor + offset) * plane_slots + shift;
    }
};

struct WarpRanges {
    uint2 of[kWarps];
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
        return make_uint2(ptx::cvt_rna_tf32(value[0]), 0);
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
    const int lag = params.tap_pairs ? static_cast<int>(problem.dilation) : 0;
    const int64_t second = params.tap_pairs ? lag * problem.x_stride_l : problem.x_stride_c;
    const int64_t row_step = params.tap_pairs ? 0 : Tile::kPerWord * problem.x_stride_c;
    x += l_begin * problem.x_stride_l;
#pragma unroll 1
    for (uint32_t begin = threadIdx.x; begin < items; begin += Tile::kBatch * kThreads) {
        Element value[Tile::kBatch][Tile::kPerWord];
        uint32_t slot[Tile::kBatch];
#pragma unroll
        for (int i = 0; i < Tile::kBatch; ++i) {
            const uint32_t item = begin + i * kThreads;
            const uint32_t row = params.positions.quotient(item);
            const int offset = item - row * positions;
            const uint32_t shift = params.stride.quotient(offset);
            slot[i] = ((row - shift) * params.stride.divisor + offset) * params.plane_slots + shift;
            const Element* const source = x + (row * row_step + offset * problem.x_stride_l);
            value[i][0] = item < items && offset >= row_begin && offset < row_end ? *source : Element{};
            if constexpr (Tile::kPerWord == 2) {
                const bool has_second = params.tap_pairs ? row == 0 : 2 * row + 1 < problem.C;
                const bool inside = offset + lag >= row_begin && offset + lag < row_end;
                value[i][1] = item < items && has_second && inside ? source[second] : Element{};
            }
        }
#pragma unroll
        for (int i = 0; i < Tile::kBatch; ++i) {
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

// What one warp computes: 32 channels, `classes` apart, and chunks of positions, p_step apart.
struct Task {
    int64_t n, g;
    int64_t o_begin;
    int64_t p_begin;  // below zero where the run begins in the sector before the rows
    int32_t run;      // positions to the end of the block's, or of the rows
};

template <class Tile>
struct Weights {
    uint4 words[Tile::kMaxSteps][kMTiles][Tile::kParts];
    bool suit;
};

// Loads the operands A of a warp in the order in which lanes hold them, and what becomes of its rows' sums:
// finish_smem[row] is {factor, bias}.
template <class Tile>
__device__ __forceinline__ void load_weights(const Params& params, const Task& task,
                                             float2* finish_smem, uint4* staged, Weights<Tile>& weights) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32;
    const int K = static_cast<int>(problem.K);
    const int row_elements = static_cast<int>(problem.C) * K;
    const Element* const w = static_cast<const Element*>(problem.w) + task.g * problem.O * row_elements;
    int row_offset[kMTiles][2];  // rows past the last hold its weights, and go nowhere
#pragma unroll
    for (int i = 0; i < 2 * kMTiles; ++i) {
        const int row = i * 8 + lane / 4;
        const int64_t o = min(task.o_begin + row * int64_t{params.classes}, problem.O - 1);
        row_offset[i / 2][i % 2] = static_cast<int>(o) * row_elements;
        if (lane % 4 == 0) {
            const Element* const bias = static_cast<const Element*>(problem.bias) + task.g * problem.O + o;
            finish_smem[row] = make_float2(1.0f, problem.bias != nullptr ? widen(*bias) : 0.0f);
        }
    }
    const auto load = [&](int m, int half, int word, Element(&value)[Tile::kPerWord]) {
        const Element* source = w + row_offset[m][half];
        value[0] = Element{};
        if constexpr (Tile::kPerWord == 1) {
            if (word < params.words) value[0] = source[word];
        } else {
            const int row = params.tap_pairs ? 0 : static_cast<int>(params.row_words.quotient(word));
            source += params.tap_pairs ? 2 * word : word + row * K;
            const bool has_second = params.tap_pairs ? 2 * word + 1 < K : 2 * row + 1 < problem.C;
            value[1] = Element{};
            if (word < params.words) {
                value[0] = source[0];
                if (has_second) value[1] = source[params.tap_pairs ? 1 : K];
            }
        }
    };
    float row_scale[kMTiles][2] = {};
    if constexpr (Tile::kSplit) {
        weights.suit = true;
        Range range[2 * kMTiles];
#pragma unroll
        for (int i = 0; i < 2 * kMTiles; ++i) range[i] = {0, kInfinity};
#pragma unroll 1
        for (int word = lane % 4; word < params.words; word += 4) {
#pragma unroll
            for (int i = 0; i < 2 * kMTiles; ++i) {
                Element value[Tile::kPerWord];
                load(i / 2, i % 2, word, value);
                range[i].add(value[0]);
                range[i].add(value[1]);
            }
        }
#pragma unroll
        for (int i = 0; i < 2 * kMTiles; ++i) {
            Range& row = range[i];
#pragma unroll
            for (int other = 1; other < 4; other *= 2) {
                row.largest = max(row.largest, __shfl_xor_sync(0xFFFFFFFF, row.largest, other));
                row.smallest = min(row.smallest, __shfl_xor_sync(0xFFFFFFFF, row.smallest, other));
            }
            weights.suit = weights.suit && row.suits();
            row_scale[i / 2][i % 2] = row.scale();
            if (lane % 4 == 0) finish_smem[i * 8 + lane / 4].x = row.unscale();
        }
        weights.suit = __all_sync(0xFFFFFFFF, weights.suit);
    }
    const auto load_step = [&](int step, int m, uint4* words, int pitch) {
        uint2 word[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            Element value[Tile::kPerWord];
            load(m, i % 2, step * kMmaWords + i / 2 * 4 + lane % 4, value);
            word[i] = operand_words<Tile>(value, row_scale[m][i % 2]);
        }
        words[0] = make_uint4(word[0].x, word[1].x, word[2].x, word[3].x);
        if constexpr (Tile::kSplit) words[pitch] = make_uint4(word[0].y, word[1].y, word[2].y, word[3].y);
    };
#pragma unroll
    for (int step = 0; step < Tile::kMaxSteps; ++step) {
        if constexpr (Tile::kSplit) {  // by way of this thread's memory, or registers would not hold them
#pragma unroll 1
            for (int m = 0; m < kMTiles; ++m) load_step(step, m, staged + 2 * m * 32, 32);
#pragma unroll
            for (int i = 0; i < 2 * kMTiles; ++i) weights.words[step][i / 2][i % 2] = staged[i * 32];
        } else {
#pragma unroll
            for (int m = 0; m < kMTiles; ++m) load_step(step, m, weights.words[step][m], 0);
        }
    }
}

// Two neighbours of a row of y, rounded.
template <class Element>
__device__ __forceinline__ uint32_t round_pair(float first, float second) {
    return pack(narrow<Element>(first), narrow<Element>(second));
}

// A lane's 16 bytes of rows lane / 4 + 8 * i of the group from p on, where the row is 0 <= p < p_end.
// Activations and the ends of rows go through `staged`, [i][32 lanes].
template <class Tile>
__device__ __forceinline__ void store(const Params& params, int p, int p_end, uint4 (&out)[4],
                                      typename Tile::Element* y, int rows, uint4* staged) {
    using Element = typename Tile::Element;
    constexpr int kVector = Tile::kVector;
    const Problem& problem = params.problem;
    const int64_t row_step = 8 * int64_t{params.classes} * problem.P;
    const bool inside = p >= 0 && p + Tile::kGroup <= p_end;
    if (problem.activation != Activation::none || !inside) {
#pragma unroll
        for (int i = 0; i < 4; ++i) staged[i * 32] = out[i];
#pragma unroll 1
        for (int i = 0; i < 4 * kVector; ++i) {
            Element* const value = reinterpret_cast<Element*>(staged + i / kVector * 32) + i % kVector;
            if (problem.activation != Activation::none)
                *value = activate<Element, true>(problem.activation, widen(*value));
            const int column = p + threadIdx.x % 4 * kVector + i % kVector;
            if (!inside && i / kVector < rows && column >= 0 && column < p_end)
                y[i / kVector * row_step + i % kVector] = *value;
        }
        if (!inside) return;
#pragma unroll
        for (int i = 0; i < 4; ++i) out[i] = staged[i * 32];
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (i < rows) *reinterpret_cast<uint4*>(y + i * row_step) = out[i];
    }
}

// One warp: its run of positions, whose first has row `position` of each plane of x.
template <class Tile>
__device__ __forceinline__ void multiply(const Params& params, const Task& task, const Weights<Tile>& weights,
                                         const uint32_t* x_smem, int position, float x_unscale,
                                         const int32_t* slots_smem, const float2* finish_smem,
                                         uint4* staged) {
    using Element = typename Tile::Element;
    using Operand = typename Tile::Operand;
    using Slot = Vector<uint32_t, Tile::kParts>;
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32;
    // Where this lane's words of operand B lie for the first column.
    const Slot* x[Tile::kMaxSteps][2];
#pragma unroll
    for (int step = 0; step < Tile::kMaxSteps; ++step) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            x[step][i] = reinterpret_cast<const Slot*>(x_smem) + position + lane / 8 * 2 * Tile::kNTiles +
                         lane / 4 % 2 + slots_smem[step * kMmaWords + i * 4 + lane % 4];
        }
    }
    const int64_t first_o = task.o_begin + lane / 4 * int64_t{params.classes};
    const int left = static_cast<int>(problem.O - first_o);
    const int rows = left <= 0 ? 0 : min((left - 1) / (8 * params.classes) + 1, 4);
    Element* y = static_cast<Element*>(problem.y) +
                 ((task.n * problem.G + task.g) * problem.O + first_o) * problem.P + task.p_begin +
                 lane % 4 * Tile::kVector;
    int p = static_cast<int>(min(task.p_begin, int64_t{0}));  // counted so that a row begins at 0, if it does
    const int p_end = p + task.run;
#pragma unroll 1
    for (; p < p_end; p += params.p_step, y += params.p_step) {
#pragma unroll
        for (int group = 0; group < Tile::kChunk / Tile::kGroup; ++group) {
            float sum[kMTiles][Tile::kNTiles][4] = {};
            float cross[kMTiles][Tile::kNTiles][4] = {};
#pragma unroll
            for (int step = 0; step < Tile::kMaxSteps; ++step) {
                if (step > 0 && step >= params.steps) break;
#pragma unroll
                for (int n = 0; n < Tile::kNTiles; ++n) {
                    const Slot first = x[step][0][group * Tile::kGroup + 2 * n];
                    const Slot second = x[step][1][group * Tile::kGroup + 2 * n];
                    const uint2 x_frag = make_uint2(first.at[0], second.at[0]);
#pragma unroll
                    for (int m = 0; m < kMTiles; ++m) {
                        ptx::mma<Operand>(sum[m][n], weights.words[step][m][0], x_frag);
                        if constexpr (Tile::kSplit) {
                            const uint2 x_low = make_uint2(first.at[1], second.at[1]);
                            ptx::mma<Operand>(cross[m][n], weights.words[step][m][0], x_low);
                            ptx::mma<Operand>(cross[m][n], weights.words[step][m][1], x_frag);
                        }
                    }
                }
            }
            uint4 out[4];
#pragma unroll
            for (int i = 0; i < 2 * kMTiles; ++i) {
                const float2 finish = finish_smem[i * 8];
                const auto total = [&](int column) {
                    const int n = column / 2, part = i % 2 * 2 + column % 2;
                    float value = sum[i / 2][n][part];
                    if constexpr (Tile::kSplit)
                        value = (value + cross[i / 2][n][part] * (1.0f / 2048)) * (finish.x * x_unscale);
                    return value + finish.y;
                };
                uint32_t word[4];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    if constexpr (sizeof(Element) == 4) word[j] = __float_as_uint(total(j));
                    else word[j] = round_pair<Element>(total(2 * j), total(2 * j + 1));
                }
                out[i] = make_uint4(word[0], word[1], word[2], word[3]);
            }
            store<Tile>(params, p + group * Tile::kGroup, p_end, out, y + group * Tile::kGroup, rows, staged);
        }
#pragma unroll
        for (int step = 0; step < Tile::kMaxSteps; ++step) {
            x[step][0] += params.p_step;
            x[step][1] += params.p_step;
        }
    }
}

// One warp: the same outputs in plain multiply-adds, for operands whose parts do not suit.
__device__ __noinline__ void compute_exactly(const Params& params, const Task& task) {
    const Problem& problem = params.problem;
#pragma unroll 1
    for (int row = 0; row < kWarpO; ++row) {
        const int64_t o = task.o_begin + row * int64_t{params.classes};
        if (o >= problem.O) break;
        float* const y = static_cast<float*>(problem.y) +
                         ((task.n * problem.G + task.g) * problem.O + o) * problem.P;
#pragma unroll 1
        for (int i = threadIdx.x % 32; i < task.run; i += params.p_step) {  // a chunk is 32 positions
            const int64_t p = task.p_begin + i;
            if (p >= 0 && p < problem.P) y[p] = finish_exactly(problem, task.n, task.g, o, p);
        }
    }
}

#endif  // sm_80

// Blocks that registers are shared by. With two, ptxas for sm_100 and later spills some.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kLaunchBlocks = 1;
#else
constexpr int kLaunchBlocks = kBlocks;
#endif

template <class Tile>
__global__ void __launch_bounds__(kThreads, kLaunchBlocks)
    stem_sm80_forward_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    using Element = typename Tile::Element;
    using Slot = Vector<uint32_t, Tile::kParts>;
    extern __shared__ __align__(16) unsigned char smem[];
    const int warp = threadIdx.x / 32;
    uint4* const staged = reinterpret_cast<uint4*>(smem) + warp * 128 + threadIdx.x % 32;  // [4][32 lanes]
    float2* const finish_smem = reinterpret_cast<float2*>(smem + kThreads * 64) + warp * kWarpO;
    int32_t* const slots_smem = reinterpret_cast<int32_t*>(smem + kFixedBytes) - kMaxWords;
    Slot* const x_smem = reinterpret_cast<Slot*>(smem + kFixedBytes);
    const Problem& problem = params.problem;

    // A block keeps its channels and moves over places: samples and spans of positions.
    const uint32_t sets = static_cast<uint32_t>(params.o_blocks * problem.G);
    const uint32_t set = blockIdx.x % sets;
    Task task;
    task.g = set / static_cast<uint32_t>(params.o_blocks);
    const int warp_o = warp % params.warps_o, warp_p = warp / params.warps_o;
    const int row_task = static_cast<int>(set - task.g * params.o_blocks) * params.warps_o + warp_o;
    const int before = row_task / params.classes;
    task.o_begin = row_task + int64_t{before} * (kWarpO - 1) * params.classes;
    const int warp_begin = warp_p * Tile::kChunk;
    if (threadIdx.x < kMaxWords) slots_smem[threadIdx.x] = params.slot_of(threadIdx.x);
    Weights<Tile> weights;
    load_weights<Tile>(params, task, finish_smem, staged, weights);
    for (int i = threadIdx.x; i < params.span + params.align; i += kThreads) x_smem[params.x_slots + i] = {};

    const uint32_t p_blocks = static_cast<uint32_t>(params.p_blocks);
    const uint32_t places = static_cast<uint32_t>(problem.N) * p_blocks;
#pragma unroll 1
    for (uint32_t place = blockIdx.x / sets; place < places;
         place = Tile::kOnePlace ? places : place + params.replicas) {
        const uint32_t n = place / p_blocks;
        task.n = n;
        const int64_t block_p = int64_t{place - n * p_blocks} * params.span;
        // x from the first position that any phase begins at.
        const int64_t l_begin = (block_p - (params.align - 1)) * problem.stride - problem.pad_left;
        const Element* const x = static_cast<const Element*>(problem.x) + task.n * problem.x_stride_n +
                                 task.g * problem.C * problem.x_stride_c;
        Range range = {0, kInfinity};
        __syncthreads();  // the x before has been read
        if constexpr (Tile::kSplit) {  // as it is, until its range is known
            for_words<Tile>(params, x, l_begin, [&](int slot, const Element(&value)[2]) {
                range.add(value[0]);
                range.add(value[1]);
                x_smem[slot] = {__float_as_uint(value[0]), __float_as_uint(value[1])};
            });
            __shared__ WarpRanges warps_smem;
            range = block_range(range, warps_smem);
            const float scale = range.scale();
#pragma unroll 4
            for (int slot = threadIdx.x; slot < params.x_slots; slot += kThreads) {
                const Slot bits = x_smem[slot];
                const float value[2] = {__uint_as_float(bits.at[0]), __uint_as_float(bits.at[1])};
                const uint2 words = operand_words<Tile>(value, scale);
                x_smem[slot] = {words.x, words.y};
            }
        } else {
            for_words<Tile>(params, x, l_begin, [&](int slot, const Element(&value)[Tile::kPerWord]) {
                x_smem[slot].at[0] = operand_words<Tile>(value, 1.0f).x;
            });
        }
        __syncthreads();
        // How far behind a sector this warp's rows of y begin.
        const int64_t row = (task.n * problem.G + task.g) * problem.O + task.o_begin;
        const auto y_elements = reinterpret_cast<uintptr_t>(problem.y) / sizeof(Element);
        const int64_t from_sector = static_cast<int64_t>(y_elements) + row * problem.P;
        const int phase = static_cast<int>(from_sector & (params.align - 1));
        task.p_begin = block_p + warp_begin - phase;
        task.run = static_cast<int>(min(problem.P - task.p_begin, int64_t{params.span - warp_begin}));
        if (task.o_begin >= problem.O || task.run <= 0) continue;
        if constexpr (Tile::kSplit) {
            if (!range.suits() || !weights.suit) {
                compute_exactly(params, task);
                continue;
            }
        }
        multiply<Tile>(params, task, weights, reinterpret_cast<const uint32_t*>(x_smem),
                       warp_begin + params.align - 1 - phase, range.unscale(), slots_smem,
                       finish_smem + threadIdx.x % 32 / 4, staged);
    }
#endif
}

// Rows of y so far apart begin at the same place of a sector.
inline int64_t row_classes(const Problem& problem) {
    const int64_t align = kSectorBytes / element_bytes(problem.dtype);
    return align / std::gcd(align, problem.P);
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
    params.steps = static_cast<int32_t>(ceil_div(params.words, kMmaWords));
    if (params.steps > Tile::kMaxSteps) return params;
    params.stride = plan_divisor(problem.stride);

    params.align = static_cast<int32_t>(kSectorBytes / sizeof(typename Tile::Element));
    params.classes = static_cast<int32_t>(row_classes(problem));
    params.row_tasks =
        static_cast<int32_t>(params.classes * ceil_div(ceil_div(problem.O, params.classes), kWarpO));
    // Long pieces of rows at a time, unless bringing x costs more (ms of w2v2_fe0 in TF32 and bf16, by 2, 4
    // and 8 warps that share it: 0.324 0.187, 0.328 0.162, 0.342 0.168; demucs_enc0 0.105, 0.087, 0.074).
    params.warps_o = params.rows * problem.stride > 5 ? 8 : 4;
    while (params.warps_o > 1 && 8 * round_up(params.row_tasks, params.warps_o) > 9 * params.row_tasks)
        params.warps_o /= 2;
    params.p_step = kWarps / params.warps_o * Tile::kChunk;
    params.o_blocks = ceil_div(params.row_tasks, params.warps_o);
    const int64_t share =
        (problem.device.smem_bytes + 1024) / kBlocks - 1024 - static_cast<int64_t>(sizeof(WarpRanges));
    // Blocks that keep their weights drift apart, and write to more places at once: worth it where weights
    // are many (ms of enformer_stem, 8 and 4 steps, in TF32 and bf16: 0.351 0.178 and 0.372 0.185; w2v2_fe0,
    // 2 and 1 steps: 0.349 0.180 and 0.327 0.161).
    const bool keeps = !Tile::kOnePlace && params.steps >= kManySteps;
    for (int32_t span = keeps ? kMostSpan / 2 : kMostSpan; span >= params.p_step; span /= 2) {
        params.span = span;
        const int64_t positions = (params.span + params.align - 2) * problem.stride + reach;
        const int64_t planes = params.rows * problem.stride;
        params.positions = plan_divisor(positions);
        params.plane_slots = static_cast<int32_t>(ceil_div(positions, problem.stride));
        if ((params.rows * positions + Tile::kBatch * kThreads) * positions >= int64_t{1} << 31) continue;
        const int64_t slots = planes * params.plane_slots + params.span + params.align;
        const int64_t bytes = kFixedBytes + round_up(slots * Tile::kParts * 4, 16);
        params.p_blocks = ceil_div(problem.P + params.align - 1, params.span);
        const int64_t sets = params.o_blocks * problem.G, places = problem.N * params.p_blocks;
        if (bytes > share || places > kMaxBlocks / 2 || sets * (keeps ? 1 : places) > kMaxBlocks)
            continue;
        // All blocks that fit at once, each with as many places.
        const int64_t most = keeps ? std::max(kBlocks * problem.device.sm_count / sets, int64_t{1}) : places;
        params.replicas = static_cast<int32_t>(ceil_div(places, ceil_div(places, most)));
        params.x_slots = static_cast<int32_t>(planes * params.plane_slots);
        params.smem_bytes = static_cast<int32_t>(bytes);
        params.blocks = sets * params.replicas;
        // Split operands are scaled by the span: it must not depend on the number of samples.
        if (Tile::kSplit ? sets * params.p_blocks >= kSampleBlocks
                         : sets * places >= 4 * kBlocks * problem.device.sm_count)
            break;
    }
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

// fp32, fp16 and bf16 from sm_80 on, fewer than 16 input channels a group, sums of some 64 products, and so
// many outputs that stores count and setting out does not (ms by this route and by the next best: fp32
// w2v2_fe0 0.39 and 0.42, but convtasnet_enc 0.105 and 0.074; TF32 encodec_stem, 7 products, 0.151 and 0.162;
// bf16 demucs_enc0, whose rows begin in 16 ways, 0.065 and 0.056). By one sample: its result must not depend
// on others.
inline bool fits_stem_sm80(const Problem& any_problem) {
    const Problem problem = canonical(any_problem);
    const int arch = problem.device.arch;
    const bool is_float = problem.dtype == Dtype::float32;
    const bool fast = arch == 80 || (arch >= 90 && arch < 120);  // others do TF32 at the rate of FFMA
    const int64_t products = problem.C * problem.K;
    const int64_t outputs = problem.G * problem.O * problem.P;
    const bool is_large = outputs >= 1 << 22;
    const int64_t least_products = !is_float                              ? 7
                                   : problem.precision == Precision::tf32 ? (problem.O >= 128 ? 10
                                                                             : is_large       ? 7
                                                                                              : 32)
                                   : problem.O >= 128 && is_large         ? 10
                                                                          : 32;
    const int64_t least_outputs = is_float && problem.precision != Precision::tf32 ? 1 << 19 : 1 << 17;
    if ((is_float && !fast) || products < least_products || outputs < least_outputs || problem.P < 256)
        return false;
    const int64_t full_rows = 16 * stem::row_classes(problem);  // fewer channels leave products half empty
    return problem.O >= full_rows && stem::takes(problem);
}

inline Error launch_stem_sm80(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    return stem::with_launch(problem, [&](auto launch) { return launch.run(problem, stream); });
}

}  // namespace conv1d
