//! What Graph's errors mean for the next step.
//!
//! Graph answers nearly every error with status 400, throttling too, so the code and subcode in the body
//! decide, and the status only where there are none.
//! (<https://developers.facebook.com/docs/graph-api/guides/error-handling>)

use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use crate::fbe::redact;
use crate::json;

/// Meta lifts a block for policy reasons in hours, not seconds.
const POLICY_BLOCK: Duration = Duration::from_hours(1);
/// Longer messages are cut.
const MAX_DETAIL: usize = 200;
/// So many digits are an id of somebody or something. Codes have seven at most.
const SHORTEST_ID: usize = 9;

/// What to do about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again, not before `wait` if Graph named a time.
    Retryable {
        /// How long Graph asks to wait.
        wait: Option<Duration>,
    },
    /// The token is worth nothing any more: ask the business for another.
    TokenInvalid {
        /// Why: 460 = password changed, 463 = expired, and so on.
        subcode: Option<i64>,
    },
    /// The token is good, but does not allow this: a permission or role is missing.
    Permission,
    /// The app's id or secret is not Meta's, such as after the secret was reset there: ours has to be exchanged.
    App,
    /// Trying again changes nothing.
    Permanent {
        /// Graph's code, if it named one.
        code: Option<i64>,
    },
    /// The message was sent although an error came back: doing it again would do it twice.
    SentAnyway,
    /// Do the same with less data.
    ReduceData,
}

/// A call to Graph that failed. Neither its `Debug` nor its `Display` shows a token or an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct GraphError {
    /// What to do about it.
    pub kind: ErrorKind,
    /// HTTP status; `None` if there was no answer.
    pub status: Option<u16>,
    /// `error.code`
    pub code: Option<i64>,
    /// `error.error_subcode`
    pub subcode: Option<i64>,
    /// `error.fbtrace_id`, for Meta's support.
    pub trace_id: Option<String>,
    /// `error.message`, shortened, without tokens and ids: Graph repeats them in it.
    pub detail: String,
}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the Graph API ")?;
        match (self.status, self.code) {
            (None, _) => f.write_str("could not be reached")?,
            (Some(status), None) => write!(f, "answered {status}")?,
            (Some(_), Some(code)) => {
                write!(f, "answered error {code}")?;
                if let Some(subcode) = self.subcode {
                    write!(f, "/{subcode}")?;
                }
            }
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl GraphError {
    /// There was no answer, or only part of one. The URL is left out, since it may hold credentials.
    #[must_use]
    pub fn transport(error: reqwest::Error) -> Self {
        let kind = if error.is_builder() {
            ErrorKind::Permanent { code: None }
        } else {
            ErrorKind::Retryable { wait: None }
        };
        let detail = if error.is_timeout() {
            "timed out".to_owned()
        } else {
            shorten(&error.without_url().to_string())
        };
        Self::without_code(kind, None, detail)
    }

    /// An answer that says it is fine, but is not what was asked for.
    #[must_use]
    pub fn unreadable(status: StatusCode, detail: &str) -> Self {
        Self::without_code(ErrorKind::Retryable { wait: None }, Some(status), detail)
    }

    /// A call that cannot be made as it is.
    #[must_use]
    pub fn unsendable(detail: &str) -> Self {
        Self::without_code(ErrorKind::Permanent { code: None }, None, detail)
    }

    fn without_code(kind: ErrorKind, status: Option<StatusCode>, detail: impl Into<String>) -> Self {
        Self {
            kind,
            status: status.map(|status| status.as_u16()),
            code: None,
            subcode: None,
            trace_id: None,
            detail: detail.into(),
        }
    }

    /// Reads an error answer. `wait` is what its headers ask for.
    #[must_use]
    pub fn from_answer(status: StatusCode, body: &[u8], wait: Option<Duration>) -> Self {
        let body: Value = json::read(body).unwrap_or_default();
        let error = body.get("error").unwrap_or(&Value::Null);
        let number = |name: &str| json::member(error, name).integer();
        let text = |name: &str| error.get(name).and_then(Value::as_str);
        let (code, subcode) = (number("code"), number("error_subcode"));
        let message = text("message").or_else(|| error.as_str());
        let message = message.unwrap_or_default();
        let is_transient = json::member(error, "is_transient").boolean() == Some(true);
        let kind = match code {
            Some(code) => classify(code, subcode, message, wait, is_transient),
            None if matches!(status.as_u16(), 408 | 429)
                || status.is_server_error()
                || status.is_success() =>
            {
                ErrorKind::Retryable { wait }
            }
            None => ErrorKind::Permanent { code: None },
        };
        // A server in trouble may call its trouble anything.
        let kind = match kind {
            ErrorKind::Permanent { .. } if status.as_u16() == 429 || status.is_server_error() => {
                ErrorKind::Retryable { wait }
            }
            kind => kind,
        };
        Self {
            kind,
            status: Some(status.as_u16()),
            code,
            subcode,
            trace_id: text("fbtrace_id").map(|id| bounded(&redact::text(id))),
            detail: shorten(message),
        }
    }

    /// The error as a short code for an item: `graph_<code>_<subcode>`, `graph_<code>`, `graph_status_<status>` or
    /// `graph_unreachable`.
    #[must_use]
    pub fn reason(&self) -> String {
        match (self.code, self.subcode, self.status) {
            (Some(code), Some(subcode), _) => format!("graph_{code}_{subcode}"),
            (Some(code), None, _) => format!("graph_{code}"),
            (None, _, Some(status)) => format!("graph_status_{status}"),
            (None, _, None) => "graph_unreachable".to_owned(),
        }
    }

    /// Whether it is worth trying again later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Retryable { .. })
    }
}

