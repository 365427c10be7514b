"""The full counts of what the project must show: `make prove`, or `make prove NAME=identity-float64` for one."""
