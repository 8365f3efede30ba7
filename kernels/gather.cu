// The translation unit of route "gather".
#include "gather.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kGather = {"gather", fits_gather, no_workspace, launch_gather};
