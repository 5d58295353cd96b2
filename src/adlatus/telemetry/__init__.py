"""What an operator sees. Knows neither HTTP nor runs; others count, log and trace through it.

`logs` writes lines, `metrics` is the Prometheus registry of a process, `tracing` says what it did when and for whom;
`otlp` sends that to a collector, and is imported only where one is configured.
"""

from adlatus.telemetry.logs import configure_logging as configure_logging
from adlatus.telemetry.logs import log_context as log_context
from adlatus.telemetry.metrics import Metrics as Metrics
