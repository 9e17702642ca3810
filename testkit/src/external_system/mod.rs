//! A fake external system: the brand's chatbot or agent desk behind the WhatsApp relay.
//!
//! It takes handovers in both forms the relay knows, and checks them as a careful receiver would:
//!
//! - **Webhook**, `POST /messages` (and below, for routes with an address of their own): signed by the Standard Webhooks headers,
//!   with `Authorization: Bearer` besides if a token is set. 401 for a wrong credential, 422 for a body that is not as
//!   promised.
//! - **Chat completion**, `POST /v1/chat/completions` in OpenAI's form, with the API key if one is set.
//!
//! By default it echoes. Other behaviour is set for all handovers or scripted for the next ones: see [`Behaviour`].
//! Answers that come later are signed calls of `reply_url`.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use testkit::external_system::{Behaviour, ExternalSystem, Options};
//!
//! let system = ExternalSystem::start(Options::new("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")).await?;
//! system.script_times(3, &Behaviour::failing(503));
//! // … run the code under test with `system.url()` …
//! assert_eq!(system.texts("user:42"), ["where is my order?"]);
//! # Ok(())
//! # }
//! ```

mod desk;
mod handover;
mod reply;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use shared::clock::Clock;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::desk::{Desk, InProgress, Turn};
pub use self::handover::{Handover, Kind};
pub use self::reply::{Behaviour, Reply};
use crate::client::client;
use crate::fault::{Effect, Fault};
use crate::history::Shared;
use crate::server::Server;
use crate::signer;
use crate::time;

/// How the external system is set up.
#[derive(Debug, Clone)]
pub struct Options {
    address: SocketAddr,
    signing_secret: SecretString,
    bearer_token: Option<SecretString>,
    openai_api_key: Option<SecretString>,
    clock: Clock,
    calls_back_with_bearer: bool,
    history: usize,
    drained: bool,
}

impl Options {
    /// A system that shares this Standard Webhooks secret (`whsec_` and base64) with the relay.
    #[must_use]
    pub fn new(signing_secret: &str) -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            signing_secret: signing_secret.into(),
            bearer_token: None,
            openai_api_key: None,
            clock: Clock::fixed(time::start()),
            calls_back_with_bearer: false,
            history: usize::MAX,
            drained: true,
        }
    }

    /// A token that webhooks have to carry besides their signature.
    #[must_use]
    pub fn bearer_token(mut self, token: &str) -> Self {
        self.bearer_token = Some(token.into());
        self
    }

    /// The key that chat completions have to carry.
    #[must_use]
    pub fn openai_api_key(mut self, key: &str) -> Self {
        self.openai_api_key = Some(key.into());
        self
    }

    /// Its time, by which signatures are made and judged; by default it stands at [`time::start`].
    #[must_use]
    pub fn clock(mut self, clock: &Clock) -> Self {
        self.clock = clock.clone();
        self
    }

    /// Calls `reply_url` with the bearer token instead of a signature.
    #[must_use]
    pub fn calls_back_with_bearer(mut self, bearer: bool) -> Self {
        self.calls_back_with_bearer = bearer;
        self
    }

    /// Where to listen; by default a free port of 127.0.0.1.
    #[must_use]
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// How many handovers are remembered; by default all.
    #[must_use]
    pub fn history(mut self, handovers: usize) -> Self {
        self.history = handovers;
        self
    }

    /// Whether dropping the handle asserts that it was drained; by default it does.
    #[must_use]
    pub fn drained(mut self, drained: bool) -> Self {
        self.drained = drained;
        self
    }
}

/// A call of `reply_url`.
#[derive(Debug, Clone, PartialEq)]
pub struct Callback {
    /// The conversation it answered.
    pub conversation_id: String,
    /// Its `webhook-id`; a repetition carries the same one.
    pub webhook_id: String,
    /// What the relay answered; `None` if it did not.
    pub status: Option<u16>,
}

/// The handle. Dropping it stops the server and pending callbacks and, unless switched off, asserts that it was drained.
pub struct ExternalSystem {
    server: Server,
    shared: Arc<Shared<Desk>>,
    options: Options,
    _stop_callbacks: DropGuard,
}

