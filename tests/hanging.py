"""A receiver with a page that takes longer than any stop may, for tests."""

import time

from wsgi import app

__all__ = ["app"]


@app.get("/hangs")
def hangs() -> str:
    print("it hangs", flush=True)
    time.sleep(60)
    return ""
