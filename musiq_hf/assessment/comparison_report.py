# SPDX-License-Identifier: Apache-2.0
"""Reports of comparisons: means of systems within groups, differences of pairs of them, agreement with opinions."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

from ..metrics.correlation import MIN_PICTURES, OVERALL
from ..metrics.reports import Interval, quality_report
from .comparison_rows import ComparisonRow, list_metrics
from .groups import ALL, THIRDS, find_edges, find_third, name_group, name_thirds
from .significance import MIN_PAIRS, PairedDifference, paired_difference


class SystemMeans(NamedTuple):
    """Means of a system within a group.

    Attributes:
        num: Number of keys, the same for all systems of the group.
        means: Mean of each metric; infinite if a value is.
    """

    num: int
    means: Mapping[str, float]


class SystemPair(NamedTuple):
    """Difference of two systems in a metric within a group; the pairs whose values are infinite are left out.

    Attributes:
        group: Name of the group.
        first: Name of the first system.
        second: Name of the second system.
        metric: Name of the metric.
        difference: Difference on the same keys, second minus first.
    """

    group: str
    first: str
    second: str
    metric: str
    difference: PairedDifference


class Agreement(NamedTuple):
    """Agreement of a metric with opinion scores, over all files of systems that have one.

    Attributes:
        num: Number of files; those with an infinite value are left out.
        srcc: Rank correlation.
        plcc: Linear correlation.
        krcc: Rank correlation by pairs.
        srcc_interval: Bootstrap interval of the first; None if there are too few files.
    """

    num: int
    srcc: float
    plcc: float
    krcc: float
    srcc_interval: Interval | None


class Thirds(NamedTuple):
    """Thirds of a descriptor of the references.

    Attributes:
        descriptor: "si", "ti" or "cf".
        edges: Values up to which the low third and the middle one go.
        values: Value of each key that has one.
    """

    descriptor: str
    edges: tuple[float, float]
    values: Mapping[str, float]

    def list_groups(self) -> dict[str, list[str]]:
        """Return the keys of each third that has any, by its name as a group."""
        groups: dict[str, list[str]] = {third: [] for third in THIRDS}
        for key, value in self.values.items():
            groups[find_third(value, self.edges)].append(key)
        return {name_group(self.descriptor, third): keys for third, keys in groups.items() if keys}


@dataclass(frozen=True, kw_only=True)
class SystemsReport:
    """Report of a comparison of systems.

    Attributes:
        systems: Names of the systems, in their order.
        metrics: Names of the metrics that a key has; higher is better in all of them.
        signature: Signature of the values.
        num_keys: Number of keys.
        num_sound: Number of these keys on which no system has an error; the others are left out of all below.
        tables: Groups of each table by its title: that of all keys, then each column and each descriptor.
        groups: {group: {system: means}}.
        best: {group: {metric: system}} by the keys on which all systems are finite; the first of equals.
        pairs: Differences of each two systems on at least 3 keys.
        agreements: {group: {metric: agreement}}; None without opinion scores.
        thirds: Descriptors of the references by which they were grouped.
    """

    systems: tuple[str, ...]
    metrics: tuple[str, ...]
    signature: str
    num_keys: int
    num_sound: int
    tables: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, Mapping[str, SystemMeans]]
    best: Mapping[str, Mapping[str, str]]
    pairs: tuple[SystemPair, ...]
    agreements: Mapping[str, Mapping[str, Agreement]] | None
    thirds: tuple[Thirds, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as a dictionary that `json` can write; an infinite mean is None."""
        content: dict[str, Any] = {
            "groups": {
                group: {name: _write_means(own) for name, own in systems.items()}
                for group, systems in self.groups.items()
            },
            "best": self.best,
            "pairs": [pair._asdict() | pair.difference._asdict() for pair in self.pairs],
        }
        for pair in content["pairs"]:
            del pair["difference"]
        if self.agreements is not None:
            content["mos"] = {
                group: {metric: own._asdict() for metric, own in metrics.items()}
                for group, metrics in self.agreements.items()
            }
        if self.thirds:
            content["bins"] = {own.descriptor: list(own.edges) for own in self.thirds}
        return content | {"keys": self.num_keys, "sound_keys": self.num_sound, "signature": self.signature}


