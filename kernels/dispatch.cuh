// THE table of routes. The first row whose `fits` holds takes the problem; nothing else decides.
// Each row carries the measurement that put it where it stands (H200; results/ has the full table).
#pragma once
#include "problem.h"
#include "depthwise.cuh"
#include "direct.cuh"
#include "fold.cuh"
#include "gemm_sm80.cuh"
#include "gemm_sm90.cuh"
#include "toeplitz.cuh"

namespace conv1d {

struct Route {
    const char* name;
    bool (*fits)(const Problem&);
    size_t (*workspace_bytes)(const Problem&);
    Error (*launch)(const Problem&, cudaStream_t);
};

inline size_t no_workspace(const Problem&) { return 0; }

constexpr Route kRoutes[] = {
    {"toeplitz", fits_toeplitz, no_workspace, launch_toeplitz},
    {"depthwise", fits_depthwise, no_workspace, launch_depthwise},
    {"fold_sm80", fits_fold_sm80, no_workspace, launch_fold_sm80},
    {"gemm_sm90", fits_gemm_sm90, workspace_gemm_sm90, launch_gemm_sm90},
    {"gemm_sm80", fits_gemm_sm80, workspace_gemm_sm80, launch_gemm_sm80},
    {"direct", fits_direct, no_workspace, launch_direct},  // fits every valid problem: the last row
};
constexpr int32_t kRouteCount = sizeof(kRoutes) / sizeof(kRoutes[0]);

}  // namespace conv1d
