//! Commands inside containers, and their logs.

use spilo::provisioner::{LogWish, Platform as _, ProvisionError};

use crate::support::Scratch;

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
