//! What the tables hold, read by key and by index, a page at a time. Only the local stack's are ever scanned.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde_json::Value;
use shared::clock::Clock;
use shared::outbox::{Entry, Outbox};
use shared::sdk_error;
use shared::whatsapp::conversation::Turn;

use super::flow::Subject;
use crate::item::{self, CONTACTS, CONVERSATIONS, INSTALLS, OUTBOX};

/// Items on a page.
pub(crate) const PAGE: i32 = 100;
/// Pages that a subject's outbox items are looked for on.
const PAGES: usize = 3;
/// Items of a filtered page that are enough.
const ENOUGH: usize = 50;
/// Pages of the local stack that a search goes through.
const SEARCHED: usize = 20;

type Item = HashMap<String, AttributeValue>;

/// The key of an item, of text attributes only.
pub(crate) type Key = BTreeMap<String, String>;

/// A page of a table.
#[derive(Default)]
pub(crate) struct Page {
    /// Items as plain JSON.
    pub(crate) items: Vec<Value>,
    /// Where the next page begins.
    pub(crate) next: Option<Key>,
}

/// The tables of a stack.
#[derive(Clone)]
pub(crate) struct Tables {
    client: Client,
    contacts: String,
    installs: String,
    conversations: String,
    outbox_table: String,
    pub(crate) outbox: Outbox,
}

impl Tables {
    /// `name` gives a table's name by its logical id.
    pub(crate) fn new(
        client: Client,
        name: impl Fn(&str) -> anyhow::Result<String>,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let outbox_table = name(OUTBOX)?;
        Ok(Self {
            contacts: name(CONTACTS)?,
            installs: name(INSTALLS)?,
            conversations: name(CONVERSATIONS)?,
            outbox: Outbox::new(client.clone(), outbox_table.clone(), clock.clone()),
            outbox_table,
            client,
        })
    }

    /// The row of a subject; `None` if there is none.
    pub(crate) async fn row(&self, subject: &Subject) -> anyhow::Result<Option<Value>> {
        let (table, key) = match subject {
            Subject::Contact(id) => (&self.contacts, vec![("contact_key", id.as_str())]),
            Subject::Install(id) => (&self.installs, vec![("external_business_id", id.as_str())]),
            Subject::Conversation(id) => (
                &self.conversations,
                vec![("conversation_id", id.as_str()), ("sort_key", "conversation")],
            ),
        };
        if key
            .iter()
            .any(|(_, value)| value.is_empty() || value.len() > 1_000)
        {
            return Ok(None);
        }
        let key = key
            .into_iter()
            .map(|(name, value)| (name.to_owned(), text(value)));
        let answer = self
            .client
            .get_item()
            .table_name(table)
            .set_key(Some(key.collect()));
        let answer = answer.send().await;
        let answer = answer.map_err(|error| unreadable(table, &sdk_error::reason(&error)))?;
        Ok(answer.item.as_ref().map(item::plain_item))
    }

    /// The contacts of a user.
    pub(crate) async fn contacts_of(&self, user: &str) -> anyhow::Result<Vec<String>> {
        self.keys_by(&self.contacts, "by_user", ("user_id", user), "contact_key")
            .await
    }

    /// The businesses with this pixel, or of this Business Manager.
    pub(crate) async fn businesses_by(&self, id: &str) -> anyhow::Result<Vec<String>> {
        let key = "external_business_id";
        let mut found = self
            .keys_by(&self.installs, "by_pixel", ("pixel_id", id), key)
            .await?;
        let by_manager = ("business_manager_id", id);
        found.extend(
            self.keys_by(&self.installs, "by_manager", by_manager, key)
                .await?,
        );
        Ok(found)
    }

    async fn keys_by(
        &self,
        table: &str,
        index: &str,
        (attribute, value): (&str, &str),
        key: &str,
    ) -> anyhow::Result<Vec<String>> {
        if value.is_empty() || value.len() > 1_000 {
            return Ok(Vec::new());
        }
        let query = self.client.query().table_name(table).index_name(index);
        let query = query
            .key_condition_expression("#value = :value")
            .expression_attribute_names("#value", attribute)
            .expression_attribute_values(":value", text(value));
        let answer = query.limit(PAGE).send().await;
        let answer = answer.map_err(|error| unreadable(table, &sdk_error::reason(&error)))?;
        let items = answer.items.unwrap_or_default();
        let keys = items
            .iter()
            .filter_map(|item| item.get(key)?.as_s().ok().cloned());
        Ok(keys.collect())
    }

    /// The outbox items of a subject that were made since then.
    pub(crate) async fn items_since(&self, subject: &str, since: Timestamp) -> anyhow::Result<Vec<Entry>> {
        let mut found = Vec::new();
        let mut from: Option<Item> = None;
        for _ in 0..PAGES {
            let query = self
                .client
                .query()
                .table_name(&self.outbox_table)
                .key_condition_expression("subject = :subject")
                .filter_expression("created_at >= :since")
                .expression_attribute_values(":subject", text(subject))
                .expression_attribute_values(":since", AttributeValue::N(since.as_millisecond().to_string()))
                .consistent_read(true)
                .set_exclusive_start_key(from);
            let answer = query.send().await;
            let answer =
                answer.map_err(|error| unreadable(&self.outbox_table, &sdk_error::reason(&error)))?;
            let items = answer.items.unwrap_or_default();
            found.extend(items.into_iter().filter_map(|item| Entry::read(item).ok()));
            from = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if from.is_none() {
                break;
            }
        }
        Ok(found)
    }

