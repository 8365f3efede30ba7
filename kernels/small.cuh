// Small dense problems on tensor cores, sm_80 and later: an implicit GEMM by mma.sync in one launch, with no
// packed weights and no workspace. TF32, fp16, bf16, and fp32 at full accuracy as three TF32 products.
//
// D[o][position] = sum of W[o][r] * X[r][position], where r = c*K + k counts in the weights' own order: their
// rows are read as they lie. Positions count through all samples. A lane gathers x for one position; a table
// says where each r is and which tap of its row. Loads run one chunk of the depth ahead, in registers.
//
// The depth is cut into parts. Each is summed by itself, then their sums are added in order. So a team of
// warps may take one part or all of them, and tiles may have any size: how many samples there are decides
// that, but no bit of the result. Few outputs: a warp a part, 16 x 16 outputs or 32 x 32. Many: two warps
// for all parts of those, or four for 64 x 64. Cost: x is gathered once per 16, 32 or 64 output channels and
// tap, through L1.
#pragma once
#include <cstring>
#include <type_traits>

#include "mma.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tile.cuh"

namespace conv1d {
namespace small {

constexpr int kMmaWords = 8;       // depth of one product; a word is one fp32 operand or two 16-bit ones
constexpr int kLaneElements = 16;  // of x, and of w, that a thread loads of a chunk
constexpr int kGranule = 32;  // elements of depth: parts are multiples, as all tiles' chunks divide it
constexpr int kMaxParts = 16;
constexpr int kFarAway = 1 << 30;  // a position outside of every row, alone or added to one inside
constexpr int64_t kMostPositions = int64_t{1} << 28;

// A team is a warp with a part of its own (or, where shared memory has no room for a block of these, with all
// parts), or some warps, alone in a block, that share each chunk of all parts. kSplit: each fp32 operand is a
// high and a low number, and three products of those make one.
template <class Element_, bool kSplit_, int kWarpO_, int kWarpP_, int kTeamWarpsO_, int kTeamWarpsP_>
struct Tile {
    using Element = Element_;
    static constexpr bool kSplit = kSplit_;
    static constexpr int kWarpO = kWarpO_;  // output channels of a warp
    static constexpr int kWarpP = kWarpP_;  // positions of a warp
    static constexpr int kMTiles = kWarpO / 16;
    static constexpr int kNTiles = kWarpP / 8;
    static constexpr int kLaneRows = 32 / kWarpP;  // lanes that share a position, of x and of y
    static constexpr int kTeamWarpsO = kTeamWarpsO_;
    static constexpr int kTeamWarpsP = kTeamWarpsP_;
    static constexpr int kTeamWarps = kTeamWarpsO * kTeamWarpsP;
    static constexpr int kTeamThreads = 32 * kTeamWarps;
    static constexpr int kMaxTeams = kTeamWarps > 1 ? 1 : kMaxParts;
    static constexpr int kMaxThreads = kTeamThreads * kMaxTeams;
    static constexpr int kO = kWarpO * kTeamWarpsO;
    static constexpr int kP = kWarpP * kTeamWarpsP;
    static constexpr int kPerWord = 4 / sizeof(Element);
    static constexpr int kWarpElements = kLaneElements * kLaneRows;  // of a chunk, that a warp gathers
    static constexpr int kElements = kWarpElements * kTeamWarpsO;    // of a chunk
    static constexpr int kDepth = kElements / kPerWord;              // of a chunk, in words
    static constexpr int kPitch = kDepth + 4;  // words; 8 rows of 16 bytes fall into all banks
    static constexpr int kStages = kTeamWarps > 1 ? 2 : 1;
    static constexpr int kStageWords = (kO + kP) * kPitch;
    static constexpr int kSumPitch = kP + 8;  // floats; pairs of 4 rows fall into all banks
    static constexpr int kTeamWords = kStages * kStageWords + kO * kSumPitch;  // of shared memory
    static constexpr int kTeamBytes = 4 * kTeamWords + kTeamWarps * kWarpElements * 8;  // with the tables
    // That share a multiprocessor, where a block is one team: as many as spill no registers.
    static constexpr int kBlocks = kTeamWarps == 1   ? 1
                                   : kTeamWarps == 2 ? (kPerWord == 2 ? 10 : 8)
                                                     : (kSplit ? 3 : 4);
    static_assert(kGranule % kElements == 0, "parts must have whole chunks");
    static_assert(kO * kElements / kTeamThreads == kLaneElements, "a thread loads as much of w as of x");
};

struct Params {
    Problem problem;
    bool w_vectors;   // rows of w start at multiples of 16 bytes
    bool w_words;     // ... of 4 bytes
    Divisor taps;     // K
    int32_t depth;    // C*K
    int32_t chunks;   // of the depth
    int32_t part_chunks;  // of a part; the last one may have fewer
    int32_t teams;        // of a block: one for each part, or one for all
    IndexDivisor o_tiles, groups;
    SampleDivisor samples;  // whose positions follow one another
    int64_t blocks;
};

// Depth of a part, of which there are at most 8, or 16 of long sums.
inline int64_t part_depth(const Problem& problem) {
    const int64_t granules = ceil_div(problem.C * problem.K, kGranule);
    return ceil_div(granules, granules > 32 ? kMaxParts : kMaxParts / 2) * kGranule;
}

// Where r = c*K + k lies in x, in elements from channel 0 and tap 0, and k*dilation.
struct Entry {
    int32_t offset, tap;
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

template <class Tile>
__device__ __forceinline__ void sync_team() {
    if constexpr (Tile::kTeamWarps == 1) __syncwarp();
    else __syncthreads();  // the block is one team
}

// What one thread reads from.
template <class Element>
struct Source {
    const Element* x;  // channel 0 of the group, tap 0 of its position
    int32_t l;         // of tap 0; kFarAway where the position is none
    const Element* w;  // its first piece (Pieces) of the first chunk
    int32_t w_rows;    // from that piece's row on
};

// A chunk on its way from global to shared memory.
template <class Element>
struct Chunk {
    Element x[kLaneElements];
    uint32_t w[kLaneElements];  // words, or, where rows begin at odd 16-bit elements, such elements
};

template <class Element>
__device__ __forceinline__ uint32_t pack(Element first, Element second) {
    const Element pair[2] = {first, second};
    uint32_t bits;
    memcpy(&bits, pair, 4);
    return bits;
}

// Starts to load x at this warp's words of the chunk.
template <class Tile>
__device__ __forceinline__ void load_x(const Params& params, const Source<typename Tile::Element>& source,
                                       int r_begin, Entry* table, Chunk<typename Tile::Element>& chunk) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32;
    __syncwarp();  // the table has been read
    if (lane < Tile::kWarpElements) {
        const int r = r_begin + lane;
        const int c = static_cast<int>(params.taps.quotient(r));
        const int k = r - c * static_cast<int>(params.taps.divisor);
        const int tap = k * static_cast<int>(problem.dilation);
        const int offset =
            c * static_cast<int>(problem.x_stride_c) + tap * static_cast<int>(problem.x_stride_l);
        table[lane] = r < params.depth ? Entry{offset, tap} : Entry{0, kFarAway};
    }
    __syncwarp();
    table += lane / Tile::kWarpP * kLaneElements;
#pragma unroll
    for (int i = 0; i < kLaneElements; i += 2) {
        const auto entries = *reinterpret_cast<const Vector<Entry, 2>*>(table + i);
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const uint32_t l = static_cast<uint32_t>(source.l) + static_cast<uint32_t>(entries.at[j].tap);
            const bool inside = l < static_cast<uint32_t>(problem.L);
            chunk.x[i + j] = inside ? __ldg(source.x + entries.at[j].offset) : Element{};
        }
    }
}

// How a team's threads share a chunk of w, in kCount pieces of kPiece elements each: thread by thread along
// its rows. Rows that are stored at once, by 8 lanes with 16 bytes or by a warp with less, lie kApart from
// each other: so they fall into different banks, short as they may be.
template <class Tile, int kPiece>
struct Pieces {
    static constexpr int kInRow = Tile::kElements / kPiece;
    static constexpr int kCount = kLaneElements / kPiece;
    static constexpr int kWords = kPiece > Tile::kPerWord ? kPiece / Tile::kPerWord : 1;  // in Chunk::w
    static constexpr int kLanesAtOnce = kWords == 4 ? 8 : 32;
    static constexpr int kApart = 8 / (kLanesAtOnce / kInRow);
    using Bits = std::conditional_t<kWords == 4, uint4,
                                    std::conditional_t<kPiece == Tile::kPerWord, uint32_t, uint16_t>>;
    int row, element;  // of the first piece

