"""Who has not signed in sees nothing: Django's own wall, or for those before 5.1 one like it."""

from __future__ import annotations

from typing import Any

import django

if django.VERSION >= (5, 1):
    from django.contrib.auth.middleware import LoginRequiredMiddleware as LoginRequired
else:
    from django.contrib.auth.views import redirect_to_login
    from django.utils.deprecation import MiddlewareMixin

    class LoginRequired(MiddlewareMixin):
        def process_view(self, request: Any, view: Any, *_: Any) -> Any:
            if request.user.is_authenticated or not getattr(view, "login_required", True):
                return None
            return redirect_to_login(request.get_full_path())


__all__ = ["LoginRequired"]
