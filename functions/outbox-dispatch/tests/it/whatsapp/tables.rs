//! What the tables hold, and what happens to them behind the functions' backs.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::SignedDuration;
use serde_json::json;
use shared::outbox::{Kind, Outbox, OutboxItem};
use shared::whatsapp::conversation::Conversation;
use shared::whatsapp::message::ConversationId;
use shared::whatsapp::plan::Plan;
use shared::whatsapp::table::{Committed, Conversations};

use super::house::House;

pub(crate) type Item = HashMap<String, AttributeValue>;

/// A text of an item; empty if there is none.
pub(crate) fn text(item: &Item, name: &str) -> String {
    let value = item.get(name).and_then(|value| value.as_s().ok());
    value.cloned().unwrap_or_default()
}

impl House {
    /// Event keys and reasons of the outbox items in a status.
    pub(crate) async fn rows(&self, status: &str) -> Vec<(String, String)> {
        let items = self.items("OutboxTable").await.unwrap();
        let rows = items.iter().filter(|item| text(item, "status") == status);
        let mut rows: Vec<_> = rows
            .map(|item| (text(item, "event_key"), text(item, "reason")))
            .collect();
        rows.sort();
        rows
    }

    pub(crate) fn outbox(&self) -> Outbox {
        let table = self.table("OutboxTable").to_owned();
        Outbox::new(self.aws.dynamodb(), table, self.clock.clone())
    }

    /// The partition of the index over what is due that pending items lie in, by conversation.
    pub(crate) async fn shards(&self) -> BTreeMap<String, String> {
        let items = self.items("OutboxTable").await.unwrap();
        let pending = items.iter().filter(|item| item.contains_key("due_shard"));
        pending
            .map(|item| (text(item, "subject"), text(item, "due_shard")))
            .collect()
    }

    /// What is stored of a conversation under sort keys that begin so, in their order.
    pub(crate) async fn stored(&self, conversation: &str, prefix: &str) -> Vec<Item> {
        let mut items = self.items("ConversationsTable").await.unwrap();
        items.retain(|item| text(item, "conversation_id") == conversation);
        items.retain(|item| text(item, "sort_key").starts_with(prefix));
        items.sort_by_key(|item| text(item, "sort_key"));
        items
    }

    /// Everything said in a conversation is removed, as happens after a month.
    pub(crate) async fn forgets_turns(&self, conversation: &str) {
        self.forgets(conversation, "turn#").await;
    }

    /// The row of a conversation is lost, as in a table that was restored.
    pub(crate) async fn forgets_conversation(&self, conversation: &str) {
        self.forgets(conversation, "conversation").await;
    }

    /// A conversation is on a route that the settings need not know.
    pub(crate) async fn is_on_route(&self, conversation: &str, route: &str) {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let update = self.aws.dynamodb().update_item();
        let update = update
            .table_name(self.table("ConversationsTable"))
            .key("conversation_id", text(conversation))
            .key("sort_key", text("conversation"))
            .update_expression("SET facts.#route = :route")
            .expression_attribute_names("#route", "route")
            .expression_attribute_values(":route", text(route));
        update.send().await.unwrap();
    }

    /// All that waits of a conversation is not in the outbox any more.
    pub(crate) async fn forgets_items(&self, conversation: &str) {
        for (event_key, _) in self.rows("pending").await {
            let gone = self.aws.dynamodb().delete_item();
            let gone = gone.table_name(self.table("OutboxTable"));
            let gone = gone.key("subject", AttributeValue::S(conversation.to_owned()));
            let gone = gone.key("event_key", AttributeValue::S(event_key));
            gone.send().await.unwrap();
        }
    }

    async fn forgets(&self, conversation: &str, prefix: &str) {
        for item in self.stored(conversation, prefix).await {
            let gone = self.aws.dynamodb().delete_item();
            let gone = gone.table_name(self.table("ConversationsTable"));
            let gone = gone.key("conversation_id", item["conversation_id"].clone());
            let gone = gone.key("sort_key", item["sort_key"].clone());
            gone.send().await.unwrap();
        }
    }

    /// Items of a conversation are as another version would have written them.
    pub(crate) async fn spoils(&self, conversation: &str, prefix: &str) {
        for mut item in self.stored(conversation, prefix).await {
            for name in ["facts", "role"] {
                if let Some(value) = item.get_mut(name) {
                    *value = AttributeValue::S("of another version".to_owned());
                }
            }
            let put = self.aws.dynamodb().put_item();
            let put = put.table_name(self.table("ConversationsTable"));
            put.set_item(Some(item)).send().await.unwrap();
        }
    }

    /// So many messages wait, beside what waits already.
    pub(crate) async fn waiting(&self, conversation: &str, messages: usize) {
        let table = self.table("ConversationsTable").to_owned();
        let conversations = Conversations::new(table, self.outbox());
        let id = ConversationId::parse(conversation).unwrap();
        let user = conversation.strip_prefix("user:").unwrap();
        self.says(user, "message 0").await;
        let stored: Conversation = conversations.read(&id).await.unwrap().unwrap();
        let numbers: Vec<usize> = (1..messages).collect();
        for numbers in numbers.chunks(45) {
            let turn = |number: &usize| {
                let at = self.clock.now() + SignedDuration::from_millis(i64::try_from(*number).unwrap());
                serde_json::from_value(json!({
                    "id": format!("m{number:05}"), "at": at, "sequence": number, "role": "user",
                    "text": format!("message {number}"), "status": "pending",
                }))
                .unwrap()
            };
            let item = |number: &usize| OutboxItem {
                subject: conversation.to_owned(),
                event_key: format!("message#m{number:05}"),
                kind: Kind::RelayMessage,
                payload: json!({}),
                not_before: None,
            };
            let plan = Plan {
                conversation: stored.clone(),
                guards: Vec::new(),
                handed_over: Vec::new(),
                turns: numbers.iter().map(turn).collect(),
                outbox: numbers.iter().map(item).collect(),
            };
            assert_eq!(conversations.commit_beside(&plan).await.unwrap(), Committed::Yes);
        }
    }
}