    static __device__ __forceinline__ constexpr int row_at(int index) {  // of what is stored at once
        return index / kApart * 8 + index % kApart;
    }
    // From the first piece's row to the i-th one's.
    static __device__ __forceinline__ constexpr int rows_to(int i) {
        return row_at(i * Tile::kTeamThreads / kLanesAtOnce);
    }

    __device__ __forceinline__ Pieces() : element(threadIdx.x % kInRow * kPiece) {
        const int thread = threadIdx.x % Tile::kTeamThreads;
        row = row_at(thread / kLanesAtOnce) + thread % kLanesAtOnce / kInRow * kApart;
    }
};

// Calls with the largest pieces that every row of w starts at.
template <class Tile, class Call>
__device__ __forceinline__ void with_pieces(const Params& params, Call call) {
    if (params.w_vectors) call(Pieces<Tile, 4 * Tile::kPerWord>());
    else if (Tile::kPerWord == 1 || params.w_words) call(Pieces<Tile, Tile::kPerWord>());
    else call(Pieces<Tile, 1>());
}

// Starts to load w, from `depth_begin` on in each row.
template <class Tile>
__device__ __forceinline__ void load_w(const Params& params, const Source<typename Tile::Element>& source,
                                       int depth_begin, Chunk<typename Tile::Element>& chunk) {
    with_pieces<Tile>(params, [&](const auto& pieces) {
        using Bits = typename std::decay_t<decltype(pieces)>::Bits;
        const int32_t rows = depth_begin + pieces.element < params.depth ? source.w_rows : 0;
        const auto* w = source.w + depth_begin;
        ptx::settle(w);  // else all rows' addresses would be in registers before it is known which pieces
#pragma unroll
        for (int i = 0; i < pieces.kCount; ++i) {
            const Bits bits =
                pieces.rows_to(i) < rows ? __ldg(reinterpret_cast<const Bits*>(w)) : Bits{};
            memcpy(chunk.w + i * pieces.kWords, &bits, sizeof(bits));
            w += int64_t{pieces.rows_to(i + 1) - pieces.rows_to(i)} * params.depth;
        }
    });
}

// An operand as it lies in shared memory: TF32 rounded, ties away from zero, as cuDNN rounds; fp32 whole, to
// be split at each use.
template <class Tile>
__device__ __forceinline__ uint32_t operand(uint32_t bits) {
    if constexpr (Tile::kPerWord == 1 && !Tile::kSplit) return round_tf32(bits);
    else return bits;
}

// Puts a chunk where products read it: w[kO][kPitch], then x[kP][kPitch].
template <class Tile>
__device__ __forceinline__ void store(const Params& params, const Chunk<typename Tile::Element>& chunk,
                                      uint32_t* w_smem) {
    using Element = typename Tile::Element;
    constexpr int kPerWord = Tile::kPerWord, kPitch = Tile::kPitch;
    const int warp = threadIdx.x % Tile::kTeamThreads / 32, lane = threadIdx.x % 32;
    const int column = warp % Tile::kTeamWarpsP * Tile::kWarpP + lane % Tile::kWarpP;
    const int element =
        warp / Tile::kTeamWarpsP * Tile::kWarpElements + lane / Tile::kWarpP * kLaneElements;
    uint32_t* const x_smem = w_smem + (Tile::kO + column) * kPitch + element / kPerWord;
#pragma unroll
    for (int i = 0; i < kLaneElements / kPerWord; i += 4) {
        uint32_t word[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if constexpr (kPerWord == 1) word[j] = operand<Tile>(__float_as_uint(chunk.x[i + j]));
            else word[j] = pack(chunk.x[2 * (i + j)], chunk.x[2 * (i + j) + 1]);
        }
        *reinterpret_cast<uint4*>(x_smem + i) = make_uint4(word[0], word[1], word[2], word[3]);
    }
    if (params.w_vectors) {
        const Pieces<Tile, 4 * kPerWord> pieces;
        uint32_t* const target = w_smem + pieces.row * kPitch + pieces.element / kPerWord;
#pragma unroll
        for (int i = 0; i < pieces.kCount; ++i) {
            *reinterpret_cast<uint4*>(target + pieces.rows_to(i) * kPitch) =
                make_uint4(operand<Tile>(chunk.w[4 * i]), operand<Tile>(chunk.w[4 * i + 1]),
                           operand<Tile>(chunk.w[4 * i + 2]), operand<Tile>(chunk.w[4 * i + 3]));
        }
    } else if (kPerWord == 1 || params.w_words) {
        const Pieces<Tile, kPerWord> pieces;
        uint32_t* const target = w_smem + pieces.row * kPitch + pieces.element / kPerWord;
#pragma unroll
        for (int i = 0; i < pieces.kCount; ++i)
            target[pieces.rows_to(i) * kPitch] = operand<Tile>(chunk.w[i]);
    } else {
        const Pieces<Tile, 1> pieces;
        uint16_t* const target =
            reinterpret_cast<uint16_t*>(w_smem) + pieces.row * 2 * kPitch + pieces.element;
#pragma unroll
        for (int i = 0; i < pieces.kCount; ++i)
            target[pieces.rows_to(i) * 2 * kPitch] = static_cast<uint16_t>(chunk.w[i]);
    }
}

// Splits fp32 numbers: leaves the high ones, of 11 significant bits, ties away from zero, and returns the low
// ones. They have 12 bits, of which the product drops the last.
__device__ __forceinline__ uint32_t split(uint32_t& bits) {
    const float value = __uint_as_float(bits);
    bits = (bits + 0x1000) & 0xFFFFE000;
    return __float_as_uint(value - __uint_as_float(bits));
}
__device__ __forceinline__ uint2 split(uint2& pair) {
    const uint32_t x = split(pair.x), y = split(pair.y);
    return make_uint2(x, y);
}
__device__ __forceinline__ uint4 split(uint4& four) {
    const uint32_t x = split(four.x), y = split(four.y), z = split(four.z), w = split(four.w);
    return make_uint4(x, y, z, w);
}

// The products of a chunk.
template <class Tile>
__device__ __forceinline__ void multiply(const uint32_t* w_smem,
                                         float (&sum)[Tile::kMTiles][Tile::kNTiles][4]) {
    using Element = typename Tile::Element;
    const int warp = threadIdx.x % Tile::kTeamThreads / 32;
    const int lane = threadIdx.x % 32;
    const uint32_t* const x_smem = w_smem + Tile::kO * Tile::kPitch;
    // As ldmatrix and mma take them, in rows of 4 words: 8 channels, 8 more, and both of the next 4 words;
    // 8 positions, the same of the next 4 words, and then 8 positions more.
    const int w_row = warp / Tile::kTeamWarpsP * Tile::kWarpO + lane % 16;
    const int x_row = warp % Tile::kTeamWarpsP * Tile::kWarpP + lane / 16 * 8 + lane % 8;
    const uint32_t w_lane = ptx::smem_address(w_smem + w_row * Tile::kPitch + lane / 16 * 4);
    const uint32_t x_lane = ptx::smem_address(x_smem + x_row * Tile::kPitch + lane / 8 % 2 * 4);
    // Two steps of split operands at once would spill registers.
    constexpr int kUnroll = Tile::kSplit ? 1 : Tile::kDepth / kMmaWords;
#pragma unroll kUnroll
    for (int step = 0; step < Tile::kDepth / kMmaWords; ++step) {
        uint4 w[Tile::kMTiles], w_low[Tile::kMTiles];
#pragma unroll
        for (int m = 0; m < Tile::kMTiles; ++m) {
            uint32_t words[4];
            ptx::ldmatrix_x4(words, w_lane + (m * 16 * Tile::kPitch + step * kMmaWords) * 4);
            w[m] = make_uint4(words[0], words[1], words[2], words[3]);
            if constexpr (Tile::kSplit) w_low[m] = split(w[m]);
        }
#pragma unroll
        for (int n = 0; n < Tile::kNTiles; n += 2) {
            uint32_t words[4];
            ptx::ldmatrix_x4(words, x_lane + (n * 8 * Tile::kPitch + step * kMmaWords) * 4);
            uint2 x[2] = {make_uint2(words[0], words[1]), make_uint2(words[2], words[3])};
            if constexpr (!Tile::kSplit) {
#pragma unroll
                for (int m = 0; m < Tile::kMTiles; ++m) {
                    ptx::mma<Element>(sum[m][n], w[m], x[0]);
                    ptx::mma<Element>(sum[m][n + 1], w[m], x[1]);
                }
            } else {
                const uint2 x_low[2] = {split(x[0]), split(x[1])};
#pragma unroll
                for (int m = 0; m < Tile::kMTiles; ++m) {
                    // Small terms first; products truncate their sum, the addition rounds to nearest.
                    float part[2][4] = {};
#pragma unroll
                    for (int j = 0; j < 2; ++j) ptx::mma<float>(part[j], w_low[m], x[j]);
#pragma unroll
                    for (int j = 0; j < 2; ++j) ptx::mma<float>(part[j], w[m], x_low[j]);
#pragma unroll
                    for (int j = 0; j < 2; ++j) ptx::mma<float>(part[j], w[m], x[j]);
#pragma unroll
                    for (int i = 0; i < 8; ++i) sum[m][n + i / 4][i % 4] += part[i / 4][i % 4];
                }
            }
        }
    }
}

// Adds the sums of a part to those of the parts before, in shared memory: [kO][kSumPitch]. Begins the next.
template <class Tile>
__device__ __forceinline__ void add_part(bool first, float (&sum)[Tile::kMTiles][Tile::kNTiles][4],
                                         float* total) {
    const int warp = threadIdx.x % Tile::kTeamThreads / 32;
    const int lane = threadIdx.x % 32;
    const int row = warp / Tile::kTeamWarpsP * Tile::kWarpO + lane / 4;
    const int column = warp % Tile::kTeamWarpsP * Tile::kWarpP + lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < 2 * Tile::kMTiles; ++m) {
        auto* const targets = reinterpret_cast<float2*>(total + (row + m * 8) * Tile::kSumPitch + column);
#pragma unroll
        for (int n = 0; n < Tile::kNTiles; ++n) {
            float (&fragment)[4] = sum[m / 2][n];
            float2 part = make_float2(fragment[m % 2 * 2], fragment[m % 2 * 2 + 1]);
            if (!first) part = make_float2(targets[4 * n].x + part.x, targets[4 * n].y + part.y);
            targets[4 * n] = part;
            fragment[m % 2 * 2] = fragment[m % 2 * 2 + 1] = 0;
        }
    }
}

