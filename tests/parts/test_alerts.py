"""The alerts fire when they should and not otherwise; rules and dashboard use real metrics."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifest_checks import (
    ALERTS,
    ROOT,
    alert_rules,
    build,
    known_metrics,
    metrics_of,
    named,
    panels,
)

pytestmark = pytest.mark.manifests

CASES = sorted((ALERTS.parent / "tests").glob("*.yaml"))
RULES = {rule["alert"]: rule for rule in alert_rules()}


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool: apt-get install prometheus")
    return found


def promtool_says(promtool: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [promtool, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The PrometheusRule's groups as the file that Prometheus reads."""
    spec = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["spec"]
    file = tmp_path_factory.mktemp("rules") / "rules.yaml"
    file.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return file


def test_rules_are_valid(promtool: str, rules: Path) -> None:
    said = promtool_says(promtool, "check", "rules", rules)
    assert f"{len(RULES)} rules found" in said


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_rules_fire_and_stay_silent(promtool: str, rules: Path, cases: Path) -> None:
    beside = rules.with_name(cases.name)
    shutil.copyfile(cases, beside)
    promtool_says(promtool, "test", "rules", beside)


def checks() -> list[dict[str, Any]]:
    """Every alert's check in every case."""
    files = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in CASES)
    return [check for file in files for case in file["tests"] for check in case["alert_rule_test"]]


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    fires = {check["alertname"] for check in checks() if check["exp_alerts"]}
    silent = {check["alertname"] for check in checks() if not check["exp_alerts"]}
    assert fires == set(RULES)
    assert silent == set(RULES)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_alert_says_what_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    notes = rule["annotations"]
    assert notes["summary"].endswith(".")
    assert len(notes["description"]) > len(notes["summary"])
    page, _, anchor = notes["runbook_url"].partition("#")
    headings = re.findall(r"^## (\w+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor == rule["alert"].lower()
    assert rule["alert"] in headings


def test_the_runbook_has_no_section_too_many() -> None:
    page = (ROOT / "docs/alerts.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## (\w+)$", page, re.MULTILINE)) == set(RULES)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_alerts_use_metrics_that_exist(rule: dict[str, Any]) -> None:
    used = metrics_of(rule["expr"])
    assert used
    assert used <= known_metrics()


def test_metrics_are_told_from_the_rest_of_an_expression() -> None:
    expression = """
      histogram_quantile(0.95, sum by (namespace, le) (rate(a_bucket{x="b_total", le!~"1"}[5m])))
      > 2 * 86400 and on (pod) (max_over_time(c[8d:1h]) unless d offset 1h) or time() - e == 1
    """
    assert metrics_of(expression) == {"a_bucket", "c", "d", "e"}


def queries() -> dict[str, str]:
    """The dashboard's queries, each under its panel's title and letter."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in panels()
        for target in panel["targets"]
    }


@pytest.mark.parametrize("query", queries().values(), ids=queries())
def test_the_dashboard_uses_metrics_that_exist(query: str) -> None:
    used = metrics_of(query)
    assert used
    assert used <= known_metrics()


def test_the_dashboards_queries_are_promql(promtool: str, tmp_path: Path) -> None:
    recorded = []
    for number, query in enumerate(queries().values()):
        plain = query.replace("$__rate_interval", "5m").replace("$__range", "1d")
        recorded.append({"record": f"dashboard:{number}", "expr": plain})
    file = tmp_path / "dashboard.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert f"{len(recorded)} rules found" in promtool_says(promtool, "check", "rules", file)


def test_the_dashboard_is_found_by_grafana_and_laid_out_without_overlap() -> None:
    held = named(build("gpu"), "ConfigMap", "exsearch-dashboard")
    assert held["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert list(held["data"]) == ["exsearch.json"]
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
