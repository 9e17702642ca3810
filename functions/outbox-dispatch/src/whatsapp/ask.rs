//! Messages to the external system, and its answer into the store.

use std::time::Duration;

use jiff::Timestamp;
use shared::outbox::Reason;
use shared::store::Rounds;
use shared::telemetry;
use shared::whatsapp::answer::{Answer, Answered};
use shared::whatsapp::conversation::{Mode, Role, Turn, TurnStatus};
use shared::whatsapp::decide::answer::decide_answer;
use shared::whatsapp::duplicate::handover_id;
use shared::whatsapp::plan::Plan;
use shared::whatsapp::request::ExternalRequest;
use shared::whatsapp::settings::ExternalSystemKind;
use shared::whatsapp::table::{By, Committed};

use super::drain::{BEYOND, BRAZE_TIMEOUT, Drain, Stop, Waiting, persist};
use super::external_system::ExternalSystemError;
use super::failure::{Failure, decide_failure, in_time};
use super::openai::chat::{Chat, Next};
use super::pace::{next_handover, wait_for_burst};
use super::route::{ExternalSystem, external_system, is_asked};
use crate::settle::Outcome;

/// A message whose answer is of another shape is given up with this answer.
const MALFORMED_ANSWERS: u32 = 3;

impl Drain<'_> {
    /// Hands over the messages whose turn it is. `true` if something has changed: there may be replies to send,
    /// or more messages.
    pub(super) async fn hand_over(&mut self) -> Result<bool, Stop> {
        self.burst_ends = self.burst();
        if self.burst_ends.is_some() {
            return Ok(false);
        }
        let messages = self.next_messages();
        if messages.is_empty() {
            self.outdated |= self.has_more();
            self.postpone_messages().await?;
            return Ok(false);
        }
        let route = self.stored.conversation.route.clone();
        let Some(system) = external_system(route.as_deref(), &self.worker.settings) else {
            self.wait_for_settings(Reason::NoExternalSystem.into(), &messages)
                .await?;
            return Ok(true);
        };
        let (mode, asked_at) = (self.stored.conversation.mode, self.now());
        let asked = if is_asked(&self.stored.conversation, system) {
            let limit = self.worker.settings.external_system_timeout;
            if !self.has_time_for(limit) {
                return Err(Stop::OutOfTime);
            }
            self.ask(system, &messages).await?
        } else {
            Ok(Answered::Now(Answer::default()))
        };
        match asked {
            Ok(answered) => {
                let answer = match answered {
                    Answered::Now(answer) => self.without_reserved(answer),
                    Answered::Later => {
                        metrics::counter!(telemetry::ANSWERS_AWAITED).increment(1);
                        tracing::info!("an external system has taken messages and may answer later");
                        Answer::default()
                    }
                };
                self.take(&answer, &messages, (mode, asked_at), system.kind)
                    .await?;
            }
            Err(error) => {
                self.asked = error.may_have_arrived();
                self.fail(&error, &messages).await?;
            }
        }
        Ok(true)
    }

    /// The answer without attributes that are not for an external system to write.
    fn without_reserved(&self, mut answer: Answer) -> Answer {
        for attribute in answer.take_reserved(&self.worker.settings.rules.reserved) {
            metrics::counter!(telemetry::ATTRIBUTES_REFUSED).increment(1);
            tracing::warn!(
                attribute,
                "an answer tries to write an attribute that is not its own"
            );
        }
        answer
    }

    /// When the burst is over that new messages belong to, if that is still to come.
    fn burst(&self) -> Option<Timestamp> {
        let new: Vec<Turn> = self
            .waiting_messages()
            .into_iter()
            .filter(|message| message.backs_off_until.is_none())
            .map(|message| message.turn.clone())
            .collect();
        wait_for_burst(&new, self.worker.settings.rules.burst_window, self.now())
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

    async fn ask(
        &mut self,
        system: ExternalSystem<'_>,
        messages: &[Turn],
    ) -> Result<Result<Answered, ExternalSystemError>, Stop> {
        let history = self.history(messages);
        let limit = self.worker.settings.external_system_timeout;
        let (settings, client) = (&self.worker.settings, &self.worker.external_system);
        match system.kind {
            ExternalSystemKind::Webhook => {
                // If the answer comes to `/whatsapp/reply` meanwhile, it has to be known what it answers.
                let conversations = &self.worker.conversations;
                let claim = conversations.ask(&self.lease, messages, limit + BEYOND).await?;
                self.renewed(claim)?;
                let conversation = &self.stored.conversation;
                let id = handover_id(&conversation.id, messages);
                let reply_url = settings.reply_url.as_deref();
                let request = ExternalRequest::new(conversation, messages, &history, reply_url);
                Ok(client.hand_over(system, &id, &request).await)
            }
            ExternalSystemKind::Openai => {
                let mut chat = Chat::new(settings, messages, &history);
                loop {
                    self.hold(limit).await?;
                    let received = client.complete(system, &chat.request()).await;
                    match chat.next(received, self.now()) {
                        Ok(Next::Answer(answer)) => return Ok(Ok(Answered::Now(answer))),
                        Ok(Next::Ask) if self.has_time_for(limit) => {}
                        Ok(Next::Ask) => return Err(Stop::OutOfTime),
                        Err(error) => return Ok(Err(error)),
                    }
                }
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
        (asked_in, asked_at): (Mode, Timestamp),
        kind: ExternalSystemKind,
    ) -> Result<(), Stop> {
        if self.store(answer, messages, asked_in, kind).await? {
            self.learned.answered = true;
            self.asked = false;
            self.settle_handed_over(messages).await;
            return Ok(());
        }
        // They were answered through `/whatsapp/reply` meanwhile, or by ourselves with our own answer lost. What was
        // said already is not said twice.
        self.renew(BRAZE_TIMEOUT).await?;
        self.read().await?;
        if let Some(rest) = self.unsaid(answer, asked_at) {
            self.store(&rest, &[], asked_in, kind).await?;
        }
        Ok(())
    }

    async fn store(
        &mut self,
        answer: &Answer,
        messages: &[Turn],
        asked_in: Mode,
        kind: ExternalSystemKind,
    ) -> Result<bool, Stop> {
        // Only the settings are borrowed while the conversation changes.
        let worker = self.worker;
        let rules = &worker.settings.rules;
        self.commit(|drain| {
            let conversation = &drain.stored.conversation;
            let answer = in_time(answer, asked_in, kind, conversation);
            Some(decide_answer(conversation, messages, &answer, rules, drain.now()))
        })
        .await
    }

    /// What of `answer` did not come since `asked_at`. Nothing, if all that it says was said: then it was stored by
    /// ourselves, and the answer of the table was lost.
    fn unsaid(&self, answer: &Answer, asked_at: Timestamp) -> Option<Answer> {
        let said: Vec<&str> = self
            .turns
            .iter()
            .filter(|turn| turn.role == Role::Assistant && turn.at >= asked_at)
            .map(|turn| turn.content.text.as_str())
            .collect();
        let mut texts = answer
            .replies
            .iter()
            .filter_map(|reply| reply.text.as_deref())
            .peekable();
        let is_ours = if texts.peek().is_some() {
            texts.all(|text| said.contains(&text))
        } else {
            said.is_empty()
        };
        let is_new = |text: &String| !said.contains(&text.as_str());
        let mut rest = answer.clone();
        rest.replies
            .retain(|reply| reply.text.as_ref().is_none_or(is_new));
        let says = !rest.replies.is_empty() || rest.handoff.is_some() || !rest.attributes.is_empty();
        (!is_ours && says).then_some(rest)
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
            ExternalSystemError::Malformed(_) => match messages {
                [alone] => {
                    let before = self.item(alone).map_or(0, |item| item.malformed_answers);
                    before + 1 >= MALFORMED_ANSWERS
                }
                _ => false,
            },
            ExternalSystemError::Rejected { .. } => true,
        };
        let wait = told.unwrap_or_else(|| self.worker.settler.pause(attempts));
        let outcome = if given_up {
            Outcome::Dead { reason }
        } else {
            Outcome::retry_after(reason, wait)
        };
        self.store_failure(attempts + 1, given_up, told).await?;
        self.note_messages(messages, &outcome, wait, |item| {
            item.asked_in_vain += u32::from(error.is_about_the_messages());
            item.malformed_answers += u32::from(matches!(error, ExternalSystemError::Malformed(_)));
        })
        .await?;
        if !given_up {
            self.learned.failures += 1;
        }
        if self.learned.is_enough() {
            self.asks_again_at = Some(self.now() + wait);
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
            ask_not_before: told.map(|wait| self.now() + wait),
        };
        self.commit(|drain| decide_failure(&drain.stored.conversation, failure, settings, drain.now()))
            .await?;
        Ok(())
    }

    /// Nothing can be handed over before a setting or a secret is mended.
    async fn wait_for_settings(&mut self, reason: String, messages: &[Turn]) -> Result<(), Stop> {
        let wait = self.worker.settler.pause(self.attempts(messages));
        let outcome = Outcome::misconfigured_after(reason, wait);
        let waiting = self.waiting_messages();
        let untried = waiting.iter().filter(|message| !message.tried);
        let messages: Vec<Turn> = untried.map(|message| message.turn.clone()).collect();
        self.learned.give_in();
        self.note_messages(&messages, &outcome, wait, |_| ()).await
    }

    /// Commits what `decide` plans for the conversation as it stands, however often it changes meanwhile. The
    /// replies join those that wait. `false` if there was nothing to plan, or another worker has done it.
    async fn commit(&mut self, decide: impl Fn(&Self) -> Option<Plan>) -> Result<bool, Stop> {
        let mut rounds = Rounds::new("a conversation is written too often to keep up with");
        loop {
            let Some(plan) = decide(self) else {
                return Ok(false);
            };
            let conversations = &self.worker.conversations;
            match persist(|| conversations.commit(&plan, By::Worker)).await? {
                Committed::Yes => {
                    self.stored.conversation = plan.conversation;
                    self.turns.extend(plan.turns);
                    let now = self.now();
                    let replies = plan.outbox.iter().map(|item| Waiting::put(item, now));
                    self.replies.extend(replies);
                    return Ok(true);
                }
                Committed::Stale => {
                    rounds.next().await?;
                    let (lease, length) = (&self.lease, BRAZE_TIMEOUT + BEYOND);
                    let claim = persist(|| conversations.renew(lease, length)).await?;
                    self.renewed(claim)?;
                }
                Committed::Behind => {
                    rounds.next().await?;
                    conversations.skip_ahead(&mut self.stored.conversation).await?;
                }
                Committed::HandedOver | Committed::Duplicate | Committed::Erased => return Ok(false),
            }
        }
    }
}
