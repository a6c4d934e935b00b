"""Medians and spreads of samples."""

import statistics

from .svg import number

GIB = 1 << 30


class Row:
    """The samples of a row, asked for by tool and whatever else they say about themselves."""

    def __init__(self, row):
        self.row = row
        self.samples = row.get("samples", [])

    def select(self, **wanted):
        return [sample for sample in self.samples if all(sample.get(name) == value for name, value in wanted.items())]

    def values(self, figure, **wanted):
        values = [figure(sample) for sample in self.select(**wanted)]
        if not values:
            raise KeyError(f"there is no sample for {wanted}")
        return values

    def median(self, figure, **wanted):
        return statistics.median(self.values(figure, **wanted))

    def spread(self, figure, **wanted):
        values = self.values(figure, **wanted)
        return min(values), max(values)

    def text(self, figure, **wanted):
        """`1.23 (1.20 to 1.31)`"""
        low, high = self.spread(figure, **wanted)
        median = number(self.median(figure, **wanted))
        return median if number(low) == number(high) else f"{median} ({number(low)} to {number(high)})"

    def tools(self):
        """In the order in which they came."""
        return list(dict.fromkeys(sample["tool"] for sample in self.samples))


def cpu_per_gib(sample):
    return sample["cpu_s"] * GIB / sample["bytes"]


def wall_per_gib(sample):
    return sample["wall_s"] * GIB / sample["bytes"]


def cpu_per_file_us(sample):
    return sample["cpu_s"] * 1e6 / sample["files"]


def files_per_s(sample):
    return sample["files"] / sample["wall_s"]


def files_per_transfer_s(sample):
    """Counted from the first request to the last answer."""
    return sample["files"] / sample["transfer_s"]


def field(name, factor=1):
    return lambda sample: sample[name] * factor
