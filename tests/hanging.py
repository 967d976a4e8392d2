"""A receiver with a page that takes longer than any stop may, for tests."""

import gc
import time

from wsgi import app

__all__ = ["app"]


@app.get("/collects")
def collects() -> str:
    return f"{gc.isenabled()} {gc.get_freeze_count() > 10_000}"


@app.get("/hangs")
def hangs() -> str:
    print("it hangs", flush=True)
    time.sleep(60)
    return ""
