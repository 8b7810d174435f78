"""The phases of models (`check`) and of jobs (`plan` to `load`): thin steps around `ecif` and `encoders`."""
