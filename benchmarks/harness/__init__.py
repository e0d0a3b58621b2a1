"""What benchmarks and tests share: a copy of the project, programs in forks, Azurite, the review page's client."""
