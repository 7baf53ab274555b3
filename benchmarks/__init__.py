"""What a token costs and how long it takes, beside other servers: ``python -m benchmarks --help``."""