def _write_means(own: SystemMeans) -> dict[str, float | None]:
    return {"num": own.num, **{name: mean if math.isfinite(mean) else None for name, mean in own.means.items()}}


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """Facts that a report is made of, beside the rows.

    Attributes:
        systems: Names of the systems, in their order.
        metrics: Groups of metrics that were asked for.
        signature: Signature of the values.
        columns: Names of the columns of groups.
        opinions: Opinion score by key and system; None if there are none.
        descriptors: {descriptor: {key: value}} of references, by whose thirds keys are grouped.
    """

    systems: Sequence[str]
    metrics: Sequence[str]
    signature: str
    columns: Sequence[str] = ()
    opinions: Mapping[tuple[str, str], float] | None = None
    descriptors: Mapping[str, Mapping[str, float]] | None = None


def find_sound(rows: Iterable[ComparisonRow], systems: Sequence[str]) -> dict[str, dict[str, ComparisonRow]]:
    """Return the rows of the keys on which no system has an error or lacks a row, by key and system."""
    by_key: dict[str, dict[str, ComparisonRow]] = {}
    for row in rows:
        by_key.setdefault(row.key, {})[row.system] = row
    return {
        key: {name: own[name] for name in systems}
        for key, own in by_key.items()
        if own.keys() == set(systems) and all(row.error is None for row in own.values())
    }


def report_systems(rows: Sequence[ComparisonRow], inputs: ReportInputs) -> SystemsReport:
    """Make the report of a comparison.

    Args:
        rows: Rows of all keys and systems.
        inputs: Facts beside the rows.

    Raises:
        ValueError: If a descriptor is that of no key.
        ImportError: If SciPy is missing.
    """
    sound = find_sound(rows, inputs.systems)
    metrics = _find_metrics(sound, list_metrics(inputs.metrics))
    thirds = tuple(_split_thirds(name, values, sound) for name, values in (inputs.descriptors or {}).items())
    tables = _list_tables(sound, inputs.columns, thirds)
    members = {group: keys for groups in tables.values() for group, keys in groups.items()}
    groups = {group: _average(sound, keys, inputs.systems, metrics) for group, keys in members.items()}
    agreements = None
    if inputs.opinions is not None:
        agreements = {group: _agree(sound, keys, metrics, inputs.opinions) for group, keys in members.items()}
    return SystemsReport(
        systems=tuple(inputs.systems),
        metrics=tuple(metrics),
        signature=inputs.signature,
        num_keys=len({row.key for row in rows}),
        num_sound=len(sound),
        tables={title: tuple(own) for title, own in tables.items()},
        groups=groups,
        best={group: _find_best(sound, members[group], means) for group, means in groups.items()},
        pairs=tuple(
            pair
            for group, keys in members.items()
            for pair in _compare_pairs(group, sound, keys, inputs.systems, metrics)
        ),
        agreements=agreements,
        thirds=thirds,
    )


Sound = Mapping[str, Mapping[str, ComparisonRow]]


def _find_metrics(sound: Sound, asked: Sequence[str]) -> list[str]:
    """Return the metrics that a key has; videos have no PSNR of RGB, say."""
    rows = [row for rows in sound.values() for row in rows.values()]
    return [name for name in asked if not rows or any(getattr(row, name) is not None for row in rows)]


def _split_thirds(descriptor: str, values: Mapping[str, float], sound: Sound) -> Thirds:
    own = {key: value for key, value in values.items() if key in sound}
    if not own:
        raise ValueError(f"No reference without an error has {descriptor}, so --bins {descriptor} groups nothing.")
    return Thirds(descriptor, find_edges(own.values()), own)


