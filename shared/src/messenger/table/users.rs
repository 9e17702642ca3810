//! The users whose Braze profiles contacts are moved to and from, under `user#<external_id>`.
//!
//! Two contacts of one user would write and take back the same attributes of one profile, and Braze keeps no order
//! between requests. So whoever moves one takes the users first, and sees who else was ever moved there. The record is
//! kept for good: an alias that a user once got stays with them.

use std::fmt;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure};

use super::Contacts;
use super::lease::{FREE, LEASE};
use crate::messenger::key::ContactKey;
use crate::store::{Item, StoreError, number, refused, string, until};

/// Our right to move contacts to and from a user's profile.
#[derive(Clone)]
pub struct UserLease {
    user_id: String,
    owner: String,
    /// The contacts that may ever have been moved there.
    pub contacts: Vec<ContactKey>,
}

impl fmt::Debug for UserLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserLease")
            .field("contacts", &self.contacts.len())
            .finish_non_exhaustive()
    }
}

impl UserLease {
    /// Whom.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.user_id
    }
}

impl Contacts {
    /// Takes a user for `lease`, and notes `entering` as a contact that may be there from now on. `None` if somebody
    /// else has the user.
    pub async fn claim_user(
        &self,
        user_id: &str,
        entering: Option<&ContactKey>,
        lease: Duration,
    ) -> Result<Option<UserLease>, StoreError> {
        let now = self.clock.now();
        let owner = uuid::Uuid::new_v4().to_string();
        let mut update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("contact_key", string(user_key(user_id)))
            .update_expression(LEASE)
            .condition_expression(FREE)
            .expression_attribute_values(":until", until(now, lease))
            .expression_attribute_values(":owner", string(&owner))
            .expression_attribute_values(":now", number(now.as_millisecond()))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if let Some(key) = entering {
            update = update
                .update_expression(format!("{LEASE} ADD contacts :entering"))
                .expression_attribute_values(":entering", AttributeValue::Ss(vec![key.to_string()]));
        }
        let item = match update.send().await {
            Ok(answer) => answer.attributes.unwrap_or_default(),
            Err(error) => {
                let Some(failed) = refused(&error) else {
                    return Err(StoreError::sdk("UpdateItem", &error));
                };
                // The answer to this very claim may have been lost, and the SDK has sent it again.
                match failed.item() {
                    Some(item) if item.get("lease_owner") == Some(&string(&owner)) => item.clone(),
                    _ => return Ok(None),
                }
            }
        };
        Ok(Some(UserLease {
            user_id: user_id.to_owned(),
            owner,
            contacts: contacts(&item),
        }))
    }

    /// Ends a lease; one that had run out is left alone.
    pub async fn release_user(&self, lease: &UserLease) -> Result<(), StoreError> {
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("contact_key", string(user_key(&lease.user_id)))
            .update_expression("REMOVE lease_until, lease_owner")
            .condition_expression("lease_owner = :owner")
            .expression_attribute_values(":owner", string(&lease.owner))
            .send()
            .await;
        match answer {
            Err(error) if refused(&error).is_none() => Err(StoreError::sdk("UpdateItem", &error)),
            _ => Ok(()),
        }
    }
}

fn user_key(user_id: &str) -> String {
    format!("user#{user_id}")
}

fn contacts(item: &Item) -> Vec<ContactKey> {
    let keys = item.get("contacts").and_then(|keys| keys.as_ss().ok());
    keys.into_iter()
        .flatten()
        .filter_map(|key| key.parse().ok())
        .collect()
}
