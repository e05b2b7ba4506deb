//! All keys, each with what becomes of it.

/// What becomes of a key.
pub enum Key {
    /// It has an effect; its value is judged where it is read.
    Heeded,
    /// A section in which there are these keys. `true`: and no others; else others may be somebody's own.
    Section(bool, &'static [(&'static str, Key)]),
    /// No effect, and nobody is worse off for it.
    Idle(&'static str),
    /// Nobody may believe that it has an effect.
    Refused(&'static str),
    /// The same, unless it holds what is so anyway.
    Only(&'static [&'static str], &'static str),
}

use Key::{Heeded, Idle, Only, Refused, Section};

pub const ONE_STORE: &str = "there is one store, and it is 'etcd3'";
const PLAIN_ETCD: &str = "etcd is spoken to over HTTP without a password";
const PLAIN_SQL: &str = "connections between members are not encrypted, and log in with a password";
const OWN_CONNECTIONS: &str = "the REST API takes one connection for each request, 128 at a time";
const PLAIN_API: &str = "members and the command line speak HTTP";
const NO_THREADS: &str = "the agent has one thread";
const KEPT_ASIDE: &str =
    "data that cannot be rewound are replaced by a copy, stay beside it until it streams, and the WAL that only they have is kept";

pub const ROOT: Key = Section(
    false,
    &[
        ("scope", Heeded),
        ("namespace", Heeded),
        ("name", Heeded),
        ("thread_pool_size", Idle(NO_THREADS)),
        ("thread_stack_size", Idle(NO_THREADS)),
        ("log", Idle("the log goes to standard error, and the environment's 'SPILO_LOG' says what is logged")),
        ("restapi", RESTAPI),
        ("ctl", CTL),
        ("bootstrap", BOOTSTRAP),
        ("etcd3", ETCD3),
        ("etcd", Refused(ONE_STORE)),
        ("consul", Refused(ONE_STORE)),
        ("zookeeper", Refused(ONE_STORE)),
        ("exhibitor", Refused(ONE_STORE)),
        ("kubernetes", Refused(ONE_STORE)),
        ("raft", Refused(ONE_STORE)),
        ("citus", Refused("a cluster is one primary with its standbys")),
        ("postgresql", POSTGRESQL),
        ("watchdog", WATCHDOG),
        ("tags", Heeded),
        ("spilo", Section(true, &[("roles", Heeded), ("archive", ARCHIVE), ("begin_from", BEGIN_FROM)])),
    ],
);

const ARCHIVE: Key = Section(
    true,
    &[("store", Heeded), ("endpoint", Heeded), ("region", Heeded), ("credentials_file", Heeded), ("key_file", Heeded), ("cluster", Heeded)],
);

const BEGIN_FROM: Key = Section(
    true,
    &[
        ("store", Heeded),
        ("endpoint", Heeded),
        ("region", Heeded),
        ("credentials_file", Heeded),
        ("key_file", Heeded),
        ("cluster", Heeded),
        ("system", Heeded),
        ("at", Heeded),
        ("lsn", Heeded),
        ("xid", Heeded),
        ("restore_point", Heeded),
        ("immediate", Heeded),
        ("exclusive", Heeded),
        ("timeline", Heeded),
        ("backup", Heeded),
    ],
);

const RESTAPI: Key = Section(
    true,
    &[
        ("listen", Heeded),
        ("connect_address", Heeded),
        ("authentication", Heeded),
        ("certfile", Heeded),
        ("keyfile", Heeded),
        ("keyfile_password", Heeded),
        ("cafile", Heeded),
        ("ciphers", Heeded),
        ("verify_client", Heeded),
        ("allowlist", Heeded),
        ("allowlist_include_members", Heeded),
        ("http_extra_headers", Idle("answers have no headers but their own")),
        ("https_extra_headers", Idle(PLAIN_API)),
        ("request_queue_size", Idle(OWN_CONNECTIONS)),
        ("thread_pool_size", Idle(OWN_CONNECTIONS)),
        ("server_tokens", Idle("answers do not name the server")),
    ],
);

const CTL: Key = Section(
    true,
    &[
        ("authentication", Heeded),
        ("insecure", Idle(PLAIN_API)),
        ("cacert", Idle(PLAIN_API)),
        ("certfile", Idle(PLAIN_API)),
        ("keyfile", Idle(PLAIN_API)),
        ("keyfile_password", Idle(PLAIN_API)),
    ],
);

const BOOTSTRAP: Key = Section(
    false,
    &[
        ("dcs", Heeded),
        ("initdb", Heeded),
        ("pg_hba", Heeded),
        ("method", Only(&["initdb"], "a new cluster begins with initdb, and it would be empty")),
        ("post_bootstrap", Refused("nothing is run in a new cluster; roles and databases can be in 'spilo.roles'")),
        ("post_init", Refused("nothing is run in a new cluster; roles and databases can be in 'spilo.roles'")),
        ("users", Idle("Patroni 4 creates none either; roles can be in 'spilo.roles'")),
    ],
);

const ETCD3: Key = Section(
    true,
    &[
        ("host", Heeded),
        ("hosts", Heeded),
        ("url", Heeded),
        ("port", Heeded),
        ("protocol", Heeded),
        // No members are discovered beyond those that are named.
        ("use_proxies", Heeded),
        ("proxy", Refused("the members of etcd are to be in 'etcd3.hosts'")),
        ("srv", Refused("the members of etcd are to be in 'etcd3.hosts'")),
        ("srv_suffix", Refused("the members of etcd are to be in 'etcd3.hosts'")),
        ("username", Refused(PLAIN_ETCD)),
        ("password", Refused(PLAIN_ETCD)),
        ("cacert", Refused(PLAIN_ETCD)),
        ("cert", Refused(PLAIN_ETCD)),
        ("key", Refused(PLAIN_ETCD)),
    ],
);

const POSTGRESQL: Key = Section(
    false,
    &[
        ("listen", Heeded),
        ("connect_address", Heeded),
        ("proxy_address", Heeded),
        ("data_dir", Heeded),
        ("bin_dir", Heeded),
        ("pgpass", Heeded),
        ("authentication", Section(true, &[("superuser", ROLE), ("replication", ROLE), ("rewind", ROLE)])),
        ("use_unix_socket", Heeded),
        ("use_unix_socket_repl", Idle("no replication goes through a unix socket")),
        ("parameters", Heeded),
        ("recovery_conf", Heeded),
        ("pg_hba", Heeded),
        ("pg_ident", Heeded),
        ("callbacks", Heeded),
        ("pre_promote", Heeded),
        ("before_stop", Heeded),
        ("create_replica_methods", Heeded),
        ("create_replica_method", Heeded),
        ("basebackup", Refused("copies are made by pg_basebackup without options of yours")),
        ("config_dir", Heeded),
        ("config_base_name", Only(&["postgresql"], "PostgreSQL's configuration is in 'postgresql.conf'")),
        ("custom_conf", Refused("PostgreSQL's settings are to be in 'postgresql.parameters'")),
        ("bin_name", BIN_NAME),
        ("database", Only(&["postgres"], "the agent works in the database 'postgres'")),
        ("krbsrvname", Refused(PLAIN_SQL)),
        ("pg_ctl_timeout", Idle("how long a start or a stop may take follows from 'primary_start_timeout' and the lease")),
        ("use_pg_rewind", Heeded),
        ("use_slots", Idle("it holds for the whole cluster: set it over the REST API's '/config'")),
        ("remove_data_directory_on_rewind_failure", Idle(KEPT_ASIDE)),
        ("remove_data_directory_on_diverged_timelines", Idle(KEPT_ASIDE)),
    ],
);

const ROLE: Key = Section(
    true,
    &[
        ("username", Heeded),
        ("password", Heeded),
        ("password_file", Heeded),
        ("sslmode", Only(&["disable", "allow", "prefer"], PLAIN_SQL)),
        ("sslcert", Refused(PLAIN_SQL)),
        ("sslkey", Refused(PLAIN_SQL)),
        ("sslpassword", Refused(PLAIN_SQL)),
        ("sslrootcert", Refused(PLAIN_SQL)),
        ("sslcrl", Refused(PLAIN_SQL)),
        ("sslcrldir", Refused(PLAIN_SQL)),
        ("gssencmode", Only(&["disable", "prefer"], PLAIN_SQL)),
        ("channel_binding", Only(&["disable", "prefer"], PLAIN_SQL)),
        ("sslnegotiation", Only(&["postgres"], PLAIN_SQL)),
    ],
);

const OWN_NAME: &str = "PostgreSQL's programs go by their own names; 'postgresql.bin_dir' says where they are";

const BIN_NAME: Key = Section(
    true,
    &[
        ("pg_ctl", Only(&["pg_ctl"], OWN_NAME)),
        ("initdb", Only(&["initdb"], OWN_NAME)),
        ("pg_controldata", Only(&["pg_controldata"], OWN_NAME)),
        ("pg_basebackup", Only(&["pg_basebackup"], OWN_NAME)),
        ("postgres", Only(&["postgres"], OWN_NAME)),
        ("pg_isready", Only(&["pg_isready"], OWN_NAME)),
        ("pg_rewind", Only(&["pg_rewind"], OWN_NAME)),
    ],
);

const WATCHDOG: Key = Section(
    true,
    &[
        ("mode", Heeded),
        ("device", Heeded),
        ("safety_margin", Heeded),
        ("driver", Only(&["default"], "the device is driven as the kernel's watchdog")),
    ],
);
