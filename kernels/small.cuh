// Small dense problems on tensor cores, sm_80 and later: an implicit GEMM by mma.sync in one launch, with no
// packed weights and no workspace. TF32, fp16, bf16, and fp32 at full accuracy as three TF32 products.
//
// D[o][position] = sum of W[o][r] * X[r][position], where r = c*K + k counts in the weights' own order: their
// rows are read as they lie. Positions count through all samples. Depth counts in words of 4 bytes: one
// fp32 operand, or two 16-bit ones. A lane gathers x for one position; a table says where each r is and which
// tap of its row. A warp computes 32 x 32 outputs. Either four of them share chunks of the depth (64 x 64
// outputs a block), or each takes chunks of its own for the same 32 x 32 outputs, and the block adds their
// sums in order: many short ways to the end, for problems that leave most of the GPU idle. Loads run one
// chunk ahead, in registers. Cost: x is gathered once per 32 or 64 output channels and tap, through L1.
#pragma once
#include <cstring>
#include <type_traits>

#include "mma.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tile.cuh"

namespace conv1d {
namespace small {

constexpr int kMmaWords = 8;     // depth of one product
constexpr int kWarpO = 32;       // output channels of a warp
constexpr int kWarpP = 32;       // positions of a warp, one a lane where x is gathered and y stored
constexpr int kMTiles = kWarpO / 16;
constexpr int kNTiles = kWarpP / 8;
constexpr int kLaneWords = 16;   // of x, and of w, that a thread loads of a chunk
constexpr int kMaxEntries = 32;  // of a warp's table: 16-bit elements in kLaneWords
constexpr int kFarAway = 1 << 30;  // a position outside of every row, alone or added to one inside
constexpr int64_t kMostPositions = int64_t{1} << 28;

// A team of warps shares the chunks of kDepth words. kSplit: each fp32 operand is a high and a low part, and
// three products of parts make one.
template <class Element_, bool kSplit_, int kTeamWarpsO_, int kTeamWarpsP_>
struct Tile {
    using Element = Element_;
    static constexpr bool kSplit = kSplit_;
    static constexpr int kTeamWarpsO = kTeamWarpsO_;
    static constexpr int kTeamWarpsP = kTeamWarpsP_;
    static constexpr int kTeamWarps = kTeamWarpsO * kTeamWarpsP;
    static constexpr int kTeamThreads = 32 * kTeamWarps;
    static constexpr int kMaxTeams = kTeamWarps == 1 ? 8 : 1;
    static constexpr int kMaxThreads = kTeamThreads * kMaxTeams;
    static constexpr int kO = kWarpO * kTeamWarpsO;
    static constexpr int kP = kWarpP * kTeamWarpsP;
    static constexpr int kPerWord = 4 / sizeof(Element);
    static constexpr int kDepth = kLaneWords * kTeamWarpsO;
    static constexpr int kElements = kDepth * kPerWord;
    static constexpr int kPitch = kDepth + 4;  // words; 8 rows of 16 bytes fall into all banks
    static constexpr int kStages = kTeamWarps > 1 ? 2 : 1;
    static constexpr int kTeamBytes = kStages * (kO + kP) * kPitch * 4;
    static constexpr int kSumPitch = kP + 8;  // floats; pairs of 4 rows fall into all banks
    // That share a multiprocessor; four of the split large tile would spill registers.
    static constexpr int kBlocks = kTeamWarps == 1 ? 2 : kSplit ? 3 : 4;
    static_assert(kO * kSumPitch * 4 <= kTeamBytes, "a team's sums must fit where its operands were");
    static_assert((kO * kDepth) / kTeamThreads == kLaneWords, "a thread loads as many words of w as of x");
};

struct Params {
    Problem problem;
    bool w_vectors;   // rows of w start at multiples of 16 bytes
    bool w_words;     // ... of 4 bytes
    Divisor taps;     // K
    int32_t depth;    // C*K
    int32_t chunks;   // of the depth
    int32_t teams;    // of a block
    int64_t o_tiles;  // of a group
    int64_t blocks;
};

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

// What one thread reads from, and its position of y.
template <class Element>
struct Source {
    const Element* x;  // channel 0 of the group, tap 0
    int32_t l;         // of tap 0; kFarAway where the position is none
    const Element* w;  // the team's first output channel
    int32_t outputs;   // that w has from there on
};

// A chunk on its way from global to shared memory.
template <class Tile>
struct Chunk {
    typename Tile::Element x[kLaneWords * Tile::kPerWord];
    uint32_t w[kLaneWords];
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
                                       int r_begin, Entry* table, Chunk<Tile>& chunk) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32;
    __syncwarp();  // the table has been read
    if (lane < kLaneWords * Tile::kPerWord) {
        const int r = r_begin + lane;
        const int c = static_cast<int>(params.taps.quotient(r));
        const int k = r - c * static_cast<int>(params.taps.divisor);
        const int tap = k * static_cast<int>(problem.dilation);
        const int offset =
            c * static_cast<int>(problem.x_stride_c) + tap * static_cast<int>(problem.x_stride_l);
        table[lane] = r < params.depth ? Entry{offset, tap} : Entry{0, kFarAway};
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kLaneWords * Tile::kPerWord; i += 2) {
        const auto entries = *reinterpret_cast<const Vector<Entry, 2>*>(table + i);
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const uint32_t l = static_cast<uint32_t>(source.l) + static_cast<uint32_t>(entries.at[j].tap);
            const bool inside = l < static_cast<uint32_t>(problem.L);
            chunk.x[i + j] = inside ? source.x[entries.at[j].offset] : Element{};
        }
    }
}

