// Which problems the sliding convolution (sliding_sm90.cuh) takes, and with which tiles. No kernel here.
#pragma once
#include "problem.h"
#include "window_sm90_plan.cuh"

namespace conv1d {
namespace sm90 {

// Calls call(traits) with the tile that this problem takes. Either adds in the same order, so the number of
// samples may decide. One of half the outputs takes .62 of the time of the other.
template <class Call>
inline auto with_slide(const Problem& problem, Call call) {
    return with_mode(problem, [&](auto mode) {
        const auto with_taps = [&](auto taps) {
            constexpr Mode kMode = decltype(mode)::value;
            constexpr int kTaps = decltype(taps)::value;
            using Wide = WindowTraits<kMode, kTaps, 1, 128>;
            using Narrow = WindowTraits<kMode, kTaps, 1, 64>;
            const int clusters = clusters_of(problem);
            return 100 * ceil_div(pairs_of<Wide>(problem), clusters) <=
                           62 * ceil_div(pairs_of<Narrow>(problem), clusters)
                       ? call(Wide{})
                       : call(Narrow{});
        };
        return problem.K == 3 ? with_taps(std::integral_constant<int, 3>{})
                              : with_taps(std::integral_constant<int, 5>{});
    });
}

}  // namespace sm90

// ms TF32, fp32, bf16 by this route and by gemm_sm90: 16x128x3000 to 1280, K3 .171, .300, .101 and .192,
// .361, .136; 256x256x64 to 512, K5 .067, .141, .041 and .091, .186, .059; 2x768x98304 to 896, K5 3.35, 6.37,
// 1.69 and 3.92, 7.27, 2.08; 8x64x16000 to 64, K5 .033, .058, .024 and .039, .073, .028; one sample of
// 512x1024 to 512, K3 .034, .044, .021 and .029, .051, .020. But of few outputs its narrower tile is half
// empty: 2x512x800 to 16, K5 .039, .054, .024 and .032, .056, .020; and so are boxes where rows fill the
// last one little: 256x256x65 to 512, K5 .129, .267, .083 and .109, .209, .081. Rows that begin between
// 16-byte pieces cost more to read, which long sums of few tiles do not hide: 2x768x32767 to 896, K5 1.16,
// 2.29, .63 and 1.32, 2.56, .72; 64x80x301 to 1024, K5 .077, .130, .072 and .103, .191, .083; but vits_wn
// .035, .064, .028 and .033, .070, .027; one sample of 512x1027 to 512, K3 .047, .047, .034 and .031, .052,
// .021.
inline bool fits_sliding_sm90(const Problem& problem) {
    if (!fits_gemm_sm90(problem) || (problem.K != 3 && problem.K != 5) || problem.stride != 1 ||
        problem.dilation != 1 || problem.C < 16 || problem.O < 33 ||
        5 * round_up(problem.P, sm90::kWindowBox) > 7 * problem.P)
        return false;
    return sm90::with_slide(problem, [&](auto traits) {
        using Traits = decltype(traits);
        const sm90::WindowGeometry geometry = sm90::cut_windows<Traits>(problem);
        const int64_t tiles = ceil_div(problem.P, 256) * ceil_div(problem.O, 128);  // of a sample, by size
        return geometry.pairs > 0 &&
               (geometry.residues == 1 || Traits::kIsSplit || problem.C <= 128 || tiles >= 56);
    });
}

inline size_t workspace_sliding_sm90(const Problem& problem) {
    return sm90::with_slide(problem,
                            [&](auto traits) { return sm90::workspace_of<decltype(traits)>(problem); });
}

}  // namespace conv1d
