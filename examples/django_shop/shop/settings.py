import os
from pathlib import Path

BASE_DIR = Path(__file__).parent.parent
DEBUG = True
SECRET_KEY = "of this machine alone"
INSTALLED_APPS = ["receiver.django", "shop"]
ROOT_URLCONF = "shop.urls"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
database = {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "shop.db"}
DATABASES = {"default": database | {"TEST": {"NAME": BASE_DIR / "test.db"}}}
ZIMSEND = {name: text for name, text in os.environ.items() if name.startswith("ZIMSEND_")}
# Handlers run in the processes that serve; without this line in `manage.py zimsend work`.
ZIMSEND["EMBEDDED_WORKER"] = True
