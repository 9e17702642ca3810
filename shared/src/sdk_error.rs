//! Why a call to AWS failed, in words that hold nothing of its answer: an answer that the SDK cannot read is part of
//! its error, and may be a secret or a person's record.

use std::error::Error;
use std::fmt::Debug;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

/// The service's code if it gave one; without any answer, what went wrong on the way.
#[must_use]
pub fn reason<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
    R: Debug,
{
    match error {
        // The service's message can quote an item's key; its code cannot.
        SdkError::ServiceError(answered) => answered
            .err()
            .code()
            .unwrap_or("answer cannot be read")
            .to_owned(),
        SdkError::ResponseError(_) => "answer cannot be read".to_owned(),
        unanswered => DisplayErrorContext(unanswered).to_string(),
    }
}

/// Whether the service has refused the call for good: it is neither down nor busy.
#[must_use]
pub fn is_refusal<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    // An answer that broke off says nothing.
    let Some(answered) = error.as_service_error() else {
        return false;
    };
    let code = answered.code();
    let is_busy = code.is_some_and(|code| code.contains("Throttl") || code.contains("TooManyRequests"));
    let status = error.raw_response().map(HttpResponse::status);
    status.is_some_and(|status| status.is_client_error() && status.as_u16() != 429) && !is_busy
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::error::ErrorMetadata;
    use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;

    use super::*;

    fn answered(error: GetSecretValueError) -> String {
        reason(&SdkError::service_error(error, "{\"SecretString\":\"hush\""))
    }

    #[test]
    fn an_answer_that_broke_off_refuses_nothing() {
        let answer = || HttpResponse::new(400.try_into().unwrap(), "".into());
        let denied = ErrorMetadata::builder().code("AccessDenied").build();
        let refused = SdkError::service_error(GetSecretValueError::generic(denied), answer());
        assert!(is_refusal(&refused));
        let broken_off = SdkError::<GetSecretValueError, _>::response_error("broke off", answer());
        assert!(!is_refusal(&broken_off));
    }

    #[test]
    fn an_answer_is_never_quoted() {
        let metadata = ErrorMetadata::builder().message("hush").build();
        assert_eq!(
            answered(GetSecretValueError::generic(metadata)),
            "answer cannot be read"
        );
        let metadata = ErrorMetadata::builder()
            .code("AccessDenied")
            .message("hush")
            .build();
        assert_eq!(answered(GetSecretValueError::generic(metadata)), "AccessDenied");
        let cut_off = SdkError::<GetSecretValueError, _>::response_error("cut off", "hush");
        assert_eq!(reason(&cut_off), "answer cannot be read");
    }

    #[test]
    fn without_an_answer_it_says_what_went_wrong() {
        let late = SdkError::<GetSecretValueError, ()>::timeout_error("after 3 s");
        assert!(reason(&late).contains("after 3 s"), "{}", reason(&late));
    }
}
