"""Ultrasound machines: what differs between centers although the anatomy is the same.

A machine's numbers are typical of its class (high-frequency linear probes for small parts), not measured on the
product that a center names.
"""

from __future__ import annotations

__all__ = ["COMMON_MACHINE", "MACHINES", "FrameSize", "Machine", "acquire", "blend", "random_machine"]

from dataclasses import asdict, dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from simulation.phantom import physics
from simulation.phantom.physics import Psf, Tissue

TISSUE_ATTENUATION = 0.55
"""Attenuation of the soft tissue of the neck and breast, dB/cm/MHz, one way. Szabo 2014, appendix B."""


@dataclass(frozen=True, slots=True)
class FrameSize:
    """Range of a frame's width and height, px, and their mean."""

    width: tuple[int, int, int]
    height: tuple[int, int, int]

    def draw(self, rng: np.random.Generator, *, share: float) -> tuple[int, int]:
        """Height and width of one frame. share: in [0, 1], from the smallest frame to the largest."""
        sides = []
        for low, mean, high in (self.height, self.width):
            wiggle = float(np.clip(share + rng.normal(0, 0.08), 0, 1))
            middle = (mean - low) / (high - low)
            sides.append(round(low + (high - low) * wiggle ** (1 / middle - 1)))
        return sides[0], sides[1]


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine with its probe and the way it is set.

    frequency_mhz: center of the pulse's band; bandwidth: its −6 dB width as a fraction. f_number: depth of focus over
    aperture. focus_mm: depth of the transmit focus. compensated_db: attenuation that the time-gain compensation
    assumes, dB/cm/MHz one way. dynamic_range_db: from black to white. gain_db: added to everything. noise_db: receiver
    noise relative to 0 dB at the skin. smoothing, smooth_mm: speckle reduction, its share in [0, 1] and its scale.
    edge: weight of edge enhancement, as harmonic modes and sharpening show it. gamma: exponent of the gray curve.
    pixel_mm: size of a pixel. depth_mm: depth of the frame's first row. frame: its size.
    """

    name: str
    frequency_mhz: float
    bandwidth: float
    f_number: float
    focus_mm: float
    compensated_db: float
    dynamic_range_db: float
    gain_db: float
    noise_db: float
    smoothing: float
    smooth_mm: float
    edge: float
    gamma: float
    pixel_mm: float
    depth_mm: float
    frame: FrameSize

    def set_for_depth(self, penetration: float) -> Machine:
        """The machine as an operator sets it to see deeper (> 0) or finer (< 0), in units of a usual variation.

        Deeper means a lower frequency, more gain and compensation, more smoothing, and a frame that begins deeper.
        """
        return replace(
            self,
            frequency_mhz=self.frequency_mhz * float(np.exp(-0.10 * penetration)),
            compensated_db=self.compensated_db + 0.035 * penetration,
            gain_db=self.gain_db + 1.8 * penetration,
            smoothing=float(np.clip(self.smoothing + 0.08 * penetration, 0, 0.95)),
            depth_mm=max(self.depth_mm + 2.0 * penetration, 1.0),
        )

    def set_for_contrast(self, crispness: float) -> Machine:
        """The machine as an operator sets it for a harder (> 0) or softer (< 0) picture, in units of a usual variation.

        Harder means less dynamic range, more edge enhancement and a steeper gray curve.
        """
        return replace(
            self,
            dynamic_range_db=self.dynamic_range_db * float(np.exp(-0.12 * crispness)),
            edge=max(self.edge + 0.2 * crispness, 0.0),
            gamma=self.gamma * float(np.exp(0.06 * crispness)),
        )


COMMON_MACHINE = Machine(
    name="common",
    frequency_mhz=8.5,
    bandwidth=0.6,
    f_number=1.9,
    focus_mm=18,
    compensated_db=0.55,
    dynamic_range_db=62,
    gain_db=0,
    noise_db=-52,
    smoothing=0.4,
    smooth_mm=0.12,
    edge=0.3,
    gamma=1.0,
    pixel_mm=0.062,
    depth_mm=8,
    frame=FrameSize(width=(290, 430, 570), height=(290, 425, 570)),
)
"""The machine that every center has at shift 0."""

MACHINES = (
    replace(
        COMMON_MACHINE,
        name="Samsung RS80 5-12",
        frequency_mhz=7.6,
        bandwidth=0.55,
        f_number=2.2,
        compensated_db=0.50,
        dynamic_range_db=54,
        gain_db=-2,
        smoothing=0.7,
        smooth_mm=0.15,
        edge=0.6,
        gamma=1.1,
        pixel_mm=0.066,
        depth_mm=9,
        frame=FrameSize(width=(248, 407, 570), height=(226, 406, 570)),
    ),
    replace(
        COMMON_MACHINE,
        name="AixPlorer Ultimate SL15-4",
        frequency_mhz=9.8,
        bandwidth=0.72,
        f_number=1.6,
        compensated_db=0.60,
        dynamic_range_db=68,
        gain_db=4,
        smoothing=0.15,
        smooth_mm=0.09,
        edge=0.1,
        gamma=0.85,
        pixel_mm=0.057,
        depth_mm=7,
        frame=FrameSize(width=(290, 468, 826), height=(290, 455, 724)),
    ),
    replace(
        COMMON_MACHINE,
        name="Further machine 3, 4-9",
        frequency_mhz=6.6,
        bandwidth=0.5,
        f_number=2.5,
        compensated_db=0.52,
        dynamic_range_db=66,
        gain_db=3,
        noise_db=-44,
        smoothing=0.25,
        smooth_mm=0.14,
        edge=0.5,
        gamma=1.2,
        pixel_mm=0.070,
        depth_mm=9,
        frame=FrameSize(width=(300, 420, 640), height=(280, 380, 560)),
    ),
    replace(
        COMMON_MACHINE,
        name="Further machine 4, 6-18",
        frequency_mhz=11.5,
        bandwidth=0.65,
        f_number=1.5,
        compensated_db=0.58,
        dynamic_range_db=58,
        gain_db=-3,
        smoothing=0.6,
        smooth_mm=0.10,
        edge=0.6,
        gamma=0.9,
        pixel_mm=0.054,
        depth_mm=6,
        frame=FrameSize(width=(320, 480, 720), height=(300, 440, 640)),
    ),
)
"""Own machines of the centers 1, 2, 3 and 4."""

RATIO_SCALE = frozenset({"frequency_mhz", "bandwidth", "f_number", "focus_mm", "smooth_mm", "gamma", "pixel_mm"})
BOUNDS = {"smoothing": (0.0, 0.95), "edge": (0.0, 2.5), "dynamic_range_db": (35.0, 100.0), "depth_mm": (1.0, 40.0)}


def blend(common: Machine, own: Machine, *, shift: float) -> Machine:
    """`common` at shift 0, `own` at 1, in a straight line through both and beyond (in logarithms where a ratio counts).

    Frame sizes: from the common range to the own one, and no further.
    """
    values: dict[str, float] = {}
    for field in fields(Machine):
        start, end = getattr(common, field.name), getattr(own, field.name)
        if field.name in RATIO_SCALE:
            values[field.name] = start * (end / start) ** shift
        elif field.name not in {"name", "frame"}:
            low, high = BOUNDS.get(field.name, (-np.inf, np.inf))
            values[field.name] = float(np.clip(start + shift * (end - start), low, high))
    return Machine(name=own.name, frame=_blend_frames(common.frame, own.frame, share=min(shift, 1.0)), **values)


def _blend_frames(common: FrameSize, own: FrameSize, *, share: float) -> FrameSize:
    def between(start: tuple[int, int, int], end: tuple[int, int, int]) -> tuple[int, int, int]:
        low, mean, high = (round(a + share * (b - a)) for a, b in zip(start, end, strict=True))
        return low, mean, high

    return FrameSize(between(common.width, own.width), between(common.height, own.height))


def random_machine(rng: np.random.Generator) -> Machine:
    """A machine and setting from a wide range, wider than the presets: for learning what no machine changes."""
    side = int(rng.integers(230, 320))
    width, height = side + int(rng.integers(0, 60)), side + int(rng.integers(-30, 60))
    return Machine(
        name="random",
        frequency_mhz=float(np.exp(rng.uniform(np.log(5), np.log(14)))),
        bandwidth=float(rng.uniform(0.4, 0.8)),
        f_number=float(rng.uniform(1.3, 3.2)),
        focus_mm=float(rng.uniform(8, 30)),
        compensated_db=float(rng.normal(TISSUE_ATTENUATION, 0.08)),
        dynamic_range_db=float(rng.uniform(42, 84)),
        gain_db=float(rng.normal(0, 5)),
        noise_db=float(rng.uniform(-60, -36)),
        smoothing=float(rng.uniform(0, 0.9)),
        smooth_mm=float(rng.uniform(0.06, 0.22)),
        edge=float(rng.uniform(0, 1.2)),
        gamma=float(np.exp(rng.normal(0, 0.2))),
        pixel_mm=float(np.exp(rng.uniform(np.log(0.065), np.log(0.13)))),
        depth_mm=float(rng.uniform(2, 14)),
        frame=FrameSize(width=(width - 1, width, width + 1), height=(height - 1, height, height + 1)),
    )


def acquire(
    rng: np.random.Generator,
    tissue: Tissue,
    machine: Machine,
    *,
    pixel_mm: float,
    beam_mm: NDArray[np.float64] | None = None,
) -> NDArray[np.uint8]:
    """The (H, W) gray picture that `machine` makes of `tissue`, whose pixels measure `pixel_mm`.

    beam_mm: (H,) distance of neighbouring columns in each row where that differs from `pixel_mm`: beams that diverge.
    """
    depth = machine.depth_mm + pixel_mm * np.arange(tissue.echo_db.shape[0], dtype=np.float64)
    left = physics.attenuation_db(
        depth,
        frequency_mhz=machine.frequency_mhz,
        tissue_db=TISSUE_ATTENUATION,
        compensated_db=machine.compensated_db,
    )
    amplified = 2 * machine.compensated_db * machine.frequency_mhz * depth / 10
    lateral = physics.lateral_sigma_mm(
        depth, frequency_mhz=machine.frequency_mhz, f_number=machine.f_number, focus_mm=machine.focus_mm
    )
    psf = Psf(
        physics.axial_sigma_mm(machine.frequency_mhz, machine.bandwidth) / pixel_mm,
        lateral / (pixel_mm if beam_mm is None else beam_mm),
    )
    field = physics.backscatter(rng, tissue, frequency_mhz=machine.frequency_mhz, pixel_mm=pixel_mm, left_db=left)
    echo = physics.beamform(rng, field, psf, noise=10 ** ((machine.noise_db + amplified) / 20))
    gray = physics.compress(np.abs(echo), dynamic_range_db=machine.dynamic_range_db, gain_db=machine.gain_db)
    return physics.display(
        gray,
        smooth_px=machine.smooth_mm / pixel_mm,
        smoothing=machine.smoothing,
        edge_px=2 * machine.smooth_mm / pixel_mm,
        edge=machine.edge,
        gamma=machine.gamma,
    )


def settings(machine: Machine) -> dict[str, str | float]:
    """A machine's numbers by name, without its frame."""
    return {name: value for name, value in asdict(machine).items() if name != "frame"}