impl ExternalSystem {
    /// Starts serving.
    ///
    /// # Errors
    ///
    /// The signing secret is not base64, or the address cannot be bound.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let desk = Desk::new(options.clone())?;
        let shared = Arc::new(Shared::new(desk));
        let stopping = CancellationToken::new();
        let (model, token, settings) = (shared.clone(), stopping.clone(), options.clone());
        let server = Server::start(options.address, move |request| {
            let (model, token, settings) = (model.clone(), token.clone(), settings.clone());
            async move {
                let Turn {
                    effect,
                    conversation,
                    call_back,
                } = model.lock().receive(&request);
                model.ring();
                if let Some((after, url, reply)) = call_back {
                    let conversation = conversation.clone();
                    let calling = async move {
                        tokio::time::sleep(after).await;
                        let id = model.lock().next_callback_id();
                        // What came of it is on record; nobody waits for it here.
                        drop(call_back_once(&model, &settings, &url, &conversation, &id, &reply).await);
                    };
                    tokio::spawn(async move { token.run_until_cancelled(calling).await });
                    return effect;
                }
                // Until the answer is given, the handover counts as in progress, also if the client hangs up.
                let _in_progress = InProgress::begin(&model, &conversation);
                tokio::time::sleep(effect.delay).await;
                Effect {
                    delay: Duration::ZERO,
                    ..effect
                }
            }
        })
        .await?;
        Ok(Self {
            server,
            shared,
            options,
            _stop_callbacks: stopping.drop_guard(),
        })
    }

    /// The value for `EXTERNAL_SYSTEM_URL` of kind `webhook`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}{}", self.server.url(), desk::MESSAGES)
    }

    /// The value for `EXTERNAL_SYSTEM_URL` of kind `openai`.
    #[must_use]
    pub fn openai_url(&self) -> String {
        format!("{}/v1", self.server.url())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// How it deals with every handover that nothing is scripted for.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.shared.lock().behaviour = behaviour;
    }

    /// Queues a behaviour for the next handover that has none before it.
    pub fn script(&self, behaviour: Behaviour) {
        self.shared.lock().script.push((), behaviour);
    }

    /// Queues a behaviour for so many handovers.
    pub fn script_times(&self, times: usize, behaviour: &Behaviour) {
        let mut desk = self.shared.lock();
        for _ in 0..times {
            desk.script.push((), behaviour.clone());
        }
    }

    /// Every handover meets `fault` from now on, until [`Self::end_outage`].
    pub fn begin_outage(&self, fault: Fault) {
        self.shared
            .lock()
            .script
            .begin_outage(Behaviour::Fault(fault), None);
    }

    /// Every handover meets `fault` for `duration`.
    pub fn down_for(&self, duration: Duration, fault: Fault) {
        self.shared
            .lock()
            .script
            .begin_outage(Behaviour::Fault(fault), Some(duration));
    }

    /// Ends what [`Self::begin_outage`] or [`Self::down_for`] began.
    pub fn end_outage(&self) {
        self.shared.lock().script.end_outage();
    }

    /// Forgets what was scripted and has not been met.
    pub fn clear_script(&self) {
        self.shared.lock().script.clear();
    }

    /// Calls `reply_url` now, as for an answer that comes later. The same `webhook_id` makes it a repetition.
    ///
    /// # Errors
    ///
    /// No answer came.
    pub async fn call_back(
        &self,
        reply_url: &str,
        conversation_id: &str,
        webhook_id: &str,
        reply: &Reply,
    ) -> anyhow::Result<u16> {
        call_back_once(
            &self.shared,
            &self.options,
            reply_url,
            conversation_id,
            webhook_id,
            reply,
        )
        .await
    }

    /// Handovers in order of arrival, without the refused ones.
    #[must_use]
    pub fn handovers(&self) -> Vec<Handover> {
        self.shared.lock().handovers.iter().cloned().collect()
    }

    /// Handovers after the first `seen`, in order of arrival, as far as they are remembered.
    #[must_use]
    pub fn handovers_since(&self, seen: usize) -> Vec<Handover> {
        self.shared.lock().handovers.since(seen)
    }

    /// Handovers of one conversation.
    #[must_use]
    pub fn handovers_of(&self, conversation_id: &str) -> Vec<Handover> {
        let of = |handover: &&Handover| handover.conversation_id() == conversation_id;
        self.shared.lock().handovers.iter().filter(of).cloned().collect()
    }

    /// The texts of one conversation in the order in which they were handed over, repetitions included.
    #[must_use]
    pub fn texts(&self, conversation_id: &str) -> Vec<String> {
        let handovers = self.handovers_of(conversation_id);
        handovers
            .iter()
            .flat_map(Handover::texts)
            .map(str::to_owned)
            .collect()
    }

    /// How often `text` had been handed over in vain when `later` passed it by; `None` if that did not happen. What is
    /// answered is not handed over again, so the last handover of a text is the one that was answered.
    #[must_use]
    pub fn tries_before_passed_by(&self, conversation_id: &str, text: &str, later: &str) -> Option<usize> {
        let handovers = self.handovers_of(conversation_id);
        let holds = |handover: &Handover, text: &str| handover.texts().contains(&text);
        let last = |text: &str| handovers.iter().rposition(|handover| holds(handover, text));
        let passed = last(later).filter(|passed| Some(*passed) < last(text))?;
        let before = handovers.iter().take(passed);
        Some(before.filter(|handover| holds(handover, text)).count())
    }

    /// How many handovers there were, also forgotten ones.
    #[must_use]
    pub fn handover_count(&self) -> usize {
        self.shared.lock().handovers.total()
    }

    /// How many handovers were being answered at the same time, at most.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.shared.lock().most_at_once
    }

    /// Conversations that were handed over again while an earlier handover of theirs was still being answered.
    #[must_use]
    pub fn overlapping(&self) -> Vec<String> {
        self.shared.lock().overlapping.clone()
    }

    /// Calls of `reply_url` that have been made, in order.
    #[must_use]
    pub fn callbacks(&self) -> Vec<Callback> {
        self.shared.lock().callbacks.clone()
    }

    /// Forgets the handovers so far.
    pub fn forget_handovers(&self) {
        self.shared.lock().handovers.clear();
    }

    /// Waits until `condition` holds, looking after every handover and callback. Says whether it did within `timeout`.
    pub async fn until(&self, timeout: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        self.shared.until(timeout, || condition(self)).await
    }

    /// Takes the handovers that were refused, for a test that expects them.
    #[must_use]
    pub fn take_refusals(&self) -> Vec<String> {
        self.shared.lock().refusals.take()
    }

    /// Panics if a scripted behaviour was never met, or if a handover was refused.
    ///
    /// # Panics
    ///
    /// As said; with the list of what is left.
    pub fn assert_drained(&self) {
        let desk = self.shared.lock();
        let left: usize = desk.script.left().into_iter().map(|((), steps)| steps).sum();
        let refused = desk.refusals.all().to_vec();
        drop(desk);
        assert!(
            left == 0,
            "fake external system: {left} scripted behaviours that no handover met"
        );
        assert!(
            refused.is_empty(),
            "fake external system: unexpected refusals: {refused:#?}"
        );
    }
}

