"""Whether policies allow an action: by its name, and by the resource where we can tell it. Conditions are not looked at, but for S3's prefix."""
import json
from fnmatch import fnmatchcase

from .cloud import ACCOUNT

# What an action is called in policies where that is not its own name.
PERMISSIONS = {f"s3:{action}": f"s3:{permission}" for permission, actions in {
    "ListBucket": ("ListObjectsV2", "ListObjects", "HeadBucket"), "GetObject": ("HeadObject",), "ListAllMyBuckets": ("ListBuckets",), "DeleteObject": ("DeleteObjects",),
    "PutObject": ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "CopyObject", "UploadPartCopy"), "ListMultipartUploadParts": ("ListParts",),
    "ListBucketMultipartUploads": ("ListMultipartUploads",), "ListBucketVersions": ("ListObjectVersions",), "GetEncryptionConfiguration": ("GetBucketEncryption",),
    "PutEncryptionConfiguration": ("PutBucketEncryption",), "PutBucketPublicAccessBlock": ("PutPublicAccessBlock",), "GetBucketPublicAccessBlock": ("GetPublicAccessBlock",),
    "PutLifecycleConfiguration": ("PutBucketLifecycleConfiguration",), "GetLifecycleConfiguration": ("GetBucketLifecycleConfiguration",)}.items() for action in actions}


def document(policy):
    """A policy's text as what it says, whichever of moto's ways it is kept in."""
    if hasattr(policy, "versions"):
        policy = next(version.document for version in policy.versions if version.is_default)
    elif isinstance(policy, dict) and "policy_document" in policy:
        policy = policy["policy_document"]
    return json.loads(policy) if isinstance(policy, str) else policy


def of_user(iam, name):
    user = iam.users[name]
    inline = [iam.get_user_policy(name, policy) for policy in iam.list_user_policies(name)]
    return [document(policy) for policy in [*inline, *user.managed_policies.values()]]


def of_role(iam, name):
    role = next((role for role in iam.roles.values() if role.name == name), None)
    return [document(policy) for policy in [*role.policies.values(), *role.managed_policies.values()]] if role else []


def allows(documents, action, resource, call):
    """An explicit denial wins; otherwise somebody must have allowed it."""
    permitted = False
    for policy in documents:
        statements = policy["Statement"]
        for statement in statements if isinstance(statements, list) else [statements]:
            if not _concerns(statement, action, resource):
                continue
            if statement["Effect"] == "Deny":
                # Under which circumstances, we cannot tell.
                if "Condition" not in statement:
                    return False
            elif _prefix_fits(statement, call):
                permitted = True
    return permitted


def _concerns(statement, action, resource):
    named = any(fnmatchcase(action.lower(), pattern.lower()) for pattern in _list(statement.get("Action") or statement.get("NotAction")))
    if named == ("NotAction" in statement):
        return False
    if resource is None:
        return True
    patterns = _list(statement.get("Resource") or statement.get("NotResource") or "*")
    return any(fnmatchcase(resource, pattern.replace("[", "[[]")) for pattern in patterns) != ("NotResource" in statement)


def _prefix_fits(statement, call):
    wanted = {key: patterns for test in (statement.get("Condition") or {}).values() for key, patterns in test.items()}.get("s3:prefix")
    if wanted is None or call.service != "s3" or not call.action.startswith("ListObject"):
        return True
    return any(fnmatchcase(call.parameters.get("prefix", ""), pattern) for pattern in _list(wanted))


def _list(value):
    return value if isinstance(value, list) else [value]


def resource_of(cloud, call):
    """The ARN that the call is about; None where there is none, or we cannot tell."""
    wanted, here = call.parameters, f"{cloud.region}:{ACCOUNT}"
    match call.service:
        case "s3" if wanted.get("Bucket"):
            return f"arn:aws:s3:::{wanted['Bucket']}" + (f"/{wanted['Key']}" if wanted.get("Key") else "")
        case "secretsmanager" if wanted.get("SecretId"):
            known = next((one.arn for one in cloud.backend("secretsmanager").secrets.values() if wanted["SecretId"] in (one.name, one.arn)), None)
            return known or f"arn:aws:secretsmanager:{here}:secret:{wanted['SecretId']}-??????"
        case "secretsmanager" if wanted.get("Name"):
            return f"arn:aws:secretsmanager:{here}:secret:{wanted['Name']}-??????"
        case "ssm" if wanted.get("Name") or wanted.get("Path"):
            return f"arn:aws:ssm:{here}:parameter/{(wanted.get('Name') or wanted['Path']).lstrip('/')}"
        case "iam" if wanted.get("RoleName"):
            return f"arn:aws:iam::{ACCOUNT}:role/{wanted['RoleName']}"
        case "iam" if wanted.get("InstanceProfileName"):
            return f"arn:aws:iam::{ACCOUNT}:instance-profile/{wanted['InstanceProfileName']}"
        case "ecr" if wanted.get("repositoryName"):
            return f"arn:aws:ecr:{here}:repository/{wanted['repositoryName']}"
    return None
