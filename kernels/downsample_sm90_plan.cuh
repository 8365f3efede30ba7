// How the downsampling convolution (downsample_sm90.cuh) cuts a problem: the memory plan of a block, the
// tiles, which problems it takes. Pure functions of the problem's numbers; no kernel here.
#pragma once
#include "gemm_sm90_plan.cuh"
#include "problem.h"
#include "stream_sm90_plan.cuh"
#include "tile.cuh"

namespace conv1d {
namespace sm90 {

constexpr int kDownTaps = 3, kDownStride = 2;
constexpr int kDownOutputs = kTileO;  // of a tile; each product warpgroup takes all of them
constexpr int kDownSub = 64;          // positions whose x is loaded together
constexpr int kDownStagedOutputs = 32;  // of y, staged at once
constexpr int kDownMostStages = 8;
constexpr int kDownOrderWarps = 4;
constexpr int kDownCluster = 2;  // blocks, of neighbouring outputs, that share x
constexpr int kDownThreads = 32 * (kProductWarps + kDownOrderWarps);

template <Mode kMode>
struct DownTraits : ModeTraits<kMode> {
    using Traits = ModeTraits<kMode>;
    static constexpr int kStageChannels = 32 / (Traits::kIsTf32 ? 4 : 2);  // of one product, 32 bytes of K
    static constexpr int kWeightPartBytes = kDownTaps * kDownOutputs * 32;  // of a stage
    static constexpr int kWeightBytes = kWeightPartBytes * (Traits::kIsSplit ? 2 : 1);
    // Of 64 positions of a warpgroup. Split operands need the registers of the second one for totals.
    static constexpr int kProducts = Traits::kIsSplit ? 1 : 2;
    // Of a thread of the product warpgroups and of the others, of 168 at launch.
    static constexpr int kProductRegisters = Traits::kIsSplit ? 232 : 216;
    static constexpr int kOrderRegisters = 3 * 168 - 2 * kProductRegisters;
    static constexpr int kPositions = kDownSub * kProducts;  // of a warpgroup
    static constexpr int kSubs = 2 * kProducts;              // of a tile
    static constexpr int kWarpPositions = kPositions / 4;
    // Rows of x whose starts lie differently in pieces of 16 bytes, where they do at all.
    static constexpr int kResidues = 16 / Traits::kElementBytes;
    // Of a channel in a stage, in elements; the second where rows begin between 16-byte pieces. Neighbouring
    // lanes read different banks, and boxes are multiples of 128 bytes.
    static constexpr int kPitch = kMode == Mode::f16x3 ? 132 : 136;
    static constexpr int kApartPitch = Traits::kIsFloat ? (kMode == Mode::f16x3 ? 136 : 144) : 160;
    // Of a warp's staged rows of y, in elements.
    static constexpr int kStagedPitch = kWarpPositions + (Traits::kIsFloat ? 4 : 8);
    static constexpr int kStagedBytes = kDownStagedOutputs * kStagedPitch * Traits::kElementBytes;
};

// How one launch cuts its problem; written by the host, read by every role.
struct DownGeometry {
    int32_t o_tiles;           // of one group
    int32_t parts_per_sample;  // of a warpgroup's positions each; a tile is two that follow each other
    int32_t tiles;             // of the whole problem; 0 where it does not fit
    int32_t stages;            // in all of a tile's channels; an even number
    int32_t residues;          // 1: rows of x begin at 16-byte pieces; else how many lie differently
    int32_t sub_bytes;         // of x, of 64 positions, in a stage
    int32_t ring, stage_bytes;  // stages under way, of weights and then x
    int32_t smem_bytes;         // stages | staging of y | barriers
    SafeTiles safe;
};

// 1 where rows of x begin at 16-byte pieces, else kResidues; 0 where the copy engine cannot load them. Rows
// that begin between pieces are loaded with what lies around them, which must not count as padding; of 16
// bits, a lane's two channels must begin at an even and at an odd element.
template <Mode kMode>
inline int residues_of(const Problem& problem) {
    using Traits = DownTraits<kMode>;
    constexpr int kResidues = Traits::kResidues;
    const int64_t stride_c = problem.x_stride_c, stride_n = problem.x_stride_n;
    if (problem.x_stride_l != 1 || reinterpret_cast<uintptr_t>(problem.x) % 16 != 0 || stride_c < problem.L)
        return 0;
    if (problem.N > 1 && (stride_n < problem.G * problem.C * stride_c || stride_n % kResidues != 0 ||
                          stride_n >= int64_t{1} << 37))
        return 0;
    if (stride_c % kResidues == 0) return 1;
    if (kResidues * stride_c >= int64_t{1} << 31) return 0;
    const bool padded = problem.pad_left > 0 || (problem.P - 1) * kDownStride + kDownTaps > problem.L;
    const bool alternates = Traits::kIsFloat || stride_c % 2 != 0;
    return !padded && alternates && problem.C % kResidues == 0 ? kResidues : 0;
}

template <Mode kMode>
inline DownGeometry cut_down(const Problem& problem) {
    using Traits = DownTraits<kMode>;
    DownGeometry geometry{};
    geometry.residues = residues_of<kMode>(problem);
    if (geometry.residues == 0) return {};
    geometry.o_tiles = static_cast<int32_t>(ceil_div(problem.O, kDownOutputs));
    geometry.parts_per_sample = static_cast<int32_t>(ceil_div(problem.P, Traits::kPositions));
    geometry.stages =
        static_cast<int32_t>(round_up(problem.C, Traits::kChunkChannels) / Traits::kStageChannels);
    const int pitch = geometry.residues == 1 ? Traits::kPitch : Traits::kApartPitch;
    geometry.sub_bytes = Traits::kStageChannels * pitch * Traits::kElementBytes;
    geometry.stage_bytes = Traits::kWeightBytes + Traits::kSubs * geometry.sub_bytes;
    constexpr int kOtherBytes = kProductWarps * Traits::kStagedBytes + 2 * kDownMostStages * 8 + 1024;
    const int room = (problem.device.smem_bytes - kOtherBytes) / geometry.stage_bytes;
    geometry.ring = room < kDownMostStages ? room : kDownMostStages;
    geometry.smem_bytes = kOtherBytes + geometry.ring * geometry.stage_bytes;
    if (geometry.ring < 3) return {};
    const int64_t tiles =
        ceil_div(problem.N * geometry.parts_per_sample, 2) * geometry.o_tiles * problem.G;
    if (tiles >= int64_t{1} << 30 || geometry.o_tiles % kDownCluster != 0) return {};
    geometry.tiles = static_cast<int32_t>(tiles);
    if (kMode == Mode::f16x3) {
        geometry.safe = find_safe_tiles(problem);
        if (geometry.safe.advance == 0) return {};
    }
    return geometry;
}

// What pack_weights and lay_out ask of a Geometry.
template <Mode kMode>
inline Geometry packing_down(const Problem& problem) {
    Geometry geometry = packing<kMode>(problem);
    geometry.by_steps = 1;
    return geometry;
}

}  // namespace sm90

// Where one sample makes enough tiles: it alone decides, as gemm_sm90, whose tiles are smaller, adds in
// another order; and where few of the last tiles' positions or outputs are missing. ms TF32, fp32, bf16 by
// this route and by that: 16x1280x3000 to 1280 (60 tiles a sample) .781, 1.53, .444 and .905, 1.90, .524, one
// sample of it .126, .164, .075 and .100, .181, .061; but 1x512x4096 to 512 (32 tiles) .050, .063, .033 and
// .032, .059, .022.
inline bool fits_downsample_sm90(const Problem& problem) {
    if (!fits_gemm_sm90(problem) || problem.K != sm90::kDownTaps || problem.stride != sm90::kDownStride ||
        problem.dilation != 1 || problem.pad_left > 1 || problem.C < 64)
        return false;
    constexpr int kOutputs = sm90::kDownOutputs * sm90::kDownCluster, kLeastTiles = 56;
    if (ceil_div(problem.P, 256) * ceil_div(problem.O, sm90::kDownOutputs) < kLeastTiles ||
        8 * round_up(problem.P, 128) > 9 * problem.P ||
        8 * round_up(problem.O, kOutputs) > 9 * problem.O)
        return false;
    return sm90::with_stream_mode(problem, [&](auto mode) {
        return sm90::cut_down<decltype(mode)::value>(problem).tiles > 0;
    });
}

inline size_t workspace_downsample_sm90(const Problem& problem) {
    return sm90::with_stream_mode(problem, [&](auto mode) {
        constexpr sm90::Mode kMode = decltype(mode)::value;
        sm90::Scratch scratch;
        return sm90::lay_out<kMode>(problem, sm90::packing_down<kMode>(problem), nullptr, &scratch);
    });
}

}  // namespace conv1d
