"""What a run or a measurement gives: figures, checks, configuration; as JSON and as text."""
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from host.boot import Settings


@dataclass
class Options:
    """How to run: package, worker threads or processes, recordings, progress."""

    package: str = "mtia450"
    threads: int = 2
    processes: int = 0
    waves: Path | None = None
    trace: Path | None = None
    progress: object = None
    settings: Settings = field(default_factory=Settings)

    def step(self, done, total, text):
        if self.progress:
            self.progress(done, total, text)


@dataclass
class Outcome:
    """Metrics and checks of one run; exit status 0 only if every check holds."""

    name: str
    package: str
    metrics: dict = field(default_factory=dict)
    checks: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)

    @property
    def passed(self):
        return all(self.checks.values())

    def json(self):
        """Return the JSON object described in the documentation."""
        return {"name": self.name, "package": self.package,
                "metrics": {k: float(f"{float(v):.7g}") for k, v in self.metrics.items()},
                "checks": {k: bool(v) for k, v in self.checks.items()}, "config": self.config}

    def write(self, target):
        """Write JSON to a file, or to standard output for ``-``."""
        text = json.dumps(self.json(), indent=2) + "\n"
        if str(target) == "-":
            sys.stdout.write(text)
        else:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            Path(target).write_text(text)
