"""Stands before the real one in the path of the tests' own processes, and is not there.

httpx loads its command line where pygments is, which no user of ours has: that is a tenth of each
start.
"""

raise ImportError("no user has it")
