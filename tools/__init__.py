"""Commands around a run: sample, evaluate, report, bench, demo."""
