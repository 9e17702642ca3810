//! API Gateway's HTTP API, payload format 2.0: a request as an event, and an answer as a response.
//! (<https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>)

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Context as _;
use axum::body::{Body, Bytes};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// In upper case.
    pub method: String,
    /// As sent, without the query.
    pub path: String,
    /// As sent, without the question mark; empty if there is none.
    pub query: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body as sent.
    pub body: Bytes,
    /// Who sent it.
    pub source: SocketAddr,
}

/// The event that a function is invoked with. `route` is the route's key, such as `POST /messenger/webhook`;
/// `parameters` are those of its path.
#[must_use]
pub fn request_event(
    request: &HttpRequest,
    route: &str,
    parameters: &BTreeMap<String, String>,
    now: Timestamp,
) -> Value {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &request.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str().to_owned())
            .and_modify(|all| {
                all.push(',');
                all.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    // The gateway adds these.
    headers.insert("x-forwarded-for".to_owned(), request.source.ip().to_string());
    headers.insert("x-forwarded-proto".to_owned(), "http".to_owned());
    headers
        .entry("content-length".to_owned())
        .or_insert_with(|| request.body.len().to_string());
    let host = headers.get("host").cloned().unwrap_or_default();

    let mut event = json!({
        "version": "2.0",
        "routeKey": route,
        "rawPath": request.path,
        "rawQueryString": request.query,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "local",
            "domainName": host,
            "domainPrefix": "local",
            "http": {
                "method": request.method,
                "path": request.path,
                "protocol": "HTTP/1.1",
                "sourceIp": request.source.ip().to_string(),
                "userAgent": headers.get("user-agent").cloned().unwrap_or_default(),
            },
            "requestId": uuid::Uuid::new_v4().to_string(),
            "routeKey": route,
            "stage": "$default",
            "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
            "timeEpoch": now.as_millisecond(),
        },
        "isBase64Encoded": false,
    });
    let Some(members) = event.as_object_mut() else {
        return event;
    };
    if let Some(cookies) = headers.get("cookie") {
        let cookies: Vec<&str> = cookies
            .split(';')
            .map(str::trim)
            .filter(|one| !one.is_empty())
            .collect();
        members.insert("cookies".to_owned(), json!(cookies));
    }
    if !parameters.is_empty() {
        members.insert("pathParameters".to_owned(), json!(parameters));
    }
    if !request.query.is_empty() {
        members.insert(
            "queryStringParameters".to_owned(),
            query_parameters(&request.query),
        );
    }
    if !request.body.is_empty() {
        let content_type = headers
            .get("content-type")
            .map(String::as_str)
            .unwrap_or_default();
        let (body, encoded) = match std::str::from_utf8(&request.body) {
            Ok(text) if is_text(content_type) => (text.to_owned(), false),
            _ => (STANDARD.encode(&request.body), true),
        };
        members.insert("body".to_owned(), json!(body));
        members.insert("isBase64Encoded".to_owned(), json!(encoded));
    }
    members.insert("headers".to_owned(), json!(headers));
    event
}

// A form counts as binary: API Gateway's HTTP API hands it over in base64.
fn is_text(content_type: &str) -> bool {
    let kind = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    kind.starts_with("text/")
        || matches!(
            kind.as_str(),
            "application/json" | "application/javascript" | "application/xml"
        )
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
}

