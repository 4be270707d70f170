"""What Prometheus's own reader makes of OpenMetrics on standard input: a line for each value of it."""

import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.documentation, family.name
    for sample in family.samples:
        labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
        print(family.type, f"{sample.name}{{{labels}}}", int(sample.value) if sample.value == int(sample.value)
              else "some")
