//! Harmless requests that show whether a stack's endpoints answer as they should. `bridge smoke` and `bridge doctor` make
//! the same ones.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use reqwest::header::{DATE, HeaderMap};
use reqwest::{Method, RequestBuilder};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use shared::clients::http;
use shared::secrets::{MetaSecret, RelaySecret};
use shared::webhook::{signature, signed_request};

use crate::payloads::Sender;

/// A function that was never called starts first; API Gateway gives it 30 seconds.
const TIMEOUT: Duration = Duration::from_secs(35);

/// Challenge of the handshakes. Leading zeros would be lost if it were read as a number.
const CHALLENGE: &str = "0011582014";

/// The URLs that the stack is called by.
#[derive(Debug, Clone)]
pub(crate) struct Urls {
    pub(crate) messenger: String,
    pub(crate) fbe: String,
    pub(crate) inbound: String,
    pub(crate) reply: String,
    pub(crate) send: String,
    pub(crate) deletion: String,
}

impl Urls {
    pub(crate) fn below(base: &url::Url) -> Self {
        let at = |path: &str| format!("{}{path}", base.as_str().trim_end_matches('/'));
        Self {
            messenger: at(Sender::Messenger.path()),
            fbe: at(Sender::Fbe.path()),
            inbound: at(Sender::Whatsapp.path()),
            reply: at("/whatsapp/reply"),
            send: at(Sender::MessengerSend.path()),
            deletion: at("/meta/deletion"),
        }
    }

    pub(crate) fn of(outputs: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let output = |name: &str| {
            let output = outputs.get(name).cloned();
            output.with_context(|| format!("the stack has no output {name}; is it this product's?"))
        };
        Ok(Self {
            messenger: output("MessengerWebhookUrl")?,
            fbe: output("FbeWebhookUrl")?,
            inbound: output("WhatsAppInboundUrl")?,
            reply: output("WhatsAppReplyUrl")?,
            send: output("MessengerSendUrl")?,
            deletion: output("DataDeletionUrl")?,
        })
    }
}

/// What the probes sign with.
pub(crate) struct Keys {
    app_secret: SecretString,
    fbe_app_secret: SecretString,
    verify_token: SecretString,
    fbe_verify_token: SecretString,
    inbound_token: SecretString,
    send_token: SecretString,
}

impl Keys {
    pub(crate) fn new(meta: &MetaSecret, relay: &RelaySecret) -> anyhow::Result<Self> {
        let keys = Self {
            app_secret: meta.app_secret.clone(),
            fbe_app_secret: meta.fbe_app().1.clone(),
            verify_token: meta.verify_token.clone(),
            fbe_verify_token: meta.fbe_verify_token().clone(),
            inbound_token: relay.inbound_token.clone(),
            send_token: relay.send_tokens().next().cloned().unwrap_or_default(),
        };
        let named = [
            ("app_secret", &keys.app_secret),
            ("app_secret of fbe", &keys.fbe_app_secret),
            ("verify_token", &keys.verify_token),
            ("inbound_token", &keys.inbound_token),
            ("send_token", &keys.send_token),
        ];
        match named.iter().find(|(_, value)| value.expose_secret().is_empty()) {
            Some((name, _)) => bail!("{name} is not filled in yet; see \"Secrets\" in docs/operations.md"),
            None => Ok(keys),
        }
    }
}

/// What a probe shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Area {
    /// Meta can subscribe to the webhook, and nobody else can.
    Handshake,
    /// What its sender signs is taken, and nothing else is.
    Signature,
}

/// What came of a probe.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) area: Area,
    pub(crate) name: &'static str,
    /// What is wrong and what to do.
    pub(crate) problem: Option<Problem>,
}

/// What is wrong with an answer.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) what: String,
    pub(crate) hint: &'static str,
}

/// Makes the requests.
pub(crate) struct Probe {
    client: reqwest::Client,
    headers: HeaderMap,
    urls: Urls,
    keys: Keys,
}

impl Probe {
    /// Every request carries `headers` as well.
    pub(crate) fn new(urls: Urls, keys: Keys, headers: HeaderMap) -> Self {
        Self {
            client: http::client(TIMEOUT),
            headers,
            urls,
            keys,
        }
    }

