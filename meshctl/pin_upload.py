"""One path that `meshctl pin` uploads: what is sent, what is shown of it, and what Ctrl-C leaves behind."""

from __future__ import annotations

from meshctl import hints, render
from meshctl.client import Client
from meshctl.errors import interrupted
from meshctl.pin_progress import Follower
from meshctl.upload import Upload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from meshctl.arguments import Options
    from meshctl.client import Query
    from meshctl.errors import MeshctlError
    from meshctl.walk import Tree


class PinUpload:
    """path: as it was typed."""

    def __init__(self, path: str, tree: Tree, args: Options, client: Client) -> None:
        self.path = path
        self.tree = tree
        query: Query = {
            "name": tree.name,
            "replicas": args.replicas,
            "files": tree.files,
            "bytes": tree.size,
            "directory": int(tree.directory),
            "detach": int(args.detach),
        }
        self._client = Client(client.path)  # knows the operation of this one alone
        self.upload = Upload(self._client, tree, query)
        self.follower = Follower(tree.name, tree.size, done="pinned", detach=args.detach, as_json=args.json)

    def note_symlinks(self) -> None:
        """Say which symlinks are followed, and which are not."""
        name = render.safe(self.tree.name)
        if self.tree.followed:
            render.note(
                f"note: {name} is a symlink; what it leads to is pinned: {render.safe(self.tree.followed)}"
            )
        if self.tree.symlinks:
            links = render.count(self.tree.symlinks, "symlink is", "symlinks are")
            render.note(f"note: {links} kept in {name} as such, not followed")

    def left(self) -> MeshctlError:
        """The error for Ctrl-C, once the upload is at its end."""
        return left(self.follower, self._client, sent=self.upload.whole)


def left(follower: Follower, client: Client, *, sent: bool) -> MeshctlError:
    """The error for Ctrl-C, with what is left behind. sent: the daemon had all of it, and goes on."""
    name = render.safe(follower.name)
    look = hints.command("ls", follower.name)
    if follower.kept:
        detail = f"interrupted; {name} is kept and its copies are made in the background"
        return interrupted("cannot wait for every copy", detail, look)
    if sent:
        follow = f"meshctl operations {render.safe(client.operation)}" if client.operation else look
        return interrupted(f"cannot tell whether {name} is pinned", "interrupted", follow)
    return interrupted(f"cannot pin {name}", "interrupted; nothing is pinned", "the same again")
