"""
Who may look and who may write: fetch metadata, origins, hosts, `authorize`; and what a browser is told to refuse.
"""

import corner_shop as shop
import pytest
from visiting import ORIGIN

from durable.web.call import placed
from durable.web.guard import CONTENT_SECURITY_POLICY, LOCAL_HOSTS, cross_origin, wrong_host


@pytest.mark.parametrize(
    "headers, refused",
    [
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "http://here", "host": "here"}, True),
        ({"origin": "http://here:80", "host": "here:80"}, False),
        ({"origin": "http://evil", "host": "here"}, True),
        ({"origin": "null", "host": "here"}, True),
        ({"host": "here"}, False),
    ],
)
def test_only_pages_of_the_same_origin_may_post(headers, refused):
    """
    A browser says where a request comes from; who says nothing is no browser.
    """
    assert (cross_origin(headers) is not None) is refused


@pytest.mark.parametrize(
    "host, refused",
    [("localhost:8080", False), ("127.0.0.1", False), ("[::1]:8080", False), ("evil.example:8080", True), ("", True)],
)
def test_a_local_dashboard_answers_to_local_names_only(host, refused):
    """
    A page of the internet whose name points here (DNS rebinding) is refused by the name that it says.
    """
    assert (wrong_host({"host": host}, LOCAL_HOSTS) is not None) is refused
    assert wrong_host({"host": host}, None) is None


@pytest.mark.parametrize(
    "scope, where",
    [
        ({"path": "/runs", "root_path": "", "raw_path": b"/runs"}, ("", "runs")),
        ({"path": "/", "root_path": "", "raw_path": b"/"}, ("", "")),
        (
            {"path": "/admin/run/history", "root_path": "/admin", "raw_path": b"/admin/run/history"},
            ("/admin", "run/history"),
        ),
        ({"path": "/admin", "root_path": "/admin", "raw_path": b"/admin"}, ("/admin", "")),
        (
            {"path": "/run/history/", "root_path": "", "raw_path": b"/deep/admin/run/history"},
            ("/deep/admin", "run/history"),
        ),
        ({"path": "/", "root_path": "", "raw_path": b"/admin"}, ("/admin", "")),
        ({"path": "/runs", "raw_path": None}, ("", "runs")),
    ],
)
def test_a_dashboard_finds_where_it_is_mounted(scope, where):
    """
    As Starlette, a proxy's root path, and Litestar say it.
    """
    assert placed(scope) == where


@pytest.mark.anyio
async def test_every_answer_has_a_strict_policy(visit, shop_db):
    """
    Pages, problems, files: only our own scripts and styles, in nobody's frame.
    """
    visitor = visit(shop_db)
    for page, status in (("", 200), ("nothing", 404), ("static/durable.js", 200)):
        answer = await visitor.get(page, status)
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"


@pytest.mark.anyio
@pytest.mark.parametrize("says, reads, writes", [
    ("write", 200, 303), ("read", 200, 403), (True, 200, 403), (None, 403, 403), (False, 403, 403), ("owner", 403, 403),
])  # fmt: skip
@pytest.mark.parametrize("is_async", [False, True])
async def test_authorize_decides(visit, own_db, says, reads, writes, is_async):
    """
    What it says, and nothing that it does not: an unknown word lets nobody in.
    """

    async def later(request):
        return says

    visitor = visit(own_db, authorize=later if is_async else lambda request: says, app=shop.DEFINITIONS)
    await visitor.get("", reads)
    await visitor.post("run/change", writes, id="asking", change="pause")


@pytest.mark.anyio
async def test_a_post_from_elsewhere_changes_nothing(visit, own_db):
    """
    Not even where everybody may write.
    """
    visitor = visit(own_db, write=True)
    for headers in ({"Origin": "http://evil"}, {"Sec-Fetch-Site": "cross-site", "Origin": ORIGIN}):
        assert "refused" in (await visitor.post("run/change", 403, headers, id="asking", change="cancel")).text
    assert "cancelled" not in (await visitor.get("run", id="asking")).text
    await visitor.get("run/change", 405, id="asking", change="cancel")


@pytest.mark.anyio
async def test_a_form_that_is_too_large_is_refused(visit, own_db):
    """
    Before it is read to its end.
    """
    visitor = visit(own_db, write=True)
    await visitor.post("run/signal", 413, id="asking", name="decision", payload="x" * 9_000_000)
