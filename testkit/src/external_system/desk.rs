//! The external system behind its API: credentials, what is scripted, and what is on record.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use http::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook};

use super::handover::{self, Handover, Kind};
use super::reply::{Behaviour, Deed, Reply};
use super::{Callback, Options};
use crate::fault::{Answer, Effect, Script};
use crate::history::{History, Refusals, Shared};
use crate::server::Incoming;

/// How far a signature's time may be off, in seconds (<https://www.standardwebhooks.com>).
const TOLERANCE: u64 = 5 * 60;

/// The path of webhooks; routes with an address of their own add to it.
pub(super) const MESSAGES: &str = "/messages";

pub(super) struct Desk {
    options: Options,
    webhook: Webhook,
    pub(super) behaviour: Behaviour,
    pub(super) script: Script<(), Behaviour>,
    pub(super) handovers: History<Handover>,
    pub(super) callbacks: Vec<Callback>,
    pub(super) refusals: Refusals,
    pub(super) most_at_once: usize,
    pub(super) overlapping: Vec<String>,
    in_progress: HashMap<String, usize>,
    webhook_ids: HashSet<String>,
    callback_ids: usize,
}

/// What comes of a request.
pub(super) struct Turn {
    pub(super) effect: Effect,
    pub(super) conversation: String,
    /// When, where and what to call back.
    pub(super) call_back: Option<(Duration, String, Reply)>,
}

/// A refusal: status and body.
type Refused = (u16, Value);

impl Desk {
    pub(super) fn new(options: Options) -> anyhow::Result<Self> {
        Ok(Self {
            webhook: Webhook::new(options.signing_secret.expose_secret())?,
            behaviour: Behaviour::Echo,
            script: Script::new(),
            handovers: History::new(options.history),
            callbacks: Vec::new(),
            refusals: Refusals::default(),
            most_at_once: 0,
            overlapping: Vec::new(),
            in_progress: HashMap::new(),
            webhook_ids: HashSet::new(),
            callback_ids: 0,
            options,
        })
    }

    pub(super) fn next_callback_id(&mut self) -> String {
        self.callback_ids += 1;
        format!("msg_callback_{}", self.callback_ids)
    }

    pub(super) fn receive(&mut self, request: &Incoming) -> Turn {
        match self.check(request) {
            Ok((kind, body)) => self.take(request, kind, body),
            Err((status, body)) => {
                // Somebody looks whether it is there, and asks for nothing.
                if request.method == Method::POST {
                    self.refusals
                        .push(format!("{status} {} {}: {body}", request.method, request.path));
                }
                Turn {
                    effect: Effect::of(Answer::json(status, &body)),
                    conversation: String::new(),
                    call_back: None,
                }
            }
        }
    }

    fn check(&self, request: &Incoming) -> Result<(Kind, Value), Refused> {
        let of_route = request
            .path
            .strip_prefix(MESSAGES)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let body = || serde_json::from_slice::<Value>(&request.body);
        if request.method == Method::POST && of_route {
            let refuse = |status, message: String| Err((status, json!({"error": message})));
            if let Err(reason) = self.check_signature(request) {
                return refuse(401, reason);
            }
            let token = self.options.bearer_token.as_ref();
            if token.is_some_and(|token| request.bearer() != Some(token.expose_secret())) {
                return refuse(401, "the bearer token is missing or wrong".to_owned());
            }
            let Ok(body) = body() else {
                return refuse(422, "the body is not JSON".to_owned());
            };
            return match handover::check_webhook(&body) {
                Ok(()) => Ok((Kind::Webhook, body)),
                Err(reason) => refuse(422, reason),
            };
        }
        if request.method == Method::POST && request.path == "/v1/chat/completions" {
            let refuse = |status, message: String, code: Option<&str>| {
                let error =
                    json!({"message": message, "type": "invalid_request_error", "param": null, "code": code});
                Err((status, json!({"error": error})))
            };
            let key = self.options.openai_api_key.as_ref();
            if key.is_some_and(|key| request.bearer() != Some(key.expose_secret())) {
                return refuse(
                    401,
                    "Incorrect API key provided.".to_owned(),
                    Some("invalid_api_key"),
                );
            }
            let Ok(body) = body() else {
                return refuse(
                    400,
                    "We could not parse the JSON body of your request.".to_owned(),
                    None,
                );
            };
            return match handover::check_chat_completion(&body) {
                Ok(()) => Ok((Kind::ChatCompletion, body)),
                Err(reason) => refuse(400, reason, None),
            };
        }
        Err((
            404,
            json!({"error": format!("the fake external system has only POST {MESSAGES} and /v1/chat/completions")}),
        ))
    }

