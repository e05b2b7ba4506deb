//! The server as a process of its own, for benchmarks and for clients in containers:
//! `SPILO_S3_LISTEN=127.0.0.1:9000 cargo test --release --test storage -- --ignored --nocapture serve`

use std::{env, str::FromStr, time::Duration};

use crate::s3::{KEY, Line, S3Double, Settings};

fn from_environment<T: FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}='{text}'")))
}

#[test]
#[ignore = "it serves until it is killed"]
fn serve() {
    let settings = Settings::default();
    let double = S3Double::start_with(Settings {
        listen: from_environment("SPILO_S3_LISTEN").unwrap_or(settings.listen),
        bucket: from_environment("SPILO_S3_BUCKET").unwrap_or(settings.bucket),
        line: Line {
            first_byte: from_environment("SPILO_S3_FIRST_BYTE_MS").map(Duration::from_millis).unwrap_or_default(),
            bytes_per_second: from_environment("SPILO_S3_BYTES_PER_SECOND"),
            busy: from_environment("SPILO_S3_BUSY").unwrap_or_default(),
        },
        ..settings
    });
    eprintln!("{} is ready: access key {KEY}, any secret key, region us-east-1", double.endpoint());
    loop {
        std::thread::park();
    }
}
