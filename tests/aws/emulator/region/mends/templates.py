"""Versions of launch templates are made of another one and changes to it, and what tags the template itself is no part of its data."""
import copy

from moto.ec2.models.launch_templates import LaunchTemplate
from moto.ec2.responses.launch_templates import LaunchTemplates
from moto.ec2.utils import parse_user_data


def apply():
    make_template, make_version = LaunchTemplate.__init__, LaunchTemplates.create_launch_template_version

    def __init__(self, backend, name, template_data, version_description, tag_spec):
        if template_data.get("TagSpecifications"):
            template_data["TagSpecifications"] = [one for one in template_data["TagSpecifications"] if one["ResourceType"] != "launch-template"]
        make_template(self, backend, name, template_data, version_description, tag_spec)

    def create_launch_template_version(self):
        template = self._get_param("LaunchTemplateName") and self.ec2_backend.get_launch_template_by_name(self._get_param("LaunchTemplateName")) \
            or self.ec2_backend.get_launch_template(self._get_param("LaunchTemplateId"))
        data = self._get_param("LaunchTemplateData", {})
        if data.get("UserData") is not None:
            data["UserData"] = parse_user_data(data["UserData"])
        if source := self._get_param("SourceVersion"):
            for key, value in copy.deepcopy(dict(template.get_version(source).data)).items():
                if data.get(key) is None:
                    data[key] = value
        self.params["LaunchTemplateData"] = data
        return make_version(self)

    LaunchTemplate.__init__ = __init__
    LaunchTemplates.create_launch_template_version = create_launch_template_version