    fn check_signature(&self, request: &Incoming) -> Result<(), String> {
        let header = |name: &str| {
            request
                .header(name)
                .ok_or_else(|| format!("missing header {name}"))
        };
        let timestamp: i64 = header(HEADER_WEBHOOK_TIMESTAMP)?
            .parse()
            .map_err(|_| "failed to parse timestamp")?;
        if timestamp.abs_diff(self.options.clock.now().as_second()) > TOLERANCE {
            return Err("the timestamp is more than five minutes off".to_owned());
        }
        let right = self
            .webhook
            .sign(header(HEADER_WEBHOOK_ID)?, timestamp, &request.body);
        let right = right.map_err(|error| error.to_string())?;
        let signed = header(HEADER_WEBHOOK_SIGNATURE)?
            .split(' ')
            .any(|signature| signature == right);
        signed.then_some(()).ok_or_else(|| "signature invalid".to_owned())
    }

    fn take(&mut self, request: &Incoming, kind: Kind, body: Value) -> Turn {
        let webhook_id = request.header(HEADER_WEBHOOK_ID).map(str::to_owned);
        let webhook_id = webhook_id.filter(|_| kind == Kind::Webhook);
        let mut handover = Handover {
            kind,
            path: request.path.clone(),
            repeated: webhook_id
                .as_ref()
                .is_some_and(|id| !self.webhook_ids.insert(id.clone())),
            webhook_id,
            body,
            status: None,
        };
        let behaviour = self.script.next(()).unwrap_or_else(|| self.behaviour.clone());
        let (effect, call_back) = match behaviour.deed(&handover.texts().join("\n"), request.body.len()) {
            Deed::Reply { after, reply } => (self.answer(&handover, after, &reply), None),
            Deed::CallBack { after, reply } if kind == Kind::ChatCompletion => {
                (self.answer(&handover, after, &reply), None)
            }
            Deed::CallBack { after, reply } => {
                let url = handover
                    .body
                    .get("reply_url")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                let accepted = Answer::json(202, &json!({"status": "accepted"}));
                (Effect::of(accepted), Some((after, url.to_owned(), reply)))
            }
            Deed::Fault { after, fault } => {
                let echo = Reply::text(&format!("You said: {}", handover.texts().join("\n")));
                let mut effect = fault.play(|| self.true_answer(&handover, &echo));
                effect.delay += after;
                (effect, None)
            }
        };
        handover.status = effect.answer.as_ref().map(|answer| answer.status);
        let conversation = handover.conversation_id().to_owned();
        self.handovers.push(handover);
        Turn {
            effect,
            conversation,
            call_back,
        }
    }

    fn answer(&self, handover: &Handover, delay: Duration, reply: &Reply) -> Effect {
        Effect {
            answer: Some(self.true_answer(handover, reply)),
            delay,
        }
    }

    fn true_answer(&self, handover: &Handover, reply: &Reply) -> Answer {
        let body = match handover.kind {
            Kind::Webhook => reply.body().into(),
            Kind::ChatCompletion => {
                let number = self.handovers.total() + 1;
                let now = self.options.clock.now();
                handover::chat_completion(&handover.body, number, reply.joined().as_deref(), now)
            }
        };
        Answer::json(200, &body)
    }
}

/// A handover that is being answered.
pub(super) struct InProgress<'a> {
    shared: &'a Shared<Desk>,
    conversation: &'a str,
}

impl<'a> InProgress<'a> {
    pub(super) fn begin(shared: &'a Shared<Desk>, conversation: &'a str) -> Self {
        let mut desk = shared.lock();
        let of_this = desk.in_progress.entry(conversation.to_owned()).or_default();
        *of_this += 1;
        if *of_this > 1 && !conversation.is_empty() {
            desk.overlapping.push(conversation.to_owned());
        }
        let all = desk.in_progress.values().sum();
        desk.most_at_once = desk.most_at_once.max(all);
        Self { shared, conversation }
    }
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        let mut desk = self.shared.lock();
        if let Some(of_this) = desk.in_progress.get_mut(self.conversation) {
            *of_this -= 1;
            if *of_this == 0 {
                desk.in_progress.remove(self.conversation);
            }
        }
    }
}
