// Dense convolution on Hopper as an implicit GEMM: D[o][position] = sum of W[o][c, k] * X[c, k][position].
//
// Chosen for 16 channels a group and more. Persistent blocks draw tiles of 128 output channels x kN positions
// from a ticket, or of 64 x 2*kN; or, where those are few, of 64 x kN, which one warpgroup multiplies alone.
// Seven converter warps read x once, round or split it and store it K-major in rows of 128 bytes, one row a
// position: position q of the window is row q / stride of plane q % stride, so every tap of every stride and
// dilation is a plane and a row shift of the same tile; at a stride of 8 the planes are folded into channels
// (kFold in gemm_sm90_plan.cuh). One thread draws tickets and streams the packed weights. Two product
// warpgroups run wgmma, stage D and store it along the rows of y. Cost: each element of x leaves L2 once per
// tile of channels, each weight once per tile (once per block where all fit in shared memory). fp32 without
// TF32 runs as three products of split operands (Mode): of fp16 parts, then again of TF32 parts for the tiles
// that fp16 cannot hold, in a second launch that finds their list mostly empty.
// results/findings.md has what was measured, and what bounds it.
#pragma once
#include "gemm_sm90_kernel.cuh"
#include "gemm_sm90_plan.cuh"
#include "problem.h"

namespace conv1d {
namespace sm90 {

template <Mode kMode, int kN>
inline Error launch_products(const Problem& problem, const Geometry& geometry, const Scratch& scratch,
                             cudaStream_t stream) {
    return geometry.folded
               ? launch_tiles<kMode, kN, Layout::folded>(problem, geometry, scratch, stream)
           : geometry.channels_last
               ? launch_tiles<kMode, kN, Layout::channels_last>(problem, geometry, scratch, stream)
               : launch_tiles<kMode, kN, Layout::positions>(problem, geometry, scratch, stream);
}

// kN: the columns of the tiling.
template <Mode kMode, int kN>
inline Error launch_columns(const Problem& problem, const Tiling& tiling, const Geometry& geometry,
                            cudaStream_t stream) {
    Scratch scratch;
    lay_out<kMode>(problem, geometry, static_cast<uint8_t*>(problem.workspace), &scratch);
    if constexpr (kMode == Mode::f16x3) {
        // The same tiles, with rows of half the channels: the list means the same to both.
        const Geometry safe = cut<Mode::tf32x3>(problem, tiling, geometry.taps_per_group);
        pack_split_weights<Mode::tf32x3>(problem, geometry, safe, scratch, stream);
        const Error error = launch_products<kMode, kN>(problem, geometry, scratch, stream);
        if (error != nullptr) return error;
        scratch.image = scratch.safe_image;
        return launch_products<Mode::tf32x3, kN>(problem, safe, scratch, stream);
    } else {
        pack_weights<kMode>(problem, geometry, scratch, stream);
        return launch_products<kMode, kN>(problem, geometry, scratch, stream);
    }
}

template <Mode kMode>
inline Error launch_mode(const Problem& problem, const Cut& cut, cudaStream_t stream) {
#define CONV1D_SM90_LAUNCH(mode, kN)                                                     \
    if constexpr (kMode == Mode::mode) {                                                 \
        if (cut.tiling.columns == kN)                                                    \
            return launch_columns<kMode, kN>(problem, cut.tiling, cut.geometry, stream); \
    }
    CONV1D_SM90_TILES(CONV1D_SM90_LAUNCH)
#undef CONV1D_SM90_LAUNCH
    return "no tile fits this problem";
}

}  // namespace sm90

inline Error launch_gemm_sm90(const Problem& problem, cudaStream_t stream) {
    const sm90::Choice choice = sm90::choose(problem);
    switch (choice.mode) {
        case sm90::Mode::tf32:
            return sm90::launch_mode<sm90::Mode::tf32>(problem, choice.cut, stream);
        case sm90::Mode::tf32x3:
            return sm90::launch_mode<sm90::Mode::tf32x3>(problem, choice.cut, stream);
        case sm90::Mode::f16x3:
            return sm90::launch_mode<sm90::Mode::f16x3>(problem, choice.cut, stream);
        case sm90::Mode::f16:
            return sm90::launch_mode<sm90::Mode::f16>(problem, choice.cut, stream);
        default:
            return sm90::launch_mode<sm90::Mode::bf16>(problem, choice.cut, stream);
    }
}

}  // namespace conv1d
