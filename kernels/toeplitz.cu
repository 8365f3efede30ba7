// The translation unit of route "toeplitz".
#include "toeplitz.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kToeplitz = {"toeplitz", fits_toeplitz, no_workspace, launch_toeplitz};