def _list_tables(sound: Sound, columns: Sequence[str], thirds: Sequence[Thirds]) -> dict[str, dict[str, list[str]]]:
    """Return the keys of each group, table by table."""
    tables = {ALL: {ALL: list(sound)}}
    for index, column in enumerate(columns):
        groups: dict[str, list[str]] = {}
        for key, rows in sound.items():
            value = next(iter(rows.values())).groups[index]
            if value is not None:
                groups.setdefault(name_group(column, value), []).append(key)
        tables[column] = dict(sorted(groups.items()))
    return tables | {name_thirds(own.descriptor): own.list_groups() for own in thirds}


def _read_values(sound: Sound, keys: Sequence[str], system: str, metric: str) -> list[float]:
    """Return the values of a system, or nothing if a key has none, as PSNR of RGB of a video."""
    values = [getattr(sound[key][system], metric) for key in keys]
    return [] if None in values else values


def _average(
    sound: Sound, keys: Sequence[str], systems: Sequence[str], metrics: Sequence[str]
) -> dict[str, SystemMeans]:
    found = {}
    for system in systems:
        values = {metric: _read_values(sound, keys, system, metric) for metric in metrics}
        means = {metric: statistics.fmean(own) for metric, own in values.items() if own}
        found[system] = SystemMeans(len(keys), means)
    return found


def _find_best(sound: Sound, keys: Sequence[str], means: Mapping[str, SystemMeans]) -> dict[str, str]:
    """Return the system with the highest mean of each metric over the keys on which all systems are finite.

    A file that equals its reference would else decide for its system, against the differences. Without such keys the
    system with more infinite values is best.
    """
    metrics = next(iter(means.values())).means
    best = {}
    for metric in metrics:
        values = {system: _read_values(sound, keys, system, metric) for system in means}
        finite = [values for values in zip(*values.values(), strict=True) if all(map(math.isfinite, values))]
        shared = zip(*finite, strict=True) if finite else (map(math.isinf, own) for own in values.values())
        ranks = dict(zip(values, map(sum, shared), strict=True))
        best[metric] = max(ranks, key=ranks.__getitem__)
    return best


def _compare_pairs(
    group: str, sound: Sound, keys: Sequence[str], systems: Sequence[str], metrics: Sequence[str]
) -> Iterable[SystemPair]:
    for first, second in combinations(systems, 2):
        for metric in metrics:
            sides = (_read_values(sound, keys, system, metric) for system in (first, second))
            finite = [pair for pair in zip(*sides, strict=True) if all(map(math.isfinite, pair))]
            if len(finite) >= MIN_PAIRS:
                difference = paired_difference(*map(list, zip(*finite, strict=True)))
                yield SystemPair(group, first, second, metric, difference)


def _agree(
    sound: Sound, keys: Sequence[str], metrics: Sequence[str], opinions: Mapping[tuple[str, str], float]
) -> dict[str, Agreement]:
    """Return the agreement of each metric that enough files have."""
    found = {}
    rows = [(row, opinions[key, name]) for key in keys for name, row in sound[key].items() if (key, name) in opinions]
    for metric in metrics:
        pairs = [(getattr(row, metric), mos) for row, mos in rows]
        finite = [(value, mos) for value, mos in pairs if value is not None and math.isfinite(value)]
        if len(finite) >= MIN_PICTURES:
            report = quality_report(*map(list, zip(*finite, strict=True)))
            intervals = (report.intervals or {}).get(OVERALL)
            overall: dict[str, float] = report.overall.to_json()
            found[metric] = Agreement(
                num=len(finite),
                srcc=overall["srcc"],
                plcc=overall["plcc"],
                krcc=overall["krcc"],
                srcc_interval=None if intervals is None else intervals.srcc,
            )
    return found
