//! What real senders put on their requests: signatures, and the event that API Gateway makes of a request.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::Sha256;
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook};

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

/// When every event of [`gateway_event`] was received: 2026-11-21T10:00:00Z, in milliseconds since 1970.
pub const RECEIVED_AT_MILLISECONDS: i64 = 1_795_255_200_000;

/// The event that an API Gateway HTTP API (payload format 2.0) hands to a Lambda function for a request.
///
/// As the gateway does it: header names in lower case, repeated headers and query parameters joined by commas, cookies
/// on their own, members without content left out, the query both raw and decoded. Text bodies arrive as they are
/// and others in base64; `base64` asks for the latter, and bytes that are not UTF-8 get it in any case. Ids and the
/// time of receipt are always the same, so that an event can be kept in a file.
/// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>)
#[must_use]
pub fn gateway_event(
    method: &str,
    path: &str,
    query: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    base64: bool,
) -> Value {
    const API: &str = "a1b2c3d4e5";
    let domain = format!("{API}.execute-api.eu-west-1.amazonaws.com");
    let mut by_name = BTreeMap::from([
        ("content-length".to_owned(), body.len().to_string()),
        ("host".to_owned(), domain.clone()),
        (
            "x-amzn-trace-id".to_owned(),
            "Root=1-6aff2c20-0123456789abcdef01234567".to_owned(),
        ),
        ("x-forwarded-for".to_owned(), "203.0.113.7".to_owned()),
        ("x-forwarded-port".to_owned(), "443".to_owned()),
        ("x-forwarded-proto".to_owned(), "https".to_owned()),
    ]);
    let mut cookies = Vec::new();
    let mut sent = BTreeMap::new();
    for (name, value) in headers {
        match name.to_lowercase() {
            name if name == "cookie" => cookies.extend(value.split("; ").map(Value::from)),
            name => join(&mut sent, name, value),
        }
    }
    by_name.extend(sent);
    let mut parameters = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        join(&mut parameters, name.into_owned(), &value);
    }
    let text = std::str::from_utf8(body).ok().filter(|_| !base64);
    let user_agent = by_name.get("user-agent").cloned().unwrap_or_default();
    let route = format!("{method} {path}");

    let mut event = Map::new();
    let mut put = |name: &str, value: Value| drop(event.insert(name.to_owned(), value));
    put("version", "2.0".into());
    put("routeKey", route.clone().into());
    put("rawPath", path.into());
    put("rawQueryString", query.into());
    if !cookies.is_empty() {
        put("cookies", cookies.into());
    }
    put("headers", json!(by_name));
    if !parameters.is_empty() {
        put("queryStringParameters", json!(parameters));
    }
    put(
        "requestContext",
        json!({
            "accountId": "123456789012",
            "apiId": API,
            "domainName": domain,
            "domainPrefix": API,
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.7",
                "userAgent": user_agent,
            },
            "requestId": "JKJaXmPLvHcESHA=",
            "routeKey": route,
            "stage": "$default",
            "time": "21/Nov/2026:10:00:00 +0000",
            "timeEpoch": RECEIVED_AT_MILLISECONDS,
        }),
    );
    if !body.is_empty() {
        put(
            "body",
            text.map_or_else(|| STANDARD.encode(body), str::to_owned).into(),
        );
    }
    put("isBase64Encoded", (!body.is_empty() && text.is_none()).into());
    event.into()
}

fn join(values: &mut BTreeMap<String, String>, name: String, value: &str) {
    values
        .entry(name)
        .and_modify(|joined| {
            joined.push(',');
            joined.push_str(value);
        })
        .or_insert_with(|| value.to_owned());
}

#[cfg(test)]
mod tests {
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
        let time = Timestamp::from_millisecond(RECEIVED_AT_MILLISECONDS).unwrap();
        assert_eq!(time.to_string(), "2026-11-21T10:00:00Z");
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
        assert!(event["headers"].get("cookie").is_none() && event.get("queryStringParameters").is_none());

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
