//! `spilo help [TOPIC]`

use clap::CommandFactory;

use crate::{
    cli::{Cli, CommandError, Context, ErrorKind, Exit, output::print},
    spec::nearest,
};

/// Explain a command or a topic: exit-codes, spec, environment
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A command such as `create cluster`, or a topic
    topic: Vec<String>,
}

const TOPICS: &[(&str, &str)] = &[("exit-codes", EXIT_CODES), ("spec", SPEC), ("environment", ENVIRONMENT)];

const EXIT_CODES: &str = "\
Exit codes

    0  all went well; for status: healthy
    1  the operation failed
    2  the command line or the spec is wrong
    3  waiting took longer than allowed; what was started goes on
    4  there is no such cluster or member
    5  the Docker engine does not let us
    6  refused: protection, another command at work, an unsafe request
    7  some of it was done; the same command again continues
   10  plan --exit-code: there are changes
   20  status: degraded (writes are accepted, something else is missing); a backup with damaged pages in it; wal check: a fault
   21  status: critical (nobody takes writes); backup verify: something is damaged or missing; backup drill: it cannot be restored;
       wal check: the newest backup cannot be recovered to the end of the WAL
  130  interrupted; the same command again continues

With -o json an error is one JSON object on standard error: {\"code\", \"message\", \"hints\"}.";

const SPEC: &str = "\
The spec file (spilo create cluster -f FILE); everything but the name may be left out

  name: orders              # lower-case letters, digits, dashes; at most 24 characters
  nodes: 3                  # 1 to 9
  postgres:
    version: 17             # 15 to 18
    parameters:             # what postgresql.conf takes
      max_connections: 200
  ha:
    durability: quorum      # or async: a failover may lose the newest commits
    ttl: 5                  # seconds that the leader's lease lasts
    loop_wait: 1            # loop_wait + 2 x retry_timeout must not exceed ttl
    retry_timeout: 2
  archive:                  # where base backups and WAL are kept
    store: volume           # or s3://BUCKET/PREFIX, or none
    key_file: null          # a file here with the key that all of it is encrypted with (spilo backup key new FILE)
    endpoint: null          # S3 only, as is what follows: where it answers, if that is not Amazon's
    region: null
    credentials_file: null  # a file here with the key to the bucket, in the form of ~/.aws/credentials
  clone_from: null          # or {cluster: NAME}: it begins with that cluster's backup, recovered to the end of its WAL or to one of
                            # at: TIME, lsn: X/Y, xid: N, restore_point: NAME, immediate: true; more: exclusive: true (just before at,
                            # lsn, xid), timeline: latest|current|N, backup: ID, system: NUMBER
  docker:
    etcd: 1                 # or 3
    port: 5432              # first of three ports on 127.0.0.1; left out: the next free ones
    image: null             # a finished image instead of one built here

Options on the command line win over the file.";

const ENVIRONMENT: &str = "\
Environment variables

  DOCKER_HOST      where the Docker engine listens, such as unix:///run/user/1000/docker.sock
  NO_COLOR         no colours
  CI               plain lines instead of spinners, and no questions
  SPILO_LOG        what is logged on standard error, such as spilo=debug
  XDG_STATE_HOME   where password files for clients are kept (default ~/.local/state), in spilo/";

/// Prints the topic's text, or the long help of a command.
pub fn run(_context: &Context, args: &Args) -> Result<Exit, CommandError> {
    match args.topic.as_slice() {
        [topic] if text_of(topic).is_some() => print(text_of(topic).unwrap_or_default())?,
        path => print(&command_help(path)?)?,
    }
    Ok(Exit::OK)
}

fn text_of(topic: &str) -> Option<&'static str> {
    TOPICS.iter().find(|(name, _)| *name == topic).map(|(_, text)| *text)
}

fn command_help(path: &[String]) -> Result<String, CommandError> {
    let mut root = Cli::command();
    root.build();
    let mut command = &mut root;
    for word in path {
        if command.find_subcommand(word).is_none() {
            return Err(unknown(word, command));
        }
        command = command.find_subcommand_mut(word).expect("it was just found");
    }
    Ok(command.render_long_help().to_string())
}

fn unknown(word: &str, command: &clap::Command) -> CommandError {
    let topics = TOPICS.iter().map(|(topic, _)| *topic).filter(|_| command.get_name() == "spilo");
    let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).chain(topics).collect();
    let error = CommandError::new(ErrorKind::Usage, format!("there is no command or topic '{word}'"));
    match nearest(word, &names) {
        Some(near) => error.hint(format!("did you mean '{near}'?")),
        None => error.hint("spilo help"),
    }
}
