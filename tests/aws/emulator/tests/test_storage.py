"""S3: objects are kept by SeaweedFS, buckets' settings by moto; who comes in is known."""
import hashlib
import json
import os
import time
import unittest

import botocore.exceptions
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.httpsession import URLLib3Session

from .support import Case


class Storage(Case):
    def setUp(self):
        super().setUp()
        self.s3 = self.region.client("s3")
        self.bucket = self.name
        self.s3.create_bucket(Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})

    def refused(self, code, action, **words):
        with self.assertRaises(botocore.exceptions.ClientError) as caught:
            action(**words)
        self.assertEqual(caught.exception.response["Error"]["Code"], code)

    def test_conditional_writes_have_one_winner(self):
        first = self.s3.put_object(Bucket=self.bucket, Key="clusters/a/marker", Body=b"one", IfNoneMatch="*")
        self.refused("PreconditionFailed", self.s3.put_object, Bucket=self.bucket, Key="clusters/a/marker", Body=b"two", IfNoneMatch="*")
        self.s3.put_object(Bucket=self.bucket, Key="clusters/a/marker", Body=b"three", IfMatch=first["ETag"])
        self.refused("PreconditionFailed", self.s3.put_object, Bucket=self.bucket, Key="clusters/a/marker", Body=b"four", IfMatch=first["ETag"])
        self.refused("NoSuchKey", self.s3.put_object, Bucket=self.bucket, Key="not/there", Body=b"five", IfMatch=first["ETag"])
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="clusters/a/marker")["Body"].read(), b"three")

    def test_large_objects_ranges_lists_and_checksums(self):
        content = os.urandom(20 << 20)
        began = time.monotonic()
        self.s3.put_object(Bucket=self.bucket, Key="big", Body=content)
        took = time.monotonic() - began
        began = time.monotonic()
        self.assertEqual(hashlib.md5(self.s3.get_object(Bucket=self.bucket, Key="big")["Body"].read()).digest(), hashlib.md5(content).digest())
        print(f"20 MiB: written at {20 / took:.0f} MiB/s, read at {20 / (time.monotonic() - began):.0f} MiB/s")
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="big", Range="bytes=5-9")["Body"].read(), content[5:10])
        upload = self.s3.create_multipart_upload(Bucket=self.bucket, Key="parts")["UploadId"]
        parts = [{"PartNumber": number, "ETag": self.s3.upload_part(Bucket=self.bucket, Key="parts", UploadId=upload, PartNumber=number, Body=content[:5 << 20])["ETag"]} for number in (1, 2)]
        self.s3.complete_multipart_upload(Bucket=self.bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})
        self.assertEqual(self.s3.head_object(Bucket=self.bucket, Key="parts")["ContentLength"], 10 << 20)
        self.assertEqual([one["Key"] for one in self.s3.list_objects_v2(Bucket=self.bucket)["Contents"]], ["big", "parts"])
        self.refused("BadDigest", self.s3.put_object, Bucket=self.bucket, Key="x", Body=b"x", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
        self.refused("NoSuchKey", self.s3.get_object, Bucket=self.bucket, Key="nothing")
        self.refused("NoSuchBucket", self.s3.get_object, Bucket="is-not-there-at-all", Key="nothing")
        self.refused("BucketNotEmpty", self.s3.delete_bucket, Bucket=self.bucket)
        for key in ("big", "parts"):
            self.s3.delete_object(Bucket=self.bucket, Key=key)
        self.s3.delete_bucket(Bucket=self.bucket)
        self.refused("404", self.s3.head_bucket, Bucket=self.bucket)

    def test_bodies_with_a_checksum_behind_them_are_taken_and_checked(self):
        """As other SDKs send them: in pieces, without a signature of each, the checksum last."""
        for checksum, status in (("NhCmhg==", 200), ("AAAAAA==", 400)):
            body = f"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:{checksum}\r\n\r\n".encode()
            words = self.region.description["environment"]
            request = AWSRequest("PUT", f"{words['AWS_ENDPOINT_URL_S3']}/{self.bucket}/pieces", data=body, headers={
                "X-Amz-Content-SHA256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "Content-Encoding": "aws-chunked", "X-Amz-Decoded-Content-Length": "5", "X-Amz-Trailer": "x-amz-checksum-crc32"})
            auth = S3SigV4Auth(Credentials(words["AWS_ACCESS_KEY_ID"], words["AWS_SECRET_ACCESS_KEY"]), "s3", "eu-central-1")
            auth.payload = lambda _: "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
            auth.add_auth(request)
            self.assertEqual(URLLib3Session().send(request.prepare()).status_code, status)
        read = self.s3.get_object(Bucket=self.bucket, Key="pieces")
        self.assertEqual((read["Body"].read(), read.get("ContentEncoding")), (b"hello", None))

    def test_settings_of_a_bucket_are_kept(self):
        key = self.region.client("kms").create_key()["KeyMetadata"]["Arn"]
        self.s3.put_public_access_block(Bucket=self.bucket, PublicAccessBlockConfiguration=dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True))
        self.assertTrue(self.s3.get_public_access_block(Bucket=self.bucket)["PublicAccessBlockConfiguration"]["BlockPublicPolicy"])
        self.s3.put_bucket_encryption(Bucket=self.bucket, ServerSideEncryptionConfiguration={"Rules": [
            {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}, "BucketKeyEnabled": True}]})
        self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        self.assertEqual(self.s3.get_bucket_versioning(Bucket=self.bucket)["Status"], "Enabled")
        self.s3.put_bucket_lifecycle_configuration(Bucket=self.bucket, LifecycleConfiguration={"Rules": [
            {"ID": "abort", "Status": "Enabled", "Filter": {"Prefix": ""}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2}}]})
        self.assertEqual(self.s3.get_bucket_lifecycle_configuration(Bucket=self.bucket)["Rules"][0]["ID"], "abort")
        self.s3.put_bucket_tagging(Bucket=self.bucket, Tagging={"TagSet": [{"Key": "team", "Value": "db"}]})
        self.assertEqual(self.s3.get_bucket_tagging(Bucket=self.bucket)["TagSet"][0]["Value"], "db")
        written = self.s3.put_object(Bucket=self.bucket, Key="a", Body=b"a", Metadata={"mine": "kept"})
        read = self.s3.head_object(Bucket=self.bucket, Key="a")
        self.assertEqual((read["ServerSideEncryption"], read["SSEKMSKeyId"], read["Metadata"]), ("aws:kms", key, {"mine": "kept"}))
        self.s3.put_object(Bucket=self.bucket, Key="a", Body=b"b")
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="a", VersionId=written["VersionId"])["Body"].read(), b"a")
        self.refused("InvalidBucketName", lambda: self.s3._make_api_call("CreateBucket", {"Bucket": "Not_A_Name"}))
        self.refused("BucketAlreadyOwnedByYou", self.s3.create_bucket, Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})

    def test_who_is_not_known_or_signs_wrongly_is_refused(self):
        key = self.region.description["environment"]["AWS_ACCESS_KEY_ID"]
        self.refused("SignatureDoesNotMatch", self.region.client("s3", (key, "wrong")).list_objects_v2, Bucket=self.bucket)
        self.refused("InvalidAccessKeyId", self.region.client("s3", ("AKIANOBODY", "wrong")).list_objects_v2, Bucket=self.bucket)
        self.refused("AuthFailure", self.region.client("ec2", (key, "wrong")).describe_vpcs)
        self.refused("InvalidClientTokenId", self.region.client("autoscaling", ("AKIANOBODY", "wrong")).describe_auto_scaling_groups)

    def test_policies_hold_by_action_and_prefix_when_that_is_wanted(self):
        policy = {"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": f"arn:aws:s3:::{self.bucket}/mine/*"},
            {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{self.bucket}", "Condition": {"StringLike": {"s3:prefix": "mine/*"}}},
            {"Effect": "Allow", "Action": "autoscaling:Describe*", "Resource": "*"}]}
        self.iam.create_user(UserName=self.name)
        self.iam.put_user_policy(UserName=self.name, PolicyName="p", PolicyDocument=json.dumps(policy))
        made = self.iam.create_access_key(UserName=self.name)["AccessKey"]
        key = (made["AccessKeyId"], made["SecretAccessKey"])
        self.region.control("/policies", {"enforce": True})
        self.addCleanup(self.region.control, "/policies", {"enforce": False})
        mine = self.region.client("s3", key)
        mine.put_object(Bucket=self.bucket, Key="mine/a", Body=b"a")
        mine.list_objects_v2(Bucket=self.bucket, Prefix="mine/")
        self.refused("AccessDenied", mine.put_object, Bucket=self.bucket, Key="other/a", Body=b"a")
        self.refused("AccessDenied", mine.delete_object, Bucket=self.bucket, Key="mine/a")
        self.refused("AccessDenied", mine.list_objects_v2, Bucket=self.bucket, Prefix="other/")
        self.region.client("autoscaling", key).describe_auto_scaling_groups()
        self.refused("AccessDenied", self.region.client("autoscaling", key).set_desired_capacity, AutoScalingGroupName="x", DesiredCapacity=1)
        self.refused("UnauthorizedOperation", self.region.client("ec2", key).describe_instances)
        self.region.client("sts", key).get_caller_identity()


if __name__ == "__main__":
    unittest.main()
