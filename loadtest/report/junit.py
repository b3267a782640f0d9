"""JUnit XML, as CI systems read it: a suite of cases, each passed, failed, or skipped.

There is no standard; these are the elements and attributes that Jenkins' schema (xunit plugin, junit-10.xsd) and
GitLab's and GitHub's readers share.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from loadtest.report.markdown import visible


class Result(enum.Enum):
    """How a case came out."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Case:
    """One case: its name, the group that it is shown in, how it came out, and what is to be said of it."""

    name: str
    group: str
    result: Result
    says: str


def document(suite: str, cases: Sequence[Case], properties: Mapping[str, str]) -> bytes:
    """A suite as XML (UTF-8). Text is shown on one line, without characters that XML cannot hold."""
    failed, skipped = (sum(one.result is result for one in cases) for result in (Result.FAILED, Result.SKIPPED))
    counts = {"name": visible(suite), "tests": str(len(cases)), "failures": str(failed), "errors": "0", "time": "0"}
    root = ElementTree.Element("testsuites", counts)
    made = ElementTree.SubElement(root, "testsuite", {**counts, "skipped": str(skipped)})
    listed = ElementTree.SubElement(made, "properties")
    for name, value in properties.items():
        ElementTree.SubElement(listed, "property", name=name, value=visible(value))
    for one in cases:
        case = ElementTree.SubElement(made, "testcase", name=visible(one.name), classname=visible(one.group), time="0")
        says = visible(one.says)
        if one.result is Result.FAILED:
            ElementTree.SubElement(case, "failure", message=says, type="worse").text = says
        elif one.result is Result.SKIPPED:
            ElementTree.SubElement(case, "skipped", message=says)
        else:
            ElementTree.SubElement(case, "system-out").text = says
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"
