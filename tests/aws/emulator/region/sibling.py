"""What `docker run` on an instance asks for, as it is asked of the engine underneath."""


class Refusal(Exception):
    """An answer of the machine's engine: something that does not exist here, or (`plain`) that would not on any."""

    def __init__(self, what, status=501, plain=False):
        super().__init__(what if plain else f"the Docker engine of the emulated region does not do this: {what}")
        self.status = status


# None of these may be given: they would reach other machines, or this one.
REFUSED = ("Privileged", "Devices", "DeviceRequests", "DeviceCgroupRules", "VolumesFrom", "VolumeDriver", "CgroupParent", "Links", "Dns", "DnsOptions", "DnsSearch",
           "ExtraHosts", "PublishAllPorts", "Isolation", "Runtime")
# Names of modes that need no translation.
HARMLESS = {"IpcMode": ("", "private", "shareable", "none"), "UTSMode": ("",), "UsernsMode": ("",), "CgroupnsMode": ("", "private", "host")}


def translate(body, engine):
    """Changes the definition of a container in place; `engine` is the machine's."""
    host = body.setdefault("HostConfig", {})
    for name in REFUSED:
        if host.get(name) and host[name] not in ("default", "runc"):
            raise Refusal(f"HostConfig.{name}={host[name]}")
    _network(body, host, engine)
    if host.get("PidMode") == "host":
        host["PidMode"] = f"container:{engine.machine.container}"
    elif host.get("PidMode"):
        raise Refusal(f"--pid {host['PidMode']}")
    if host.get("UTSMode") == "host":
        # It is the machine's by its network already.
        host["UTSMode"] = ""
    for name, harmless in HARMLESS.items():
        if host.get(name, "") not in harmless:
            raise Refusal(f"HostConfig.{name}={host[name]}")
    host["Binds"] = [_bind(bind, engine) for bind in host.get("Binds") or []]
    for mount in host.get("Mounts") or []:
        _mount(mount, engine)
    _environment(body, engine)


def _network(body, host, engine):
    mode = host.get("NetworkMode", "default")
    if mode == "none":
        return
    if mode.startswith("container:"):
        engine.find(mode.partition(":")[2])
    elif mode != "host":
        raise Refusal(f"--network {mode}: a container has the network of its instance; hint: --network host")
    host["NetworkMode"] = f"container:{engine.machine.container}"
    # As with the host's network they mean nothing, but the engine minds them beside another container's.
    for name in ("Hostname", "Domainname", "ExposedPorts", "NetworkingConfig", "MacAddress"):
        body.pop(name, None)
    host.pop("PortBindings", None)


def _source(source, engine, make):
    """A path, or the name of a volume: that lies on the machine's disk, where its own engine would keep it."""
    path = source if source.startswith("/") else f"/var/lib/docker/volumes/{source}/_data"
    return engine.path_on_host(path, make or path != source)


def _bind(bind, engine):
    source, _, rest = bind.partition(":")
    if not rest:
        raise Refusal(f"an anonymous volume: -v {bind}")
    return f"{_source(source, engine, make=True)}:{rest}"


def _mount(mount, engine):
    if mount["Type"] == "tmpfs":
        return
    if mount["Type"] not in ("bind", "volume") or not mount.get("Source") or mount.get("VolumeOptions", {}).get("DriverConfig"):
        raise Refusal(f"--mount {mount}")
    mount["Source"] = _source(mount["Source"], engine, make=False)
    mount["Type"] = "bind"
    mount.pop("VolumeOptions", None)


def _environment(body, engine):
    """Addresses of AWS, which programs would find by its names anywhere else. What is given is kept."""
    given = body.get("Env") or []
    names = {word.partition("=")[0] for word in given}
    body["Env"] = given + [f"{name}={value}" for name, value in engine.hypervisor.endpoints.items() if name not in names]