    /// One after the other, so that functions that start do not disturb each other.
    #[expect(clippy::too_many_lines, reason = "a list")]
    pub(crate) async fn run(&self, now: Timestamp) -> Vec<Verdict> {
        let Urls {
            messenger,
            fbe,
            inbound,
            reply,
            send,
            deletion,
        } = &self.urls;
        let keys = &self.keys;
        let wrong = SecretString::from("wrong");
        let receipt = read_receipt(now);
        let signed = signature::sign(&keys.app_secret, receipt.as_bytes());
        let blank = |token: &SecretString| {
            let request = self.event(inbound).bearer_auth(token.expose_secret());
            request.body(blank_message())
        };
        vec![
            self.check(
                Area::Handshake,
                "messenger: the handshake with the right token is answered with its challenge",
                self.handshake(messenger, &keys.verify_token),
                (200, |body| body == CHALLENGE),
                "the URL leads elsewhere, or verify_token in the meta secret is another one",
            )
            .await,
            self.check(
                Area::Handshake,
                "messenger: the handshake with a wrong token is refused",
                self.handshake(messenger, &wrong),
                (403, |_| true),
                "anybody could subscribe to this webhook",
            )
            .await,
            self.check(
                Area::Signature,
                "messenger: an event without a signature is refused",
                self.event(messenger).body(receipt.clone()),
                (401, |_| true),
                "anybody could send events",
            )
            .await,
            self.check(
                Area::Signature,
                "messenger: an event with a signature is taken",
                self.event(messenger).header(signature::HEADER, signed).body(receipt),
                (200, |body| body == "EVENT_RECEIVED"),
                "401 = app_secret is another one; 503 = secrets or tables are out of reach, see the function's log",
            )
            .await,
            self.check(
                Area::Handshake,
                "fbe: the handshake with the right token is answered with its challenge",
                self.handshake(fbe, &keys.fbe_verify_token),
                (200, |body| body == CHALLENGE),
                "fbe_verify_token (or verify_token) in the meta secret is another one",
            )
            .await,
            self.check(
                Area::Handshake,
                "fbe: the handshake with a wrong token is refused",
                self.handshake(fbe, &wrong),
                (403, |_| true),
                "anybody could subscribe to this webhook",
            )
            .await,
            self.check(
                Area::Signature,
                "fbe: an event without a signature is refused",
                self.event(fbe).body("{}"),
                (401, |_| true),
                "anybody could send installs",
            )
            .await,
            self.check(
                Area::Signature,
                "whatsapp: a message with the right token is taken",
                blank(&keys.inbound_token),
                (202, |body| {
                    let answer: Value = serde_json::from_str(body).unwrap_or_default();
                    answer.get("status").and_then(Value::as_str) == Some("ignored")
                }),
                "401 = inbound_token in the relay secret is another one; 503 = see the function's log",
            )
            .await,
            self.check(
                Area::Signature,
                "whatsapp: a message with a wrong token is refused",
                blank(&wrong),
                (401, |_| true),
                "anybody could write to your external system",
            )
            .await,
            self.check(
                Area::Signature,
                "whatsapp: a reply without a signature is refused",
                self.event(reply).body("{}"),
                (401, |_| true),
                "anybody could write to your customers",
            )
            .await,
            self.check(
                Area::Signature,
                "messenger: a message to nobody finds nobody",
                self.message_to_nobody(send, &keys.send_token),
                (404, |body| {
                    let answer: Value = serde_json::from_str(body).unwrap_or_default();
                    answer.get("error").and_then(Value::as_str) == Some("contact_unknown")
                }),
                "401 = send_token (without one, inbound_token) in the relay secret is another one; 503 = see the function's log",
            )
            .await,
            self.check(
                Area::Signature,
                "messenger: a message with a wrong token is refused",
                self.message_to_nobody(send, &wrong),
                (401, |_| true),
                "anybody could write to people on Messenger",
            )
            .await,
            self.check(
                Area::Signature,
                "deletion: a request that another app has signed is refused",
                self.client
                    .request(Method::POST, deletion)
                    .form(&[("signed_request", foreign_request(&wrong))]),
                (401, |_| true),
                "anybody could have people erased; 404 = the stack is of an older version",
            )
            .await,
        ]
    }

    async fn check(
        &self,
        area: Area,
        name: &'static str,
        request: RequestBuilder,
        (status, body): (u16, impl Fn(&str) -> bool),
        hint: &'static str,
    ) -> Verdict {
        let problem = match request.headers(self.headers.clone()).send().await {
            // The URL is left out: a handshake's has the token in it.
            Err(error) => Some(format!("no answer ({})", error.without_url())),
            Ok(answer) => {
                let got = answer.status().as_u16();
                let text = answer.text().await.unwrap_or_default();
                if got != status {
                    Some(format!("expected {status}, got {got}"))
                } else if !body(&text) {
                    Some(format!("answered {got}, but with another body"))
                } else {
                    None
                }
            }
        };
        Verdict {
            area,
            name,
            problem: problem.map(|what| Problem { what, hint }),
        }
    }

    fn handshake(&self, url: &str, token: &SecretString) -> RequestBuilder {
        let query = [
            ("hub.mode", "subscribe"),
            ("hub.challenge", CHALLENGE),
            ("hub.verify_token", token.expose_secret()),
        ];
        self.client.request(Method::GET, url).query(&query)
    }

    /// Whom it is for is looked for in the table, and nothing is written.
    fn message_to_nobody(&self, url: &str, token: &SecretString) -> RequestBuilder {
        let body = json!({"psid": "1", "page_id": "1", "text": "hello"}).to_string();
        self.event(url).bearer_auth(token.expose_secret()).body(body)
    }

    fn event(&self, url: &str) -> RequestBuilder {
        self.client
            .request(Method::POST, url)
            .header("content-type", "application/json")
    }
}

/// The time by the server at `url`; `None` if it does not say.
pub(crate) async fn server_time(url: &str) -> Option<Timestamp> {
    let answer = http::client(Duration::from_secs(10)).get(url).send().await.ok()?;
    let date = answer.headers().get(DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::parse(date).ok().map(|date| date.timestamp())
}

/// A receipt of somebody who is nobody's contact. The contact is looked for, so the table is known to be there, and
/// nothing is written.
fn read_receipt(now: Timestamp) -> String {
    let now = now.as_millisecond();
    json!({"object": "page", "entry": [{"id": "1", "time": now, "messaging": [{
        "sender": {"id": "1"}, "recipient": {"id": "1"}, "timestamp": now, "read": {"watermark": now},
    }]}]})
    .to_string()
}

/// A request to erase nobody, signed with a secret that is not the app's.
fn foreign_request(secret: &SecretString) -> String {
    let payload = json!({"algorithm": "HMAC-SHA256", "issued_at": 0, "user_id": "1"});
    signed_request::sign(secret, &payload)
}

/// A blank message is ignored, and that of a preview is not looked for among the earlier ones.
fn blank_message() -> String {
    json!({
        "user_id": "bridge-smoke",
        "phone_number": "+15550000000",
        "message": " ",
        "dispatch_id": "dispatch_id_for_unsent_campaign",
    })
    .to_string()
}
