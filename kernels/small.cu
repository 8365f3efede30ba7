// The translation unit of route "small_sm80".
#include "small.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kSmallSm80 = {"small_sm80", fits_small_sm80, no_workspace, launch_small_sm80};
