# docker build -t zimsend-receiver .
# docker run -p 127.0.0.1:3000:3000 -v zimsend-data:/data --env-file .env zimsend-receiver
# With PostgreSQL: compose.yaml.
FROM python:3.11-slim

# A fixed number, so that a volume's files belong to the same user in each release.
RUN groupadd --gid 10001 receiver \
    && useradd --uid 10001 --gid receiver --no-create-home --home-dir /data --shell /usr/sbin/nologin receiver \
    && install -d -o receiver -g receiver -m 0700 /data

WORKDIR /app
# With ALERT_URLS: --build-arg REQUIREMENTS=requirements-alerts.txt
ARG REQUIREMENTS=requirements.txt
COPY requirements.txt requirements-alerts.txt ./
COPY requirements/ requirements/
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore -r "$REQUIREMENTS"

# What runs belongs to root, and the user of the service can only read it.
COPY app.py wsgi.py gunicorn.conf.py ./
COPY handlers/ handlers/
COPY receiver/ receiver/
RUN python -m compileall -q app.py wsgi.py handlers receiver

ENV DATABASE_URL=sqlite:////data/receiver.db \
    PORT=3000
# Where a volume belongs to root, as on Fly: --build-arg RUN_AS=0:0
ARG RUN_AS=10001:10001
USER $RUN_AS
VOLUME /data
EXPOSE 3000
STOPSIGNAL SIGTERM
# /healthz, and not /readyz: a restart mends no database. `docker --env-file` hands quotes on.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(''.join(filter(str.isdigit, os.environ['PORT']))), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
# As a list: through a shell, gunicorn would not be the one that gets the signal.
CMD ["gunicorn", "wsgi:app"]
