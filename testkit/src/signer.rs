//! What real senders put on their requests: signatures, and the event that API Gateway makes of a request.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;
use serde_json::Value;
use sha2::Sha256;
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook};

use crate::lambda::{HttpRequest, request_event};
use crate::time;

/// The value of `X-Hub-Signature-256` with which Meta sends these exact bytes: `sha256=` and 64 lower-case digits.
#[must_use]
pub fn meta_signature(app_secret: &str, body: &[u8]) -> String {
    format!("sha256={}", hmac_sha256(app_secret, body))
}

/// The `appsecret_proof` parameter for a Graph call made with `access_token`.
#[must_use]
pub fn appsecret_proof(app_secret: &str, access_token: &str) -> String {
    hmac_sha256(app_secret, access_token.as_bytes())
}

fn hmac_sha256(key: &str, message: &[u8]) -> String {
    let digest = |mut mac: Hmac<Sha256>| {
        mac.update(message);
        hex::encode(mac.finalize().into_bytes())
    };
    // HMAC takes keys of any length, so there is no error to hand on.
    Hmac::new_from_slice(key.as_bytes())
        .map(digest)
        .unwrap_or_default()
}

/// The three headers of Standard Webhooks (<https://www.standardwebhooks.com>), as names and values.
///
/// `secret` is `whsec_` and base64. `id` names the message: a repetition carries the same one. The receiver accepts
/// timestamps within five minutes of its own clock.
///
/// # Errors
///
/// The secret is not base64, or the body is not UTF-8.
pub fn standard_webhooks_headers(
    secret: &str,
    id: &str,
    timestamp: Timestamp,
    body: &[u8],
) -> anyhow::Result<[(&'static str, String); 3]> {
    let seconds = timestamp.as_second();
    let signature = Webhook::new(secret)?.sign(id, seconds, body)?;
    Ok([
        (HEADER_WEBHOOK_ID, id.to_owned()),
        (HEADER_WEBHOOK_TIMESTAMP, seconds.to_string()),
        (HEADER_WEBHOOK_SIGNATURE, signature),
    ])
}

/// Whether the headers sign exactly this body with `secret`, whatever time they name.
#[must_use]
pub fn is_signed(secret: &str, headers: &HeaderMap, body: &[u8]) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(id), Some(signature)) = (text(HEADER_WEBHOOK_ID), text(HEADER_WEBHOOK_SIGNATURE)) else {
        return false;
    };
    let seconds = text(HEADER_WEBHOOK_TIMESTAMP).and_then(|seconds| seconds.parse().ok());
    let Some(at) = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()) else {
        return false;
    };
    let signed = standard_webhooks_headers(secret, id, at, body);
    signed.is_ok_and(|[_, _, (_, right)]| right == signature)
}

