// The translation unit of route "fold_sm80".
#include "fold.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kFoldSm80 = {"fold_sm80", fits_fold_sm80, no_workspace, launch_fold_sm80};
