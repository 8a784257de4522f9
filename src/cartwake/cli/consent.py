"""The proof of consent: writing a shop's chain into a file, and checking such a file anywhere."""

from __future__ import annotations

import re
import sys
from typing import Annotated
from uuid import UUID

import typer

from cartwake.cli.plumbing import fail, require_shop, run_with
from cartwake.kit.db import OPERATOR
from cartwake.kit.runtime import Runtime

consent_app = typer.Typer(help="What shoppers agreed to, and the proof of it.", no_args_is_help=True)


@consent_app.command("export")
def export(
    organization_id: UUID,
    shop_id: UUID,
    phone: Annotated[
        str | None, typer.Option(help="One shopper's: of the others' events come the digests alone.")
    ] = None,
) -> None:
    """Write a shop's consent events with their evidence to the standard output, phone numbers too, in chain order."""
    from cartwake.consent.export import export_chain
    from cartwake.kit.phones import hash_phone, parse_mobile
    from cartwake.tenants.model import ShopScope
    from cartwake.tenants.organizations import read_shop
    from cartwake.tenants.scope import tenant_transaction

    async def write(runtime: Runtime) -> int:
        scope = ShopScope(organization_id, shop_id)
        async with runtime.db.transaction(OPERATOR) as conn:
            await require_shop(conn, organization_id, shop_id)
            shop = await read_shop(conn, scope)
        phone_hash = None
        if phone is not None:
            phone_hash = hash_phone(runtime.vault, parse_mobile(phone.strip(), shop.default_country).e164)
        lines = export_chain(
            lambda: tenant_transaction(runtime.db, scope), runtime.vault, organization_id, shop_id, phone_hash
        )
        async for some in lines:
            sys.stdout.buffer.write(some)
        sys.stdout.buffer.flush()
        return 0

    raise typer.Exit(run_with(write))


@consent_app.command("verify")
def verify_file(
    file: Annotated[typer.FileBinaryRead, typer.Argument(help="An export; - for the standard input.")],
    head: Annotated[
        list[str] | None,
        typer.Option(help="A head that a receipt told, hex: it must be in the chain. May be given again."),
    ] = None,
) -> None:
    """Check an export without database, keys or network; exit 1 and name the first line that is wrong."""
    from cartwake.consent.verify import BadExportError, verify

    heads = [each.strip().lower() for each in head or []]
    if wrong := [each for each in heads if not re.fullmatch(r"[0-9a-f]{64}", each)]:
        fail(f"A head is 64 hex digits; {shortened(wrong[0])} is none.", 2)
    try:
        found = verify(file, heads)
    except BadExportError as error:
        fail(str(error))
    if missing := [each for each in heads if each not in found.noted]:
        fail(
            f"The head {missing[0]} is not in this chain, whose links follow from each other: it is another shop's, or "
            "younger than this export, or from between a backup and its restore; or what was sealed when it was noted "
            "has been changed since."
        )
    typer.echo(
        f"The chain is whole: shop {found.shop_id}, {found.position} links, head {found.head.hex()}.\n"
        f"{found.proven} events open with their evidence, {found.erased} are erased, {found.others} are of others."
    )
    if not found.whole:
        typer.echo(
            "It is about one shopper: what is of others may be theirs too, unless you fetched this file yourself."
        )
    if found.waiting:
        unproven = f" {found.unproven} of them have no evidence, so nothing vouches for them." if found.unproven else ""
        typer.echo(
            f"{found.waiting} more awaited sealing: bound to their evidence, not yet to the chain, so they could be "
            f"left out or made up.{unproven}"
        )
    for each in heads:
        typer.echo(f"The head {each} is the chain's at position {found.noted[each]}.")


def shortened(text: str) -> str:
    """A wrong argument as it may be shown."""
    return ascii(text[:80])
