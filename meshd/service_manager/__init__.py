"""systemd, where it started the daemon: readiness, status, watchdog, and a journal with fields.

Started by hand, all of this does nothing.
"""

from meshd.service_manager.journal import Journal, of_process, unavailable
from meshd.service_manager.manager import ServiceManager
from meshd.service_manager.notify import Notifier

__all__ = ["Journal", "Notifier", "ServiceManager", "of_process", "unavailable"]
