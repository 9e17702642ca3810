//! A contact is one dispatcher's at a time.

use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure};

use super::{Contacts, read_contact};
use crate::messenger::contact::Contact;
use crate::messenger::decide::Stored;
use crate::messenger::sync::Synced;
use crate::store::{Item, StoreError, is_conflict, number, past_transactions, refused, string, until};

pub(super) const LEASE: &str = "SET lease_until = :until, lease_owner = :owner";
pub(super) const FREE: &str = "attribute_not_exists(lease_until) OR lease_until < :now";

/// What trying to take a contact came to.
#[derive(Debug)]
pub enum Claim {
    /// It is ours until the lease ends.
    Leased(Box<Leased>),
    /// Somebody else has it.
    Busy,
    /// There is no such contact (any more).
    Missing,
}

/// A contact under our lease.
#[derive(Debug, Clone)]
pub struct Leased {
    /// Its facts.
    pub contact: Contact,
    /// What Braze was last told.
    pub synced: Synced,
    /// Whoever had it before never gave it back; what they did at Braze, nobody knows.
    pub interrupted: bool,
    owner: String,
}

impl Contacts {
    /// Takes a contact for `lease` and reads it in the same call.
    pub async fn claim(&self, key: &str, lease: Duration) -> Result<Claim, StoreError> {
        let now = self.clock.now();
        let owner = uuid::Uuid::new_v4().to_string();
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("contact_key", string(key))
            .update_expression(LEASE)
            .condition_expression(format!("attribute_exists(facts) AND ({FREE})"))
            .expression_attribute_values(":until", until(now, lease))
            .expression_attribute_values(":owner", string(&owner))
            .expression_attribute_values(":now", number(now.as_millisecond()))
            // Whether there was a lease before is seen in the old item alone.
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let leased = |item: Item| {
            let interrupted = item.contains_key("lease_owner");
            let Stored { contact, synced } = read_contact(item)?;
            Ok(Claim::Leased(Box::new(Leased {
                contact,
                synced,
                interrupted,
                owner: owner.clone(),
            })))
        };
        let error = match answer {
            Ok(answer) => return leased(answer.attributes.unwrap_or_default()),
            Err(error) => error,
        };
        if is_conflict(&error) {
            return Ok(Claim::Busy);
        }
        let Some(failed) = refused(&error) else {
            return Err(StoreError::sdk("UpdateItem", &error));
        };
        match failed.item().filter(|item| item.contains_key("facts")) {
            None => Ok(Claim::Missing),
            // The answer to this very claim was lost, and the SDK has sent it again.
            Some(item) if item.get("lease_owner") == Some(&string(&owner)) => leased(item.clone()),
            Some(_) => Ok(Claim::Busy),
        }
    }

    /// Writes what is true from now on, whatever becomes of what follows. `false` as with [`Contacts::release`].
    pub async fn note(&self, leased: &Leased, synced: &Synced) -> Result<bool, StoreError> {
        self.under(leased, "SET synced = :synced", Some(synced)).await
    }

    /// Writes what Braze was told, if it changed, and ends the lease. `false` if the lease had run out and
    /// somebody else has the contact: then nothing is written.
    pub async fn release(&self, leased: &Leased, synced: Option<&Synced>) -> Result<bool, StoreError> {
        let expression = match synced {
            Some(_) => "SET synced = :synced REMOVE lease_until, lease_owner",
            None => "REMOVE lease_until, lease_owner",
        };
        self.under(leased, expression, synced).await
    }

    async fn under(
        &self,
        leased: &Leased,
        expression: &str,
        synced: Option<&Synced>,
    ) -> Result<bool, StoreError> {
        let synced: Option<AttributeValue> = synced
            .map(serde_dynamo::to_attribute_value)
            .transpose()
            .map_err(|error| StoreError::new("contact write", error))?;
        let mut update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("contact_key", string(leased.contact.key.to_string()))
            .update_expression(expression)
            .condition_expression("lease_owner = :owner")
            .expression_attribute_values(":owner", string(&leased.owner))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if let Some(synced) = &synced {
            update = update.expression_attribute_values(":synced", synced.clone());
        }
        let Err(error) = past_transactions(|| update.clone().send()).await else {
            return Ok(true);
        };
        let Some(failed) = refused(&error) else {
            return Err(StoreError::sdk("UpdateItem", &error));
        };
        // The answer to this very release may have been lost, and the SDK has sent it again.
        Ok(failed.item().is_some_and(|item| match &synced {
            Some(_) => item.get("synced") == synced.as_ref(),
            None => !item.contains_key("lease_owner"),
        }))
    }
}
