"""The first figure as part of the page: SVG whose marks carry their policy and, as titles, their values."""

import json
from xml.etree import ElementTree

from markupsafe import Markup

from uhlm_sim.analysis.figures.marks import Point, Value
from uhlm_sim.analysis.measures.intervals import RATIO
from uhlm_sim.analysis.measures.metrics import unit_of
from uhlm_sim.analysis.report.headline import in_one

REACH = "4"  # points: how near the pointer must come to a point of a line


def inline(svg: str, title: str, first: str) -> Markup:
    """Return a figure's SVG as an element for HTML, with a group of class `mark` for each marked artist.

    A bar has a `title`; so has each point of a line, in a circle that is easier to hit. Browsers show it on hover.
    Screen readers read it, once for a bar with its interval and its label. Only ids that are referred to are left.
    """
    root = ElementTree.fromstring(svg)
    kept = root.findall(".//{*}defs/*[@id]")
    seen: set[str] = set()
    for element in list(root.iter()):
        element.tag = element.tag.rpartition("}")[2]
        for name in [name for name in element.attrib if name.startswith("{")]:
            element.set(name.rpartition("}")[2], element.attrib.pop(name))
        gid = element.attrib.get("id", "") if element in kept else element.attrib.pop("id", "")
        if gid.startswith("["):
            _name(element, gid, first, seen)
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in ("metadata", "style")]:
            parent.remove(child)  # rules of a style element would hold for the whole page
    root.attrib = {
        "viewBox": root.attrib.get("viewBox", "0 0 1 1"),
        "role": "group",
        "aria-label": title,
        "style": "stroke-linejoin: round; stroke-linecap: butt",
    }
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def words(policy: str, point: Point, first: str) -> str:
    """Say what a policy has at a point: "hlm at 5 phones: ttft_s.p95 0.49 ± 0.03 s"."""
    values = [_value(Value(*value), first) for value in point.values]
    return f"{policy}{f' at {point.at}' if point.at else ''}: {', '.join(values)}"


def _value(value: Value, first: str) -> str:
    metric, *estimate = value
    text = in_one(metric, (estimate[0], estimate[1], estimate[2]))
    if metric.endswith(RATIO):
        return f"{metric.removesuffix(RATIO)}, ratio to {first} {text}"
    unit = unit_of(metric)
    return f"{metric} {text}{f' {unit}' if unit != '1' else ''}"


def _name(group: ElementTree.Element, gid: str, first: str, seen: set[str]) -> None:
    """Give a marked group its policy and its titles; those that were `seen` before aren't read again."""
    policy, points = json.loads(gid)
    group.attrib |= {"class": "mark", "data-policy": policy}
    titles = [words(policy, Point(*point), first) for point in points]
    places = [(parent, child) for parent in group.iter() for child in parent if child.tag.endswith("use")]
    if places and len(places) == len(titles):
        for (parent, place), text in zip(places, titles, strict=True):
            where = {"cx": place.get("x", ""), "cy": place.get("y", ""), "r": REACH}
            _entitle(ElementTree.SubElement(parent, "circle", where), text, seen)
    elif len(titles) == 1:
        _entitle(group, titles[0], seen)
    else:  # a band, or a line of which an axis shows only some points
        _entitle(group, policy, {policy})


def _entitle(element: ElementTree.Element, text: str, seen: set[str]) -> None:
    title = ElementTree.Element("title")
    title.text = text
    element.insert(0, title)
    if text not in seen:
        element.set("role", "img")
    seen.add(text)
