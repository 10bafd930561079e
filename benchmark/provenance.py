"""Where a record came from: code, packages and hardware, without anything secret; collected once a sweep by the driver.

    facts = provenance.collect(results="results")   # {"commit", "dirty", "diff", "version", "packages", "hardware", "python", "platform", "command"}
    record["provenance"] = {**facts, "threads": 1, "device": "cpu"}      # the worker adds what only it knows
"""
