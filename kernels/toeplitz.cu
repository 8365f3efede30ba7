// The translation unit of the routes for long depthwise filters: "toeplitz", "toeplitz_sm90".
#include "toeplitz.cuh"
#include "toeplitz_sm90.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kToeplitz = {"toeplitz", fits_toeplitz, no_workspace, launch_toeplitz};
const conv1d::Route conv1d::kToeplitzSm90 = {"toeplitz_sm90", fits_toeplitz_sm90, no_workspace,
                                             launch_toeplitz_sm90};