#endif  // sm_80

template <class Tile>
__global__ void __launch_bounds__(Tile::kMaxThreads, Tile::kBlocks)
    small_sm80_forward_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    using Element = typename Tile::Element;
    extern __shared__ __align__(16) unsigned char smem[];  // [teams]{operands, sums}, [warps]{table}
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32;
    // Through a shuffle, so that the compiler knows they are the same in the whole warp.
    const int block_warp = __shfl_sync(0xFFFFFFFF, static_cast<int>(threadIdx.x / 32), 0);
    const int team = Tile::kMaxTeams == 1 ? 0 : block_warp / Tile::kTeamWarps;
    const int warp = block_warp - team * Tile::kTeamWarps;  // of the team
    const int teams = Tile::kMaxTeams == 1 ? 1 : params.teams;
    float* const totals = reinterpret_cast<float*>(smem) + Tile::kStages * Tile::kStageWords;
    uint32_t* const team_smem = reinterpret_cast<uint32_t*>(smem) + team * Tile::kTeamWords;
    Entry* const table = reinterpret_cast<Entry*>(smem + teams * Tile::kTeamWords * 4) +
                         threadIdx.x / 32 * Tile::kWarpElements;

    const uint32_t rest = params.o_tiles.quotient(blockIdx.x), p_tile = params.groups.quotient(rest);
    const int64_t g = rest - p_tile * params.groups.divisor;
    const int64_t o_begin = int64_t{blockIdx.x - rest * params.o_tiles.divisor} * Tile::kO;
    const int lane_column = warp % Tile::kTeamWarpsP * Tile::kWarpP + lane % Tile::kWarpP;
    const int64_t position = int64_t{p_tile} * Tile::kP + lane_column;
    const int64_t n = params.samples.quotient(position), p = position - n * params.samples.row.divisor;

    Source<Element> source;
    const int64_t l = p * problem.stride - problem.pad_left;
    source.l = n < problem.N ? static_cast<int32_t>(l) : kFarAway;
    source.x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n +
               g * problem.C * problem.x_stride_c + l * problem.x_stride_l;
    const int32_t outputs = static_cast<int32_t>(min(problem.O - o_begin, int64_t{Tile::kO}));
    with_pieces<Tile>(params, [&](const auto& pieces) {
        source.w = static_cast<const Element*>(problem.w) +
                   (g * problem.O + o_begin + pieces.row) * params.depth + pieces.element;
        source.w_rows = outputs - pieces.row;
    });
    ptx::settle(source.x);  // else each element's address would be computed from problem.x anew

    constexpr bool kEarlyBias = !Tile::kSplit && Tile::kTeamWarps == 1;
    const int warp_o = warp / Tile::kTeamWarpsP * Tile::kWarpO;
    const int64_t channel = g * problem.O + o_begin + warp_o;
    const Element* const bias = static_cast<const Element*>(problem.bias) + channel;
    const auto load_bias = [&] {
        return problem.bias != nullptr && warp_o + lane < outputs ? bias[lane] : Element{};
    };
    Element lane_bias{};
    if constexpr (kEarlyBias) lane_bias = load_bias();
    Element* const y =
        static_cast<Element*>(problem.y) + (n * problem.G * problem.O + channel) * problem.P + p;

    float sum[Tile::kMTiles][Tile::kNTiles][4] = {};
    Chunk<Element> chunk;
    uint32_t* operands = team_smem;
    const int begin = team * params.part_chunks;
    const int end = teams == 1 ? params.chunks : min(begin + params.part_chunks, params.chunks);
    int part_left = params.part_chunks;
    // Loads of a chunk pass behind products of the one before. One more round multiplies the last.
