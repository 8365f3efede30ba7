// THE table of routes. The first row whose `fits` holds takes the problem; nothing else decides.
// Each row carries the measurement that put it where it stands (H200; results/ has the full table).
#pragma once
#include <cuda_runtime.h>

#include "problem.h"

namespace conv1d {

struct Route {
    const char* name;
    bool (*fits)(const Problem&);
    size_t (*workspace_bytes)(const Problem&);
    Error (*launch)(const Problem&, cudaStream_t);
};

inline size_t no_workspace(const Problem&) { return 0; }

// Defined in several translation units, which compile side by side.
extern const Route kToeplitzSm90, kToeplitz, kDepthwise, kStemSm80, kFoldSm80, kFewOutputs, kGather,
    kSmallSm80, kStreamSm90, kPointwiseSm90, kDownsampleSm90, kSlidingSm90, kGemmSm90, kGemmSm80, kDirect;

constexpr const Route* kRoutes[] = {
    &kToeplitzSm90,  // depthwise: long filters on Hopper
    &kToeplitz,      // before the rest where tensor cores beat sliding windows
    &kDepthwise,     // one input channel a group
    &kStemSm80,      // fewer than 16 channels a group and sums of some 80 products: bound by stores
    &kFoldSm80,      // fewer than 16 channels a group
    &kFewOutputs,    // one to eight output channels a group: bound by reading x
    &kGather,        // tiny problems, taps that hardly overlap, few outputs of few positions
    &kSmallSm80,     // dense problems of few products: one launch
    &kStreamSm90,    // short sums on Hopper, bound by memory
    &kPointwiseSm90,  // one tap on Hopper, rows of whole 16 bytes
    &kDownsampleSm90,  // three taps at a stride of 2 on Hopper
    &kSlidingSm90,  // few taps at a stride of 1 on Hopper
    &kGemmSm90,      // every other dense problem on Hopper
    &kGemmSm80,      // and on other cards since Ampere
    &kDirect,        // fits every valid problem: the last row
};
constexpr int32_t kRouteCount = sizeof(kRoutes) / sizeof(kRoutes[0]);

}  // namespace conv1d
