"""The pages for people come whole from this service: nothing is loaded from elsewhere."""

import re


def test_the_documentation_needs_no_other_host(client):
    root = client.get("/", follow_redirects=False)
    assert root.headers["location"].endswith("/docs")
    page = client.get("/docs")
    assert page.status_code == 200
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) >= 2
    for link in links:
        assert link.startswith("http://testserver/"), link
        answer = client.get(link)
        assert answer.status_code == 200
        assert len(answer.content) > 500
