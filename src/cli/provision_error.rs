//! The provisioner's errors as a command's: class to kind, hint to hint.

use super::{CommandError, ErrorKind};
use crate::provisioner::{ErrorClass, ImageError, ProvisionError};

impl From<ProvisionError> for CommandError {
    fn from(error: ProvisionError) -> CommandError {
        with_hint(kind(error.class()), error.hint(), error)
    }
}

impl From<ImageError> for CommandError {
    fn from(error: ImageError) -> CommandError {
        with_hint(kind(error.class()), error.hint(), error)
    }
}

fn with_hint(kind: ErrorKind, hint: Option<String>, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CommandError {
    let error = CommandError::new(kind, error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn kind(class: ErrorClass) -> ErrorKind {
    match class {
        ErrorClass::Failed => ErrorKind::Failed,
        ErrorClass::Usage => ErrorKind::Usage,
        ErrorClass::NotFound => ErrorKind::NotFound,
        ErrorClass::NotPermitted => ErrorKind::NotPermitted,
        ErrorClass::Refused => ErrorKind::Refused,
        ErrorClass::PartlyApplied => ErrorKind::PartlyApplied,
        ErrorClass::Interrupted => ErrorKind::Interrupted,
    }
}
