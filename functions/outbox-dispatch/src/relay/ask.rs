//! Messages to the external system, and its answer into the store.

use futures_util::future::join_all;
use jiff::Timestamp;
use shared::clients::external_system::ExternalSystemError;
use shared::config::ExternalSystemKind;
use shared::outbox::Kind;
use shared::outbox::dispatch::Outcome;
use shared::store::StoreError;
use shared::store::conversations::{Changes, Committed};
use shared::whatsapp::answer::{Answer, ExternalRequest, Outcome as Answered};
use shared::whatsapp::conversation::{Turn, TurnStatus};
use shared::whatsapp::decide::{is_asked, wait_for_burst};
use shared::whatsapp::duplicate::handover_id;
use shared::whatsapp::openai::ChatRequest;
use shared::whatsapp::route::{ExternalSystem, ReplyRules, external_system};
use shared::whatsapp::settle::{
    AnswerPlan, FAILURES_BEFORE_FALLBACK, MAX_HANDED_OVER, decide_answer, decide_fallback,
};

use super::LONGEST_WAIT;
use super::drain::{BRAZE_TIMEOUT, Drain, Stop, Waiting, message_key, persist, signed};

/// How often an answer is decided anew because the conversation changed in between.
const ROUNDS: usize = 20;

impl Drain<'_> {
    /// Hands over the messages that wait. `true` if something has changed: there may be replies to send, or
    /// more messages.
    pub(super) async fn hand_over(&mut self) -> Result<bool, Stop> {
        let waiting = self.waiting_messages();
        if self.failed || waiting.is_empty() {
            return Ok(false);
        }
        let burst_window = self.worker.settings.burst_window;
        if let Some(ready) = wait_for_burst(&waiting, burst_window, self.now()) {
            return self.wait(ready).await;
        }
        let messages: Vec<Turn> = waiting.into_iter().take(MAX_HANDED_OVER).collect();
        let route = self.leased.conversation.route.as_deref();
        let Some(system) = external_system(route, &self.worker.settings) else {
            let outcome = Outcome::Misconfigured {
                reason: "no_external_system".to_owned(),
                wait: None,
            };
            self.failed = true;
            self.note_messages(&messages, &outcome).await?;
            return Ok(false);
        };
        let asked = if is_asked(&self.leased.conversation, system) {
            let limit = self.worker.settings.external_system_timeout;
            if !self.has_time_for(limit) {
                return Err(Stop::OutOfTime);
            }
            self.hold(limit).await?;
            self.ask(system, &messages).await
        } else {
            Ok(Answered::Now(Answer::default()))
        };
        match asked {
            Ok(Answered::Now(answer)) => self.take(&answer, &messages).await,
            Ok(Answered::Later) => self.take(&Answer::default(), &messages).await,
            Err(error) => self.fail(&error, &messages).await,
        }
    }

    /// Messages that wait, in order. One that was given up goes again only if its item was redriven.
    fn waiting_messages(&self) -> Vec<Turn> {
        let waits = |turn: &&Turn| match turn.status {
            Some(TurnStatus::Pending) => true,
            Some(TurnStatus::GivenUp) => self.given.contains_key(message_key(turn).as_str()),
            Some(TurnStatus::HandedOver) | None => false,
        };
        self.turns.iter().filter(waits).cloned().collect()
    }

    /// Waits for the rest of a burst.
    async fn wait(&mut self, ready: Timestamp) -> Result<bool, Stop> {
        let wait = ready.duration_since(self.now());
        let limit = self.worker.settings.external_system_timeout;
        if wait > LONGEST_WAIT || ready + signed(limit) > self.until {
            // The items fall due when the wait is over.
            self.failed = true;
            return Ok(false);
        }
        let wait = wait.unsigned_abs();
        self.hold(wait).await?;
        tokio::time::sleep(wait).await;
        self.waited_until = ready;
        self.renew(limit).await?;
        // Also if nothing came: then it is time.
        Ok(true)
    }

    async fn ask(
        &self,
        system: ExternalSystem<'_>,
        messages: &[Turn],
    ) -> Result<Answered, ExternalSystemError> {
        let conversation = &self.leased.conversation;
        let settings = &self.worker.settings;
        let client = &self.worker.external_system;
        let history: Vec<Turn> = self
            .turns
            .iter()
            .filter(|turn| turn.status != Some(TurnStatus::Pending))
            .filter(|turn| !messages.iter().any(|message| message.id == turn.id))
            .cloned()
            .collect();
        match system.kind {
            ExternalSystemKind::Webhook => {
                let id = handover_id(&conversation.id, messages);
                let reply_url = settings.reply_url.as_deref();
                let request = ExternalRequest::new(conversation, messages, &history, reply_url);
                client.hand_over(system.url, &id, &request).await
            }
            ExternalSystemKind::Openai => {
                let model = settings.openai_model.as_deref().unwrap_or_default();
                let prompt = settings.openai_system_prompt.as_deref().unwrap_or_default();
                let request = ChatRequest::new(model, prompt, messages, &history);
                client.complete(system.url, &request).await
            }
        }
    }

    /// Stores an answer, so that the external system is not asked again whatever happens to the replies.
    async fn take(&mut self, answer: &Answer, messages: &[Turn]) -> Result<bool, Stop> {
        let rules = ReplyRules::from(&self.worker.settings);
        let stored = self
            .commit(|drain| {
                let conversation = &drain.leased.conversation;
                Some(decide_answer(conversation, messages, answer, rules, drain.now()))
            })
            .await?;
        if !stored {
            // Somebody else has handed them over; what they made of it has to be read.
            self.outdated = true;
            return Ok(true);
        }
        for turn in &mut self.turns {
            if messages.iter().any(|message| message.id == turn.id) {
                turn.status = Some(TurnStatus::HandedOver);
            }
        }
        let mut found: Vec<String> = messages.iter().map(message_key).collect();
        found.retain(|key| !self.given.contains_key(key.as_str()));
        let (outbox, subject) = (&self.worker.outbox, self.subject);
        for settled in join_all(found.iter().map(|key| outbox.done_key(subject, key))).await {
            if let Err(error) = settled {
                // It wakes somebody once more, who finds nothing to do.
                tracing::warn!(%error, "a message's item is settled later");
            }
        }
        self.settle_given(messages);
        Ok(true)
    }

    fn settle_given(&mut self, messages: &[Turn]) {
        for message in messages {
            if let Some((position, _)) = self.given.get(message_key(message).as_str()) {
                self.outcomes.insert(*position, Outcome::Done);
            }
        }
    }

    /// Notes a failure, and says the fallback text if it is time for it.
    async fn fail(&mut self, error: &ExternalSystemError, messages: &[Turn]) -> Result<bool, Stop> {
        self.failed = true;
        let reason = error.to_string();
        let (outcome, given_up) = match error {
            ExternalSystemError::Transient { wait, .. } => (Outcome::Retry { reason, wait: *wait }, false),
            ExternalSystemError::Malformed(_) => (Outcome::retry(reason), false),
            ExternalSystemError::Configuration { .. } => {
                (Outcome::Misconfigured { reason, wait: None }, false)
            }
            ExternalSystemError::Rejected { .. } => (Outcome::Dead { reason }, true),
        };
        let failures = if given_up {
            FAILURES_BEFORE_FALLBACK
        } else {
            self.failures(messages)
        };
        let settings = &self.worker.settings;
        let said = self
            .commit(|drain| decide_fallback(&drain.leased.conversation, failures, settings, drain.now()))
            .await?;
        if given_up {
            let id = self.leased.conversation.id.clone();
            self.worker.conversations.give_up(&id, messages).await?;
        }
        self.note_messages(messages, &outcome).await?;
        Ok(said)
    }

    /// How often these messages have failed, with this time.
    fn failures(&self, messages: &[Turn]) -> u32 {
        let attempts = messages
            .iter()
            .filter_map(|message| self.given.get(message_key(message).as_str()))
            .map(|(_, entry)| entry.attempts);
        attempts.max().unwrap_or_default() + 1
    }

    async fn note_messages(&mut self, messages: &[Turn], outcome: &Outcome) -> Result<(), Stop> {
        for message in messages {
            let given = self.given.get(message_key(message).as_str());
            if let Some((_, entry)) = given.filter(|(_, entry)| entry.kind == Kind::RelayMessage) {
                let entry = *entry;
                self.note(entry, outcome.clone()).await?;
            }
        }
        Ok(())
    }

    /// Commits what `decide` plans for the conversation as it stands, however often it changes meanwhile. The
    /// replies join those that wait. `false` if there was nothing to plan, or somebody else has done it.
    async fn commit(&mut self, decide: impl Fn(&Self) -> Option<AnswerPlan>) -> Result<bool, Stop> {
        for _ in 0..ROUNDS {
            let Some(plan) = decide(self) else {
                return Ok(false);
            };
            let (id, conversations) = (&plan.conversation.id, &self.worker.conversations);
            let changes = Changes::from(&plan);
            match persist(move || conversations.commit(id, changes)).await? {
                Committed::Yes => {
                    self.leased.conversation = plan.conversation;
                    self.turns.extend(plan.turns);
                    self.replies.extend(plan.outbox.into_iter().map(|item| Waiting {
                        event_key: item.event_key,
                        backs_off_until: None,
                    }));
                    return Ok(true);
                }
                Committed::Stale => self.renew(BRAZE_TIMEOUT).await?,
                Committed::HandedOver | Committed::Duplicate => return Ok(false),
            }
        }
        Err(Stop::Store(StoreError::conflict(
            "a conversation is written too often to keep up with",
        )))
    }
}
