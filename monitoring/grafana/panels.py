"""The kinds of panel that the dashboards are made of: each with a unit, a description and thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from grafana_foundation_sdk.builders import common, dashboard, heatmap, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders import prometheus as prometheus_query
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    DataSourceRef,
    GraphThresholdsStyleMode,
    HeatmapCellLayout,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    SortOrder,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DynamicConfigValue,
    FieldColorModeId,
    MatcherConfig,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from monitoring.grafana.measures import Levels, Measure
from monitoring.grafana.selection import Query, WatchedServer

DATA_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHT = 7

Panel = timeseries.Panel | stat.Panel | statetimeline.Panel | heatmap.Panel


def graph(
    title: str,
    measure: Measure,
    queries: Sequence[Query],
    *,
    width: int = 12,
    servers: Sequence[WatchedServer] = (),
    maximum: float | None = None,
) -> timeseries.Panel:
    """Lines over time, from zero, with a table of last, mean and largest values. `servers`: whose lines have their own
    colour and lead to their dashboard."""
    panel = (
        timeseries.Panel()
        .min(0)
        .line_width(1)
        .fill_opacity(8)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "mean", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .thresholds_style(
            common.GraphThresholdsStyleConfig().mode(
                GraphThresholdsStyleMode.DASHED if measure.levels.line else GraphThresholdsStyleMode.OFF
            )
        )
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    )
    if maximum is not None:
        panel.max(maximum)
    for server in servers:
        color = DynamicConfigValue("color", {"mode": "shades", "fixedColor": server.color})
        panel.with_override(_of(server), [color, DynamicConfigValue("links", [server.link])])
    return _finished(panel, title, measure, queries, width)


def number(
    title: str,
    measure: Measure,
    queries: Sequence[Query],
    *,
    width: int = 6,
    servers: Sequence[WatchedServer] = (),
    words: Mapping[str, tuple[str, str]] | None = None,
) -> stat.Panel:
    """Last values, large, with a line of how they came about. `servers`: whose values lead to their dashboard; `words`:
    value to (text, colour) shown instead."""
    panel = (
        stat.Panel()
        .graph_mode(BigValueGraphMode.NONE if words else BigValueGraphMode.AREA)
        .color_mode(BigValueColorMode.VALUE)
        .text_mode(BigValueTextMode.VALUE_AND_NAME)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .no_value("-")
    )
    if words:
        panel.mappings([_mapping(words)])
    for server in servers:
        panel.with_override(_of(server), [DynamicConfigValue("links", [server.link])])
    return _finished(panel, title, measure, queries, width)


def states(
    title: str,
    measure: Measure,
    queries: Sequence[Query],
    *,
    words: Mapping[str, tuple[str, str]],
    width: int = 12,
) -> statetimeline.Panel:
    """Bands of time in which a value stayed the same. `words`: value to (text, colour) shown instead."""
    panel = (
        statetimeline.Panel()
        .merge_values(True)
        .show_value(VisibilityMode.NEVER)
        .mappings([_mapping(words)])
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    return _finished(panel, title, measure, queries, width)


def heat_map(title: str, measure: Measure, query: Query, *, width: int = 12) -> heatmap.Panel:
    """How often each bucket of a histogram was hit, over time; the buckets' bounds are on the y axis."""
    panel = (
        heatmap.Panel()
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").exponent(0.5).steps(64))
        .y_axis(heatmap.YAxisConfig().unit(measure.unit))
        .rows_frame(heatmap.RowsHeatmapOptions().layout(HeatmapCellLayout.LE))
        .cell_values(heatmap.CellValues().unit("reqps"))
        .filter_values(heatmap.FilterValueRange().le(1e-9))  # an empty bucket has no cell
        .tooltip(heatmap.HeatmapTooltip().mode(TooltipDisplayMode.SINGLE).y_histogram(True).show_color_scale(True))
        .scale_distribution(common.ScaleDistributionConfig().type(ScaleDistribution.LINEAR))
    )
    return _finished(panel, title, measure, [query], width, PromQueryFormat.HEATMAP)


def _of(server: WatchedServer) -> MatcherConfig:
    """The series of a server, whose legend begins with its name."""
    return MatcherConfig("byRegexp", f"/^({server.pattern})/")


AnyPanel = TypeVar("AnyPanel", timeseries.Panel, stat.Panel, statetimeline.Panel, heatmap.Panel)


def _finished(
    panel: AnyPanel,
    title: str,
    measure: Measure,
    queries: Sequence[Query],
    width: int,
    form: PromQueryFormat = PromQueryFormat.TIME_SERIES,
) -> AnyPanel:
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        panel.with_target(
            prometheus_query.Dataquery()
            .ref_id(letter)
            .datasource(DATA_SOURCE)
            .expr(query.expression)
            .legend_format(query.legend)
            .format(form)
            .range()
        )
    finished: AnyPanel = (
        panel.title(title)
        .description(measure.description)
        .datasource(DATA_SOURCE)
        .unit(measure.unit)
        .thresholds(_thresholds(measure.levels))
        .span(width)
        .height(HEIGHT)
    )
    return finished


def _thresholds(levels: Levels) -> dashboard.ThresholdsConfig:
    steps = [Threshold(None, levels.base), *(Threshold(value, color) for value, color in levels.steps)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _mapping(words: Mapping[str, tuple[str, str]]) -> ValueMap:
    results = {
        value: ValueMappingResult(text=text, color=color, index=index)
        for index, (value, (text, color)) in enumerate(words.items())
    }
    return ValueMap(results)
