"""Helpers of benchmarks and tests: a copy of the project, programs in forks, Azurite, the review page's client."""
