"""The results of evaluations, and the keys under which metrics.json and comparison.json hold them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from fsframework.core.components import MetricInfo
from fsframework.core.errors import UserError

METHOD, COPY, COPY_SOURCE, UNREFINED = "method", "copy-target", "copy-source", "without-refiner"
AGAIN = "measure again, for a run by `fsf run RECIPE --resume`"


@dataclass(frozen=True)
class Estimate:
    """A mean over pairs with its 95 % interval, or one number of all pairs. None where it cannot be said."""

    value: float | None
    low: float | None = None
    high: float | None = None
    per_pair: bool = True  # a mean over pairs, so that JSON has its interval, too


class Difference(NamedTuple):
    """The mean difference of two methods on the same pairs, with its 95 % interval. None where it cannot be said."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def is_told(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Cost:
    """What swapping took."""

    seconds_a_swap: float
    peak_memory_gb: float | None


@dataclass(frozen=True)
class Failure:
    """Why pairs failed."""

    what: str  # what it means that a pair failed
    target_fails_too: int  # pairs in which also the target's own picture fails


@dataclass(frozen=True)
class BenchmarkResult:
    """What one benchmark measured of the method and the baselines."""

    metrics: dict[str, MetricInfo]
    estimates: dict[str, dict[str, Estimate]]  # by baseline, the method first, and metric
    failures: dict[str, int]  # by baseline: pairs in which a value is missing
    compared: int | None = None  # pairs that the method and all baselines solved
    own_network: bool = False  # it measures with a network that the method was trained against
    why: Failure | None = None
    weights: str | None = None  # hash of its networks


