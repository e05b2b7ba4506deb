//! What it means that a request to AWS, or to whatever speaks its language, was not answered.

use std::{error::Error, iter::successors};

use aws_sdk_s3::error::SdkError;
use aws_smithy_runtime_api::client::result::DispatchFailure;

use crate::sys::causes;

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The line, or the other end of it: it may pass.
    Broken(String),
    /// The other end is not who it says it is.
    Distrusted(String),
    /// There is nothing to sign the request with. It may come yet: a role is not known from the first second of a machine's life.
    NoCredentials(String),
}

impl Unanswered {
    /// What it means; `server` is who was asked, and `credentials` says where those come from.
    pub fn of<E: Error + 'static>(error: &SdkError<E>, failure: &DispatchFailure, server: &str, credentials: &str) -> Unanswered {
        let cause = failure.as_connector_error().and_then(Error::source);
        let what = cause.map_or_else(|| causes::in_one_line(error), causes::in_one_line);
        if what.contains("invalid peer certificate") {
            let hint = "have it signed by an authority that this machine trusts (/etc/ssl/certs, or SSL_CERT_FILE)";
            return Unanswered::Distrusted(format!("{server}: {what}; hint: {hint}"));
        }
        // A server that hangs up in the middle of an exchange is neither: that is an error of the protocol.
        let broke = successors(cause, |error| (*error).source()).any(|error| error.is::<hyper::Error>());
        if failure.is_io() || failure.is_timeout() || broke {
            return Unanswered::Broken(format!("{server}: {what}"));
        }
        Unanswered::NoCredentials(format!("no credentials {credentials}: {what}; hint: name a file with them, or give the machine a role"))
    }
}
