//! The custom event that an event of a listed kind becomes in Braze.

use serde_json::{Map, Value};

use super::event::{AccountLinking, Event, EventKind, Handover, Payment};
use super::link::has_the_form_of_a_token;
use crate::personal::Personal;

/// Braze takes property values of 255 characters.
pub(super) const LONGEST_PROPERTY: usize = 255;

/// The custom event without its identifier: `{name, time, properties}`. It never holds what a person wrote,
/// nor a token.
pub(super) fn custom_event(event: &Event) -> Value {
    let mut properties = Map::new();
    properties.insert("channel".to_owned(), event.channel.as_str().into());
    properties.insert("account_id".to_owned(), event.account_id.clone().into());
    if event.standby {
        properties.insert("standby".to_owned(), true.into());
    }
    for (name, value) in details(event) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            properties.insert(name.to_owned(), cut(value, LONGEST_PROPERTY).into());
        }
    }
    if let EventKind::Message(message) = &event.kind
        && !message.attachments.is_empty()
    {
        properties.insert("attachments".to_owned(), message.attachments.clone().into());
    }
    serde_json::json!({
        "name": format!("messenger_{}", event.kind.name()),
        "time": format!("{:.3}", event.at),
        "properties": properties,
    })
}

fn details(event: &Event) -> Vec<(&'static str, Option<&str>)> {
    let mut details = Vec::new();
    if let Some(referral) = event.referral() {
        details.push(("source", referral.source.as_deref()));
        details.push(("ref", plain(referral.reference.as_ref())));
        details.push(("ad_id", referral.ad_id.as_deref()));
    }
    match &event.kind {
        EventKind::Echo { send_id, .. } => details.push(("send_id", send_id.as_deref())),
        EventKind::Postback(postback) => details.push(("payload", plain(postback.payload.as_ref()))),
        EventKind::Optin(optin) => {
            details.push(("type", optin.optin_type.as_deref()));
            details.push(("ref", plain(optin.reference.as_ref())));
            details.push(("title", optin.title.as_deref()));
            details.push(("notification_status", optin.notification_status.as_deref()));
        }
        EventKind::Optout(optout) => {
            details.push(("type", optout.optout_type.as_deref()));
            details.push(("title", optout.title.as_deref()));
        }
        EventKind::Reaction(reaction) => {
            details.push(("action", Some(if reaction.removed { "unreact" } else { "react" })));
            details.push(("reaction", reaction.reaction.as_deref()));
        }
        EventKind::AccountLinking(linking) => details.push((
            "status",
            Some(match linking {
                AccountLinking::Linked { .. } => "linked",
                AccountLinking::Unlinked => "unlinked",
                AccountLinking::Other(status) => status,
            }),
        )),
        EventKind::Handover(handover) => details.push((
            "action",
            Some(match handover {
                Handover::Pass => "pass",
                Handover::Take => "take",
                Handover::Request => "request",
            }),
        )),
        EventKind::ResponseFeedback { feedback } => details.push(("feedback", feedback.as_deref())),
        EventKind::Payment(payment) => details.push((
            "type",
            Some(match payment {
                Payment::Payment => "payment",
                Payment::CheckoutUpdate => "checkout_update",
                Payment::PreCheckout => "pre_checkout",
            }),
        )),
        _ => {}
    }
    details
}

/// The text, unless it has the form of a token: tokens are credentials, valid or not.
pub(super) fn plain(text: Option<&Personal<String>>) -> Option<&str> {
    text.map(|text| text.as_str())
        .filter(|text| !has_the_form_of_a_token(text.trim()))
}

pub(super) fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}
