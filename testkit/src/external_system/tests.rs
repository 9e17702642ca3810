use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use shared::webhook::standard;

use super::*;
use crate::fault::{Answer, Effect};

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

async fn start() -> ExternalSystem {
    ExternalSystem::start(
        Options::new(SECRET)
            .bearer_token("token")
            .openai_api_key("sk-test"),
    )
    .await
    .unwrap()
}

fn said(conversation: &str, texts: &[&str], reply_url: &str) -> Value {
    let message = |text: &&str| json!({"id": "m", "text": text, "media_urls": [], "flow_response": null, "received_at": "2026-11-21T10:00:00Z"});
    json!({
        "conversation_id": conversation,
        "mode": "bot",
        "user": {"user_id": "42", "braze_id": null, "phone_number": "+15551234567"},
        "messages": texts.iter().map(message).collect::<Vec<_>>(),
        "history": [{"role": "user", "text": "hi", "at": "2026-11-21T09:00:00Z"}],
        "window_closes_at": "2026-11-22T10:00:00Z",
        "reply_url": reply_url,
    })
}

struct Sending<'a> {
    id: &'a str,
    secret: &'a str,
    token: &'a str,
    at: Timestamp,
}

impl Default for Sending<'_> {
    fn default() -> Self {
        Self {
            id: "msg_1",
            secret: SECRET,
            token: "token",
            at: time::start(),
        }
    }
}

async fn post(system: &ExternalSystem, body: &Value, sending: Sending<'_>) -> reqwest::Result<(u16, Value)> {
    let body = body.to_string();
    let headers = signer::standard_webhooks_headers(sending.secret, sending.id, sending.at, body.as_bytes());
    let mut request = client().post(system.url()).bearer_auth(sending.token);
    for (name, value) in headers.unwrap() {
        request = request.header(name, value);
    }
    let answer = request.body(body).send().await?;
    Ok((answer.status().as_u16(), answer.json().await.unwrap_or_default()))
}

