"""Phantom ultrasound: pictures that nobody was scanned for, in the exact on-disk format of a real data set."""

from __future__ import annotations

__all__ = ["write_phantom"]

from simulation.phantom.write import write_phantom
