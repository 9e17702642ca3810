//! Messages to the external system, and its answer into the store.

use std::time::Duration;

use crate::settle::Outcome;
use crate::whatsapp::external_system::ExternalSystemError;
use crate::whatsapp::openai::ChatRequest;
use crate::whatsapp::pace::{FAILURES_TOGETHER, next_handover};
use jiff::Timestamp;
use shared::outbox::Reason;
use shared::store::Rounds;
use shared::whatsapp::answer::{Answer, ExternalRequest, Outcome as Answered};
use shared::whatsapp::conversation::{Mode, Turn, TurnStatus};
use shared::whatsapp::decide::{is_asked, wait_for_burst};
use shared::whatsapp::duplicate::handover_id;
use shared::whatsapp::plan::Plan;
use shared::whatsapp::route::{ExternalSystem, ReplyRules, external_system};
use shared::whatsapp::settings::ExternalSystemKind;
use shared::whatsapp::settle::{Failure, decide_answer, decide_failure, in_time};
use shared::whatsapp::table::Committed;

use super::LONGEST_WAIT;
use super::drain::{BRAZE_TIMEOUT, Drain, Stop, Waiting, persist, signed};

impl Drain<'_> {
    /// Hands over the messages whose turn it is. `true` if something has changed: there may be replies to send,
    /// or more messages.
    pub(super) async fn hand_over(&mut self) -> Result<bool, Stop> {
        if self.waits_for_burst {
            return Ok(false);
        }
        if let Some(ready) = self.burst_ends() {
            return self.wait(ready).await;
        }
        let messages = self.next_messages();
        if messages.is_empty() {
            self.postpone_messages().await?;
            return Ok(false);
        }
        let route = self.stored.conversation.route.clone();
        let Some(system) = external_system(route.as_deref(), &self.worker.settings) else {
            self.wait_for_settings(Reason::NoExternalSystem.into(), &messages)
                .await?;
            return Ok(true);
        };
        let mode = self.stored.conversation.mode;
        let asked = if is_asked(&self.stored.conversation, system) {
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
            Ok(Answered::Now(answer)) => self.take(&answer, &messages, mode, system.kind).await?,
            Ok(Answered::Later) => {
                let answer = Answer::default();
                self.take(&answer, &messages, mode, system.kind).await?;
            }
            Err(error) => self.fail(&error, &messages).await?,
        }
        Ok(true)
    }

    /// When the burst is over that new messages belong to, if that is still to come.
    fn burst_ends(&self) -> Option<Timestamp> {
        let new: Vec<Turn> = self
            .waiting_messages()
            .into_iter()
            .filter(|message| message.attempts == 0)
            .map(|message| message.turn.clone())
            .collect();
        wait_for_burst(&new, self.worker.settings.burst_window, self.now())
    }

    fn next_messages(&self) -> Vec<Turn> {
        let now = self.now();
        let conversation = &self.stored.conversation;
        if conversation.ask_not_before.is_some_and(|until| until > now) {
            return Vec::new();
        }
        let waiting = self.waiting_messages();
        let next = next_handover(&waiting, self.learned, now);
        next.into_iter().cloned().collect()
    }

    /// Waits for the rest of a burst.
    async fn wait(&mut self, ready: Timestamp) -> Result<bool, Stop> {
        let wait = ready.duration_since(self.now());
        let limit = self.worker.settings.external_system_timeout;
        if wait > LONGEST_WAIT || ready + signed(limit) > self.until {
            // The items fall due when the wait is over.
            self.waits_for_burst = true;
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
        &mut self,
        system: ExternalSystem<'_>,
        messages: &[Turn],
    ) -> Result<Answered, ExternalSystemError> {
        let history = self.history(messages);
        let (settings, client) = (&self.worker.settings, &self.worker.external_system);
        match system.kind {
            ExternalSystemKind::Webhook => {
                let conversation = &self.stored.conversation;
                let id = handover_id(&conversation.id, messages);
                let reply_url = settings.reply_url.as_deref();
                let request = ExternalRequest::new(conversation, messages, &history, reply_url);
                client.hand_over(system.url, &id, &request).await
            }
            ExternalSystemKind::Openai => {
                let model = settings.openai_model.as_deref().unwrap_or_default();
                let prompt = settings.openai_system_prompt.as_deref().unwrap_or_default();
                let request = ChatRequest::new(model, prompt, messages, &history);
                let answer = client.complete(system.url, &request).await;
                // The history may be what it refuses: too long for the model, or something said before.
                let limit = settings.external_system_timeout;
                if matches!(answer, Err(ExternalSystemError::Rejected { .. }))
                    && !history.is_empty()
                    && self.has_time_for(limit)
                    && self.hold(limit).await.is_ok()
                {
                    let request = ChatRequest::new(model, prompt, messages, &[]);
                    return client.complete(system.url, &request).await;
                }
                answer
            }
        }
    }

    /// What was said before `messages`, without what the external system has not got or could not answer.
    fn history(&self, messages: &[Turn]) -> Vec<Turn> {
        let is_told = |turn: &&Turn| {
            !matches!(turn.status, Some(TurnStatus::Pending | TurnStatus::GivenUp))
                && !messages.iter().any(|message| message.id == turn.id)
        };
        self.turns.iter().filter(is_told).cloned().collect()
    }

    /// Stores an answer, so that the external system is not asked again whatever happens to the replies.
    async fn take(
        &mut self,
        answer: &Answer,
        messages: &[Turn],
        asked_in: Mode,
        kind: ExternalSystemKind,
    ) -> Result<(), Stop> {
        let rules = ReplyRules::from(&self.worker.settings);
        let stored = self
            .commit(|drain| {
                let conversation = &drain.stored.conversation;
                let answer = in_time(answer, asked_in, kind, conversation);
                Some(decide_answer(conversation, messages, &answer, rules, drain.now()))
            })
            .await?;
        if !stored {
            // Somebody else has handed them over; what they made of it has to be read.
            self.outdated = true;
            return Ok(());
        }
        self.learned.answered = true;
        self.settle_handed_over(messages).await;
        Ok(())
    }

    /// Notes a failure, and says the fallback text if it is time for it.
    async fn fail(&mut self, error: &ExternalSystemError, messages: &[Turn]) -> Result<(), Stop> {
        if messages.len() > 1 && self.may_be_one_of(error, messages) {
            self.learned.each_alone = true;
            return Ok(());
        }
        let reason = error.to_string();
        let attempts = self.attempts(messages);
        let told = match error {
            ExternalSystemError::Transient { wait, .. } => *wait,
            _ => None,
        };
        let given_up = match error {
            ExternalSystemError::Configuration { .. } => {
                self.store_failure(attempts + 1, false, None).await?;
                return self.wait_for_settings(reason, messages).await;
            }
            ExternalSystemError::Transient { .. } => false,
            // A model may do better next time. A system that means another kind of answer does its work, and
            // writes to the person, each time.
            ExternalSystemError::Malformed(_) => messages.len() == 1 && attempts + 1 >= FAILURES_TOGETHER,
            ExternalSystemError::Rejected { .. } => true,
        };
        let wait = told.unwrap_or_else(|| self.worker.settler.pause(attempts));
        let outcome = if given_up {
            Outcome::Dead { reason }
        } else {
            Outcome::Retry {
                reason,
                wait: Some(wait),
            }
        };
        self.store_failure(attempts + 1, given_up, told).await?;
        self.note_messages(messages, &outcome, wait).await?;
        if !given_up {
            self.learned.failures += 1;
        }
        if self.learned.is_enough() {
            self.asks_again_at = Some(self.now() + signed(wait));
        }
        Ok(())
    }

    /// Whether a single one of these messages may be what is wrong, so that the others have to go without it.
    fn may_be_one_of(&self, error: &ExternalSystemError, messages: &[Turn]) -> bool {
        match error {
            ExternalSystemError::Rejected { .. } => true,
            ExternalSystemError::Transient { wait: None, .. } | ExternalSystemError::Malformed(_) => {
                let waiting = self.waiting_messages();
                let mut alone = waiting.iter().filter(|message| message.goes_alone());
                alone.any(|message| messages.iter().any(|one| one.id == message.turn.id))
            }
            ExternalSystemError::Transient { .. } | ExternalSystemError::Configuration { .. } => false,
        }
    }

    async fn store_failure(
        &mut self,
        failures: u32,
        given_up: bool,
        told: Option<Duration>,
    ) -> Result<(), Stop> {
        let settings = &self.worker.settings;
        let failure = Failure {
            failures,
            given_up,
            ask_not_before: told.map(|wait| self.now() + signed(wait)),
        };
        self.commit(|drain| decide_failure(&drain.stored.conversation, failure, settings, drain.now()))
            .await?;
        Ok(())
    }

    /// Nothing can be handed over before somebody mends a setting or a secret.
    async fn wait_for_settings(&mut self, reason: String, messages: &[Turn]) -> Result<(), Stop> {
        let wait = self.worker.settler.pause(self.attempts(messages));
        let outcome = Outcome::Misconfigured {
            reason,
            wait: Some(wait),
        };
        let waiting = self.waiting_messages();
        let untried = waiting.iter().filter(|message| !message.tried);
        let messages: Vec<Turn> = untried.map(|message| message.turn.clone()).collect();
        self.learned.give_in();
        self.note_messages(&messages, &outcome, wait).await
    }

    /// Commits what `decide` plans for the conversation as it stands, however often it changes meanwhile. The
    /// replies join those that wait. `false` if there was nothing to plan, or somebody else has done it.
    async fn commit(&mut self, decide: impl Fn(&Self) -> Option<Plan>) -> Result<bool, Stop> {
        let mut rounds = Rounds::new("a conversation is written too often to keep up with");
        loop {
            let Some(plan) = decide(self) else {
                return Ok(false);
            };
            let conversations = &self.worker.conversations;
            match persist(|| conversations.commit(&plan)).await? {
                Committed::Yes => {
                    self.stored.conversation = plan.conversation;
                    self.turns.extend(plan.turns);
                    self.replies
                        .extend(plan.outbox.into_iter().map(|item| Waiting::new(item.event_key)));
                    return Ok(true);
                }
                Committed::Stale => {
                    rounds.next().await?;
                    let (lease, length) = (&self.lease, BRAZE_TIMEOUT + super::drain::BEYOND);
                    let claim = persist(|| conversations.renew(lease, length)).await?;
                    self.renewed(claim)?;
                }
                Committed::HandedOver | Committed::Duplicate => return Ok(false),
            }
        }
    }
}
