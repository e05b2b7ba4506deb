//! What a request to KMS that failed means: a reason to ask again, something that somebody has to change, or that the key is not the right one.

use std::error::Error;

use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};

use crate::{
    storage::{attempts::Pause, unanswered::Unanswered},
    sys::causes,
};

/// What is asked of KMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Encrypt,
    Decrypt,
}

/// Why a request was not successful.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The same request may be successful later.
    Again {
        /// How much later.
        pause: Pause,
        /// What happened.
        why: String,
    },
    /// It will never be, before somebody changes something.
    Refused(String),
    /// It was wrapped with another key, for another purpose, or was changed since.
    NotWrappedSo(String),
}

/// What was asked, of whom, and with what, for messages.
pub struct Asked {
    pub verb: Verb,
    /// The whole name of the key.
    pub key: String,
    /// Who was asked.
    pub server: String,
    /// Where the credentials come from, as a message says it after their name.
    pub credentials: String,
}

impl Asked {
    /// What the failure means.
    pub fn failure<E: Error + ProvideErrorMetadata + 'static>(&self, error: &SdkError<E>) -> Failure {
        let again = |why| Failure::Again { pause: Pause::Short, why };
        match error {
            SdkError::ServiceError(answer) => {
                let said = (answer.err().code().unwrap_or_default(), answer.err().message().unwrap_or_default());
                self.meaning(said.0, said.1, answer.raw().status().as_u16())
            }
            SdkError::ResponseError(answer) if !answer.raw().status().is_success() => self.meaning("", "", answer.raw().status().as_u16()),
            SdkError::ConstructionFailure(_) => Failure::Refused(format!("the request cannot be made: {}", causes::in_one_line(error))),
            SdkError::DispatchFailure(failure) => match Unanswered::of(error, failure, &self.server, &self.credentials) {
                Unanswered::Broken(why) => again(why),
                Unanswered::Distrusted(why) => Failure::Refused(why),
                Unanswered::NoCredentials(why) => Failure::Again { pause: Pause::Long, why },
            },
            _ => again(format!("{}: {}", self.server, causes::in_one_line(error))),
        }
    }

    /// What it means that KMS says so.
    fn meaning(&self, code: &str, message: &str, status: u16) -> Failure {
        let (server, credentials) = (&self.server, &self.credentials);
        let said = match (code, message.trim_end_matches('.')) {
            ("", _) => format!("{server} says HTTP status {status}"),
            (code, "") => format!("{server} says {code}"),
            (code, message) => format!("{server} says {code}: {message}"),
        };
        let again = |pause, why| Failure::Again { pause, why };
        let refused = |hint: &str| Failure::Refused(format!("{said}; hint: {hint}"));
        match code {
            "InvalidCiphertextException" | "IncorrectKeyException" => Failure::NotWrappedSo(said),
            "KeyUnavailableException"
            | "DependencyTimeoutException"
            | "KMSInternalException"
            | "InternalFailure"
            | "ServiceUnavailable" => again(Pause::Short, said),
            "LimitExceededException" | "RequestLimitExceeded" | "TooManyRequestsException" => again(Pause::Long, said),
            code if code.contains("Throttl") => again(Pause::Long, said),
            "AccessDeniedException" => {
                let action = match self.verb {
                    Verb::Encrypt => "kms:Encrypt",
                    Verb::Decrypt => "kms:Decrypt",
                };
                refused(&format!("allow {action} on '{}' to the credentials {credentials}, in the key's policy or theirs", self.key))
            }
            "DisabledException" => refused(&format!("enable it: aws kms enable-key --key-id {}", self.key)),
            "KMSInvalidStateException" if message.contains("pending deletion") => {
                let undo = format!("aws kms cancel-key-deletion --key-id {0}, then aws kms enable-key --key-id {0}", self.key);
                refused(&format!("what was encrypted with it is lost with it: {undo}"))
            }
            "KMSInvalidStateException" => refused("look at its state: aws kms describe-key"),
            "NotFoundException" => refused("is its name right, and is it in this region and account?"),
            "InvalidKeyUsageException" => refused("take a symmetric key that encrypts and decrypts (SYMMETRIC_DEFAULT)"),
            "ExpiredTokenException" | "ExpiredToken" => {
                let why = format!("the credentials {credentials} have expired; hint: renew them, they are read again by themselves");
                again(Pause::Long, why)
            }
            "UnrecognizedClientException" | "InvalidClientTokenId" => {
                Failure::Refused(format!("{server} does not know the access key {credentials} ({code}); hint: check it there"))
            }
            "InvalidSignatureException" if message.contains("expired") || message.contains("not yet current") => {
                refused("set this machine's clock, and keep it right by NTP")
            }
            "InvalidSignatureException" | "SignatureDoesNotMatch" => {
                Failure::Refused(format!("the secret key {credentials} does not belong to its access key; hint: check both there"))
            }
            _ if status == 429 => again(Pause::Long, said),
            _ if status >= 500 || status == 408 => again(Pause::Short, said),
            _ => refused("does this server speak the language of AWS KMS, and is the key right?"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd";

    fn meaning(verb: Verb, code: &str, message: &str, status: u16) -> Failure {
        let asked = Asked { verb, key: KEY.to_owned(), server: "KMS".to_owned(), credentials: "in '/etc/key'".to_owned() };
        asked.meaning(code, message, status)
    }

    #[test]
    fn what_may_pass_is_asked_again_and_nothing_else() {
        for (code, status, pause) in [
            ("ThrottlingException", 400, Pause::Long),
            ("LimitExceededException", 400, Pause::Long),
            ("KMSInternalException", 500, Pause::Short),
            ("DependencyTimeoutException", 503, Pause::Short),
            ("KeyUnavailableException", 500, Pause::Short),
            ("ExpiredTokenException", 400, Pause::Long),
            ("", 503, Pause::Short),
            ("", 429, Pause::Long),
        ] {
            let Failure::Again { pause: found, why } = meaning(Verb::Decrypt, code, "Not now.", status) else { panic!("{code} passes") };
            assert_eq!(found, pause, "{code}: {why}");
        }
        for code in ["InvalidCiphertextException", "IncorrectKeyException"] {
            assert!(matches!(meaning(Verb::Decrypt, code, "", 400), Failure::NotWrappedSo(why) if why.contains(code)));
        }
    }

    #[test]
    fn what_somebody_has_to_change_is_one_sentence_with_what_to_do() {
        for (code, message, hint) in [
            ("AccessDeniedException", "User: ann is not authorized.", "allow kms:Decrypt on 'arn:aws:kms"),
            ("DisabledException", "It is disabled.", "enable-key"),
            ("KMSInvalidStateException", "It is pending deletion.", "cancel-key-deletion"),
            ("KMSInvalidStateException", "It is pending import.", "describe-key"),
            ("NotFoundException", "Key 'x' does not exist", "region"),
            ("InvalidKeyUsageException", "", "SYMMETRIC_DEFAULT"),
            ("UnrecognizedClientException", "The security token is invalid.", "'/etc/key'"),
            ("InvalidSignatureException", "Signature expired: 20261122T080000Z is now earlier than …", "clock"),
            ("InvalidSignatureException", "The request signature we calculated does not match", "secret key"),
            ("ValidationException", "1 validation error", "speak the language"),
        ] {
            let Failure::Refused(why) = meaning(Verb::Decrypt, code, message, 400) else { panic!("{code} does not pass") };
            assert!(why.contains(hint) && why.contains("hint: ") && !why.contains('\n'), "{code}: {why}");
        }
        let Failure::Refused(why) = meaning(Verb::Encrypt, "AccessDeniedException", "", 400) else { panic!("it does not pass") };
        assert!(why.contains("allow kms:Encrypt on") && why.contains("in '/etc/key'"), "{why}");
    }
}
