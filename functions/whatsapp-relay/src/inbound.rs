//! From a body that Braze posts to a message that is stored.

use bytes::Bytes;
use lambda_http::http::HeaderMap;
use lambda_http::http::header::CONTENT_TYPE;
use shared::outbox::Quarantined;
use shared::store::{Rounds, StoreError};
use shared::webhook::Answer;
use shared::webhook::access::admit;
use shared::whatsapp::decide::decide_inbound;
use shared::whatsapp::duplicate::message_id;
use shared::whatsapp::table::Committed;
use shared::whatsapp::{Inbound, InboundMessage, parse};

use crate::{App, CONTENDED, accepted, access, store_unavailable};

impl App {
    /// Whatever the body is, it is answered 202 once it is kept: Braze does not repeat what gets a 4xx.
    pub(crate) async fn inbound(&self, headers: &HeaderMap, body: Bytes) -> Result<Answer, Answer> {
        admit(&self.secret, |secret| access::inbound(headers, secret)).await?;
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        match parse(&body, content_type, self.clock.now()) {
            Inbound::Message(message) if message.is_keyword(&self.settings.ignored_keywords) => {
                Ok(accepted("ignored", None, Some("keyword")))
            }
            Inbound::Message(message) => {
                let id = message_id(&message, &uuid::Uuid::new_v4().to_string());
                let new = self
                    .store(&message, &id)
                    .await
                    .map_err(|error| store_unavailable(&error))?;
                let (status, reason) = if new {
                    ("accepted", None)
                } else {
                    ("duplicate", Some("seen_before"))
                };
                Ok(accepted(status, Some(&id), reason))
            }
            Inbound::Ignored(reason) => Ok(accepted("ignored", None, Some(reason))),
            Inbound::Quarantined(reason) => {
                let kept = Quarantined {
                    source: "whatsapp",
                    reason,
                    raw: body.into(),
                };
                self.outbox
                    .quarantine(&[kept])
                    .await
                    .map_err(|error| store_unavailable(&error))?;
                Ok(accepted("quarantined", None, Some(reason)))
            }
        }
    }

    /// `false` if it has been here before.
    async fn store(&self, message: &InboundMessage, message_id: &str) -> Result<bool, StoreError> {
        let mut rounds = Rounds::new(CONTENDED);
        loop {
            let stored = self.conversations.read(&message.conversation_id).await?;
            let plan = decide_inbound(
                stored.as_ref(),
                message,
                message_id,
                &self.settings,
                &self.routes,
                self.clock.now(),
            );
            match self.conversations.commit(&plan).await? {
                Committed::Yes => return Ok(true),
                Committed::Duplicate => return Ok(false),
                Committed::Stale | Committed::HandedOver => rounds.next().await?,
            }
        }
    }
}
