// How the convolutions with x as register operand (window_sm90.cuh) cut a problem: the memory plan of a
// block, the tiles. Pure functions of the problem's numbers; no kernel here.
#pragma once
#include "gemm_sm90_plan.cuh"
#include "problem.h"
#include "tile.cuh"

namespace conv1d {
namespace sm90 {

constexpr int kWindowBox = 64;           // positions whose x is loaded together, of one sample
constexpr int kWindowChunkOutputs = 32;  // of y, staged together
constexpr int kWindowMostChunks = 4;     // of y, under way
constexpr int kWindowMostStages = 8;
constexpr int kWindowBarriers = 2 * (kWindowMostStages + kWindowMostChunks + 2);
constexpr int kWindowCluster = 2;  // blocks that share weights or x
// That order x, that store y; one brings weights.
constexpr int kWindowXWarps = 3, kWindowStoreWarps = 4;
constexpr int kWindowThreads = 32 * (kProductWarps + kWindowXWarps + 1 + kWindowStoreWarps);

// kOutputs: of a tile; each product warpgroup takes all of them.
template <Mode kMode_, int kTaps_, int kStride_, int kOutputs_>
struct WindowTraits : ModeTraits<kMode_> {
    using Traits = ModeTraits<kMode_>;
    static constexpr Mode kMode = kMode_;
    static constexpr int kTaps = kTaps_, kStride = kStride_, kOutputs = kOutputs_;
    // The blocks of a cluster take neighbouring outputs of the same positions, else neighbouring positions of
    // the same outputs: they share what is more.
    static constexpr bool kSharesX = kStride > 1;
    static constexpr int kOTiles = kSharesX ? kWindowCluster : 1;  // of a cluster
    static constexpr int kStageChannels = 32 / (Traits::kIsTf32 ? 4 : 2);  // of one product, 32 bytes of K
    static constexpr int kTogether = Traits::kIsTf32 ? 1 : 2;      // channels whose numbers share words
    static constexpr int kParts = Traits::kIsSplit ? 2 : 1;        // of an operand
    static constexpr int kWeightPartBytes = kTaps * kOutputs * 32;  // of a stage
    static constexpr int kWeightBytes = kWeightPartBytes * kParts;
    // Of 64 positions of a warpgroup. Split operands need the registers of the second one for totals.
    static constexpr int kProducts = Traits::kIsSplit ? 1 : 2;
    // Whose sums split operands add before totals do: at most 128 products.
    static constexpr int kStagesTogether = Traits::kIsSplit && 2 * kTaps * kStageChannels <= 128 ? 2 : 1;
    static constexpr int kBoxes = 2 * kProducts;  // of a tile
    static constexpr int kTilePositions = kWindowBox * kBoxes;
    static constexpr int kWarpPositions = kTilePositions / kProductWarps;
    static constexpr int kWarpsOfBox = kWindowBox / kWarpPositions;
    // Of a thread of the product warpgroups, of the one that orders and of the one that stores; of 128 at
    // launch.
    static constexpr int kProductRegisters = kOutputs == 64                           ? 216
                                             : Traits::kIsSplit && kStagesTogether > 1 ? 224
                                             : !Traits::kIsSplit && kTaps > 3          ? 232
                                                                                       : 216;
    static constexpr int kOrderRegisters = kProductRegisters > 216 ? 24 : 40;
    static constexpr int kStoreRegisters = 4 * 128 - 2 * kProductRegisters - kOrderRegisters;
    static constexpr int kPiece = 16 / Traits::kElementBytes;  // elements of a piece of 16 bytes
    // Of a channel in a stage, in elements, of rows that lie in so many ways. Neighbouring lanes read
    // different banks, where they can, and boxes are multiples of 128 bytes.
    static __host__ __device__ constexpr int pitch(int residues) {
        if (kStride > 1)
            return residues == 1 ? (Traits::kIsSplit ? 132 : 136)
                                 : (Traits::kIsSplit ? 136 : Traits::kIsFloat ? 144 : 160);
        if (residues == 1) return Traits::kIsTf32 ? 72 : Traits::kIsSplit ? 76 : 88;
        return Traits::kIsFloat || residues == 2 ? 80 : 96;
    }
    // Of a staged row of y, in elements.
    static constexpr int kStagedPitch = kTilePositions + kPiece;
    static constexpr int kStagedBytes = kWindowChunkOutputs * kStagedPitch * Traits::kElementBytes;
    // Under way, as stages leave room.
    static constexpr bool kHasLargeStages = Traits::kIsTf32 || (kStride > 1 && Traits::kIsSplit);
    static constexpr int kChunks = kHasLargeStages ? 3 : kWindowMostChunks;
    // Shared memory: stages | chunks of y | constants of two tiles | barriers.
    static constexpr int kConstantsOffset = kChunks * kStagedBytes;  // behind the stages
    static constexpr int kBarriersOffset = kConstantsOffset + 2 * 3 * kOutputs * 4;
};

// How one launch cuts its problem; written by the host, read by every role.
struct WindowGeometry {
    int32_t o_tiles;            // of one group
    IndexDivisor o_steps;       // of one group: tiles of outputs, or pairs of those
    IndexDivisor groups;
    IndexDivisor sample_boxes;  // a tile is some that follow each other, of all samples'
    int32_t pairs;              // of tiles, one for each block of a cluster; 0 where it does not fit
    int32_t stages;             // in all of a tile's channels
    int32_t image_stages;       // of which there are weights
    int32_t residues;           // 1: rows of x begin at 16-byte pieces; else how many lie differently
    int32_t box_bytes;          // of x, of 64 positions, in a stage
    int32_t ring, stage_bytes;  // stages under way, of weights and then x
    int32_t vector_bytes;       // of y, that lie in one piece in all rows, 16 at most
    int32_t smem_bytes;
    SafeTiles safe;
};

// 1 where rows of x begin at 16-byte pieces; else how many neighbouring channels make one row that does; 0
// where the copy engine cannot load them, or a loader does not take them. Rows that begin between pieces are
// loaded with what lies around them, which must not count as padding: at a stride of 1 the loader sees to it,
// for rows of whole words. At a stride of 2 a piece's channels make a row, and of 16 bits a lane's two
// channels must begin at an even and at an odd element.
template <class Traits>
inline int residues_of(const Problem& problem) {
    constexpr int kPiece = Traits::kPiece;
    const int64_t stride_c = problem.x_stride_c, stride_n = problem.x_stride_n;
    if (problem.x_stride_l != 1 || reinterpret_cast<uintptr_t>(problem.x) % 16 != 0 || stride_c < problem.L)
        return 0;
    if (problem.N > 1 && (stride_n < problem.G * problem.C * stride_c || stride_n % kPiece != 0 ||
                          stride_n >= int64_t{1} << 37))
        return 0;
    if (stride_c % kPiece == 0) return 1;
    if (kPiece * stride_c >= int64_t{1} << 31) return 0;
    if (Traits::kStride == 1) {
        int residues = 2;
        while (residues * stride_c % kPiece != 0) residues *= 2;
        return residues <= 4 && problem.C % residues == 0 ? residues : 0;
    }
    const bool padded =
        problem.pad_left > 0 || (problem.P - 1) * Traits::kStride + Traits::kTaps > problem.L;
    const bool alternates = Traits::kIsFloat || stride_c % 2 != 0;
    return !padded && alternates && problem.C % kPiece == 0 ? kPiece : 0;
}

// Pairs of tiles of a problem; clusters that run at once.
template <class Traits>
inline int64_t pairs_of(const Problem& problem) {
    const int64_t windows = ceil_div(problem.N * ceil_div(problem.P, kWindowBox), Traits::kBoxes);
    const int64_t o_tiles = ceil_div(problem.O, Traits::kOutputs);
    return problem.G * (Traits::kSharesX ? windows * ceil_div(o_tiles, kWindowCluster)
                                         : ceil_div(windows, kWindowCluster) * o_tiles);
}
inline int clusters_of(const Problem& problem) { return max(problem.device.sm_count / kWindowCluster, 1); }

template <class Traits>
inline WindowGeometry cut_windows(const Problem& problem) {
    WindowGeometry geometry{};
    geometry.residues = residues_of<Traits>(problem);
    if (geometry.residues == 0) return {};
    geometry.o_tiles = static_cast<int32_t>(ceil_div(problem.O, Traits::kOutputs));
    geometry.o_steps = plan_index_divisor(ceil_div(geometry.o_tiles, Traits::kOTiles));
    geometry.groups = plan_index_divisor(problem.G);
    geometry.sample_boxes = plan_index_divisor(ceil_div(problem.P, kWindowBox));
    geometry.image_stages =
        static_cast<int32_t>(round_up(problem.C, Traits::kChunkChannels) / Traits::kStageChannels);
    geometry.stages = static_cast<int32_t>(
        round_up(ceil_div(problem.C, Traits::kStageChannels), Traits::kStagesTogether));
    geometry.box_bytes = Traits::kStageChannels * Traits::pitch(geometry.residues) * Traits::kElementBytes;
    geometry.stage_bytes = Traits::kWeightBytes + Traits::kBoxes * geometry.box_bytes;
    const auto y_bits = static_cast<int64_t>(reinterpret_cast<uintptr_t>(problem.y)) |
                        problem.P * Traits::kElementBytes | 16;
    geometry.vector_bytes = static_cast<int32_t>(y_bits & -y_bits);
    constexpr int kOtherBytes = Traits::kBarriersOffset + 8 * kWindowBarriers + 128;  // which align the rest
    const int stages = (problem.device.smem_bytes - kOtherBytes) / geometry.stage_bytes;
    if (stages < 3) return {};
    geometry.ring = min(stages, kWindowMostStages);
    geometry.smem_bytes = kOtherBytes + geometry.ring * geometry.stage_bytes;
    const int64_t pairs = pairs_of<Traits>(problem);
    if (pairs >= int64_t{1} << 28 || (Traits::kSharesX && geometry.o_tiles % kWindowCluster != 0)) return {};
    geometry.pairs = static_cast<int32_t>(pairs);
    if (Traits::kMode == Mode::f16x3) {
        geometry.safe = find_safe_tiles(problem);
        if (geometry.safe.advance == 0) return {};
    }
    return geometry;
}

// What pack_weights and lay_out ask of a Geometry.
template <class Traits>
inline Geometry packing_of(const Problem& problem) {
    Geometry geometry = packing<Traits::kMode>(problem);
    geometry.by_steps = 1;
    geometry.tile_o = Traits::kOutputs;
    geometry.o_tiles = static_cast<int32_t>(ceil_div(problem.O, Traits::kOutputs));
    return geometry;
}

template <class Traits>
inline size_t workspace_of(const Problem& problem) {
    Scratch scratch;
    return lay_out<Traits::kMode>(problem, packing_of<Traits>(problem), nullptr, &scratch);
}

}  // namespace sm90
}  // namespace conv1d