// Starts to load w: 16 bytes or one word at a time, along its rows. `depth_begin` is the chunk's first r.
template <class Tile>
__device__ __forceinline__ void load_w(const Params& params, const Source<typename Tile::Element>& source,
                                       int depth_begin, Chunk<Tile>& chunk) {
    using Element = typename Tile::Element;
    constexpr int kPerWord = Tile::kPerWord;
    const int thread = threadIdx.x % Tile::kTeamThreads;
    if (params.w_vectors) {
        constexpr int kPieces = Tile::kDepth / 4, kRows = Tile::kTeamThreads / kPieces;
        const int r = depth_begin + thread % kPieces * 4 * kPerWord;
        const int row = thread / kPieces;
        const Element* w = source.w + static_cast<int64_t>(row) * params.depth + r;
#pragma unroll
        for (int i = 0; i < kLaneWords / 4; ++i) {
            const bool inside = r < params.depth && row + i * kRows < source.outputs;
            const Element* const at = w + static_cast<int64_t>(i * kRows) * params.depth;
            const uint4 piece = inside ? *reinterpret_cast<const uint4*>(at) : make_uint4(0, 0, 0, 0);
            chunk.w[4 * i] = piece.x;
            chunk.w[4 * i + 1] = piece.y;
            chunk.w[4 * i + 2] = piece.z;
            chunk.w[4 * i + 3] = piece.w;
        }
        return;
    }
    constexpr int kRows = Tile::kTeamThreads / Tile::kDepth;
    const int r = depth_begin + thread % Tile::kDepth * kPerWord;
    const int row = thread / Tile::kDepth;
    const Element* w = source.w + static_cast<int64_t>(row) * params.depth + r;
#pragma unroll
    for (int i = 0; i < kLaneWords; ++i, w += static_cast<int64_t>(kRows) * params.depth) {
        const bool inside = r < params.depth && row + i * kRows < source.outputs;
        if constexpr (kPerWord == 1) {
            chunk.w[i] = inside ? __float_as_uint(*w) : 0;
        } else if (params.w_words) {
            chunk.w[i] = inside ? *reinterpret_cast<const uint32_t*>(w) : 0;
        } else {
            const Element first = inside ? w[0] : Element{};
            chunk.w[i] = pack(first, inside && r + 1 < params.depth ? w[1] : Element{});
        }
    }
}

// An operand as it lies in shared memory: TF32 rounded, ties away from zero, as cuDNN rounds; fp32 whole, to
// be split at each use.
template <class Tile>
__device__ __forceinline__ uint32_t operand(uint32_t bits) {
    if constexpr (Tile::kPerWord == 1 && !Tile::kSplit) return ptx::cvt_rna_tf32(__uint_as_float(bits));
    else return bits;
}

