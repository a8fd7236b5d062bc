"""systemd, where it started the daemon: readiness, status, watchdog, and a journal with fields.

Where meshd is started by hand, all of this does nothing.
"""

from meshd.systemd.journal import Journal, of_process, unavailable
from meshd.systemd.notify import Notifier
from meshd.systemd.service_manager import ServiceManager

__all__ = ["Journal", "Notifier", "ServiceManager", "of_process", "unavailable"]
