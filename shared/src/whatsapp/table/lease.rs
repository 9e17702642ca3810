//! The lease on a conversation: one worker at a time drains it.

use std::time::Duration;

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{ReturnValue, ReturnValuesOnConditionCheckFailure};
use jiff::{SignedDuration, Timestamp};

use super::{CONVERSATION, Conversations, key, read_conversation, text};
use crate::store::{StoreError, number, past_transactions, string};
use crate::whatsapp::conversation::Conversation;
use crate::whatsapp::message::ConversationId;

/// A conversation that is ours for a while.
#[derive(Debug, Clone)]
pub struct Leased {
    /// As stored.
    pub conversation: Conversation,
    /// All sends up to this event key are settled.
    pub settled_sends: Option<String>,
    /// Until when it is ours.
    pub until: Timestamp,
    owner: String,
}

/// What became of [`Conversations::claim`].
#[derive(Debug)]
pub enum Claim {
    /// It is ours.
    Leased(Box<Leased>),
    /// Somebody else has it.
    Busy,
    /// There is none.
    Missing,
}

impl Conversations {
    /// Takes the conversation for `lease` and reads it in the same call.
    pub async fn claim(&self, id: &ConversationId, lease: Duration) -> Result<Claim, StoreError> {
        let owner = uuid::Uuid::new_v4().to_string();
        let condition =
            "attribute_exists(facts) AND (attribute_not_exists(lease_until) OR lease_until <= :now)";
        self.lease(id, &owner, lease, condition).await
    }

    /// Holds the conversation for `lease` from now, and reads it again. [`Claim::Busy`] if it is no longer ours.
    pub async fn renew(&self, leased: &Leased, lease: Duration) -> Result<Claim, StoreError> {
        let id = &leased.conversation.id;
        self.lease(id, &leased.owner, lease, "lease_owner = :owner").await
    }

    async fn lease(
        &self,
        id: &ConversationId,
        owner: &str,
        lease: Duration,
        condition: &str,
    ) -> Result<Claim, StoreError> {
        let now = self.clock.now();
        let until = now + SignedDuration::try_from(lease).unwrap_or(SignedDuration::from_mins(1));
        let mut update = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(id, CONVERSATION)))
            .update_expression("SET lease_until = :until, lease_owner = :owner")
            .condition_expression(condition)
            .expression_attribute_values(":until", number(until.as_millisecond()))
            .expression_attribute_values(":owner", string(owner))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if condition.contains(":now") {
            update = update.expression_attribute_values(":now", number(now.as_millisecond()));
        }
        match past_transactions(|| update.clone().send()).await {
            Ok(answer) => {
                let item = read_conversation(answer.attributes.unwrap_or_default())?;
                Ok(Claim::Leased(Box::new(Leased {
                    conversation: item.facts,
                    settled_sends: item.settled_sends,
                    until,
                    owner: owner.to_owned(),
                })))
            }
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                    let old = failed.item();
                    // The call before this one may have been carried out and its answer lost.
                    if let Some(item) = old.filter(|item| text(item, "lease_owner") == Some(owner)) {
                        let item = read_conversation(item.clone())?;
                        return Ok(Claim::Leased(Box::new(Leased {
                            conversation: item.facts,
                            settled_sends: item.settled_sends,
                            until,
                            owner: owner.to_owned(),
                        })));
                    }
                    let there = old.is_some_and(|item| item.contains_key("facts"));
                    Ok(if there { Claim::Busy } else { Claim::Missing })
                }
                _ => Err(StoreError::sdk("UpdateItem", &error)),
            },
        }
    }

    /// Ends the lease, if the conversation is still as `leased` shows it. `false` if it has changed: then it is
    /// still ours, and there may be something new to do. So whoever was turned away because it was ours is
    /// not forgotten. `settled_sends` as in [`Leased`].
    pub async fn release(&self, leased: &Leased, settled_sends: Option<&str>) -> Result<bool, StoreError> {
        let mut update = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(&leased.conversation.id, CONVERSATION)))
            .condition_expression("lease_owner = :owner AND version = :version")
            .expression_attribute_values(":owner", string(&leased.owner))
            .expression_attribute_values(":version", number(leased.conversation.version));
        update = match settled_sends {
            Some(key) => update
                .update_expression("SET settled_sends = :sends REMOVE lease_until, lease_owner")
                .expression_attribute_values(":sends", string(key)),
            None => update.update_expression("REMOVE lease_until, lease_owner"),
        };
        match past_transactions(|| update.clone().send()).await {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(UpdateItemError::is_conditional_check_failed_exception) =>
            {
                Ok(false)
            }
            Err(error) => Err(StoreError::sdk("UpdateItem", &error)),
        }
    }
}