#pragma unroll 1
    for (int index = begin; index <= end; ++index) {
        const bool loads = index < end;
        if (loads) {
            const int depth_begin = index * Tile::kElements;
            load_w<Tile>(params, source, depth_begin, chunk);
            const int r_begin = depth_begin + warp / Tile::kTeamWarpsP * Tile::kWarpElements;
            load_x<Tile>(params, source, r_begin, table, chunk);
        }
        if (index > begin) {
            multiply<Tile>(operands, sum);
            if (--part_left == 0 || !loads) {
                part_left = params.part_chunks;
                const bool first = index - params.part_chunks <= begin;
                add_part<Tile>(first, sum, totals + team * Tile::kTeamWords);
            }
        }
        if (loads) {
            if constexpr (Tile::kStages == 1) sync_team<Tile>();  // the chunk before has been read
            else operands = team_smem + (index & 1) * Tile::kStageWords;
            store<Tile>(params, chunk, operands);
            sync_team<Tile>();
        }
    }
    if constexpr (!kEarlyBias) lane_bias = load_bias();
    __syncthreads();

    const int rows = min(outputs - warp_o, Tile::kWarpO);
    const int lane_row = lane / Tile::kWarpP;
    const float* const column = totals + warp_o * Tile::kSumPitch + lane_column;
    Soundness soundness;
    const auto write = [&](auto activated) {
        constexpr int kUnroll = decltype(activated)::value ? 1 : 8;
        Element* target = y + (team * Tile::kLaneRows + lane_row) * problem.P;
        const int64_t step = int64_t{teams} * Tile::kLaneRows * problem.P;
#pragma unroll kUnroll
        for (int begin = team * Tile::kLaneRows; begin < rows; begin += teams * Tile::kLaneRows) {
            const int row = begin + lane_row;
            float total = column[row * Tile::kSumPitch];
            if (teams > 1) {
#pragma unroll
                for (int i = 1; i < Tile::kMaxTeams; ++i) {
                    if (i < teams) total += column[i * Tile::kTeamWords + row * Tile::kSumPitch];
                }
            }
            total += __shfl_sync(0xFFFFFFFF, widen(lane_bias), row);
            const bool exists = source.l != kFarAway && row < rows;
            if constexpr (Tile::kSplit) soundness.add(exists ? total : 1.0f);
            // Without a branch: one for each row would cost as much as all else here.
            const Element value = finish<Element, decltype(activated)::value>(problem, total);
            if (exists) *target = value;
            target += step;
        }
    };
    if (problem.activation == Activation::none) write(std::false_type{});
    else write(std::true_type{});

    if constexpr (Tile::kSplit) {
        if (soundness.holds()) return;
#pragma unroll 1
        for (int row = team * Tile::kLaneRows + lane_row; row < rows; row += teams * Tile::kLaneRows) {
            float* const value = y + row * problem.P;
            if (is_sound(*value)) continue;
            // Where it lies says which it is: indices kept until here would cost registers.
            const int64_t index = value - static_cast<float*>(problem.y);
            const int64_t line = index / problem.P, group = line / problem.O;
            *value = finish_exactly(problem, group / problem.G, group % problem.G, line % problem.O,
                                    index % problem.P);
        }
    }
