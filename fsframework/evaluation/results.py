"""Results of evaluations, with their conversion to and from metrics.json and comparison.json."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from fsframework.core.components import MetricInfo
from fsframework.core.errors import UserError

METHOD, COPY, COPY_SOURCE, UNREFINED = "method", "copy-target", "copy-source", "without-refiner"
AGAIN = "measure again, for a run by `fsf run RECIPE --resume`"


@dataclass(frozen=True)
class Estimate:
    """A mean over pairs with its 95 % interval, or one number for all pairs. Undefined values are None."""

    value: float | None
    low: float | None = None
    high: float | None = None
    per_pair: bool = True  # whether it is a mean over pairs, whose interval JSON includes


class Difference(NamedTuple):
    """The mean paired difference of two methods, with its 95 % interval. Undefined values are None."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def is_significant(self) -> bool:
        """Return whether the interval excludes 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Cost:
    """Time and memory of swapping."""

    seconds_a_swap: float
    peak_memory_gb: float | None


@dataclass(frozen=True)
class Failure:
    """The reason of failed pairs."""

    what: str  # the meaning of a failure, from the benchmark
    target_fails_too: int  # pairs in which the unchanged target fails, too


@dataclass(frozen=True)
class BenchmarkResult:
    """Results of one benchmark for the method and the baselines."""

    metrics: dict[str, MetricInfo]
    estimates: dict[str, dict[str, Estimate]]  # by baseline, the method first, and metric
    failures: dict[str, int]  # by baseline: pairs in which a value is missing
    compared: int | None = None  # pairs on which the method and all baselines succeeded
    own_network: bool = False  # whether the method was trained against its judge network
    why: Failure | None = None
    weights: str | None = None  # hash of its networks


@dataclass(frozen=True)
class Metrics:
    """Content of metrics.json, which benchmarks/README.md describes."""

    method: str  # the recipe's name
    pairs: int
    benchmarks: dict[str, BenchmarkResult]  # by heading
    seen_people: bool = False  # whether the test images show people of the training set
    weights: str | None = None  # hash of the method's networks
    cost: Cost | None = None
    protocol: dict[str, Any] | None = None  # `Protocol.described`

    @property
    def baselines(self) -> list[str]:
        """The names of the baselines."""
        first = next(iter(self.benchmarks.values()), None)
        return [] if first is None else [name for name in first.estimates if name != METHOD]

    @property
    def own_networks(self) -> list[str]:
        """The headings of the benchmarks whose judge network took part in the training."""
        return [label for label, result in self.benchmarks.items() if result.own_network]

    def to_json(self) -> dict[str, Any]:
        """Return the content of metrics.json."""
        results = self.benchmarks
        content: dict[str, Any] = {
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
            content["cost"] = vars(self.cost).copy()
        return content if self.protocol is None else content | {"protocol": self.protocol}

    def _numbers(self, baseline: str) -> dict[str, dict[str, float | None]]:
        """Return the numbers of one baseline by heading: KEY, and with an interval KEY_low and KEY_high."""
        return {label: _flat(result.estimates[baseline]) for label, result in self.benchmarks.items()}

    @classmethod
    def from_json(cls, content: Any, path: str) -> Self:
        """Return metrics from the output of `to_json`.

        Raises
        ------
        UserError
            The content is invalid; the message starts with `path`.
        """
        if not isinstance(content, dict):
            raise UserError(f"{path}: holds no metrics; {AGAIN}")
        if "figures" in content:
            raise UserError(f"{path}: the key figures is called metrics now; rename it, or {AGAIN}")
        try:
            return cls._read(content)
        except KeyError as error:
            raise UserError(f"{path}: holds no {error}; {AGAIN}") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(f"{path}: holds no metrics: {error}; {AGAIN}") from error

    @classmethod
    def _read(cls, content: dict[str, Any]) -> Self:
        weights, why, compared = (content.get(key, {}) for key in ("weights", "why", "compared"))
        numbers = {METHOD: content["benchmarks"]} | content["baselines"]
        benchmarks = {}
        for label in content["benchmarks"]:
            metrics = {key: _info(**about) for key, about in content["metrics"][label].items()}
            benchmarks[label] = BenchmarkResult(
                metrics=metrics,
                estimates={name: {key: _estimate(of[label], key) for key in metrics} for name, of in numbers.items()},
                failures={name: int(count) for name, count in content["failures"][label].items()},
                compared=compared.get(label),
                own_network=label in content["own_network"],
                why=Failure(**why[label]) if label in why else None,
                weights=weights.get(label),
            )
        cost = Cost(**content["cost"]) if "cost" in content else None
        return cls(
            method=content["method"],
            pairs=int(content["pairs"]),
            benchmarks=benchmarks,
            seen_people=bool(content.get("seen_people")),
            weights=weights.get(METHOD),
            cost=cost,
            protocol=content.get("protocol"),
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each benchmark, method or baseline, and metric: the rows of `to_pandas`."""
        for label, result in self.benchmarks.items():
            for name, estimates in result.estimates.items():
                for key, estimate in estimates.items():
                    about = {"unit": result.metrics[key].unit, "better": result.metrics[key].better}
                    numbers = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
                    yield {"benchmark": label, "baseline": name, "metric": key, **numbers, **about}

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` of `rows`. Raises UserError if pandas is not installed."""
        return _frame(list(self.rows()))


@dataclass(frozen=True)
class MethodResult:
    """One method of a comparison."""

    name: str
    model: str  # as passed to `store.load`
    recipe_sha256: str
    size: int
    parameters: int | None  # of all networks; None where an ONNX file holds them
    seconds: float  # per swap of one aligned crop
    metrics: Metrics
    from_first: list[dict[str, Difference]] | None = None  # for each benchmark in order, by metric; None: not measured

    def to_json(self) -> dict[str, Any]:
        """Return the entry of a method in comparison.json."""
        content = vars(self) | {"metrics": self.metrics.to_json()}
        del content["from_first"]
        if self.from_first is not None:
            content["from_first"] = [
                {key: {"difference": each.value, "low": each.low, "high": each.high} for key, each in metrics.items()}
                for metrics in self.from_first
            ]
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any], path: str) -> Self:
        """Return a method's result from the output of `to_json`. Raises UserError as `Metrics.from_json`."""
        differences = content.get("from_first")
        if differences is not None:
            differences = [
                {key: Difference(each["difference"], each["low"], each["high"]) for key, each in metrics.items()}
                for metrics in differences
            ]
        metrics = Metrics.from_json(content["metrics"], path)
        return cls(**content | {"metrics": metrics, "from_first": differences})


@dataclass(frozen=True)
class Comparison:
    """Results of several methods on the same pairs, measured by the evaluation of the first one's recipe."""

    methods: list[MethodResult]
    pairs: int
    evaluation: dict[str, Any]
    manifest: dict[str, Any]
    protocol: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of comparison.json, without the command and the date."""
        return {
            "methods": [method.to_json() for method in self.methods],
            "pairs": self.pairs,
            "evaluation": self.evaluation,
            **({"protocol": self.protocol} if self.protocol else {}),
            "manifest": self.manifest,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], path: str) -> Self:
        """Return a comparison from the output of `to_json`. Raises UserError, which names `path`, if it is invalid."""
        try:
            methods = [MethodResult.from_json(method, path) for method in content["methods"]]
            return cls(methods, content["pairs"], content["evaluation"], content["manifest"], content.get("protocol"))
        except KeyError as error:
            raise UserError(f"{path}: holds no {error}; compare again") from error
        except (AttributeError, TypeError) as error:
            raise UserError(f"{path}: holds no comparison: {error}; compare again") from error

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` of the metrics' rows, with the method's name as the first column."""
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
        raise TypeError(f"{value!r} is not a number")
    return value


def _info(unit: str, better: Any, meaning: str) -> MetricInfo:
    if better not in ("higher", "lower"):
        raise ValueError(f"better is {better!r}")
    return MetricInfo(unit, better, meaning)


def _frame(rows: list[dict[str, Any]]) -> Any:
    try:
        import pandas  # imported here: slow, and only data frames need it
    except ImportError:
        advice = "try: pip install 'fsframework[pandas]'"
        raise UserError(f"to_pandas: pandas is not installed; {advice}") from None
    return pandas.DataFrame(rows)
