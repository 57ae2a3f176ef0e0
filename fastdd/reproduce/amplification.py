"""What a bias in the data costs, as bars: accuracies on two rows of a table, beside each other."""

from collections.abc import Sequence

from fastdd.report import charts
from fastdd.reproduce.comparison import TITLES, Comparison
from fastdd.reproduce.recipes import Table


def bars(table: Table, found: Sequence[Comparison]) -> list[tuple[str, str]]:
    """A chart (title, SVG) of every difference of rows and figure: a column a pair of bars, that of the row and of the
    one that it is compared with; none where the table has no differences, or their cells are not done."""
    cells = {(one.row, one.column, one.figure): one for one in found}
    pictures = []
    for row, of, less in dict.fromkeys((one.row, one.of, one.less) for one in table.differences):
        for figure in table.figures:
            columns = [one.column for one in table.differences if (one.row, one.of, one.less) == (row, of, less)]
            groups = []
            for column in columns:
                pair = [cells.get((name, column, figure)) for name in (of, less)]
                if all(one is not None and one.ours is not None for one in pair):
                    groups.append((column, [(one.ours, one.interval) for one in pair]))
            if groups:
                several = any(one.distillations > 1 for one in found)
                over = "distillations, of whole sets over networks" if several else "networks"
                title = f"{row}: {TITLES[figure]}, with 95 % intervals over {over}"
                pictures.append((title, charts.bars(groups, (of, less), y=f"{TITLES[figure]}, %")))
    return pictures
