//! Why a call to AWS failed, in words that hold nothing of its answer: an answer that the SDK cannot read is part of
//! its error, and may be a secret or a person's record.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

/// The service's code where it gave one, else what kind of failure it was.
#[must_use]
pub fn reason<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata,
{
    if let Some(code) = error.as_service_error().and_then(ProvideErrorMetadata::code) {
        return code.to_owned();
    }
    let kind = match error {
        SdkError::TimeoutError(_) => "timed out",
        SdkError::DispatchFailure(failure) if failure.is_timeout() => "timed out",
        SdkError::DispatchFailure(failure) if failure.is_io() => "connection failed",
        SdkError::DispatchFailure(_) => "not sent",
        SdkError::ConstructionFailure(_) => "request cannot be made",
        _ => "answer cannot be read",
    };
    kind.to_owned()
}
