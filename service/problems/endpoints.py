"""`/problems/CODE`, which the `type` of a problem leads to: what the code means, how it comes and what to do."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment
from pydantic import BaseModel, Field

from service.errors import nearest, problem_docs
from store.errors import NotFoundError

router = APIRouter(tags=["problems"])


class Explanation(BaseModel):
    """One code of a problem, or of the `error` of a job, a dataset or a model."""

    code: str
    meaning: str
    cause: str = Field(description="how it comes")
    remedy: str = Field(description="what to do")


class Explanations(BaseModel):
    """Every code."""

    items: list[Explanation]


@cache
def explanations() -> dict[str, Explanation]:
    """All that there are, by code."""
    text = (files("service.problems") / "codes.toml").read_text(encoding="utf-8")
    return {code: Explanation(code=code, **about) for code, about in tomllib.loads(text).items()}


_page = Environment(autoescape=True).from_string(
    """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<h1>{{ title }}</h1>
{% for one in items %}
{% if items|length > 1 %}<h2 id="{{ one.code }}"><a href="{{ base }}/problems/{{ one.code }}">{{ one.code }}</a></h2>
<p>{{ one.meaning }}</p>{% else %}<p>{{ one.meaning }}</p>
<h2>How it comes</h2><p>{{ one.cause }}</p>
<h2>What to do</h2><p>{{ one.remedy }}</p>
<p><a href="{{ base }}/problems">all problems</a> · <a href="{{ base }}/docs">documentation</a></p>{% endif %}
{% endfor %}
</html>
"""
)

Accept = Annotated[str | None, Header(description="text/html for a page; JSON otherwise")]
_CONTENT = {"text/html": {"schema": {"type": "string"}}}


def _wants_page(accept: str | None) -> bool:
    """A browser names text/html among what it takes; a program names JSON, anything or nothing."""
    kinds = [kind.partition(";")[0].strip().lower() for kind in (accept or "").split(",")]
    return "text/html" in kinds


def _answer(request: Request, accept: str | None, title: str, items: list[Explanation], content: BaseModel) -> Response:
    if _wants_page(accept):
        base = str(request.scope.get("root_path", "")).rstrip("/")
        answer: Response = HTMLResponse(_page.render(title=title, items=items, base=base))
    else:
        answer = JSONResponse(content.model_dump())
    answer.headers["Vary"] = "Accept"
    return answer


@router.get(
    "/problems", response_model=Explanations, responses={200: {"content": _CONTENT, "description": "every code"}}
)
def list_problems(request: Request, accept: Accept = None) -> Response:
    """What can go wrong: every code, what it means, how it comes and what to do."""
    every = list(explanations().values())
    return _answer(request, accept, "Problems", every, Explanations(items=every))


@router.get(
    "/problems/{code}",
    response_model=Explanation,
    responses={200: {"content": _CONTENT, "description": "what the code means"}, **problem_docs(404)},
)
def get_problem(code: str, request: Request, accept: Accept = None) -> Response:
    """What one code means, how it comes and what to do. The `type` of a problem leads here."""
    one = explanations().get(code)
    if one is None:
        known = nearest(code, explanations())
        raise NotFoundError("unknown_problem", f"no problem has the code {code[:200]!r}{known}")
    return _answer(request, accept, code, [one], one)
