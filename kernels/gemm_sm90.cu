// The translation unit of route "gemm_sm90".
#include "gemm_sm90.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kGemmSm90 = {"gemm_sm90", fits_gemm_sm90, workspace_gemm_sm90, launch_gemm_sm90};
