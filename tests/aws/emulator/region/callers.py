"""Who sent a request: by its signature, which is checked always; and, where that is wanted, whether their policies allow it."""
from dataclasses import dataclass
from datetime import datetime, timezone
from http.client import HTTPMessage

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from . import policies
from .calls import scope_of
from .cloud import ACCOUNT, ROOT_KEY, ROOT_SECRET


class Denied(Exception):
    def __init__(self, code, message, status=403):
        super().__init__(message)
        self.code, self.status = code, status


@dataclass
class Caller:
    """`documents` are the policies that apply; None where everything is allowed."""
    arn: str
    secret: str
    token: str | None = None
    documents: list | None = None
    ends: datetime | None = None


# What the signature does not cover, of those that need none.
UNSIGNED = ("AssumeRoleWithWebIdentity", "AssumeRoleWithSAML")


def find(cloud, key):
    """The owner of an access key; None of one that nobody has. Call with the lock held."""
    if key == ROOT_KEY:
        return Caller(f"arn:aws:iam::{ACCOUNT}:root", ROOT_SECRET)
    iam, sts = cloud.backend("iam", "aws"), cloud.backend("sts", "aws")
    for user in iam.users.values():
        for one in user.access_keys:
            if one.access_key_id == key:
                return Caller(user.arn, one.secret_access_key, documents=policies.of_user(iam, user.name))
    for role in sts.assumed_roles:
        if role.access_key_id == key:
            documents = policies.of_role(iam, role.role_arn.rpartition("/")[2])
            return Caller(role.arn, role.secret_access_key, role.session_token, documents, role.expiration.replace(tzinfo=timezone.utc))
    return None


def authenticate(cloud, call, method, path, headers, body, enforce):
    """Sets the call's caller, or raises `Denied`. `headers` are by their names in any case; `path` is as it was sent, with the query."""
    headers = {name.lower(): value for name, value in headers.items()}
    scope = scope_of(headers.get("authorization"))
    if scope is None:
        if call.action in UNSIGNED:
            return
        raise Denied("MissingAuthenticationToken", "Request is missing Authentication Token")
    key, region, service = scope
    with cloud.lock:
        caller = find(cloud, key)
    if caller is None:
        raise unknown(service)
    call.caller = caller.arn
    if caller.token and headers.get("x-amz-security-token") != caller.token:
        raise unknown(service)
    if caller.ends and caller.ends < datetime.now(timezone.utc):
        raise Denied("RequestExpired" if service == "ec2" else "ExpiredToken", "The security token included in the request is expired", 400 if service in ("ec2", "s3") else 403)
    _check_signature(caller, key, region, service, method, path, headers, body)
    if enforce and caller.documents is not None:
        _check_policies(cloud, call, caller, service)


def unknown(service):
    if service == "ec2":
        return Denied("AuthFailure", "AWS was not able to validate the provided access credentials", 401)
    if service == "s3":
        return Denied("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
    return Denied("InvalidClientTokenId", "The security token included in the request is invalid.")


def _check_signature(caller, key, region, service, method, path, headers, body):
    signed = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    request = AWSRequest(method=method, url=path, data=body, headers={name: headers.get(name, "") for name in signed})
    if "x-amz-content-sha256" in headers:
        request.headers["X-Amz-Content-SHA256"] = headers["x-amz-content-sha256"]
    request.context["timestamp"] = headers.get("x-amz-date", "")
    auth = (S3SigV4Auth if service == "s3" else SigV4Auth)(Credentials(key, caller.secret, caller.token), service, region)
    auth.headers_to_sign = lambda _: _only(request.headers, signed)
    expected = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    if expected != headers["authorization"].partition("Signature=")[2].partition(",")[0].strip():
        code, status = ("AuthFailure", 401) if service == "ec2" else ("SignatureDoesNotMatch", 403)
        raise Denied(code, "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.", status)


def _only(headers, names):
    found = HTTPMessage()
    for name in names:
        found[name] = headers.get(name, "")
    return found


def _check_policies(cloud, call, caller, service):
    action = f"{service}:{call.action}"
    if action == "sts:GetCallerIdentity":
        return
    resource = policies.resource_of(cloud, call)
    if not policies.allows(caller.documents, policies.PERMISSIONS.get(action, action), resource, call):
        code = "UnauthorizedOperation" if service == "ec2" else "AccessDeniedException" if call.protocol in ("json", "rest-json") else "AccessDenied"
        raise Denied(code, f"User: {caller.arn} is not authorized to perform: {action}" + (f" on resource: {resource}" if resource else ""))
