//! What we answer.
//!
//! A request ends in one of three ways. It succeeds. The sender is at fault, and gets one of the fixed codes
//! of [`ErrorCode`] with what to do about it. Or we are at fault (store or secrets out of reach): then the
//! answer is 503, the sender tries again, and the detail goes to the log alone. No answer holds an expected
//! value, a secret or anything of the sender's body. A handler returns [`Answer`], never an error: the runtime
//! would print the error and answer 502.

use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use lambda_http::{Body, Response};
use serde::Serialize;
use serde_json::json;

use crate::secrets::SecretError;

/// An HTTP answer.
pub type Answer = Response<Body>;

/// The fixed set of error codes, each with what to do about it. Adding one is a change of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum ErrorCode {
    /// 401: `X-Hub-Signature-256` is missing, malformed or wrong, or the signature of a `signed_request` is.
    #[error(
        "sign with the app secret of the app that owns the webhook: the exact body as X-Hub-Signature-256, or the payload of the signed_request"
    )]
    SignatureInvalid,
    /// 400: the form has no `signed_request` as Meta makes them.
    #[error(
        "post the form field `signed_request` as Meta makes it: HMAC-SHA256, issued now or before, for a person"
    )]
    SignedRequestMalformed,
    /// 401: the bearer token (or the Standard Webhooks signature) is missing or wrong.
    #[error(
        "send `Authorization: Bearer` with the token of this route's secret, or a valid Standard Webhooks signature where the route takes one"
    )]
    TokenInvalid,
    /// 403: `hub.mode` or `hub.verify_token` is missing or wrong.
    #[error("send hub.mode=subscribe and the verify token of the meta secret")]
    VerifyTokenInvalid,
    /// 400: the verify token is right, but `hub.challenge` is missing.
    #[error("send hub.challenge")]
    ChallengeMissing,
    /// 413: the body is larger than [`super::receive::MAX_BODY_BYTES`].
    #[error("send at most 4 MiB")]
    BodyTooLarge,
    /// 404: nobody with this conversation id has written.
    #[error("send the conversation_id of a message that was handed to you")]
    ConversationUnknown,
    /// 404: no business with this external business id has ever installed the app.
    #[error("send the external business id, percent-encoded, of a business that has installed the app")]
    InstallUnknown,
    /// 403: the conversation is on a route with credentials of its own, and these are others.
    #[error("sign, or send the token, with the credentials of the route that the conversation is on")]
    ConversationForeign,
    /// 409: the 24-hour window is closed, and there is no template campaign.
    #[error("the person wrote more than 24 hours ago; set a template campaign to answer later")]
    WindowClosed,
    /// 404: no contact of that user or with that id has written.
    #[error("the person has to write first, and be linked to be reached by `user_id`")]
    ContactUnknown,
    /// 404: no erasure has this code.
    #[error("use the confirmation code of a request, within a year")]
    ErasureUnknown,
    /// 409: the person's window is closed for this kind of message.
    #[error(
        "the person acted too long ago; filter the campaign by the window, or send what may leave outside of it"
    )]
    #[strum(serialize = "window_closed")]
    SendWindowClosed,
    /// 409: the person wants no messages.
    #[error("the person wants no messages; filter the campaign by the opt-out")]
    OptedOut,
    /// 409: Meta could not reach the person, and they have not acted since.
    #[error("Meta cannot reach the person until they act again")]
    Unreachable,
    /// 409: Meta has ended the message tag.
    #[error("Meta has ended this tag; send a utility template instead")]
    TagRetired,
    /// 503: a secret cannot be read or is not filled in.
    #[error("try again later; the function's log says more")]
    SecretsUnavailable,
    /// 503: DynamoDB did not take it.
    #[error("try again later; the function's log says more")]
    StoreUnavailable,
    /// 405: the route knows only other methods.
    #[error("see the list of routes")]
    MethodNotAllowed,
}

impl ErrorCode {
    fn status(self) -> StatusCode {
        match self {
            Self::SignedRequestMalformed | Self::ChallengeMissing => StatusCode::BAD_REQUEST,
            Self::SignatureInvalid | Self::TokenInvalid => StatusCode::UNAUTHORIZED,
            Self::VerifyTokenInvalid | Self::ConversationForeign => StatusCode::FORBIDDEN,
            Self::ConversationUnknown
            | Self::InstallUnknown
            | Self::ContactUnknown
            | Self::ErasureUnknown => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::WindowClosed
            | Self::SendWindowClosed
            | Self::OptedOut
            | Self::Unreachable
            | Self::TagRetired => StatusCode::CONFLICT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SecretsUnavailable | Self::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// `{"error": code, "message": what to do}` under the code's status.
    #[must_use]
    pub fn answer(self) -> Answer {
        let code: &str = self.into();
        let body = json!({"error": code, "message": self.to_string()});
        let mut answer = json(self.status(), &body);
        if self == Self::TokenInvalid {
            let headers = answer.headers_mut();
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        answer
    }
}

/// 400 with the field that is at fault and what is expected of it.
#[must_use]
pub fn field_invalid(field: &str, expected: &str) -> Answer {
    let message = format!("`{field}` {expected}");
    let body = json!({"error": "field_invalid", "message": message});
    json(StatusCode::BAD_REQUEST, &body)
}

/// A plain text with the status 200.
#[must_use]
pub fn text(body: impl Into<String>) -> Answer {
    build("text/plain; charset=utf-8", body)
}

/// A page of HTML with the status 200, which loads nothing and runs nothing.
#[must_use]
pub fn html(body: impl Into<String>) -> Answer {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";
    let mut answer = build("text/html; charset=utf-8", body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    answer
}

/// JSON under a status.
#[must_use]
pub fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let text = serde_json::to_string(body).unwrap_or_default();
    let mut answer = build("application/json", text);
    *answer.status_mut() = status;
    answer
}

fn build(content_type: &'static str, body: impl Into<String>) -> Answer {
    let mut answer = Response::new(Body::Text(body.into()));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Logs why secrets cannot be had, and makes the 503 for it.
pub fn secrets_unavailable(error: &SecretError) -> Answer {
    tracing::error!(%error, "secrets are unavailable");
    ErrorCode::SecretsUnavailable.answer()
}
