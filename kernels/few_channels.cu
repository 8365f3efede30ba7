// The translation unit of the routes for fewer than 16 channels a group: "stem_sm80", "fold_sm80".
#include "fold.cuh"
#include "stem.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kStemSm80 = {"stem_sm80", fits_stem_sm80, no_workspace, launch_stem_sm80};
const conv1d::Route conv1d::kFoldSm80 = {"fold_sm80", fits_fold_sm80, no_workspace, launch_fold_sm80};
