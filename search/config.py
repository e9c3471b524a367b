"""The settings of a run: frozen, saved as ``config.json``, compared when the run is resumed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from evaluators.options import OptionError
from search.objectives import SCORE
from search.ray_cluster.options import CLUSTER_FIELDS
from search.space_options import SMALLEST, trace_arguments

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CONFIG = "config.json"

#: Settings that may change when a run is resumed.
EXTENDABLE = ("budget", "final", *CLUSTER_FIELDS)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that decides what a run does; as on the command line unless noted.

    Attributes:
        task: Name, or ``path/to/file.py:function``.
        model: Network of the task; its default when ``None``.
        weights: File with the dense network's weights.
        data_root: Folder of data sets.
        holdout: What search scores on; the task's own split when ``None``.
        budget: Candidates on rung 1, or a time.
        max_rung: Highest rung that the run uses.
        macs: Window of MACs.
        divisor: Kept widths are its multiples; the task's own when ``None``.
        smallest: Share of its units that every group keeps.
        include: Patterns of groups that may be pruned; all when empty.
        exclude: Patterns of groups that stay whole.
        ignore: Patterns of modules that stay whole.
        divisor_of: ``PATTERN=N``: divisors of groups with such names.
        smallest_of: ``PATTERN=SHARE``: shares that groups with such names keep.
        criteria: Allowed criteria, resolved.
        statistics_memory: Memory for the layers' second moments.
        criterion_per_group: Whether each group has a criterion of its own.
        sampler: Who proposes.
        final: Points that are trained to the end.
        final_seeds: Training seeds of each final; the task's own when ``None``.
        seed: Of everything that is random.
        device: Where to compute; the best there is when ``None``.
        storage: Database of the record, without any password; the journal in the run folder when ``None``.
        epochs: Of full training; the task's own when ``None``.
        lr: Peak learning rate of full training; the task's own when ``None``.
        batch_size: Images per step; the task's own when ``None``.
        executor: ``local`` or ``ray``. It and what follows say where evaluations run, not what they are.
        address: Of a Ray cluster.
        resources: ``[RUNG:]gpu=G,cpu=C`` of one evaluation.
        workers: Evaluations at a time, at most; as many as there is room for when ``None``.
        storage_path: Folder that all nodes share; inside the run folder when ``None``.
        timeout: Time after which an evaluation is stopped; never when ``None``.
        retries: How often an evaluation starts again when its worker died.
        loggers: Whom Tune tells.
        run_name: Not an option: name of the run in a database, wherever its folder moves.
        run_id: Not an option: tells runs apart that share ``storage_path``.
        objectives: The metric's name, or ``score``, and costs.
        latency: Backends that time the front; the first one is the objective's.
        latency_batch: Examples at a time while networks are timed.
        latency_threads: CPU threads then; those of ``precision`` when ``None``.
        dense_latency_ms: Not an option: where latency is an objective, what the dense network took once.
        driver_precision: Not an option: how the driver trains the dense network and scores units; it may have
            no GPU where workers have some.
        num_targets: Not an option: length of the opening's MACs ladder, fixed when the run starts.
        population: Not an option: population of samplers that have one, fixed when the run starts.
        fingerprint: Not an option: hash of the dense network as it was loaded.
        precision: Not an option: number format, layout and threads, reused when the run is resumed.
        recipe: Not an option: how the task trains, for the reader.
        versions: Not an option: of the libraries that the run started with; a change only warns.
        machine: Not an option: that the run was started on, for the reader.
    """

    task: str = "digits"
    model: str | None = None
    weights: str | None = None
    data_root: str = "data"
    holdout: str | None = None
    budget: str = "40"
    max_rung: int = 3
    macs: str = "20%:90%"
    divisor: int | None = None
    smallest: float = SMALLEST
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    divisor_of: tuple[str, ...] = ()
    smallest_of: tuple[str, ...] = ()
    criteria: tuple[str, ...] = ()
    statistics_memory: str = "4GiB"
    criterion_per_group: bool = False
    sampler: str = "front"
    final: int = 5
    final_seeds: int | None = None
    seed: int = 0
    device: str | None = None
    storage: str | None = None
    epochs: float | None = None
    lr: float | None = None
    batch_size: int | None = None
    executor: str = "local"
    address: str | None = None
    resources: tuple[str, ...] = ()
    workers: int | None = None
    storage_path: str | None = None
    timeout: str | None = None
    retries: int = 3
    loggers: tuple[str, ...] = ()
    objectives: tuple[str, ...] = (SCORE, "macs")
    latency: tuple[str, ...] = ("eager",)
    latency_batch: int = 1
    latency_threads: int | None = None
    dense_latency_ms: float | None = None
    run_name: str = ""
    run_id: str = ""
    driver_precision: dict[str, Any] = field(default_factory=dict)
    num_targets: int = 0
    population: int = 0
    fingerprint: str = ""
    precision: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)

    @property
    def training_seeds(self) -> range:
        """Seeds with which the trainings of rung 3 are repeated."""
        return range(self.seed, self.seed + (self.final_seeds or 1))

    def trace_arguments(self, *, divisor: int) -> dict[str, Any]:
        """Keyword arguments of :func:`spaces.trace`.

        Args:
            divisor: Of the task, where no option names one.

        Raises:
            OptionError: If one of the options that narrow the space breaks its rule.
        """
        return trace_arguments(
            divisor=divisor if self.divisor is None else self.divisor,
            smallest=self.smallest,
            include=self.include,
            exclude=self.exclude,
            ignore=self.ignore,
            divisor_of=self.divisor_of,
            smallest_of=self.smallest_of,
        )

    def save(self, folder: Path) -> None:
        """Write ``config.json``, whole or not at all."""
        partial = folder / f"{CONFIG}.partial"
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n")
        partial.replace(folder / CONFIG)

    @classmethod
    def load(cls, folder: Path) -> RunConfig:
        """Read the settings of the run in ``folder``.

        Raises:
            OptionError: If there is no run.
        """
        try:
            raw: dict[str, Any] = json.loads((folder / CONFIG).read_text())
            raw |= {name: tuple(raw[name]) for name in ("include", "exclude", "criteria")}
            # Runs of version 0.1 have none of these.
            later = ("ignore", "divisor_of", "smallest_of", "resources", "loggers")
            raw |= {name: tuple(raw.get(name, ())) for name in later}
            raw |= {name: tuple(raw[name]) for name in ("objectives", "latency") if name in raw}
            return cls(**raw)
        except FileNotFoundError:
            raise OptionError(
                "resume", folder, "there is no run in this folder; start one without --resume."
            ) from None
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise OptionError("resume", folder, f"{CONFIG} is not that of a run ({error}).") from error


