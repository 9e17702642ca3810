//! From a body that Braze posts to a message that is stored.

use bytes::Bytes;
use lambda_http::http::HeaderMap;
use lambda_http::http::header::CONTENT_TYPE;
use shared::outbox::{Quarantined, Reason};
use shared::store::{Rounds, StoreError};
use shared::telemetry;
use shared::webhook::Answer;
use shared::webhook::access::admit;
use shared::whatsapp::decide::{beside_conversation, decide_inbound, decide_keyword};
use shared::whatsapp::duplicate::message_id;
use shared::whatsapp::table::{By, Committed};
use shared::whatsapp::{Inbound, InboundMessage, parse};

use crate::{App, CONTENDED, accepted, access, store_unavailable};

impl App {
    /// Whatever the body is, it is answered 202 once it is kept: Braze does not repeat what gets a 4xx.
    pub(crate) async fn inbound(&self, headers: &HeaderMap, body: Bytes) -> Result<Answer, Answer> {
        admit(&self.secret, |secret| access::inbound(headers, secret)).await?;
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let stored = match parse(&body, content_type, self.clock.now()) {
            Inbound::Message(message) => {
                metrics::counter!(telemetry::MESSAGES_RECEIVED).increment(1);
                if message.is_keyword(&self.settings.ignored_keywords) {
                    let noted = self.note_keyword(&message).await;
                    noted.map(|()| accepted("ignored", None, Some("keyword")))
                } else {
                    self.store(&message).await
                }
            }
            Inbound::Ignored(reason) => Ok(accepted("ignored", None, Some(reason.as_str()))),
            Inbound::Quarantined(reason) => return self.quarantine(body, reason).await,
        };
        match stored {
            // Nothing can be added to it, and trying again does not help.
            Err(error) if error.is_unreadable() => {
                error.count_unreadable("conversation");
                self.quarantine(body, Reason::ConversationUnreadable).await
            }
            stored => stored.map_err(|error| store_unavailable(&error)),
        }
    }

    /// Keeps a body whole.
    pub(crate) async fn quarantine(&self, body: Bytes, reason: Reason) -> Result<Answer, Answer> {
        let kept = Quarantined {
            source: "whatsapp",
            reason,
            raw: body.into(),
        };
        let quarantined = self.outbox.quarantine(&[kept]).await;
        quarantined.map_err(|error| store_unavailable(&error))?;
        Ok(accepted("quarantined", None, Some(reason.as_str())))
    }

    async fn store(&self, message: &InboundMessage) -> Result<Answer, StoreError> {
        let id = message_id(message, &uuid::Uuid::new_v4().to_string());
        let conversations = &self.conversations;
        let mut rounds = Rounds::new(CONTENDED);
        let mut skipped = false;
        loop {
            let mut stored = conversations.read(&message.conversation_id).await?;
            if let Some(stored) = stored.as_mut().filter(|_| skipped) {
                conversations.skip_ahead(stored).await?;
            }
            let now = self.clock.now();
            let plan = decide_inbound(stored.as_ref(), message, &id, &self.settings, &self.routes, now);
            let mut committed = conversations.commit_once(&plan).await?;
            // Many may come at the same moment, and would only get into each other's way at the conversation.
            if committed == Committed::Stale && stored.is_some() {
                let beside = beside_conversation(plan, message, &self.routes);
                committed = conversations.commit_beside(&beside).await?;
            }
            match committed {
                Committed::Yes => return Ok(accepted("accepted", Some(&id), None)),
                Committed::Duplicate => return Ok(accepted("duplicate", Some(&id), Some("seen_before"))),
                Committed::Erased => return Ok(accepted("ignored", None, Some("erased"))),
                Committed::Behind => skipped = true,
                Committed::Stale | Committed::HandedOver => {}
            }
            rounds.next().await?;
        }
    }

    /// Nobody is asked, but the window opens.
    async fn note_keyword(&self, message: &InboundMessage) -> Result<(), StoreError> {
        let mut rounds = Rounds::new(CONTENDED);
        loop {
            let stored = self.conversations.read(&message.conversation_id).await?;
            let plan = decide_keyword(stored.as_ref(), message, self.clock.now());
            match self.conversations.commit(&plan, By::Door).await? {
                Committed::Yes | Committed::Duplicate | Committed::Behind | Committed::Erased => {
                    return Ok(());
                }
                Committed::Stale | Committed::HandedOver => rounds.next().await?,
            }
        }
    }
}