#endif
}

template <class Tile>
Params plan(const Problem& problem) {
    using Element = typename Tile::Element;
    Params params{};
    params.problem = problem;
    const int64_t depth = problem.C * problem.K;
    const auto starts_at = [&](int64_t elements) {  // multiples of so many elements
        const int64_t bytes = elements * static_cast<int64_t>(sizeof(Element));
        return depth % elements == 0 && reinterpret_cast<uintptr_t>(problem.w) % bytes == 0;
    };
    params.w_vectors = starts_at(4 * Tile::kPerWord);
    params.w_words = starts_at(Tile::kPerWord);
    params.taps = plan_divisor(problem.K);
    params.depth = static_cast<int32_t>(depth);
    params.chunks = static_cast<int32_t>(ceil_div(depth, Tile::kElements));
    params.part_chunks = static_cast<int32_t>(part_depth(problem) / Tile::kElements);
    const int64_t parts = ceil_div(params.chunks, params.part_chunks);
    const bool share = parts <= Tile::kMaxTeams && parts * Tile::kTeamBytes <= problem.device.smem_bytes;
    params.teams = share ? static_cast<int32_t>(parts) : 1;
    params.o_tiles = plan_index_divisor(ceil_div(problem.O, Tile::kO));
    params.groups = plan_index_divisor(problem.G);
    params.samples = plan_sample_divisor(problem.N, problem.P);
    params.blocks = params.o_tiles.divisor * problem.G * ceil_div(problem.N * problem.P, Tile::kP);
    return params;
}

