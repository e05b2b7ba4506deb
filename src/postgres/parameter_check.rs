//! Whether PostgreSQL would accept a parameter: it is asked itself, without a server that runs. Names, ranges and units differ between
//! versions, and a value it does not accept would keep it from starting.

use super::{Installation, PostgresError};
use crate::sys::process::{ProcessError, Run};

/// Why PostgreSQL refuses this value, in its own words; `None` when it accepts it. An error: it could not be asked.
pub async fn refusal(installation: &Installation, name: &str, value: &str) -> Result<Option<String>, PostgresError> {
    let data = installation.data_dir.to_string_lossy();
    let run = Run::new(installation.program("postgres")).args(["-D", &data, "-c", "log_destination=stderr"]);
    let asked = run.arg("-c").arg(format!("{name}={value}")).args(["-C", name]).env("LC_ALL", "C").output().await;
    match asked {
        Ok(_) => Ok(None),
        Err(ProcessError::Failed { program, status, output }) => match reason(&output) {
            Some(why) => Ok(Some(why)),
            None => Err(ProcessError::Failed { program, status, output }.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// The installed major version, such as 17.
pub async fn major_version(installation: &Installation) -> Result<u32, PostgresError> {
    let text = Run::new(installation.program("postgres")).arg("--version").output().await?;
    let word = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let major = word.and_then(|word| word.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    major.ok_or_else(|| PostgresError::Unexpected { program: "postgres", what: "no version".to_owned() })
}

/// The message and its hint, without the times and process ids before them; `None` when it is not about a parameter.
fn reason(output: &str) -> Option<String> {
    let after = |label: &str| output.lines().find_map(|line| Some(line.split_once(label)?.1.trim()));
    let message = after("FATAL:").filter(|message| message.contains("parameter"))?;
    let more = ["DETAIL:", "HINT:"].into_iter().filter_map(after);
    Some([message].into_iter().chain(more).collect::<Vec<_>>().join(". "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgresqls_words_are_kept_with_the_range_they_name() {
        let output = "2026-11-21 06:34:54 GMT [1] FATAL:  1 kB is outside the valid range for parameter \"work_mem\" (64 .. 2147483647)";
        assert_eq!(reason(output).unwrap(), "1 kB is outside the valid range for parameter \"work_mem\" (64 .. 2147483647)");
        let output = "x FATAL:  invalid value for parameter \"wal_level\": \"x\"\nx HINT:  Available values: minimal, replica, logical.";
        assert!(reason(output).unwrap().ends_with("\"x\". Available values: minimal, replica, logical."));
    }

    #[test]
    fn a_server_that_cannot_be_asked_has_not_refused() {
        assert_eq!(reason("postgres: could not access directory \"/x\": No such file or directory"), None);
        assert_eq!(reason("x FATAL:  data directory \"/x\" has wrong ownership"), None);
    }
}