fn classify(
    code: i64,
    subcode: Option<i64>,
    message: &str,
    wait: Option<Duration>,
    is_transient: bool,
) -> ErrorKind {
    let permanent = ErrorKind::Permanent { code: Some(code) };
    match (code, subcode) {
        (1, Some(1_357_046)) => ErrorKind::SentAnyway,
        (1, _) if message.to_ascii_lowercase().contains("reduce the amount of data") => ErrorKind::ReduceData,
        (190 | 102, _) => ErrorKind::TokenInvalid { subcode },
        // Code 100 is any wrong parameter. Only its words tell that it was the proof.
        (100, _) if message.contains("appsecret_proof") => ErrorKind::App,
        (101, _) => ErrorKind::App,
        // Exceptions among codes that are otherwise worth a retry: terms that nobody accepted, abuse of tags.
        // 200 with this subcode is a person who is not there: blocked, deactivated, never consented.
        (2, Some(2_018_344)) | (613, Some(2_018_338 | 1_893_016 | 2_534_040)) | (200, Some(1_545_041)) => {
            permanent
        }
        (10, None) | (200..=299, _) => ErrorKind::Permission,
        (368, _) => ErrorKind::Retryable {
            wait: Some(wait.unwrap_or(POLICY_BLOCK).max(POLICY_BLOCK)),
        },
        (1 | 2 | 4 | 17 | 32 | 341 | 613 | 1200 | 80_000..=80_014, _) => ErrorKind::Retryable { wait },
        _ if is_transient => ErrorKind::Retryable { wait },
        _ => permanent,
    }
}

pub(super) fn shorten(text: &str) -> String {
    bounded(&without_ids(&redact::text(text)))
}

fn bounded(text: &str) -> String {
    // What looks like no word may be a credential, whatever it starts with.
    text.split(' ')
        .map(|word| if word.len() > 60 { redact::REDACTED } else { word })
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(MAX_DETAIL)
        .collect()
}

