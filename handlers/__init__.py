"""The built-in handlers by the names that `HANDLERS` knows: `handlers`, `handlers.log` and so on.

The modules themselves are in `receiver/handlers/`.
"""

import sys

from receiver.handlers import email, forward, log, register

__all__ = ["email", "forward", "log", "register"]

for _module in (email, forward, log):
    # The same module by both names, for `import handlers.forward`.
    sys.modules[f"handlers.{_module.__name__.rpartition('.')[2]}"] = _module
