"""EC2 says in its own words that it does not know an instance profile, and may learn of a new one only after a while, as in AWS."""
from datetime import datetime, timedelta, timezone

import moto.ec2.models.iam_instance_profile as models
import moto.ec2.responses.instances as responses
from moto.ec2.exceptions import EC2ClientError
from moto.iam.exceptions import NotFoundException


def apply(lag):
    """`lag` is how many seconds a new profile is unknown to EC2."""
    find = models.filter_iam_instance_profiles

    def filter_iam_instance_profiles(account_id, partition, iam_instance_profile_arn=None, iam_instance_profile_name=None):
        name = iam_instance_profile_name or iam_instance_profile_arn
        try:
            found = find(account_id, partition, iam_instance_profile_arn, iam_instance_profile_name)
        except NotFoundException:
            found = None
        if found is None or datetime.now(timezone.utc) - found.create_date.replace(tzinfo=timezone.utc) < timedelta(seconds=lag):
            what = "name" if iam_instance_profile_name else "arn"
            raise EC2ClientError("InvalidParameterValue", f"Value ({name}) for parameter iamInstanceProfile.{what} is invalid. Invalid IAM Instance Profile {what}")
        return found

    models.filter_iam_instance_profiles = responses.filter_iam_instance_profiles = filter_iam_instance_profiles
