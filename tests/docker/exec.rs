//! Commands inside containers, and their logs.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use spilo::provisioner::{LogWish, Platform as _, ProvisionError};

use crate::support::{Scratch, engine};

fn command(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[tokio::test]
async fn output_errors_and_exit_code_come_back_apart() {
    let Some(scratch) = Scratch::new(1).await else { return };
    scratch.create().await;
    let node = scratch.container("1");
    let said = scratch.platform.exec(&node, &command(&["sh", "-c", "echo out; echo err >&2; exit 3"]), None).await.unwrap();
    assert_eq!((said.stdout.as_slice(), said.stderr.as_slice(), said.exit_code), (&b"out\n"[..], &b"err\n"[..], 3));
    let large = vec![b'x'; 300_000];
    let echoed = scratch.platform.exec(&node, &command(&["cat"]), Some(&large)).await.unwrap();
    assert!(echoed.stdout == large && echoed.exit_code == 0, "{} bytes came back", echoed.stdout.len());
}

/// The variables by which a test tells a process of its own what to run where.
const CONTAINER: &str = "TEST_CONTAINER";
const SCRIPT: &str = "TEST_SCRIPT";

/// In the process that the tests of attached commands watch from outside: runs the command. In the tests themselves: nothing.
async fn attach_if_told() {
    let (Ok(container), Ok(script)) = (std::env::var(CONTAINER), std::env::var(SCRIPT)) else { return };
    let platform = engine().await.expect("the parent has an engine");
    let code = platform.exec_attached(&container, &command(&["sh", "-c", &script])).await.unwrap();
    println!("it ended with {code}");
    // The test harness would catch a panic of its own threads, but the reader of standard input is allowed to outlive us.
    std::process::exit(0);
}

/// Runs the test of this name in a process of its own, where it attaches to the script. `wrapper` takes a command as its first argument.
fn attached(test: &str, scratch: &Scratch, script: &str, wrapper: &[&str], input: &str) -> String {
    let this = std::env::current_exe().unwrap().display().to_string();
    let harness = format!("{this} --exact exec::{test} --nocapture");
    let mut words = wrapper.to_vec();
    // `script` writes its protocol to the file that follows the command; `sh` takes it for a name and ignores it.
    words.extend([harness.as_str(), "/dev/null"]);
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .env(CONTAINER, scratch.container("1"))
        .env(SCRIPT, script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
}

#[tokio::test]
async fn an_attached_command_reads_our_pipe_to_its_end() {
    attach_if_told().await;
    let Some(scratch) = Scratch::new(1).await else { return };
    scratch.create().await;
    let (test, script) = ("an_attached_command_reads_our_pipe_to_its_end", "tr a-z A-Z; test -t 0 && echo terminal; exit 4");
    let seen = attached(test, &scratch, script, &["sh", "-c"], "some\ninput\n");
    assert!(seen.contains("SOME\nINPUT\n") && seen.contains("it ended with 4") && !seen.contains("terminal"), "{seen}");
}

#[tokio::test]
async fn an_attached_command_has_a_terminal_where_we_have_one() {
    attach_if_told().await;
    let Some(scratch) = Scratch::new(1).await else { return };
    scratch.create().await;
    let script = "test -t 0 && test -t 1 && echo a terminal; read line; echo \"got $line\"; exit 6";
    let seen = attached("an_attached_command_has_a_terminal_where_we_have_one", &scratch, script, &["script", "-qec"], "hello\n");
    assert!(seen.contains("a terminal\n") && seen.contains("got hello\n") && seen.contains("it ended with 6"), "{seen}");
}

#[tokio::test]
async fn a_container_that_is_not_there_is_named() {
    let Some(scratch) = Scratch::new(1).await else { return };
    let error = scratch.platform.exec(&scratch.container("1"), &command(&["true"]), None).await.unwrap_err();
    assert!(matches!(&error, ProvisionError::Engine { .. }) && error.to_string().contains(&scratch.container("1")), "{error}");
}

#[tokio::test]
async fn a_log_is_read_line_by_line_and_only_its_end_if_that_is_wanted() {
    let Some(scratch) = Scratch::new(1).await else { return };
    scratch.create().await;
    let mut lines = Vec::new();
    let wish = LogWish { tail: Some(1), ..LogWish::default() };
    for _ in 0..50 {
        scratch.platform.logs(&scratch.container("1"), wish, &mut |line| lines.push(line)).await.unwrap();
        if !lines.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let expected = format!("waiting agent /etc/spilo/agent.yml --name {0}-1 --address {0}-1", scratch.name);
    assert_eq!(lines.iter().map(|line| (line.is_error, line.text.as_str())).collect::<Vec<_>>(), [(false, expected.as_str())]);
}
