// Which problems the downsampling convolution (downsample_sm90.cuh) takes. No kernel here.
#pragma once
#include "problem.h"
#include "window_sm90_plan.cuh"

namespace conv1d {
namespace sm90 {

template <Mode kMode>
using DownTraits = WindowTraits<kMode, 3, 2, 128>;

}  // namespace sm90

// Where one sample makes enough tiles: it alone decides, as gemm_sm90, whose tiles are smaller, adds in
// another order; and where few of the last tiles' positions or outputs are missing. ms TF32, fp32, bf16 by
// this route and by that: 16x1280x3000 to 1280 (60 tiles a sample) .781, 1.53, .444 and .905, 1.90, .524, one
// sample of it .126, .164, .075 and .100, .181, .061; but 1x512x4096 to 512 (32 tiles) .050, .063, .033 and
// .032, .059, .022.
inline bool fits_downsample_sm90(const Problem& problem) {
    if (!fits_gemm_sm90(problem) || problem.K != 3 || problem.stride != 2 || problem.dilation != 1 ||
        problem.pad_left > 1 || problem.C < 64)
        return false;
    using Tile = sm90::DownTraits<sm90::Mode::tf32>;
    constexpr int kLeastTiles = 56;
    if (ceil_div(problem.P, Tile::kTilePositions) * ceil_div(problem.O, Tile::kOutputs) < kLeastTiles ||
        8 * round_up(problem.P, Tile::kTilePositions / 2) > 9 * problem.P ||
        8 * round_up(problem.O, Tile::kOutputs * sm90::kWindowCluster) > 9 * problem.O)
        return false;
    return sm90::with_mode(problem, [&](auto mode) {
        return sm90::cut_windows<sm90::DownTraits<decltype(mode)::value>>(problem).pairs > 0;
    });
}

inline size_t workspace_downsample_sm90(const Problem& problem) {
    return sm90::with_mode(problem, [&](auto mode) {
        return sm90::workspace_of<sm90::DownTraits<decltype(mode)::value>>(problem);
    });
}

}  // namespace conv1d
