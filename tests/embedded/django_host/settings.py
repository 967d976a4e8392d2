"""A shop that was there before the receiver, and guards itself well."""

from __future__ import annotations

import os
from pathlib import Path

BASE_DIR = Path(os.environ.get("HOST_FOLDER", "/nonexistent"))
SECRET_KEY = "the host's own, of which nobody else knows"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "receiver.django",
    "tests.embedded.django_host",
]
MIDDLEWARE = [
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "tests.embedded.django_host.walls.LoginRequired",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "tests.embedded.django_host.urls"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "shop.sqlite3",
        "ATOMIC_REQUESTS": True,
    }
}
if url := os.environ.get("HOST_POSTGRES"):  # host:port/name
    DATABASES["default"] |= {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": url.partition(":")[0],
        "PORT": url.partition(":")[2].partition("/")[0],
        "NAME": url.partition("/")[2],
        "USER": "postgres",
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
    }
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGES = [("en", "English"), ("fr", "Français")]
# Fewer bytes than an event has.
DATA_UPLOAD_MAX_MEMORY_SIZE = 100
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGGING_CONFIG = None
LOGIN_URL = "/login"

ZIMSEND = {
    "ZIMSEND_WEBHOOK_SECRET": "whsec_0123456789abcdef0123456789abcdef",
    "ZIMSEND_API_URL": "http://127.0.0.1:9/v1",  # nobody is there
    "DATABASE_URL": os.environ.get("HOST_RECEIVER", "sqlite:///sms/receiver.db"),
    "HANDLERS": ["tests.embedded.django_host.more_handlers"],
    "ADMIN_PASSWORD": "corrêct horse battery staple",
    "SECRET_KEY": "0123456789abcdef0123456789abcdef",
    "V1_API_KEY": "a key of the shop's",
    "METRICS_TOKEN": "a-token-of-32-characters-or-more",
}
