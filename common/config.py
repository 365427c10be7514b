"""The schema of an experiment: TOML → frozen dataclasses, checked once at the door.

An unknown key fails with its path and the nearest known one; a wrong value with its path and what was expected.
"""

from __future__ import annotations

__all__ = [
    "AdamW",
    "Augmentation",
    "Comparison",
    "Crop",
    "Evaluation",
    "Experiment",
    "FedAvg",
    "FedProx",
    "HospitalPrivacy",
    "ImagePrivacy",
    "Model",
    "NoPrivacy",
    "PatientPrivacy",
    "Privacy",
    "Sgd",
    "SiteAt",
    "Source",
    "Training",
    "load_experiment",
]

import tomllib
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

from common.apart import why_not_apart
from common.errors import BadInput
from common.parsing import parse
from common.tasks import Task

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]


@checked(frozen=True, config=_STRICT)
class ImportOptions:
    """What an importer must be told beyond its source; each format takes its own and refuses the others.

    `task` (behsof): which of the data set's questions the labels answer, without it `steatosis-s2`; (csv): the name of
    the task; (folder, dicom): `NAME:POSITIVE`. `sites` and `by` (deeplesion): how many artificial sites, and along what
    they are cut. `patients` (smclud): the patient table; `pattern` (smclud, folder): a regular expression whose group
    `patient` finds the patient in a file's name (smclud) or path (folder). `map` (csv): the TOML file that says what
    the columns mean. `site` (folder, csv, dicom): the id of the site. `password_file`: holds the archive's password.
    `nominal_patients` (all formats): the number of patients that each site declares to the outside.
    """

    task: str | None = None
    sites: Annotated[int, Field(ge=1, le=1000)] | None = None
    by: Literal["patient", "spacing", "dirichlet"] | None = None
    patients: str | None = None
    pattern: str | None = None
    map: str | None = None
    site: str | None = None
    password_file: str | None = None
    nominal_patients: Annotated[int, Field(ge=1)] | None = None


@checked(frozen=True, config=_STRICT)
class Source:
    """A data set that is imported on demand: the importer's `format`, the `path` of the archive or folder, options."""

    format: str
    path: str
    options: ImportOptions = field(default_factory=ImportOptions)


@checked(frozen=True, config=_STRICT)
class SiteAt:
    """A site: the `path` of its folder in a simulation, or the `id` that its client answers with in a deployment.

    `role = "held-out"` keeps a site from training; a site whose own folder says held-out never trains.
    """

    path: str | None = None
    id: str | None = None
    role: Literal["train", "held-out"] | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.id is None):
            raise ValueError("give a site either by path (simulation) or by id (deployment)")


@checked(frozen=True, config=_STRICT)
class Crop:
    """What of an image the model sees: a square of `size` pixels around the lesion's box, widened on each side.

    It is widened by `margin` times the box's longer side, or, where `margin_mm` is given, by so many millimetres; these
    need the spacing of pixels (`spacing_mm` in cases.csv) of every image.
    """

    size: Annotated[int, Field(ge=16, le=1024)] = 96
    margin: Annotated[float, Field(ge=0, le=2)] = 0.25
    region: Literal["lesion", "frame"] = "lesion"
    margin_mm: Annotated[float, Field(ge=0, le=500)] | None = None

    def __post_init__(self) -> None:
        if self.margin_mm is not None and self.margin != 0.25:
            raise ValueError("give either margin (a share of the box) or margin_mm, not both")


@checked(frozen=True, config=_STRICT)
class Model:
    """The attention CNN. `weights` is a local safetensors file with initial weights; without it they are drawn by seed.

    `contrast`: whether gray values stay on one `fixed` scale, or each `image` is standardised, or each `local` region.
    `gradients`: whether a linear model of oriented gradients votes beside the CNN.

    In a run folder `weights` is the file's name alone and `weights_sha256` its checksum.
    """

    backbone: Literal["resnet18", "resnet34", "resnet50", "small"] = "resnet18"
    norm: Literal["group", "batch", "frozen"] = "group"
    attention: Literal["full", "channel", "spatial", "none"] = "full"
    contrast: Literal["fixed", "image", "local"] = "fixed"
    gradients: bool = False
    dropout: Share = 0.0
    weights: str | None = None
    weights_sha256: str | None = None