/// Graph repeats what it was asked with, a person's id too.
fn without_ids(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for run in text.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let digits = run.trim_end_matches(|c: char| !c.is_ascii_digit()).len();
        let (digits, after) = run.split_at(digits);
        kept.push_str(if digits.len() < SHORTEST_ID {
            digits
        } else {
            redact::REDACTED
        });
        kept.push_str(after);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(body: &str) -> ErrorKind {
        GraphError::from_answer(StatusCode::BAD_REQUEST, body.as_bytes(), None).kind
    }

    fn coded(code: i64, subcode: Option<i64>) -> ErrorKind {
        let body = serde_json::json!({"error": {"message": "m", "code": code, "error_subcode": subcode}});
        kind(&body.to_string())
    }

    #[test]
    fn a_recorded_error_is_read() {
        let body = br#"{"error":{"message":"(#10) This message is sent outside of allowed window.","type":"OAuthException","code":10,"error_subcode":2018278,"fbtrace_id":"BLBz\/WZt8dN"}}"#;
        let error = GraphError::from_answer(StatusCode::BAD_REQUEST, body, None);
        assert_eq!(error.kind, ErrorKind::Permanent { code: Some(10) });
        assert_eq!(error.trace_id.as_deref(), Some("BLBz/WZt8dN"));
        assert_eq!(
            error.to_string(),
            "the Graph API answered error 10/2018278: (#10) This message is sent outside of allowed window."
        );
    }

    #[test]
    fn whom_graph_was_asked_about_is_not_repeated() {
        for (told, kept) in [
            (
                "(#100) Object with ID '24680135790246' does not exist",
                "(#100) Object with ID '[redacted]' does not exist",
            ),
            ("24680135790246é17841400000000001", "[redacted]é[redacted]"),
            (
                "(#10) error 2018278 at 12345678",
                "(#10) error 2018278 at 12345678",
            ),
            ("", ""),
        ] {
            assert_eq!(shorten(told), kept);
        }
    }

    #[test]
    fn a_trace_id_is_kept_whatever_it_consists_of() {
        let body = br#"{"error":{"message":"m","code":1,"fbtrace_id":"A1234567890b"}}"#;
        let error = GraphError::from_answer(StatusCode::BAD_REQUEST, body, None);
        assert_eq!(error.trace_id.as_deref(), Some("A1234567890b"));
    }

    #[test]
    fn what_json_allows_and_others_refuse_is_read() {
        let body = "\u{FEFF}{\"error\":{\"message\":\"half \\ud83d\",\"code\":\"190\",\"n\":1e400}}";
        assert_eq!(kind(body), ErrorKind::TokenInvalid { subcode: None });
    }

    #[test]
    fn codes_decide_what_to_do() {
        let retry = ErrorKind::Retryable { wait: None };
        for code in [1, 2, 4, 17, 32, 341, 613, 1200, 80_000, 80_004, 80_014] {
            assert_eq!(coded(code, None), retry, "{code}");
        }
        for subcode in [452, 458, 459, 460, 463, 464, 465, 467, 492] {
            assert_eq!(
                coded(190, Some(subcode)),
                ErrorKind::TokenInvalid {
                    subcode: Some(subcode)
                }
            );
        }
        assert_eq!(coded(102, None), ErrorKind::TokenInvalid { subcode: None });
        assert_eq!(coded(101, None), ErrorKind::App);
        for code in [10, 200, 210, 299] {
            assert_eq!(coded(code, None), ErrorKind::Permission, "{code}");
        }
        for (code, subcode) in [
            (2, 2_018_344),
            (613, 2_018_338),
            (613, 1_893_016),
            (613, 2_534_040),
            (10, 2_018_065),
            (100, 33),
            (100, 2_018_001),
            (200, 1_545_041),
            (551, 1_545_041),
            (9, 2_018_352),
            (10_303, 0),
            (80_015, 0),
        ] {
            assert_eq!(
                coded(code, Some(subcode)),
                ErrorKind::Permanent { code: Some(code) },
                "{code}/{subcode}"
            );
        }
        assert_eq!(coded(1, Some(1_357_046)), ErrorKind::SentAnyway);
        assert_eq!(
            coded(368, None),
            ErrorKind::Retryable {
                wait: Some(POLICY_BLOCK)
            }
        );
    }

    #[test]
    fn too_much_data_is_told_from_an_unknown_error() {
        let body = r#"{"error":{"code":1,"message":"Please reduce the amount of data you're asking for, then retry your request"}}"#;
        assert_eq!(kind(body), ErrorKind::ReduceData);
    }

    #[test]
    fn a_wrong_proof_is_told_from_other_wrong_parameters() {
        let proof = r#"{"error":{"code":100,"type":"GraphMethodException","message":"Invalid appsecret_proof provided in the API argument"}}"#;
        assert_eq!(kind(proof), ErrorKind::App);
        let other = r#"{"error":{"code":100,"message":"(#100) Param scope is unknown"}}"#;
        assert_eq!(kind(other), ErrorKind::Permanent { code: Some(100) });
    }

    #[test]
    fn a_transient_error_of_any_code_is_retried() {
        assert_eq!(
            kind(r#"{"error":{"code":9999,"is_transient":true}}"#),
            ErrorKind::Retryable { wait: None }
        );
    }

    #[test]
    fn without_a_code_the_status_decides() {
        let of = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let error = GraphError::from_answer(status, body.as_bytes(), None);
            matches!(error.kind, ErrorKind::Retryable { .. })
        };
        assert!(of(502, "<html>"));
        assert!(of(429, ""));
        assert!(of(408, "<html>"));
        assert!(of(500, r#"{"error":{"code":100}}"#));
        assert!(!of(404, "not found"));
        assert!(!of(400, r#"{"error":{"code":100}}"#));
    }

    #[test]
    fn a_token_that_graph_repeats_is_not_shown() {
        let secret = "b".repeat(80);
        let body = format!(
            r#"{{"error":{{"message":"Malformed access token EAAB1secret and {secret}","code":190,"fbtrace_id":"EAABtrace"}}}}"#
        );
        let error = GraphError::from_answer(StatusCode::BAD_REQUEST, body.as_bytes(), None);
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("EAAB") && !shown.contains(&secret), "{shown}");
    }
}