// Puts a chunk where products read it: w[kO][kPitch], then x[kP][kPitch].
template <class Tile>
__device__ __forceinline__ void store(const Params& params, const Chunk<Tile>& chunk, uint32_t* w_smem) {
    const int thread = threadIdx.x % Tile::kTeamThreads;
    const int warp = thread / 32;
    const int column = warp % Tile::kTeamWarpsP * kWarpP + thread % 32;
    uint32_t* const x_smem =
        w_smem + (Tile::kO + column) * Tile::kPitch + warp / Tile::kTeamWarpsP * kLaneWords;
#pragma unroll
    for (int i = 0; i < kLaneWords; i += 4) {
        uint32_t word[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if constexpr (Tile::kPerWord == 1) word[j] = operand<Tile>(__float_as_uint(chunk.x[i + j]));
            else word[j] = pack(chunk.x[2 * (i + j)], chunk.x[2 * (i + j) + 1]);
        }
        *reinterpret_cast<uint4*>(x_smem + i) = make_uint4(word[0], word[1], word[2], word[3]);
    }
    if (params.w_vectors) {
        constexpr int kPieces = Tile::kDepth / 4, kRows = Tile::kTeamThreads / kPieces;
        uint32_t* const target = w_smem + thread / kPieces * Tile::kPitch + thread % kPieces * 4;
#pragma unroll
        for (int i = 0; i < kLaneWords / 4; ++i) {
            *reinterpret_cast<uint4*>(target + i * kRows * Tile::kPitch) =
                make_uint4(operand<Tile>(chunk.w[4 * i]), operand<Tile>(chunk.w[4 * i + 1]),
                           operand<Tile>(chunk.w[4 * i + 2]), operand<Tile>(chunk.w[4 * i + 3]));
        }
        return;
    }
    constexpr int kRows = Tile::kTeamThreads / Tile::kDepth;
    uint32_t* const target = w_smem + thread / Tile::kDepth * Tile::kPitch + thread % Tile::kDepth;
#pragma unroll
    for (int i = 0; i < kLaneWords; ++i) target[i * kRows * Tile::kPitch] = operand<Tile>(chunk.w[i]);
}