    /// The newest outbox items of a subject, a page at most.
    pub(crate) async fn items_of(&self, subject: &Subject) -> anyhow::Result<Vec<Entry>> {
        let query = self
            .client
            .query()
            .table_name(&self.outbox_table)
            .key_condition_expression("subject = :subject")
            .expression_attribute_values(":subject", text(subject.outbox()))
            .scan_index_forward(false)
            .limit(PAGE);
        let answer = query.send().await;
        let answer = answer.map_err(|error| unreadable(&self.outbox_table, &sdk_error::reason(&error)))?;
        let items = answer.items.unwrap_or_default().into_iter();
        let mut entries: Vec<Entry> = items.filter_map(|item| Entry::read(item).ok()).collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.created_at));
        Ok(entries)
    }

    /// What was said in a conversation before `before` (a sort key), newest first.
    pub(crate) async fn turns(&self, conversation: &str, before: Option<&str>) -> anyhow::Result<Page> {
        let after = |key: &str| {
            HashMap::from([
                ("conversation_id".to_owned(), text(conversation)),
                ("sort_key".to_owned(), text(key)),
            ])
        };
        let query = self
            .client
            .query()
            .table_name(&self.conversations)
            .key_condition_expression("conversation_id = :id AND begins_with(sort_key, :turn)")
            .expression_attribute_values(":id", text(conversation))
            .expression_attribute_values(":turn", text(Turn::SORT_KEY_PREFIX))
            .set_exclusive_start_key(before.map(after))
            .scan_index_forward(false)
            .limit(PAGE);
        let answer = query.send().await;
        let answer = answer.map_err(|error| unreadable(&self.conversations, &sdk_error::reason(&error)))?;
        Ok(page(answer.items, answer.last_evaluated_key))
    }

    /// A page of contacts of the local stack.
    pub(crate) async fn contacts(&self, from: Option<Key>) -> anyhow::Result<Page> {
        self.scan(
            &self.contacts,
            "attribute_exists(facts) AND NOT contains(contact_key, :mark)",
            Some((":mark", "user_ref:")),
            from,
        )
        .await
    }

    /// A page of installs of the local stack.
    pub(crate) async fn installs(&self, from: Option<Key>) -> anyhow::Result<Page> {
        self.scan(&self.installs, "attribute_exists(facts)", None, from)
            .await
    }

    /// A page of conversations of the local stack.
    pub(crate) async fn conversations(&self, from: Option<Key>) -> anyhow::Result<Page> {
        self.scan(
            &self.conversations,
            "sort_key = :key",
            Some((":key", "conversation")),
            from,
        )
        .await
    }

    /// Contacts of the local stack whose key holds this.
    pub(crate) async fn contacts_like(&self, part: &str) -> anyhow::Result<Vec<String>> {
        let mut found = Vec::new();
        let mut from = None;
        for _ in 0..SEARCHED {
            let page = self.contacts(from).await?;
            let keys = page
                .items
                .iter()
                .filter_map(|item| item.get("contact_key")?.as_str());
            found.extend(keys.filter(|key| key.contains(part)).map(str::to_owned));
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        Ok(found)
    }

    /// Reads on until a page is full, for the filter may leave little of what is read.
    async fn scan(
        &self,
        table: &str,
        filter: &str,
        value: Option<(&str, &str)>,
        from: Option<Key>,
    ) -> anyhow::Result<Page> {
        let mut from = from.map(|key| {
            key.into_iter()
                .map(|(name, value)| (name, text(value)))
                .collect::<Item>()
        });
        let mut found: Vec<Item> = Vec::new();
        for _ in 0..SEARCHED {
            let mut scan = self.client.scan().table_name(table).filter_expression(filter);
            if let Some((name, value)) = value {
                scan = scan.expression_attribute_values(name, text(value));
            }
            let answer = scan.limit(PAGE).set_exclusive_start_key(from).send().await;
            let answer = answer.map_err(|error| unreadable(table, &sdk_error::reason(&error)))?;
            found.extend(answer.items.unwrap_or_default());
            from = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if from.is_none() || found.len() >= ENOUGH {
                break;
            }
        }
        Ok(page(Some(found), from))
    }
}

fn page(items: Option<Vec<Item>>, next: Option<Item>) -> Page {
    let next = next.filter(|key| !key.is_empty()).map(|key| {
        key.into_iter()
            .filter_map(|(name, value)| Some((name, value.as_s().ok()?.clone())))
            .collect()
    });
    Page {
        items: items.unwrap_or_default().iter().map(item::plain_item).collect(),
        next,
    }
}

fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

fn unreadable(table: &str, reason: &str) -> anyhow::Error {
    anyhow::anyhow!("the table {table} cannot be read: {reason}")
}
