"""Never sees a pixel: aggregation, round loop, checkpoints, cross-center statistics, report."""
