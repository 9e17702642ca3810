//! What to do about what Graph refuses.

use crate::clients::graph::{ErrorKind, GraphError};

/// How a page gets a token that works.
pub const NEW_TOKEN: &str =
    "run `bridge setup` again with a new user token of a person with full control of the page";

const APP: &str =
    "compare app_id and app_secret in the meta secret with App settings > Basic in Meta's dashboard";

/// What a person can do about `error`.
#[must_use]
pub fn remedy(error: &GraphError) -> String {
    match (error.kind, error.code) {
        (ErrorKind::TokenInvalid { subcode }, _) => dead_token(subcode),
        (ErrorKind::App, _) => APP.to_owned(),
        (_, Some(2200)) => callback(&error.detail),
        (_, Some(210)) => {
            "this call takes the page's own token: put that into page_access_tokens, or run `bridge setup`".to_owned()
        }
        (_, Some(3)) => {
            "the app lacks a product or Advanced Access: look at App Review > Permissions and Features".to_owned()
        }
        (_, Some(2500)) => {
            "Graph does not know this call: look at GraphApiUrl, and set GraphApiVersion to a version that is alive"
                .to_owned()
        }
        (ErrorKind::Permission, _) | (_, Some(200)) => {
            "a permission or a role on the page is missing: log in again and grant pages_messaging, pages_manage_metadata \
             and pages_show_list for this page, then run `bridge setup` with the new token"
                .to_owned()
        }
        (ErrorKind::Retryable { .. } | ErrorKind::ReduceData, _) if error.status.is_none() => {
            "Graph cannot be reached: look at the network and at GraphApiUrl, then try again".to_owned()
        }
        (ErrorKind::Retryable { .. } | ErrorKind::ReduceData | ErrorKind::SentAnyway, _) => {
            "Meta has a moment of trouble or limits our calls: try again in some minutes; https://metastatus.com"
                .to_owned()
        }
        _ => "read what Graph says above; its trace id helps Meta's support".to_owned(),
    }
}

/// The same for a call in the app's own name.
#[must_use]
pub fn of_app(error: &GraphError) -> String {
    match error.kind {
        ErrorKind::App | ErrorKind::TokenInvalid { .. } => APP.to_owned(),
        _ => remedy(error),
    }
}

/// What to do about a token that Graph calls invalid.
#[must_use]
pub fn dead_token(subcode: Option<i64>) -> String {
    let why = match subcode {
        Some(458) => "the person removed the app",
        Some(459) => "Meta asks the person to log in to Facebook and pass a check",
        Some(460) => "the person's password was changed",
        Some(463) => "it was made from a token that has ended",
        Some(464) => "the person's account is not confirmed",
        Some(467) => "it was revoked",
        Some(492) => "the person lost the role on the page",
        _ => "it is no token of a person who still has the role",
    };
    format!("{why}: {NEW_TOKEN}")
}

/// Meta asked the callback URL and did not like the answer (2200). The words are its own.
fn callback(detail: &str) -> String {
    let cause = if detail.contains("= 403") {
        "the endpoint expects another verify token: look at verify_token in the meta secret (letters, digits, `-`, `_`)"
    } else if detail.contains("= 404") {
        "the URL leads elsewhere: look at the output MessengerWebhookUrl"
    } else if detail.contains("= 5") {
        "the endpoint fails: look at the log of messenger-verify and at the meta secret"
    } else if detail.contains("match challenge") {
        "something between Meta and the function changes the answer, which has to be the bare challenge"
    } else {
        "Meta cannot reach the URL: it has to be https, public and answer within seconds (on this machine: through a tunnel)"
    };
    cause.to_owned()
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    #[test]
    fn causes_of_a_failed_handshake_are_told_apart() {
        let remedy_of = |tail: &str| {
            let body = format!(
                r#"{{"error":{{"message":"(#2200) Callback verification failed: {tail}","code":2200}}}}"#
            );
            remedy(&GraphError::from_answer(
                StatusCode::BAD_REQUEST,
                body.as_bytes(),
                None,
            ))
        };
        assert!(remedy_of("HTTP Status Code = 403").contains("verify_token"));
        assert!(
            remedy_of("HTTP Status Code = 404; HTTP Message = Not Found").contains("MessengerWebhookUrl")
        );
        assert!(remedy_of("HTTP Status Code = 503").contains("messenger-verify"));
        assert!(remedy_of("Response does not match challenge").contains("bare challenge"));
        assert!(remedy_of("curl_errno = 28").contains("cannot reach"));
    }

    #[test]
    fn codes_lead_to_what_helps() {
        let of = |code: i64, subcode: i64| {
            let body = format!(r#"{{"error":{{"message":"m","code":{code},"error_subcode":{subcode}}}}}"#);
            remedy(&GraphError::from_answer(
                StatusCode::BAD_REQUEST,
                body.as_bytes(),
                None,
            ))
        };
        assert!(of(190, 460).contains("password"));
        assert!(of(190, 463).contains("bridge setup"));
        assert!(of(200, 0).contains("pages_messaging"));
        assert!(of(210, 0).contains("page's own token"));
        assert!(of(4, 0).contains("some minutes"));
        assert!(of(2500, 0).contains("GraphApiVersion"));
    }
}
