//! What the server says, as S3 says it.

use axum::body::Body;
use bytes::Bytes;
use hyper::{Response, StatusCode};

use super::bucket::Stored;

/// A no, and why.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub status: u16,
    pub code: &'static str,
    pub message: String,
    /// The region that it names.
    pub region: Option<String>,
}

impl Refusal {
    pub fn new(status: u16, code: &'static str, message: &str) -> Refusal {
        Refusal { status, code, message: message.to_owned(), region: None }
    }

    pub fn slow_down() -> Refusal {
        Refusal::new(503, "SlowDown", "Please reduce your request rate.")
    }

    pub fn internal_error() -> Refusal {
        Refusal::new(500, "InternalError", "We encountered an internal error. Please try again.")
    }

    pub fn timed_out() -> Refusal {
        Refusal::new(
            400,
            "RequestTimeout",
            "Your socket connection to the server was not read from or written to within the timeout period.",
        )
    }

    pub fn conflict() -> Refusal {
        Refusal::new(409, "ConditionalRequestConflict", "The conditional request cannot succeed due to a conflicting operation.")
    }

    pub fn access_denied() -> Refusal {
        Refusal::new(403, "AccessDenied", "Access Denied")
    }

    pub fn no_such_bucket() -> Refusal {
        Refusal::new(404, "NoSuchBucket", "The specified bucket does not exist")
    }

    pub fn no_such_key() -> Refusal {
        Refusal::new(404, "NoSuchKey", "The specified key does not exist.")
    }

    pub fn precondition_failed() -> Refusal {
        Refusal::new(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
    }

    pub fn expired_token() -> Refusal {
        Refusal::new(400, "ExpiredToken", "The provided token has expired.")
    }

    pub fn invalid_access_key() -> Refusal {
        Refusal::new(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
    }

    pub fn signature_does_not_match() -> Refusal {
        Refusal::new(403, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided.")
    }

    pub fn too_skewed() -> Refusal {
        Refusal::new(403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
    }

    pub fn permanent_redirect(region: &str) -> Refusal {
        let message = "The bucket you are attempting to access must be addressed using the specified endpoint.";
        Refusal { region: Some(region.to_owned()), ..Refusal::new(301, "PermanentRedirect", message) }
    }

    /// Signed for one region, and the bucket is in the other.
    pub fn malformed_authorization(signed: &str, region: &str) -> Refusal {
        let message = format!("The authorization header is malformed; the region '{signed}' is wrong; expecting '{region}'");
        Refusal { region: Some(region.to_owned()), ..Refusal::new(400, "AuthorizationHeaderMalformed", &message) }
    }

    /// An answer to HEAD has no body, and so no reason.
    pub fn response(&self, head: bool) -> Response<Body> {
        let region = self.region.as_ref().map(|region| format!("<Region>{region}</Region>")).unwrap_or_default();
        let (code, message) = (self.code, escaped(&self.message));
        let text =
            format!("{XML}<Error><Code>{code}</Code><Message>{message}</Message>{region}<RequestId>4442587FB7D0A2F9</RequestId></Error>");
        let mut response = Response::builder().status(self.status).header("content-type", "application/xml");
        if let (301, Some(region)) = (self.status, &self.region) {
            response = response.header("x-amz-bucket-region", region);
        }
        response.body(if head { Body::empty() } else { text.into() }).expect("its parts are fine")
    }
}

const XML: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// A page of a list.
pub fn list(bucket: &str, prefix: &str, objects: &[(&String, &Stored)], more: bool) -> Response<Body> {
    let mut text = format!("{XML}<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>{bucket}</Name>");
    text += &format!("<Prefix>{}</Prefix><KeyCount>{}</KeyCount><IsTruncated>{more}</IsTruncated>", escaped(prefix), objects.len());
    if let (true, Some((last, _))) = (more, objects.last()) {
        text += &format!("<NextContinuationToken>{}</NextContinuationToken>", hex::encode(last));
    }
    for (key, stored) in objects {
        text += &format!("<Contents><Key>{}</Key><Size>{}</Size>", escaped(key), stored.content.len());
        text += &format!("<ETag>{}</ETag><StorageClass>STANDARD</StorageClass></Contents>", escaped(&stored.version));
    }
    text += "</ListBucketResult>";
    Response::builder().header("content-type", "application/xml").body(text.into()).expect("its parts are fine")
}

/// An object, or these bytes of it.
pub fn object(stored: &Stored, part: Option<(usize, usize)>) -> (Response<Body>, Bytes) {
    let length = stored.content.len();
    let mut response = Response::builder().header("etag", &stored.version).header("accept-ranges", "bytes");
    response = response.header("last-modified", stored.written.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
    let content = match part {
        Some((from, end)) => {
            response = response.status(StatusCode::PARTIAL_CONTENT).header("content-range", format!("bytes {from}-{}/{length}", end - 1));
            stored.content.slice(from..end)
        }
        None => stored.content.clone(),
    };
    let mut response = response.header("content-length", content.len()).body(Body::empty()).expect("its parts are fine");
    response.headers_mut().extend(stored.metadata.clone());
    (response, content)
}

/// Nothing more to say.
pub fn done(status: StatusCode, version: Option<&str>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    if let Some(version) = version {
        response = response.header("etag", version);
    }
    response.body(Body::empty()).expect("its parts are fine")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