@checked(frozen=True, config=_STRICT)
class AdamW:
    """Decoupled weight decay (Loshchilov and Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: Rate = 5e-4
    weight_decay: NonNegative = 0.05


@checked(frozen=True, config=_STRICT)
class Sgd:
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: Rate = 0.01
    momentum: Share = 0.9
    weight_decay: NonNegative = 0.0


@checked(frozen=True, config=_STRICT)
class Augmentation:
    """Random changes of a training image, each drawn anew for each image and step.

    `flip`: probability of a left-right flip; `rotate`: degrees either way; `scale`: relative; `shift`: share of the
    side; `gain`: contrast factor's relative spread and brightness in gray/255; `gamma`: log-spread; `blur`: probability
    of a slight blur or sharpening; `noise`: multiplicative speckle's standard deviation; `erase`: probability of a
    blank patch.
    """

    flip: Share = 0.5
    rotate: NonNegative = 10.0
    scale: Share = 0.15
    shift: Share = 0.08
    gain: Share = 0.2
    gamma: Share = 0.2
    blur: Share = 0.0
    noise: Share = 0.0
    erase: Share = 0.0


def _or_none(value: Any) -> Any:
    return None if value == "none" else value


@checked(frozen=True, config=_STRICT)
class Training:
    """The budget of one final model and how its steps are made.

    The budget is `steps` optimizer steps of `batch_size` images in all, or `epochs` over the train images of all sites
    of role train; it is divided evenly over `rounds`, and within a round over the sites in proportion to their images.
    With `full_batch` each site makes one step over all of its images a round, and steps and epochs are not read.
    `augmentation = "none"` leaves images as they are.
    """

    rounds: Positive = 10
    steps: Positive | None = None
    epochs: Rate | None = None
    batch_size: Positive = 32
    full_batch: bool = False
    optimizer: Annotated[AdamW | Sgd, Field(discriminator="kind")] = field(default_factory=AdamW)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: Share = 0.05
    head_rate: Rate = 1.0
    average: Share = 0.0
    label_smoothing: Share = 0.0
    class_weights: bool = True
    augmentation: Annotated[Augmentation | None, BeforeValidator(_or_none)] = field(default_factory=Augmentation)
    precision: Literal["auto", "float32", "float64", "bf16"] = "auto"
    layout: Literal["auto", "channels-last", "contiguous"] = "auto"

    def __post_init__(self) -> None:
        if not self.full_batch and (self.steps is None) == (self.epochs is None):
            raise ValueError("give a budget: either steps or epochs")


@checked(frozen=True, config=_STRICT)
class FedAvg:
    """McMahan et al. 2017: the mean of the sites' updates, weighted by their images."""

    kind: Literal["fedavg"] = "fedavg"


@checked(frozen=True, config=_STRICT)
class FedProx:
    """Li et al. 2020: FedAvg with mu/2 · ‖w − w_global‖² added to each site's loss."""

    kind: Literal["fedprox"] = "fedprox"
    mu: NonNegative = 0.01


@checked(frozen=True, config=_STRICT)
class NoPrivacy:
    """Updates leave a site as they are."""

    kind: Literal["none"] = "none"


@checked(frozen=True, config=_STRICT)
class PatientPrivacy:
    """Differential privacy of each patient at each site (Abadi et al. 2016, with the patient for the example).

    Each step takes every patient by a coin, about `patients_per_step` of the site's nominal number, averages the
    gradients of at most `images_per_patient` of a patient's images, drawn afresh, and clips them to the norm `clip`.
    Noise is set by `noise_multiplier`, in units of `clip`, or by the `epsilon` that the whole run may cost. `delta` is
    1 / (10 · nominal patients) if it is not given. `trains`: which parameters.
    """

    kind: Literal["patient"] = "patient"
    clip: Rate = 1.0
    noise_multiplier: Rate | None = None
    epsilon: Rate | None = None
    delta: Annotated[float, Field(gt=0, le=1e-2)] | None = None
    images_per_patient: Positive = 4
    patients_per_step: Positive = 16
    trains: Literal["all", "last-stage", "head"] = "all"

    def __post_init__(self) -> None:
        _require_one_noise(self)


@checked(frozen=True, config=_STRICT)
class ImagePrivacy:
    """Differential privacy of each image; a patient with several pays for all of them, and that ε is always shown.

    As PatientPrivacy, with the image for the patient: about `images_per_step` images a step, of at most
    `images_per_patient` each; `epsilon` is an image's.
    """

    kind: Literal["image"] = "image"
    clip: Rate = 1.0
    noise_multiplier: Rate | None = None
    epsilon: Rate | None = None
    delta: Annotated[float, Field(gt=0, le=1e-2)] | None = None
    images_per_patient: Positive = 4
    images_per_step: Positive = 48
    trains: Literal["all", "last-stage", "head"] = "all"

    def __post_init__(self) -> None:
        _require_one_noise(self)


