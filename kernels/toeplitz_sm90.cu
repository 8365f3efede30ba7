// The translation unit of route "toeplitz_sm90".
#include "toeplitz_sm90.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kToeplitzSm90 = {"toeplitz_sm90", fits_toeplitz_sm90, no_workspace,
                                             launch_toeplitz_sm90};