/// The event that an API Gateway HTTP API (payload format 2.0) hands to a Lambda function for a request.
///
/// As [`request_event`] makes it, but to be kept in a file: ids are always the same, and so is the time of receipt,
/// [`time::start`]. Text bodies
/// come as they are; `base64` asks for the other form, and bytes that are not UTF-8 get it in any case.
///
/// # Panics
///
/// A header's name or value is none that HTTP can carry.
#[must_use]
#[expect(clippy::expect_used, reason = "headers are written out where this is called")]
pub fn gateway_event(
    method: &str,
    path: &str,
    query: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    base64: bool,
) -> Value {
    let mut sent = HeaderMap::new();
    sent.insert(
        header::HOST,
        HeaderValue::from_static("a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com"),
    );
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
        sent.append(name, HeaderValue::from_str(value).expect("a header's value"));
    }
    let request = HttpRequest {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: sent,
        body: Bytes::copy_from_slice(body),
        source: SocketAddr::from((Ipv4Addr::new(203, 0, 113, 7), 443)),
    };
    let mut event = request_event(
        &request,
        &format!("{method} {path}"),
        &BTreeMap::new(),
        time::start(),
    );
    if let Some(id) = event.pointer_mut("/requestContext/requestId") {
        *id = "JKJaXmPLvHcESHA=".into();
    }
    if let (Some(members), false) = (event.as_object_mut(), body.is_empty()) {
        let text = std::str::from_utf8(body).ok().filter(|_| !base64);
        members.insert("isBase64Encoded".to_owned(), text.is_none().into());
        let body = text.map_or_else(|| STANDARD.encode(body), str::to_owned);
        members.insert("body".to_owned(), body.into());
    }
    event
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // Computed with an independent HMAC tool.
    const SECRET: &str = "app_secret_for_tests";

    #[test]
    fn metas_vectors() {
        assert_eq!(
            meta_signature(SECRET, b""),
            "sha256=52cebd46e8f4789bbbf083dbb0bf15c8beb6d3ca50b407b3f582b5a7290f5603"
        );
        assert_eq!(
            appsecret_proof(SECRET, "EAAB_test_token"),
            "9acf8f3fb5dddd44f8db3007b6b65c03dd65392c828470304e1ff3493457d1c5"
        );
    }

    #[test]
    fn the_standards_own_vector() {
        let [id, timestamp, signature] = standard_webhooks_headers(
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            Timestamp::from_second(1_649_367_553).unwrap(),
            br#"{"email":"test@example.com","username":"test_user"}"#,
        )
        .unwrap();
        assert_eq!(id, ("webhook-id", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk".to_owned()));
        assert_eq!(timestamp, ("webhook-timestamp", "1649367553".to_owned()));
        let expected = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
        assert_eq!(signature, ("webhook-signature", expected.to_owned()));
        assert!(standard_webhooks_headers("whsec_!", "m", Timestamp::UNIX_EPOCH, b"").is_err());
    }

    #[test]
    fn a_request_with_a_query_and_no_body() {
        let query = "hub.mode=subscribe&hub.challenge=1%2B1&tag=a&tag=b";
        let event = gateway_event("GET", "/messenger/webhook", query, &[], b"", true);
        assert_eq!(event["rawQueryString"], query);
        assert_eq!(event["queryStringParameters"]["hub.challenge"], "1+1");
        assert_eq!(event["queryStringParameters"]["tag"], "a,b");
        assert_eq!(event["requestContext"]["http"]["method"], "GET");
        assert_eq!(event["requestContext"]["routeKey"], "GET /messenger/webhook");
        assert_eq!(
            (event.get("body"), &event["isBase64Encoded"]),
            (None, &json!(false))
        );
        assert_eq!(
            event["requestContext"]["timeEpoch"],
            json!(time::START_MILLISECONDS)
        );
    }

    #[test]
    fn a_body_as_text_and_as_base64() {
        let headers = [
            ("X-Hub-Signature-256", "sha256=0"),
            ("Accept", "a"),
            ("accept", "b"),
            ("Cookie", "a=1; b=2"),
        ];
        let event = gateway_event("POST", "/x", "", &headers, "{\"é\":1}".as_bytes(), false);
        assert_eq!(event["body"], "{\"é\":1}");
        assert_eq!(event["headers"]["x-hub-signature-256"], "sha256=0");
        assert_eq!(event["headers"]["accept"], "a,b");
        assert_eq!(event["headers"]["content-length"], "8");
        assert_eq!(event["cookies"], json!(["a=1", "b=2"]));
        assert!(event.get("queryStringParameters").is_none());

        let encoded = gateway_event("POST", "/x", "", &[], b"{}", true);
        assert_eq!(
            (&encoded["body"], &encoded["isBase64Encoded"]),
            (&json!("e30="), &json!(true))
        );
        let binary = gateway_event("POST", "/x", "", &[], &[0xff], false);
        assert_eq!(
            (&binary["body"], &binary["isBase64Encoded"]),
            (&json!("/w=="), &json!(true))
        );
    }
}
