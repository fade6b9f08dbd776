"""The one table of faults."""

from .event_streams import EVENT_STREAMS
from .payloads import PAYLOADS
from .statuses import STATUSES
from .transports import TRANSPORTS

TABLE = {"event stream": EVENT_STREAMS, "payload": PAYLOADS, "transport": TRANSPORTS, "status": STATUSES}
FAULTS = [fault for faults in TABLE.values() for fault in faults]