// Splits fp32 numbers: leaves the high parts, of 11 significant bits, ties away from zero, and returns the low
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
__device__ __forceinline__ void multiply(const uint32_t* w_smem, float (&sum)[kMTiles][kNTiles][4]) {
    using Element = typename Tile::Element;
    const int warp = threadIdx.x % Tile::kTeamThreads / 32;
    const int lane = threadIdx.x % 32;
    const uint32_t* const x_smem = w_smem + Tile::kO * Tile::kPitch;
    // As ldmatrix and mma take them: rows of 4 words, of 8 channels, 8 more, and then of the next 4 words; of
    // 8 positions, of the next 4 words, and then of 8 positions more.
    const int w_row = warp / Tile::kTeamWarpsP * kWarpO + lane % 16;
    const int x_row = warp % Tile::kTeamWarpsP * kWarpP + lane / 16 * 8 + lane % 8;
    const uint32_t w_lane = ptx::smem_address(w_smem + w_row * Tile::kPitch + lane / 16 * 4);
    const uint32_t x_lane = ptx::smem_address(x_smem + x_row * Tile::kPitch + lane / 8 % 2 * 4);
    // Two steps of split operands at once would spill registers.
    constexpr int kUnroll = Tile::kSplit ? 1 : Tile::kDepth / kMmaWords;
#pragma unroll kUnroll
    for (int step = 0; step < Tile::kDepth / kMmaWords; ++step) {
        uint4 w[kMTiles], w_low[kMTiles];
#pragma unroll
        for (int m = 0; m < kMTiles; ++m) {
            uint32_t words[4];
            ptx::ldmatrix_x4(words, w_lane + (m * 16 * Tile::kPitch + step * kMmaWords) * 4);
            w[m] = make_uint4(words[0], words[1], words[2], words[3]);
            if constexpr (Tile::kSplit) w_low[m] = split(w[m]);
        }
#pragma unroll
        for (int n = 0; n < kNTiles; n += 2) {
            uint32_t words[4];
            ptx::ldmatrix_x4(words, x_lane + (n * 8 * Tile::kPitch + step * kMmaWords) * 4);
            uint2 x[2] = {make_uint2(words[0], words[1]), make_uint2(words[2], words[3])};
            if constexpr (!Tile::kSplit) {
#pragma unroll
                for (int m = 0; m < kMTiles; ++m) {
                    ptx::mma<Element>(sum[m][n], w[m], x[0]);
                    ptx::mma<Element>(sum[m][n + 1], w[m], x[1]);
                }
            } else {
                const uint2 x_low[2] = {split(x[0]), split(x[1])};
#pragma unroll
                for (int m = 0; m < kMTiles; ++m) {
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

// A team's sums into shared memory, over its operands: [kO][kSumPitch].
template <class Tile>
__device__ __forceinline__ void stage(const float (&sum)[kMTiles][kNTiles][4], float* staged) {
    const int warp = threadIdx.x % Tile::kTeamThreads / 32;
    const int lane = threadIdx.x % 32;
    float* const fragment = staged + (warp / Tile::kTeamWarpsP * kWarpO + lane / 4) * Tile::kSumPitch +
                            warp % Tile::kTeamWarpsP * kWarpP + lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < kMTiles; ++m) {
#pragma unroll
        for (int n = 0; n < kNTiles; ++n) {
            float* const target = fragment + m * 16 * Tile::kSumPitch + n * 8;
            *reinterpret_cast<float2*>(target) = make_float2(sum[m][n][0], sum[m][n][1]);
            *reinterpret_cast<float2*>(target + 8 * Tile::kSumPitch) =
                make_float2(sum[m][n][2], sum[m][n][3]);
        }
    }
}

#endif  // sm_80

template <class Tile>
__global__ void __launch_bounds__(Tile::kMaxThreads, Tile::kBlocks)
    small_sm80_forward_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    using Element = typename Tile::Element;
    extern __shared__ __align__(16) unsigned char smem[];  // [teams]{operands, later sums}, [warps]{table}
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32;
    const int team = threadIdx.x / Tile::kTeamThreads;
    const int warp = threadIdx.x % Tile::kTeamThreads / 32;  // of the team
    unsigned char* const team_smem = smem + team * Tile::kTeamBytes;
    Entry* const table = reinterpret_cast<Entry*>(smem + params.teams * Tile::kTeamBytes) +
                         threadIdx.x / 32 * kMaxEntries;

    const uint32_t rest = blockIdx.x / static_cast<uint32_t>(params.o_tiles);
    const uint32_t p_tile = rest / static_cast<uint32_t>(problem.G);
    const int64_t g = rest - p_tile * static_cast<uint32_t>(problem.G);
    const int64_t o_begin = (blockIdx.x - rest * params.o_tiles) * Tile::kO;
    const uint64_t position = uint64_t{p_tile} * Tile::kP + warp % Tile::kTeamWarpsP * kWarpP + lane;
    const int64_t n = position / static_cast<uint64_t>(problem.P);
    const int64_t p = position - n * problem.P;

    Source<Element> source;
    const int64_t l = p * problem.stride - problem.pad_left;
    source.l = n < problem.N ? static_cast<int32_t>(l) : kFarAway;
    source.x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n +
               g * problem.C * problem.x_stride_c + l * problem.x_stride_l;
    source.w = static_cast<const Element*>(problem.w) + (g * problem.O + o_begin) * params.depth;
    source.outputs = static_cast<int32_t>(min(problem.O - o_begin, int64_t{Tile::kO}));

    // Of the warp's outputs, one channel a lane; loaded now, as it takes a while.
    const int warp_o = warp / Tile::kTeamWarpsP * kWarpO;
    const int64_t channel = g * problem.O + o_begin + warp_o;
    const Element* const bias = static_cast<const Element*>(problem.bias) + channel;
    const Element lane_bias = problem.bias != nullptr && warp_o + lane < source.outputs
                                  ? bias[lane] : Element{};

    Element* const y =
        static_cast<Element*>(problem.y) + (n * problem.G * problem.O + channel) * problem.P + p;

    float sum[kMTiles][kNTiles][4] = {};
    Chunk<Tile> chunk;
    uint32_t* operands = reinterpret_cast<uint32_t*>(team_smem);
    constexpr int kStageWords = (Tile::kO + Tile::kP) * Tile::kPitch;
    // Loads of a chunk pass behind products of the one before. One more round multiplies the last.
#pragma unroll 1
    for (int index = team; index < params.chunks + params.teams; index += params.teams) {
        const bool loads = index < params.chunks;
        if (loads) {
            const int depth_begin = index * Tile::kElements;
            load_w<Tile>(params, source, depth_begin, chunk);
            const int r_begin = depth_begin + warp / Tile::kTeamWarpsP * kLaneWords * Tile::kPerWord;
            load_x<Tile>(params, source, r_begin, table, chunk);
        }
        if (index > team) multiply<Tile>(operands, sum);
        if (Tile::kStages == 1 || !loads) sync_team<Tile>();  // the chunk before has been read
        if (loads) {
            if constexpr (Tile::kStages == 2)
                operands = reinterpret_cast<uint32_t*>(team_smem) + (index & 1) * kStageWords;
            store<Tile>(params, chunk, operands);
            sync_team<Tile>();
        }
    }
    float* const sums = reinterpret_cast<float*>(smem);  // [teams][kTeamBytes]
    stage<Tile>(sum, reinterpret_cast<float*>(team_smem));
    __syncthreads();

    const int rows = min(source.outputs - warp_o, kWarpO);
    const float* const column = sums + warp_o * Tile::kSumPitch + warp % Tile::kTeamWarpsP * kWarpP + lane;
    bool finite = true;
    const auto write = [&](auto activated) {
        constexpr int kUnroll = decltype(activated)::value ? 1 : 4;
#pragma unroll kUnroll
        for (int row = team; row < rows; row += params.teams) {
            float total = column[row * Tile::kSumPitch];
#pragma unroll
            for (int i = 1; i < Tile::kMaxTeams; ++i) {
                if (i < params.teams) total += column[i * (Tile::kTeamBytes / 4) + row * Tile::kSumPitch];
            }
            finite = finite && isfinite(total);
            total += __shfl_sync(0xFFFFFFFF, widen(lane_bias), row);
            if (source.l != kFarAway)
                y[row * problem.P] = finish<Element, decltype(activated)::value>(problem, total);
        }
    };
    if (problem.activation == Activation::none) write(std::false_type{});
    else write(std::true_type{});

    // Split operands: outputs that are not finite are computed again, as the parts of an infinity cancel to
    // NaN.
    if constexpr (Tile::kSplit) {
        if (finite || source.l == kFarAway) return;
#pragma unroll 1
        for (int row = team; row < rows; row += params.teams) {
            float* const value = y + row * problem.P;
            if (isfinite(*value)) continue;
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
    params.teams = params.chunks < Tile::kMaxTeams ? params.chunks : Tile::kMaxTeams;
    params.o_tiles = ceil_div(problem.O, Tile::kO);
    params.blocks = params.o_tiles * problem.G * ceil_div(problem.N * problem.P, Tile::kP);
    return params;
}

template <class Tile>
struct Launch {
    static Error run(const Problem& problem, cudaStream_t stream) {
        const Params params = plan<Tile>(problem);
        const auto blocks = static_cast<unsigned>(params.blocks);
        const int table_bytes = Tile::kTeamWarps * kMaxEntries * static_cast<int>(sizeof(Entry));
        const int smem_bytes = params.teams * (Tile::kTeamBytes + table_bytes);  // below 48 KB
        small_sm80_forward_kernel<Tile>
            <<<blocks, Tile::kTeamThreads * params.teams, smem_bytes, stream>>>(params);
        return launch_error();
    }
};

// Calls Launch<Tile> of the tile that suits: large ones where one sample fills half of the GPU with them.
template <class Element, bool kSplit, class Call>
auto with_tile(const Problem& problem, Call call) {
    const int64_t large_tiles = problem.G * ceil_div(problem.O, 64) * ceil_div(problem.P, 64);
    const bool fills_large = 4 * round_up(problem.O, 64) <= 5 * round_up(problem.O, 32);
    if (fills_large && 2 * large_tiles >= problem.device.sm_count)
        return call(Launch<Tile<Element, kSplit, 2, 2>>{});
    return call(Launch<Tile<Element, kSplit, 1, 1>>{});
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

}  // namespace small

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
    const int64_t blocks = problem.G * ceil_div(problem.O, 32) * ceil_div(problem.N * problem.P, 32);
    return counts && blocks <= kMaxBlocks;
}

inline Error launch_small_sm80(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    return small::with_launch(problem, [&](auto launch) { return launch.run(problem, stream); });
}

}  // namespace conv1d
