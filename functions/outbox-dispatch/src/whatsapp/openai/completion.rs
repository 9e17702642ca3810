//! What a chat server answers, and what of it is an answer.
//!
//! Such servers report errors inside a 200, stream though they were told not to, cut answers off, think aloud and wrap
//! errors in many ways. Half an answer is none, and an error counts as what it says, wherever it stands.

use jiff::Timestamp;
use serde_json::Value;
use shared::json as lenient;
use shared::personal::Personal;
use shared::whatsapp::answer::MAX_ANSWER_BYTES;

use super::reasoning::without_leading;
use super::refused::{Refused, error_in, malformed, refused};
use super::stream;
use super::text::text_of;
use crate::whatsapp::external_system::{ExternalSystemError, Received};

const BROKE_OFF: &str = "external_system_broke_off";

/// What a model says and wants done.
#[derive(Debug, Default, PartialEq)]
pub(in crate::whatsapp) struct Completion {
    /// Its text, never blank.
    pub(super) text: Option<Personal<String>>,
    /// What it calls.
    pub(super) calls: Vec<ToolCall>,
    /// The message as received, to be given back with what came of the calls.
    pub(super) message: Personal<Value>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ToolCall {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: Personal<Value>,
}

/// Reads an answer.
pub(in crate::whatsapp) fn read(received: &Received, now: Timestamp) -> Result<Completion, Refused> {
    let status = received.status;
    let body = parse(&received.body);
    let error = body.as_ref().and_then(error_in);
    if error.is_some() || !status.is_success() {
        let error = error.or(body.as_ref()).unwrap_or(&Value::Null);
        return Err(refused(status, error, received, now));
    }
    let body = body.ok_or_else(|| malformed("body", "is not JSON"))?;
    let choice = body
        .pointer("/choices/0")
        .ok_or_else(|| malformed("choices", "must have at least one"))?;
    completion(choice)
}

/// The first JSON value of a body, whatever follows it, or the completion that its events make up.
fn parse(body: &[u8]) -> Option<Value> {
    let text = lenient::text(body);
    let text = text.trim_start();
    if stream::is_stream(text) {
        return stream::completion(text);
    }
    let value = serde_json::Deserializer::from_str(text).into_iter().next();
    let value: Value = value?.ok()?;
    match value {
        // Some wrap an error in a list.
        Value::Array(mut values) if values.len() == 1 => values.pop(),
        value => Some(value),
    }
}

fn completion(choice: &Value) -> Result<Completion, Refused> {
    let reason = |name: &str| choice.get(name).and_then(Value::as_str).unwrap_or_default();
    let finish = reason("finish_reason").to_lowercase();
    // What was said until then is half an answer.
    if matches!(
        finish.as_str(),
        "error" | "insufficient_system_resource" | "abort" | "aborted"
    ) {
        return Err(ExternalSystemError::transient(BROKE_OFF).into());
    }
    if matches!(finish.as_str(), "content_filter" | "safety" | "recitation") {
        let problem = "says that a filter took the text away";
        return Err(malformed("choices[0].finish_reason", problem));
    }
    let Some(message) = choice.get("message").filter(|message| message.is_object()) else {
        // As servers of the older kind have it.
        let text = choice.get("text").and_then(Value::as_str);
        let text = text.ok_or_else(|| malformed("choices[0].message", "is missing"))?;
        return Ok(Completion {
            text: Some(said(text)?.into()),
            ..Completion::default()
        });
    };
    let refusal = message.get("refusal").and_then(Value::as_str);
    if refusal.is_some_and(|refusal| !refusal.trim().is_empty()) {
        return Err(malformed(
            "choices[0].message.refusal",
            "says that the model refused",
        ));
    }
    let calls = calls(message);
    let text = text_of(message.get("content"));
    if calls.is_empty() && reason("native_finish_reason") == "network_error" && text.trim().is_empty() {
        return Err(ExternalSystemError::transient(BROKE_OFF).into());
    }
    let text = match said(&text) {
        Ok(text) => Some(text.into()),
        // What is called may say enough.
        Err(_) if !calls.is_empty() => None,
        Err(error) => return Err(error),
    };
    Ok(Completion {
        text,
        calls,
        message: message.clone().into(),
    })
}

/// What of a text is for the person.
fn said(text: &str) -> Result<String, Refused> {
    let field = "choices[0].message.content";
    let text = without_leading(text);
    if text.is_empty() {
        return Err(malformed(field, "must not be blank"));
    }
    if text.len() > MAX_ANSWER_BYTES {
        return Err(malformed(field, "must not be longer than 64,000 bytes"));
    }
    Ok(text.to_owned())
}

fn calls(message: &Value) -> Vec<ToolCall> {
    let calls = message.get("tool_calls").and_then(Value::as_array);
    let call = |call: &Value| {
        let function = call.get("function")?;
        let arguments = match function.get("arguments") {
            Some(Value::String(text)) => lenient::read(text.as_bytes()).unwrap_or_default(),
            Some(arguments) => arguments.clone(),
            None => Value::Null,
        };
        let id = call.get("id").and_then(Value::as_str).unwrap_or_default();
        Some(ToolCall {
            id: id.to_owned(),
            name: function.get("name")?.as_str()?.to_owned(),
            arguments: arguments.into(),
        })
    };
    calls.into_iter().flatten().filter_map(call).collect()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use serde_json::json;

    use super::*;

    fn received(status: u16, body: &str) -> Received {
        Received {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_743_292_700).unwrap()
    }

    fn of(status: u16, body: &str) -> Result<Completion, Refused> {
        read(&received(status, body), now())
    }

    fn text(body: &str) -> String {
        match of(200, body) {
            Ok(completion) => completion.text.unwrap_or_default().0,
            Err(refused) => format!("{:?}", refused.error),
        }
    }

    fn content(content: &Value) -> String {
        json!({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}).to_string()
    }

    fn class(status: u16, body: &str) -> String {
        let refused = of(status, body).unwrap_err();
        let about = refused.about;
        match refused.error {
            ExternalSystemError::Transient { reason, wait } => format!("transient {reason} {wait:?}"),
            ExternalSystemError::Configuration { reason } => format!("configuration {reason} {about:?}"),
            ExternalSystemError::Rejected { reason } => format!("rejected {reason} {about:?}"),
            ExternalSystemError::Malformed(error) => format!("malformed {error}"),
        }
    }

    #[test]
    fn text_is_read_in_every_form() {
        assert_eq!(text(&content(&json!(" Hi!\n"))), "Hi!");
        let parts = json!([
            {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
            {"type": "reasoning", "text": "hm"},
            {"type": "text", "text": "Hi"}, {"type": "output_text", "text": "!"}, {"text": "?"},
        ]);
        assert_eq!(text(&content(&parts)), "Hi!?");
        assert_eq!(text(&content(&json!("<think>hm</think>Hi!"))), "Hi!");
        assert_eq!(text(r#"{"choices":[{"text":"Hi!"}]}"#), "Hi!");
        let hidden =
            r#"{"choices":[{"message":{"content":"Hi!","reasoning_content":"hm","reasoning":"hm"}}]}"#;
        assert_eq!(text(hidden), "Hi!");
        let long = r#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"length"}]}"#;
        assert_eq!(text(long), "Hi");
        let framed = format!("\u{feff}\n\n  {}\ndata: [DONE]\n", content(&json!("Hi!")));
        assert_eq!(text(&framed), "Hi!");
        let half = r#"{"choices":[{"message":{"content":"see you \ud83d","x":"\ude00"}}]}"#;
        assert_eq!(text(half), "see you \u{fffd}");
    }

    #[test]
    fn what_is_no_answer_is_asked_for_again() {
        for (body, expected) in [
            ("", "malformed `body` is not JSON"),
            ("OK", "malformed `body` is not JSON"),
            (
                r#"{"message":"Workflow was started"}"#,
                "malformed `choices` must have at least one",
            ),
            (r#"{"choices":[]}"#, "malformed `choices` must have at least one"),
            (r#"{"choices":[{}]}"#, "malformed `choices[0].message` is missing"),
            (
                r#"{"choices":[{"message":{"content":null}}]}"#,
                "malformed `choices[0].message.content` must not be blank",
            ),
            (
                r#"{"choices":[{"message":{"content":"<think>hm"},"finish_reason":"length"}]}"#,
                "malformed `choices[0].message.content` must not be blank",
            ),
            (
                r#"{"choices":[{"message":{"content":"x"},"finish_reason":"SAFETY"}]}"#,
                "malformed `choices[0].finish_reason` says that a filter took the text away",
            ),
            (
                r#"{"choices":[{"message":{"content":null,"refusal":"no"}}]}"#,
                "malformed `choices[0].message.refusal` says that the model refused",
            ),
        ] {
            assert_eq!(class(200, body), expected, "{body}");
        }
    }

    #[test]
    fn half_an_answer_is_none() {
        for reason in ["error", "insufficient_system_resource", "aborted"] {
            let body = format!(
                r#"{{"choices":[{{"message":{{"content":"Your order num"}},"finish_reason":"{reason}"}}]}}"#
            );
            assert_eq!(
                class(200, &body),
                "transient external_system_broke_off None",
                "{reason}"
            );
        }
        let network = r#"{"choices":[{"message":{"content":""},"finish_reason":"stop","native_finish_reason":"network_error"}]}"#;
        assert_eq!(class(200, network), "transient external_system_broke_off None");
        let beside = r#"{"choices":[{"error":{"code":502},"message":{"content":"Your order num"}}]}"#;
        assert_eq!(class(200, beside), "transient external_system_502 None");
    }

    #[test]
    fn an_error_counts_as_what_it_says_wherever_it_stands() {
        let reset = r#"{"error":{"message":"x","code":429,"metadata":{"headers":{"X-RateLimit-Reset":"1743292800000"}}}}"#;
        for (status, body, expected) in [
            (
                200,
                r#"{"error":{"code":429}}"#,
                "transient external_system_429 None",
            ),
            (
                200,
                r#"{"error":{"code":"503","message":"x"}}"#,
                "transient external_system_503 None",
            ),
            (
                200,
                r#"{"error":{"code":401}}"#,
                "configuration external_system_401 None",
            ),
            (
                200,
                r#"[{"error":{"code":400,"message":"x"}}]"#,
                "rejected external_system_400 Some(Something)",
            ),
            (
                200,
                r#"{"error":"model is loading"}"#,
                "transient external_system_503 None",
            ),
            (
                200,
                r#"{"error":{"message":"odd"}}"#,
                "malformed `error` was answered instead of a completion",
            ),
            (
                200,
                r#"{"choices":[{"message":{"error":{"code":429}}}]}"#,
                "transient external_system_429 None",
            ),
            (200, reset, "transient external_system_429 Some(100s)"),
            (
                429,
                r#"{"error":{"code":"insufficient_quota"}}"#,
                "configuration external_system_402 None",
            ),
            (
                402,
                r#"{"error":{"code":402}}"#,
                "configuration external_system_402 None",
            ),
            (
                403,
                r#"{"error":{"code":403,"metadata":{"reasons":["x"]}}}"#,
                "rejected external_system_403 None",
            ),
            (403, "", "configuration external_system_403 None"),
            (409, "", "transient external_system_409 None"),
            (529, "<html>", "transient external_system_529 None"),
            (
                404,
                r#"{"error":{"message":"No endpoints that support tool use"}}"#,
                "configuration external_system_404 Some(Tools)",
            ),
            (
                400,
                r#"{"error":{"message":"image_url is not supported"}}"#,
                "rejected external_system_400 Some(Images)",
            ),
            (
                400,
                r#"{"error":{"code":"context_length_exceeded"}}"#,
                "rejected external_system_400 Some(History)",
            ),
            (
                422,
                r#"{"detail":[{"loc":["body"],"msg":"x"}]}"#,
                "rejected external_system_422 Some(Something)",
            ),
            (
                429,
                r#"{"error":{"code":429,"details":[{"retryDelay":"37s"}]}}"#,
                "transient external_system_429 Some(37s)",
            ),
            (
                429,
                r#"{"error":{"code":429,"details":[{"retryDelay":"999999999999s"}]}}"#,
                "transient external_system_429 Some(3600s)",
            ),
            (
                200,
                r#"{"error":{"code":429,"details":[{"retryDelay":"0s"}]}}"#,
                "transient external_system_429 Some(1s)",
            ),
        ] {
            assert_eq!(class(status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_stream_that_was_not_asked_for_is_read() {
        let whole = concat!(
            ": OPENROUTER PROCESSING\n\n",
            "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"reasoning\":\"hm\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"!\"},\"finish_reason\":\"stop\"}]}\n\n",
        );
        assert_eq!(text(&format!("{whole}data: [DONE]\n")), "Hi!");
        assert_eq!(text(whole), "Hi!");
        let cut = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
        assert_eq!(class(200, cut), "malformed `body` is not JSON");
        let error =
            "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\ndata: {\"error\":{\"code\":502}}\n\n";
        assert_eq!(class(200, error), "transient external_system_502 None");
        let called = concat!(
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"hand_off\",\"arguments\":\"{\"}}]}}]}\n",
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"}\"}}]}}]}\n",
            "data: [DONE]\n",
        );
        let calls = of(200, called).unwrap().calls;
        assert_eq!(
            (calls[0].name.as_str(), &calls[0].arguments.0),
            ("hand_off", &json!({}))
        );
    }
}