template <class Tile>
Error launch(const Problem& problem, cudaStream_t stream) {
    const Params params = plan<Tile>(problem);
    const auto blocks = static_cast<unsigned>(params.blocks);
    const Error error = allow_smem<small_sm80_forward_kernel<Tile>>(problem.device);
    if (error != nullptr) return error;
    small_sm80_forward_kernel<Tile>
        <<<blocks, Tile::kTeamThreads * params.teams, Tile::kTeamBytes * params.teams, stream>>>(params);
    return launch_error();
}

// Takes the tile that suits, of those that give the same bits, by how 825 random layers ran in each mode with
// all of them: a warp a part as long as few run (16 x 16 outputs) or tiles are few (32 x 32), which two parts
// do not pay for; large tiles from one and a half a multiprocessor on, where at most a quarter of them is
// empty for it (24x300x493 to 356, K5 s4 g4: 29 us, not 44).
template <class Element, bool kSplit>
Error launch_tiles(const Problem& problem, cudaStream_t stream) {
    const int64_t sms = problem.device.sm_count;
    const auto tiles_of = [&](int64_t side) {
        return problem.G * ceil_div(problem.O, side) * ceil_div(problem.N * problem.P, side);
    };
    const int64_t parts = ceil_div(problem.C * problem.K, part_depth(problem));
    if (parts > 1 && tiles_of(16) * parts <= 20 * sms)
        return launch<Tile<Element, kSplit, 16, 16, 1, 1>>(problem, stream);
    if (parts > 3 && tiles_of(32) <= 4 * sms)
        return launch<Tile<Element, kSplit, 32, 32, 1, 1>>(problem, stream);
    const bool fills_large = 3 * round_up(problem.O, 64) <= 4 * round_up(problem.O, 32);
    if (fills_large && 2 * tiles_of(64) >= 3 * sms)
        return launch<Tile<Element, kSplit, 32, 32, 2, 2>>(problem, stream);
    return launch<Tile<Element, kSplit, 32, 16, 1, 2>>(problem, stream);
}

}  // namespace small

