//! What a request that failed means: an answer, a reason to ask again, or something that somebody has to change.

use std::{error::Error, fmt, time::SystemTime};

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    primitives::{DateTime, DateTimeFormat},
};

use super::{S3Store, attempts::Pause, verb::Verb};
use crate::{
    model::{ObjectName, StoreUrl},
    storage::{StoreError, unanswered::Unanswered},
    sys::causes,
};

/// An answer that is no success, and means something all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// There is no such object. Never said of a bucket that is not there.
    NoSuchKey,
    /// What the request was made to depend on is not so.
    Precondition,
    /// The object ends before the range begins.
    BeyondTheEnd,
    /// No, without a reason: the answer to HEAD has no room for one.
    Unexplained,
}

impl Answer {
    /// Where such an answer makes no sense.
    pub fn unexpected(self, object: &ObjectName) -> StoreError {
        let what = match self {
            Answer::NoSuchKey => "that there is no such object",
            Answer::Precondition => "that a condition does not hold which was not set",
            Answer::BeyondTheEnd => "that a range lies beyond the end which was not asked for",
            Answer::Unexplained => "no, and not why",
        };
        StoreError::Unavailable { object: object.to_string(), why: format!("the server answers {what}") }
    }
}

/// Why a request was not successful.
#[derive(Debug)]
pub enum Failure {
    /// It was answered.
    Answer(Answer),
    /// The same request may be successful later.
    Again {
        /// How much later.
        pause: Pause,
        /// What happened.
        why: String,
    },
    /// The credentials are not good; there may be others by now.
    Credentials {
        /// What is wrong with them, and what to do.
        why: String,
        /// They were good.
        expired: bool,
    },
    /// It will never be, before somebody changes something.
    Refused(String),
}

/// Where a store is, for requests and for messages.
#[derive(Debug)]
pub struct Place {
    pub bucket: String,
    pub prefix: String,
    pub region: String,
    /// Who is asked, as a message names it.
    pub server: String,
    /// Where the credentials come from, as a message says it after their name.
    pub credentials: String,
    /// The server is Amazon's own.
    pub is_aws: bool,
    /// The line to it is encrypted.
    pub is_encrypted: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bucket, prefix) = (self.bucket.clone(), self.prefix.clone());
        StoreUrl::S3 { bucket, prefix }.fmt(f)
    }
}

impl Place {
    /// What the object is called in the bucket.
    pub fn key(&self, name: &ObjectName) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}/{name}", self.prefix) }
    }

    /// The same error, of the store as a whole instead of one of its objects.
    pub fn about(&self, error: StoreError) -> StoreError {
        error.about(self.to_string())
    }

    /// The right that a request needs, and on what.
    fn permission(&self, verb: Verb) -> String {
        let bucket = format!("arn:aws:s3:::{}", self.bucket);
        let objects = if self.prefix.is_empty() { format!("{bucket}/*") } else { format!("{bucket}/{}/*", self.prefix) };
        match verb {
            Verb::Put => format!("s3:PutObject on {objects}"),
            Verb::Get | Verb::Head => {
                format!("s3:GetObject on {objects}, and s3:ListBucket on {bucket}, without which S3 does not say what is not there")
            }
            Verb::List => format!("s3:ListBucket on {bucket}"),
            Verb::Delete => format!("s3:DeleteObject on {objects}"),
        }
    }
}

/// What a server says that refuses.
struct Said {
    status: u16,
    code: String,
    message: String,
    /// The region of the bucket, when it is another one.
    region: Option<String>,
    /// The server's clock.
    date: Option<SystemTime>,
}

impl S3Store {
    /// What the failure of a request of this kind means.
    pub fn failure<E: Error + ProvideErrorMetadata + 'static>(&self, verb: Verb, error: &SdkError<E>) -> Failure {
        let place = self.place();
        match error {
            SdkError::ServiceError(answer) => place.meaning(verb, &Said::of(answer.raw(), answer.err())),
            SdkError::ResponseError(answer) if !answer.raw().status().is_success() => place.meaning(verb, &Said::of(answer.raw(), error)),
            SdkError::ConstructionFailure(_) => Failure::Refused(format!("the request cannot be made: {}", causes::in_one_line(error))),
            SdkError::DispatchFailure(failure) => match Unanswered::of(error, failure, &place.server, &place.credentials) {
                Unanswered::Broken(why) => Failure::Again { pause: Pause::Short, why },
                Unanswered::Distrusted(why) => Failure::Refused(why),
                Unanswered::NoCredentials(why) => Failure::Credentials { why, expired: true },
            },
            _ => Failure::Again { pause: Pause::Short, why: format!("{}: {}", place.server, causes::in_one_line(error)) },
        }
    }
}

