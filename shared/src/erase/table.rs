//! Orders and receipts, in the outbox table.
//!
//! An erasure has the subject `erasure#<code>`: under `order` lies its outbox item, and under `receipt`, once it was
//! begun, what is told of it.

use serde::Deserialize;
use serde_json::json;

use super::order::{ORDER, Order, subject};
use super::receipt::{KEEP, Receipt};
use crate::outbox::{self, Entry, Outbox};
use crate::store::update::Update;
use crate::store::{Item, StoreError, attribute, number, string};

const RECEIPT: &str = "receipt";

/// Orders and receipts.
#[derive(Clone, Debug)]
pub struct Erasures {
    outbox: Outbox,
}

#[derive(Deserialize)]
struct ReceiptItem {
    receipt: Receipt,
}

impl Erasures {
    /// In the same table.
    #[must_use]
    pub fn new(outbox: Outbox) -> Self {
        Self { outbox }
    }

    /// Orders an erasure. `false` if there is one with this code, whatever became of it: it is not done again.
    pub async fn order(&self, code: &str, order: &Order) -> Result<bool, StoreError> {
        self.outbox.add(&order.item(code)).await
    }

    /// Orders an erasure, also if it was done before: somebody may have come back. `false` if it is under way.
    pub async fn order_anew(&self, code: &str, order: &Order) -> Result<bool, StoreError> {
        self.outbox.add_unless_pending(&order.item(code)).await
    }

    /// What is told of an erasure.
    pub async fn receipt(&self, code: &str) -> Result<Option<Receipt>, StoreError> {
        let keys = [key(code, ORDER), key(code, RECEIPT)];
        let (mut receipt, mut ordered) = (None, None);
        for item in self.outbox.table.get_all(&keys).await? {
            if item.get("event_key") == Some(&string(RECEIPT)) {
                receipt = Some(read(item)?);
            } else {
                ordered = Entry::read(item)
                    .ok()
                    .filter(|entry| entry.status == outbox::Status::Pending);
            }
        }
        let order = ordered.and_then(|entry| entry.payload::<Order>().ok());
        let received = order.map(|order| Receipt::received(&order));
        let is_newer = |received: &Receipt| {
            receipt
                .as_ref()
                .is_none_or(|receipt: &Receipt| received.follows(receipt))
        };
        Ok(received.filter(is_newer).or(receipt))
    }

    /// The receipt as it is stored.
    pub async fn stored_receipt(&self, code: &str) -> Result<Option<Receipt>, StoreError> {
        self.outbox
            .table
            .get(key(code, RECEIPT))
            .await?
            .map(read)
            .transpose()
    }

    /// Stores a receipt.
    pub async fn keep(&self, code: &str, receipt: &Receipt) -> Result<(), StoreError> {
        self.outbox.table.put_all(vec![self.item(code, receipt)?]).await
    }

    /// Stores how far a pending order has come. `false` if it is not pending any more.
    pub async fn progress(&self, code: &str, order: &Order) -> Result<bool, StoreError> {
        let update = Update::new(key(code, ORDER))
            .set("payload", string(json!(order).to_string()))
            .value("pending", string("pending"))
            .when("#status = :pending");
        self.outbox.table.update(update).await
    }

    fn item(&self, code: &str, receipt: &Receipt) -> Result<Item, StoreError> {
        let mut item = key(code, RECEIPT);
        item.insert("receipt".to_owned(), attribute(receipt)?);
        item.insert(
            "expires_at".to_owned(),
            number((self.outbox.table.now() + KEEP).as_second()),
        );
        Ok(item)
    }
}

fn read(item: Item) -> Result<Receipt, StoreError> {
    let item: Result<ReceiptItem, _> = serde_dynamo::from_item(item);
    item.map(|item| item.receipt)
        .map_err(|_| StoreError::unreadable("receipt read"))
}

fn key(code: &str, event_key: &str) -> Item {
    outbox::key(&subject(code), event_key)
}
