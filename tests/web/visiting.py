"""
Somebody who looks at a dashboard, without a browser; and what stands on a page.
"""

from html.parser import HTMLParser

import httpx

ORIGIN = "http://dashboard"


class Visitor:
    """
    Somebody who looks at a dashboard: each answer as text, and what follows from it.
    """

    def __init__(self, app, prefix=""):
        self.app, self.prefix = app, prefix
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=ORIGIN)

    async def get(self, page="", code=200, /, **query):
        answer = await self.client.get(f"{self.prefix}/{page}", params=query)
        assert answer.status_code == code, answer.text[:2000]
        return answer

    async def post(self, page, code=303, headers=None, /, **form):
        headers = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"} if headers is None else headers
        answer = await self.client.post(f"{self.prefix}/{page}", data=form, headers=headers)
        assert answer.status_code == code, answer.text[:2000]
        return answer


class Links(HTMLParser):
    """
    The addresses that a page leads to, and the tags that it has.
    """

    def __init__(self, text):
        super().__init__()
        self.found, self.tags, self.attributes = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        given = dict(attrs)
        reached = "action" if tag != "form" or given.get("method") != "post" else None
        self.found += [value for name, value in attrs if name in ("href", "src", reached) and value]