#: Fields that are no options.
DERIVED = (
    "run_name",
    "run_id",
    "dense_latency_ms",
    "driver_precision",
    "num_targets",
    "population",
    "fingerprint",
    "precision",
    "recipe",
    "versions",
    "machine",
)

#: Options whose names are not those of their fields.
_OPTION_NAMES = {"criteria": "criterion", "loggers": "logger"}


def option_name(name: str) -> str:
    """The command line's name of a field, without dashes in front."""
    return _OPTION_NAMES.get(name, name.replace("_", "-"))


#: Settings that are one option with commas between its names.
_ONE_OPTION = ("criteria", "objectives", "latency")


def repeat_arguments(config: Mapping[str, object]) -> Iterator[tuple[str, ...]]:
    """Every setting that has a value as the command line takes it: an option, with its value if it has one.

    Args:
        config: ``config.json``.
    """
    for name, setting in config.items():
        if name in DERIVED or setting is None or setting is False or setting == "":
            continue
        values = setting if isinstance(setting, list) else [setting]
        if name in _ONE_OPTION and isinstance(setting, list):
            values = [",".join(map(str, values)) or "none"]
        option = f"--{option_name(name)}"
        for value in values:
            yield (option,) if value is True else (option, str(value))


def check_equal(stored: RunConfig, given: dict[str, Any]) -> None:
    """Compare the options that were given with those that the run was started with.

    Args:
        stored: The run's settings.
        given: Fields that the user set, with their values.

    Raises:
        OptionError: If they differ in more than :data:`EXTENDABLE`; each difference is named.
    """
    names = [f.name for f in fields(RunConfig) if f.name in given and f.name not in EXTENDABLE]
    different = [name for name in names if not _equal(name, given[name], getattr(stored, name))]
    if different:
        changes = ", ".join(
            f"--{option_name(name)} was {_shown(getattr(stored, name))}, is {_shown(given[name])}"
            for name in different
        )
        raise OptionError(
            "resume",
            "",
            f"settings must be those of the run except --budget, --final and where it runs: {changes}.",
        )


def _equal(name: str, given: object, stored: object) -> bool:
    if name == "objectives" and isinstance(given, tuple) and isinstance(stored, tuple):
        # What the metric is called was not known before the task was loaded.
        return given[1:] == stored[1:] and (given[0] == stored[0] or SCORE in (given[0], stored[0]))
    return given == stored


def _shown(value: object) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
