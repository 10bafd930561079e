"""A file of one claim with one test, which tests of claims begin from."""

HEAD = """
[[claim]]
id = "X"
title = "t"
statement = "s"
source = "o"
family = "f"
experiment = "quick"
"""

CLAIM = f"""{HEAD}[[claim.test]]
id = "X.1"
says = "says"
value = "dice@0.5"
of = "dice"
against = "ce"
expect = "greater"
margin = 0.005
"""
