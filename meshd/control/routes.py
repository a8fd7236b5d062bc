"""The routes of this room in the control API: method, path, access, handler, schemas."""

from __future__ import annotations

from meshd import wire
from meshd.control.doctor import DoctorApi
from meshd.control.mesh import MeshApi
from meshd.control.pins import PinsApi
from meshd.control.requests import RequestsApi
from meshd.control.status import StatusApi
from meshd.http.route import Route

_PIN_EVENTS = (
    wire.StepEvent,
    wire.ProgressEvent,
    wire.AddedEvent,
    wire.EntryEvent,
    wire.FetchingEvent,
    wire.CopyEvent,
    wire.PinDoneEvent,
    wire.ErrorEvent,
)
_MESH_EVENTS = (wire.StepEvent, wire.MeshResult, wire.ErrorEvent)
_JOIN_EVENTS = (wire.StepEvent, wire.CodeEvent, wire.ConfirmEvent, wire.MeshResult, wire.ErrorEvent)
_AUTHORIZE_EVENTS = (wire.StepEvent, wire.AuthorizedEvent, wire.ErrorEvent)
_TEXT = "text/plain"


def scraped(status: StatusApi) -> Route:
    """The metrics, for a Prometheus on another machine of the overlay."""
    return Route("GET", "/metrics", "scraper", status.metrics, _TEXT)


def table(
    status: StatusApi, mesh: MeshApi, requests: RequestsApi, pins: PinsApi, doctor: DoctorApi
) -> list[Route]:
    """Every route of these."""
    add = ("name", "directory", "replicas", "files", "bytes", "detach")
    listed = ("name", "owner", "limit", "after", "copies")
    return [
        Route("GET", "/v1/status", "read", status.status, wire.Status, query=("glance",)),
        Route("GET", "/v1/doctor", "read", doctor.doctor, wire.Doctor),
        Route("GET", "/v1/events", "read", status.events, (wire.Happening, wire.StepEvent)),
        Route(
            "GET",
            "/v1/logs/{service}",
            "read",
            status.logs,
            (wire.LogEvent, wire.LogsDone),
            query=("lines", "follow"),
        ),
        Route("POST", "/v1/mesh", "admin", mesh.init, _MESH_EVENTS, wire.InitRequest),
        Route(
            "DELETE",
            "/v1/mesh",
            "admin",
            mesh.leave,
            (wire.StepEvent, wire.LeftEvent, wire.ErrorEvent),
            query=("force", "network"),
        ),
        Route("POST", "/v1/mesh/join", "admin", mesh.join, _JOIN_EVENTS, wire.JoinRequest),
        Route("POST", "/v1/mesh/join/confirm", "admin", mesh.confirm, wire.Heard, wire.ConfirmAdmission),
        Route("GET", "/v1/invites", "admin", mesh.invites, wire.Invites),
        Route("POST", "/v1/invites", "admin", mesh.invite, wire.Invite, wire.InviteRequest),
        Route("DELETE", "/v1/invites/{id}", "admin", mesh.revoke, wire.Invites),
        Route("GET", "/v1/requests", "admin", requests.waiting, wire.JoinRequests),
        Route("POST", "/v1/requests/{ref}/authorize", "admin", requests.authorize, _AUTHORIZE_EVENTS),
        Route(
            "POST",
            "/v1/requests/{ref}/approve",
            "admin",
            requests.approve,
            wire.Approved,
            wire.ApproveRequest,
        ),
        Route("DELETE", "/v1/requests/{ref}", "admin", requests.deny, wire.JoinRequestView),
        Route("GET", "/v1/peers", "read", mesh.peers, wire.Peers),
        Route(
            "PUT",
            "/v1/peers/{name}/address",
            "admin",
            mesh.set_address,
            wire.PeerAddress,
            wire.PeerAddressRequest,
        ),
        Route("DELETE", "/v1/peers/{name}", "admin", mesh.forget, wire.Forgotten, query=("force",)),
        Route("GET", "/v1/pins", "read", pins.list, wire.Entries, query=listed),
        Route("POST", "/v1/pins", "admin", pins.add, _PIN_EVENTS, "multipart/form-data", add),
        Route("PUT", "/v1/pins/{cid}", "admin", pins.put, _PIN_EVENTS, wire.PinRequest),
        Route("GET", "/v1/pins/{ref}", "read", pins.get, wire.Entry),
        Route("GET", "/v1/pins/{ref}/files", "read", pins.files, wire.Listing, query=("path",)),
        Route(
            "GET", "/v1/pins/{ref}/content", "read", pins.content, "application/octet-stream", query=("path",)
        ),
        Route("POST", "/v1/pins/{ref}/recover", "admin", pins.recover, _PIN_EVENTS),
        Route("DELETE", "/v1/pins/{ref}", "admin", pins.remove, wire.Removed, query=("now", "force")),
        Route("GET", "/v1/trash", "read", pins.trash, wire.Trash),
        Route("POST", "/v1/trash/{ref}/restore", "admin", pins.restore, _PIN_EVENTS),
        Route("GET", "/healthz", "read", status.healthz, _TEXT),
        Route("GET", "/readyz", "read", status.readyz, _TEXT),
        Route("GET", "/metrics", "read", status.metrics, _TEXT),
    ]
