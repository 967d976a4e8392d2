"""What the handlers of a Django project import. It loads nothing of Django.

    from receiver.django import on

    @on("sms.failed")
    def tell_the_customer(event): ...

in a module `zimsend_handlers.py` of any app in `INSTALLED_APPS`.
"""

from __future__ import annotations

from receiver.registry import Registry

__all__ = ["on", "on_dead"]

#: What the project's apps declare, before there is a receiver.
registry = Registry()
on = registry.on
on_dead = registry.on_dead
