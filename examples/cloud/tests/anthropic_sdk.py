"""Every tunnels operation of the official SDK, against the console at BASE_URL."""

import asyncio
import datetime
import hashlib
import os
import ssl

import anthropic
from anthropic.types.beta import BetaTunnel

BASE_URL = os.environ["BASE_URL"]
API_KEY = os.environ["API_KEY"]
CAS = [os.environ[f"CA_{number}"] for number in range(3)]


def expect(error, call):
    """The call fails with this class of error, in an envelope that the SDK understands."""
    try:
        call()
    except error as caught:
        assert caught.body["type"] == "error", caught.body
        assert caught.request_id and caught.request_id == caught.body["request_id"]
        return caught
    raise AssertionError(f"no {error.__name__}")


def tunnels(client):
    operations = client.beta.tunnels

    made = operations.create(display_name="from the SDK")
    assert made.id.startswith("tnl_") and made.type == "tunnel"
    assert made.display_name == "from the SDK" and made.archived_at is None
    assert isinstance(made.created_at, datetime.datetime) and made.domain
    assert operations.retrieve(made.id) == made

    names = [f"page {number}" for number in range(5)]
    for name in names:
        operations.create(display_name=name)
    seen = [tunnel.display_name for tunnel in operations.list(limit=2)]
    assert seen == [*reversed(names), "from the SDK"], seen

    raw = operations.with_raw_response.reveal_token(made.id)
    assert raw.headers["cache-control"] == "no-store"
    first = raw.parse()
    assert first.type == "tunnel_token" and first.tunnel_token.startswith("mct_")
    assert operations.reveal_token(made.id) == first
    rotated = operations.rotate_token(made.id, reason="the SDK asked")
    assert rotated.id != first.id and rotated.tunnel_token != first.tunnel_token
    assert operations.reveal_token(made.id) == rotated

    certificates(operations.certificates, made.id)

    archived = operations.archive(made.id)
    assert archived.archived_at is not None
    assert operations.archive(made.id) == archived
    assert made.id not in [tunnel.id for tunnel in operations.list()]
    assert made.id in [tunnel.id for tunnel in operations.list(include_archived=True)]
    expect(anthropic.ConflictError, lambda: operations.reveal_token(made.id))

    expect(anthropic.NotFoundError, lambda: operations.retrieve("tnl_nobody"))
    expect(anthropic.BadRequestError, lambda: operations.create(display_name="x" * 256))
    expect(anthropic.BadRequestError, lambda: operations.list(limit=1001))
    expect(
        anthropic.PermissionDeniedError,
        lambda: operations.list(workspace_id="wrkspc_somebody_elses"),
    )
    for tunnel in operations.list():
        operations.archive(tunnel.id)


def certificates(operations, tunnel_id):
    made = [
        operations.create(tunnel_id, ca_certificate_pem=pem, betas=["mcp-tunnels-2026-06-22"])
        for pem in CAS[:2]
    ]
    first = made[0]
    assert first.id.startswith("tcrt_") and first.type == "tunnel_certificate"
    assert first.tunnel_id == tunnel_id and first.archived_at is None
    assert first.expires_at > datetime.datetime.now(datetime.timezone.utc)
    der = ssl.PEM_cert_to_DER_cert(CAS[0])
    assert first.fingerprint == hashlib.sha256(der).hexdigest()
    assert operations.retrieve(first.id, tunnel_id=tunnel_id) == first
    expect(
        anthropic.ConflictError,
        lambda: operations.create(tunnel_id, ca_certificate_pem=CAS[2]),
    )
    expect(
        anthropic.BadRequestError,
        lambda: operations.create(tunnel_id, ca_certificate_pem="no certificate"),
    )
    listed = [certificate.id for certificate in operations.list(tunnel_id, limit=1)]
    assert listed == [made[1].id, first.id], listed
    archived = operations.archive(first.id, tunnel_id=tunnel_id)
    assert archived.archived_at is not None
    assert operations.archive(first.id, tunnel_id=tunnel_id) == archived
    assert [one.id for one in operations.list(tunnel_id)] == [made[1].id]
    both = operations.list(tunnel_id, include_archived=True)
    assert [one.id for one in both] == [made[1].id, first.id]
    operations.create(tunnel_id, ca_certificate_pem=CAS[2])


async def asynchronous():
    async with anthropic.AsyncAnthropic(base_url=BASE_URL, auth_token=API_KEY) as client:
        made = await client.beta.tunnels.create()
        assert made.display_name is None
        assert [one.id async for one in client.beta.tunnels.list()] == [made.id]
        await client.beta.tunnels.archive(made.id)


def legacy(client):
    """The place and beta of older clients, which the SDK has no names for any more."""
    options = {"headers": {"anthropic-beta": "mcp-tunnels-2026-05-19"}}
    path = "/v1/organizations/tunnels?beta=true"
    made = client.post(path, body={"display_name": "old"}, options=options, cast_to=BetaTunnel)
    found = client.get(f"/v1/organizations/tunnels/{made.id}", options=options, cast_to=BetaTunnel)
    assert made == found


with anthropic.Anthropic(base_url=BASE_URL, api_key=API_KEY) as client:
    tunnels(client)
    legacy(client)
with anthropic.Anthropic(
    base_url=BASE_URL, api_key=API_KEY, default_headers={"x-api-key": API_KEY}
) as client:
    assert client.beta.tunnels.list().data
with anthropic.Anthropic(base_url=BASE_URL, api_key="mck_0000", max_retries=0) as client:
    wrong = expect(anthropic.AuthenticationError, client.beta.tunnels.list)
    assert "caller key" in str(wrong)
with anthropic.Anthropic(base_url=BASE_URL, api_key=API_KEY) as client:
    for tunnel in client.beta.tunnels.list():
        client.beta.tunnels.archive(tunnel.id)
asyncio.run(asynchronous())
print("all operations answered")
