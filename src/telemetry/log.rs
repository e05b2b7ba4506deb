//! The log: always on standard error, because standard output belongs to data.

use std::io;

use tracing_subscriber::{
    EnvFilter,
    filter::{FilterFn, filter_fn},
    fmt::format::FmtSpan,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// The environment variable that overrides what is logged, such as `spilo=debug,tower=warn`.
const FILTER_VARIABLE: &str = "SPILO_LOG";

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// `warning …`, for a person at a terminal.
    #[default]
    Terse,
    /// Timestamp, level, room and fields, for a service's log.
    Full,
    /// One JSON object per line.
    Json,
}

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// A filter directive such as `info`; the environment overrides it.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
    /// Whether lines are coloured.
    pub colour: bool,
}

impl LogSettings {
    /// For a command at a terminal: warnings, with `-v` our own information, `-vv` our debugging, `-vvv` everything.
    pub fn command(verbosity: u8, colour: bool) -> LogSettings {
        let filter = match verbosity {
            0 => "warn",
            1 => "warn,spilo=info",
            2 => "warn,spilo=debug",
            _ => "trace",
        };
        LogSettings { filter: filter.to_owned(), format: LogFormat::Terse, colour }
    }

    /// For a service in a container: information with timestamps, no colour.
    pub fn service(format: LogFormat) -> LogSettings {
        LogSettings { filter: "info".to_owned(), format, colour: false }
    }
}

/// The filter in the environment cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{FILTER_VARIABLE}={filter}' is not a log filter: {reason}")]
pub struct InvalidLogFilter {
    filter: String,
    reason: String,
}

/// Starts the log for the whole process. Meant to be called once; when a log runs already (as in tests), it stays.
pub fn start_log(settings: &LogSettings) -> Result<(), InvalidLogFilter> {
    let filter = filter(settings, std::env::var(FILTER_VARIABLE).ok())?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(settings.colour)
        .with_span_events(FmtSpan::NONE);
    let already_running = match settings.format {
        LogFormat::Terse => log.without_time().with_target(false).finish().with(discreet()).try_init(),
        LogFormat::Full => log.finish().with(discreet()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).finish().with(discreet()).try_init(),
    };
    if let Err(error) = already_running {
        tracing::debug!(%error, "the log runs already");
    }
    Ok(())
}

/// Leaves out the AWS SDK, at every level and whatever the environment says: it names the keys that it signs with, shows whole requests and
/// answers, and warns of every place where it found no keys. What went wrong is in our own errors.
fn discreet() -> FilterFn<impl Fn(&tracing::Metadata<'_>) -> bool> {
    filter_fn(|event| !event.target().starts_with("aws_"))
}

fn filter(settings: &LogSettings, from_environment: Option<String>) -> Result<EnvFilter, InvalidLogFilter> {
    let directives = from_environment.filter(|text| !text.is_empty()).unwrap_or_else(|| settings.filter.clone());
    let builder = EnvFilter::builder();
    builder.parse(&directives).map_err(|error| InvalidLogFilter { filter: directives, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_overrides_the_settings() {
        let settings = LogSettings::command(0, false);
        assert_eq!(filter(&settings, None).unwrap().to_string(), "warn");
        assert_eq!(filter(&settings, Some(String::new())).unwrap().to_string(), "warn");
        assert_eq!(filter(&settings, Some("debug".to_owned())).unwrap().to_string(), "debug");
    }

    #[test]
    fn a_filter_that_is_none_is_named() {
        let error = filter(&LogSettings::command(0, false), Some("spilo=loud".to_owned())).unwrap_err().to_string();
        assert!(error.starts_with("'SPILO_LOG=spilo=loud' is not a log filter"), "{error}");
    }
}