@checked(frozen=True, config=_STRICT)
class HospitalPrivacy:
    """Noise at the server that hides whether a whole hospital took part; for federations of 50 training sites or more.

    Each site's update is clipped to the norm `clip` and counts the same; patients are hidden from the other hospitals,
    not from the server.
    """

    kind: Literal["hospital"] = "hospital"
    clip: Rate = 1.0
    noise_multiplier: Rate | None = None
    epsilon: Rate | None = None
    delta: Annotated[float, Field(gt=0, le=1e-2)] | None = None

    def __post_init__(self) -> None:
        _require_one_noise(self)


def _require_one_noise(privacy: PatientPrivacy | ImagePrivacy | HospitalPrivacy) -> None:
    if (privacy.noise_multiplier is None) == (privacy.epsilon is None):
        raise ValueError("say how much noise: either noise_multiplier or epsilon")


Privacy = Annotated[NoPrivacy | PatientPrivacy | ImagePrivacy | HospitalPrivacy, Field(discriminator="kind")]


@checked(frozen=True, config=_STRICT)
class Evaluation:
    """When sites evaluate, which round's model is kept, and how numbers are made from scores.

    `every`: rounds between evaluations; `select`: the last model or the one with the lowest loss on the training
    centers' val patients; `sensitivity`: where the threshold is locked; `flip`: scores are the mean over the image and
    its mirror; `zooms`: and over the crop magnified by these factors; `draws`: bootstrap draws of a contrast; `looks`:
    how often held-out results of these data were seen before, which the report prints; `secure`: what is summed over
    sites is summed under masks, so that the server sees totals alone (three training sites or more); `repair`: what
    centers that did not train can mend without labels is measured beside the results, never instead of them.
    """

    every: Positive = 1
    select: Literal["best", "last"] = "last"
    sensitivity: Annotated[float, Field(gt=0, lt=1)] = 0.90
    flip: bool = True
    zooms: Annotated[tuple[Rate, ...], Field(min_length=1)] = (1.0,)
    draws: Positive = 2000
    looks: Annotated[int, Field(ge=0)] = 0
    secure: bool = False
    repair: bool = True


@checked(frozen=True, config=_STRICT)
class Comparison:
    """What `simulation compare` runs."""

    arms: tuple[Literal["federated", "pooled", "local", "ensemble"], ...] = ("federated", "pooled", "local", "ensemble")
    protocols: tuple[Literal["in-federation", "leave-one-center-out"], ...] = ("in-federation", "leave-one-center-out")
    seeds: Positive = 1
    workers: Positive = 1
    pictures: Annotated[int, Field(ge=0)] = 6


@checked(frozen=True, config=_STRICT)
class Deadlines:
    """How long the server waits, in seconds: for the sites to appear, and for the replies of one message."""

    gather: Rate = 120.0
    reply: Rate = 3600.0


@checked(frozen=True, config=_STRICT)
class Experiment:
    """One experiment: what is asked, of which sites, and how.

    `held_out` names sites that only evaluate in this run, besides those whose own role is held-out. Under the protocol
    `leave-one-center-out` the training sites give their test patients to training as well.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    task: Task
    sources: tuple[Source, ...] = ()
    sites: tuple[SiteAt, ...] = ()
    held_out: tuple[str, ...] = ()
    protocol: Literal["in-federation", "leave-one-center-out"] = "in-federation"
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Positive = 1
    crop: Crop = field(default_factory=Crop)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=lambda: Training(epochs=10))
    strategy: Annotated[FedAvg | FedProx, Field(discriminator="kind")] = field(default_factory=FedAvg)
    privacy: Privacy = field(default_factory=NoPrivacy)
    evaluation: Evaluation = field(default_factory=Evaluation)
    comparison: Comparison = field(default_factory=Comparison)
    deadlines: Deadlines = field(default_factory=Deadlines)

    def __post_init__(self) -> None:
        if isinstance(self.privacy, PatientPrivacy | ImagePrivacy):
            _require_apart(self.model, self.training)


def _require_apart(model: Model, training: Training) -> None:
    why = why_not_apart(
        batch_norm=model.norm == "batch",
        dropout=model.dropout > 0,
        class_weights=training.class_weights,
        full_batch=training.full_batch,
    )
    if why is not None:
        raise ValueError(why)


def load_experiment(path: Path) -> Experiment:
    """Read an experiment's TOML file; BadInput with one line where it cannot be read or is not what the schema asks."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; give an experiment such as configs/experiments/demo.toml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({type(error).__name__}); give a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: not valid TOML: {error}") from None
    return parse(Experiment, table, where=path.name)
