//! What help says. The usage line of every command is held here: changing one is changing what people have in their scripts.

use crate::spilo::spilo;

const USAGE: &[(&str, &str)] = &[
    ("create cluster", "Usage: spilo create cluster [OPTIONS] [NAME]"),
    ("restore", "Usage: spilo restore [OPTIONS] --from <OLD> <NEW>"),
    ("apply", "Usage: spilo apply [OPTIONS] [NAME]"),
    ("plan", "Usage: spilo plan [OPTIONS] [NAME]"),
    ("status", "Usage: spilo status [OPTIONS] <NAME>"),
    ("list", "Usage: spilo list [OPTIONS]"),
    ("connect", "Usage: spilo connect [OPTIONS] <NAME> [-- <PSQL ARGUMENTS>...]"),
    ("dsn", "Usage: spilo dsn [OPTIONS] <NAME>"),
    ("switchover", "Usage: spilo switchover [OPTIONS] <NAME>"),
    ("scale", "Usage: spilo scale [OPTIONS] <NAME> <N>"),
    ("logs", "Usage: spilo logs [OPTIONS] <NAME>"),
    ("backup create", "Usage: spilo backup create [OPTIONS] <NAME>"),
    ("backup list", "Usage: spilo backup list [OPTIONS] [NAME]"),
    ("backup show", "Usage: spilo backup show [OPTIONS] [NAME] [BACKUP]"),
    ("backup restore", "Usage: spilo backup restore [OPTIONS] --store <STORE> --cluster <NAME> <DIR>"),
    ("backup verify", "Usage: spilo backup verify [OPTIONS] [NAME] [BACKUP]"),
    ("backup drill", "Usage: spilo backup drill [OPTIONS] [NAME] [BACKUP]"),
    ("backup expire", "Usage: spilo backup expire [OPTIONS] [NAME]"),
    ("backup pin", "Usage: spilo backup pin [OPTIONS] [NAME] [BACKUP]"),
    ("backup unpin", "Usage: spilo backup unpin [OPTIONS] [NAME] [BACKUP]"),
    ("backup key new", "Usage: spilo backup key new [OPTIONS] <FILE>"),
    ("backup key add", "Usage: spilo backup key add [OPTIONS] [NAME] <FILE>"),
    ("backup key list", "Usage: spilo backup key list [OPTIONS] [NAME]"),
    ("backup key remove", "Usage: spilo backup key remove [OPTIONS] [NAME] <KEY>"),
    ("wal check", "Usage: spilo wal check [OPTIONS] [NAME]"),
    ("delete cluster", "Usage: spilo delete cluster [OPTIONS] <NAME>"),
    ("image build", "Usage: spilo image build [OPTIONS]"),
    ("image list", "Usage: spilo image list [OPTIONS]"),
    ("doctor", "Usage: spilo doctor [OPTIONS]"),
    ("completion", "Usage: spilo completion [OPTIONS] <SHELL>"),
    ("version", "Usage: spilo version [OPTIONS]"),
];

#[test]
fn every_command_has_its_usage_line_by_flag_and_by_topic() {
    for (command, usage) in USAGE {
        let words: Vec<&str> = command.split(' ').collect();
        let by_flag = spilo(&[&words[..], &["--help"]].concat()).exits(0).prints(usage).stdout;
        let by_topic = spilo(&[&["help"], &words[..]].concat()).exits(0).prints(usage).stdout;
        assert!(by_flag.lines().next().is_some_and(|about| !about.is_empty()), "{command} does not say what it is for");
        assert_eq!(by_flag.trim_end(), by_topic.trim_end(), "{command}");
    }
}

#[test]
fn the_list_of_commands_is_the_one_that_is_tested() {
    let help = spilo(&["--help"]).exits(0).stdout;
    let listed: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let expected = [
        "create",
        "restore",
        "apply",
        "plan",
        "status",
        "list",
        "connect",
        "dsn",
        "switchover",
        "scale",
        "logs",
        "delete",
        "cluster",
        "backup",
        "wal",
        "image",
        "doctor",
        "completion",
        "version",
        "help",
    ];
    assert_eq!(listed, expected, "{help}");
}

#[test]
fn the_options_of_a_new_cluster_are_explained_with_their_defaults() {
    let help = spilo(&["create", "cluster", "--help"]).exits(0).stdout;
    for option in [
        "-f, --file <SPEC>",
        "--nodes <N>",
        "Number of PostgreSQL nodes, 1 to 9 [default: 3]",
        "--pg <VERSION>",
        "--durability <DURABILITY>",
        "[possible values: quorum, async]",
        "--etcd <N>",
        "--port <PORT>",
        "--image <IMAGE>",
        "--from-source [<DIRECTORY>]",
        "--plan",
        "[alias: --dry-run]",
        "--exit-code",
        "--timeout <TIME>",
        "Repeating the command continues an interrupted creation",
    ] {
        assert!(help.contains(option), "'{option}' is missing in:\n{help}");
    }
}

#[test]
fn every_exit_code_is_explained() {
    let text = spilo(&["help", "exit-codes"]).exits(0).stdout;
    let codes: Vec<u32> = text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 10, 20, 21, 130]);
}

/// The example in the help is itself a spec that reads.
#[test]
fn the_spec_in_the_help_is_valid() {
    let text = spilo(&["help", "spec"]).exits(0).stdout;
    let yaml: String = text.lines().filter_map(|line| line.strip_prefix("  ")).map(|line| format!("{line}\n")).collect();
    let spec = spilo::spec::parse_spec(&yaml, &spilo::spec::SpecOverrides::default()).unwrap().spec;
    assert_eq!((spec.name.as_str(), spec.port), ("orders", Some(5432)));
}

#[test]
fn the_environment_is_explained() {
    let help = spilo(&["help", "environment"]).exits(0);
    help.prints("DOCKER_HOST").prints("NO_COLOR").prints("SPILO_LOG").prints("XDG_STATE_HOME");
}