// Few products of one sample: how many samples there are must not decide. On Hopper the bounds are those of
// some 1,000 random layers of 1 to 64 samples in each mode: a sample with few outputs, or with few products
// for few tiles. Deep sums of one sample gain most (us by this route and by gemm_sm90, TF32: 1x988x87 to 368,
// K1 9.9, 37; 1x293x721 to 17, K1 7, 14; 1x51x1336 to 178, K8 s8 6.8, 21), those of many samples lose
// (49x756x86 to 138, K13 s3 122, 70; 61x164x34 to 940, K28 76, 58). Few outputs of rows that fill blocks by
// themselves are worst in many samples (tcn_d64, 64 samples, TF32: 43 and 23), but not with short rows (fp32,
// 2x62x69 to 9, K70: 19 and 74) or short sums (4x27x127186 to 24, K2: 32 and 50). Long rows that sliding_sm90
// takes (1 and 16 samples of 29x3592 to 43, K3, fp32 8.5 and 48, by that 17 and 26) and what stream_sm90
// takes (16 and 128 of 64x200 to 64, K3, TF32 9 and 22, by that 12 and 17) are left to them sooner.
inline bool is_small(const Problem& problem) {
    const double outputs =
        static_cast<double>(problem.G * round_up(problem.O, 32)) * static_cast<double>(problem.P);
    const double products = outputs * static_cast<double>(problem.C * problem.K);
    const bool hopper = problem.device.arch == 90, fills_rows = problem.P > 512;
    const bool fills_gemm =
        problem.O <= 32 && problem.G == 1 && fills_rows && problem.C * problem.K >= 128;
    const bool slides = hopper && problem.O > 32 && fills_rows && (problem.K == 3 || problem.K == 5) &&
                        problem.stride == 1 && problem.dilation == 1;
    const bool streams = hopper && problem.G == 1 && (problem.K == 2 || problem.K == 3) && problem.C > 32 &&
                         problem.C <= 64 && problem.O > 32 && problem.O <= 128;
    if (slides || streams) return products <= 4e6;
    if (!hopper) return products <= (fills_gemm ? 4e6 : 30e6);
    const bool is_half = element_bytes(problem.dtype) == 2;
    const bool is_ieee = !is_half && problem.precision == Precision::ieee;
    // Rows of whole 16 bytes for one tap pointwise_sm90 takes. Others are gathered once (us by this and by
    // gemm_sm90: 2x282x117 to 807, TF32 9.7, 15; 15x436x1265 to 17, fp32 27, 43; but 45x656x1506 to 304, K1
    // g16, TF32 154, 104). fp32 costs three products.
    const bool points = problem.K == 1 && problem.stride == 1 &&
                        problem.P * element_bytes(problem.dtype) % 16 == 0;
    if (problem.K == 1 && !points)
        return products <= (is_ieee ? (problem.O <= 32 ? 130e6 : 45e6) : 28e6);
    if (fills_gemm) return products <= (problem.K > 1 ? 4e6 : is_ieee ? 24e6 : 18e6);
    if (outputs <= 30000 && products <= (is_half ? 30e6 : 45e6)) return true;
    if (is_ieee && !points) return products <= 30e6;
    const int64_t tiles = problem.G * ceil_div(problem.O, 64) * ceil_div(problem.P, 64);
    return tiles <= (points ? 32 : 64) && products <= (is_half ? 8.4e6 : 13e6);
}

