//! What led to an error, in words.

use std::error::Error;

/// The error and its causes in one line. Many messages already name their cause; those are not told twice.
pub fn in_one_line(error: &dyn Error) -> String {
    let mut line = trimmed(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = trimmed(error);
        if !line.contains(&more) {
            line = format!("{line}: {more}");
        }
        cause = error.source();
    }
    line
}

/// Some libraries write sentences; more may follow here.
fn trimmed(error: &dyn Error) -> String {
    error.to_string().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not start.")]
    struct Outer(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("could not start: {0}")]
    struct Named(#[source] io::Error);

    #[test]
    fn the_chain_is_one_line() {
        assert_eq!(in_one_line(&Outer(io::Error::other("disk on fire"))), "could not start: disk on fire");
    }

    #[test]
    fn a_cause_that_the_message_names_is_not_told_twice() {
        assert_eq!(in_one_line(&Named(io::Error::other("disk on fire"))), "could not start: disk on fire");
    }
}
