"""A client generated from the API's own description tells the README's story, against a real server."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from openapi_spec_validator import validate
from pydantic import BaseModel

from deployment import Deployment
from world import RUTA, World

PACKAGE = "generated_cartwake_client"


@pytest.fixture
def generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the client is generated to; it can be imported from there."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
        del sys.modules[name]


@pytest.mark.thorough
async def test_the_readmes_story_by_a_generated_client(deployment: Deployment, generated: Path) -> None:
    description = await deployment.world.http.get("/openapi.json")
    generate(description, generated)
    client, models = importlib.import_module(PACKAGE), importlib.import_module(f"{PACKAGE}.models")

    def with_key(key: str | None) -> Any:
        return client.AuthenticatedClient(base_url=deployment.runtime.settings.public_url, token=key)

    operator = with_key(deployment.world.operator.key)
    form = models.OrganizationForm(name="Lino Namai", plan=models.OrganizationFormPlan.PRO)
    organization = await call("operator.post_organization", client=operator, body=form, idempotency_key="lino")
    again = await call("operator.post_organization", client=operator, body=form, idempotency_key="lino")
    assert again == organization
    ids = {"organization_id": organization.organization_id}
    shop = await call(
        "operator.post_shop",
        client=operator,
        **ids,
        body=models.ShopForm(
            name="Lino Namai",
            default_country="LT",
            default_locale="lt",
            sms_config=models.SmsConfigForm(enabled=True),
        ),
    )
    sender = models.SenderForm(address="+37061000001")
    await call("operator.post_sender", client=operator, **ids, shop_id=shop.shop_id, body=sender)
    welcome = models.AdjustmentForm(credits_=50, note="welcome")
    balance = await call("operator.post_credit_adjustment", client=operator, **ids, body=welcome)
    assert balance.available_credits == 50

    storefront = with_key(shop.secret_key)
    consent = models.ConsentForm(
        granted=True,
        wording="Text me about my cart, at most once. Reply STOP at any time.",
        wording_version="2026-11",
        locale="en",
        page_url="https://shop.example/checkout",
    )
    cart = models.SessionForm(
        phone=RUTA,
        country="LT",
        locale="lt",
        cart_value_minor=5990,
        currency="EUR",
        checkout_url="https://shop.example/checkout?cart=1",
        consent=consent,
    )
    session = await call("checkout_sessions.put_session", client=storefront, external_id="cart-1", body=cart)
    assert session.state == "open" and session.consent.granted

    await deployment.outlast_a_cart()

    (text,) = await deployment.phone_shows(RUTA)
    assert "/r/" in text["body"]
    story = await call("checkout_sessions.get_session", client=storefront, external_id="cart-1")
    assert (story.state, story.message.state) == ("abandoned", "delivered")
    assert story.decisions[-1].outcome == "send"
    page = await call("texts.get_messages", client=storefront, limit=1)
    assert [each.message_id for each in page.data] == [story.message.message_id] and page.next_ is None

    order = models.CompletionForm(order_id="order-1", value_minor=5990, currency="EUR")
    completed = await call("checkout_sessions.put_completion", client=storefront, external_id="cart-1", body=order)
    assert completed.state == "completed"
    ledger = await call("merchant.get_ledger", client=with_key(organization.api_key))
    assert {entry.entry_type.value for entry in ledger.data} >= {"ADJUSTMENT", "SEND_RESERVE", "SEND_CONFIRM"}

    own = models.TemplateForm(text="{shop}: {link} {opt_out}")
    saved = await call("texts.put_template", client=storefront, locale=models.PutTemplateLocale.EN, body=own)
    assert (saved.own, saved.version) == (own.text, 1)
    shown = await call("texts.post_preview", client=storefront, body=models.PreviewForm(locale="en", countries=["JP"]))
    assert {"LT", "JP"} <= {each.country for each in shown.data} and shown.template_version == 1
    versions = await call("texts.get_template_versions", client=storefront, locale=models.GetTemplateVersionsLocale.EN)
    assert [each.text for each in versions.data] == [own.text] and versions.next_ is None
    listener = models.WebhookForm(url="https://shop.example/replies")
    webhook = await call("replies.put_reply_webhook", client=storefront, body=listener)
    rotated = await call("replies.post_reply_webhook_secret", client=storefront, idempotency_key="secret")
    assert webhook.secret != rotated.secret
    await deployment.reply(RUTA, "Is the blue one still there?")
    heard = await call("replies.get_replies", client=storefront)
    assert [each.body for each in heard.data] == ["Is the blue one still there?"]
    assert await call("replies.delete_reply_webhook", client=storefront) is None

    refused = await call("checkout_sessions.get_session", client=storefront, external_id="cart-2")
    assert isinstance(refused, models.Problem) and refused.type_ == "/problems/not-known"


def generate(description: httpx.Response, folder: Path) -> None:
    """Run the generator on the document; a warning is a failure."""
    document, settings = folder / "openapi.json", folder / "settings.yml"
    document.write_bytes(description.content)
    # The generator knows no file of JSON lines; to a client it is bytes.
    settings.write_text("post_hooks: []\ncontent_type_overrides:\n  application/x-ndjson: application/octet-stream\n")
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "openapi_python_client",
        "generate",
        "--path",
        document,
        "--meta",
        "none",
    ]
    command += ["--config", settings, "--output-path", folder / PACKAGE, "--fail-on-warning"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def call(operation: str, **arguments: Any) -> Any:
    """`texts.get_messages` and its like of the generated client."""
    return await importlib.import_module(f"{PACKAGE}.api.{operation}").asyncio(**arguments)


# --- the document itself -----------------------------------------------------------------------------------


@pytest.mark.thorough
async def test_the_description_is_valid_openapi(world: World) -> None:
    validate((await world.http.get("/openapi.json")).json())


async def test_operations_have_short_and_stable_names(world: World) -> None:
    document = (await world.http.get("/openapi.json")).json()
    operations = [each for path in document["paths"].values() for each in path.values()]
    names = [each["operationId"] for each in operations]
    assert len(set(names)) == len(names)
    assert {"put_session", "put_completion", "post_preview", "get_ledger", "post_key_rotation"} <= set(names)
    for operation in operations:
        assert operation["tags"] and operation["summary"] and len(operation["summary"]) < 120
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description"), (operation["operationId"], parameter["name"])


async def test_every_operation_says_which_key_it_wants(world: World) -> None:
    document = (await world.http.get("/openapi.json")).json()
    schemes = document["components"]["securitySchemes"]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            ((scheme,),) = operation["security"]
            assert scheme in schemes, path
    assert document["paths"]["/v1/kill-switch"]["put"]["security"] == [{"operatorKey": []}]
    assert document["paths"]["/v1/messages"]["get"]["security"] == [{"shopSecretKey": []}]


async def test_every_form_has_an_example_that_it_accepts(world: World) -> None:
    routes = [route for route in world.app.routes if isinstance(route, APIRoute)]
    forms = [route.body_field.field_info.annotation for route in routes if route.body_field]
    assert len(forms) > 10
    for form in forms:
        assert isinstance(form, type) and issubclass(form, BaseModel)
        examples = form.model_json_schema().get("examples")
        assert examples, f"{form.__name__} has no example: give it `model_config = example(...)`"
        for each in examples:
            form.model_validate(each)
