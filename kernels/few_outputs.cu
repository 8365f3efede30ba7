// The translation unit of routes "few_outputs" and "gather", of which the first asks what the second takes.
#include "few_outputs.cuh"
#include "gather.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kFewOutputs = {"few_outputs", fits_few_outputs, workspace_few_outputs,
                                           launch_few_outputs};
const conv1d::Route conv1d::kGather = {"gather", fits_gather, no_workspace, launch_gather};