impl Place {
    fn meaning(&self, verb: Verb, said: &Said) -> Failure {
        let again = |pause| Failure::Again { pause, why: format!("{} says {said}", self.server) };
        match (said.code.as_str(), said.status) {
            ("NoSuchKey", _) if verb != Verb::Put => Failure::Answer(Answer::NoSuchKey),
            ("PreconditionFailed", _) | (_, 412) => Failure::Answer(Answer::Precondition),
            ("InvalidRange", _) | (_, 416) => Failure::Answer(Answer::BeyondTheEnd),
            ("SlowDown" | "TooManyRequests" | "RequestLimitExceeded", _) | (_, 429 | 503) => again(Pause::Long),
            (code, _) if code.contains("Throttl") => again(Pause::Long),
            ("NotImplemented", _) | (_, 501) => self.refused(said, "this server lacks what spilo needs, such as conditional writes"),
            // Others write or remove the same name at the same moment, or it was damaged on its way.
            (_, 408 | 409 | 500..) | ("NoSuchKey" | "RequestTimeout" | "IncompleteBody" | "BadDigest" | "XAmzContentSHA256Mismatch", _) => {
                again(Pause::Short)
            }
            _ if verb == Verb::Head => Failure::Answer(Answer::Unexplained),
            _ => self.lasting(verb, said),
        }
    }

    /// What somebody has to do something about.
    fn lasting(&self, verb: Verb, said: &Said) -> Failure {
        let (bucket, credentials) = (&self.bucket, &self.credentials);
        match (said.code.as_str(), said.status) {
            ("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired", _) => {
                let why = format!("the credentials {credentials} have expired; hint: renew them, they are read again by themselves");
                Failure::Credentials { why, expired: true }
            }
            ("InvalidAccessKeyId" | "InvalidToken" | "InvalidClientTokenId", _) => {
                let why = format!("{} does not know the access key {credentials} ({}); hint: check it there", self.server, said.code);
                Failure::Credentials { why, expired: false }
            }
            ("SignatureDoesNotMatch", _) => {
                let why = format!("the secret key {credentials} does not belong to its access key; hint: check both there");
                Failure::Credentials { why, expired: false }
            }
            ("RequestTimeTooSkewed", _) => Failure::Refused(self.skew(said)),
            ("NoSuchBucket", _) => {
                Failure::Refused(format!("{} knows no bucket '{bucket}'; hint: create it, or correct the store's location", self.server))
            }
            ("PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _)
            | (_, 301 | 307) => Failure::Refused(self.elsewhere(said)),
            ("AccessDenied" | "", 401 | 403) => self.refused(said, &format!("allow {}", self.permission(verb))),
            (_, 401..=403) => self.refused(said, &format!("ask whoever runs the bucket '{bucket}'")),
            _ => self.refused(said, &format!("does {} speak S3, and is the bucket '{bucket}' right?", self.server)),
        }
    }

    fn refused(&self, said: &Said, hint: &str) -> Failure {
        Failure::Refused(format!("{} says {said}; hint: {hint}", self.server))
    }

    fn elsewhere(&self, said: &Said) -> String {
        let (bucket, ours) = (&self.bucket, &self.region);
        match &said.region {
            Some(region) => {
                format!("bucket '{bucket}' is in region '{region}', not in '{ours}'; hint: set the store's region to '{region}'")
            }
            None => format!("bucket '{bucket}' is not in region '{ours}' ({said}); hint: set the store's region to where it is"),
        }
    }

    fn skew(&self, said: &Said) -> String {
        let now = SystemTime::now();
        let off = match said.date.map(|date| (now.duration_since(date), date.duration_since(now))) {
            Some((Ok(ahead), _)) => format!("{} s ahead of", ahead.as_secs()),
            Some((_, Ok(behind))) => format!("{} s behind", behind.as_secs()),
            _ => "too far from".to_owned(),
        };
        format!(
            "this machine's clock is {off} that of {}, which takes no requests then; hint: set the clock, keep it right by NTP",
            self.server
        )
    }
}

impl Said {
    fn of(response: &HttpResponse, error: &impl ProvideErrorMetadata) -> Said {
        let header = |name| response.headers().get(name).map(str::to_owned);
        let body = response.body().bytes().map(String::from_utf8_lossy).unwrap_or_default();
        let message = error.message().unwrap_or_default().to_owned();
        let region = header("x-amz-bucket-region").or_else(|| element(&body, "Region")).or_else(|| expected_region(&message));
        let date = header("date").and_then(|date| DateTime::from_str(&date, DateTimeFormat::HttpDate).ok());
        Said {
            status: response.status().as_u16(),
            code: error.code().unwrap_or_default().to_owned(),
            region,
            date: date.and_then(|date| SystemTime::try_from(date).ok()),
            message,
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Said { status, code, message, .. } = self;
        match (code.is_empty(), message.is_empty()) {
            (true, _) => write!(f, "HTTP status {status}"),
            (_, true) => write!(f, "{code}"),
            _ => write!(f, "{code}: {}", message.trim_end_matches('.')),
        }
    }
}

/// The content of the first such element.
fn element(document: &str, name: &str) -> Option<String> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    rest.split_once('<').map(|(content, _)| content.to_owned()).filter(|content| !content.is_empty())
}

/// `…; the region 'us-east-1' is wrong; expecting 'eu-central-1'`
fn expected_region(message: &str) -> Option<String> {
    message.split_once("expecting '")?.1.split_once('\'').map(|(region, _)| region.to_owned())
}
