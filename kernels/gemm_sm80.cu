// The translation unit of route "gemm_sm80".
#include "gemm_sm80.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kGemmSm80 = {"gemm_sm80", fits_gemm_sm80, workspace_gemm_sm80, launch_gemm_sm80};
