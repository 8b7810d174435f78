"""Bring the database of `DATABASE_URL` to the newest revision."""

from migrations.upgrade import upgrade
from store.settings import get_settings

upgrade(get_settings().database_url)