fn query_parameters(query: &str) -> Value {
    let mut parameters: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        parameters
            .entry(name.into_owned())
            .and_modify(|all| {
                all.push(',');
                all.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    json!(parameters)
}

/// The response that the function's answer stands for.
///
/// # Errors
///
/// When the answer has a `statusCode` but is not a response of format 2.0; API Gateway answers 500 then.
pub(super) fn response(answer: &Value) -> anyhow::Result<Response> {
    let Some(status) = answer.get("statusCode") else {
        // Format 2.0 takes any other JSON for the body of a success.
        let mut response = Response::new(Body::from(answer.to_string()));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return Ok(response);
    };
    let status = status
        .as_u64()
        .and_then(|status| u16::try_from(status).ok())
        .context("statusCode")?;
    let body = match answer.get("body") {
        None | Some(Value::Null) => Bytes::new(),
        Some(Value::String(text)) if answer.get("isBase64Encoded") == Some(&Value::Bool(true)) => {
            STANDARD.decode(text).context("body is not base64")?.into()
        }
        Some(Value::String(text)) => Bytes::from(text.clone()),
        Some(_) => anyhow::bail!("body is not a string"),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status)?;
    let none = Map::new();
    for (name, value) in answer.get("headers").and_then(Value::as_object).unwrap_or(&none) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        response
            .headers_mut()
            .append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    for cookie in answer
        .get("cookies")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let cookie = cookie.as_str().context("a cookie is not a string")?;
        response
            .headers_mut()
            .append(header::SET_COOKIE, HeaderValue::try_from(cookie)?);
    }
    if !response.headers().contains_key(header::CONTENT_TYPE) {
        let plain = HeaderValue::from_static("text/plain;charset=UTF-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(content_type: Option<&str>, query: &str, body: &[u8]) -> HttpRequest {
        let mut headers = HeaderMap::new();
        headers.append("X-Hub-Signature-256", HeaderValue::from_static("sha256=00"));
        headers.append("accept", HeaderValue::from_static("a"));
        headers.append("accept", HeaderValue::from_static("b"));
        headers.append("cookie", HeaderValue::from_static("one=1; two=2"));
        if let Some(kind) = content_type {
            headers.append("content-type", HeaderValue::from_str(kind).unwrap());
        }
        HttpRequest {
            method: "POST".to_owned(),
            path: "/messenger/webhook".to_owned(),
            query: query.to_owned(),
            headers,
            body: Bytes::copy_from_slice(body),
            source: SocketAddr::from(([192, 0, 2, 1], 5)),
        }
    }

    fn event(request: &HttpRequest) -> Value {
        request_event(
            request,
            "POST /messenger/webhook",
            &BTreeMap::new(),
            "2026-03-05T09:08:07.123Z".parse().unwrap(),
        )
    }

    #[test]
    fn a_json_body_stays_text_byte_for_byte() {
        let body = br#"{"text":"caf\u00e9 \/"}"#;
        let event = event(&request(Some("application/json; charset=utf-8"), "", body));
        assert_eq!(event["body"].as_str().unwrap().as_bytes(), body);
        assert_eq!(event["isBase64Encoded"], false);
        assert_eq!(event["headers"]["x-hub-signature-256"], "sha256=00");
        assert_eq!(event["headers"]["accept"], "a,b");
        assert_eq!(event["cookies"], json!(["one=1", "two=2"]));
        let context = &event["requestContext"];
        assert_eq!(context["http"]["method"], "POST");
        assert_eq!(context["http"]["sourceIp"], "192.0.2.1");
        assert_eq!(context["time"], "05/Mar/2026:09:08:07 +0000");
        assert_eq!(context["timeEpoch"], 1_772_701_687_123_i64);
    }

    #[test]
    fn other_bodies_are_base64() {
        for (kind, body) in [
            (Some("application/octet-stream"), &b"\x00\xff"[..]),
            (Some("application/json"), &b"\xff\xfe"[..]),
            (Some("application/x-www-form-urlencoded"), &b"a=b"[..]),
            (None, &b"{}"[..]),
        ] {
            let event = event(&request(kind, "", body));
            assert_eq!(event["isBase64Encoded"], true, "{kind:?}");
            assert_eq!(STANDARD.decode(event["body"].as_str().unwrap()).unwrap(), body);
        }
        assert!(event(&request(None, "", b"")).get("body").is_none());
    }

    #[test]
    fn a_query_keeps_its_dots() {
        let query = "hub.mode=subscribe&hub.challenge=a%20b&x=1&x=2";
        let event = event(&request(None, query, b""));
        assert_eq!(event["rawQueryString"], query);
        let expected = json!({"hub.mode": "subscribe", "hub.challenge": "a b", "x": "1,2"});
        assert_eq!(event["queryStringParameters"], expected);
    }

    #[test]
    fn an_answer_becomes_a_response() {
        let answer = json!({"statusCode": 202, "headers": {"x-a": "1"}, "body": "AP8=", "isBase64Encoded": true,
            "cookies": ["a=1", "b=2"]});
        let response = response(&answer).unwrap();
        assert_eq!(response.status(), 202);
        assert_eq!(response.headers()["x-a"], "1");
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
        for broken in [json!({"statusCode": "x"}), json!({"statusCode": 200, "body": 1})] {
            assert!(super::response(&broken).is_err(), "{broken}");
        }
        let inferred = super::response(&json!({"ok": true})).unwrap();
        assert_eq!(
            (inferred.status().as_u16(), &inferred.headers()["content-type"]),
            (200, &HeaderValue::from_static("application/json"))
        );
    }
}
