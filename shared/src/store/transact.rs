//! Writes that are made together or not at all.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::error::TransactionCanceledException;
use aws_sdk_dynamodb::types::{Put, ReturnValue, TransactWriteItem};

use super::rounds::Rounds;
use super::table::{CONFLICT, Updated, send_update};
use super::{Item, StoreError};

/// Writes that DynamoDB takes in one transaction.
pub(crate) const MAX_TRANSACT: usize = 100;

const OPERATION: &str = "TransactWriteItems";

/// What became of a transaction.
pub(crate) enum Transacted<Name> {
    /// All is written.
    Written,
    /// Nothing is written: the conditions of the writes with these names do not hold.
    Refused(Vec<Name>),
    /// Nothing is written: another transaction is under way at an item, or DynamoDB is busy.
    Conflict,
}

/// Makes all writes or none, again while other transactions are in the way. Gives the names of the writes whose
/// conditions do not hold; none = all are made. One write alone is no transaction, and costs half.
pub(crate) async fn transact<Name: Clone>(
    client: &Client,
    writes: Vec<(Name, TransactWriteItem)>,
) -> Result<Vec<Name>, StoreError> {
    let mut rounds = Rounds::new(CONFLICT);
    loop {
        // The SDK's futures are large, and every caller's would hold this one.
        match Box::pin(transact_once(client, writes.clone())).await? {
            Transacted::Written => return Ok(Vec::new()),
            Transacted::Refused(names) => return Ok(names),
            Transacted::Conflict => rounds.next().await?,
        }
    }
}

/// [`transact`], without the rounds.
pub(crate) async fn transact_once<Name>(
    client: &Client,
    writes: Vec<(Name, TransactWriteItem)>,
) -> Result<Transacted<Name>, StoreError> {
    if writes.len() > MAX_TRANSACT {
        return Err(StoreError::new(OPERATION, "too many writes for one transaction"));
    }
    let (names, mut writes): (Vec<Name>, Vec<TransactWriteItem>) = writes.into_iter().unzip();
    // A condition has no call of its own.
    let is_condition = writes.iter().any(|write| write.condition_check.is_some());
    if writes.len() <= 1 && !is_condition {
        let Some(write) = writes.pop() else {
            return Ok(Transacted::Written);
        };
        return Ok(match write_alone(client, write).await? {
            Updated::Made(_) => Transacted::Written,
            Updated::Refused(_) => Transacted::Refused(names),
            Updated::Conflict => Transacted::Conflict,
        });
    }
    // The SDK's idempotency token lets a request count once whose answer was lost.
    let request = client.transact_write_items().set_transact_items(Some(writes));
    let Err(error) = request.send().await else {
        return Ok(Transacted::Written);
    };
    match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => sort(names, cancelled),
        Some(TransactWriteItemsError::TransactionInProgressException(_)) => Ok(Transacted::Conflict),
        _ => Err(StoreError::sdk(OPERATION, &error)),
    }
}

/// Puts the reason of each write beside its name. <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
fn sort<Name>(
    names: Vec<Name>,
    cancelled: &TransactionCanceledException,
) -> Result<Transacted<Name>, StoreError> {
    let mut refused = Vec::new();
    for (name, reason) in names.into_iter().zip(cancelled.cancellation_reasons()) {
        match reason.code() {
            None
            | Some("None" | "TransactionConflict" | "ProvisionedThroughputExceeded" | "ThrottlingError") => {}
            Some("ConditionalCheckFailed") => refused.push(name),
            Some(code) => return Err(StoreError::new(OPERATION, code)),
        }
    }
    Ok(if refused.is_empty() {
        Transacted::Conflict
    } else {
        Transacted::Refused(refused)
    })
}

async fn write_alone(client: &Client, write: TransactWriteItem) -> Result<Updated, StoreError> {
    match write {
        TransactWriteItem {
            update: Some(update), ..
        } => send_update(client, ReturnValue::None, update).await,
        TransactWriteItem { put: Some(put), .. } => send_put(client, put).await,
        _ => Err(StoreError::new(OPERATION, "neither an update nor a put")),
    }
}

async fn send_put(client: &Client, put: Put) -> Result<Updated, StoreError> {
    let answer = client
        .put_item()
        .table_name(put.table_name)
        .set_item(Some(put.item))
        .set_condition_expression(put.condition_expression)
        .set_expression_attribute_names(put.expression_attribute_names)
        .set_expression_attribute_values(put.expression_attribute_values)
        .send()
        .await;
    let Err(error) = answer else {
        return Ok(Updated::Made(Item::new()));
    };
    match error.as_service_error() {
        Some(PutItemError::ConditionalCheckFailedException(_)) => Ok(Updated::Refused(Item::new())),
        Some(PutItemError::TransactionConflictException(_)) => Ok(Updated::Conflict),
        _ => Err(StoreError::sdk("PutItem", &error)),
    }
}
