//! A fake platform of the partner: it takes signed notices about installs, and nothing else.
//!
//! A notice whose signature, type or content type is wrong is refused and remembered as a refusal, which fails the
//! test when the handle is dropped. A repetition (same `webhook-id`) is taken as one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::fault::{Answer, Effect, Fault, Script};
use crate::history::{Refusals, Shared};
use crate::server::{Incoming, Server};
use crate::signer;

/// A notice that was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// `webhook-id`
    pub id: String,
    /// The body.
    pub body: Value,
}

struct Model {
    secret: String,
    notices: Vec<Notice>,
    requests: usize,
    script: Script<(), Fault>,
    refusals: Refusals,
}

/// The handle. Dropping it stops the server.
pub struct FakePartner {
    server: Server,
    shared: Arc<Shared<Model>>,
    drained: bool,
}

impl FakePartner {
    /// Starts serving; `secret` (`whsec_…`) signs the notices. `drained`: whether dropping the handle asserts that
    /// nothing was refused; not where people may post what they like.
    ///
    /// # Errors
    ///
    /// No port is free.
    pub async fn start(secret: &str, drained: bool) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(Model {
            secret: secret.to_owned(),
            notices: Vec::new(),
            requests: 0,
            script: Script::new(),
            refusals: Refusals::default(),
        }));
        let model = shared.clone();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = Server::start(address, move |request| {
            let model = model.clone();
            async move {
                let effect = model.lock().receive(&request);
                model.ring();
                effect
            }
        })
        .await?;
        Ok(Self {
            server,
            shared,
            drained,
        })
    }

    /// The value for `PARTNER_WEBHOOK_URL`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}/installs", self.server.url())
    }

    /// The notices that were taken, in order, each once.
    #[must_use]
    pub fn notices(&self) -> Vec<Notice> {
        self.shared.lock().notices.clone()
    }

    /// The notices after the first `seen`.
    #[must_use]
    pub fn notices_since(&self, seen: usize) -> Vec<Notice> {
        self.shared.lock().notices.iter().skip(seen).cloned().collect()
    }

    /// How many requests there were, refused and repeated ones too.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.shared.lock().requests
    }

    /// Queues a fault for the next request that has none before it.
    pub fn script(&self, fault: Fault) {
        self.shared.lock().script.push((), fault);
    }

    /// Every request meets `fault` from now on, until [`Self::end_outage`].
    pub fn begin_outage(&self, fault: Fault) {
        self.shared.lock().script.begin_outage(fault, None);
    }

    /// Ends what [`Self::begin_outage`] began.
    pub fn end_outage(&self) {
        self.shared.lock().script.end_outage();
    }

    /// Forgets what was scripted and has not been met.
    pub fn clear_script(&self) {
        self.shared.lock().script.clear();
    }

    /// Waits until `condition` holds, looking after every request. Says whether it did within `timeout`.
    pub async fn until(&self, timeout: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        self.shared.until(timeout, || condition(self)).await
    }

    /// Takes the requests that were refused, for a test that expects them.
    #[must_use]
    pub fn take_refusals(&self) -> Vec<String> {
        self.shared.lock().refusals.take()
    }
}

impl Drop for FakePartner {
    fn drop(&mut self) {
        if self.drained && !std::thread::panicking() {
            let model = self.shared.lock();
            assert!(
                model.refusals.all().is_empty(),
                "the partner's platform refused: {:?}",
                model.refusals.all()
            );
            assert!(
                model.script.left().is_empty(),
                "faults of the partner's platform that no request has met"
            );
        }
    }
}

impl Model {
    fn receive(&mut self, request: &Incoming) -> Effect {
        self.requests += 1;
        let fault = self.script.next(());
        let mut process = || match self.take(request) {
            Ok(notice) => {
                if !self.notices.iter().any(|known| known.id == notice.id) {
                    self.notices.push(notice);
                }
                Answer::json(200, &serde_json::json!({}))
            }
            Err(problem) => {
                self.refusals.push(problem.to_owned());
                Answer::json(400, &serde_json::json!({"error": problem}))
            }
        };
        match fault {
            None => Effect::of(process()),
            Some(fault) => fault.play(process),
        }
    }

    fn take(&self, request: &Incoming) -> Result<Notice, &'static str> {
        if request.method != http::Method::POST || request.path != "/installs" {
            return Err("not POST /installs");
        }
        if !request.is("application/json") {
            return Err("not application/json");
        }
        if !signer::is_signed(&self.secret, &request.headers, &request.body) {
            return Err("the signature is wrong");
        }
        let body: Value = serde_json::from_slice(&request.body).map_err(|_| "not JSON")?;
        if body.get("type").and_then(Value::as_str) != Some("fbe.install.updated") {
            return Err("another type");
        }
        let id = request.header("webhook-id").unwrap_or_default().to_owned();
        Ok(Notice { id, body })
    }
}