async fn hand_over(system: &ExternalSystem, conversation: &str, texts: &[&str]) -> (u16, Value) {
    post(
        system,
        &said(conversation, texts, "http://127.0.0.1:1/"),
        Sending::default(),
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn it_echoes_and_remembers() {
    let system = start().await;
    let answer = hand_over(&system, "user:42", &["one", "two"]).await;
    assert_eq!(
        answer,
        (200, json!({"replies": [{"text": "You said: one\ntwo"}]}))
    );
    hand_over(&system, "user:42", &["three"]).await;
    assert_eq!(system.texts("user:42"), ["one", "two", "three"]);
    let handovers = system.handovers();
    assert_eq!((handovers[0].mode(), handovers[0].repeated), ("bot", false));
    assert!(handovers[1].repeated, "the same webhook-id");
}

#[tokio::test]
async fn credentials_are_checked() {
    let system = start().await;
    let body = said("c", &["x"], "http://127.0.0.1:1/");
    let old = time::start() - jiff::SignedDuration::from_mins(6);
    for sending in [
        Sending {
            secret: "whsec_AAAA",
            ..Sending::default()
        },
        Sending {
            token: "other",
            ..Sending::default()
        },
        Sending {
            at: old,
            ..Sending::default()
        },
    ] {
        assert_eq!(post(&system, &body, sending).await.unwrap().0, 401);
    }
    assert_eq!(
        client()
            .post(system.url())
            .body("{}")
            .send()
            .await
            .unwrap()
            .status(),
        401
    );
    assert_eq!(client().get(system.url()).send().await.unwrap().status(), 404);
    assert_eq!(system.take_refusals().len(), 4);
    assert_eq!(system.handover_count(), 0);
}

#[tokio::test]
async fn a_body_that_breaks_the_promise_is_refused() {
    let system = start().await;
    let broken = [
        ("conversation_id", json!(null)),
        ("mode", json!("robot")),
        ("user", json!({"user_id": null})),
        ("messages", json!([])),
        ("messages", json!([{"id": "m", "text": "x", "media_urls": []}])),
        ("history", json!(null)),
        ("window_closes_at", json!("soon")),
        ("reply_url", json!("/whatsapp/reply")),
    ];
    for (name, value) in broken {
        let mut body = said("c", &["x"], "http://127.0.0.1:1/");
        body[name] = value;
        assert_eq!(
            post(&system, &body, Sending::default()).await.unwrap().0,
            422,
            "{name}"
        );
    }
    assert_eq!(system.take_refusals().len(), 8);
}

#[tokio::test]
async fn it_behaves_as_scripted_and_then_as_set() {
    let system = start().await;
    system.set_behaviour(Behaviour::text("always"));
    system.script_times(2, &Behaviour::failing(503));
    system.script(Behaviour::malformed());
    system.script(Behaviour::not_json());
    let reply = Reply::text("a")
        .and_through("b", "orders")
        .handoff(true)
        .attributes(json!({"topic": "order"}));
    system.script(Behaviour::Reply(reply));
    system.script(Behaviour::Reply(Reply::silent()));
    let mut answers = Vec::new();
    for _ in 0..7 {
        answers.push(hand_over(&system, "c", &["x"]).await);
    }
    let expected = [
        (
            503,
            json!({"error": {"message": "scripted failure", "type": "server_error"}}),
        ),
        (
            503,
            json!({"error": {"message": "scripted failure", "type": "server_error"}}),
        ),
        (200, json!({"replies": "hello", "choices": {}})),
        (200, Value::Null),
        (
            200,
            json!({
                "replies": [{"text": "a"}, {"text": "b", "campaign": "orders"}],
                "handoff": true,
                "attributes": {"topic": "order"},
            }),
        ),
        (200, json!({"replies": []})),
        (200, json!({"replies": [{"text": "always"}]})),
    ];
    assert_eq!(answers, expected);
    system.script(Behaviour::Fault(Fault::CutAfterProcessing));
    let body = said("c", &["x"], "http://127.0.0.1:1/");
    assert!(post(&system, &body, Sending::default()).await.is_err());
    assert_eq!(system.handovers().last().unwrap().status, None);
}

#[tokio::test]
async fn slow_answers_overlap_and_are_noticed() {
    let system = start().await;
    system.set_behaviour(Behaviour::slow(Duration::from_millis(200)));
    tokio::join!(hand_over(&system, "a", &["x"]), hand_over(&system, "b", &["x"]));
    assert_eq!((system.most_at_once(), system.overlapping().len()), (2, 0));
    tokio::join!(hand_over(&system, "a", &["x"]), hand_over(&system, "a", &["x"]));
    assert_eq!(system.overlapping(), ["a"]);
}

/// Something that answers 202 to whatever is posted to it, and keeps it if the signature is right.
async fn relay() -> (Server, Arc<Mutex<Vec<Value>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = kept.clone();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = Server::start(address, move |request| {
        let keep = keep.clone();
        async move {
            let signed = standard::verify(&SECRET.into(), &request.headers, &request.body, time::start());
            if signed == Ok(true) || request.bearer() == Some("token") {
                keep.lock()
                    .unwrap()
                    .push(serde_json::from_slice(&request.body).unwrap());
            }
            Effect::of(Answer::json(202, &json!({"status": "accepted"})))
        }
    });
    (server.await.unwrap(), kept)
}

#[tokio::test]
async fn it_accepts_and_calls_back_later() {
    let (relay, kept) = relay().await;
    let system = start().await;
    system.script(Behaviour::later(Duration::from_millis(20)));
    let answer = post(&system, &said("c", &["x"], &relay.url()), Sending::default())
        .await
        .unwrap();
    assert_eq!(answer, (202, json!({"status": "accepted"})));
    assert!(
        system
            .until(Duration::from_secs(5), |system| system.callbacks().len() == 1)
            .await
    );
    assert_eq!(system.callbacks()[0].status, Some(202));
    let expected = json!({"conversation_id": "c", "replies": [{"text": "You said: x"}]});
    assert_eq!(*kept.lock().unwrap(), [expected]);
    let status = system
        .call_back(&relay.url(), "c", "msg_x", &Reply::silent().handoff(false))
        .await;
    assert_eq!(status.unwrap(), 202);
    assert_eq!(
        kept.lock().unwrap()[1],
        json!({"conversation_id": "c", "replies": [], "handoff": false})
    );

    let options = Options::new(SECRET)
        .bearer_token("token")
        .calls_back_with_bearer(true);
    let system = ExternalSystem::start(options).await.unwrap();
    system
        .call_back(&relay.url(), "c", "msg_y", &Reply::silent())
        .await
        .unwrap();
    assert_eq!(kept.lock().unwrap().len(), 3);
}

async fn complete(system: &ExternalSystem, key: &str, body: &Value) -> (u16, Value) {
    let request = client()
        .post(format!("{}/chat/completions", system.openai_url()))
        .bearer_auth(key);
    let answer = request.json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn it_completes_chats() {
    let system = start().await;
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let messages = [
        message("system", "Be kind."),
        message("user", "hi"),
        message("assistant", "hello"),
        message("user", "one"),
        message("user", "two"),
    ];
    let request = json!({"model": "m", "messages": messages});
    let (status, answer) = complete(&system, "sk-test", &request).await;
    assert_eq!((status, &answer["model"]), (200, &json!("m")));
    assert_eq!(answer["choices"][0]["message"]["content"], "You said: one\ntwo");
    assert_eq!(system.handovers()[0].texts(), ["one", "two"]);
    system.script(Behaviour::Reply(Reply::silent()));
    let (_, silent) = complete(&system, "sk-test", &request).await;
    assert_eq!(silent["choices"][0]["message"]["content"], Value::Null);

    let (status, answer) = complete(&system, "sk-other", &request).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (401, &json!("invalid_api_key"))
    );
    for body in [
        json!({"messages": messages}),
        json!({"model": "m", "messages": [message("system", "x")]}),
        json!({"model": "m", "messages": [message("user", "")]}),
        json!({"model": "m", "messages": messages, "stream": true}),
    ] {
        assert_eq!(complete(&system, "sk-test", &body).await.0, 400);
    }
    assert_eq!(system.take_refusals().len(), 5);
}

#[tokio::test]
async fn what_was_scripted_must_be_met() {
    let system = start().await;
    system.script(Behaviour::Echo);
    let drained = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| system.assert_drained()));
    assert!(drained.is_err());
    system.clear_script();
    let shown = format!("{:?}", system.options);
    assert!(!shown.contains("whsec") && !shown.contains("sk-test"), "{shown}");
}
