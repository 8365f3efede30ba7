// How the Hopper GEMM (gemm_sm90.cuh) cuts a problem: its precision modes, the memory plan of a block, the
// tiles. Pure functions of the problem's numbers; no kernel here.
#pragma once
#include <algorithm>
#include <type_traits>

#include "problem.h"
#include "tile.cuh"
#include "wgmma.cuh"

namespace conv1d {
namespace sm90 {

// One position's channels: 8 pieces of 16 bytes, swizzled by the row's index mod 8.
constexpr int kRowBytes = 128;
constexpr int kWarpgroupO = 64;   // output channels of a product warpgroup
constexpr int kTileO = 2 * kWarpgroupO;
constexpr int kProductWarps = 8;  // two warpgroups
constexpr int kConverterWarps = 7;
constexpr int kThreads = 32 * (kProductWarps + kConverterWarps + 1);  // and one warp for tickets and weights
constexpr int kTileSlots = 4;  // tiles announced ahead; with 2, converters waited for 39 % of kb67
constexpr int kTileCounters = 2 * kTileSlots;  // a tile in work may be kTileSlots behind the one announced
constexpr int kMaxStages = 12;
constexpr int kReservedBytes = 1024;  // of shared memory, that the system keeps of each block
constexpr int kLeanBytes = (196 << 10) - kReservedBytes;  // a block's: they leave 60 KB of L1 cache
constexpr int kMostRest = 4;  // rows of a folded window that are not worth a batch of their own

// Two modes keep the accuracy of fp32: f16x3 splits each operand into two fp16 numbers, tf32x3 into two TF32
// ones, at half the speed but for all magnitudes. Tiles whose x or w f16x3 cannot hold are done again by
// tf32x3.
enum class Mode { tf32, tf32x3, f16x3, f16, bf16 };

template <Mode kMode>
struct ModeTraits {
    static constexpr bool kIsTf32 = kMode == Mode::tf32 || kMode == Mode::tf32x3;
    static constexpr bool kIsFloat = kIsTf32 || kMode == Mode::f16x3;  // x, w and y are fp32
    // A row holds the high parts, then the low parts.
    static constexpr bool kIsSplit = kMode == Mode::tf32x3 || kMode == Mode::f16x3;
    static constexpr Operand kOperand = kIsTf32               ? Operand::tf32
                                        : kMode == Mode::bf16 ? Operand::bf16
                                                              : Operand::f16;
    static constexpr int kPieceChannels = kIsTf32 ? 4 : 8;           // channels in 16 bytes
    static constexpr int kPieces = kIsSplit ? 4 : 8;                 // pieces of a row that carry channels
    static constexpr int kChunkChannels = kPieces * kPieceChannels;  // channels in a row
    static constexpr int kSteps = kPieces / 2;  // products of 32 bytes of channels in a row
    using Bits = std::conditional_t<kIsFloat, uint32_t, uint16_t>;        // of one element of x, w and y
    using BitsPair = std::conditional_t<kIsFloat, uint2, uint32_t>;
    static constexpr int kElementBytes = sizeof(Bits);
    // Of a staged row of D, in elements: room for a sector offset, and no bank conflicts between eight rows.
    static __host__ __device__ constexpr int stage_pitch(int columns) {
        return columns + (kIsFloat ? 8 : 24);
    }
    static __host__ __device__ constexpr int warp_staging_bytes(int columns) {
        return 8 * stage_pitch(columns) * static_cast<int>(sizeof(Bits));
    }
};

// Which neighbours of x one load takes. Each has kernels of its own: with two in one kernel, either ran 5 to
// 20 % slower.
enum class Layout {
    positions,      // of a channel, as contiguous x has them
    channels_last,  // channels of a position
    folded,         // the positions of a channel that become its folded channels
};

// At a stride of 8 the taps of a window reach up to 8 planes of x, which leave room for few columns. So the 8
// positions between two outputs become channels: l = 8*q + r - pad_left, channel c becomes 8*c + r of a
// convolution over q, tap k becomes tap k / 8 of channel 8*c + k % 8, the stride 1. Taps that K lacks to a
// multiple of 8 have weights of zero; sums that are NaN for one of those times infinity are mended.
constexpr int kFold = 8;

// Not where more than a third of the folded weights would be such zeros, nor where a sample fills no tile.
inline bool folds(const Problem& problem) {
    return problem.stride == kFold && problem.dilation == 1 && problem.x_stride_l == 1 && problem.P >= 96 &&
           round_up(problem.K, kFold) * 2 <= problem.K * 3 && problem.C < (int64_t{1} << 27);
}

// What the two product warpgroups take of a tile.
enum class Share : int32_t {
    channels,  // 64 output channels each of the same columns
    columns,   // the same 64 channels of neighbouring columns
    none       // the first takes all of it, 64 channels: for tiles too few to occupy all multiprocessors
};

// The shape of tiles.
struct Tiling {
    int columns;  // of a product warpgroup
    bool flat;    // tiles run over all samples' rows in a line; else each lies in one sample
    Share share;
    bool leads = true;  // columns are computed twice where stores then begin on sectors
};

// THE lists of tiles: ROW(mode, columns).
#define CONV1D_SM90_FP32_TILES(ROW) \
    ROW(tf32, 192)                  \
    ROW(tf32, 128)                  \
    ROW(tf32, 64)                   \
    ROW(tf32x3, 128)                \
    ROW(tf32x3, 64)                 \
    ROW(f16x3, 128)                 \
    ROW(f16x3, 64)
#define CONV1D_SM90_16BIT_TILES(ROW) \
    ROW(f16, 192)                    \
    ROW(f16, 128)                    \
    ROW(f16, 64)                     \
    ROW(bf16, 192)                   \
    ROW(bf16, 128)                   \
    ROW(bf16, 64)
#define CONV1D_SM90_TILES(ROW)  \
    CONV1D_SM90_FP32_TILES(ROW) \
    CONV1D_SM90_16BIT_TILES(ROW)

// How one launch cuts its problem; written by the host, read by every role.
struct Geometry {
    int32_t folded;                              // 1: the four below are those of the folded problem
    int32_t channels, taps, stride, dilation;
    int32_t rows_per_sample;   // flat: a sample's rows on the common row axis, outputs and then halo
    uint32_t stride_magic;     // ceil(2^32 / stride)
    uint32_t rows_magic;       // ceil(2^32 / rows_per_sample) where that is small
    int32_t flat;              // as in Tiling
    Share share;
    int32_t tile_o;            // output channels of a tile
    int32_t weight_bytes;      // of a tile's weights of one tap and one chunk of channels
    int32_t tiles_per_sample;  // of one sample; of the whole batch where flat
    int32_t lead;              // columns computed for stores to begin on a 32-byte sector: 0, 8 or 16
    uint32_t offset_mask;      // elements of a sector, or, without a lead, of 16 bytes, less one
    int32_t advance;           // columns stored by a warpgroup: kN - lead
    int32_t tile_advance;      // columns stored by a tile: advance, twice where warpgroups lie side by side
    int32_t tiles;             // of the whole problem
    int32_t o_tiles;           // of one group
    int32_t chunks;            // of channels
    int32_t tap_groups;        // taps that share one window, ceil(K / taps_per_group) times
    int32_t taps_per_group;
    int32_t window;   // positions of x: (the tile's columns - 1)*stride + (taps_per_group - 1)*dilation + 1
    int32_t channels_last;  // 1: neighbouring channels of x can be loaded together, 16 bytes at once
    int32_t planes;         // where only positions of planes that some tap reads are loaded: how many; else 0
    int32_t pairs;          // 1: two neighbouring positions of x are loaded together
    int32_t ragged;   // 1: they are, though rows may begin at odd elements
    int32_t batches;  // of conversion in a stage
    int32_t batch_positions;
    int32_t rest;     // folded: rows behind the last batch, which its warp converts as well
    int32_t x_stride_c, x_stride_l;
    int32_t plane_rows;   // distance between planes, in rows
    uint32_t plane_mask;  // planes that some tap reads
    int32_t x_stages, x_stage_bytes;
    int32_t w_stages;
    int32_t by_steps;  // 1: weights are packed step by step, see pack_staged
    int32_t resident;  // 1: all weights lie in shared memory for the life of the block
    int32_t smem_bytes;
};

// Shared memory, in order: x stages | weight stages | staging of D, 8 warps | barriers | announced tiles.
struct Announcement {
    int32_t tile;     // -1: no more
    int32_t counter;  // f16x3: its counter of values too small
    int32_t sample;   // of column 0
    int32_t row;      // position of column 0 in its sample, may be negative
    int32_t channel;  // first output channel of the tile inside its group
    int32_t group;
};

constexpr int kBarrierBytes = (4 * kMaxStages + 2 * kTileSlots) * 8;
constexpr int kControlBytes = kBarrierBytes + kTileSlots * static_cast<int>(sizeof(Announcement)) +
                              kTileCounters * static_cast<int>(sizeof(int32_t));

// Rows between planes, mod 8, that spread eight neighbouring positions over all banks; index: stride.
constexpr int kPlaneResidue[9] = {0, 0, 4, 3, 2, 5, 3, 7, 1};

// Cuts the problem into tiles with at most `most_taps` to a window. `tiles` is 0 where that cannot be.
template <Mode kMode>
inline Geometry cut(const Problem& given, const Tiling& tiling, int64_t most_taps) {
    using Traits = ModeTraits<kMode>;
    const bool flat = tiling.flat;
    Geometry geometry{};
    Problem problem = given;  // as products see it
    geometry.folded = folds(given);
    if (geometry.folded) {
        // The kernel has no flat tiles of folded x.
        if (flat) return Geometry{};
        problem.C = round_up(given.C * kFold, Traits::kChunkChannels);
        problem.K = ceil_div(given.K, kFold);
        problem.stride = 1;
    }
    geometry.channels = static_cast<int32_t>(problem.C);
    geometry.taps = static_cast<int32_t>(problem.K);
    geometry.stride = static_cast<int32_t>(problem.stride);
    geometry.dilation = static_cast<int32_t>(problem.dilation);
    geometry.flat = flat;
    geometry.share = tiling.share;
    geometry.tile_o = tiling.share == Share::channels ? kTileO : kWarpgroupO;
    geometry.weight_bytes = geometry.tile_o * kRowBytes;
    geometry.chunks = static_cast<int32_t>(ceil_div(problem.C, Traits::kChunkChannels));
    geometry.o_tiles = static_cast<int32_t>(ceil_div(problem.O, geometry.tile_o));
    const int64_t stride = problem.stride;
    const int64_t blocks = geometry.chunks * problem.K;
    const int other_bytes =
        kProductWarps * Traits::warp_staging_bytes(tiling.columns) + kControlBytes + 1024;
    const int free_bytes = problem.device.smem_bytes - other_bytes;

    // Rows of y that begin between sectors cost partial writes, and those between 16-byte pieces also stores
    // of elements. Where sums are long, the former cost less than columns that a lead computes twice. (The
    // same for both modes of fp32, whose tiles must be the same.)
    const int sector = 32 / Traits::kElementBytes, piece = 16 / Traits::kElementBytes;
    const bool is_short = ceil_div(problem.C, kRowBytes / Traits::kElementBytes) * problem.K <= 12;
    const bool begins_anywhere = problem.P % piece != 0 || (problem.P % sector != 0 && is_short);
    geometry.lead = tiling.leads && !flat && begins_anywhere ? sector : 0;
    geometry.offset_mask = (geometry.lead > 0 ? sector : piece) - 1;
    geometry.advance = tiling.columns - geometry.lead;
    geometry.tile_advance = geometry.advance * (tiling.share == Share::columns ? 2 : 1);
    const int columns = geometry.tile_advance + geometry.lead;  // of a tile

    // As many taps a window as leave room for two stages of x and three of weights.
    int64_t taps = most_taps < problem.K ? most_taps : problem.K, max_shift = 0;
    int32_t planes = 0;  // that some tap reads
    for (;; taps = ceil_div(taps, 2)) {
        const int64_t span = (taps - 1) * problem.dilation;
        geometry.plane_mask = 0;
        for (int64_t tap = 0; tap < taps && tap < stride; ++tap)
            geometry.plane_mask |= 1u << (tap * problem.dilation % stride);
        planes = 0;
        for (uint32_t mask = geometry.plane_mask; mask != 0; mask &= mask - 1) ++planes;
        max_shift = span / stride;
        const int64_t rows = columns + max_shift;
        int64_t plane_rows = rows;
        while (planes > 1 && stride <= 8 && plane_rows % 8 != kPlaneResidue[stride]) ++plane_rows;
        const int64_t bytes = round_up((plane_rows * (planes - 1) + rows) * kRowBytes, 1024);
        constexpr int64_t w_least = 3;
        if (2 * bytes + w_least * geometry.weight_bytes <= free_bytes) {
            geometry.window = static_cast<int32_t>((columns - 1) * stride + span + 1);
            geometry.plane_rows = static_cast<int32_t>(plane_rows);
            geometry.x_stage_bytes = static_cast<int32_t>(bytes);
            break;
        }
        if (taps == 1) return Geometry{};
    }
    geometry.tap_groups = static_cast<int32_t>(ceil_div(problem.K, taps));
    geometry.taps_per_group = static_cast<int32_t>(taps);
    const auto in_pieces = [](int64_t elements) { return elements * Traits::kElementBytes % 16 == 0; };
    geometry.channels_last = !geometry.folded && problem.x_stride_c == 1 &&
                             problem.C % Traits::kPieceChannels == 0 &&
                             (problem.L == 1 || in_pieces(problem.x_stride_l)) &&
                             (problem.N == 1 || in_pieces(problem.x_stride_n)) &&
                             reinterpret_cast<uintptr_t>(problem.x) % 16 == 0;
    // One by one, where few of a window's positions are read (ms TF32, fp32, bf16: 24x512x9000 to 256, K2 s8
    // .266, .372, .169, so .243, .259, .142; 8x256x20000 to 512, K3 s8 .196, .315, .125 and .155, .206, .121;
    // but 32x64x4000 to 128, K2 s5 .027, .038, .020 and .029, .037, .021).
    if (8 * planes <= 3 * stride && !geometry.channels_last) geometry.planes = planes;
    geometry.pairs = !flat && problem.x_stride_l == 1 && !geometry.channels_last && !geometry.folded &&
                     geometry.planes == 0;
    geometry.ragged =
        geometry.folded
            ? !(in_pieces(problem.x_stride_c | problem.x_stride_n | problem.pad_left) &&
                reinterpret_cast<uintptr_t>(problem.x) % 16 == 0)
            : geometry.pairs && (problem.L % 2 != 0 || (problem.x_stride_c | problem.x_stride_n) % 2 != 0 ||
                                 reinterpret_cast<uintptr_t>(problem.x) % (2 * Traits::kElementBytes) != 0);
    geometry.batch_positions = 64 - (geometry.ragged ? geometry.folded ? 1 : 2 : 0);
    // A pair may begin at -1 where the window begins at an odd position of x.
    const int64_t begins = geometry.tile_advance * stride | geometry.lead * stride | problem.pad_left |
                           (geometry.tap_groups > 1 ? taps * problem.dilation : 0);
    const int32_t positions = geometry.planes > 0
                                  ? geometry.planes * static_cast<int32_t>(columns + max_shift)
                                  : geometry.window + (geometry.pairs && begins % 2 != 0);
    geometry.batches = static_cast<int32_t>(ceil_div(positions, geometry.batch_positions));
    const int32_t rest = positions % geometry.batch_positions;
    if (geometry.folded && !geometry.ragged && geometry.batches > 1 && rest <= kMostRest)
        geometry.rest = rest, geometry.batches -= rest > 0;
    geometry.x_stride_c = static_cast<int32_t>(problem.x_stride_c);
    geometry.x_stride_l = static_cast<int32_t>(problem.x_stride_l);
    geometry.stride_magic = static_cast<uint32_t>(ceil_div(int64_t{1} << 32, stride));

    // What shared memory leaves of a multiprocessor is its L1 cache, which keeps lines of x that several
    // loads share: 60 KB beside lean blocks, else 28. That is worth more than stages of x beyond 92 KB, than
    // stages of weights beyond three, and than weights that stay (2x668x86690 to 220, K2 s8 g4 bf16: ms .105,
    // .085; 33x268x10901 to 48, K2 bf16 .127, .107).
    const int64_t lean_bytes = std::min<int64_t>(free_bytes, kLeanBytes - other_bytes);
    geometry.resident = geometry.o_tiles * problem.G == 1 && blocks <= kMaxStages &&
                        2 * geometry.x_stage_bytes + blocks * geometry.weight_bytes <= lean_bytes;
    struct Stages {
        int64_t x, w;
    };
    const auto fit_stages = [&](int64_t bytes, int64_t x_wanted) {
        const auto x_beside = [&](int64_t w) {
            return std::min<int64_t>((bytes - w * geometry.weight_bytes) / geometry.x_stage_bytes, 6);
        };
        if (geometry.resident) return Stages{x_beside(blocks), blocks};
        int64_t w = std::min<int64_t>((bytes - 2 * geometry.x_stage_bytes) / geometry.weight_bytes, 6);
        while (w > 4 && x_beside(w) < x_wanted && x_beside(4) >= x_wanted) --w;
        return Stages{x_beside(w), w};
    };
    Stages stages = fit_stages(free_bytes, 3);
    const int64_t x_least = std::min(stages.x, ceil_div(int64_t{92} << 10, geometry.x_stage_bytes));
    const Stages lean = fit_stages(lean_bytes, x_least);
    if (lean.x >= x_least && lean.w >= std::min<int64_t>(stages.w, 3)) stages = lean;
    geometry.w_stages = static_cast<int32_t>(stages.w);
    geometry.x_stages = static_cast<int32_t>(stages.x);
    geometry.smem_bytes =
        geometry.x_stages * geometry.x_stage_bytes + geometry.w_stages * geometry.weight_bytes + other_bytes;

    int64_t windows;
    if (flat) {
        const int64_t rows = problem.P + max_shift > 2 ? problem.P + max_shift : 2;
        // So that rows of y begin alike in all samples: those of a tile are staged once.
        const int64_t sample = problem.G * problem.O * problem.P;
        geometry.rows_per_sample = static_cast<int32_t>(rows + (sample - rows % piece + piece) % piece);
        if (geometry.rows_per_sample < columns + max_shift)  // a tile may hold several samples
            geometry.rows_magic = static_cast<uint32_t>(ceil_div(int64_t{1} << 32, geometry.rows_per_sample));
        windows =
            problem.P > 4 * columns ? 0 : ceil_div(problem.N * geometry.rows_per_sample, columns);
        geometry.tiles_per_sample = 0;
    } else {
        const int64_t late =
            geometry.lead > 0 ? geometry.lead - 1 : 0;  // how far the last store may end early
        geometry.tiles_per_sample = static_cast<int32_t>(ceil_div(problem.P + late, geometry.tile_advance));
        windows = problem.N * geometry.tiles_per_sample;
    }
    const int64_t tiles = windows * geometry.o_tiles * problem.G;
    geometry.tiles = tiles < (int64_t{1} << 30) ? static_cast<int32_t>(tiles) : 0;
    return geometry;
}

// Cycles that a launch needs by a simple count, in whole waves of tiles: products, bytes through L2 and
// conversions of x, which overlap for the most part, then stores. Constants fitted to 240 random layers timed
// with each tile (results/findings.md).
template <Mode kMode>
inline double estimate_cycles(const Problem& problem, const Geometry& geometry, const Tiling& tiling) {
    using Traits = ModeTraits<kMode>;
    constexpr double kBytesPerCycle = 32;  // of one multiprocessor from L2
    const double blocks = static_cast<double>(geometry.chunks) * geometry.taps;
    // Six products of 32 bytes a block of split operands; f16x3 waits for them twice.
    const double steps = kMode == Mode::f16x3 ? 8.5 : Traits::kIsSplit ? 6 : 4;
    // Of a row's channels that do not exist, whole steps are left out.
    constexpr int kStepChannels = Traits::kChunkChannels / Traits::kSteps;
    const double filled = static_cast<double>(ceil_div(geometry.channels, kStepChannels)) / Traits::kSteps;
    // And the fewer columns, the more often weights are read from shared memory. A warpgroup that is alone
    // has the tensor cores for itself, but then needs as long as that reading; of split operands it waits for
    // each product.
    const bool alone = tiling.share == Share::none;
    const double step = !alone ? tiling.columns + 6
                        : Traits::kIsSplit
                            ? 0.76 * (tiling.columns + 6)
                            : std::max(0.5 * tiling.columns + 3, 0.25 * tiling.columns + 32);
    const double products = filled * geometry.taps * steps * step;
    const double stages = static_cast<double>(geometry.chunks) * geometry.tap_groups;
    const double bytes = stages * geometry.window * Traits::kChunkChannels * Traits::kElementBytes +
                         (geometry.resident ? 0 : blocks * geometry.weight_bytes) +
                         (alone ? kWarpgroupO : kTileO) * tiling.columns * Traits::kElementBytes;
    const double moves = bytes / kBytesPerCycle;
    // The converters may take longer: a batch costs each of the seven warps some 4,000 cycles.
    const double batch = kMode == Mode::f16x3 ? 1050 : Traits::kIsFloat ? 570 : 700;
    const double singles = Traits::kIsFloat ? 1.5 : 2.2;
    const double conversions = (stages + static_cast<double>(geometry.channels) / Traits::kChunkChannels *
                                             geometry.tap_groups) / 2 * geometry.batches * batch *
                               (geometry.pairs || geometry.folded ? 1 + 0.1 * geometry.ragged : singles);
    const auto overlap = [](double a, double b, double share) {
        return std::max(a, b) + share * std::min(a, b);
    };
    const double work = overlap(overlap(products, moves, 0.25), conversions, 0.36);
    constexpr int kPiece = 16 / Traits::kElementBytes;
    const bool by_elements = geometry.lead == 0 && problem.P % kPiece != 0;  // some of each row of y
    const double tile = work + 2000 + (by_elements ? 18 : 12) * tiling.columns;
    return static_cast<double>(ceil_div(geometry.tiles, problem.device.sm_count)) * tile;
}

struct Cut {
    Geometry geometry;
    Tiling tiling;  // no columns: none fits
    double cycles;
};

// The cut that takes the fewest cycles, with at most `most_taps` to a window, of those that
// `suits(geometry)`.
template <Mode kMode, class Suits>
inline Cut find_cut(const Problem& problem, int64_t most_taps, Suits suits) {
    Cut best{};
    const auto consider = [&](const Tiling& tiling) {
        const Geometry geometry = cut<kMode>(problem, tiling, most_taps);
        if (geometry.tiles == 0 || !suits(geometry)) return;
        const double cycles = estimate_cycles<kMode>(problem, geometry, tiling);
        if (best.tiling.columns == 0 || cycles < best.cycles) best = {geometry, tiling, cycles};
    };
    // The last 64 channels are alone where their number is odd.
    const bool odd = ceil_div(problem.O, kWarpgroupO) % 2 == 1;
    for (const Share share : {Share::none, Share::channels, Share::columns}) {
        if (share == Share::channels && problem.O <= kWarpgroupO) continue;
        if (share == Share::columns && !odd) continue;
        for (const bool flat : {false, true}) {
            for (const bool leads : {true, false}) {
                if (flat && !leads) continue;
#define CONV1D_SM90_CONSIDER(mode, columns) \
    if (kMode == Mode::mode) consider({columns, flat, share, leads});
                CONV1D_SM90_TILES(CONV1D_SM90_CONSIDER)
#undef CONV1D_SM90_CONSIDER
            }
        }
    }
    return best;
}

// The order in which terms are added depends on one sample's numbers alone, not on how many there are or
// where they lie: what decides it is decided for these, by tiles that both warpgroups share.
template <Mode kMode>
inline Cut decisive_cut(const Problem& problem) {
    Problem some = problem;
    some.N = 8;
    some.x_stride_n = problem.G * problem.C * problem.x_stride_c;
    some.x = some.y = nullptr;
    return find_cut<kMode>(some, problem.K,
                           [](const Geometry& geometry) { return geometry.share != Share::none; });
}

template <Mode kMode>
inline Cut choose_cut(const Problem& problem, const Cut& decisive) {
    const int32_t taps = decisive.geometry.taps_per_group;
    // With many more tiles than multiprocessors, a warpgroup that is alone gains nothing.
    return find_cut<kMode>(problem, taps, [&](const Geometry& geometry) {
        return geometry.taps_per_group == taps &&
               (geometry.share != Share::none || geometry.tiles <= 3 * problem.device.sm_count);
    });
}
template <Mode kMode>
inline Cut choose_cut(const Problem& problem) {
    return choose_cut<kMode>(problem, decisive_cut<kMode>(problem));
}

// f16x3: x * 2^8 and w * 2^e, e such that the largest weight of its output channel lies in [2^14, 2^15),
// become high + low / 2^11, both fp16 and rounded to nearest. (Ootomo and Yokota, "Recovering single
// precision accuracy from Tensor Cores", 2022, scale the low part so.) Scaled values below 2^16 and from
// 2^-12 on are then right to 2^-24 of themselves, and zero is exact. Smaller ones are right to 2^-36: n of x
// and m of w put an error of at most n * 2^15 * 2^-36 + m * 2^16 * 2^-36 into a sum, less than 2^-24 of it
// where it is at least 8n + 16m. Tiles with larger values, or with sums below that, belong to tf32x3.
constexpr float kXScale = 256.0f, kLowScale = 2048.0f;
constexpr float kSmallestScaled = 1.0f / 4096, kLargestScaled = 65280.0f;
constexpr uint32_t kSmallestHigh = 0x0C00;  // kSmallestScaled as fp16
constexpr float kSumOfSmallX = 8.0f, kSumOfSmallW = 16.0f;

template <Mode kMode>
inline size_t image_bytes(const Problem& problem, const Geometry& geometry, int tile_o) {
    return static_cast<size_t>(problem.G * round_up(problem.O, tile_o) *
                               ceil_div(geometry.channels, ModeTraits<kMode>::kChunkChannels) *
                               geometry.taps * kRowBytes);
}

// What the kernels of one launch share in the workspace.
struct Scratch {
    int32_t* tickets;     // [2]: drawn so far; tiles listed
    uint8_t* image;       // packed weights
    float2* row_scaling;  // f16x3: [G][o_tiles * tile_o], what undoes the scales of x and w, negative where w
                          // is out of range; how many weights are too small
    int32_t* is_listed;   // f16x3: [tiles]
    int32_t* list;        // f16x3: [tiles], those to be done again
    uint8_t* safe_image;  // f16x3: packed weights of tf32x3
};

// Lays the scratch out from `base` on; returns its size.
template <Mode kMode>
inline size_t lay_out(const Problem& problem, const Geometry& geometry, uint8_t* base, Scratch* scratch) {
    size_t bytes = 0;
    const auto take = [&](size_t size) {
        uint8_t* const place = base + bytes;
        bytes += static_cast<size_t>(round_up(static_cast<int64_t>(size), 256));
        return place;
    };
    *scratch = {};
    scratch->tickets = reinterpret_cast<int32_t*>(take(2 * sizeof(int32_t)));
    scratch->image = take(image_bytes<kMode>(problem, geometry, geometry.tile_o));
    if (kMode == Mode::f16x3) {
        const size_t tile_bytes = static_cast<size_t>(geometry.tiles) * sizeof(int32_t);
        scratch->row_scaling =
            reinterpret_cast<float2*>(take(problem.G * geometry.o_tiles * geometry.tile_o * sizeof(float2)));
        scratch->is_listed = reinterpret_cast<int32_t*>(take(tile_bytes));
        scratch->list = reinterpret_cast<int32_t*>(take(tile_bytes));
        // Its tiles may have other numbers of rows.
        scratch->safe_image = take(image_bytes<Mode::tf32x3>(problem, geometry, kTileO));
    }
    return bytes;
}

// How tf32x3 cuts a problem of which another kernel does the first mode: what of it a tile there overlaps.
// `advance` is 0 where that does not know its positions by 32 bits.
struct SafeTiles {
    int32_t flat, rows_per_sample, tiles_per_sample, advance, lead;
    int32_t o_tiles, tile_o;
};

inline SafeTiles find_safe_tiles(const Problem& problem) {
    const Geometry safe = choose_cut<Mode::tf32x3>(problem).geometry;
    if (safe.tiles == 0 || int64_t{safe.tiles} * safe.tile_advance >= int64_t{1} << 31) return {};
    return {safe.flat, safe.rows_per_sample, safe.tiles_per_sample, safe.tile_advance,
            safe.lead, safe.o_tiles, safe.tile_o};
}

// What pack_weights and lay_out ask of a Geometry, of routes other than gemm_sm90 itself.
template <Mode kMode>
inline Geometry packing(const Problem& problem) {
    Geometry geometry{};
    geometry.o_tiles = static_cast<int32_t>(ceil_div(problem.O, kTileO));
    geometry.tile_o = kTileO;
    geometry.channels = static_cast<int32_t>(problem.C);
    geometry.taps = static_cast<int32_t>(problem.K);
    geometry.chunks = static_cast<int32_t>(ceil_div(problem.C, ModeTraits<kMode>::kChunkChannels));
    geometry.tap_groups = 1;
    geometry.taps_per_group = static_cast<int32_t>(problem.K);
    if (kMode == Mode::f16x3) geometry.tiles = choose_cut<Mode::tf32x3>(problem).geometry.tiles;
    return geometry;
}

// That which such a route takes: f16x3 even where tf32x3 would be faster.
inline Mode fast_mode_of(const Problem& problem) {
    if (problem.dtype == Dtype::float16) return Mode::f16;
    if (problem.dtype == Dtype::bfloat16) return Mode::bf16;
    return problem.precision == Precision::tf32 ? Mode::tf32 : Mode::f16x3;
}

template <class Call>
inline auto with_mode(const Problem& problem, Call call) {
    switch (fast_mode_of(problem)) {
        case Mode::tf32:
            return call(std::integral_constant<Mode, Mode::tf32>{});
        case Mode::f16x3:
            return call(std::integral_constant<Mode, Mode::f16x3>{});
        case Mode::f16:
            return call(std::integral_constant<Mode, Mode::f16>{});
        default:
            return call(std::integral_constant<Mode, Mode::bf16>{});
    }
}

// Does listed tiles of tf32x3 again, for other routes that list them; in this route's unit, where the
// kernels are.
Error launch_listed_tiles(const Problem& problem, Scratch scratch, cudaStream_t stream);

// By how many cycles f16x3 must be ahead of tf32x3: it packs weights for both modes and launches the second
// one, even where no tile needs it. Fitted as the constants of estimate_cycles.
constexpr double kLeastGain = 12000;

struct Choice {
    Mode mode;
    Cut cut;
};

inline Choice choose(const Problem& problem) {
    if (problem.dtype == Dtype::float16) return {Mode::f16, choose_cut<Mode::f16>(problem)};
    if (problem.dtype == Dtype::bfloat16) return {Mode::bf16, choose_cut<Mode::bf16>(problem)};
    if (problem.precision == Precision::tf32) return {Mode::tf32, choose_cut<Mode::tf32>(problem)};
    const Cut fast = decisive_cut<Mode::f16x3>(problem), safe = decisive_cut<Mode::tf32x3>(problem);
    if (fast.cycles + kLeastGain < safe.cycles)
        return {Mode::f16x3, choose_cut<Mode::f16x3>(problem, fast)};
    return {Mode::tf32x3, choose_cut<Mode::tf32x3>(problem, safe)};
}

}  // namespace sm90

inline bool fits_gemm_sm90(const Problem& problem) {
    constexpr int64_t kMost = int64_t{1} << 30;  // positions, channels and products are counted in 32 bits
    return problem.device.arch == 90 && problem.dtype != Dtype::float64 && problem.C >= 16 &&
           (problem.O >= 8 || pays_for_few_outputs(problem)) && problem.stride <= 32 && problem.L < kMost &&
           problem.P < kMost && problem.N < kMost && problem.K * problem.dilation < kMost &&
           problem.K < kMost / 64 && problem.C * problem.K < kMost &&
           problem.x_stride_c < kMost && problem.x_stride_l < kMost && problem.G * problem.O < kMost &&
           problem.G * problem.C < kMost;
}

inline size_t workspace_gemm_sm90(const Problem& problem) {
    const sm90::Choice choice = sm90::choose(problem);
    const sm90::Geometry& geometry = choice.cut.geometry;
    sm90::Scratch scratch;
    switch (choice.mode) {
        case sm90::Mode::tf32:
            return sm90::lay_out<sm90::Mode::tf32>(problem, geometry, nullptr, &scratch);
        case sm90::Mode::tf32x3:
            return sm90::lay_out<sm90::Mode::tf32x3>(problem, geometry, nullptr, &scratch);
        case sm90::Mode::f16x3:
            return sm90::lay_out<sm90::Mode::f16x3>(problem, geometry, nullptr, &scratch);
        default:
            return sm90::lay_out<sm90::Mode::f16>(problem, geometry, nullptr, &scratch);
    }
}

}  // namespace conv1d