impl Drop for ExternalSystem {
    fn drop(&mut self) {
        // A second panic would abort the process and hide the first.
        if self.options.drained && !std::thread::panicking() {
            self.assert_drained();
        }
    }
}

async fn call_back_once(
    shared: &Shared<Desk>,
    options: &Options,
    reply_url: &str,
    conversation_id: &str,
    webhook_id: &str,
    reply: &Reply,
) -> anyhow::Result<u16> {
    let mut body = reply.body();
    body.insert("conversation_id".to_owned(), conversation_id.into());
    let body = Value::from(body).to_string();
    let mut request = client()
        .post(reply_url)
        .header("content-type", "application/json");
    match &options.bearer_token {
        Some(token) if options.calls_back_with_bearer => request = request.bearer_auth(token.expose_secret()),
        _ => {
            let secret = options.signing_secret.expose_secret();
            let now = options.clock.now();
            for (name, value) in signer::standard_webhooks_headers(secret, webhook_id, now, body.as_bytes())?
            {
                request = request.header(name, value);
            }
        }
    }
    let answer = request.body(body).send().await;
    let status = answer.as_ref().ok().map(|answer| answer.status().as_u16());
    shared.lock().callbacks.push(Callback {
        conversation_id: conversation_id.to_owned(),
        webhook_id: webhook_id.to_owned(),
        status,
    });
    shared.ring();
    Ok(answer?.status().as_u16())
}
