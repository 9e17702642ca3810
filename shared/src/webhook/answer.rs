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

/// The fixed set of error codes. Adding one is a change of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// 401: `X-Hub-Signature-256` is missing, malformed or wrong, or the signature of a `signed_request` is.
    SignatureInvalid,
    /// 400: the form has no `signed_request` as Meta makes them.
    SignedRequestMalformed,
    /// 401: the bearer token (or the Standard Webhooks signature) is missing or wrong.
    TokenInvalid,
    /// 403: `hub.mode` or `hub.verify_token` is missing or wrong.
    VerifyTokenInvalid,
    /// 400: the verify token is right, but `hub.challenge` is missing.
    ChallengeMissing,
    /// 413: the body is larger than [`super::receive::MAX_BODY_BYTES`].
    BodyTooLarge,
    /// 404: nobody with this conversation id has written.
    ConversationUnknown,
    /// 404: no business with this external business id has ever installed the app.
    InstallUnknown,
    /// 403: the conversation is on a route with credentials of its own, and these are others.
    ConversationForeign,
    /// 409: the 24-hour window is closed, and there is no template campaign.
    WindowClosed,
    /// 404: no contact of that user or with that id has written.
    ContactUnknown,
    /// 404: no erasure has this code.
    ErasureUnknown,
    /// 409: the person's window is closed for this kind of message.
    SendWindowClosed,
    /// 409: the person wants no messages.
    OptedOut,
    /// 409: Meta could not reach the person, and they have not acted since.
    Unreachable,
    /// 409: Meta has ended the message tag.
    TagRetired,
    /// 503: a secret cannot be read or is not filled in.
    SecretsUnavailable,
    /// 503: DynamoDB did not take it.
    StoreUnavailable,
    /// 405: the route knows only other methods.
    MethodNotAllowed,
}

impl ErrorCode {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::SignatureInvalid => (
                StatusCode::UNAUTHORIZED,
                "signature_invalid",
                "sign with the app secret of the app that owns the webhook: the exact body as X-Hub-Signature-256, or the payload of the signed_request",
            ),
            Self::SignedRequestMalformed => (
                StatusCode::BAD_REQUEST,
                "signed_request_malformed",
                "post the form field `signed_request` as Meta makes it: HMAC-SHA256, issued now or before, for a person",
            ),
            Self::TokenInvalid => (
                StatusCode::UNAUTHORIZED,
                "token_invalid",
                "send `Authorization: Bearer` with the token of this route's secret, or a valid Standard Webhooks signature where the route takes one",
            ),
            Self::VerifyTokenInvalid => (
                StatusCode::FORBIDDEN,
                "verify_token_invalid",
                "send hub.mode=subscribe and the verify token of the meta secret",
            ),
            Self::ChallengeMissing => (StatusCode::BAD_REQUEST, "challenge_missing", "send hub.challenge"),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "send at most 4 MiB",
            ),
            Self::ConversationUnknown => (
                StatusCode::NOT_FOUND,
                "conversation_unknown",
                "send the conversation_id of a message that was handed to you",
            ),
            Self::InstallUnknown => (
                StatusCode::NOT_FOUND,
                "install_unknown",
                "send the external business id, percent-encoded, of a business that has installed the app",
            ),
            Self::ConversationForeign => (
                StatusCode::FORBIDDEN,
                "conversation_foreign",
                "sign, or send the token, with the credentials of the route that the conversation is on",
            ),
            Self::WindowClosed => (
                StatusCode::CONFLICT,
                "window_closed",
                "the person wrote more than 24 hours ago; set a template campaign to answer later",
            ),
            Self::ContactUnknown => (
                StatusCode::NOT_FOUND,
                "contact_unknown",
                "the person has to write first, and be linked to be reached by `user_id`",
            ),
            Self::ErasureUnknown => (
                StatusCode::NOT_FOUND,
                "erasure_unknown",
                "use the confirmation code of a request, within a year",
            ),
            Self::SendWindowClosed => (
                StatusCode::CONFLICT,
                "window_closed",
                "the person acted too long ago; filter the campaign by the window, or send what may leave outside of it",
            ),
            Self::OptedOut => (
                StatusCode::CONFLICT,
                "opted_out",
                "the person wants no messages; filter the campaign by the opt-out",
            ),
            Self::Unreachable => (
                StatusCode::CONFLICT,
                "unreachable",
                "Meta cannot reach the person until they act again",
            ),
            Self::TagRetired => (
                StatusCode::CONFLICT,
                "tag_retired",
                "Meta has ended this tag; send a utility template instead",
            ),
            Self::SecretsUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "secrets_unavailable",
                "try again later; the function's log says more",
            ),
            Self::StoreUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "store_unavailable",
                "try again later; the function's log says more",
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "see the list of routes",
            ),
        }
    }

    /// The code as it is written in the body.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.parts().1
    }

    /// `{"error": code, "message": what to do}` under the code's status.
    #[must_use]
    pub fn answer(self) -> Answer {
        let (status, code, message) = self.parts();
        let mut answer = json(status, &json!({"error": code, "message": message}));
        if status == StatusCode::UNAUTHORIZED && self == Self::TokenInvalid {
            answer
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        answer
    }
}

/// 400 with the field that is at fault and what is expected of it.
#[must_use]
pub fn field_invalid(field: &str, expected: &str) -> Answer {
    json(
        StatusCode::BAD_REQUEST,
        &json!({"error": "field_invalid", "message": format!("`{field}` {expected}")}),
    )
}

/// A plain text with the status 200.
#[must_use]
pub fn text(body: impl Into<String>) -> Answer {
    build(
        StatusCode::OK,
        "text/plain; charset=utf-8",
        Body::Text(body.into()),
    )
}

/// A page of HTML with the status 200, which loads nothing and runs nothing.
#[must_use]
pub fn html(body: impl Into<String>) -> Answer {
    let mut answer = build(
        StatusCode::OK,
        "text/html; charset=utf-8",
        Body::Text(body.into()),
    );
    answer.headers_mut().insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
        ),
    );
    answer
}

/// JSON under a status.
#[must_use]
pub fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    build(
        status,
        "application/json",
        Body::Text(serde_json::to_string(body).unwrap_or_default()),
    )
}

fn build(status: StatusCode, content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Logs why secrets cannot be had, and makes the 503 for it.
pub fn secrets_unavailable(error: &SecretError) -> Answer {
    tracing::error!(%error, "secrets are unavailable");
    ErrorCode::SecretsUnavailable.answer()
}
