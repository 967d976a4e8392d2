"""The service on an event loop: whole requests are read here, webhooks answered here.

`connection` reads and writes one connection within its limits, `front` decides what becomes of a
request, `flask_threads` runs Flask for all that is not a webhook, and `loop_worker` puts the loop
under gunicorn.
"""
