// How the streaming convolution (stream_sm90.cuh) cuts a problem: the memory plan of a block, the tiles,
// which problems it takes. Pure functions of the problem's numbers; no kernel here.
#pragma once
#include "gemm_sm90_plan.cuh"
#include "problem.h"
#include "tile.cuh"

namespace conv1d {
namespace sm90 {

// What fills the 96 registers a thread that hold weights, 48 of 16 bits. Known to the compiler: at branches
// between products it would wait for each.
constexpr int kMostStreamTaps = 3;
constexpr int kStreamChannels = 64;
constexpr int kStreamTileSlots = 16;  // tiles announced ahead; more than the stages of x can hold
constexpr int kStreamCounters = 2 * kStreamTileSlots;
constexpr int kFirstTurn = 1, kSecondTurn = 2;  // hardware barriers, of the product warpgroups
constexpr int kMostRawStages = 6, kMostXStages = 4;  // kb67 TF32: 0.88 ms; with 12 and 4 0.92, 5 and 8 0.89

// f16x3: kLargestScaled as fp16; what a value beyond it counts beside values too small, of which a tile has
// fewer.
constexpr uint32_t kLargestHigh = 0x7BF8;
constexpr int32_t kTooLarge = 1 << 16;

template <Mode kMode>
struct StreamTraits : ModeTraits<kMode> {
    using Traits = ModeTraits<kMode>;
    static constexpr int kChunks = kStreamChannels / Traits::kChunkChannels;
    // Of a raw stage: half a chunk.
    static constexpr int kRawChannels = Traits::kChunkChannels / 2;
    // Columns computed beyond those stored, so that each row of y is stored from a 32-byte sector on. Split
    // operands, bound by products, store rows from wherever they begin.
    static constexpr int kLead = Traits::kIsSplit ? 0 : 32 / Traits::kElementBytes;
    // Of a staged row of D, in elements: eight rows lie in different banks.
    static __host__ __device__ constexpr int pitch(int columns) {
        return columns + (Traits::kIsFloat && kLead > 0 ? 0 : 8);
    }
    static __host__ __device__ constexpr int warp_staging_bytes(int columns) {
        return 8 * pitch(columns) * Traits::kElementBytes;
    }
};

// How one launch cuts its problem; written by the host, read by every role.
struct StreamGeometry {
    int32_t columns;  // of a tile
    int32_t tiles, tiles_per_sample;
    int32_t begin;   // position of x at q = 0 of a tile's window, minus stride times the tile's row
    int32_t window;  // positions of x that a tile needs
    int32_t boxes;   // that load them: 3 at most
    int32_t box_positions, box_step;  // of a box, and how far apart they begin
    uint32_t box_magic, stride_magic;  // ceil(2^32 / box_positions or stride)
    int32_t plane_rows;     // distance between planes, in rows
    int32_t tap_row[kMostStreamTaps];  // in a stage, of column 0
    int32_t raw_stages, raw_stage_bytes;
    int32_t x_stages, x_stage_bytes;  // 2 or 4
    int32_t paired;  // 1: rows of y begin at even elements
    int32_t alternate;  // 1: each product warpgroup has all output channels, of every other tile
    int32_t smem_bytes;
    SafeTiles safe;
};

// Shared memory, in order: x stages | raw stages | staging of D, 8 warps | barriers | announced tiles |
// doubts.
constexpr int kStreamBarrierBytes = (2 * kMostRawStages + 2 * kMostXStages + 2 * kStreamTileSlots) * 8;
constexpr int kStreamControlBytes =
    static_cast<int>(kStreamBarrierBytes + kStreamTileSlots * sizeof(Announcement) +
                     kStreamCounters * sizeof(int32_t));

// Cuts the problem into tiles of `columns` positions, of which the first kLead may belong to the tile before.
// `tiles` is 0 where that cannot be.
template <Mode kMode>
inline StreamGeometry cut_stream(const Problem& problem, int columns) {
    using Traits = StreamTraits<kMode>;
    constexpr int kPieceElements = 16 / Traits::kElementBytes;
    StreamGeometry geometry{};
    geometry.columns = columns;
    // Boxes begin at 16-byte pieces of x. So do all windows, as tiles begin at multiples of 16 rows or, of
    // fp32, of 8, but for the padding: they begin that `early`.
    const int64_t stride = problem.stride;
    const int64_t early = (kPieceElements - problem.pad_left % kPieceElements) % kPieceElements;
    geometry.begin = static_cast<int32_t>(-problem.pad_left - early);
    int64_t window = (columns - 1) * stride + early + (problem.K - 1) * problem.dilation + 1;
    geometry.boxes = window <= 248 ? 1 : 2;
    const auto box_of = [&](int64_t positions) {
        const int64_t pieces = ceil_div(positions, kPieceElements);
        // Of 16 bits, eight channels are read at once: an odd number of pieces in a row spreads them over the
        // banks.
        return (Traits::kIsFloat ? pieces : pieces | 1) * kPieceElements;
    };
    int64_t box = box_of(ceil_div(window, geometry.boxes)), step = box;
    // Where taps lie far apart, each has a box of its own; that of tap k begins k * late early.
    const int64_t late = problem.dilation % kPieceElements;
    const int64_t apart = columns + early + (problem.K - 1) * late;
    const bool far = stride == 1 && problem.K * apart < window;
    if (far) {
        geometry.boxes = static_cast<int32_t>(problem.K);
        box = box_of(apart), step = problem.dilation - late;
        window = (problem.K - 1) * box + apart;
    }
    if (box > 256) return {};
    geometry.window = static_cast<int32_t>(window);
    geometry.box_positions = static_cast<int32_t>(box);
    geometry.box_step = static_cast<int32_t>(step);
    geometry.raw_stage_bytes = static_cast<int32_t>(
        round_up(geometry.boxes * box * Traits::kRawChannels * Traits::kElementBytes, 128));

    geometry.box_magic = static_cast<uint32_t>(ceil_div(int64_t{1} << 32, box));
    geometry.stride_magic = static_cast<uint32_t>(ceil_div(int64_t{1} << 32, stride));
    const int64_t converted = round_up(window, Traits::kIsFloat ? 1 : 8);  // at once
    const int64_t rows = ceil_div(converted, stride);
    int64_t plane_rows = rows;
    while (stride > 1 && plane_rows % 8 != kPlaneResidue[stride]) ++plane_rows;
    geometry.plane_rows = static_cast<int32_t>(plane_rows);
    geometry.x_stage_bytes =
        static_cast<int32_t>(round_up((plane_rows * (stride - 1) + rows) * kRowBytes, 1024));
    for (int tap = 0; tap < problem.K; ++tap) {
        const int64_t offset = early + tap * (far ? box + late : problem.dilation);
        geometry.tap_row[tap] = static_cast<int32_t>(offset % stride * plane_rows + offset / stride);
    }

    // f16x3 multiplies all chunks of a tile twice, so they stay meanwhile. Warpgroups that alternate have
    // stages of their own: of those of the other, each would miss phases.
    geometry.alternate = problem.O <= kTileO / 2;
    const int x_least = kMode == Mode::f16x3 || geometry.alternate ? 2 * Traits::kChunks : 2;
    const int64_t other_bytes =
        kProductWarps * Traits::warp_staging_bytes(columns) + kStreamControlBytes + 1024;
    const auto bytes = [&] {
        return other_bytes + int64_t{geometry.raw_stages} * geometry.raw_stage_bytes +
               int64_t{geometry.x_stages} * geometry.x_stage_bytes;
    };
    geometry.raw_stages = 3, geometry.x_stages = x_least;
    if (bytes() > problem.device.smem_bytes) return {};
    const auto fits = [&](int raw_stages, int x_stages) {
        const StreamGeometry before = geometry;
        geometry.raw_stages = raw_stages, geometry.x_stages = x_stages;
        if (bytes() > problem.device.smem_bytes) geometry = before;
    };
    fits(4, 4);
    for (int stages = geometry.raw_stages + 1; stages <= kMostRawStages; ++stages)
        fits(stages, geometry.x_stages);
    geometry.smem_bytes = static_cast<int32_t>(bytes());

    geometry.paired = problem.P % 2 == 0 &&
                      reinterpret_cast<uintptr_t>(problem.y) % (2 * Traits::kElementBytes) == 0;
    const int advance = columns - Traits::kLead;
    // The last columns of a row may be stored that early.
    const int early_end = Traits::kLead > 0 ? Traits::kLead - 1 : 0;
    geometry.tiles_per_sample = static_cast<int32_t>(ceil_div(problem.P + early_end, advance));
    const int64_t tiles = problem.N * geometry.tiles_per_sample;
    geometry.tiles = tiles < (int64_t{1} << 30) ? static_cast<int32_t>(tiles) : 0;
    if (kMode == Mode::f16x3) {
        geometry.safe = find_safe_tiles(problem);
        if (geometry.safe.advance == 0) return {};
    }
    return geometry;
}

// More columns take more shared memory, and load fewer positions of x twice. 16 bits have registers for twice
// as many.
template <Mode kMode>
constexpr int kWidestColumns = StreamTraits<kMode>::kIsFloat ? 128 + StreamTraits<kMode>::kLead : 256;
template <Mode kMode>
constexpr int kWideColumns = 128 + StreamTraits<kMode>::kLead;
template <Mode kMode>
constexpr int kNarrowColumns = 64 + StreamTraits<kMode>::kLead;

// How the warps of a block share registers: at launch all have the same number, 64 K in a block.
template <int kN, int kTaps = kMostStreamTaps>
struct StreamWarps {
    static constexpr int kConverters = kN > 192 ? 3 : 7;
    static constexpr int kThreads = 32 * (kProductWarps + kConverters + 1);  // and one warp orders boxes
    static constexpr int kOtherRegisters = kN > 192 ? 56 : kN < 100 || kTaps < 3 ? 72 : kN == 128 ? 48 : 56;
    static constexpr int kAtLaunch = (64 << 10) / kThreads / 8 * 8;
    static constexpr int kProductRegisters =
        (kAtLaunch * kThreads - kOtherRegisters * (kThreads - 32 * kProductWarps)) / (32 * kProductWarps);
};

// The columns of a tile: the most that fit; the widest only where tiles are many, so that none waits for the
// last ones.
template <Mode kMode>
inline StreamGeometry choose_stream_cut(const Problem& problem) {
    const StreamGeometry wide = cut_stream<kMode>(problem, kWideColumns<kMode>);
    if (problem.K < kMostStreamTaps) return wide;
    const StreamGeometry widest = cut_stream<kMode>(problem, kWidestColumns<kMode>);
    if (widest.tiles > 8 * problem.device.sm_count) return widest;
    return wide.tiles > 0 ? wide : cut_stream<kMode>(problem, kNarrowColumns<kMode>);
}

// Whether the copy engine can load boxes of x: what cuTensorMapEncodeTiled asks.
inline bool has_tensor_map(const Problem& problem) {
    const int64_t element = element_bytes(problem.dtype);
    return problem.x_stride_l == 1 && reinterpret_cast<uintptr_t>(problem.x) % 16 == 0 &&
           problem.x_stride_c * element % 16 == 0 && problem.x_stride_c >= problem.L &&
           (problem.N == 1 || (problem.x_stride_n >= problem.C * problem.x_stride_c &&
                               problem.x_stride_n % problem.x_stride_c == 0 &&
                               problem.x_stride_n * element < (int64_t{1} << 40)));
}

}  // namespace sm90

inline bool fits_stream_sm90(const Problem& problem) {
    // Half the room for channels must be used: fp32 packs them in two chunks, which all must be there.
    if (!fits_gemm_sm90(problem) || problem.G != 1 || problem.K < 2 ||
        problem.K > sm90::kMostStreamTaps ||
        problem.C <= sm90::kStreamChannels / 2 || problem.C > sm90::kStreamChannels ||
        problem.O <= sm90::kTileO / 4 || problem.O > sm90::kTileO || problem.stride > 8 ||
        !sm90::has_tensor_map(problem))
        return false;
    return sm90::with_mode(problem, [&](auto mode) {
        constexpr sm90::Mode kMode = decltype(mode)::value;
        const sm90::StreamGeometry geometry = sm90::choose_stream_cut<kMode>(problem);
        // Tiles at least half full, on average: the GEMM's run on from row to row where rows are short.
        const int64_t stored = geometry.columns - sm90::StreamTraits<kMode>::kLead;
        return geometry.tiles > 0 && geometry.tiles * stored <= 2 * problem.N * problem.P;
    });
}

inline size_t workspace_stream_sm90(const Problem& problem) {
    return sm90::with_mode(problem, [&](auto mode) {
        constexpr sm90::Mode kMode = decltype(mode)::value;
        sm90::Scratch scratch;
        return sm90::lay_out<kMode>(problem, sm90::packing<kMode>(problem), nullptr, &scratch);
    });
}

}  // namespace conv1d
