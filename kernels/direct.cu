// The translation unit of route "direct".
#include "direct.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kDirect = {"direct", fits_direct, no_workspace, launch_direct};