// fp32, fp16 and bf16 from sm_80 on, 16 input channels a group and more.
inline bool fits_small_sm80(const Problem& any_problem) {
    const Problem problem = canonical(any_problem);
    if (problem.dtype == Dtype::float64 || problem.device.arch < 80 || problem.C < 16 || problem.O < 8)
        return false;
    // Positions of x, and what one sample's group spans, are counted in 32 bits.
    const int64_t reach = problem.K * problem.dilation;
    constexpr int64_t kMost = small::kMostPositions;
    const bool counts = problem.L < kMost && problem.P < kMost && problem.stride < kMost &&
                        problem.P * problem.stride < kMost && problem.dilation < kMost && reach < kMost &&
                        problem.pad_left < kMost && problem.x_stride_c < kMost &&
                        problem.x_stride_l < kMost && problem.K < kMost && problem.C < kMost &&
                        problem.C * problem.x_stride_c + reach * problem.x_stride_l < kMost &&
                        problem.C * problem.K * problem.K < (int64_t{1} << 31);
    const int64_t blocks = problem.G * ceil_div(problem.O, 16) * ceil_div(problem.N * problem.P, 16);
    return counts && blocks <= kMaxBlocks && is_small(problem);
}

inline Error launch_small_sm80(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    switch (problem.dtype) {
        case Dtype::float16:
            return small::launch_tiles<__half, false>(problem, stream);
        case Dtype::bfloat16:
            return small::launch_tiles<__nv_bfloat16, false>(problem, stream);
        default:
            if (problem.precision == Precision::tf32)
                return small::launch_tiles<float, false>(problem, stream);
            return small::launch_tiles<float, true>(problem, stream);
    }
}

}  // namespace conv1d
