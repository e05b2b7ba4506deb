//! Which machine this is.

/// Its name; in a container, the container's.
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Where a process number means something: the boot, and the namespace of process numbers; empty where the system does not tell. A name is
/// not enough: machines are cloned with theirs, and containers are called as somebody likes.
pub fn process_space() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = std::fs::read_link("/proc/self/ns/pid");
    match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => format!("{}/{}", boot.trim(), namespace.display()),
        _ => String::new(),
    }
}
