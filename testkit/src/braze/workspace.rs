//! The workspace behind the API: who may do what, and which endpoint's rules a request meets.

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::input::Rejection;
use super::model::{Model, Outcome, Step};
use super::options::{Endpoint, Options, Request};
use super::{canvas_send, delete, faults, identify, track, trigger};
use crate::fault::{Answer, Effect};
use crate::server::Incoming;

/// Largest body. Documented as 4 MB; this is the smaller reading.
const BODY_BYTES: usize = 4_000_000;

impl Model {
    pub(super) fn receive(&mut self, request: &Incoming) -> Effect {
        let endpoint = Endpoint::ALL
            .into_iter()
            .find(|endpoint| endpoint.path() == request.path);
        let body = serde_json::from_slice(&request.body);
        let step = endpoint.and_then(|endpoint| self.script.next(endpoint));
        let (fault, rejections) = match step {
            None => (None, Vec::new()),
            Some(Step::Fault(fault)) => (Some(fault), Vec::new()),
            Some(Step::Reject(rejections)) => (None, rejections),
        };
        let mut process = || {
            let outcome = self.process(endpoint, request, &body, &rejections);
            // An empty request asks only whether the key is good.
            let is_probe = request.body.as_ref() == b"{}";
            if let Some(reason) = outcome.refused.filter(|_| !is_probe) {
                let (status, path) = (outcome.answer.status, &request.path);
                self.refusals
                    .push(format!("{status} {} {path}: {reason}", request.method));
            }
            self.processed += 1;
            with_headers(outcome.answer, self.processed, self.options.clock.now())
        };
        let effect = match fault {
            None => Effect::of(process()),
            Some(fault) => fault.play(process),
        };
        self.requests.push(Request {
            path: request.path.clone(),
            status: effect.answer.as_ref().map(|answer| answer.status),
            body: body.unwrap_or_default(),
            bytes: request.body.len(),
        });
        effect
    }

    fn process(
        &mut self,
        endpoint: Option<Endpoint>,
        request: &Incoming,
        body: &serde_json::Result<Value>,
        rejections: &[Rejection],
    ) -> Outcome {
        if request.path.len() > 1 && request.path.ends_with('/') {
            return Outcome::refused(403, "Access Denied");
        }
        let Some(endpoint) = endpoint.filter(|_| request.method == http::Method::POST) else {
            let paths = Endpoint::ALL.map(Endpoint::path).join(", ");
            return Outcome::refused(404, &format!("the fake Braze has only POST {paths}"));
        };
        if let Some(refused) = self.check_key(endpoint, request.bearer().unwrap_or_default()) {
            return refused;
        }
        if !request.is("application/json") {
            return Outcome::refused(415, "Unsupported Media Type");
        }
        if request.body.len() > BODY_BYTES {
            return Outcome::refused(413, "Request Entity Too Large");
        }
        let Ok(body) = body else {
            return Outcome::refused(400, "Bad syntax");
        };
        match endpoint {
            Endpoint::Track => track::process(self, body, rejections),
            Endpoint::Identify => identify::process(self, body),
            Endpoint::Delete => delete::process(self, body),
            Endpoint::TriggerSend => trigger::process(self, body),
            Endpoint::CanvasSend => canvas_send::process(self, body),
        }
    }

    fn check_key(&self, endpoint: Endpoint, key: &str) -> Option<Outcome> {
        let Options {
            api_key,
            trigger_api_key,
            ..
        } = &self.options;
        let is = |known: &SecretString| known.expose_secret() == key;
        let is_trigger_key = trigger_api_key.as_ref().is_some_and(is);
        if key.is_empty() || !(is(api_key) || is_trigger_key) {
            return Some(Outcome {
                answer: faults::invalid_key(key),
                refused: Some("unknown API key".to_owned()),
            });
        }
        let allowed = match (endpoint, trigger_api_key) {
            (Endpoint::TriggerSend | Endpoint::CanvasSend, Some(_)) => is_trigger_key,
            _ => is(api_key),
        };
        (!allowed).then(|| Outcome::refused(403, "Access Denied"))
    }
}

/// Limits are per clock hour; what remains is approximate at Braze, too.
fn with_headers(answer: Answer, processed: u64, now: Timestamp) -> Answer {
    const HOUR: i64 = 3_600;
    let reset = (now.as_second() / HOUR + 1) * HOUR;
    answer
        .header("x-ratelimit-limit", 250_000)
        .header("x-ratelimit-remaining", 250_000_u64.saturating_sub(processed))
        .header("x-ratelimit-reset", reset)
        .header("x-request-id", format!("{processed:032x}"))
}