@dataclass(frozen=True)
class Metrics:
    """What metrics.json holds; benchmarks/README.md describes it."""

    method: str  # the recipe's name
    pairs: int
    benchmarks: dict[str, BenchmarkResult]  # by heading
    seen_people: bool = False  # the test pictures show people of the training
    weights: str | None = None  # hash of the method's networks
    cost: Cost | None = None
    protocol: dict[str, Any] | None = None  # `Protocol.described`

    @property
    def baselines(self) -> list[str]:
        """The names of what was measured beside the method."""
        first = next(iter(self.benchmarks.values()), None)
        return [] if first is None else [name for name in first.estimates if name != METHOD]

    @property
    def own_networks(self) -> list[str]:
        """The headings of benchmarks that measure with a network that the method was trained against."""
        return [label for label, result in self.benchmarks.items() if result.own_network]

    def to_json(self) -> dict[str, Any]:
        """Return what metrics.json holds."""
        results = self.benchmarks
        found: dict[str, Any] = {
            "method": self.method,
            "benchmarks": self._numbers(METHOD),
            "baselines": {name: self._numbers(name) for name in self.baselines},
            "pairs": self.pairs,
            "seen_people": self.seen_people,
            "failures": {label: dict(result.failures) for label, result in results.items()},
            "why": {label: vars(result.why).copy() for label, result in results.items() if result.why},
            "compared": {label: result.compared for label, result in results.items()},
            "own_network": self.own_networks,
            "metrics": {
                label: {key: info._asdict() for key, info in result.metrics.items()}
                for label, result in results.items()
            },
            "weights": {METHOD: self.weights} | {label: result.weights for label, result in results.items()},
        }
        if self.cost is not None:
            found["cost"] = vars(self.cost).copy()
        return found if self.protocol is None else found | {"protocol": self.protocol}

    def _numbers(self, baseline: str) -> dict[str, dict[str, float | None]]:
        """Return by heading the numbers of one baseline: KEY, and where there is an interval KEY_low and KEY_high."""
        return {label: _flat(result.estimates[baseline]) for label, result in self.benchmarks.items()}

    @classmethod
    def from_json(cls, found: Any, place: str) -> Self:
        """Return what `to_json` wrote.

        Raises
        ------
        UserError
            It is something else; `place` stands before it.
        """
        if not isinstance(found, dict):
            raise UserError(f"{place}: holds no metrics; {AGAIN}")
        if "figures" in found:
            raise UserError(f"{place}: the key figures is called metrics now; rename it, or {AGAIN}")
        try:
            return cls._read(found)
        except KeyError as error:
            raise UserError(f"{place}: holds no {error}; {AGAIN}") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(f"{place}: holds no metrics: {error}; {AGAIN}") from error

    @classmethod
    def _read(cls, found: dict[str, Any]) -> Self:
        weights, why, compared = (found.get(key, {}) for key in ("weights", "why", "compared"))
        numbers = {METHOD: found["benchmarks"]} | found["baselines"]
        benchmarks = {}
        for label in found["benchmarks"]:
            metrics = {key: _info(**about) for key, about in found["metrics"][label].items()}
            benchmarks[label] = BenchmarkResult(
                metrics=metrics,
                estimates={name: {key: _estimate(of[label], key) for key in metrics} for name, of in numbers.items()},
                failures={name: int(count) for name, count in found["failures"][label].items()},
                compared=compared.get(label),
                own_network=label in found["own_network"],
                why=Failure(**why[label]) if label in why else None,
                weights=weights.get(label),
            )
        cost = Cost(**found["cost"]) if "cost" in found else None
        return cls(
            method=found["method"],
            pairs=int(found["pairs"]),
            benchmarks=benchmarks,
            seen_people=bool(found.get("seen_people")),
            weights=weights.get(METHOD),
            cost=cost,
            protocol=found.get("protocol"),
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each benchmark, baseline and metric, as `to_pandas` has them."""
        for label, result in self.benchmarks.items():
            for name, estimates in result.estimates.items():
                for key, each in estimates.items():
                    about = {"unit": result.metrics[key].unit, "better": result.metrics[key].better}
                    numbers = {"value": each.value, "low": each.low, "high": each.high}
                    yield {"benchmark": label, "baseline": name, "metric": key, **numbers, **about}

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` of `rows`. Raises UserError if pandas is not installed."""
        return _frame(list(self.rows()))


@dataclass(frozen=True)
class MethodResult:
    """One method of a comparison."""

    name: str
    model: str  # what was loaded
    recipe_sha256: str
    size: int
    parameters: int | None  # of all networks; None where an ONNX file holds them
    seconds: float  # of one swap of one aligned crop
    metrics: Metrics
    from_first: list[dict[str, Difference]] | None = None  # by benchmark in order and metric; None: not measured

    def to_json(self) -> dict[str, Any]:
        """Return what comparison.json holds of a method."""
        found = vars(self) | {"metrics": self.metrics.to_json()}
        del found["from_first"]
        if self.from_first is not None:
            found["from_first"] = [
                {key: {"difference": each.value, "low": each.low, "high": each.high} for key, each in metrics.items()}
                for metrics in self.from_first
            ]
        return found

    @classmethod
    def from_json(cls, found: dict[str, Any], place: str) -> Self:
        """Return what `to_json` wrote. Raises UserError as `Metrics.from_json`."""
        apart = found.get("from_first")
        if apart is not None:
            apart = [
                {key: Difference(each["difference"], each["low"], each["high"]) for key, each in metrics.items()}
                for metrics in apart
            ]
        metrics = Metrics.from_json(found["metrics"], place)
        return cls(**found | {"metrics": metrics, "from_first": apart})


@dataclass(frozen=True)
class Comparison:
    """Several methods on the same pairs; the first one's recipe says how they are measured."""

    methods: list[MethodResult]
    pairs: int
    evaluation: dict[str, Any]
    manifest: dict[str, Any]
    protocol: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what comparison.json holds, but for the command and the date."""
        return {
            "methods": [method.to_json() for method in self.methods],
            "pairs": self.pairs,
            "evaluation": self.evaluation,
            **({"protocol": self.protocol} if self.protocol else {}),
            "manifest": self.manifest,
        }

    @classmethod
    def from_json(cls, found: dict[str, Any], place: str) -> Self:
        """Return what `to_json` wrote. Raises UserError, with `place` before it, if it is something else."""
        try:
            methods = [MethodResult.from_json(method, place) for method in found["methods"]]
            return cls(methods, found["pairs"], found["evaluation"], found["manifest"], found.get("protocol"))
        except KeyError as error:
            raise UserError(f"{place}: holds no {error}; compare again") from error
        except (AttributeError, TypeError) as error:
            raise UserError(f"{place}: holds no comparison: {error}; compare again") from error

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame`: the rows of each method's metrics, with its name in front."""
        return _frame([{"method": method.name, **row} for method in self.methods for row in method.metrics.rows()])


def _flat(estimates: dict[str, Estimate]) -> dict[str, float | None]:
    flat: dict[str, float | None] = {}
    for key, each in estimates.items():
        flat[key] = each.value
        if each.per_pair:
            flat |= {f"{key}_low": each.low, f"{key}_high": each.high}
    return flat


def _estimate(numbers: dict[str, Any], key: str) -> Estimate:
    value, low, high = (_number(numbers.get(name)) for name in (key, f"{key}_low", f"{key}_high"))
    return Estimate(value, low, high, per_pair=f"{key}_low" in numbers)


def _number(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError(f"{value!r} is no number")
    return value


def _info(unit: str, better: Any, meaning: str) -> MetricInfo:
    if better not in ("higher", "lower"):
        raise ValueError(f"better is {better!r}")
    return MetricInfo(unit, better, meaning)


def _frame(rows: list[dict[str, Any]]) -> Any:
    try:
        import pandas  # takes long to import, and only tables in notebooks need it
    except ImportError:
        advice = "try: pip install 'fsframework[pandas]'"
        raise UserError(f"to_pandas: pandas is not installed; {advice}") from None
    return pandas.DataFrame(rows)
