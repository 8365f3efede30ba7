// The translation unit of route "stem_sm80".
#include "stem.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kStemSm80 = {"stem_sm80", fits_stem_sm80, no_workspace, launch_stem_sm80};
